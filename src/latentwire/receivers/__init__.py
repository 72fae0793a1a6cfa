"""Frozen causal LMs of any family: loading, geometry, reading on top of a prefix, generating."""

from latentwire.receivers.geometry import Geometry
from latentwire.receivers.load import LoadConfig, load_receiver
from latentwire.receivers.receiver import Receiver

__all__ = ["Geometry", "LoadConfig", "Receiver", "load_receiver"]
