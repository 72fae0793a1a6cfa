"""Put a trained wire into the shipped form: ``python -m latentwire.sandbox.ship WIRE FOLDER``.

The wire is rounded to int8 *before* it is saved, so that its encoder's fingerprint is that of the weights
people get and
every reported figure comes from the shipped files.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from latentwire.weights import pack, rounded
from latentwire.wire import Wire


def ship(wire_dir: str | Path, folder: Path, **load: object) -> list[Path]:
    """Round, save and pack a wire; returns the files of weights."""
    wire = Wire.from_pretrained(wire_dir, **load)
    wire.load_state_dict(rounded(wire.state_dict()), strict=True)
    with tempfile.TemporaryDirectory() as place:
        wire.save_pretrained(place)
        (Path(place) / "README.md").unlink(missing_ok=True)  # the shipped wire has a card of its own
        return pack(Path(place), folder)


if __name__ == "__main__":
    for file in ship(sys.argv[1], Path(sys.argv[2])):
        print(file, file.stat().st_size)
