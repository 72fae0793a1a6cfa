"""What peers are given: questions with as many K/V positions as the wire's latents take, and checkpoints that an older
transformers reads."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from latentwire.types import Example
    from latentwire.wire import Wire

Row = dict[str, Any]


def items_of(
    wire: Wire, examples: Sequence[Example], ratios: Sequence[int], names: Sequence[str]
) -> dict[str, list[Row]]:
    """By receiver, the examples as a worker reads them (``peers/reader.py`` says what an item holds).

    Tokens are those of the condition ``text``: of the same layout, cut to the window where that cuts.
    """
    from latentwire.codecs import by_bits
    from latentwire.conditions.text import Text
    from latentwire.evaluation.given import Tokens, give
    from latentwire.evaluation.items import Items, encode_all

    items = Items.of(wire, list(examples), "context")
    latents = {ratio: encode_all(wire, items, ratio, 64).latents for ratio in ratios}
    found: dict[str, list[Row]] = {}
    for name in names:
        receiver, link = wire.get_receiver(name), wire.links[name]
        taken: dict[int, list[int]] = {}
        for ratio in ratios:
            mine_N = wire.encoder.part(latents[ratio], name).count_B.cpu()
            taken[ratio] = link.injection.kv_positions(mine_N * link.slots()).tolist()  # ty: ignore
        fitted = give(Text(), items, Tokens(receiver, items), None, [], by_bits(16))
        found[name] = [
            {
                "id": example.id,
                "text": example.context,
                "head": receiver.prompt.head_ids(),
                "context": row.context,
                "tail": row.tail,
                "keep": {str(ratio): min(taken[ratio][place], len(row.context)) for ratio in ratios},
            }
            for example, place, row in zip(items.examples, items.owner, fitted, strict=True)
        ]
    return found


def write_lines(path: Path, rows: Sequence[Row]) -> None:
    """Rows as JSON lines; whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{os.getpid()}")
    part.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    part.replace(path)


def older_checkpoint(source: Path, target: Path) -> Path:
    """A checkpoint as transformers 4.46 and 5.x both read it; weights and tokenizer are those of ``source``.

    What changed its name: ``rope_parameters`` was ``rope_theta`` (with ``rope_scaling``, unless the type is
    ``default``), ``dtype`` was ``torch_dtype``, the tokenizer's class ``TokenizersBackend`` was
    ``PreTrainedTokenizerFast``. 4.46 does not complain of a name that it does not know: it takes its own default.
    """
    target.mkdir(parents=True, exist_ok=True)
    config = json.loads((source / "config.json").read_text(encoding="utf-8"))
    rope = dict(config.get("rope_parameters") or {})
    if rope:
        config["rope_theta"] = rope.pop("rope_theta")
        if rope.get("rope_type", "default") != "default":
            config["rope_scaling"] = rope
    config["torch_dtype"] = config.get("dtype", "float32")
    (target / "config.json").write_text(json.dumps(config, indent=1) + "\n", encoding="utf-8")
    words = json.loads((source / "tokenizer_config.json").read_text(encoding="utf-8"))
    kept = {
        key: value for key, value in words.items() if key.endswith("_token") or key == "clean_up_tokenization_spaces"
    }
    kept["tokenizer_class"] = "PreTrainedTokenizerFast"
    (target / "tokenizer_config.json").write_text(json.dumps(kept, indent=1) + "\n", encoding="utf-8")
    for name in ("model.safetensors", "tokenizer.json"):
        if not (target / name).is_file():
            shutil.copyfile(source / name, target / name)
    return target
