"""The card of a wire: README.md with a YAML head, as the model hub reads it.

What a card says is taken from the wire and from a file of results, nothing is typed by hand. Results of another
encoder, receiver or link are refused: a card must not promise what its wire was not measured at.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from huggingface_hub import ModelCard, ModelCardData

from latentwire import __version__
from latentwire.config import encode
from latentwire.errors import UserError

if TYPE_CHECKING:
    from latentwire.wire import Wire

NAME = "README.md"
TAGS = ["latentwire", "latents", "prompt-compression", "model_hub_mixin"]
SIGN = "<!-- Written by latentwire when the wire was saved; a card without this line is left as it is. -->"
SHOWN = {
    "text": "full text",
    "none": "no context",
    "budget-question": "first M tokens, question kept",
    "latents": "**latents**",
    "wrong": "control: another article's latents",
}
"""Conditions that a card shows, in this order."""
HEAD = ("text", "none", "latents")
"""Those of them that stand in the YAML head as well."""
ROW = ("receiver", "condition", "mode", "ratio", "bits", "n", "f1", "f1_ci", "em", "retention")

BODY = """---
{head}
---
{sign}

# {title}

A wire of LatentWire: one encoder turns a text into a few latent vectors, and a
link for each of these frozen models lets it answer from them. The models themselves are not in here.

{receivers}

```python
from latentwire import Wire

wire = Wire.from_pretrained("{where}"{paths})
packet = wire.encode(["The expedition was led by Roald Amundsen."], ratio={ratio})[0]
print(wire.receiver("{first}").generate(packet, "Who led the expedition?"))
```

Encoder `{fingerprint}` ({kind}, {encoder:.1f} M parameters): latents of width {d_z}, one for
every {ratios} of its tokens.

## Scores

{scores}

## Limits

{limits}
"""


def wire_card(
    wire: Wire, readers: dict[str, str], repo_id: str, rows: Sequence[dict[str, Any]], limits: Sequence[str]
) -> ModelCard:
    """The card. readers: fingerprints of the receivers. repo_id: where the wire is to be found (may be empty). rows:
    what :func:`scores` gives. limits: sentences beside those that hold for any wire."""
    settings = wire.settings.encoder
    links = {name: wire.settings.links[name] for name in wire.receivers}
    facts = {name: {"model": model_of(link.receiver), "fingerprint": readers[name]}
             for name, link in links.items()}  # fmt: skip
    told = [*standing(wire), *limits]
    data = ModelCardData(
        library_name="latentwire",
        tags=TAGS,
        base_model=list(dict.fromkeys(link.receiver for link in links.values() if on_hub(link.receiver))) or None,
        latentwire={
            "version": __version__,
            "encoder": wire.fingerprint.hex(),
            "d_z": settings.d_z,
            "ratios": list(wire.ratios),
            "receivers": facts,
            "scores": [
                {key: value for key, value in row.items() if value is not None}
                for row in rows
                if row["condition"] in HEAD
            ],
            "limits": told,
        },
    )
    local = [name for name, link in links.items() if facts[name]["model"] != link.receiver]
    paths = ", ".join(f'"{name}": "DIR"' for name in local)
    ratios = [str(ratio) for ratio in wire.ratios]
    return ModelCard(
        BODY.format(
            head=data.to_yaml(),
            sign=SIGN,
            title=repo_id.rsplit("/", maxsplit=1)[-1] or "A wire",
            where=repo_id or "DIR",
            paths=f", paths={{{paths}}}" if paths else "",
            ratio=ratios[0],
            first=next(iter(links), "NAME"),
            receivers=receivers_table(wire, facts),
            fingerprint=wire.fingerprint.hex(),
            kind=encode(wire.settings)["encoder"]["type"],
            encoder=millions(wire.encoder),
            d_z=settings.d_z,
            ratios=" or ".join(filter(None, (", ".join(ratios[:-1]), ratios[-1]))),
            scores=scores_table(rows),
            limits="\n".join(f"- {sentence}" for sentence in told),
        ),
    )


def scores(wire: Wire, results: str | Path | None) -> list[dict[str, Any]]:
    """The rows of a ``results.json`` (or of the folder it lies in) that a card shows; none without one.

    UserError: no such file, no results, or those of another encoder, receiver or link.
    """
    if results is None:
        return []
    path = Path(results) / "results.json" if Path(results).is_dir() else Path(results)
    try:
        tree = json.loads(path.read_text(encoding="utf-8"))
        made_by, rows = tree["wire"], tree["rows"]
        measured = {name: (made_by["receivers"][name], made_by["links"][name]) for name in made_by["links"]}
        how = {"slots": tree.get("slots")}
        found = [{key: row[key] for key in ROW} | how for row in rows if row["f1"] is not None]
    except FileNotFoundError:
        raise UserError(f"there is no {path}; `latentwire eval` writes one") from None
    except (json.JSONDecodeError, KeyError, TypeError) as error:
        raise UserError(f"{path} holds no results of `latentwire eval`: {type(error).__name__} {error}") from None
    if made_by["encoder"] != wire.fingerprint.hex():
        raise UserError(f"{path} was measured with encoder {made_by['encoder']}, this wire's is "
                        f"{wire.fingerprint.hex()}; evaluate this wire")  # fmt: skip
    for name in wire.receivers:
        ours = wire.get_receiver(name).fingerprint(), wire.links[name].fingerprint()  # ty: ignore[not-callable]
        if name in measured and measured[name] != ours:
            raise UserError(f"{path} was measured with another receiver or link {name!r}; evaluate this wire")
    shown = [row for row in found if row["receiver"] in wire.receivers and row["condition"] in SHOWN]
    order = list(SHOWN)
    return sorted(shown, key=lambda row: (wire.receivers.index(row["receiver"]), row["ratio"] or 0,
                                          order.index(row["condition"]), -(row["bits"] or 0)))  # fmt: skip


def standing(wire: Wire) -> list[str]:
    """What holds for any wire, with this one's figures."""
    encoder = wire.settings.encoder
    return [
        "A link fits one model: weights with another fingerprint than its receiver's are refused.",
        f"A latent is {encoder.d_z} values, {2 * encoder.d_z:,} bytes at 16 bits: packets save positions, not bytes.",
        f"The encoder reads {encoder.window} tokens at once; a longer text is encoded in parts.",
        "Texts unlike those of the training, in kind or language, have not been measured here.",
    ]


