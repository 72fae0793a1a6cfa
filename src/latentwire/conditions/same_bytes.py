"""The context cut to as many UTF-8 bytes as the packet has. Not applicable while a packet is larger than its text."""

from dataclasses import dataclass

from latentwire.conditions.base import Condition, Given, TextCondition, TextRow


@Condition.register_subclass("same-bytes")
@dataclass
class SameBytes(TextCondition):
    by_ratio = True
    by_bits = True

    def give(self, row: TextRow) -> Given:
        # a cut inside a character drops the character
        text = row.text.encode()[: row.packet_bytes].decode(errors="ignore")
        return Given(None, row.tail, text)
