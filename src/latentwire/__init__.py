"""Send meaning between language models as latents instead of text.

>>> from latentwire import Wire                              # doctest: +SKIP
>>> wire = Wire.from_pretrained("sandbox")                   # doctest: +SKIP
>>> packet = wire.encode(["A paragraph …"], ratio=4)[0]      # doctest: +SKIP
>>> wire.receiver("llama").generate(packet, "A question?")   # doctest: +SKIP
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"
__all__ = ["Packet", "UserError", "Wire", "__version__"]

if TYPE_CHECKING:
    from latentwire.errors import UserError
    from latentwire.packets import Packet
    from latentwire.wire import Wire


def __getattr__(name: str) -> Any:
    # torch and transformers take seconds to import: only those who touch a wire pay
    if name == "Wire":
        from latentwire.wire import Wire

        return Wire
    if name == "Packet":
        from latentwire.packets import Packet

        return Packet
    if name == "UserError":
        from latentwire.errors import UserError

        return UserError
    raise AttributeError(f"module 'latentwire' has no attribute {name!r}")
