"""Packets: the latents of one text, quantised, checked, and bound to the encoder that made them."""

from latentwire.packets.packet import FORMAT, Packet

__all__ = ["FORMAT", "Packet"]
