"""What each example's receiver is given as text: tokens of context and tail, fitted to the window, and their bytes."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from latentwire.codecs import Codec
from latentwire.conditions import TextCondition, TextRow, VectorCondition
from latentwire.conditions.text import Text
from latentwire.conditions.vectors import Words, sample
from latentwire.evaluation.decoding import MAX_NEW_TOKENS
from latentwire.evaluation.items import Encoded, Items
from latentwire.receivers import Receiver


class Tokens:
    """What a receiver's tokenizer makes of the items, once. most: new tokens that are kept room for."""

    def __init__(self, receiver: Receiver, items: Items, most: int = MAX_NEW_TOKENS) -> None:
        prompt = receiver.prompt
        self.receiver, self.prompt, self.most = receiver, prompt, most
        self.anchor = prompt.anchor_ids()
        self.context = prompt.context_ids(items.texts)
        self.question = prompt.question_ids([e.question for e in items.examples])
        flat = prompt.answer_ids([answer for e in items.examples for answer in e.answers])
        end = [prompt.eos_id]  # where the context does not say, the receiver should say nothing
        self.answers: list[list[list[int]]] = []
        start = 0
        for e in items.examples:
            self.answers.append(flat[start : start + len(e.answers)] or [end])
            start += len(e.answers)
        self.texts = items.texts
        # positions that context and tail may take together; the answer needs the rest
        self.room = receiver.geometry.window - len(prompt.head_ids()) - most

    @cached_property
    def words(self) -> Words:
        """The receiver's embeddings of a sample of plain text, looked up once and only where a condition wants them."""
        return Words.of(self.receiver, list(sample()))

    def fit(self, tail: list[int], room: int) -> list[int]:
        """A tail that is longer than ``room`` positions loses the end of its question, never the anchor."""
        if len(tail) <= room:
            return tail
        return tail[: max(room - len(self.anchor), 0)] + self.anchor

    def bytes_of(self, place: int, keep: int) -> int:
        """UTF-8 bytes of the first ``keep`` tokens of a context."""
        if keep >= len(self.context[place]):
            return len(self.texts[place].encode())
        if keep == 0:
            return 0
        text = self.prompt.context_text(self.texts[place])
        before = len(text) - len(self.texts[place])
        if not self.prompt.tokenizer.is_fast:
            return len(self.prompt.tokenizer.decode(self.context[place][:keep]).strip().encode())
        spans = self.prompt.tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)["offset_mapping"]
        return len(text[before : max(spans[keep - 1][1], before)].encode())


@dataclass(frozen=True)
class Fitted:
    """Tokens that a receiver reads, the bytes that they were as text, and whether the window cut them. Under a vector
    condition ``context`` is what vectors stand for, be it context or question."""

    context: list[int]
    tail: list[int]
    bytes: int
    cut: bool


def give(
    condition: TextCondition, items: Items, tokens: Tokens, encoded: Encoded | None, taken: list[int], codec: Codec
) -> list[Fitted]:
    """What each example is given under a text condition. ``encoded``: of the ratio, where the condition has one;
    ``taken``: K/V positions that the latents of each text take."""
    found: list[Fitted] = []
    prompt = tokens.prompt
    for i, place in enumerate(items.owner):
        # in prompt mode the packet holds the question too, so a text's question is counted as well
        asked = len(prompt.question_text(items.examples[i].question).encode()) if items.mode == "prompt" else 0
        count = 0 if encoded is None else taken[place]
        size = 0 if encoded is None else encoded.packet_bytes(place, codec)
        text, ids = items.texts[place], tokens.context[place]
        got = condition.give(TextRow(text, len(ids), tokens.question[i], tokens.anchor, count, size - asked))
        if asked and len(got.tail) < len(tokens.question[i]):
            kept = got.tail[: len(got.tail) - len(tokens.anchor)]
            asked = len(prompt.tokenizer.decode(kept).encode())
        tail = tokens.fit(got.tail, tokens.room)
        context = ids[: got.keep] if got.text is None else prompt.context_ids([got.text])[0]
        room = tokens.room - len(tail)
        cut = len(context) > room or len(tail) < len(got.tail)
        context = context[: max(room, 0)]
        size = tokens.bytes_of(place, len(context)) if got.text is None else len(got.text.encode())
        found.append(Fitted(context, tail, size + asked, cut))
    return found


def asked_as_vectors(condition: VectorCondition, mode: str, tail: list[int], anchor: list[int]) -> int:
    """How many tokens of a tail are given as vectors: none, the question, or all but the last."""
    if condition.whole:
        return len(tail) - 1
    return len(tail) - len(anchor) if mode == "prompt" else 0


def give_vectors(condition: VectorCondition, items: Items, tokens: Tokens, codec: Codec) -> list[Fitted]:
    """What each example is given under a vector condition: the tokens of the full text, divided otherwise."""
    found = []
    for row in give(Text(), items, tokens, None, [], codec):
        count = asked_as_vectors(condition, items.mode, row.tail, tokens.anchor)
        found.append(Fitted(row.context + row.tail[:count], row.tail[count:], row.bytes, row.cut))
    return found
