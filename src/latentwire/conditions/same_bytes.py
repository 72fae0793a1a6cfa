"""The context cut to as many UTF-8 bytes as the packet has, the question whole."""

from dataclasses import dataclass

from latentwire.conditions.base import Condition, Data, Given, TextCondition, TextRow


@Condition.register_subclass("same-bytes")
@dataclass
class SameBytes(TextCondition):
    """A text that is smaller than its own packet stays whole."""

    by_ratio = True
    by_bits = True

    def not_applicable(self, data: Data) -> str | None:
        packet, text = (sum(sizes) / len(sizes) for sizes in (data.packet_bytes, data.text_bytes))
        # a cut that cuts nothing would repeat the score of the text
        return f"packets ({packet:,.0f} bytes) are no smaller than texts ({text:,.0f})" if packet >= text else None

    def give(self, row: TextRow) -> Given:
        # a cut inside a character drops the character
        return Given(row.tail, text=row.text.encode()[: max(row.room, 0)].decode(errors="ignore"))
