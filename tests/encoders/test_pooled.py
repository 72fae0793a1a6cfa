"""Poolers: what each of them refuses, and what it takes from a span."""

from __future__ import annotations

import pytest
import torch

from contracts.matrix import config
from latentwire.encoders import EncoderConfig
from latentwire.encoders.poolers import POOLERS
from latentwire.errors import UserError


@pytest.mark.parametrize("name", POOLERS)
@pytest.mark.parametrize("ratio", [1, 2, 8])
def test_one_vector_for_each_span_however_short_the_last_one_is(name, ratio):
    torch.manual_seed(0)
    pooler = POOLERS[name](width=8, heads=2, ratios=(1, 2, 8), group=3)
    x_BTW, count_B = torch.randn(2, 13, 8), torch.tensor([13, 5])
    x_BTW[1, 5:] = 0
    pooled = pooler(x_BTW, count_B, ratio)
    assert pooled.shape == (2, -(-13 // ratio), 8)
    alone = pooler(x_BTW[1:, :5], count_B[1:], ratio)
    torch.testing.assert_close(pooled[1:, : alone.shape[1]], alone)
    moved = x_BTW.clone()
    moved[:, 4] *= -1
    assert not torch.allclose(pooler(moved, count_B, ratio)[:, 4 // ratio], pooled[:, 4 // ratio])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"pooler": "mean"}, "queries, stages, convolution, expand, not 'mean'"),
        ({"pooler": "stages", "ratios": [4, 6]}, "ratio 6 is no power of two"),
        ({"pooler": "expand", "group": 0}, "group is 0"),
        ({"heads": 3}, "3 heads cannot share a width of 16"),
    ],
)
def test_what_cannot_be_pooled_is_refused(tiny_readers, changes, message):
    with pytest.raises(UserError, match=message):
        config(EncoderConfig, "pooled", tiny_readers, **changes).build()


@pytest.mark.parametrize("train_words", [False, True])
def test_words_are_frozen_unless_they_are_to_learn(tiny_readers, train_words):
    encoder = config(EncoderConfig, "pooled", tiny_readers, train_words=train_words).build()
    assert encoder.words.weight.requires_grad is train_words
    torch.testing.assert_close(encoder.words.weight.std(), torch.tensor(1.0))
