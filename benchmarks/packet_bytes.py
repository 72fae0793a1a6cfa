"""What latents cost in bytes beside honest rivals that keep the whole text: ``python benchmarks/packet_bytes.py``.

For passages of the shipped questions: UTF-8, zstd -19 alone and with a dictionary trained on other text, the encoder's
token ids at log2(vocabulary) bits, and the length of an arithmetic code under the LM that the encoder began as (minus
the logarithm of each token's probability; a coder comes within two bits of it). Beside them the packets of the wire in
every codec, with the F1 that the quoted evaluation found (``sandbox-full*.json``). ``--fill`` puts the table into
docs/packets.md.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import re
from pathlib import Path
from typing import Any

import torch

from latentwire import Wire
from latentwire.codecs import Codec, by_bits
from latentwire.data.progress import progress
from latentwire.data.rows import read_examples
from latentwire.data.squad import load_split, shipped_valid
from latentwire.environment import environment
from latentwire.packets.packet import HEADER_BYTES
from latentwire.receivers import Receiver
from latentwire.receivers.attention import own_causal
from latentwire.receivers.receiver import pad

ROOT = Path(__file__).resolve().parents[1]
RESULTS, PAGE = ROOT / "benchmarks" / "results" / "packet-bytes.json", ROOT / "docs" / "packets.md"
BLOCK = re.compile(r"(<!-- bytes:begin -->\n).*?(<!-- bytes:end -->)", re.DOTALL)
QUOTED = {None: "sandbox-full.json", "half": "sandbox-full-half.json"}
BATCH = 32


def zstd_bytes(texts: list[str], train: list[str]) -> dict[str, float]:
    """Mean bytes of zstd -19, alone and with a dictionary of 110 KB made of ``train``."""
    import zstandard

    book = zstandard.train_dictionary(112_640, [text.encode() for text in train], level=19)
    sides = {"zstd -19": None, "zstd -19, trained dictionary": book}
    found = {}
    for name, given in sides.items():
        press = zstandard.ZstdCompressor(level=19, dict_data=given, write_content_size=False, write_dict_id=False)
        found[name] = sum(len(press.compress(text.encode())) for text in texts) / len(texts)
    return found


@torch.no_grad()
def code_bytes(receiver: Receiver, texts: list[str]) -> float:
    """Mean bytes of an ideal arithmetic code of the texts' tokens under a causal LM, each text from its beginning."""
    ids, bits = receiver.prompt.context_ids(texts), 0.0
    order = sorted(range(len(ids)), key=lambda number: len(ids[number]))
    with progress(f"reading with {receiver.name}", len(ids)) as show:
        for start in range(0, len(order), BATCH):
            batch = [[int(receiver.prompt.bos_id or 0), *ids[number]] for number in order[start : start + BATCH]]
            mask_BT, ids_BT = pad(batch, receiver.prompt.pad_id, receiver.device)
            positions_BT = torch.arange(ids_BT.shape[1], device=ids_BT.device).expand_as(ids_BT)
            h_BTE = receiver.states(ids_BT, positions_BT=positions_BT, own_BTT=own_causal(mask_BT))
            log_BT = receiver.logits(h_BTE[:, :-1]).log_softmax(-1).gather(-1, ids_BT[:, 1:, None])[..., 0]
            bits -= float((log_BT * mask_BT[:, 1:]).sum()) / math.log(2)
            show(min(start + BATCH, len(order)), f"of {len(order)} texts")
    return bits / 8 / len(texts)


