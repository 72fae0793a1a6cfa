"""What a run will take, from its config alone: parameters, memory by device, operations and time of a step, packets.

Nothing is loaded (see ``skeleton.py``), so this is arithmetic: weights and what the optimiser holds are exact; what
layers keep for the backward pass is an estimate from the widths of their linear maps, which came within 6 % of the
peaks measured for receivers of 8B and 7B on two GPUs (docs/scale.md); and the time of a step rests on a share of the
GPU's peak that is assumed, not measured.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from typing import Any

from torch import nn
from transformers.pytorch_utils import Conv1D

from latentwire.codecs import by_bits
from latentwire.errors import UserError
from latentwire.experiments.cost import behind, flops_of
from latentwire.experiments.skeleton import skeleton
from latentwire.packets.packet import HEADER_BYTES
from latentwire.receivers.attention import decoder_layers
from latentwire.training.config import TrainConfig
from latentwire.training.optim import GATHERED, matrices
from latentwire.training.shard import layers_of
from latentwire.training.throughput import PEAK_FLOPS, taught
from latentwire.wire import Wire

GIB = 2**30
KEPT, KEPT_FROZEN = 1.8, 1.0
"""Numbers that a layer keeps for a token, per output of its linear maps: states, norms and products besides. A frozen
one keeps no inputs for the gradients of weights."""
LOGITS = 3
"""Copies of logits in float32 while they are judged: they, their exponentials, their gradient."""
SCRATCH = 14
"""Bytes for each weight of the largest stack of matrices that Muon makes orthogonal at once."""
STAYS, WEIGHTS = ("encoder and links, float32", "their gradients", "their moments", "CUDA"), ": frozen weights"
MUON = "Muon's largest stack"
TOGETHER, ALONE = (
    "parts of the encoder that are whole at a time",
    "the whole encoder, while the first process evaluates",
)
CONTEXT = GIB
"""What CUDA and its libraries take of a device."""


def plan(config: TrainConfig, gpu: str = "H100", share: float = 0.3, processes: int = 1) -> dict[str, Any]:
    """Everything as one tree, of one process. gpu: a name in ``PEAK_FLOPS``. share: of its peak that a step is assumed
    to reach. processes: over so many the encoder is split, with ``shard``.

    UserError: the GPU is not known, or a model's config is not to be had.
    """
    if gpu not in PEAK_FLOPS:
        raise UserError(f"the peak of {gpu!r} is not known; known are: {', '.join(PEAK_FLOPS)}")
    wire, names = skeleton(config)
    memory = memory_of(config, wire, names, processes)
    flops = flops_of(config, wire, names)
    seconds = flops / (share * PEAK_FLOPS[gpu] * len(memory))
    return {
        "parameters": parameters_of(wire, names),
        "memory_gib": {
            place: {part: round(size / GIB, 3) for part, size in parts.items()} for place, parts in memory.items()
        },
        "step": {
            "passages": config.passages * config.accumulate, "flops": flops, "gpu": gpu, "gpus": len(memory),
            "share_of_peak": share, "seconds": round(seconds, 4),
            "hours": round(config.steps * seconds / 3600, 2) if config.steps else round(config.minutes / 60, 2),
        },
        "packets": packets_of(config, wire),
    }  # fmt: skip


def count(parameters: Iterable[nn.Parameter], learning: bool = False) -> int:
    return sum(p.numel() for p in parameters if p.requires_grad or not learning)


def parameters_of(wire: Wire, names: list[str]) -> dict[str, dict[str, int]]:
    """Of each part: all, and those that learn."""
    found = {"encoder": wire.encoder, **{f"link {name}": wire.links[name] for name in wire.receivers}}
    sizes = {part: {"all": count(m.parameters()), "learn": count(m.parameters(), True)} for part, m in found.items()}
    for name in names:
        sizes[f"receiver {name}"] = {"all": count(wire.frozen[name].model.parameters()), "learn": 0}
    return sizes


def kept_bytes(layers: Iterable[nn.Module], again: bool, width: int) -> float:
    """Bytes that layers keep of a token for the backward pass, in bfloat16; with ``again`` (recompute) one state for
    each, and one layer in full."""
    each = []
    for layer in layers:
        maps = [m for m in layer.modules() if isinstance(m, (nn.Linear, Conv1D))]
        kept = KEPT if any(p.requires_grad for p in layer.parameters()) else KEPT_FROZEN
        each.append(kept * sum(m.out_features if isinstance(m, nn.Linear) else m.nf for m in maps))
    if again and each:
        return 2 * (width * len(each) + max(each))
    return 2 * sum(each)


def memory_of(config: TrainConfig, wire: Wire, names: list[str], processes: int = 1) -> dict[str, dict[str, float]]:
    """Bytes by device and part, ``at most`` among them: what is there all the time, and the more of what a step keeps
    for its backward pass and what Muon needs behind it. A receiver without a ``device_map`` is beside the encoder, on
    the first device."""
    corpus, passages = config.corpus, config.passages
    parts: dict[str, dict[str, float]] = defaultdict(dict)
    home = "cuda:0"
    places = {name: str(wire.settings.links[name].load.device_map or home) for name in names}
    by_place: dict[str, list[nn.Module]] = defaultdict(list)
    stacks = layers_of(wire.encoder)
    split = processes if config.shard and stacks else 1
    if split == 1:
        by_place[home].append(wire.encoder)
    for name in wire.receivers:
        by_place[places.get(name, home)].append(wire.links[name])
    for place, modules in by_place.items():
        parts[place] |= learned(config, modules)
    if split > 1:
        links, whole = parts[home], learned(config, [wire.encoder])
        most = float(SCRATCH * GATHERED)
        parts[home] = {part: links.get(part, 0.0) + whole[part] / split for part in STAYS[:3]} | {
            MUON: max(links.get(MUON, 0.0), min(whole[MUON], most)),
            TOGETHER: gathered(wire.encoder, stacks),
            ALONE: whole[STAYS[0]],
        }
    slots = max(-(-corpus.longest // ratio) * max(_slots(wire, names)) for ratio in wire.ratios)
    tokens = passages * corpus.longest
    width = max((p.shape[-1] for layer in stacks[:1] for p in layer.parameters()), default=0)
    learns = any(p.requires_grad for p in wire.encoder.parameters())  # else there is no way back through it
    kept = kept_bytes(stacks, "encoder" in config.recompute, width) if learns else 0.0
    parts[home]["what the encoder keeps for the way back"] = tokens * kept
    objectives = [objective.build() for objective in config.objectives.values()]
    rows = {source: passages * size for source, size in behind(config).items()}
    for name, place in places.items():
        receiver = wire.frozen[name]
        shape, load = receiver.geometry, wire.settings.links[name].load
        weight = sum(p.numel() * (0.56 if load.load_in_4bit and p.dim() == 2 else p.element_size())
                     for p in receiver.model.parameters())  # fmt: skip
        again = bool({"receivers", name} & set(config.recompute))
        most = max(rows.values())
        layers = decoder_layers(receiver.decoder)
        parts[place][f"{name}{WEIGHTS}"] = weight
        parts[place][f"{name}: what layers keep of rows for the way back"] = most * kept_bytes(
            layers, again, shape.width
        )
        keys = 2 * shape.layers * shape.kv_heads * shape.head_dim * 2
        parts[place][f"{name}: keys and values of slots"] = 2 * passages * slots * keys
        live = max(taught(objectives, source) for source in rows)
        parts[place][f"{name}: keys and values of text, for the teacher"] = (
            live * passages * corpus.longest * corpus.stretch * keys
        )
        judged = min(most, config.head_tokens or most) * (LOGITS + (live > 0))
        parts[place][f"{name}: logits"] = judged * shape.vocab * 4
    for own in parts.values():
        own["CUDA"] = CONTEXT
        muon, alone = own.pop(MUON), own.pop(ALONE, 0.0)
        kept = sum(size for part, size in own.items() if not _stays(part))
        most = sum(size for part, size in own.items() if _stays(part)) + max(kept, muon, alone)
        own |= {MUON: muon, ALONE: alone, "at most": most}
    return {place: {part: size for part, size in own.items() if size} for place, own in sorted(parts.items())}


def _stays(part: str) -> bool:
    """Whether a part is there all the time."""
    return part in STAYS or part.endswith(WEIGHTS)


def learned(config: TrainConfig, modules: list[nn.Module]) -> dict[str, float]:
    """Bytes of weights that are ours on one device, of their gradients and moments, and of Muon's scratch."""
    parameters = [p for module in modules for p in module.parameters()]
    ours = [p for p in parameters if p.requires_grad]
    muon = matrices(modules) if config.optimizer == "muon" else set()
    stacks: dict[tuple[int, ...], int] = defaultdict(int)
    for p in ours:
        if id(p) in muon:
            stacks[tuple(sorted(p.shape))] += p.numel()
    return {
        STAYS[0]: 4.0 * count(parameters),
        STAYS[1]: 4.0 * count(ours),
        STAYS[2]: sum((4.0 if id(p) in muon else 8.0) * p.numel() for p in ours),
        MUON: float(SCRATCH * max(stacks.values(), default=0)),
    }


