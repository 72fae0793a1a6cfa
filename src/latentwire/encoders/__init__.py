"""Text to latents: one file, one encoder. Every module of this room is imported, so a new file registers itself."""

from latentwire.config import discover
from latentwire.encoders.base import Encoder, EncoderConfig, Source

discover(__name__, __path__)

__all__ = ["Encoder", "EncoderConfig", "Source"]
