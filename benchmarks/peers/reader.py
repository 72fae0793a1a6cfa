"""What the workers share: a reader in the peer's own environment, items in, answers out, both as JSON lines.

A worker runs under another transformers than this project's, so nothing of latentwire is imported here, and nothing
is used that one of 4.46 and 5.x lacks. It is told a job (JSON):

    items, answers     files of JSON lines
    receiver           a checkpoint's directory
    methods, ratios    what to measure; the method ``text`` reads the whole context and has no ratio
    context            how a text stands in the prompt, with ``{context}`` in it
    most               tokens of an answer, at most
    baseline           items that ``text`` is measured on: so many of the first

An item has ``id``, ``text`` (the context), token ids of ``head``, ``context`` and ``tail`` (question and anchor), and
``keep``: by ratio, how many K/V positions may stand for the context. The ids are latentwire's own, so the layout is.
An answer has ``id``, ``method``, ``ratio``, ``prediction`` and ``positions``; a method that cannot run has one line
with ``failed``. Answers that are there already are not made again.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, DynamicCache, PreTrainedTokenizerFast

Item = dict[str, Any]


class Reader:
    """A frozen causal LM that reads, then answers greedily. One text at a time: presses know of no padding."""

    def __init__(self, folder: str, most: int) -> None:
        self.model: Any = AutoModelForCausalLM.from_pretrained(folder).eval()
        self.tokenizer = PreTrainedTokenizerFast.from_pretrained(folder)
        self.most = most

    @torch.no_grad()
    def read(self, ids: list[int]) -> Any:
        """The cache after ``ids``; what a press leaves of it, under a press."""
        cache = DynamicCache()
        self.model.model(input_ids=torch.tensor([ids]), past_key_values=cache, use_cache=True)
        return cache

    @torch.no_grad()
    def answer(self, cache: Any, start: int, tail: list[int]) -> str:
        """Continue ``tail`` on top of a cache until the end token. start: position of its first token, which is *not*
        the length of a cache that was pressed."""
        ids, said = tail, []
        while len(said) < self.most:
            positions = torch.arange(start, start + len(ids))[None]
            out = self.model(
                input_ids=torch.tensor([ids]), past_key_values=cache, position_ids=positions, use_cache=True
            )
            token, start = int(out.logits[0, -1].argmax()), start + len(ids)
            if token == self.model.config.eos_token_id:
                break
            said.append(token)
            ids = [token]
        return self.tokenizer.decode(said, skip_special_tokens=True).strip()

    def answer_text(self, item: Item, context: list[int]) -> dict[str, Any]:
        """An answer from a context of these tokens, and how many they are."""
        ids = item["head"] + context
        return {"prediction": self.answer(self.read(ids), len(ids), item["tail"]), "positions": len(context)}


def lines_of(path: str | Path) -> list[dict[str, Any]]:
    """Rows of a file of JSON lines; a last one that was not finished is left out."""
    found = []
    for line in Path(path).read_text(encoding="utf-8").splitlines() if Path(path).is_file() else []:
        try:
            found.append(json.loads(line))
        except json.JSONDecodeError:  # of a worker that was stopped while it wrote
            continue
    return found


def work(make: Callable[[dict[str, Any], Reader], Callable[[str, Item, int], dict[str, Any]]]) -> None:
    """The worker's main: ``python WORKER JOB``.

    make: of the job and its reader, what answers an item by a method with so many positions.
    """
    job = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    reader = Reader(job["receiver"], job["most"])
    answers = Path(job["answers"])
    kept = [line for line in lines_of(answers) if "failed" not in line]
    answers.write_text("".join(json.dumps(line) + "\n" for line in kept), encoding="utf-8")
    done = {(line["method"], line["ratio"], line["id"]) for line in kept}
    items = lines_of(job["items"])
    with answers.open("a", encoding="utf-8", buffering=1) as out:

        def note(line: dict[str, Any]) -> None:
            out.write(json.dumps(line) + "\n")

        def measure(
            items: list[Item], method: str, ratio: int | None, answer: Callable[[Item], dict[str, Any]]
        ) -> None:
            try:
                for item in items:
                    if (method, ratio, item["id"]) not in done:
                        note({"id": item["id"], "method": method, "ratio": ratio, **answer(item)})
            except Exception as error:  # whatever a foreign package raises: it must not cost the other methods
                note({"method": method, "ratio": ratio, "failed": reason(error)})

        if "text" in job["methods"]:
            measure(items[: job["baseline"]], "text", None, lambda item: reader.answer_text(item, item["context"]))
        methods = [method for method in job["methods"] if method != "text"]
        try:
            peer = make(job, reader)
        except Exception as error:
            for method in methods:
                note({"method": method, "ratio": None, "failed": reason(error)})
            return
        for ratio in job["ratios"]:
            for method in methods:
                measure(items, method, ratio, lambda item, m=method, r=str(ratio): peer(m, item, item["keep"][r]))


def reason(error: Exception) -> str:
    """An error in one line that ends somewhere."""
    return f"{type(error).__name__}: {' '.join(str(error).split())}"[:600]
