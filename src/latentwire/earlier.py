"""A link's weights from an earlier wire: what a new link starts from, or what stays as it is while the rest trains.

Only weights of the very same link fit: same name, adapter, injection and layout, and the same receiver. Everything else
is refused, because a link that is half an earlier one looks trained and is not.
"""

from __future__ import annotations

import json
from pathlib import Path

from huggingface_hub import snapshot_download
from huggingface_hub.errors import HfHubHTTPError
from safetensors import SafetensorError, safe_open
from torch import Tensor

from latentwire.config import decode, encode
from latentwire.errors import UserError
from latentwire.link import Link, LinkConfig
from latentwire.receivers import Receiver
from latentwire.shipped import resolve

CONFIG, WEIGHTS = "config.json", "model.safetensors"
"""The files of a saved wire."""


def take_up(link: Link, name: str, receiver: Receiver) -> None:
    """Give a new, calibrated link the weights that ``link.config.start`` names, and freeze it if its config says so.

    ``fertility`` stays as it was measured: it belongs to the encoder too, and that may be another one.
    UserError: there is no such wire or link, it is not of the same make, or it is to be frozen without a start.
    """
    config = link.config
    if not config.start:
        if config.freeze:
            raise UserError(
                f"links.{name}.freeze without links.{name}.start would keep random weights; name the trained wire"
            )
        return
    earlier, fingerprint, state = read(config.start, name)
    check(config, earlier, name)
    if receiver.fingerprint() != fingerprint:
        raise UserError(
            f"links.{name}: the receiver is not the model that the link in {config.start!r} was trained with "
            f"(fingerprint {receiver.fingerprint()}, expected {fingerprint}); a link fits one model only"
        )
    try:
        link.load_state_dict(state | {"fertility": link.fertility.clone()}, strict=True)
    except RuntimeError as error:
        raise UserError(
            f"links.{name}: weights in {config.start!r} do not fit (is the encoder's d_z the same?): "
            f"{' '.join(str(error).split())[:300]}"
        ) from None
    if config.freeze:
        link.requires_grad_(False)


def read(start: str, name: str) -> tuple[LinkConfig, str, dict[str, Tensor]]:
    """Link ``name`` of a saved wire: its config, its receiver's fingerprint and its weights (no others are read)."""
    where = resolve(start)
    own = f"links.{name}."
    try:
        if not isinstance(where, Path):
            where = Path(snapshot_download(where, allow_patterns=[CONFIG, WEIGHTS]))
        tree = json.loads((where / CONFIG).read_text())
        links, fingerprints = tree["wire"]["links"], tree["readers"]
        with safe_open(where / WEIGHTS, "pt") as file:
            state = {key.removeprefix(own): file.get_tensor(key) for key in file.keys() if key.startswith(own)}  # noqa: SIM118
    except (OSError, KeyError, ValueError, SafetensorError, HfHubHTTPError) as error:
        raise UserError(f"links.{name}.start: {start!r} holds no whole wire: {error}") from None
    if name not in links or name not in fingerprints:
        raise UserError(f"links.{name}.start: {start!r} has no link {name!r}; it has: {', '.join(fingerprints)}")
    return decode(LinkConfig, links[name]), fingerprints[name], state


def check(config: LinkConfig, earlier: LinkConfig, name: str) -> None:
    """UserError unless both links are of one make and read one layout; where their weights came from may differ."""
    ours, theirs = encode(config), encode(earlier)
    for part in ("adapter", "injection", "prompt", "lora"):
        here, there = ours[part] or {}, theirs[part] or {}
        if here != there:
            keys = [key for key in here | there if here.get(key) != there.get(key)]
            told = ", ".join(f"{key} {here.get(key)!r} (there {there.get(key)!r})" for key in keys)
            raise UserError(f"links.{name}.{part} is not that of {config.start!r}: {told}; give both the same config")
