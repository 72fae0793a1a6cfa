"""The card of a sentence encoder: what it is, what it has read, what it was measured at, all from the run itself."""

from __future__ import annotations

from typing import Any

from latentwire.sandbox.sentence_text import SentenceConfig

CARD = """# `{name}`, a sentence encoder

A BERT from scratch: {parameters:.1f} M parameters, {layers} layers, width {width}, {heads} heads,
byte-level BPE of {vocabulary:,} tokens. The mean of its last states over a text, beginning and end included, says what
the text is about. It was trained on windows of up to {window} tokens and has places for {positions}.

```yaml
encoder: {{type: sentence-tokens, init: <this folder>, window: {window}}}
```

## Training

{steps:,} steps of up to {batch} pairs, {tokens:,} tokens, seed {seed}, config `{config}`. The two windows of a
pair come from the two halves of one article; all other articles of the batch are negatives (InfoNCE,
temperature {temperature}). Nothing else was learnt: no sentence pairs, no labels.
`python -m latentwire.sandbox.sentence` makes it again.

## Measured

{pairs:,} articles held out, in batches of {measured}: the second window of an article was nearest to its first (and the
first to the second) in **{accuracy:.1%}** of cases; by chance it would be {chance:.1%}. Held out is one article in
{aside}, by a hash of its beginning; these had no part in the vocabulary either. The figures are in `measured.json`.

## Data

{learnt:,} articles to learn from, {held:,} held out, {short:,} left out as shorter than two windows of
{shortest} tokens. Files of text: {files}. Their licences are those of these files.

## Limits

It knows whether two texts are of one article. It has not been measured on anything else, and a short question is not
what it was trained on.
"""


def card(config: SentenceConfig, facts: dict[str, Any]) -> str:
    """README.md of a checkpoint. facts: what ``measured.json`` holds."""
    shape = {key: getattr(config, key) for key in ("name", "layers", "width", "heads", "window", "batch")}
    shape |= {key: getattr(config, key) for key in ("positions", "seed", "temperature", "aside", "shortest")}
    own = {"measured": facts["batch"], "parameters": facts["parameters"] / 1e6}
    own |= {"files": ", ".join(f"`{name}`" for name in facts["files"])}
    return CARD.format(**{**facts, **shape, **own})
