"""Options that several commands share, and reading what a person typed into them."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from latentwire.errors import UserError

if TYPE_CHECKING:
    from latentwire.packets import Packet
    from latentwire.wire import Wire

WireArgument = Annotated[
    str,
    typer.Argument(metavar="WIRE", help="A directory, a hub id, or `sandbox` for the wire that comes along."),
]
RatioOption = Annotated[
    int | None, typer.Option(help="Tokens of the text per latent; the wire's first one if left out.")
]
OutOption = Annotated[Path | None, typer.Option(metavar="DIR", help="Directory to write to.")]
ReceiversOption = Annotated[
    list[str] | None, typer.Option("--receiver", "-r", metavar="R", help="Who reads; all of the wire's if left out.")
]
DataDirOption = Annotated[
    Path | None,
    typer.Option(metavar="DIR", envvar="LATENTWIRE_DATA", help="Where the data lies (`latentwire data prepare`)."),
]
DeviceOption = Annotated[
    str, typer.Option(help="Where to compute: cpu, cuda, cuda:1 …; auto takes a GPU if there is one.")
]
SmokeOption = Annotated[bool, typer.Option("--smoke", help="A tiny run that only shows that everything works.")]


def words(text: str | None) -> tuple[str, ...] | None:
    """``"text,latents"`` as ``("text", "latents")``; None where the option was left out."""
    if text is None:
        return None
    return tuple(word.strip() for word in text.split(",") if word.strip())


def numbers(option: str, text: str) -> tuple[int, ...]:
    """``"4,8"`` as ``(4, 8)``. Raises UserError that names the option when a word is no positive number."""
    found = words(text) or ()
    if not found or not all(word.isdecimal() and int(word) > 0 for word in found):
        raise UserError(f"{option} {text!r}: expected positive whole numbers with commas between, for example 4,8")
    return tuple(int(word) for word in found)


def read_text(path: Path) -> str:
    """The text of a UTF-8 file, or of stdin for ``-``, without the space around it. Raises UserError when empty."""
    try:
        text = sys.stdin.read() if str(path) == "-" else path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not UTF-8 text (byte {error.start}); convert it first") from None
    except FileNotFoundError:
        raise UserError(f"there is no file {path}; give the path of a text file, or - for stdin") from None
    if not text.strip():
        raise UserError(f"{path} is empty; there is nothing to encode")
    return text.strip()


def open_packet(path: Path) -> Packet:
    """The packet in a file. Raises UserError when there is none, or when it is damaged."""
    if not path.exists():
        raise UserError(f"there is no packet {path}; make one with `latentwire encode`")
    from latentwire.packets import Packet

    return Packet.load(path)


def on(device: str) -> str:
    """The device that was asked for. UserError: there is none of that name."""
    import torch

    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise UserError(f"--device {device}: {str(error).splitlines()[0]}") from None
    return device


def quiet_libraries() -> None:
    """No progress bars of the checkpoint loader: one per model would bury what the command says."""
    from transformers.utils import logging

    logging.disable_progress_bar()


def open_wire(name: str, receivers: list[str] | None = None, device: str = "cpu") -> Wire:
    """The wire of that name (directory, hub id or ``sandbox``), with quiet libraries. receivers: those to load, or
    all."""
    quiet_libraries()
    from latentwire import Wire

    try:
        return Wire.from_pretrained(name, receivers=receivers, device=on(device))
    except OSError as error:  # what the hub client raises: no such id, no right to it, no connection
        reason = " ".join(str(error).split()).split(". ")[0]
        raise UserError(
            f"cannot get the wire {name!r} from the hub ({reason}); give a directory, or 'sandbox'"
        ) from None


def chosen_receivers(wire: Wire, asked: list[str] | None) -> list[str]:
    """The receivers asked for, or all of the wire's. Raises UserError for one that it does not have."""
    names = list(wire.receivers)
    for name in asked or ():
        if name not in names:
            raise UserError(f"this wire has no receiver {name!r}; it has: {', '.join(names)}")
    return list(asked) if asked else names


def chosen_ratio(wire: Wire, asked: int | None, coded: bool = False) -> int:
    """The ratio asked for, or the wire's first (``coded``: its codes'). UserError: it was not trained for that one."""
    ratios = tuple(wire.ratios)
    if asked is not None and asked not in ratios:
        raise UserError(f"this wire has no ratio {asked}; it has: {', '.join(map(str, ratios))}")
    return wire.usual_ratio(coded) if asked is None else asked
