"""``diagnostics.jsonl``: what a loss does not show. A look costs forward passes of its own and touches no gradient.

A model that is about to collapse still lowers its loss: its first answer tokens become few, its margin grows while its
accuracy does not, one part of the wire gets all the gradient, slots leave the scale of the receiver's own words.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from latentwire.receivers.rows import row_states
from latentwire.training.aside import at_rest
from latentwire.training.config import DiagnosticsConfig, Draw
from latentwire.training.judging import first_answers
from latentwire.training.optim import total_norm
from latentwire.training.setup import Run
from latentwire.training.stages import feature
from latentwire.training.work import Work, widen
from latentwire.types import Latents


class Diagnostics:
    """parameters: those that learn in any stage, by name. autocast: what a step computes under."""

    def __init__(
        self,
        config: DiagnosticsConfig,
        run: Run,
        parameters: dict[str, nn.Parameter],
        autocast: Callable[[], AbstractContextManager],
    ) -> None:
        self.config, self.run, self.parameters, self.autocast = config, run, parameters, autocast

    def due(self, step: int) -> bool:
        """Whether a line is written behind step ``step`` (counted from 1)."""
        return bool(self.config.every) and step % self.config.every == 0

    def features(self) -> dict[str, Tensor]:
        """Norm of the gradient that is in the parameters now, of the encoder, of each link's adapter, injection and
        LoRA, and of what each objective trains; on the device. All processes ask for it."""
        by_feature: dict[str, list[Tensor]] = {}
        for name, p in self.parameters.items():
            if p.grad is not None:
                by_feature.setdefault(feature(name), []).append(p.grad)
        return {name: total_norm(gradients) for name, gradients in by_feature.items()}

    def line(
        self,
        step: int,
        source: str,
        work: Work,
        draw: Draw,
        metrics: dict[str, Tensor],
        features: dict[str, Tensor],
        asked: Work | None,
    ) -> dict[str, Any]:
        """One line. work, metrics: the step's. features: from :meth:`features`. asked: a step of questions, for the
        first answer tokens (None: there are no questions)."""
        losses: dict[str, dict[str, float]] = {}
        for key, value in metrics.items():
            name, _, what = key.partition("/")
            if what not in ("token", "variety", "distinct") and not what.endswith("right"):
                losses.setdefault(name, {})[what] = round(float(value), 5)
        row: dict[str, Any] = {"step": step, "source": source, "draw": draw.name}
        row["gradients"] = {"features": {name: float(value) for name, value in features.items()}}
        number = step // self.config.every
        with at_rest(self.run), self.autocast():
            row |= self.scales(work, draw, losses)
            if asked is not None:
                for name, found in self.answers(asked, draw).items():
                    row["receivers"].setdefault(name, {})["first"] = found
            if self.config.gradients and number % self.config.gradients == 0:
                row["gradients"]["objectives"] = self.objectives(work, draw)
        return row

    @torch.no_grad()
    def scales(self, work: Work, draw: Draw, losses: dict[str, dict[str, float]]) -> dict[str, Any]:
        """Root mean squares per channel: of latents, of each link's slots, and of the receiver's embeddings of the same
        passages."""
        latents = self.run.wire.encoder(work.source, draw.ratio)
        found: dict[str, Any] = {"latents": {"rms": rms(latents.z_BMD[latents.mask_BM])}, "receivers": {}}
        for name in work.read:
            receiver = self.run.wire.get_receiver(name)
            read = work.of(name, receiver.device)
            seen: list[tuple[Tensor, Tensor]] = []
            self.run.wire.prefix(name, latents, draw.mode, draw.slots, seen)
            slots_BSE, there_BS = seen[0]
            mask_BT = torch.arange(read["context"].shape[1], device=read["count"].device) < read["count"][:, None]
            found["receivers"][name] = {
                "losses": losses.get(name, {}),
                "slot_rms": rms(slots_BSE[there_BS]),
                "embedding_rms": rms(receiver.embed(read["context"])[mask_BT]),
            }
        return found

    @torch.no_grad()
    def answers(self, work: Work, draw: Draw) -> dict[str, dict[str, Any]]:
        """What each receiver predicts as the first token of the answers."""
        wire, step = self.run.wire, self.run.step
        latents: Latents = widen(wire.encoder(work.source, draw.ratio), -(-step.least // (draw.slots or 1)))
        found = {}
        for name in work.read:
            receiver = wire.get_receiver(name)
            read = work.of(name, receiver.device)
            h_BRTE = row_states(receiver, wire.prefix(name, latents, draw.mode, draw.slots), read["rows"])
            own = work.labelled(step.objectives, h_BRTE, read["rows"], read["weight"] >= 1)
            logits_NV, right_N = first_answers(receiver, *own)
            found[name] = first_figures(logits_NV, right_N, self.config.top, receiver.tokenizer.decode)
        return found

    def objectives(self, work: Work, draw: Draw) -> dict[str, float]:
        """Norm of what each objective adds to the gradient of the step: the gradient less that without it. An objective
        with rows has its judges go with it; one that weighs nothing, or whose gate is closed, is left out."""
        learning = [p for p in self.parameters.values() if p.requires_grad]

        def gradient(weight_N: Tensor) -> list[Tensor]:
            loss, _ = self.run.step.losses(replace(work, weight_N=weight_N), *draw.how)
            if not loss.requires_grad:
                return [torch.zeros_like(p) for p in learning]
            given = torch.autograd.grad(loss, learning, allow_unused=True)
            return [torch.zeros_like(p) if g is None else g for g, p in zip(given, learning, strict=True)]

        whole, found = gradient(work.weight_N), {}
        for number, name in enumerate(work.active):
            if float(work.weight_N[number]):
                without_N = work.weight_N.clone()
                without_N[number] = 0.0
                found[name] = float(total_norm([a - b for a, b in zip(whole, gradient(without_N), strict=True)]))
        return found


def first_figures(logits_NV: Tensor, right_N: Tensor, top: int, decode: Callable[[list[int]], str]) -> dict[str, Any]:
    """``at1``, ``at5``: share of rows whose right token is the most likely one, among the five most likely. ``margin``:
    mean difference of the two highest logits. ``entropy``: mean, in nats. ``distinct``: kinds of predicted tokens of so
    many ``rows``. ``predicted``: the most frequent ones as [id, count, text]."""
    best = logits_NV.topk(min(5, logits_NV.shape[-1]), -1)
    log_NV = logits_NV.log_softmax(-1)
    hit_N5 = best.indices == right_N[:, None]
    ids, counts = best.indices[:, 0].unique(return_counts=True)
    order = counts.argsort(descending=True, stable=True)[:top]
    return {
        "rows": len(right_N),
        "at1": round(float(hit_N5[:, 0].float().mean()), 4),
        "at5": round(float(hit_N5.any(-1).float().mean()), 4),
        "margin": round(float((best.values[:, 0] - best.values[:, 1]).mean()), 4),
        "entropy": round(float(-(log_NV.exp() * log_NV).sum(-1).mean()), 4),
        "distinct": len(ids),
        "predicted": [[i, n, decode([i])] for i, n in zip(ids[order].tolist(), counts[order].tolist(), strict=True)],
    }


def rms(x: Tensor) -> float:
    """Root mean square, rounded."""
    return round(float(x.float().square().mean().sqrt()), 5)