def receivers_table(wire: Wire, facts: dict[str, dict[str, str]]) -> str:
    """A line for each receiver: its model, fingerprint, and what its link is made of."""
    lines = [
        "| receiver | model | fingerprint | adapter | injection | link, M parameters |",
        "|---|---|---|---|---|---:|",
    ]
    for name, fact in facts.items():
        made = encode(wire.settings.links[name])
        kinds = f"`{made['adapter']['type']}` | `{made['injection']['type']}`"
        size = f"{millions(wire.links[name]):.1f}"
        lines.append(f"| `{name}` | {fact['model']} | `{fact['fingerprint']}` | {kinds} | {size} |")
    return "\n".join(lines)


def scores_table(rows: Sequence[dict[str, Any]]) -> str:
    """A line for each row, with F1 and its interval; a sentence where there are none."""
    if not rows:
        return "Not measured: the wire was saved without results of `latentwire eval`."
    lines = ["| receiver | given | ratio | bits | F1 (95 %) | EM | retention |", "|---|---|---:|---:|---:|---:|---:|"]
    for row in rows:
        low, high = row["f1_ci"]
        kept = "" if row["retention"] is None else f"{row['retention']:.2f}"
        what = f"`{row['receiver']}` | {SHOWN[row['condition']]}"
        at = f"{row['ratio']}× | {row['bits']}" if row["ratio"] else " | "
        lines.append(f"| {what} | {at} | {row['f1']:.3f} ({low:.3f}–{high:.3f}) | {row['em']:.3f} | {kept} |")
    kinds = dict.fromkeys(f"{row['n']:,} questions in {row['mode']} mode{slots_of(row)}" for row in rows)
    return "\n".join([*lines, "", f"{', '.join(kinds)}. Retention is (F1 - no context) / (full text - no context)."])


def slots_of(row: dict[str, Any]) -> str:
    """What was asked for in place of the links' first number of slots, if anything."""
    if row["slots"] is None:
        return ""
    return " with K/V slots for half the text" if row["slots"] == "half" else f" with {row['slots']} slots a latent"


def on_hub(receiver: str) -> bool:
    """Whether a link names its receiver by a hub id."""
    elsewhere = receiver.startswith(("sandbox:", "/", ".", "~")) or Path(receiver).is_dir()
    return receiver.count("/") == 1 and not elsewhere


def model_of(receiver: str) -> str:
    """What a card calls a receiver: its hub id or shipped name, of a directory the last part alone."""
    if on_hub(receiver) or receiver.startswith("sandbox:"):
        return receiver
    return f"{Path(receiver).name} (a directory)"


def millions(module: Any) -> float:
    """Parameters, in millions."""
    return sum(parameter.numel() for parameter in module.parameters()) / 1e6


def forget_card(directory: Path) -> None:
    """Remove an earlier save's card, so that it is written anew; one that a person wrote stays."""
    path = directory / NAME
    if path.is_file() and SIGN in path.read_text(encoding="utf-8"):
        path.unlink()
