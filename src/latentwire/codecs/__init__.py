"""Latents as bytes: one file, one codec."""

from latentwire.codecs.base import Codec, by_bits, by_number
from latentwire.config import discover

discover(__name__, __path__)

__all__ = ["Codec", "by_bits", "by_number"]