def gathered(encoder: nn.Module, layers: list[nn.Module]) -> float:
    """Bytes of what is whole at once of an encoder that is split: what stands outside of its layers, the layer at work
    and the next one, with gradients."""
    each = [4.0 * (count(layer.parameters()) + count(layer.parameters(), True)) for layer in layers]
    outside = 4.0 * (count(encoder.parameters()) + count(encoder.parameters(), True)) - sum(each)
    return outside + sum(sorted(each)[-2:])


def packets_of(config: TrainConfig, wire: Wire) -> list[dict[str, Any]]:
    """Of a passage of full length, by ratio: latents, positions for each number of slots, bytes by bits a value."""
    found, longest = [], config.corpus.longest
    for ratio in wire.ratios:
        latents = -(-longest // ratio)
        sizes = {bits: HEADER_BYTES + by_bits(bits).nbytes(latents, wire.settings.encoder.d_z) for bits in (16, 8, 4)}
        slots = sorted({latents * each for each in _slots(wire, wire.receivers)})
        found.append({"ratio": ratio, "tokens": longest, "latents": latents, "positions": slots,
                      "positions_saved": [longest - each for each in slots], "bytes": sizes})  # fmt: skip
    return found


def _slots(wire: Wire, names: Iterable[str]) -> list[int]:
    return sorted({each for name in names for each in wire.settings.links[name].adapter.slots})
