"""A wire without weights: built from the configs of its models alone, so that it can be counted before it is loaded."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM

from latentwire.encoders.lm import LMEncoderConfig
from latentwire.errors import UserError
from latentwire.receivers import Receiver
from latentwire.receivers.load import DTYPES
from latentwire.receivers.tokenizer import load_tokenizer
from latentwire.saved import WireConfig, settings_of
from latentwire.shipped import resolve
from latentwire.training.config import TrainConfig
from latentwire.wire import Wire

STAND_IN = "sandbox:llama"
"""Whose tokenizer stands where one is not on this machine: nothing that is counted depends on it."""
NOWHERE = torch.device("meta")


def config_of(where: str | Path) -> Any:
    """transformers' config of a checkpoint. UserError: it is neither here nor to be had."""
    try:
        return AutoConfig.from_pretrained(resolve(where))
    except (OSError, ValueError) as error:
        reason = " ".join(str(error).split()).split(". ")[0]
        raise UserError(
            f"the config.json of {where} is not to be had ({reason}); give a directory that holds it"
        ) from None


def tokenizer_of(where: str | Path) -> Any:
    """The checkpoint's tokenizer, or another."""
    with suppress(OSError, ValueError, UserError):
        return load_tokenizer(resolve(where))
    return load_tokenizer(resolve(STAND_IN))


def receiver(name: str, where: str, dtype: str) -> Receiver:
    """A receiver of the checkpoint's shape. dtype: of its weights, as ``load.dtype`` names it; bfloat16 if empty."""
    with NOWHERE:
        model = AutoModelForCausalLM.from_config(config_of(where), dtype=DTYPES.get(dtype, torch.bfloat16))
    return Receiver(name, model, tokenizer_of(where))


def settings(config: TrainConfig) -> WireConfig:
    """What the run's wire is made of: its own, or that of the wire it starts from with the links it adds."""
    if not config.start:
        return config.wire
    start = settings_of(config.start)
    links = {name: link for name, link in start.links.items() if not config.links or name in config.links}
    return WireConfig(start.encoder, links | {name: config.wire.links[name] for name in config.join}, start.codes)


def skeleton(config: TrainConfig) -> tuple[Wire, list[str]]:
    """The wire of a run on no device, and the names of the links that learn. ``grow`` is left out.

    UserError: a model's config is not to be had, or the encoder is of a kind that needs more than configs.
    """
    made = settings(config)
    names = [name for name in made.links if not config.links or name in config.links]
    receivers = {name: receiver(name, made.links[name].receiver, made.links[name].load.dtype) for name in names}
    with TemporaryDirectory() as folder:
        assets = Path(folder)
        _assets(made.encoder, assets)
        with NOWHERE:
            wire = Wire(made, receivers, assets if isinstance(made.encoder, LMEncoderConfig) else None)
    if config.join:
        wire.requires_grad_(False)
        for name in config.join:
            wire.links[name].requires_grad_(True)
    return wire, [name for name in names if not config.join or name in config.join]


def _assets(encoder: Any, folder: Path) -> None:
    """What a saved encoder of this config keeps beside its weights."""
    if not isinstance(encoder, LMEncoderConfig):
        if getattr(encoder, "init", "") or getattr(encoder, "inner", None):
            kind = encoder.get_choice_name(type(encoder))
            raise UserError(
                f"an encoder of type {kind!r} cannot be counted without its weights; train --dry-run shows the config"
            )
        return
    lm = config_of(encoder.init)
    if encoder.layers:
        lm.num_hidden_layers = encoder.layers
    lm.save_pretrained(folder / "lm")
    tokenizer_of(encoder.init).save_pretrained(folder / "lm")
    for number, name in enumerate(encoder.lexicons):
        where, words = folder / f"lexicon{number}", config_of(name)
        tokenizer_of(name).save_pretrained(where)
        if encoder.lexicon_layers:
            words.num_hidden_layers = encoder.lexicon_layers
            words.save_pretrained(where)
        else:
            (where / "shape").write_text(f"{words.vocab_size} {encoder.word}")
