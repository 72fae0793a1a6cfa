"""A hint of the answer's style that comes from the latents and from nothing else."""

from __future__ import annotations

import inspect

import pytest
import torch

from latentwire.adapters.hinted import HintedAdapterConfig
from latentwire.adapters.linear import LinearAdapterConfig
from latentwire.errors import UserError
from latentwire.types import Latents


def some_latents(z: torch.Tensor, counts=(4, 2)) -> Latents:
    mask = torch.arange(z.shape[1]) < torch.tensor(counts)[:, None]
    return Latents(z * mask[..., None], mask, 4 * torch.tensor(counts), torch.tensor([4, 4]))


def test_it_starts_as_the_inner_adapter_and_its_styles_learn():
    torch.manual_seed(0)
    adapter = HintedAdapterConfig(inner=LinearAdapterConfig(), slots=(2,), styles=3).build(8, 16)
    latents = some_latents(torch.randn(2, 4, 8))
    torch.testing.assert_close(adapter(latents, "context", 2), adapter.inner(latents, "context", 2))
    adapter(latents, "prompt", 2).square().sum().backward()
    assert adapter.style_SE.grad is not None and adapter.style_SE.grad.abs().sum() > 0


def test_all_slots_of_a_text_get_one_style_by_its_mean_latent():
    torch.manual_seed(0)
    adapter = HintedAdapterConfig(inner=LinearAdapterConfig(), styles=3).build(8, 16)
    torch.nn.init.normal_(adapter.style_SE)
    z = torch.randn(2, 4, 8)
    latents = some_latents(z)
    added = adapter(latents, "prompt", 1) - adapter.inner(latents, "prompt", 1)
    torch.testing.assert_close(added, added[:, :1].expand_as(added))
    mean = torch.stack([z[0].mean(0), z[1, :2].mean(0)])
    shares = adapter.choose["prompt"](mean).softmax(-1)
    torch.testing.assert_close(added[:, 0], shares @ adapter.style_SE)
    assert not torch.allclose(added[0, 0], added[1, 0])


def test_defect_05_nothing_of_the_answer_can_reach_the_hint():
    adapter = HintedAdapterConfig(inner=LinearAdapterConfig()).build(8, 16)
    for method in (adapter.forward, adapter.shares):
        assert set(inspect.signature(method).parameters) <= {"latents", "mode", "slots"}


def test_what_makes_no_sense_is_refused():
    with pytest.raises(UserError, match="at least 2, not 1"):
        HintedAdapterConfig(styles=1).build(8, 16)
    with pytest.raises(UserError, match="one hint is enough"):
        HintedAdapterConfig(inner=HintedAdapterConfig()).build(8, 16)
