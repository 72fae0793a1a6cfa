"""The page in a browser: what it shows is what the server says, by keyboard alone, on a phone, in the dark."""

from __future__ import annotations

import time
from typing import Any

import pytest

from experiments.chromium import NAMES, Chromium, binary
from serving.conftest import QUESTION, TEXT, asked, running

pytestmark = pytest.mark.skipif(binary() is None, reason=f"no browser: none of {', '.join(NAMES)} is installed")

SHOWN = """Object.fromEntries([...document.querySelectorAll('#models article')].map(card => [card.dataset.model,
  Object.fromEntries([...card.querySelectorAll('.side')].map(
    side => [side.dataset.from, side.querySelector('.said').textContent]))]))"""
NUMBERS = "[...document.querySelectorAll('#numbers dd')].map(one => one.firstChild.textContent)"
OVERFLOW = "[document.documentElement.scrollWidth, window.innerWidth]"
CONTRAST = """(() => {
  const linear = v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4
  const light = text => text.match(/[\\d.]+/g).slice(0, 3).map(v => linear(v / 255)).reduce(
    (sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0)
  const probe = document.body.appendChild(document.createElement('i'))
  const colour = name => { probe.style.color = `var(--${name})`; return light(getComputedStyle(probe).color) }
  return [['ink', 'card'], ['soft', 'card'], ['soft', 'page'], ['good', 'card'], ['bad', 'page'], ['bad', 'card'],
    ['on', 'accent'], ['line', 'card']].map(([one, other]) => {
      const [a, b] = [colour(one), colour(other)]
      return [one, (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05)]
    })
})()"""


def press(browser: Chromium, key: str, code: int, text: str = "", modifiers: int = 0) -> None:
    for kind in ("keyDown", "keyUp"):
        browser.ask(
            "Input.dispatchKeyEvent", type=kind, key=key, code=key, text=text if kind == "keyDown" else "",
            windowsVirtualKeyCode=code, modifiers=modifiers,
        )  # fmt: skip


def type_into(browser: Chromium, field: str, text: str) -> None:
    browser.value(f"document.getElementById('{field}').focus()")
    browser.value(f"document.getElementById('{field}').select()")
    browser.ask("Input.insertText", text=text)


def wait(browser: Chromium, script: str) -> Any:
    """The first true value of a script."""
    end = time.monotonic() + 60
    while not (found := browser.value(script)):
        assert time.monotonic() < end, f"{script} did not become true"
        time.sleep(0.05)
    return found


READY = "document.getElementById('ratio').options.length > 0"
DONE = "!document.getElementById('go').disabled && document.getElementById('status').textContent.startsWith('Encoded')"


def test_both_models_answer_from_text_and_from_latents(tiny_wire, tmp_path):
    with running(tiny_wire) as server, Chromium(tmp_path / "profile") as browser:
        browser.open(f"{server.url}/")
        wait(browser, READY)
        type_into(browser, "text", TEXT)
        browser.value("document.getElementById('ratio').value = '8'; document.getElementById('bits').value = '4'; 1")
        type_into(browser, "question", QUESTION)
        press(browser, "Enter", 13, "\r")  # no mouse
        wait(browser, DONE)

        made = server.post("/v1/latents", {"input": TEXT, "ratio": 8, "bits": 4}).json()["data"][0]
        facts = browser.value(NUMBERS)
        assert facts == [str(made["latents"]), f"{made['bytes']:,} bytes", f"{made['width']} × 4 bits"]
        assert browser.value("document.querySelectorAll('#norms rect').length") == made["latents"]
        part = {"type": "latent", "latent": made["latent"]}
        wanted: dict[str, dict[str, str]] = {}
        for name in tiny_wire.receivers:
            content = [part, {"type": "text", "text": QUESTION}]
            body = {"model": name, "messages": [{"role": "user", "content": content}]}
            said = server.post("/v1/chat/completions", body).json()["choices"][0]["message"]["content"]
            wanted[name] = {"text": tiny_wire.receiver(name).answer(TEXT, QUESTION), "latents": said}
        assert browser.value(SHOWN) == wanted
        assert "positions saved" in browser.value("document.querySelector('.saved').textContent")

        # encode alone, from within the text
        type_into(browser, "question", "")
        browser.value("document.getElementById('text').focus()")
        press(browser, "Enter", 13, "\r", modifiers=2)
        wait(browser, DONE + " && document.getElementById('answers').hidden")

        for dark in (False, True):
            browser.open(f"{server.url}/", width=360, height=780, dark=dark)
            wait(browser, READY)
            browser.value("document.getElementById('form').requestSubmit()")
            wait(browser, DONE)
            whole, window = browser.value(OVERFLOW)
            assert window == 360 and whole <= 360
            for name, ratio in browser.value(CONTRAST):
                # text wants 4.5, the line around a field 3 (WCAG 2.2, 1.4.3 and 1.4.11)
                assert ratio >= (3.0 if name == "line" else 4.5), f"{name}, dark {dark}: {ratio:.1f}"
        assert browser.complaints() == []
        assert all(address.startswith((server.url, "data:")) for address in browser.requests())
        fields = "[...document.querySelectorAll('textarea, input, select')].every(one => one.labels.length)"
        assert browser.value(fields), "every field has a label"


def test_a_refusal_is_said_and_a_key_is_asked_for(tiny_wire, packets, tmp_path):
    with running(tiny_wire, keys=("sesame",)) as server, Chromium(tmp_path / "profile") as browser:
        browser.open(f"{server.url}/")
        said = wait(browser, "document.getElementById('alert').textContent")
        assert "Bearer" in said and browser.value("document.getElementById('locked').open")
        type_into(browser, "key", "sesame")
        press(browser, "Tab", 9)
        wait(browser, READY)
        type_into(browser, "text", "<img src=x onerror=alert(1)> " + "word " * 300)  # beyond the tiny models' window
        browser.value("document.getElementById('form').requestSubmit()")
        wait(browser, DONE)
        texts = browser.value(SHOWN)
        assert all("window" in sides["text"] for sides in texts.values()), texts
        assert browser.value("document.querySelectorAll('img').length") == 0
        assert server.post("/v1/chat/completions", asked(packets[0])).status_code == 401


def test_the_page_may_load_nothing_from_elsewhere(server):
    with server.http as client:
        answer = client.get("/")
    policy = answer.headers["content-security-policy"]
    assert "default-src 'none'" in policy and "connect-src 'self'" in policy
    assert "http" not in answer.text.replace("http-equiv", "")
