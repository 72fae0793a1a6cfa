"""``benchmarks/packet_bytes.py``: lengths that can be worked out by hand, and a page that holds what the file holds."""

from __future__ import annotations

import importlib
import json
import math
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

BENCHMARKS = Path(__file__).resolve().parents[1] / "benchmarks"


@pytest.fixture
def script(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return importlib.import_module("packet_bytes")


def test_the_arithmetic_code_is_as_long_as_the_text_is_unlikely(script, tiny_wire, tiny_readers):
    receiver = tiny_wire.get_receiver("llama")
    texts = ["one two three four", "five six seven eight nine ten eleven"]
    # the library's own attention, which cannot look ahead
    plain = AutoModelForCausalLM.from_pretrained(tiny_readers["llama"]).eval()
    bits = 0.0
    for row in receiver.prompt.context_ids(texts):
        with torch.no_grad():
            logits = plain(input_ids=torch.tensor([[receiver.prompt.bos_id, *row]])).logits[0, :-1].float()
        bits -= float(logits.log_softmax(-1)[range(len(row)), row].sum()) / math.log(2)
    assert script.code_bytes(receiver, texts) == pytest.approx(bits / 8 / 2, rel=1e-4)


def test_a_dictionary_of_like_text_helps(script):
    texts = [f"The {n}th letter of Curie was sent from Paris to Oslo in the year {1800 + n}." for n in range(400)]
    found = script.zstd_bytes(texts[:20], texts[20:])
    assert found["zstd -19, trained dictionary"] < 0.6 * found["zstd -19"] < len(texts[0])


def test_the_page_holds_what_the_file_holds(script):
    found = json.loads(script.RESULTS.read_text(encoding="utf-8"))
    whole = json.loads((BENCHMARKS / "results" / "sandbox-full.json").read_text(encoding="utf-8"))
    assert found["encoder"] == whole["wire"]["encoder"], "the packets are of another wire"
    page = script.PAGE.read_text(encoding="utf-8")
    assert script.fill(page, found) == page, "run python benchmarks/packet_bytes.py --fill"
