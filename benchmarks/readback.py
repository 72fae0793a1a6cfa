"""What can be read back from packets: overlap with the text, with another text, and whether nearest words are right.

``python benchmarks/readback.py --out benchmarks/results/readback.json`` takes passages of the questions that come
along, each of another article, drawn by the seed. For each receiver and ratio: both overlaps of what is read back with
its passage and, as a control, with the next one; the share of latents whose nearest token is one of the tokens that the
latent stands for (a token more on either side, for they are cut by equal shares), and the same against the stretch of a
latent half a text away. ``--fill`` puts the table into docs/packets.md.
"""

from __future__ import annotations

import argparse
import json
import random
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
RESULTS, PAGE = ROOT / "benchmarks" / "results" / "readback.json", ROOT / "docs" / "packets.md"
BEGIN, END = "<!-- readback:begin -->\n", "<!-- readback:end -->"


def measure(n: int, seed: int, receivers: list[str], ratios: list[int]) -> dict:
    """All rows, each the mean over ``n`` passages."""
    from latentwire import Wire
    from latentwire.data.rows import read_examples
    from latentwire.data.squad import article, shipped_valid
    from latentwire.readback import nearest_words, overlap, recite

    wire = Wire.from_pretrained("sandbox", receivers=receivers)
    by: dict[str, list[str]] = {}
    for row in read_examples(shipped_valid()):
        by.setdefault(article(row.id), []).append(row.context)
    rng = random.Random(seed)
    texts = [rng.choice(sorted(set(by[title]))) for title in rng.sample(sorted(by), n)]
    rows = []
    for ratio in ratios:
        packets = wire.encode(texts, ratio=ratio)
        for name in receivers:
            began = time.perf_counter()
            said = recite(wire, name, packets)
            seconds = time.perf_counter() - began
            right = [overlap(a, b) for a, b in zip(said, texts, strict=True)]
            wrong = [overlap(a, b) for a, b in zip(said, texts[1:] + texts[:1], strict=True)]
            found = {"f1": right, "f1_wrong": wrong, "lcs": right, "lcs_wrong": wrong}
            row = {key: sum(getattr(o, key.partition("_")[0]) for o in scores) / n for key, scores in found.items()}
            prompt = wire.get_receiver(name).prompt
            hits = [0, 0, 0]
            # one passage in five: a vocabulary is read for each
            for packet, text, back in list(zip(packets, texts, said, strict=True))[::5]:
                ids = prompt.context_ids([text])[0]
                near = nearest_words(wire, name, packet, back, k=1)
                M = len(near)
                for place, each in enumerate(near):
                    for kind, at in ((0, place), (1, (place + M // 2) % M)):
                        stretch = ids[max(0, len(ids) * at // M - 1) : len(ids) * (at + 1) // M + 1]
                        tokens = {prompt.tokenizer.decode([token]).strip() for token in stretch}
                        hits[kind] += each.words[0][0] in tokens
                hits[2] += M
            row |= {"word": hits[0] / hits[2], "word_elsewhere": hits[1] / hits[2], "latents": hits[2]}
            rows.append({"receiver": name, "ratio": ratio, "n": n, **row, "seconds": seconds})
            print(json.dumps(rows[-1]), flush=True)
    return {"wire": wire.fingerprint.hex(), "seed": seed, "rows": rows}


def table(results: dict) -> str:
    """The rows as a Markdown table."""
    head = [
        "receiver",
        "ratio",
        "F1",
        "F1, another text",
        "LCS",
        "LCS, another text",
        "nearest token right",
        "by chance",
    ]
    lines = [head, ["---", *["---:"] * (len(head) - 1)]]
    for row in results["rows"]:
        keys = ("f1", "f1_wrong", "lcs", "lcs_wrong", "word", "word_elsewhere")
        lines.append([f"`{row['receiver']}`", f"{row['ratio']}×", *[f"{row[key]:.2f}" for key in keys]])
    first = results["rows"][0]
    origin = (
        f"{first['n']} passages, each of another article, unquantised, one slot a latent; encoder `{results['wire']}`"
    )
    return "".join(f"| {' | '.join(line)} |\n" for line in lines) + f"\n{origin}, seed {results['seed']}.\n"


def fill(page: str, results: dict) -> str:
    """The page with the table made anew."""
    before, _, rest = page.partition(BEGIN)
    return before + BEGIN + table(results) + END + rest.partition(END)[2]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--n", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--receivers", default="llama,qwen2")
    parser.add_argument("--ratios", default="4,8,16")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--fill", action="store_true", help="put the table of the results file into docs/packets.md")
    args = parser.parse_args()
    if args.out:
        found = measure(args.n, args.seed, args.receivers.split(","), [int(r) for r in args.ratios.split(",")])
        args.out.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    if args.fill:
        results = json.loads(RESULTS.read_text(encoding="utf-8"))
        PAGE.write_text(fill(PAGE.read_text(encoding="utf-8"), results), encoding="utf-8")


if __name__ == "__main__":
    main()
