"""What a link makes of latents, by passes of fixed shape that are recorded once as CUDA graphs and replayed.

A link of a deep receiver is some five hundred short kernels, which a Python process cannot start as fast as a GPU runs
them: behind a short question they take longer than the receiver's own pass. So rows and latents are padded to a few
shapes, and the work is recorded for each of them. What a replay leaves is copied out, so prefixes may be kept and any
number of threads may ask; what cannot be recorded is made the ordinary way.
"""

from __future__ import annotations

import contextlib
import logging
import threading
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from latentwire.receivers.capture import RECORDING, WARM, Record, captured, on_stream
from latentwire.types import Latents, Prefix

log = logging.getLogger(__name__)

STEP = 32
"""Latents are padded to a multiple of so many."""
MOST = 8192
"""Latents of a batch: with more of them, starting the kernels is not what takes the time."""
KEPT = 16
"""Shapes that are held, the latest ones."""

Work = Callable[[Latents], Prefix]
Left = tuple[Tensor, Tensor, Tensor, Tensor | None]
"""All keys and values in one piece, then mask, next positions and positions of a prefix."""


@dataclass
class Held:
    """A recording: what it reads, what a replay leaves, and shape and dtype that keys and values have in it."""

    reads: Latents
    graph: Any
    left: Left
    shapes: list[tuple[torch.Size, torch.dtype]]

    def run(self, latents: Latents) -> Prefix:
        """The prefix of these latents, in tensors of its own. More positions than latents may stand in it: they are
        masked."""
        B, M, _ = latents.z_BMD.shape
        self.reads.z_BMD.zero_()
        self.reads.mask_BM.zero_()
        self.reads.z_BMD[:B, :M] = latents.z_BMD
        self.reads.mask_BM[:B, :M] = latents.mask_BM
        self.reads.source_B[:B] = latents.source_B
        self.reads.ratio_B[:B] = latents.ratio_B
        self.graph.replay()
        flat, mask_BM, next_B, at_BM = (None if x is None else x.clone() for x in self.left)
        assert flat is not None and mask_BM is not None and next_B is not None
        # under autocast keys may be of another dtype than values, and in one piece they have the wider one
        parts = [
            part.view(shape)[:B].to(dtype)
            for part, (shape, dtype) in zip(
                flat.split([shape.numel() for shape, _ in self.shapes]), self.shapes, strict=True
            )
        ]
        kv = list(zip(parts[::2], parts[1::2], strict=True))
        return Prefix(kv, mask_BM[:B], next_B[:B], positions_BM=None if at_BM is None else at_BM[:B])


class Making:
    """Recorded links. record: makes a recording of a function; tests give one that needs no GPU. made: prefixes that
    came from recordings."""

    def __init__(self, record: Record | None = None) -> None:
        self.record, self.stream, self.made = record, None, 0
        self.held: OrderedDict[tuple, Held] = OrderedDict()
        self.ordinary: set[tuple] = set()
        self.lock = threading.RLock()

    def run(self, work: Work, latents: Latents, which: tuple) -> Prefix | None:
        """The prefix that ``work`` makes of ``latents``, by a recording of its own for each ``which`` (what the work
        depends on besides) and each padded shape. None: it is to be made the ordinary way."""
        (B, M, _), device = latents.z_BMD.shape, latents.z_BMD.device
        rows, places = 1 << (B - 1).bit_length(), M + -M % STEP
        if torch.is_grad_enabled() or not 0 < rows * places <= MOST or not (self.record or device.type == "cuda"):
            return None
        cast = torch.get_autocast_dtype(device.type) if torch.is_autocast_enabled(device.type) else None
        key = (*which, rows, places, latents.z_BMD.dtype, cast)
        with self.lock:
            if key in self.ordinary:
                return None
            try:
                if key not in self.held:
                    self.held[key] = self._recorded(work, latents, rows, places, cast)
                    while len(self.held) > KEPT:
                        self.held.popitem(last=False)
                self.held.move_to_end(key)
                self.made += 1
                return self.held[key].run(latents)
            except Exception as error:  # whatever it is, there is another way
                self.held.pop(key, None)
                self.ordinary.add(key)
                log.warning(
                    "a link could not be recorded and is run the ordinary way, which is slower: %s",
                    str(error).split("\n")[0],
                )
                return None

    def _recorded(self, work: Work, latents: Latents, rows: int, places: int, cast: torch.dtype | None) -> Held:
        device, shapes = latents.z_BMD.device, []
        if self.record is None and self.stream is None:
            self.stream = torch.cuda.Stream(device)
        record = self.record or (lambda each, pool: captured(each, pool, self.stream))
        pool = next(iter(self.held.values())).graph.pool() if self.held else None

        def go() -> Left:
            # casts of weights belong into the recording: those that are kept for a while outside of it will be gone
            with torch.autocast(device.type, dtype=cast, enabled=cast is not None, cache_enabled=False):
                prefix = work(reads)
            if prefix.blocks or prefix.lora:
                raise ValueError("it changes layers of the receiver")
            tensors = [x for layer in prefix.kv for x in layer]
            shapes[:] = [(x.shape, x.dtype) for x in tensors]
            flat = torch.cat([x.reshape(-1) for x in tensors])
            return flat, prefix.mask_BM.clone(), prefix.next_B.clone(), prefix.positions_BM

        # also in inference mode, what is kept must be of use outside of it
        with torch.inference_mode(False), torch.no_grad():
            z_BMD = latents.z_BMD.new_zeros(rows, places, latents.z_BMD.shape[2])
            one_B = latents.source_B.new_ones(rows)
            reads = Latents(z_BMD, latents.mask_BM.new_zeros(rows, places), one_B, one_B * latents.ratio_B[0])
            here = contextlib.nullcontext() if self.stream is None else torch.cuda.device(device)
            with RECORDING, here, on_stream(self.stream):
                for _ in range(WARM):
                    go()
                graph, left = record(go, pool)
        return Held(reads, graph, left, list(shapes))
