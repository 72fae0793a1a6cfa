"""Put a trained wire into the shipped form: ``python -m latentwire.sandbox.ship WIRE FOLDER [--rounded]``.

The wire is rounded to int8 *before* it is saved, so that its encoder's fingerprint is that of the weights people get
and every reported figure comes from the shipped files. With ``--rounded`` it is left there: an ordinary directory with
the values of the shipped form, which a late joiner may be trained for.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

from latentwire.errors import UserError
from latentwire.weights import pack, rounded
from latentwire.wire import Wire


def save_rounded(wire_dir: str | Path, folder: Path, **load: object) -> Path:
    """Round a wire to what the shipped form holds, and save it as an ordinary directory."""
    wire = Wire.from_pretrained(wire_dir, **load)
    wire.load_state_dict(rounded(wire.state_dict()), strict=True)
    wire.save_pretrained(folder)
    return folder


def ship(wire_dir: str | Path, folder: Path, **load: object) -> list[Path]:
    """Round, save and pack a wire; returns the files of weights."""
    with tempfile.TemporaryDirectory() as place:
        save_rounded(wire_dir, Path(place), **load)
        (Path(place) / "README.md").unlink(missing_ok=True)  # the shipped wire has a card of its own
        return pack(Path(place), folder)


def main(arguments: list[str] | None = None) -> None:
    """The command."""
    parser = argparse.ArgumentParser(
        prog="python -m latentwire.sandbox.ship", description=(__doc__ or "").split(":")[0] + "."
    )
    parser.add_argument("wire", help="directory of a wire")
    parser.add_argument("folder", type=Path, help="where to; what is there is replaced")
    parser.add_argument("--rounded", action="store_true", help="an ordinary directory, rounded and not packed")
    given = parser.parse_args(arguments)
    try:
        for path in [save_rounded(given.wire, given.folder)] if given.rounded else ship(given.wire, given.folder):
            print(path)
    except UserError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
