"""LLMLingua (Jiang et al. 2023) and LLMLingua-2 (Pan et al. 2024): words are left out of the text until it is short.

The first scores tokens by a causal LM's surprise, here the receiver's own: no smaller model of its vocabulary exists.
The second scores them by a trained token classifier, ``job["classifier"]``. Neither sees the question, as the wire's
encoder does not. The receiver then reads the shortened text in the usual layout.

LLMLingua shortens segment by segment and leaves a last one that is not full (200 tokens) as it is
(github.com/microsoft/LLMLingua/issues/196, open): most of these texts would stay whole. So a text is one segment here.

LLMLingua 0.2.2 keeps the token *in front of* each surprising one: it compares the losses of tokens 1, 2, … with a
threshold and keeps tokens 0, 1, …. The method ``llmlingua`` is the package as it is; ``llmlingua-aligned`` gives it
each token's own loss.
"""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import torch
from reader import Item, Reader, work

TRIES = 8
"""Texts are shortened at most so many times to meet the budget."""


def make(job: dict[str, Any], reader: Reader) -> Callable[[str, Item, int], dict[str, Any]]:
    """What answers an item from its shortened text."""
    from llmlingua import PromptCompressor, prompt_compressor  # ty: ignore[import-not-found]

    # what the package would have saved in dollars is counted by a tokenizer fetched from the network; nobody asks here
    prompt_compressor.tiktoken = SimpleNamespace(encoding_for_model=lambda _: SimpleNamespace(encode=str.split))
    classifier = job.get("classifier")
    shorten = PromptCompressor(classifier or job["receiver"], device_map="cpu", use_llmlingua2=bool(classifier))

    def tokens(text: str) -> list[int]:
        return reader.tokenizer(job["context"].format(context=text), add_special_tokens=False)["input_ids"]

    aligned = [False]
    score_once(shorten, aligned)

    def answer(method: str, item: Item, keep: int) -> dict[str, Any]:
        if keep >= len(item["context"]):
            return reader.answer_text(item, item["context"])
        aligned[0] = method == "llmlingua-aligned"
        size = len(shorten.tokenizer(item["text"], add_special_tokens=False)["input_ids"])
        said, ids = meet(
            lambda target: shorten.compress_prompt([item["text"]], target_token=target, iterative_size=size),
            tokens,
            keep,
        )
        return {**reader.answer_text(item, ids), "given": said}

    return answer


def score_once(shorten: Any, aligned: list[bool]) -> None:
    """Let a text be scored once for all targets: where it is one segment, its surprise does not depend on them.

    aligned: whether the loss at a token's place is to be its own.
    """
    found: dict[tuple[int, ...], Any] = {}
    score = shorten.get_ppl

    def get_ppl(text: str, granularity: str, input_ids: Any, attention_mask: Any, **rest: Any) -> tuple[Any, Any]:
        key = tuple(input_ids[0].tolist())
        if key not in found:
            found[key] = score(text, granularity, input_ids, attention_mask, **rest)[0]
        loss_T = found[key].clone()  # the package writes into what it gets
        if aligned[0]:
            # 10000 is the package's own mark of what is kept and not counted; the last token is always kept
            loss_T = torch.cat([torch.full_like(loss_T[:1], 10000), loss_T[:-1]])
        return loss_T, None

    shorten.get_ppl = get_ppl


def meet(
    shorten: Callable[[int], dict[str, Any]], tokens: Callable[[str], list[int]], keep: int
) -> tuple[str, list[int]]:
    """A shortened text of exactly ``keep`` tokens, and those.

    The package meets its target only roughly. It is asked again with another one, and the shortest text that is long
    enough is used, its surplus cut off; if all were too short, the longest.
    """
    target, found = keep, {}
    for _ in range(TRIES):
        said = shorten(target)["compressed_prompt"].strip()
        found[target] = (said, tokens(said))
        off = keep - len(found[target][1])
        if off == 0:
            break
        target = max(target + off, 1)
        while target in found:  # it was too much or too little already: the next one on the way
            target += 1 if off > 0 else -1
        if target < 1:
            break
    enough = [pair for pair in found.values() if len(pair[1]) >= keep]
    said, ids = min(enough, key=lambda pair: len(pair[1])) if enough else max(found.values(), key=lambda p: len(p[1]))
    return said, ids[:keep]


if __name__ == "__main__":
    work(make)
