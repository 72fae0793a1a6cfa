"""Statistics of channels kept in the wire, or scales in the packet: ``python benchmarks/channel_statistics.py``.

The codecs of 8, 6 and 4 bits send a float16 scale for every 32 values. A wire could keep mean and spread of each of its
channels instead, estimated once from latents of other texts, and packets would carry no scale, or one for each latent.
Both are compared on passages of the shipped questions: bytes of a packet, and the squared error as a share of the
latents' mean square. Statistics, clips and levels come from passages of other articles than those measured.

A grid is so many levels for values less their channel's mean, over its spread. ``even`` levels are equally far apart,
clipped where it costs least; ``fitted`` ones are where least is lost of the values met (Lloyd 1982). Where a number of
levels is no power of two, a packet is taken to be one large number: the best that packing can do. ``--fill`` puts the
table into docs/packets.md.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from latentwire import Wire
from latentwire.codecs import Codec, by_bits
from latentwire.data.progress import progress
from latentwire.data.rows import read_examples
from latentwire.data.squad import article, shipped_valid
from latentwire.environment import environment
from latentwire.packets.packet import HEADER_BYTES
from latentwire.types import Example

ROOT = Path(__file__).resolve().parents[1]
RESULTS, PAGE = ROOT / "benchmarks" / "results" / "channel-statistics.json", ROOT / "docs" / "packets.md"
BLOCK = re.compile(r"(<!-- channels:begin -->\n).*?(<!-- channels:end -->)", re.DOTALL)
BITS = (8, 6, 4)
CLIPS = [1.5 + 0.1 * i for i in range(40)]
"""Spreads from the mean that are tried for the outermost of even levels."""
ROUNDS, SAMPLE = 200, 400_000
"""Of Lloyd's algorithm; and values that a grid is made for, drawn from those there are."""

Told = Callable[[Tensor], Tensor]
"""What is left of standardised values [N, D] after the round trip."""


def split(examples: Iterable[Example], n: int, seed: int) -> tuple[list[str], list[str]]:
    """``n`` passages to fit on and ``n`` to measure, of different articles."""
    titles = {example.context: article(example.id) for example in examples}
    names = sorted(set(titles.values()))
    luck = random.Random(seed)
    luck.shuffle(names)
    first = set(names[::2])
    sides = [[text for text, name in titles.items() if (name in first) == fits] for fits in (True, False)]
    fit, measured = (luck.sample(side, min(n, len(side))) for side in sides)
    return fit, measured


def on_grid(levels_L: Tensor) -> Told:
    """Each value as the nearest level; levels are in order."""
    edges = (levels_L[1:] + levels_L[:-1]) / 2
    return lambda u: levels_L[torch.bucketize(u, edges)]


def drawn(u_ND: Tensor) -> Tensor:
    """At most :data:`SAMPLE` of the values, in order."""
    draw = torch.randperm(u_ND.numel(), generator=torch.Generator().manual_seed(0))[:SAMPLE]
    return u_ND.flatten()[draw].sort().values


def even(x_N: Tensor, count: int) -> Tensor:
    """``count`` levels equally far apart, as wide as loses least of these values."""
    grids = [torch.linspace(-clip, clip, count) for clip in CLIPS]
    return min(grids, key=lambda grid: float((on_grid(grid)(x_N) - x_N).square().mean()))


def fitted(x_N: Tensor, count: int) -> Tensor:
    """``count`` levels, each the mean of the values that are nearest to it. x_N: in order."""
    # many levels hardly move from where they begin: so at the best for normal values (Panter, Dite 1951)
    share_L = (torch.arange(count, dtype=torch.float64) + 0.5) / count
    levels, x_N = 3**0.5 * torch.special.ndtri(share_L), x_N.double()
    sums = torch.cat([x_N.new_zeros(1), x_N.cumsum(0)])
    for _ in range(ROUNDS):
        inner = torch.searchsorted(x_N, (levels[1:] + levels[:-1]) / 2)
        at = torch.cat([inner.new_zeros(1), inner, inner.new_tensor([len(x_N)])])
        many = at.diff()
        levels = torch.where(many > 0, (sums[at[1:]] - sums[at[:-1]]) / many.clamp_min(1), levels)
    return levels.float()


def scaled(told: Told) -> Told:
    """The same with a float16 scale for each latent."""

    def apply(u_ND: Tensor) -> Tensor:
        scale_N1 = u_ND.square().mean(-1, keepdim=True).sqrt().half().float()
        return told(u_ND / scale_N1) * scale_N1

    return apply


def levels_of(bits: float) -> int:
    """The most levels that fit into so many bits per value."""
    return math.floor(2**bits + 1e-9)


def least_levels(x_N: Tensor, most: int, good: Callable[[Told], bool]) -> int:
    """The fewest fitted levels that are ``good`` enough; twice ``most`` where that takes still more."""
    low, high = 2, 2 * most
    while low < high:
        middle = (low + high) // 2
        if good(on_grid(fitted(x_N, middle))):
            high = middle
        else:
            low = middle + 1
    return low


