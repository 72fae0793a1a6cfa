"""Codes that a wire has just been given begin from what its latents say, if they can."""

from __future__ import annotations

import logging
from dataclasses import replace

import torch

from latentwire.training.config import TrainConfig
from latentwire.wire import Wire

log = logging.getLogger(__name__)
BATCH = 64  # pieces of text


def begin_codes(config: TrainConfig, wire: Wire, texts: list[str]) -> None:
    """Let codes that are new to the wire begin from its latents of these texts, at the first draw of codes' ratio.

    UserError: there are too few texts, or draws name codes that the wire does not have.
    """
    draws = [draw for stage in config.stages for draw in stage.draws or ()] + config.draws
    ratios = []
    for draw in draws:
        if draw.codes:
            wire.books.stages(draw.codes)  # said now, and not when luck first draws it
            ratios.append(draw.ratio)
    if not ratios:
        return
    note(wire, ratios)
    if not wire.books.fresh:
        return
    wire.books.fresh, ratio = False, ratios[0]
    latents, tokens, table = [], [], None
    training = wire.encoder.training
    source = wire.encoder.eval().prepare(texts)
    for start in range(0, len(source.owner_P), BATCH):
        batch = {
            name: torch.from_numpy(array[start : start + BATCH]).to(wire.device)
            for name, array in source.arrays.items()
        }
        with torch.no_grad():
            made, spelled = wire.encoder(batch, ratio), wire.encoder.spelled(batch, ratio)
        if spelled is None:
            break
        many, table = made.mask_BM.shape[1], spelled[1]
        latents.append(made.z_BMD[made.mask_BM].float())
        tokens.append(spelled[0][:, :many][made.mask_BM])
    wire.encoder.train(training)
    if table is not None and wire.books.begin(torch.cat(latents), torch.cat(tokens), table.float()):
        log.info("codes begin from %d latents at %dx", sum(map(len, latents)), ratio)
    else:
        log.info("codes begin untrained: they have no start from tokens, or not for spans of %d", ratio)


def note(wire: Wire, ratios: list[int]) -> None:
    """Keep with the wire what its codes learn at, beside what they have learned at; unknown stays unknown."""
    codes = wire.books
    if codes.config.ratios or codes.fresh:
        # settings may be those of the run's config as well: what is written there stays as it is
        codes.config = replace(codes.config, ratios=sorted({*codes.config.ratios, *ratios}))
        wire.settings = replace(wire.settings, codes=codes.config)
