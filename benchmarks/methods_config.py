"""Which runs ``benchmarks/methods.py`` makes, and the training config of each."""

from __future__ import annotations

import argparse
import json
from dataclasses import fields
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[1]
READERS = {"llama": "sandbox:llama", "qwen2": "sandbox:qwen2"}
RATIO, D_Z = 4, 256
INJECTIONS = ("kv-prefix", "soft-tokens")
"""What every encoder is tried with."""
UNITS = {"byte": 4}
"""Units of length in a text token, for encoders that count in something else."""
NEEDS: dict[str, dict[str, Any]] = {
    "refined": {"inner": {"type": "lm", "init": "{llama}"}},
    "sentence": {"init": ""},  # a sentence encoder, which does not come along
    "sentence-tokens": {"init": ""},
}
"""What a method must be told beside its defaults; an ``init`` that is not named here is the reader ``llama``."""
SMALL: dict[str, Any] = {"width": 16, "layers": 1, "heads": 2, "head_dim": 8, "spread": True}
"""What is made small in a smoke run, in methods that have such a field (``spread``: memory tokens take no positions of
their own, of which a small reader has few)."""


def plan() -> list[tuple[str, str]]:
    """(encoder, injection) of every run, the surest first: it measures the references too."""
    from latentwire.encoders import EncoderConfig
    from latentwire.injections import InjectionConfig

    pairs = [("lm", injection) for injection in (*INJECTIONS, *sorted(InjectionConfig.known()))]
    pairs += [(encoder, injection) for encoder in sorted(EncoderConfig.known()) for injection in INJECTIONS]
    return list(dict.fromkeys(pairs))


def method(family: Any, name: str, given: argparse.Namespace, **more: Any) -> dict[str, Any]:
    """The tree of one method's config: its type, what it needs, and what ``--set`` says."""
    known = {field.name for field in fields(family.known()[name])}
    tree: dict[str, Any] = {"type": name} | ({"init": "{llama}"} if "init" in known else {})
    tree |= NEEDS.get(name, {}) | more
    if given.smoke:
        tree |= {key: value for key, value in SMALL.items() if key in known}
    for key, value in (item.split("=", 1) for item in given.set):
        owner, _, field = key.partition(".")
        tree |= {field: yaml.safe_load(value)} if owner == name else {}
    return json.loads(json.dumps(tree).replace("{llama}", given.readers["llama"]))


def config(encoder: str, injection: str, given: argparse.Namespace) -> dict[str, Any]:
    """The training config of one run: that of the shipped wire, with another encoder and injection."""
    from latentwire.adapters import AdapterConfig
    from latentwire.config import read_yaml
    from latentwire.encoders import EncoderConfig
    from latentwire.injections import InjectionConfig

    tree = read_yaml(ROOT / "configs" / "sandbox" / "wire.yaml")
    unit, (longest, d_z) = UNITS.get(encoder, 1), (316, 16) if given.smoke else (256, D_Z)
    shape = {"d_z": d_z, "ratios": [unit * RATIO], "window": unit * longest}
    link = {
        "adapter": method(AdapterConfig, "mlp", given),
        "injection": method(InjectionConfig, injection, given),
    }
    tree["wire"] = {
        "encoder": method(EncoderConfig, encoder, given, **shape),
        "links": {name: {"receiver": where, **link} for name, where in given.readers.items()},
    }
    tree |= {"draws": [], "seed": given.seed, "minutes": given.minutes or 0, "steps": given.steps or 0}
    tree |= {"passages": given.passages, "graphs": False}
    tree["corpus"] |= {"longest": longest, "shortest": 128, "stretch": 1.25, "prompts": 0} | given.corpus
    for key in ("longest", "shortest", "stretch"):  # all in the encoder's units
        tree["corpus"][key] *= 1 / unit if key == "stretch" else unit
    tree["corpus"]["cache"] = str(given.out / "cache")
    if given.smoke:
        tree |= {"passages": 2, "asks": 1, "warmup": 1, "log_every": 1, "eval_every": 0, "save_every": 0}
        tree["device"] = "cpu"
    return tree


def smoke(given: argparse.Namespace) -> None:
    """Settings of a tiny run on a CPU: two steps, and data made from the questions that come along."""
    from latentwire.data.rows import read_examples
    from latentwire.data.squad import shipped_valid

    folder = given.out / "data"
    (folder / "text").mkdir(parents=True, exist_ok=True)
    rows = {example.context: example for example in read_examples(shipped_valid())}
    chosen = sorted(rows.values(), key=lambda example: len(example.context))[:100]
    text = " ".join(example.context for example in chosen)
    (folder / "text" / "smoke.jsonl").write_text(json.dumps({"title": "Smoke", "text": text}) + "\n", encoding="utf-8")
    lines = [{"id": e.id, "context": e.context, "question": e.question, "answers": list(e.answers)} for e in chosen]
    (folder / "questions.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    given.steps, given.minutes, given.n = given.steps or 2, None, min(given.n, 4)
    given.corpus = {
        "text": str(folder / "text"), "questions": str(folder / "questions.jsonl"), "windows": 16, "made": 8, "dev": 2,
        "shortest": 8, "row": 64, "asked": 96, "stretch": 2.0, "threads": 1,
    }  # fmt: skip
