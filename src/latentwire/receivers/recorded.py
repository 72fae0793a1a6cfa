"""Decoding by forward passes of fixed shape, recorded once as CUDA graphs and replayed.

A token of a large receiver is some eight hundred short kernels, and a Python process cannot start them as fast as a GPU
runs them. So a batch has a room of fixed shape (``room.py``), and its passes are recorded. Rooms are kept for requests
of the same shape, the latest ones, within a share of the GPU's memory. One that is in use belongs to one batch alone.
Whatever cannot be recorded is decoded the ordinary way.
"""

from __future__ import annotations

import contextlib
import logging
import threading
from typing import TYPE_CHECKING

import torch

from latentwire.receivers.capture import RECORDING, Record, captured
from latentwire.receivers.making import Making
from latentwire.receivers.room import Room, padded
from latentwire.types import Prefix

if TYPE_CHECKING:
    from latentwire.receivers.receiver import Receiver

log = logging.getLogger(__name__)

ROWS, TAIL = 32, 256
"""Most rows of a batch, and tokens of a tail: with more of them, starting the kernels is not what takes the time."""
PLACES = 256
"""A room has a multiple of so many places."""
SHARE = 8
"""Rooms take at most one part in so many of the GPU's memory."""


class Recorded:
    """The rooms of a receiver.

    record: makes a recording of a function; tests give one that needs no GPU. bound: bytes of all rooms together.
    begun: batches that were decoded by recordings.
    """

    def __init__(self, record: Record | None = None, bound: int | None = None) -> None:
        self.record, self.bound, self.stream = record, bound, None
        self.making = Making(record)
        self.idle: list[Room] = []  # the latest last
        self.held = self.begun = 0
        self.ordinary: set[tuple[int, int, int]] = set()
        self.broken = False
        # a batch that nobody finishes gives its room back whenever it is collected, also in the middle of this
        self.lock = threading.RLock()

    def begin(self, receiver: Receiver, prefix: Prefix, batch: int, width: int, most: int) -> Room | None:
        """A room with ``prefix`` in it, for tails of ``width`` tokens and ``most`` more, until it is given back. None:
        decode the ordinary way."""
        if self.broken or not 0 < batch <= ROWS or width > TAIL or not (self.record or on_one_gpu(receiver)):
            return None
        astray = receiver.geometry.sliding and prefix.positions_BM is None
        if prefix.blocks or prefix.lora or astray or torch.is_autocast_enabled(receiver.device.type):
            return None
        places = prefix.mask_BM.shape[1] + padded(width) + most
        rows, places = 1 << (batch - 1).bit_length(), places + -places % PLACES
        kind = rows, places, receiver.model.get_input_embeddings().weight.data_ptr()
        shapes = [x.shape for layer in prefix.kv for x in layer]
        cost = sum(rows * shape[1] * places * shape[3] for shape in shapes) * receiver.dtype.itemsize
        room = self._found(kind)
        if room is None and (kind in self.ordinary or not self._promised(cost, receiver.device)):
            return None
        try:
            # also in inference mode, what is kept must be of use outside of it
            with torch.inference_mode(False), torch.no_grad():
                room = room or Room(kind, cost, shapes, receiver)
                self._prepare(room, receiver, padded(width))
                room.enter(prefix, batch)
        except Exception as error:  # whatever it is, there is another way to decode
            self._failed(error, receiver, kind, cost)
            return None
        self.begun += 1
        return room

    def give_back(self, room: Room) -> None:
        """Keep a room for the next batch of its kind."""
        with self.lock:
            if not self.broken:
                self.idle.append(room)

    def _found(self, kind: tuple[int, int, int]) -> Room | None:
        """A room of the kind that nobody uses; nobody else finds it until it is given back."""
        with self.lock:
            room = next((room for room in reversed(self.idle) if room.kind == kind), None)
            if room is not None:
                self.idle.remove(room)
            return room

    def _promised(self, cost: int, device: torch.device) -> bool:
        """Make sure of memory for a new room, at the expense of those that were not used for the longest time."""
        bound = self.bound
        if bound is None:
            bound = torch.cuda.get_device_properties(device).total_memory // SHARE
        with self.lock:
            if self.held - sum(room.cost for room in self.idle) + cost > bound:
                return False
            while self.held + cost > bound:
                self.held -= self.idle.pop(0).cost
            self.held += cost
            return True

    def _prepare(self, room: Room, receiver: Receiver, width: int) -> None:
        """Record what the room lacks."""
        if self.record is None and self.stream is None:
            self.stream = torch.cuda.Stream(receiver.device)
        record = self.record or (lambda work, pool: captured(work, pool, self.stream))
        with RECORDING, contextlib.nullcontext() if self.stream is None else torch.cuda.device(receiver.device):
            for each in (width, 1):
                room.prepare(receiver, each, record, self.stream)

    def _failed(self, error: Exception, receiver: Receiver, kind: tuple[int, int, int], cost: int) -> None:
        # a recording that breaks may hide why it broke
        short = any(isinstance(each, torch.cuda.OutOfMemoryError) for each in (error, error.__context__))
        with self.lock:
            self.held -= cost + sum(room.cost for room in self.idle)
            self.idle.clear()
            self.ordinary.add(kind)
            self.broken = self.broken or not short
        if self.stream is not None:
            self.stream.synchronize()  # what still runs there writes to memory that is about to be free
        log.warning(
            "%s could not record %d rows of %d positions%s and decodes the ordinary way, which is slower: %s",
            receiver.name, *kind[:2], "" if short else ", nor will it try others,", str(error).split("\n")[0],
        )  # fmt: skip


def on_one_gpu(receiver: Receiver) -> bool:
    """Whether all of a receiver is on one GPU, as plain weights (4-bit ones are unpacked by kernels of their own)."""
    model, devices = receiver.model, {receiver.device, *receiver.devices}
    spread = getattr(model, "hf_device_map", None) is not None or getattr(model, "hf_quantizer", None) is not None
    return receiver.device.type == "cuda" and len(devices) == 1 and not spread
