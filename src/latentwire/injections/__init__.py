"""How a frozen receiver reads slots: one file, one injection. Whatever the way, the result is a prefix."""

from latentwire.config import discover
from latentwire.injections.base import Injection, InjectionConfig

discover(__name__, __path__)

__all__ = ["Injection", "InjectionConfig"]
