"""A trained wire given parts that it was made without: the rest of it goes on as it is."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from tempfile import TemporaryDirectory

from latentwire.config import decode, encode, override
from latentwire.errors import UserError
from latentwire.saved import WireConfig
from latentwire.wire import Wire

ALL = "links.*."


def grown(wire: Wire, changes: Iterable[str]) -> Wire:
    """The wire with settings changed that add weights: ``encoder.told=true``, ``links.*.adapter.told=true``.

    New weights are those of an untrained part, all others are taken over. ``links.*`` stands for each link. UserError:
    a setting that is not known, or one that does not only add.
    """
    each = [
        f"links.{name}.{change.removeprefix(ALL)}" if change.startswith(ALL) else change
        for change in changes
        for name in (wire.receivers if change.startswith(ALL) else ("",))
    ]
    settings = decode(WireConfig, override(encode(wire.settings), each))
    with TemporaryDirectory() as assets:
        wire.encoder.save_assets(Path(assets))
        try:
            made = Wire(settings, wire.frozen, Path(assets))
            lost = made.load_state_dict(wire.state_dict(), strict=False).unexpected_keys
        except (RuntimeError, KeyError) as error:
            raise UserError(f"grow may only add to a wire: {' '.join(str(error).split())[:300]}") from None
    if lost:
        raise UserError(f"grow may only add to a wire, but {', '.join(each)} leaves {lost[0]!r} without a place")
    return made.to(wire.device)