def measure(wire: Wire, texts: list[str], train: list[str]) -> dict[str, Any]:
    """What the file holds."""
    receiver = wire.get_receiver("llama")
    tokens = [len(ids) for ids in receiver.prompt.context_ids(texts)]
    vocabulary = math.log2(receiver.geometry.vocab)
    rows: list[dict[str, Any]] = [{"what": "UTF-8", "bytes": sum(len(text.encode()) for text in texts) / len(texts)}]
    rows += [{"what": name, "bytes": value} for name, value in zstd_bytes(texts, train).items()]
    rows.append({"what": "token ids, log2(vocabulary) bits each", "bytes": sum(tokens) / len(tokens) * vocabulary / 8})
    rows.append({"what": "arithmetic code under the encoder's LM", "bytes": code_bytes(receiver, texts)})
    packets = []
    for ratio in wire.ratios:
        counts = [len(packet.z_MD) for packet in wire.encode(texts, ratio=ratio)]
        codecs: dict[str, Codec] = {f"{bits} bits": by_bits(bits) for bits in (16, 8, 6, 4)}
        if wire.codes is not None:
            codecs |= {f"{k} codes": wire.books.codec(8 * k / wire.settings.encoder.d_z) for k in (8, 12, 16)}
        for name, codec in codecs.items():
            size = sum(HEADER_BYTES + codec.nbytes(m, wire.settings.encoder.d_z) for m in counts) / len(counts)
            packets.append({"ratio": ratio, "codec": name, "bytes": round(size, 1)})
    rows = [row | {"bytes": round(row["bytes"], 1)} for row in rows]
    return {"encoder": wire.fingerprint.hex(), "n": len(texts), "rows": rows, "packets": packets}


def scores(encoder: str) -> dict[tuple, float]:
    """F1 by (slots, receiver, ratio, codec) of the quoted evaluations of this encoder, and of the text itself."""
    found = {}
    for slots, name in QUOTED.items():
        whole = json.loads((RESULTS.parent / name).read_text(encoding="utf-8"))
        if whole["wire"]["encoder"] == encoder:
            for row in whole["rows"]:
                if row["condition"] in ("latents", "text"):
                    key = f"{row['bits']:g} bits" if row["bits"] else "text"
                    found[slots, row["receiver"], row["ratio"], key] = row["f1"]
    return found


def table(found: dict[str, Any]) -> str:
    """Markdown: texts first, then packets with what is answered from them."""
    score = scores(found["encoder"])
    readers = sorted({key[1] for key in score})
    head = ["what is sent", "bytes", *(f"`{name}` F1" for name in readers), *(f"`{name}`, half" for name in readers)]
    lines = [head, ["---", *["---:"] * (len(head) - 1)]]
    for row in found["rows"]:
        own = [f"{score[None, name, None, 'text']:.3f}" for name in readers]
        lines.append([row["what"], f"{row['bytes']:,.0f}", *own, *[""] * len(readers)])
    for row in found["packets"]:
        keys = [(slots, name, row["ratio"], row["codec"]) for slots in QUOTED for name in readers]
        cells = ["" if key not in score else f"{score[key]:.3f}" for key in keys]
        lines.append([f"latents {row['ratio']}×, {row['codec']}", f"{row['bytes']:,.0f}", *cells])
    body = "".join(f"| {' | '.join(line)} |\n" for line in lines)
    return f"{body}\nMeans of {found['n']:,} passages, header included; encoder `{found['encoder']}`.\n"


def fill(page: str, found: dict[str, Any]) -> str:
    """The page with its table made anew."""
    return BLOCK.sub(lambda match: match[1] + table(found) + match[2], page)


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split(":")[0] + ".")
    parser.add_argument("--wire", default="sandbox")
    parser.add_argument("--n", type=int, default=300, help="passages, drawn by the seed")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--data-dir", type=Path, help="folder with squad/, whose train part the dictionary learns from")
    parser.add_argument("--fill", action="store_true", help="only put the table of the file into docs/packets.md")
    given = parser.parse_args()
    if not given.fill:
        if given.data_dir is None:
            parser.error("--data-dir is needed: the dictionary is trained on text of its own")
        passages = list(dict.fromkeys(example.context for example in read_examples(shipped_valid())))
        texts = random.Random(given.seed).sample(passages, min(given.n, len(passages)))
        train = list(dict.fromkeys(example.context for example in load_split(given.data_dir, "train")))
        wire = Wire.from_pretrained(given.wire, receivers=["llama"])
        found = measure(wire, texts, train) | {"seed": given.seed, **environment(wire.device)}
        RESULTS.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    found = json.loads(RESULTS.read_text(encoding="utf-8"))
    PAGE.write_text(fill(PAGE.read_text(encoding="utf-8"), found), encoding="utf-8")


if __name__ == "__main__":
    main()
