"""The mean of wires that went on from the same one: ``python -m latentwire.training.average OUT WIRE WIRE …``.

Runs from one start that saw other data, in another order, end at different places around the same minimum, and their
mean lies nearer to it than each of them (model soups, Wortsman et al. 2022). Two GPUs then make two runs instead of
one with twice the batch, and each run is also what the other is compared with.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import torch
from torch import Tensor

from latentwire.config import encode
from latentwire.errors import UserError
from latentwire.wire import Wire

ALIKE = 0.2
"""Matrices whose cosine is below this have nothing in common: those of fresh wires have one of about 0."""


def average(wires: list[str | Path], **load: object) -> Wire:
    """The mean of at least two wires, in the first one's float types. load: as of ``Wire.from_pretrained``.

    UserError: fewer than two, other settings, other receivers, or wires that were not one before.
    """
    if len(wires) < 2:
        raise UserError("an average is of at least two wires")
    first = Wire.from_pretrained(wires[0], **load)
    kept = first.state_dict()
    sums = {name: tensor.double() for name, tensor in kept.items() if tensor.is_floating_point()}
    for where in wires[1:]:
        other = Wire.from_pretrained(where, **load)
        if encode(other.settings) != encode(first.settings):
            raise UserError(f"{where} has other settings than {wires[0]}; only wires that went on from one have a mean")
        models = ([wire.get_receiver(name).fingerprint() for name in wire.receivers] for wire in (first, other))
        if len({tuple(found) for found in models}) > 1:
            raise UserError(f"{where} has other receivers than {wires[0]}")
        state = other.state_dict()
        for name, total in sums.items():
            if (
                first.codes is not None
                and first.codes.moving
                and name.startswith("codes.")
                and not torch.equal(kept[name], state[name])
            ):
                raise UserError(
                    f"{where} and {wires[0]} have other codes, whose mean means nothing; runs that are to be averaged "
                    "go on from one wire whose codes stay as they are (stages with learn: [encoder, links])"
                )
            if total.ndim > 1 and _cosine(kept[name], state[name]) < ALIKE:
                raise UserError(
                    f"{where} and {wires[0]} did not go on from the same wire: {name} has nothing in common"
                )
            total += state[name]
    mean = {name: (total / len(wires)).to(kept[name].dtype) for name, total in sums.items()}
    first.load_state_dict(kept | mean, strict=True)
    return first


def _cosine(one: Tensor, other: Tensor) -> float:
    if torch.equal(one, other):  # also where both are zero, as what was never used
        return 1.0
    return float(torch.nn.functional.cosine_similarity(one.flatten().double(), other.flatten().double(), 0))


def main(arguments: list[str] | None = None) -> None:
    """The command."""
    parser = argparse.ArgumentParser(
        prog="python -m latentwire.training.average", description=(__doc__ or "").split(":")[0] + "."
    )
    parser.add_argument("out", type=Path, help="directory to write the mean to")
    parser.add_argument("wires", nargs="+", metavar="WIRE", help="directories of wires, at least two")
    given = parser.parse_args(arguments)
    try:
        average(given.wires).save_pretrained(given.out)
    except UserError as error:
        sys.exit(f"error: {error}")
    print(given.out)


if __name__ == "__main__":
    main()
