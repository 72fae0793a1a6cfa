"""Latents to slots of a receiver's width: one file, one adapter."""

from latentwire.adapters.base import Adapter, AdapterConfig
from latentwire.config import discover

discover(__name__, __path__)

__all__ = ["Adapter", "AdapterConfig"]
