"""The page in a browser: no complaint, no request, the file's numbers, and no sideways scrolling on a phone."""

from __future__ import annotations

import json
import re

import pytest

from experiments.chromium import NAMES, Chromium, binary

pytestmark = pytest.mark.skipif(binary() is None, reason=f"no browser: none of {', '.join(NAMES)} is installed")

CELLS = """[...document.querySelectorAll('#run-1 table.scores')].flatMap(table =>
  [...table.tBodies[0].rows].map(row => [table.dataset.receiver, row.cells[0].textContent.trim(), Object.fromEntries(
    [...row.querySelectorAll('td')].filter(cell => cell.querySelector('data')).map(
      cell => [cell.dataset.key, JSON.parse(cell.querySelector('data').value)]))]))"""
OVERFLOW = "[document.documentElement.scrollWidth, document.body.scrollWidth, window.innerWidth]"
INK = "getComputedStyle(document.querySelector('figure svg text')).fill"
CONTRAST = """(() => {
  const linear = v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4
  const light = text => text.match(/[\\d.]+/g).slice(0, 3).map(v => linear(v / 255)).reduce(
    (sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0)
  const card = light(getComputedStyle(document.querySelector('figure')).backgroundColor)
  const probe = document.body.appendChild(document.createElement('i'))
  const names = ['ink', 'soft', 'good', 'bad', 'accent', 's1', 's2', 's3', 's4', 's5', 's6', 's7', 's8']
  return Object.fromEntries(names.map(name => {
    probe.style.color = `var(--${name})`
    const own = light(getComputedStyle(probe).color)
    return [name, (Math.max(own, card) + 0.05) / (Math.min(own, card) + 0.05)]
  }))
})()"""


def test_in_a_browser(page, evaluated, tmp_path):
    rows = json.loads((evaluated / "results.json").read_text())["rows"]
    with Chromium(tmp_path / "profile") as browser:
        browser.open(page)
        shown = browser.value(CELLS)
        applies = [row for row in rows if not row["na"]]
        assert [line[:2] for line in shown] == [[row["receiver"], row["condition"]] for row in applies]
        for row, (_, _, cells) in zip(applies, shown, strict=True):
            assert cells == {key: row[key] for key in cells} and {"f1", "f1_ci", "em", "nll", "n"} <= set(cells)
        assert browser.value("document.querySelectorAll('svg[role=img]').length") > 10

        inks = {}
        for dark in (False, True):
            browser.open(page, width=360, height=780, dark=dark)
            for opened in ("false", "true"):  # also with all that can be folded out
                browser.value(f"document.querySelectorAll('details').forEach(one => one.open = {opened})")
                whole, body, window = browser.value(OVERFLOW)
                assert window == 360 and whole <= 360 and body <= 360
            inks[dark] = browser.value(INK)
            # text wants 4.5, lines 3 (WCAG 2.2, 1.4.3 and 1.4.11)
            contrast = browser.value(CONTRAST)
            for name, ratio in contrast.items():
                assert ratio >= (3.0 if re.fullmatch(r"s\d", name) else 4.5), f"{name}, dark {dark}: {ratio:.1f}"
        assert inks[False] != inks[True], "figures follow the colour scheme"

        # what scrolls sideways, and all that folds, is reached by the key Tab
        browser.value("document.querySelectorAll('details').forEach(one => one.open = false)")
        reached = "[...document.querySelectorAll('.scrolled, pre')].every(one => one.tabIndex === 0)"
        assert browser.value(reached)
        browser.value("document.querySelector('details.example summary').focus()")
        for kind in ("keyDown", "keyUp"):
            browser.ask(
                "Input.dispatchKeyEvent", type=kind, key="Enter", code="Enter", text="\r", windowsVirtualKeyCode=13
            )
        assert browser.value("document.querySelector('details.example').open")

        assert browser.complaints() == []
        assert set(browser.requests()) == {page.resolve().as_uri()}
