"""Names for what comes along with the package: ``sandbox`` (the wire) and ``sandbox:NAME`` (its readers)."""

from __future__ import annotations

from pathlib import Path

from latentwire.errors import UserError


def resolve(where: str | Path) -> str | Path:
    """A directory as a path, a shipped name as the directory it is unpacked to, anything else as a hub id."""
    text = str(where)
    if text == "sandbox" or text.startswith("sandbox:"):
        from latentwire.weights import unpacked

        return unpacked("wire" if text == "sandbox" else text.removeprefix("sandbox:"))
    path = Path(where).expanduser()
    if path.exists() or text.startswith((".", "/", "~")) or text.count("/") != 1:
        if not path.is_dir():
            raise UserError(f"there is no directory {path}; give a directory, a hub id (owner/name), or 'sandbox'")
        return path
    return text
