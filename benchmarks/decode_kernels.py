"""A decoding step with and without cuDNN's attention kernel: ``python benchmarks/decode_kernels.py --out FILE``.

In decoding every step has a length of its own, and cuDNN makes a plan for each; `latentwire.receivers.kernels` leaves
it out. Both sides in one process, by turns, the same sampled tokens; needs a GPU.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import torch
from torch.nn.attention import SDPBackend

from latentwire.receivers import decode
from latentwire.receivers.kernels import DECODING
from latentwire.receivers.load import load_receiver
from latentwire.receivers.receiver import pad
from latentwire.shipped import resolve

WORDS = "The expedition to the pole was led by four others who came back in the spring of that year with a letter . "


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split(":")[0] + ".")
    parser.add_argument("--receiver", default="sandbox:llama")
    parser.add_argument("--batch", type=int, default=512)
    parser.add_argument("--context", type=int, default=200, help="words that were read before")
    parser.add_argument("--tokens", type=int, default=48)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    receiver = load_receiver(resolve(given.receiver), device=device)
    text = " ".join((WORDS * (given.context // 20 + 1)).split()[: given.context])
    mask_BT, ids_BT = pad(receiver.prompt.context_ids([text] * given.batch), receiver.prompt.pad_id, device)
    with torch.no_grad():
        prefix = receiver.read(ids_BT, mask_BT, receiver.head_for(given.batch))
    tails = [receiver.prompt.anchor_ids()] * given.batch

    def seconds(kernels: list[SDPBackend]) -> float:
        DECODING[:] = kernels
        if device == "cuda":
            torch.cuda.synchronize()
        begun = time.monotonic()
        decode.generate(receiver, prefix, tails, given.tokens, min_new_tokens=given.tokens)
        return (time.monotonic() - begun) / given.tokens

    without = list(DECODING)
    sides = {"without": without, "with": [SDPBackend.CUDNN_ATTENTION, *without]}
    found = {name: [] for name in sides}
    for _ in range(given.rounds):
        for name, kernels in sides.items():
            found[name].append(round(1e3 * seconds(kernels), 2))
    facts = {
        "device": torch.cuda.get_device_name() if device == "cuda" else "cpu",
        "torch": torch.__version__,
        "receiver": given.receiver,
        **{key: getattr(given, key) for key in ("batch", "context", "tokens")},
        "milliseconds_a_step": found,
    }
    print(json.dumps(facts, indent=1))
    if given.out:
        given.out.write_text(json.dumps(facts, indent=1) + "\n")


if __name__ == "__main__":
    main()