def measure(fit_ND: Tensor, z_ND: Tensor, latents: float) -> list[dict[str, Any]]:
    """A row for each way and number of bits, with statistics of ``fit_ND``. latents: of a packet, in the mean."""
    mean_D, spread_D = fit_ND.mean(0), fit_ND.std(0).clamp_min(1e-6)
    x_N, u_ND, width = drawn((fit_ND - mean_D) / spread_D), (z_ND - mean_D) / spread_D, z_ND.shape[1]

    def error(told_ND: Tensor) -> float:
        return float((told_ND - z_ND).square().mean() / z_ND.square().mean())

    def of(told: Told) -> float:
        return error(told(u_ND) * spread_D + mean_D)

    def own_bytes(levels: int) -> float:
        return latents * width * math.log2(levels) / 8

    rows = []
    for bits in BITS:
        codec: Codec = by_bits(bits)
        a_latent = codec.nbytes(1000, width) / 1000
        same = levels_of(8 * a_latent / width)
        base = error(codec.fake_quantise(z_ND[None])[0])
        plain, alike = on_grid(even(x_N, 2**bits)), on_grid(even(x_N, same))
        standard = of(lambda u, codec=codec: codec.fake_quantise(u[None])[0])
        enough = least_levels(x_N, same, lambda told, base=base: of(told) <= base)
        found = [
            ("groups of 32, a scale each", None, latents * a_latent, base),
            ("the same of standardised channels", None, latents * a_latent, standard),
            ("channels, even levels", 2**bits, own_bytes(2**bits), of(plain)),
            ("channels, even levels, a scale per latent", 2**bits, own_bytes(2**bits) + 2 * latents, of(scaled(plain))),
            ("channels, even levels, bytes of groups", same, own_bytes(same), of(alike)),
            ("channels, fitted levels", 2**bits, own_bytes(2**bits), of(on_grid(fitted(x_N, 2**bits)))),
            ("channels, fitted levels, bytes of groups", same, own_bytes(same), of(on_grid(fitted(x_N, same)))),
            ("channels, fitted levels, error of groups", enough, own_bytes(enough), of(on_grid(fitted(x_N, enough)))),
        ]
        rows += [
            {"what": what, "bits": bits, "levels": levels, "bytes": round(HEADER_BYTES + size, 1), "error": left}
            for what, levels, size, left in found
        ]
    return rows


def run(wire: Wire, fit: list[str], texts: list[str], ratios: Iterable[int]) -> dict[str, Any]:
    """What the file holds."""
    rows, spreads = [], {}
    for ratio in ratios:
        with progress(f"encoding at {ratio}x") as show:
            show(0, "")
            sides = [[packet.z_MD for packet in wire.encode(side, ratio, batch_size=16)] for side in (fit, texts)]
        fit_ND, z_ND = (torch.cat(side) for side in sides)
        rows += [{"ratio": ratio} | row for row in measure(fit_ND, z_ND, len(z_ND) / len(texts))]
        spread_D, size_N = fit_ND.std(0), z_ND.square().mean(-1).sqrt()
        spreads[ratio] = {
            "channels": [float(spread_D.min()), float(spread_D.mean()), float(spread_D.max())],
            "latents": [float(size_N.min()), float(size_N.max())],
        }
    return {"encoder": wire.fingerprint.hex(), "fitted_on": len(fit), "n": len(texts), "spreads": spreads, "rows": rows}


def table(found: dict[str, Any]) -> str:
    """Markdown: a line for each way, bytes and error by ratio and bits."""
    cells = {(row["ratio"], row["bits"], row["what"]): row for row in found["rows"]}
    ways = list(dict.fromkeys(row["what"] for row in found["rows"]))
    body = ""
    for ratio in dict.fromkeys(row["ratio"] for row in found["rows"]):
        head = [f"{ratio}×", *(f"{bits} bits, bytes | squared error" for bits in BITS)]
        body += f"| {' | '.join(head)} |\n| --- |{' ---: |' * 2 * len(BITS)}\n"
        for way in ways:
            line = [(cells[ratio, bits, way], cells[ratio, bits, ways[0]]) for bits in BITS]
            shown = [f"{row['bytes']:,.0f} | {row['error'] / base['error']:.2f}" for row, base in line]
            body += f"| {way} | {' | '.join(shown)} |\n"
        base = ", ".join(f"{cells[ratio, bits, ways[0]]['error']:.1e}" for bits in BITS)
        low, _, high = found["spreads"][str(ratio)]["channels"]
        body += (
            f"\nErrors are in those of the first line ({base}); channels have spreads of {low:.2f} to {high:.2f}.\n\n"
        )
    return (
        f"{body}{found['n']:,} passages, header included; statistics of {found['fitted_on']:,} passages of other "
        f"articles; encoder `{found['encoder']}`, seed {found['seed']}.\n"
    )


def fill(page: str, found: dict[str, Any]) -> str:
    """The page with its table made anew."""
    return BLOCK.sub(lambda match: match[1] + table(found) + match[2], page)


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split(":")[0] + ".")
    parser.add_argument("--wire", default="sandbox")
    parser.add_argument("--n", type=int, default=200, help="passages to measure, and as many to fit on")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--ratios", type=int, nargs="+", default=[4, 8])
    parser.add_argument("--fill", action="store_true", help="only put the table of the file into docs/packets.md")
    given = parser.parse_args()
    if not given.fill:
        fit, texts = split(read_examples(shipped_valid()), given.n, given.seed)
        wire = Wire.from_pretrained(given.wire, receivers=[])
        found = run(wire, fit, texts, given.ratios) | {"seed": given.seed, **environment(wire.device)}
        RESULTS.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    found = json.loads(RESULTS.read_text(encoding="utf-8"))
    PAGE.write_text(fill(PAGE.read_text(encoding="utf-8"), found), encoding="utf-8")


if __name__ == "__main__":
    main()
