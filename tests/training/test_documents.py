"""Several packets behind one another in training: each passage is answered among others, as a reader would meet it."""

from __future__ import annotations

import pytest
import torch

from latentwire.errors import UserError
from latentwire.training.run import train
from latentwire.training.sending import among
from latentwire.types import Latents

DRAWS = "draws=[{ratio: 4}, {ratio: 8, documents: 3, share: 2}]"


def latents(B: int) -> Latents:
    z_BMD = torch.arange(B).float()[:, None, None].expand(B, 2, 3)
    return Latents(z_BMD, torch.ones(B, 2, dtype=torch.bool), torch.full((B,), 8), torch.full((B,), 4))


@pytest.mark.parametrize("documents", [1, 2, 3])
def test_a_passage_stands_at_each_place_in_turn(documents):
    parts = among(latents(7), documents)
    rows = torch.stack([part.z_BMD[:, 0, 0].long() for part in parts], 1)
    assert rows.shape == (7, documents)
    for own, row in enumerate(rows.tolist()):
        assert row[own % documents] == own and len(set(row)) == documents


def test_fewer_passages_than_documents_are_refused():
    with pytest.raises(UserError, match="3 documents need as many passages"):
        among(latents(2), 3)


def test_a_run_learns_from_several_packets(tiny_config, tmp_path):
    path = train(tiny_config, [DRAWS, "steps=6"], out=tmp_path / "run")
    metrics = (path.parent / "metrics.jsonl").read_text()
    assert '"draw": "8x-of3"' in metrics and "llama/answer@8x-of3" in metrics


@pytest.mark.parametrize(
    ("draws", "why"),
    [("{ratio: 4, documents: 9}", "9 documents need"), ("{ratio: 4, documents: 0}", "a number from 1"),
     ("{ratio: 4, documents: 2, mode: prompt}", "stand alone")],
)  # fmt: skip
def test_what_cannot_be_is_refused(tiny_config, tmp_path, draws, why):
    with pytest.raises(UserError, match=why):
        train(tiny_config, [f"draws=[{draws}]", "corpus.prompts=8"], out=tmp_path / "run")


def test_an_objective_that_compares_a_passage_with_its_own_packet_is_refused(tiny_config, tmp_path):
    more = [DRAWS, "objectives.distinct={type: contrastive}"]
    with pytest.raises(UserError, match="would compare it with this one"):
        train(tiny_config, more, out=tmp_path / "run")
