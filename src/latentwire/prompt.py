"""THE layout: what a receiver sees, for readers' training, wires' training, evaluation, decoding and serving alike.

A prompt is made of segments that are tokenised apart and joined as ids, so that a context may be replaced by latents
without moving a single neighbouring token::

    <s>Context: | the text, or latents | \\nQuestion: … | \\nAnswer: | the answer</s>
       head            context              question       anchor      answer

The head is real text in front of the latents: the receiver's own beginning carries its attention sink, and leaving it
out costs a wire much of what it keeps. The end token is always a target, so stopping is learnt; the beginning token
never is.

With ``chat`` the tokenizer's chat template stands around it. Head, context and question are the user's turn, so latents
are inside of it; what the template puts between that turn and the assistant's is the anchor::

    <|im_start|>user\\nContext: | latents | \\nQuestion: … | <|im_end|>\\n<|im_start|>assistant\\n | answer<|im_end|>
                head                        question                     anchor                      answer
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from latentwire.errors import UserError


@dataclass(frozen=True)
class PromptConfig:
    """Words around context, question and answer. ``{question}`` and ``{answer}`` are filled in.

    chat: the tokenizer's chat template around them; its own words stand in place of the anchor, the beginning token and
    the end token.
    """

    head: str = "Context:"
    context: str = " {context}"
    question: str = "\nQuestion: {question}"
    anchor: str = "\nAnswer:"
    answer: str = " {answer}"
    chat: bool = False


@dataclass(frozen=True)
class Turn:
    """What a chat template puts before the user's words and between them and the assistant's; and what ends those."""

    before: str
    between: str
    end_id: int | None


class Prompt:
    """The layout bound to one tokenizer. All methods return plain lists of token ids."""

    def __init__(self, config: PromptConfig, tokenizer: Any) -> None:
        self.config, self.tokenizer = config, tokenizer
        if tokenizer.eos_token_id is None:
            raise UserError(f"tokenizer {tokenizer.name_or_path!r} has no end token; an answer could never stop")
        self.turn = chat_turn(config, tokenizer) if config.chat else None
        ends = None if self.turn is None else self.turn.end_id
        self.eos_id: int = tokenizer.eos_token_id if ends is None else ends
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
        if self.turn is not None:  # a template says itself whether anything stands in front of it
            return self.ids([self.head_text()])[0]
        begin = [] if self.bos_id is None else [self.bos_id]
        return begin + self.ids([self.config.head])[0]

    @property
    def layout(self) -> str:
        """All that tokens depend on besides the tokenizer's rules, as one string."""
        return repr(self.config) if self.turn is None else f"{self.config!r} {self.turn!r}"

    def head_text(self) -> str:
        """What stands in front of the context, without a beginning token that no template has written."""
        return self.config.head if self.turn is None else self.turn.before + self.config.head

    def anchor_text(self) -> str:
        """What stands between question and answer."""
        return self.config.anchor if self.turn is None else self.turn.between

    def answer_text(self, answer: str) -> str:
        """An answer as it stands in the prompt; a turn of its own does not begin with a space."""
        text = self.config.answer.format(answer=answer)
        return text if self.turn is None else text.lstrip()

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
        return self.ids([self.anchor_text()])[0]

    def answer_ids(self, answers: list[str]) -> list[list[int]]:
        """Answers, each closed by the end token."""
        return [[*ids, self.eos_id] for ids in self.ids([self.answer_text(a) for a in answers])]

    def text(self, context: str, question: str, answer: str = "") -> str:
        """The whole prompt as a person would read it (for logs and pages, never tokenised as one string)."""
        tail = self.answer_text(answer) if answer else ""
        return self.head_text() + self.context_text(context) + self.question_text(question) + self.anchor_text() + tail


MARK = "\ue000"
"""Of the characters that mean nothing, one: it stands where the words of a turn will be."""

SAMPLES = (("Oslo is a city.", "Where?"), ("One {line},\n\n  <b>two</b> & more…\t東京 ", "Which of 'them' is \"it\"?"))


def chat_turn(config: PromptConfig, tokenizer: Any) -> Turn:
    """What is cut out of the tokenizer's chat template. UserError: it has none, or changes what is said in it."""
    name = repr(tokenizer.name_or_path)

    def rendered(user: str, answer: str | None = None) -> str:
        messages = [{"role": "user", "content": user}]
        if answer is not None:
            messages.append({"role": "assistant", "content": answer})
        try:
            return tokenizer.apply_chat_template(
                messages,
                tokenize=False,
                add_generation_prompt=answer is None,
                enable_thinking=False,  # of models that can do both, those that answer at once
                date_string="26 Jul 2024",  # Llama's own; today's would make another layout every day
            )
        except Exception as error:  # a template is a program, and each has errors of its own
            told = " ".join(str(error).split())[:200]
            raise UserError(f"the chat template of {name} cannot be used: {told}; leave prompt.chat out") from None

    if not getattr(tokenizer, "chat_template", None):
        raise UserError(f"prompt.chat: tokenizer {name} has no chat template; leave it out, or take a chat model")
    parts = rendered(MARK).split(MARK)
    if len(parts) != 2:
        raise UserError(
            f"prompt.chat: the chat template of {name} shows what the user says {len(parts) - 1} times, not once; "
            "leave it out"
        )
    before, between = parts
    for context, question in SAMPLES:
        said = config.head + config.context.format(context=context) + config.question.format(question=question)
        if rendered(said) != before + said + between:
            raise UserError(
                f"prompt.chat: the chat template of {name} changes what the user says, so latents cannot stand in its "
                "place; leave it out, or let prompt.head and prompt.question begin and end without spaces"
            )
    if not between.strip():
        raise UserError(f"prompt.chat: the chat template of {name} puts nothing before an answer; leave it out")
    behind = rendered("?", MARK).partition(MARK)[2]
    ids = tokenizer(behind, add_special_tokens=False, verbose=False)["input_ids"]
    # Gemma ends a turn with another token than a text
    return Turn(before, between, ids[0] if ids and ids[0] in tokenizer.added_tokens_decoder else None)
