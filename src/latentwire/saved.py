"""A wire as a folder: ``config.json`` says what it is made of, ``model.safetensors`` holds encoder and links.

Receivers are not in it, only their fingerprints: a wire is loaded for the very models it was trained with, or not at
all. Nothing is left out silently in either direction.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from huggingface_hub import snapshot_download
from huggingface_hub.errors import HfHubHTTPError
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from latentwire import __version__
from latentwire.codecs import CodesConfig
from latentwire.config import decode, encode
from latentwire.earlier import CONFIG, WEIGHTS
from latentwire.encoders import EncoderConfig
from latentwire.encoders.lm import LMEncoderConfig
from latentwire.errors import UserError
from latentwire.link import LinkConfig
from latentwire.receivers import LoadConfig, Receiver, load_receiver
from latentwire.shipped import resolve

if TYPE_CHECKING:
    from latentwire.wire import Wire


@dataclass
class WireConfig:
    """Everything that shapes a wire: the encoder all receivers share, and a link by receiver name. codes: books for
    packets of a few bytes a latent (none if left out)."""

    encoder: EncoderConfig = field(default_factory=LMEncoderConfig)
    links: dict[str, LinkConfig] = field(default_factory=dict)
    codes: CodesConfig | None = None


@dataclass
class Saved:
    """What a folder holds. tree: its config as it stands there. state: its weights."""

    directory: Path
    tree: dict[str, Any]
    settings: WireConfig
    state: dict[str, Tensor]

    def names(self, receivers: Iterable[str] | None, without: Iterable[str]) -> list[str]:
        """The receivers to load: those asked for, or all, less those left out. UserError: there is none of a name."""
        left_out = set(without)
        names = [name for name in (self.settings.links if receivers is None else receivers) if name not in left_out]
        if unknown := [name for name in names if name not in self.settings.links]:
            raise UserError(f"this wire has no receiver {unknown[0]!r}; it has: {', '.join(self.settings.links)}")
        return names

    def receiver(
        self, name: str, where: str | Path | None, device: str | torch.device, load: LoadConfig | None = None
    ) -> Receiver:
        """The frozen model that link ``name`` was trained with, from ``where`` if not from its old place."""
        link = self.settings.links[name]
        path = resolve(where or link.receiver)
        receiver = load_receiver(path, name, prompt=link.prompt, device=device, load=load)
        if (found := receiver.fingerprint()) != self.tree["readers"][name]:
            raise UserError(
                f"receiver {name!r} at {path} is not the model this wire was trained with (fingerprint "
                f"{found}, expected {self.tree['readers'][name]}); give the original weights"
            )
        return receiver

    def fill(self, wire: Wire) -> None:
        """Give a wire of these settings its weights; links that it was built without are passed over."""
        absent = tuple(f"links.{name}." for name in self.settings.links if name not in wire.frozen)
        state = {key: value for key, value in self.state.items() if not key.startswith(absent or "\0")}
        try:
            wire.load_state_dict(state, strict=True)
        except RuntimeError as error:
            raise UserError(
                f"weights in {self.directory} do not fit its config: {' '.join(str(error).split())[:300]}"
            ) from None

    def check_encoder(self, wire: Wire) -> None:
        """UserError unless the encoder is the one that the config names."""
        if wire.fingerprint.hex() != self.tree["encoder_fingerprint"]:
            raise UserError(
                f"the encoder's weights in {self.directory} are not those its config names; the files are damaged"
            )


def settings_of(where: str | Path) -> WireConfig:
    """What a wire at a directory, hub id or ``sandbox`` is made of; no weights are read. UserError: there is none."""
    found = resolve(where)
    try:
        if not isinstance(found, Path):
            found = Path(snapshot_download(found, allow_patterns=[CONFIG]))
        return decode(WireConfig, json.loads((found / CONFIG).read_text())["wire"])
    except (OSError, KeyError, json.JSONDecodeError, HfHubHTTPError) as error:
        raise UserError(f"{where} holds no whole wire: {error}") from None


def read(directory: Path) -> Saved:
    """What a folder holds. UserError: it is not there, or not whole."""
    try:
        tree = json.loads((directory / CONFIG).read_text())
        return Saved(directory, tree, decode(WireConfig, tree["wire"]), load_file(directory / WEIGHTS))
    except (OSError, KeyError, json.JSONDecodeError, SafetensorError) as error:
        raise UserError(f"{directory} holds no whole wire: {error}") from None


def write(wire: Wire, directory: Path) -> dict[str, str]:
    """Write encoder and links, with the settings and fingerprints of what is there; returns those of receivers."""
    directory.mkdir(parents=True, exist_ok=True)
    wire.encoder.save_assets(directory / "encoder")
    # how receivers were loaded belongs to this machine
    links = {name: replace(wire.settings.links[name], load=LoadConfig()) for name in wire.frozen}
    tree = {
        "latentwire": __version__,
        "wire": encode(replace(wire.settings, links=links)),
        "readers": {name: receiver.fingerprint() for name, receiver in wire.frozen.items()},
        "encoder_fingerprint": wire.fingerprint.hex(),
    }
    state = {name: tensor.detach().cpu().contiguous() for name, tensor in wire.state_dict().items()}
    save_file(state, directory / WEIGHTS, metadata={"format": "pt"})
    (directory / CONFIG).write_text(json.dumps(tree, indent=2, ensure_ascii=False) + "\n")
    return tree["readers"]
