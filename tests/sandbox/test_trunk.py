"""What is trained is what transformers runs, and packed rows are seen as the single rows that they stand for."""

from __future__ import annotations

import pytest
import torch

from latentwire.sandbox import checkpoint, packing, tokenizers
from latentwire.sandbox.trunk import FAMILIES, Shape, Trunk, init


def small(family: str) -> Shape:
    kv = 2 if family != "gpt2" else 4
    return Shape(family, 300, 48 if family == "qwen2" else 64, 2, 4, kv, 16, 96, 128)


def spread(weights):
    """Fresh weights with every vector moved off its neutral start, so a forgotten bias shows."""
    generator = torch.Generator().manual_seed(5)
    return {n: t + 0.1 * torch.randn(t.shape, generator=generator) for n, t in weights.items()}


@pytest.mark.parametrize("family", FAMILIES)
def test_logits_equal_transformers(family, tmp_path):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    shape = small(family)
    weights = spread(init(shape, 0))
    checkpoint.export(shape, weights, tokenizers.shipped(family), tmp_path / "reader")
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "reader").eval()
    assert AutoTokenizer.from_pretrained(tmp_path / "reader").eos_token == "</s>"
    ids = torch.randint(3, 300, (2, 40), generator=torch.Generator().manual_seed(1))
    place = torch.arange(40).expand(2, 40)
    with torch.no_grad():
        ours = Trunk(shape, weights).states(ids, place) @ weights["embed"].T
        theirs = model(input_ids=ids).logits
    assert torch.allclose(ours, theirs, atol=2e-4), (ours - theirs).abs().max()
    assert sum(p.numel() for p in model.parameters()) == shape.parameters()


@pytest.mark.parametrize("family", FAMILIES)
def test_a_packed_question_sees_its_context_and_itself_only(family):
    shape = small(family)
    trunk = Trunk(shape, spread(init(shape, 0)))
    generator = torch.Generator().manual_seed(2)
    draw = lambda n: torch.randint(3, 300, (n,), generator=generator).tolist()  # noqa: E731
    groups = [packing.Group(draw(n), [(draw(5), draw(2)) for _ in range(k)]) for n, k in ((11, 3), (8, 2))]
    rows = packing.pack(groups, 64)
    ids, place = (torch.from_numpy(a.astype("int64")) for a in (rows.ids, rows.position))
    segment = torch.from_numpy(rows.segment)
    with torch.no_grad():
        packed = trunk.states(ids, place, packing.allowed(segment))
        for number, group in enumerate(groups):
            for block, (question, answer) in enumerate(group.blocks, start=1):
                alone = torch.tensor([group.context + question + answer])
                states = trunk.states(alone, torch.arange(alone.shape[1])[None])[0, len(group.context) :]
                row, at = torch.nonzero(segment == number * packing.BLOCKS + block, as_tuple=True)
                assert torch.allclose(packed[row, at], states, atol=1e-4)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_checkpoint_is_read_back_as_it_was(family, tmp_path):
    shape = small(family)
    weights = spread(init(shape, 3))
    checkpoint.export(shape, weights, tokenizers.shipped(family), tmp_path / "reader")
    again = checkpoint.read(shape, tmp_path / "reader")
    assert again.keys() == weights.keys()
    assert all(torch.equal(again[name], weights[name]) for name in weights)
