"""How SQuAD 1.1 (Rajpurkar et al. 2016) is split: articles to train on, a slice of them kept aside for choices, and 22
for the figures that are reported. The official dev set plays no part: results on it are measured apart."""

from __future__ import annotations

import functools
import hashlib
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

from latentwire.data.files import COMPRESSED
from latentwire.data.rows import read_examples
from latentwire.errors import UserError
from latentwire.types import Example

ASIDE = 20
"""One train article in this many is kept aside."""

VALID_SHA256 = "26d72da882180705fd9451f89947132f83d81db32b9a81f36157d04b4dd8b591"
"""Of the shipped questions, unpacked; every reported figure was measured on exactly these."""


def article(example_id: str) -> str:
    """The article's title in ``squad_v1-train-<Title>-<paragraph>-<question>`` (titles may hold dashes).

    >>> article("squad_v1-train-Anti-aircraft_warfare-3-0")
    'Anti-aircraft_warfare'
    """
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
    found = [path for ending in ("", *COMPRESSED) if (path := folder / f"{name}.jsonl{ending}").is_file()]
    if not found:
        raise UserError(f"{folder} has no {name}.jsonl (nor .gz, .xz, .zst); `latentwire data prepare` makes it")
    rows = read_examples(found[0])
    if name == "valid":
        return rows
    return [row for row in rows if kept_aside(article(row.id)) == (split == "dev")]


def shipped_valid() -> Path:
    """The questions that come along with the package (4,851 of SQuAD 1.1; attribution beside the file)."""
    return Path(str(resources.files("latentwire"))) / "sandbox" / "data" / "squad-valid.jsonl.xz"


@dataclass(frozen=True)
class Listed:
    """What is used of a train article: ``paragraphs``, less the (paragraph, question) pairs in ``without``."""

    paragraphs: frozenset[int]
    without: frozenset[tuple[int, int]]

    def has(self, paragraph: int, question: int) -> bool:
        """Whether a question, by its place in the public file, is one of the split's."""
        return paragraph in self.paragraphs and (paragraph, question) not in self.without


@functools.cache
def split_list() -> tuple[dict[str, Listed], frozenset[str]]:
    """The list that makes the split from the public train-v1.1.json: train articles by title, and valid titles."""
    train: dict[str, Listed] = {}
    valid = set()
    text = resources.files("latentwire.data").joinpath("squad-split.tsv").read_text(encoding="utf-8")
    for line in text.splitlines()[1:]:
        split, title, *rest = line.split("\t")
        if split == "valid":
            valid.add(title)
            continue
        spans = [span.partition("-") for span in rest[0].split(",")]
        used = frozenset(n for first, _, last in spans for n in range(int(first), int(last or first) + 1))
        pairs = [pair.split(".") for pair in rest[1].split(",")] if len(rest) > 1 else []
        train[title] = Listed(used, frozenset((int(p), int(q)) for p, q in pairs))
    return train, frozenset(valid)
