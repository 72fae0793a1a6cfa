"""``benchmarks/fuzz_packets.py``: some thousands of its packets; and a reader that is not careful is noticed."""

from __future__ import annotations

import importlib.util
import json
import re
import sys
import zlib
from pathlib import Path

import pytest

from latentwire.packets import packet

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def script():
    sys.path.insert(0, str(ROOT / "benchmarks"))  # as python does for a script
    try:
        spec = importlib.util.spec_from_file_location("fuzz_packets", ROOT / "benchmarks" / "fuzz_packets.py")
        assert spec and spec.loader
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    finally:
        sys.path.remove(str(ROOT / "benchmarks"))
    return module


def test_mutated_packets_are_refused_or_as_good_as_any(script):
    found = script.fuzz(7, 0, 4000)
    assert not found["failures"]
    assert sum(found["counts"].values()) == 4000
    outcomes = {what for _, _, what in found["counts"]}
    # all that a reader looks at is reached, and what was mended reaches the codecs
    assert {
        "read",
        "refused: checksum",
        "refused: not finite",
        "refused: length",
        "refused: another encoder",
    } <= outcomes
    read = {name for name, mended, what in found["counts"] if what == "read" and mended == "mended"}
    assert {"flip", "span", "splice", "field", "scales", "forge"} <= read
    assert not [what for what in outcomes if "words of its own" in what]


def test_a_case_is_the_same_every_time(script):
    whole = script.corpus()
    assert [script.made(3, case, whole) for case in range(50)] == [script.made(3, case, whole) for case in range(50)]


class AlwaysFits:
    """A checksum that nobody looks at."""

    pack = staticmethod(packet.CHECKSUM.pack)

    @staticmethod
    def unpack_from(data, offset):
        return (zlib.crc32(data[offset + 4 :], zlib.crc32(data[:offset])),)


@pytest.mark.parametrize(
    ("name", "careless", "said"),
    [
        ("CHECKSUM", AlwaysFits, "damaged, and read all the same"),
        ("_header", lambda head: packet.HEADER.unpack_from(head)[2:], "IndexError"),
    ],
)
def test_a_reader_that_is_not_careful_is_noticed(script, monkeypatch, name, careless, said):
    whole = script.corpus()
    monkeypatch.setattr(script, "corpus", lambda: whole)
    monkeypatch.setattr(packet, name, careless)
    assert any(said in each["failure"] for each in script.fuzz(7, 0, 600)["failures"])


def test_greed_and_slowness_are_noticed(script, monkeypatch):
    monkeypatch.setattr(script, "SECONDS", 0.0)
    assert "took" in script.fuzz(7, 0, 1)["failures"][0]["failure"]
    monkeypatch.undo()
    monkeypatch.setattr(script, "allowed", lambda size: 0.5)
    assert "bytes of memory" in script.fuzz(7, 0, 3)["failures"][0]["failure"]


def test_the_page_tells_what_the_run_found():
    found = json.loads((ROOT / "benchmarks" / "results" / "fuzz-packets.json").read_text())
    page = (ROOT / "docs" / "packet-format.md").read_text(encoding="utf-8")
    assert found["failed"] == 0 and found["n"] >= 1_000_000 and sum(found["outcomes"].values()) == found["n"]
    told = re.search(r"read ([\d,]+) mutated packets.*?([\d,]+) of them were refused", page, re.DOTALL)
    assert told
    refused = sum(count for what, count in found["outcomes"].items() if what.startswith("refused"))
    assert [int(number.replace(",", "")) for number in told.groups()] == [found["n"], refused]
