"""The text that a receiver reads back from a packet, decoded greedily and without knowing any of the text.

It is asked for as training asked for it (`recall`: a line break, then some tokens of the passage, and the passage goes
on), window by window, each with the last tokens of the one before as its cue. Two things are not obvious:

- **The beginning.** Behind a line break alone a receiver begins a question, not the text. So the first tokens are read
  behind the words of the layout's head, with nothing but the first slots in sight: that is the text's beginning more
  often than not.
- **Loops.** A cue that stands in the text twice, or a phrase that repeats itself, would be gone round for ever. As soon
  as a run of tokens comes again, the window is cut in front of it and begun anew, as the beginning was, from the slots
  of that place. Of all that was tried this is worth most.

The text ends where it must by the packet's count of source tokens: recall never taught anyone to stop.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from latentwire.data.progress import progress
from latentwire.errors import UserError
from latentwire.readback.places import only, ways
from latentwire.receivers.decode import generate

if TYPE_CHECKING:
    from latentwire.packets import Packet
    from latentwire.receivers import Receiver
    from latentwire.types import Prefix
    from latentwire.wire import Wire

CUE, NEW = 4, 32
"""Tokens that a window is given, and that are decoded in it. Training gave 4 of rows of 60."""
OPENING, IN_SIGHT = 4, 32
"""Tokens of a beginning, and tokens whose slots are in sight then."""
SIGHT = 256
"""Tokens around the place that was come to whose slots a window has in sight: a longer text is seen in parts."""
RUN = 8
"""A run of so many tokens that was said before is a loop."""


@torch.no_grad()
def recite(wire: Wire, name: str, packets: list[Packet], slots: int | None = None, batch_size: int = 32) -> list[str]:
    """What receiver ``name`` reads back from each packet. Packets of a batch advance together, window by window.

    slots: K/V positions of a latent, the link's first if None. In prompt mode the question is part of what was encoded,
    and so of what is read back. UserError: packets of both modes, or of another encoder.
    """
    if len({packet.mode for packet in packets}) > 1:
        raise UserError("packets of context mode and of prompt mode cannot share a batch; read them back apart")
    receiver = wire.get_receiver(name)
    said: list[str] = []
    with progress(f"reading back with {name}", total=sum(packet.source_tokens for packet in packets)) as show:
        done = 0
        for start in range(0, len(packets), batch_size):
            batch = packets[start : start + batch_size]
            reader = _Reader(wire, name, batch, slots)
            while reader.advance():
                now = done + sum(min(len(ids), goal) for ids, goal in zip(reader.said, reader.goals, strict=True))
                show(now, f"{start + len(batch)} of {len(packets)} packets")
            done += sum(reader.goals)
            ids = [row[:goal] for row, goal in zip(reader.said, reader.goals, strict=True)]
            said += [text.strip() for text in receiver.tokenizer.batch_decode(ids, skip_special_tokens=True)]
    return said


class _Reader:
    """A batch of packets on the way. goals: tokens of each text, in the receiver's count. said: tokens so far."""

    def __init__(self, wire: Wire, name: str, packets: list[Packet], slots: int | None) -> None:
        self.receiver: Receiver = wire.get_receiver(name)
        link = wire.links[name]
        latents = wire.latents(packets)
        self.prefix: Prefix = wire.prefix(name, latents, packets[0].mode, slots)
        part = wire.encoder.part(latents, name)
        slots = link.slots(slots)  # ty: ignore[not-callable]
        self.counts = (part.count_B * slots).tolist()
        self.S = part.mask_BM.shape[1] * slots
        self.head = self.receiver.head().mask_BM.shape[1]
        self.apart = ways(link, self.prefix, self.head, self.S) > 0  # ty: ignore[invalid-argument-type]
        # not what the positions say: a text beyond the window is squeezed into it, and is read back whole
        self.goals = (latents.source_B * link.fertility).round().long().clamp_min(1).tolist()  # ty: ignore[unsupported-operator]
        layout = self.receiver.prompt
        self.newline = layout.ids(["\n"])[0][-1:]
        self.begin = layout.ids(["\n" + layout.config.head])[0]
        self.said: list[list[int]] = [[] for _ in packets]
        self.runs: list[set[tuple[int, ...]]] = [set() for _ in packets]
        self.ended: set[int] = set()
        self._open(list(range(len(packets))))

    def advance(self) -> bool:
        """One window more for every text that is not whole yet. False: all are."""
        going = [row for row, goal in enumerate(self.goals) if len(self.said[row]) < goal and row not in self.ended]
        if not going:
            return False
        tails = [self.newline + self.said[row][-CUE:] for row in going]
        prefix = self._near(going, [len(self.said[row]) - SIGHT // 2 for row in going], SIGHT)
        new = generate(self.receiver, prefix, tails, NEW, min_new_tokens=NEW).ids
        looping = [row for row, ids in zip(going, new, strict=True) if not self._say(row, ids)]
        # so near to the end there is nothing left to begin
        self.ended.update(row for row in looping if self.goals[row] - len(self.said[row]) <= OPENING)
        self._open([row for row in looping if row not in self.ended])
        return True

    def _near(self, rows: list[int], starts: list[int], tokens: int) -> Prefix:
        """Prefixes of rows with only the slots in sight that stand for so many tokens from ``starts`` on."""
        index = torch.tensor(rows, device=self.receiver.device)
        prefix = self.prefix.take(index)
        if not self.apart:
            return prefix
        first, last = [], []
        for row, start in zip(rows, starts, strict=True):
            share = self.counts[row] / self.goals[row]
            held = max(1, round(tokens * share))
            # at either end a window sees as much as elsewhere; a beginning only what follows
            latest = self.counts[row] - (held if tokens == SIGHT else 1)
            first.append(max(0, min(int(start * share), latest)))
            last.append(first[-1] + held)
        return only(prefix, self.head, index.new_tensor(first), index.new_tensor(last), self.S)

    def _say(self, row: int, ids: list[int]) -> bool:
        """Take tokens up until a run of them was said before, and that not at all; False: there was one."""
        before = len(self.said[row])
        for token in ids:
            run = (*self.said[row][1 - RUN :], token)
            if len(run) == RUN and run in self.runs[row]:
                del self.said[row][max(before, len(self.said[row]) + 1 - RUN) :]
                return False
            self.runs[row].add(run)
            self.said[row].append(token)
        return True

    def _open(self, rows: list[int]) -> None:
        """Begin anew where each row has come to, with only the slots of that place in sight."""
        if not rows:
            return
        prefix = self._near(rows, [len(self.said[row]) for row in rows], IN_SIGHT)
        begun = generate(self.receiver, prefix, [self.begin] * len(rows), OPENING, min_new_tokens=OPENING).ids
        for row, ids in zip(rows, begun, strict=True):
            self.said[row] += ids  # whatever they are: a loop must be left, and every window says something
