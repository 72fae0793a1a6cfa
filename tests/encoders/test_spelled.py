"""Which tokens a latent stands for: told by the encoder whose latents stand for tokens, and by no other."""

from __future__ import annotations

import pytest
import torch

from conftest import WORDS
from contracts.matrix import config
from latentwire.encoders import EncoderConfig


@pytest.mark.parametrize("start", ["llama", "gpt2"])
@pytest.mark.parametrize("ratio", [4, 8])
def test_each_latent_has_the_tokens_of_its_span(tiny_readers, ratio, start):
    encoder = config(EncoderConfig, "lm", tiny_readers, init=start).build().eval()
    texts = [WORDS[:80], WORDS[40:90]]  # of one piece each
    batch = {name: torch.from_numpy(array) for name, array in encoder.prepare(texts).arrays.items()}
    found = encoder.spelled(batch, ratio)
    assert found is not None
    ids_BMP, table_VE = found
    mask_BM = encoder(batch, ratio).mask_BM
    assert table_VE.shape[0] >= len(encoder.tokenizer)
    for row, text in enumerate(texts):
        ids = encoder.tokenizer(f" {text}", add_special_tokens=False)["input_ids"]
        own = ids_BMP[row, : mask_BM.shape[1]][mask_BM[row]]
        assert own.flatten().tolist() == ids + [-1] * (own.numel() - len(ids))


def test_latents_that_stand_for_no_tokens_have_none(tiny_readers):
    for name, more in (("lm", {"fixed": True}), ("byte", {})):
        encoder = config(EncoderConfig, name, tiny_readers, **more).build().eval()
        batch = {key: torch.from_numpy(array) for key, array in encoder.prepare([WORDS]).arrays.items()}
        assert encoder.spelled(batch, 4) is None
