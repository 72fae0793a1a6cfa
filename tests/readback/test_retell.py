"""Reading back word by word: every token is judged once, batches make no difference, and it tells texts apart."""

from __future__ import annotations

import pytest
import torch

from conftest import WORDS
from latentwire import Wire
from latentwire.errors import UserError
from latentwire.readback import retell
from latentwire.readback.retell import CUE, ROW, _rows

TEXTS = [WORDS[:70], WORDS[71:460], WORDS[100:131]]


@pytest.mark.parametrize("length", [CUE + 1, ROW - 1, ROW, ROW + 1, 3 * ROW])
def test_every_token_behind_the_first_cue_is_judged_once(length):
    texts = [list(range(100, 100 + length)), list(range(500, 505))]
    rows_BRT, judged_BRT = _rows(texts, 7, 0, torch.device("cpu"))
    assert rows_BRT.shape == judged_BRT.shape and rows_BRT.shape[2] == ROW
    assert (rows_BRT[..., 0] == 7).all()
    for text, rows, judged in zip(texts, rows_BRT, judged_BRT, strict=True):
        assert rows[judged].tolist() == text[CUE:]
    # what is judged stands behind the tokens that come before it in the text
    rows, judged = rows_BRT[0], judged_BRT[0]
    for r, t in judged.nonzero().tolist():
        assert rows[r, t - CUE : t].tolist() == [int(rows[r, t]) - k for k in range(CUE, 0, -1)]


def test_neighbours_change_nothing(tiny_wire):
    packets = tiny_wire.encode(TEXTS, ratio=4)
    together = retell(tiny_wire, "llama", packets, TEXTS)
    for packet, text, found in zip(packets, TEXTS, together, strict=True):
        alone = retell(tiny_wire, "llama", [packet], [text])[0]
        assert (alone.right, alone.tokens) == (found.right, found.tokens)
        assert alone.likelihood == pytest.approx(found.likelihood, rel=1e-4)
        assert found.tokens == len(tiny_wire.get_receiver("llama").prompt.context_ids([text])[0]) - CUE


def test_what_cannot_be_judged_is_refused(tiny_wire):
    packet = tiny_wire.encode(TEXTS[:1], ratio=4)
    with pytest.raises(UserError, match="1 packets but 2 texts"):
        retell(tiny_wire, "llama", packet, TEXTS[:2])
    with pytest.raises(UserError, match="needed to read any back"):
        retell(tiny_wire, "llama", packet, ["a"])
    asked = tiny_wire.encode(TEXTS[:1], ratio=4, questions=["Who?"])
    with pytest.raises(UserError, match="prompt mode"):
        retell(tiny_wire, "llama", asked, TEXTS[:1])


def test_a_packet_tells_its_own_text_from_another():
    wire = Wire.from_pretrained("sandbox", receivers=["llama"])
    texts = [
        "The expedition of 1911 was led by Roald Amundsen, who reached the South Pole with four companions and dogs.",
        "Copper is a soft red metal. It is used for wires because it conducts electricity better than iron or steel.",
    ]
    packets = wire.encode(texts, ratio=4)
    own, other = retell(wire, "llama", packets, texts), retell(wire, "llama", packets, texts[::-1])
    assert all(a.right > b.right + 0.2 and a.likelihood > 3 * b.likelihood for a, b in zip(own, other, strict=True))
