"""Retention against one thing at a time, from runs of equal budget: ``python benchmarks/curves.py``.

The recipe of the shipped wire, from the readers on, short: each run differs from the middle one in a single setting
(``CURVES``). A line is fitted to each curve, of the part of the score that is lost against how often the setting was
doubled, and says what it predicts for ten times as much.

    python benchmarks/curves.py --data-dir DIR --steps 1200 --parallel 6
    python benchmarks/curves.py --smoke --only training  (a CPU, no data: two steps each)
    python benchmarks/curves.py --table                   (docs/log.md from benchmarks/results/curves.json)
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from curves_table import fill, fitted, table
from methods_config import READERS, ROOT, smoke
from side_by_side import Job, command, finish, measured

RESULTS = ROOT / "benchmarks" / "results" / "curves.json"
Setting = dict[str, float | str]
MIDDLE: Setting = {
    "training": 1.0, "text": 1.0, "d_z": 512, "slots": 1, "ratio": 8, "encoder": "llama", "links": "both"
}  # fmt: skip
"""Settings of the run that all curves share. training (steps) and text are shares of what the command line names.
encoder: the reader it starts from; the other one is its lexicon. links: the readers that learn to read it."""
CURVES: dict[str, tuple[float, ...]] = {
    "training": (0.25, 0.5, 1.0, 2.0),
    "text": (0.125, 0.25, 0.5, 1.0),
    "d_z": (128, 256, 512),
    "slots": (1, 2, 4),
    "ratio": (2, 4, 8, 16, 32),
}
"""What is varied. text: windows and passages with made questions alike (people's questions all take part); slots: K/V
positions for each latent."""

CAUSES: dict[str, Setting] = {
    "llama-alone": {"links": "llama"},
    "qwen2-alone": {"links": "qwen2"},
    "from-qwen2": {"encoder": "qwen2"},
    "qwen2-alone-from-qwen2": {"encoder": "qwen2", "links": "qwen2"},
}
"""Where the gap between the readers comes from: from sharing the encoder, or from whose tokens it reads."""
SEEDS: dict[str, Setting] = {
    f"{name}-seed-{seed}": {"ratio": ratio, "seed": seed}
    for name, ratio in (("ratio-4", 4), ("middle", 8))
    for seed in (1, 2)
}
"""The same runs from other seeds, asked the same questions."""
GPT2: Setting = {"links": "gpt2"}
THIRD: dict[str, Setting] = {
    **{f"gpt2-ratio-{ratio}": GPT2 | {"ratio": ratio} for ratio in CURVES["ratio"]},
    **{f"gpt2-ratio-{r}-seed-{seed}": GPT2 | {"ratio": r, "seed": seed} for r in (4, 8) for seed in (1, 2)},
    **{f"gpt2-prompt-{ratio}": GPT2 | {"ratio": ratio, "mode": "prompt"} for ratio in (4, 8)},
    "gpt2-slots-2": GPT2 | {"ratio": 4, "slots": 2},
    "gpt2-soft-tokens": GPT2 | {"ratio": 4, "injection": "soft-tokens"},
}
"""The third reader at every ratio, alone with an encoder whose lexicon is of its tokens; from other seeds, in prompt
mode, with two slots a latent, and with soft tokens."""


def points(only: list[str]) -> dict[str, Setting]:
    """Settings by run name; the middle is one run."""
    found: dict[str, Setting] = {}
    for curve, values in CURVES.items():
        for value in values if not only or curve in only else ():
            setting = MIDDLE | {curve: value}
            found["middle" if setting == MIDDLE else f"{curve}-{value:g}"] = setting
    if not only or "causes" in only:
        found |= {"middle": MIDDLE} | {name: MIDDLE | setting for name, setting in CAUSES.items()}
    if not only or "seeds" in only:
        found |= {name: MIDDLE | setting for name, setting in SEEDS.items()}
    if not only or "third" in only:
        found |= {name: MIDDLE | setting for name, setting in THIRD.items()}
    return found


def config(setting: Setting, given: argparse.Namespace) -> dict[str, Any]:
    """The training config of one run."""
    from latentwire.config import read_yaml

    tree = read_yaml(ROOT / "configs" / "sandbox" / "wire.yaml")
    encoder, links, text = tree["wire"]["encoder"], tree["wire"]["links"], float(setting["text"])
    first, alone = str(setting["encoder"]), str(setting["links"])
    second = alone if alone not in ("both", *links) else next(name for name in links if name != first)
    if second not in links:
        links = {second: links[first]}
    d_z, slots, ratio = (int(setting[key]) for key in ("d_z", "slots", "ratio"))
    encoder |= {"d_z": d_z, "ratios": [ratio], "init": given.readers[first], "lexicons": [given.readers[second]]}
    tree["wire"]["links"] = {name: link for name, link in links.items() if alone in ("both", name)}
    for name, link in tree["wire"]["links"].items():
        link["receiver"] = given.readers[name]
        link["adapter"]["slots"] = [slots]
        if "injection" in setting:
            link["injection"] = {"type": setting["injection"]}
    tree |= {
        "draws": [{"ratio": ratio, "mode": str(setting.get("mode", "context"))}],
        "seed": int(setting.get("seed", given.seed)),
        "minutes": 0,
        "steps": max(1, round(given.steps * float(setting["training"]))),
        "passages": given.passages,
    }
    tree["corpus"] |= {"windows": int(given.windows * text), "made": int(given.made * text)}
    tree["corpus"]["prompts"] = int(given.made) if setting.get("mode") == "prompt" else 0
    tree["corpus"]["cache"] = str(given.out / "cache")
    if given.smoke:
        tree["wire"]["encoder"] |= {"window": 316, "d_z": min(d_z, 16)}
        for link in tree["wire"]["links"].values():
            link["adapter"]["head_dim"] = 8
            link["injection"] |= {} if "injection" in setting else {"width": 16}
        tree |= {"passages": 2, "asks": 1, "warmup": 1, "log_every": 1, "eval_every": 0, "device": "cpu"}
        tree |= {"graphs": False}
        tree["corpus"] |= {"longest": 316} | given.corpus
    return tree


def jobs(given: argparse.Namespace) -> list[tuple[Path, Job]]:
    """A folder for each run, named by all that its figures depend on, and what is to be done in it."""
    from latentwire.config import config_hash

    todo: list[tuple[Path, Job]] = []
    for name, setting in points([]).items():
        job: Job = {"name": name, "facts": {"name": name, "setting": setting}, "config": config(setting, given)}
        job |= {
            "n": given.n,
            "data_dir": given.data_dir,
            "references": name in ("middle", "gpt2-ratio-8"),
            "drawn": given.seed,
        }
        job |= {"mode": setting["mode"]} if "mode" in setting else {}
        todo.append((given.out / f"{name}-{config_hash({**job, 'data_dir': None})}", job))
    # the longest first: the others fit beside it
    return sorted(todo, key=lambda item: -item[1]["facts"]["setting"]["training"])


def gathered(todo: list[tuple[Path, Job]], failed: dict[str, str], given: argparse.Namespace) -> dict[str, Any]:
    """What ``curves.json`` holds: all finished runs of this budget, also those that ``--only`` leaves out now, and a
    line through each curve."""
    found = measured(todo, given, budget(given))
    return {"budget": budget(given), **found, "lines": fitted(found["runs"], CURVES, MIDDLE), "failed": failed}


def budget(given: argparse.Namespace) -> dict[str, Any]:
    """What runs that stand in one file have in common."""
    return {key: getattr(given, key) for key in ("steps", "passages", "windows", "made", "parallel")}


def arguments(argv: list[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = command(__doc__, "curves", 1000)
    parser.add_argument("--steps", type=int, default=1200, help="of the middle run")
    parser.add_argument("--passages", type=int, default=64, help="of a step")
    parser.add_argument("--windows", type=int, default=200_000, help="passages of text of the middle run")
    parser.add_argument("--made", type=int, default=90_000, help="passages with made questions of the middle run")
    parser.add_argument(
        "--run", nargs="*", default=[], metavar="NAME", help="single runs, as they are named in the file"
    )
    parser.add_argument(
        "--only", nargs="*", default=[], choices=[*CURVES, "causes", "seeds", "third"], help="of the curves"
    )
    given = parser.parse_args(argv)
    given.corpus, given.out = {}, given.out.resolve()
    given.readers = READERS | {"gpt2": "sandbox:gpt2"} | dict(item.split("=", 1) for item in given.reader)
    given.results = given.results or (given.out / "curves.json" if given.smoke else RESULTS)
    if given.steps < 1 or given.passages < 1:
        parser.error("--steps and --passages are numbers from 1")
    return given


def main(argv: list[str] | None = None) -> int:
    """The command; exit code 1 if a run failed."""
    given = arguments(argv)
    if given.table:
        page = ROOT / "docs" / "log.md"
        page.write_text(fill(page.read_text(encoding="utf-8")), encoding="utf-8")
        return 0
    if given.smoke:
        given.steps = 2
        smoke(given)
    todo = jobs(given)
    wanted = given.run or points(given.only)
    chosen = [run for run in todo if run[1]["name"] in wanted]
    if unknown := set(given.run) - {job["name"] for _, job in todo}:
        sys.exit(f"error: there is no run {min(unknown)!r}; there are: {', '.join(job['name'] for _, job in todo)}")

    return finish(given, chosen, budget(given), lambda failed: gathered(todo, failed, given), table)


if __name__ == "__main__":
    sys.exit(main())
