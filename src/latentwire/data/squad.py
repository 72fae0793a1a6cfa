"""How SQuAD is split: training articles, a slice of them kept aside for choices, and 22 articles for reporting."""

from __future__ import annotations

import hashlib
from importlib import resources
from pathlib import Path

from latentwire.data.rows import read_examples
from latentwire.errors import UserError
from latentwire.types import Example

ASIDE = 20
"""One train article in this many is kept aside."""


def article(example_id: str) -> str:
    """The article's title in ``squad_v1-train-<Title>-<paragraph>-<question>`` (titles may hold dashes)."""
    parts = example_id.split("-")
    return "-".join(parts[2:-2]) if len(parts) >= 5 else example_id


def kept_aside(title: str) -> bool:
    """Whether an article is kept out of every training, for choices. Decided by its title alone."""
    return int.from_bytes(hashlib.sha1(title.encode()).digest()[:4], "big") % ASIDE == 0


def load_split(directory: str | Path, split: str) -> list[Example]:
    """Examples of ``train`` (without the slice kept aside), ``dev`` (that slice) or ``valid``."""
    if split not in ("train", "dev", "valid"):
        raise UserError(f"there is no split {split!r}; there are: train, dev, valid")
    name = "valid" if split == "valid" else "train"
    folder = Path(directory) / "squad"
    found = sorted(folder.glob(f"{name}.jsonl*"))
    if not found:
        raise UserError(f"{folder} has no {name}.jsonl (nor .zst, .xz, .gz); `latentwire data prepare` makes it")
    rows = read_examples(found[0])
    if name == "valid":
        return rows
    return [row for row in rows if kept_aside(article(row.id)) == (split == "dev")]


def shipped_valid() -> Path:
    """The questions that come along with the package (4,851 of SQuAD 1.1; attribution beside the file)."""
    return Path(str(resources.files("latentwire"))) / "sandbox" / "data" / "squad-valid.jsonl.xz"
