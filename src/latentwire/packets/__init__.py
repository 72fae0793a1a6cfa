"""Packets: the latents of one text, quantised, checked, and bound to the encoder that made them."""

from latentwire.packets.packet import Packet

__all__ = ["Packet"]
