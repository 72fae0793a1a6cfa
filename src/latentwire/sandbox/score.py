"""How well a reader answers from the full text and from nothing: ``python -m latentwire.sandbox.score CHECKPOINT …``.

Greedy, by transformers' own ``generate`` on an ordinary checkpoint (for shipped figures: the unpacked int8 weights),
in the layout of ``latentwire.prompt``. Writes JSON with intervals and versions.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

from latentwire.data.rows import data_dir, read_examples
from latentwire.data.squad import load_split
from latentwire.environment import versions
from latentwire.errors import UserError
from latentwire.evaluation.metrics import bootstrap_ci, exact_match, f1
from latentwire.prompt import Prompt, PromptConfig
from latentwire.receivers.tokenizer import load_tokenizer
from latentwire.types import Example

CONDITIONS = ("text", "none")
ANSWER_TOKENS = 32


def prompts(prompt: Prompt, examples: list[Example], condition: str, window: int) -> tuple[list[list[int]], int]:
    """Ids in front of each answer, and how many contexts had to be cut to fit the reader's window."""
    head, cut, made = prompt.head_ids(), 0, []
    contexts = prompt.context_ids([e.context if condition == "text" else "" for e in examples])
    for context, question in zip(contexts, prompt.question_ids([e.question for e in examples]), strict=True):
        room = window - ANSWER_TOKENS - len(head) - len(question)
        cut += len(context) > room
        made.append(head + context[:room] + question)
    return made, cut


def answers(model: Any, prompt: Prompt, rows: list[list[int]], batch: int) -> list[str]:
    """Greedy answers, rows of like length together, padding in front."""
    import torch

    device = next(model.parameters()).device
    order = sorted(range(len(rows)), key=lambda i: len(rows[i]))
    texts = [""] * len(rows)
    for start in range(0, len(rows), batch):
        chosen = order[start : start + batch]
        length = len(rows[chosen[-1]])
        ids = torch.tensor([[prompt.pad_id] * (length - len(rows[i])) + rows[i] for i in chosen], device=device)
        mask = torch.tensor([[0] * (length - len(rows[i])) + [1] * len(rows[i]) for i in chosen], device=device)
        with torch.inference_mode():
            out = model.generate(
                input_ids=ids,
                attention_mask=mask,
                max_new_tokens=ANSWER_TOKENS,
                do_sample=False,
                eos_token_id=prompt.eos_id,
                pad_token_id=prompt.pad_id,
            )
        for i, new in zip(chosen, out[:, length:].tolist(), strict=True):
            kept = new[: new.index(prompt.eos_id)] if prompt.eos_id in new else new
            texts[i] = prompt.tokenizer.decode(kept, skip_special_tokens=True).strip()
    return texts


def score(checkpoint: Path, examples: list[Example], conditions: list[str], batch: int = 256) -> dict[str, Any]:
    """EM and F1 of a checkpoint under each condition, with predictions."""
    import torch
    from transformers import AutoModelForCausalLM

    device = "cuda" if torch.cuda.is_available() else "cpu"
    model = AutoModelForCausalLM.from_pretrained(checkpoint, dtype=torch.float32).eval().to(device)
    prompt = Prompt(PromptConfig(), load_tokenizer(checkpoint))
    window = model.config.max_position_embeddings
    rows = []
    for condition in conditions:
        begun = time.monotonic()
        ids, cut = prompts(prompt, examples, condition, window)
        said = answers(model, prompt, ids, batch)
        values = [f1(text, example.answers) for text, example in zip(said, examples, strict=True)]
        exact = [exact_match(text, example.answers) for text, example in zip(said, examples, strict=True)]
        low, high = bootstrap_ci(values, seed=0)
        row: dict[str, Any] = {"condition": condition, "n": len(values), "f1": round(sum(values) / len(values), 4)}
        row |= {"em": round(sum(exact) / len(exact), 4), "f1_ci": [round(low, 4), round(high, 4)], "cut": cut}
        row |= {"seconds": round(time.monotonic() - begun, 2), "predictions": said}
        rows.append(row)
    return {"checkpoint": checkpoint.name, "device": device, "bootstrap_seed": 0, "rows": rows, "versions": versions()}


def main(arguments: list[str] | None = None) -> None:
    """The command."""
    parser = argparse.ArgumentParser(
        prog="python -m latentwire.sandbox.score", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument(
        "--split", default="dev", choices=("dev", "valid"), help="dev: kept aside from train, for choices"
    )
    parser.add_argument("--data", type=Path, help="a file of examples instead of a split")
    parser.add_argument("--data-dir")
    parser.add_argument("--n", type=int, help="the first n (all)")
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--conditions", default="text,none")
    parser.add_argument("--out", type=Path, help="JSON file for the result; predictions go beside it as .jsonl")
    given = parser.parse_args(arguments)
    try:
        examples = read_examples(given.data) if given.data else load_split(data_dir(given.data_dir), given.split)
        examples = examples[: given.n]
        result = score(given.checkpoint, examples, given.conditions.split(","), given.batch)
    except UserError as error:
        sys.exit(f"error: {error}")
    result["split"] = given.data.name if given.data else given.split
    said = {row["condition"]: row.pop("predictions") for row in result["rows"]}
    print(json.dumps(result))
    if given.out:
        given.out.parent.mkdir(parents=True, exist_ok=True)
        given.out.write_text(json.dumps(result, indent=1) + "\n")
        with given.out.with_suffix(".jsonl").open("w", encoding="utf-8") as file:
            for i, example in enumerate(examples):
                file.write(json.dumps({"id": example.id, **{c: texts[i] for c, texts in said.items()}}) + "\n")


if __name__ == "__main__":
    main()
