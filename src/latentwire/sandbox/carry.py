"""Carry a link over to a newer encoder: ``python -m latentwire.sandbox.carry OLD NEW NAME OUT --data-dir DIR``.

Two encoders that were trained for the same receivers say much the same in other coordinates. Where a linear map takes
the new latents to the old ones, a link of the old wire reads the new ones through it: no training, minutes on a CPU.
How much of the old latents the map explains (R²) is printed, and is all that such a link can hope for.
"""

from __future__ import annotations

import argparse
import copy
from dataclasses import replace
from pathlib import Path

import torch
from rich.console import Console
from rich.progress import track
from torch import Tensor

from latentwire.adapters.base import Expand
from latentwire.data.rows import data_dir
from latentwire.data.squad import load_split
from latentwire.errors import UserError
from latentwire.wire import Wire

RIDGE = 10.0


def carry(old: Wire, new: Wire, name: str, texts: list[str], batch: int = 50) -> float:
    """Give ``new`` the link ``name`` of ``old``; returns R² of the map on a tenth of ``texts``, kept out of the fit.

    Ratios that both encoders know are used alike. UserError: no common ratio, other tokens per latent, or an adapter
    whose first step is no linear map.
    """
    ratios = [ratio for ratio in old.ratios if ratio in new.ratios]
    if not ratios:
        raise UserError("the two wires have no ratio in common; a link cannot be carried over")
    link = copy.deepcopy(old.links[name])
    first = getattr(link.adapter, "expand", None)
    if not isinstance(first, Expand):
        raise UserError(f"the adapter of {name!r} does not begin with a linear map; train its link anew")
    kept = max(1, len(texts) // 10)
    x_ND, y_ND = latents_of(old, new, texts[kept:], ratios, batch)
    map_DD = fit(x_ND, y_ND)
    x_ND, y_ND = latents_of(old, new, texts[:kept], ratios, batch)
    missed = (y_ND - with_one(x_ND) @ map_DD).square().sum() / (y_ND - y_ND.mean(0)).square().sum()
    first.stand_behind(map_DD)
    # where the old link once started from may be gone
    new.join(name, replace(old.settings.links[name], start="", freeze=False), texts[:kept])
    if link.lora is not None:  # the new wire has loaded the receiver anew
        new.links[name].lora.load_state_dict(link.lora.state_dict())
        link.lora = new.links[name].lora
    new.links[name] = link
    return 1 - float(missed)


@torch.no_grad()
def latents_of(old: Wire, new: Wire, texts: list[str], ratios: list[int], batch: int) -> tuple[Tensor, Tensor]:
    """The latents of both encoders side by side: of the new one [N, D], of the old one [N, D']."""
    x, y = [], []
    console = Console(stderr=True)
    starts = range(0, len(texts), batch)
    for start in track(starts, "encoding twice", console=console, transient=True, disable=not console.is_terminal):
        for ratio in ratios:
            a = new.encode_latents(texts[start : start + batch], ratio)
            b = old.encode_latents(texts[start : start + batch], ratio)
            if not torch.equal(a.mask_BM, b.mask_BM):
                raise UserError("the two encoders cut texts differently; a link cannot be carried over")
            x.append(a.z_BMD[a.mask_BM])
            y.append(b.z_BMD[b.mask_BM])
    return torch.cat(x), torch.cat(y)


def with_one(x_ND: Tensor) -> Tensor:
    """A column of ones behind the others."""
    return torch.cat([x_ND, torch.ones_like(x_ND[:, :1])], 1)


def fit(x_ND: Tensor, y_ND: Tensor) -> Tensor:
    """Ridge regression with a constant: [D + 1, D']."""
    x = with_one(x_ND).double()
    gram = x.T @ x + RIDGE * torch.eye(x.shape[1], dtype=x.dtype, device=x.device)
    return torch.linalg.solve(gram, x.T @ y_ND.double()).float()


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(
        "python -m latentwire.sandbox.carry", description=(__doc__ or "").split(":")[0] + "."
    )
    parser.add_argument("old", help="the wire that has the link")
    parser.add_argument("new", help="the wire with the newer encoder")
    parser.add_argument("name", help="of the link")
    parser.add_argument("out", type=Path, help="where the new wire with its link is written")
    parser.add_argument("--data-dir", help="folder with training data (or LATENTWIRE_DATA)")
    parser.add_argument("--texts", type=int, default=1000, help="contexts of squad/train to fit on")
    given = parser.parse_args()
    contexts = sorted({example.context for example in load_split(data_dir(given.data_dir), "train")})
    order = torch.randperm(len(contexts), generator=torch.Generator().manual_seed(0)).tolist()
    texts = [contexts[i] for i in order[: given.texts]]
    old = Wire.from_pretrained(given.old, receivers=[given.name])
    new = Wire.from_pretrained(given.new, without=[given.name])
    print(f"R² {carry(old, new, given.name, texts):.3f}")
    new.save_pretrained(given.out)


if __name__ == "__main__":
    main()
