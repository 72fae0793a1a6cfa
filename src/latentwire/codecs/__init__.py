"""Latents as bytes: one file, one codec."""

from latentwire.codecs import base
from latentwire.codecs.base import Codec, by_bits
from latentwire.codecs.codes import Coded, Codes, CodesConfig
from latentwire.config import discover

discover(__name__, __path__)

__all__ = ["Codec", "Coded", "Codes", "CodesConfig", "by_bits", "by_number"]


def by_number(number: int) -> Codec:
    """The codec that a packet names; codes are read with a wire (:meth:`latentwire.wire.Wire.latents`)."""
    return Coded() if number == Coded.number else base.by_number(number)
