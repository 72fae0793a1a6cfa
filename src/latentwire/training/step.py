"""One training step: encode the passages once, put all their rows behind every receiver's prefix, judge the targets.

Rows of a passage are packed into one sequence behind its prefix and cannot see each other, so neither the prefix nor
the teacher's reading of the passage is ever copied per row.

A step has two halves. ``cut`` draws the rows; ``losses`` is all the rest, and with ``fixed`` nothing in it waits for
the device or depends on what is drawn, so that it can be recorded once and replayed (see ``graphs.py``).
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from latentwire.errors import UserError
from latentwire.objectives import KeptTeacher, Objective, Rows
from latentwire.objectives.base import Targets
from latentwire.objectives.gate import Gates
from latentwire.receivers import Receiver
from latentwire.receivers.rows import row_states
from latentwire.training.batches import Batch
from latentwire.training.judging import first_tokens, judge_targets, rows_of, token_losses, watched
from latentwire.training.mixing import with_own_tokens, with_text
from latentwire.training.sending import among, sent, sent_losses
from latentwire.training.work import Work, widen
from latentwire.types import MODES, Latents
from latentwire.wire import Wire


class Step(nn.Module):
    """``forward(batch, source, ratio, slots, mode, progress, generator)`` gives the loss and its parts."""

    def __init__(
        self,
        wire: Wire,
        objectives: dict[str, Objective],
        width: int,
        least: int,
        train: list[str],
        lean: dict[str, float] | None = None,
    ) -> None:
        """width: tokens of a row. least: a receiver gets at least so many slots, masked ones behind the others, so that
        most draws have one shape.
        train: the links that take part. lean: weights of receivers in the mean loss, 1 for those not named.
        UserError: an objective does not go with one of them."""
        super().__init__()
        if unknown := [name for name in lean or {} if name not in train]:
            raise UserError(f"lean names {unknown[0]!r}; the links that learn are: {', '.join(train)}")
        self.lean = {name: (lean or {}).get(name, 1.0) for name in train}
        self.wire, self.objectives, self.width, self.least, self.train_links = wire, objectives, width, least, train
        self.concerned = {
            name: [key for key, o in objectives.items() if o.concerns(wire.get_receiver(name), wire.encoder)]
            for name in train
        }
        if nobody := set(objectives).difference(*self.concerned.values()):
            raise UserError(
                f"objective {min(nobody)!r} takes part for none of: {', '.join(train)}; docs/methods.md says which "
                "receivers it is for"
            )
        heads = {name: nn.ModuleDict(self.fitted(name)) for name in train}
        heads = {name: own.to(wire.frozen[name].device) for name, own in heads.items() if len(own)}
        self.heads = nn.ModuleDict(heads)
        self.gates = Gates(objectives).to(wire.device)
        self.fast_losses: Any = token_losses
        self.fixed = False
        """Judge every token of every row, targets or not: more arithmetic, but one shape for all steps."""
        self.held = 0
        """Tokens whose logits are there at a time (0: all); see ``judging.in_parts``."""

    def fitted(self, name: str) -> dict[str, nn.Module]:
        """What objectives train beside link ``name``, each that brings something of its own."""
        link, receiver = self.wire.links[name], self.wire.get_receiver(name)
        width = link.config.injection.slot_width(receiver.geometry)  # ty: ignore[not-callable]
        encoder, concerned = self.wire.encoder, self.concerned[name]
        found = {key: self.objectives[key].fit(link, width, receiver, encoder) for key in concerned}
        return {key: own for key, own in found.items() if own is not None}

    def own(self) -> nn.ModuleDict:
        """What training keeps beside the wire: the objectives' modules and the state of gated weights."""
        return nn.ModuleDict({"heads": self.heads, "gates": self.gates})

    def forward(
        self,
        batch: Batch,
        source: str,
        ratio: int,
        slots: int | None,
        mode: str,
        progress: float,
        generator: torch.Generator,
        codes: int | None = None,
        documents: int = 1,
        bits: int | None = None,
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """source: ``"text"`` or ``"questions"``, which objectives take part. progress: share of training done."""
        return self.losses(self.cut(batch, source, progress, generator), ratio, slots, mode, codes, documents, bits)

    def cut(
        self,
        batch: Batch,
        source: str,
        progress: float,
        generator: torch.Generator,
        factors: dict[str, float] | None = None,
    ) -> Work:
        """Draw the rows of a step, for the receivers of the batch. factors: on the weights of objectives, by name."""
        read: dict[str, dict[str, Tensor]] = {}
        pieces: list[tuple[str, int]] = []
        for name in (name for name in self.train_links if name in batch.read):
            passages = batch.read[name]
            found: list[tuple[str, Rows]] = []
            for key, objective in self.objectives.items():
                rows = objective.cut(passages, self.width, generator) if objective.source == source else None
                if rows is not None:
                    found.append((key, rows))
            pieces = [(key, rows.ids_BRT.shape[1]) for key, rows in found]
            read[name] = {
                "context": passages.ids_BT,
                "count": passages.count_B,
                "rows": torch.cat([rows.ids_BRT for _, rows in found], 1),
                "weight": torch.cat([rows.weights_BRT for _, rows in found], 1),
            }
            kept = passages.teacher
            if kept is not None and all(rows.ids_BRT is passages.questions_BRT for _, rows in found):
                read[name] |= {key: torch.cat([x] * len(found), 1) for key, x in vars(kept).items()}
        by = factors or {}
        weights = {key: each.config.weight.at(progress) * by.get(key, 1.0) for key, each in self.objectives.items()}
        # rows stand there whatever they weigh; what else weighs nothing, or belongs to other steps, costs nothing
        active = tuple(
            key
            for key, each in self.objectives.items()
            if each.source in (None, source) and (weights[key] or each.role == "rows")
        )
        # tensors, so that a recorded step may be replayed with other weights; not waited for
        told = torch.tensor([*(weights[key] for key in active), progress])
        told = told.to(next(iter(batch.source.values())).device, non_blocking=True)
        return Work(batch.source, read, tuple(pieces), active, self.gates(active, told[:-1]), told[-1])

    def losses(
        self,
        work: Work,
        ratio: int,
        slots: int | None = None,
        mode: str = MODES[0],
        codes: int | None = None,
        documents: int = 1,
        bits: int | None = None,
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss over all receivers, and its parts. slots: for each latent, the links' first number if None. codes:
        what so many learned codes leave of the latents is read; where nobody reads, it is held to them and no more.
        documents: so many packets behind one another. bits: what a packet of so many bits a value leaves is read."""
        latents, far = sent(self.wire, self.wire.encoder(work.source, ratio), codes, bits)
        latents = widen(latents, -(-self.least // (slots or 1)))
        parts_of = among(latents, documents)
        total = torch.zeros((), device=latents.z_BMD.device)
        metrics: dict[str, Tensor] = {}
        for name in work.read:
            loss, parts = self.one_receiver(name, work, parts_of, slots, mode)
            total = total + self.lean[name] * loss.to(total.device)
            if (own := self.wire.links[name].adapter.penalty()) is not None:  # ty: ignore[not-callable]
                total = total + own.to(total.device)
            metrics |= {f"{name}/{key}": value.to(total.device) for key, value in parts.items()}
        if work.read:
            total = total / sum(self.lean[name] for name in work.read)
        if far is not None:
            total, metrics = total + self.wire.books.config.commit * far, metrics | {"codes/far": far.detach()}
        return total, metrics

    def judges(self, work: Work) -> dict[str, Objective]:
        """The objectives that judge the targets of this step's rows."""
        return {key: self.objectives[key] for key in work.active if self.objectives[key].role == "judge"}

    def few(self, work: Work) -> int:
        """How many passages the teacher reads too: the most a judge asks for, the first ones, since order is random."""
        return math.ceil(max([judge.taught for judge in self.judges(work).values()], default=0.0) * work.passages)

    def one_receiver(
        self, name: str, work: Work, packets: list[Latents], slots: int | None, mode: str
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Loss of one receiver: the weighted objectives over its rows and its passages. packets: of each row, those
        that are read one behind the other."""
        receiver = self.wire.get_receiver(name)
        at = receiver.device  # it may be another than the encoder's
        read, progress = work.of(name, at), work.progress.to(at)
        weights = dict(zip(work.active, work.weight_N.to(at).unbind(), strict=True))
        judges, few = self.judges(work), self.few(work)
        sending = [key for key in work.active if self.objectives[key].role == "passage" and key in self.concerned[name]]
        ids_BRT = fed_BRT = read["rows"]
        seen: list[tuple[Tensor, Tensor]] | None = [] if sending else None
        latents, *behind = packets
        prefix = self.wire.prefix(name, latents, mode, slots, seen, behind=behind)
        if "instead" in read or "beside" in read:
            prefix = with_text(receiver, prefix, read)
        if "own" in read:
            with torch.no_grad():
                fed_BRT = with_own_tokens(receiver, row_states(receiver, prefix, ids_BRT), ids_BRT, read["own"])
        layers = tuple(sorted({layer for judge in judges.values() for layer in judge.layers(receiver)}))
        teacher_kept: dict[int, Tensor] = {}
        teacher: Tensor | KeptTeacher | None = None
        if few and "logs" in read:
            teacher = KeptTeacher(read["ids"][:few], read["logs"][:few])
        elif few:
            text = read["context"][:few], read["count"][:few]
            teacher = self.teacher(receiver, *text, fed_BRT[:few], layers, teacher_kept)[:, :, :-1]
        kept: dict[int, Tensor] = {}
        student_h = row_states(receiver, watched(prefix, layers, kept), fed_BRT)
        # targets are predicted by the token before them; a row's first token is never a target
        weight_BRT = read["weight"][..., 1:]
        by_logits = {key: judge for key, judge in judges.items() if not judge.layers(receiver)}
        told = teacher if any(judge.taught for judge in by_logits.values()) else None
        ce_BRT, right_BRT, judged = judge_targets(
            receiver, student_h, ids_BRT, weight_BRT, told, by_logits, self.fast_losses if self.fixed else None,
            self.held,
        )  # fmt: skip
        for key, judge in judges.items():
            if not (inside := judge.layers(receiver)):
                continue
            sides = [[rows_of(states[layer], ids_BRT.shape) for layer in inside] for states in (kept, teacher_kept)]
            judged[key] = judge.inside([h[:few] for h in sides[0]], sides[1])
        loss = torch.zeros((), device=ids_BRT.device)
        parts: dict[str, Tensor] = {}
        start = 0
        for number, (key, count) in enumerate(work.pieces):
            alone, *judged_by = read["scale"][number].unbind() if "scale" in read else [1.0] * (1 + len(judges))
            rows = slice(start, start + count)
            start += count
            share, ce = weight_BRT[:, rows], ce_BRT[:, rows]
            # the figure is of targets with full weight, so that it means the same whatever else is learnt from
            whole = (share >= 1).float()
            targets = whole.sum().clamp_min(1) / alone
            if self.objectives[key].labelled:
                loss = loss + weights[key] * (ce * share).sum() / targets
                parts[key] = ((ce * whole).sum() / targets).detach()
                parts[f"{key}/right"] = ((right_BRT[:, rows] * whole).sum() / targets).detach()
            of = Targets(ce.detach(), share, progress)
            for (label, judge), by in zip(judges.items(), judged_by, strict=True):
                extra = judged[label][:, rows]
                part = judge.share(of)[: len(extra)]
                whole = (part >= 1).float()
                some = whole.sum().clamp_min(1) / by
                loss = loss + weights[key] * weights[label] * (extra * part).sum() / some
                parts[f"{key}/{label}"] = ((extra * whole).sum() / some).detach()
        if seen:
            own = dict(self.heads[name].items()) if name in self.heads else {}  # ty: ignore[not-callable]
            asked = {key: (self.objectives[key], weights[key], own.get(key)) for key in sending}
            more, figures = sent_losses(self.wire, name, latents.to(at), seen[0], read, asked)
            loss, parts = loss + more, parts | figures
        if any(self.objectives[key].source == "questions" for key, _ in work.pieces):
            parts |= first_tokens(receiver, *work.labelled(self.objectives, student_h, ids_BRT, read["weight"] >= 1))
        return loss, parts

    @torch.no_grad()
    def teacher(
        self,
        receiver: Receiver,
        ids_BT: Tensor,
        count_B: Tensor,
        ids_BRT: Tensor,
        layers: tuple[int, ...] = (),
        kept: dict[int, Tensor] | None = None,
    ) -> Tensor:
        """The same frozen receiver with the passage's text in place of the latents: states [B, R, T, E]. ``kept``
        receives those behind each of ``layers``."""
        mask_BT = torch.arange(ids_BT.shape[1], device=ids_BT.device) < count_B[:, None]
        prefix = receiver.read(ids_BT, mask_BT, receiver.head_for(ids_BT.shape[0]))
        return row_states(receiver, watched(prefix, layers, {} if kept is None else kept), ids_BRT)
