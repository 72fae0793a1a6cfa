"""F1 by kind of answer: where a receiver whose tokens are cut differently loses what the encoder's own one keeps."""

from __future__ import annotations

from typing import Any

from latentwire.evaluation.metrics import retention
from latentwire.evaluation.results import Key
from latentwire.prompt import Prompt
from latentwire.wire import Wire

KINDS = ("digits", "alike", "different", "no answer")
SPLIT = ("text", "none", "latents")


def kind_of(answer: str, cuts: list[list[str]]) -> str:
    """``digits``: the answer has some. ``alike``: all tokenizers cut it into the same pieces. Else ``different``; or
    ``no answer``."""
    if not answer:
        return "no answer"
    if any(c.isdigit() for c in answer):
        return "digits"
    return "alike" if all(cut == cuts[0] for cut in cuts) else "different"


def pieces(prompt: Prompt, answers: list[str]) -> list[list[str]]:
    """How a tokenizer cuts answers as they stand in the layout: pieces of the text, without the space around them."""
    texts = [prompt.answer_text(answer) for answer in answers]
    if not prompt.tokenizer.is_fast:
        rows = [[prompt.tokenizer.decode([token]) for token in ids] for ids in prompt.ids(texts)]
    else:
        spans = prompt.tokenizer(texts, add_special_tokens=False, return_offsets_mapping=True)["offset_mapping"]
        rows = [[text[a:b] for a, b in row] for text, row in zip(texts, spans, strict=True)]
    # a space may be a token of its own, or stand before or behind a word: none of these is another cut
    return [[piece.strip() for piece in row if piece.strip()] for row in rows]


def by_kind(wire: Wire, first: list[str], said: dict[Key, list[dict[str, Any]]]) -> list[dict[str, Any]]:
    """Rows ``{receiver, condition, ratio, bits, kind, n, f1, retention}`` for text, none and latents; the kinds are by
    the first two receivers' tokenizers. Empty with fewer than two receivers. first: the first right answer of
    each question. said: answers by row, in the same order."""
    if len(wire.receivers) < 2:
        return []
    cuts = [pieces(wire.get_receiver(name).prompt, first) for name in wire.receivers[:2]]
    kinds = [kind_of(answer, list(both)) for answer, *both in zip(first, *cuts, strict=True)]
    scores: dict[Key, dict[str, list[float]]] = {}
    for key, lines in said.items():
        if key[1] in SPLIT:
            split = scores.setdefault(key, {kind: [] for kind in KINDS})
            for kind, line in zip(kinds, lines, strict=True):
                split[kind].append(line["f1"])
    mean = {(*key, kind): sum(v) / len(v) for key, split in scores.items() for kind, v in split.items() if v}
    rows = []
    for (receiver, condition, ratio, bits, kind), value in mean.items():
        full = mean.get((receiver, "text", None, None, kind))
        none = mean.get((receiver, "none", None, None, kind))
        kept = None if full is None or none is None else retention(value, none, full)
        rows.append(
            {
                "receiver": receiver,
                "condition": condition,
                "ratio": ratio,
                "bits": bits,
                "kind": kind,
                "n": len(scores[receiver, condition, ratio, bits][kind]),
                "f1": round(value, 4),
                "retention": None if kept is None else round(kept, 4),
            }
        )
    return rows
