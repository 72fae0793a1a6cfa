"""Where in a request's text the context ends and the question begins.

The harness hands a model one string. Two marks in it say what is what::

    <|context|>The Norwegian expedition was led by …<|question|>Who led the expedition?

They are part of no prompt: what a receiver sees is laid out by ``latentwire.prompt``, as everywhere.
"""

from __future__ import annotations

from latentwire.errors import UserError

CONTEXT, QUESTION = "<|context|>", "<|question|>"


def split(text: str) -> tuple[str, str]:
    """Context and question of a request, as they stand behind their marks. UserError: the marks are not there once
    each and in this order, or something stands in front of them."""
    shown = repr(text[:60] + "…" if len(text) > 60 else text)
    if CONTEXT not in text and QUESTION not in text:
        raise UserError(
            f"a request has no marked context ({shown}); a task for this model says what is to be sent as latents: "
            f"doc_to_text: '{CONTEXT}{{{{context}}}}{QUESTION}{{{{question}}}}'"
        )
    if text.count(CONTEXT) != 1 or text.count(QUESTION) != 1 or text.index(QUESTION) < text.index(CONTEXT):
        raise UserError(
            f"a request ({shown}) needs {CONTEXT} once and {QUESTION} once behind it; few-shot examples have no place "
            "in front of latents, run with num_fewshot 0"
        )
    before, _, rest = text.partition(CONTEXT)
    if before.strip():
        raise UserError(
            f"something stands in front of {CONTEXT} in a request ({shown}); latents come first, so leave out "
            "descriptions, system instructions and few-shot examples"
        )
    context, _, question = rest.partition(QUESTION)
    if not context.strip():
        raise UserError(f"a request has an empty context ({shown}); there is nothing to encode")
    return context, question
