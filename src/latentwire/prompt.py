"""THE layout: what a receiver sees, for readers' training, wires' training, evaluation, decoding and serving alike.

A prompt is made of segments that are tokenised apart and joined as ids, so that a context may be replaced by latents
without moving a single neighbouring token::

    <s>Context: | the text, or latents | \\nQuestion: … | \\nAnswer: | the answer</s>
       head            context              question       anchor      answer

The head is real text in front of the latents: the receiver's own beginning carries its attention sink, and leaving it
out costs a wire much of what it keeps. The end token is always a target, so stopping is learnt; the beginning token
never is.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from latentwire.errors import UserError


@dataclass(frozen=True)
class PromptConfig:
    """Words around context, question and answer. ``{question}`` and ``{answer}`` are filled in."""

    head: str = "Context:"
    context: str = " {context}"
    question: str = "\nQuestion: {question}"
    anchor: str = "\nAnswer:"
    answer: str = " {answer}"


class Prompt:
    """The layout bound to one tokenizer. All methods return plain lists of token ids."""

    def __init__(self, config: PromptConfig, tokenizer: Any) -> None:
        self.config, self.tokenizer = config, tokenizer
        if tokenizer.eos_token_id is None:
            raise UserError(f"tokenizer {tokenizer.name_or_path!r} has no end token; an answer could never stop")
        self.eos_id: int = tokenizer.eos_token_id
        self.bos_id: int | None = tokenizer.bos_token_id
        # pads are always masked, so any id serves; the end token is the one id that every tokenizer here has
        self.pad_id: int = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else self.eos_id

    def ids(self, texts: list[str]) -> list[list[int]]:
        """Token ids of texts, without special tokens."""
        if not texts:
            return []
        return self.tokenizer(texts, add_special_tokens=False, verbose=False)["input_ids"]

    def head_ids(self) -> list[int]:
        """Beginning token (where the tokenizer has one) and the words before the context."""
        begin = [] if self.bos_id is None else [self.bos_id]
        return begin + self.ids([self.config.head])[0]

    def context_text(self, text: str) -> str:
        """The context as it stands in the prompt; the empty context is nothing at all."""
        return self.config.context.format(context=text) if text else ""

    def context_ids(self, texts: list[str]) -> list[list[int]]:
        """Contexts; an empty one has no tokens."""
        return self.ids([self.context_text(text) for text in texts])

    def contexts_ids(self, texts: list[str]) -> list[int]:
        """Several contexts one behind the other, each as it would stand alone: what packets behind one another stand
        for."""
        return [token for ids in self.context_ids(texts) for token in ids]

    def question_text(self, question: str) -> str:
        """A question without the anchor (what prompt mode encodes behind the context)."""
        return self.config.question.format(question=question)

    def question_ids(self, questions: list[str]) -> list[list[int]]:
        """Questions, each followed by the anchor."""
        anchor = self.anchor_ids()
        return [ids + anchor for ids in self.ids([self.question_text(question) for question in questions])]

    def anchor_ids(self) -> list[int]:
        """The words after which the answer begins."""
        return self.ids([self.config.anchor])[0]

    def answer_ids(self, answers: list[str]) -> list[list[int]]:
        """Answers, each closed by the end token."""
        return [[*ids, self.eos_id] for ids in self.ids([self.config.answer.format(answer=a) for a in answers])]

    def text(self, context: str, question: str, answer: str = "") -> str:
        """The whole prompt as a person would read it (for logs and pages, never tokenised as one string)."""
        c = self.config
        tail = c.answer.format(answer=answer) if answer else ""
        return c.head + self.context_text(context) + self.question_text(question) + c.anchor + tail
