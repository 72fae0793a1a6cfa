"""``latentwire join``: the config of a run that gives a trained wire one more link, and what is said before it begins.

Training itself is that of any run with ``start`` and ``join``. What can be known without loading weights is checked
here, since a corpus and several models are read before the link is made.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from torch import nn

from latentwire.config import decode, override, read_yaml
from latentwire.errors import UserError
from latentwire.receivers.load import check_receiver
from latentwire.saved import WireConfig, settings_of
from latentwire.shipped import resolve
from latentwire.training.config import TrainConfig

DEFAULT = Path(__file__).with_name("join.yaml")
"""The config that is taken where none is given."""


def join_config(
    wire: str,
    receiver: str,
    config: Path | None = None,
    overrides: Iterable[str] = (),
    name: str = "",
    replace: bool = False,
) -> TrainConfig:
    """The config of a run that joins one receiver to a trained wire.

    wire: directory, hub id or ``sandbox``. receiver: checkpoint directory, hub id or ``sandbox:NAME``. config: a
    training config whose ``wire.links`` describe the new link, under any name; :data:`DEFAULT` if None. overrides: of
    the config as it runs, so that the link is ``wire.links.NAME``. name: of the link (default: from the receiver's).
    replace: make a link anew that the wire has. UserError: there is no such wire or receiver, the wire has a link of
    that name, the config describes no link or several, or it is made for another wire.
    """
    settings = settings_of(wire)
    found = resolve(receiver)
    window = check_receiver(found)
    name = checked(name or name_of(receiver))
    if name in settings.links and not replace:
        raise UserError(f"{wire} already has a receiver {name!r}; give another --name, or --replace to make its link "
                        "anew")  # fmt: skip
    path = config or DEFAULT
    tree = read_yaml(path)
    decode(TrainConfig, tree)  # from here on every part of the tree is of its kind
    # a directory is found from anywhere, or the wire could only be loaded from here
    where = str(found.resolve()) if isinstance(found, Path) and not receiver.startswith("sandbox:") else receiver
    described = tree.get("wire") or {}
    link = {**described_link(described.get("links") or {}, name, path), "receiver": where}
    tree |= {"wire": {**described, "links": {name: link}}, "start": str(wire), "join": [name]}
    override(tree, overrides)
    links = (tree.get("wire") or {}).get("links") or {}
    given = [list(links), *(link.get("receiver") for link in links.values()), tree["join"], tree["start"]]
    if given != [[name], where, [name], str(wire)]:
        raise UserError("wire, receiver and name are given to the command, not as overrides; the link's own keys begin "
                        f"with wire.links.{name}")  # fmt: skip
    made = decode(TrainConfig, tree)
    fits(made, tree, settings, window)
    return made


def name_of(receiver: str) -> str:
    """The name of a link from its receiver's: ``Qwen2-5-0-5B`` of ``Qwen/Qwen2.5-0.5B``, ``gpt2`` of
    ``sandbox:gpt2``. Dots would part the keys of a config and of saved weights."""
    last = receiver.removeprefix("sandbox:") if receiver.startswith("sandbox:") else Path(receiver).expanduser().name
    return re.sub(r"\W+", "-", last or Path(receiver).resolve().name).strip("-")


def checked(name: str) -> str:
    """The name, if a link may have it. UserError: it may not."""
    # modules keep links as attributes do: `keys` or `pop` would hide a method
    if not re.fullmatch(r"\w[\w-]*", name) or hasattr(nn.ModuleDict, name):
        raise UserError(f"a link cannot be called {name!r}; give a --name of letters, digits, - and _")
    return name


def described_link(links: dict[str, Any], name: str, path: Path) -> dict[str, Any]:
    """The link that a config describes: that of the name, or its only one."""
    if not links:
        raise UserError(f"{path} describes no link; give it an adapter and an injection under wire.links.{name}")
    if name not in links and len(links) > 1:
        raise UserError(f"{path} describes several links ({', '.join(links)}), none of them {name!r}; give the --name "
                        "of the one that is meant")  # fmt: skip
    return links.get(name) or next(iter(links.values())) or {}


def fits(config: TrainConfig, tree: dict[str, Any], settings: WireConfig, window: int | None) -> None:
    """UserError unless a config fits the wire that its link joins, and the new receiver's window in positions. tree:
    the config as written, without defaults."""
    (name,) = config.join
    wire, wanted = settings.encoder, (tree["wire"].get("encoder") or {}).get("d_z")
    if wanted not in (None, wire.d_z):
        raise UserError(f"the config is made for latents of width {wanted} (wire.encoder.d_z), those of {config.start} "
                        f"have {wire.d_z}; leave wire.encoder out: the encoder stays as it is")  # fmt: skip
    draws = [draw for draws in (config.draws, *(stage.draws for stage in config.stages)) for draw in draws]
    if odd := [draw.ratio for draw in draws if draw.ratio not in wire.ratios]:
        raise UserError(f"the config names ratio {odd[0]}, {config.start} has {', '.join(map(str, wire.ratios))}; set "
                        "draws=[] for all of them")  # fmt: skip
    there = [other for other in settings.links if other != name]
    like = config.wire.links[name].like
    if like and like not in there:
        raise UserError(f"links.{name}.like is {like!r}, and {config.start} has: {', '.join(there)}; set "
                        f"wire.links.{name}.like= to begin anew")  # fmt: skip
    corpus = config.corpus
    if corpus.longest < wire.window:
        raise UserError(f"corpus.longest ({corpus.longest}) must be at least the window of {config.start} "
                        f"({wire.window}); set corpus.longest={wire.window}")  # fmt: skip
    if window is not None and corpus.most > window:
        raise UserError(f"the receiver has {window} positions, and rows of this corpus may take {corpus.most}; lower "
                        "corpus.stretch (longer passages are then left out), corpus.row or corpus.asked")  # fmt: skip
