"""What a training run needs before its first step: wire, corpus, objectives, all on the device."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from random import Random
from typing import Any

import torch
from accelerate import Accelerator

from latentwire.errors import UserError
from latentwire.prompt import Prompt
from latentwire.receivers.tokenizer import tokenizer_hash
from latentwire.training.batches import Batches
from latentwire.training.config import TrainConfig
from latentwire.training.corpus import question_store, text_store
from latentwire.training.first_codes import begin_codes
from latentwire.training.grow import grown
from latentwire.training.judging import token_losses
from latentwire.training.shard import check_layers
from latentwire.training.sources import corpus_seed, read
from latentwire.training.step import Step
from latentwire.training.store import Store, cached
from latentwire.training.teacher import keep
from latentwire.types import MODES, Example
from latentwire.wire import Wire

log = logging.getLogger(__name__)
STORES = ("text", "questions", "prompt", "dev", "dev-prompt")
"""Passages with what stands behind them: text, questions, and questions encoded with the passage; of the latter two
also those kept aside."""
DEPENDS = {
    "text": ("text", "windows", "shortest", "longest", "row", "stretch"),
    "dev": ("questions", "contexts", "longest", "asked", "stretch"),
    "dev-prompt": ("questions", "contexts", "longest", "asked", "stretch", "prompts"),
}
"""Settings of a corpus that the kept passages of a store depend on; others depend on all but the number of windows."""
CALIBRATION = 256  # passages from which links take their statistics


@dataclass
class Run:
    """All that the loop works on. stores: by the names in ``STORES``. rows: rows per passage of each kind of step.
    aside: questions that choices are made on."""

    wire: Wire
    step: Step
    names: list[str]
    stores: dict[str, Batches | None]
    rows: dict[str, int]
    source_tokens: int
    read_tokens: int
    compiled: bool
    aside: list[Example] = field(default_factory=list)

    @property
    def devices(self) -> set[torch.device]:
        """Where a step computes: the wire's device, and those of its receivers."""
        return {self.wire.device, *(self.wire.frozen[name].device for name in self.names)}

    def compile(self, on: bool = True) -> None:
        """Compiled layers and losses on or off (off for everything that is not of the steps' fixed shapes)."""
        if not self.compiled:
            return
        for name in self.names:
            self.wire.frozen[name].layers.compile(on)
        for stack in self.wire.encoder.stacks:
            stack.compile(on)
        self.step.fixed = on
        self.step.fast_losses = torch.compile(token_losses, dynamic=False) if on else token_losses


def prepare(config: TrainConfig, data: str | None, accelerator: Accelerator) -> Run:
    """Wire, corpus and step of a config. Reads data from ``data`` (or the environment's data directory)."""
    device = accelerator.device
    pairs, train, dev = read(config, data)
    calibration = [passage for passage, _ in pairs[:CALIBRATION]] or [e.context for e in train[:CALIBRATION]]
    wire, names = make_wire(config, calibration, device)
    begin_codes(config, wire, calibration)
    prompts = {name: wire.frozen[name].prompt for name in names}
    with accelerator.main_process_first():  # the others find its stores, where there is a cache
        stores = tokenise(config, wire, prompts, pairs, train, dev)
    run = assemble(config, wire, names, stores, device)
    keep_teachers(config, run, stores, accelerator)
    run.aside = dev
    return run


def keep_stores(config: TrainConfig, data: str | None) -> dict[str, int]:
    """Tokenise what a run of this config reads into ``corpus.cache``, on the CPU; returns passages by store.

    UserError: there is no ``corpus.cache``.
    """
    if not config.corpus.cache:
        raise UserError("corpus.cache names no folder; what is tokenised now would be lost")
    pairs, train, dev = read(config, data)
    # the links are not used, so a few texts are enough for their statistics
    texts = [passage for passage, _ in pairs[:4]] or [e.context for e in train[:4]]
    wire, names = make_wire(config, texts, torch.device("cpu"))
    stores = tokenise(config, wire, {name: wire.frozen[name].prompt for name in names}, pairs, train, dev)
    return {name: store.size for name, store in stores.items() if store is not None}


def assemble(
    config: TrainConfig, wire: Wire, names: list[str], stores: dict[str, Store | None], device: torch.device
) -> Run:
    """The step and the batches of a wire whose links ``names`` learn from ``stores``."""
    newline = {name: wire.frozen[name].prompt.ids(["\n"])[0][-1] for name in names}

    def batches(store: Store | None, size: int) -> Batches | None:
        return None if store is None else Batches(store, newline, size, config.asks, device)

    objectives = {name: objective.build() for name, objective in config.objectives.items()}
    least = max(-(-config.corpus.longest // ratio) for ratio in wire.ratios)
    step = Step(wire, objectives, config.corpus.row, least, names, config.lean)
    step.held = config.head_tokens
    for name in names:
        wire.frozen[name].head()  # read now, or its odd shape would be compiled
        wire.frozen[name].layers.again = bool({"receivers", name} & set(config.recompute))
    for stack in wire.encoder.stacks:
        stack.again = "encoder" in config.recompute
    wire.train()
    text_rows = sum(
        getattr(o.config, "rows", 1) for o in objectives.values() if o.role == "rows" and o.source == "text"
    )
    aside, passages = max(1, config.corpus.dev // config.asks), config.passages * config.accumulate
    return Run(
        wire=wire,
        step=step,
        names=names,
        stores={name: batches(stores.get(name), aside if name.startswith("dev") else passages) for name in STORES},
        rows={"text": text_rows, "questions": config.asks},
        source_tokens=config.corpus.longest,
        read_tokens=int(config.corpus.longest * config.corpus.stretch),
        compiled=config.compile == "always" or (config.compile == "auto" and device.type == "cuda"),
    )


def keep_teachers(config: TrainConfig, run: Run, stores: dict[str, Store | None], accelerator: Accelerator) -> None:
    """Let questions carry what their teacher makes of them, where an objective says that this is to be kept."""
    judge = next((judge for judge in run.step.objectives.values() if judge.cache), None)
    own = [objective for objective in run.step.objectives.values() if objective.source == "questions"]
    for name in ("questions", "prompt") if judge else ():
        batches, store = run.stores[name], stores.get(name)
        if batches is None or store is None:
            continue
        one = batches.at(torch.zeros(1, dtype=torch.long, device=batches.device), torch.zeros(1, 1).to(batches.device))
        for reader in run.names:
            passages = one.read[reader]
            generator = torch.Generator(batches.device).manual_seed(0)
            rows = [found for objective in own if (found := objective.cut(passages, run.step.width, generator))]
            begin = int(passages.asks_BR.min())
            question = any(bool(found.target_BRT[..., :begin].any()) for found in rows)
            kept = keep(run.wire.frozen[reader], store, run.step.teacher, judge.cache, judge.top, question,
                        asks=config.asks, autocast=accelerator.autocast, wait=accelerator.wait_for_everyone,
                        share=(accelerator.process_index, accelerator.num_processes))  # fmt: skip
            batches.kept[reader] = kept.to(batches.device)


def make_wire(config: TrainConfig, texts: list[str], device: torch.device) -> tuple[Wire, list[str]]:
    """The wire to train and the names of the links that learn. UserError: a receiver is on several devices,
    ``recompute`` names none that learns, or ``shard`` has nothing to split."""
    wire, names = _made(config, texts, device)
    if config.shard:
        check_layers(wire)
    for name in names:
        if len(strange := {*wire.frozen[name].devices, wire.frozen[name].device}) > 1:
            raise UserError(
                f"links.{name}.load.device_map spreads a receiver over {', '.join(sorted(map(str, strange)))}; a step "
                "needs each receiver on one device, so name one, as in cuda:1 (reading and evaluating do not)"
            )
    for name in names:
        shape = wire.frozen[name].geometry
        # rotated keys go on beyond what a model was trained on; a table of positions ends
        if not shape.rope and config.corpus.most > shape.window:
            raise UserError(
                f"{name} has {shape.window} positions, and rows of this corpus may take {config.corpus.most}; lower "
                "corpus.stretch (longer passages are then left out), corpus.row or corpus.asked"
            )
    known = ["encoder", "receivers", *names]
    if odd := [name for name in config.recompute if name not in known]:
        raise UserError(f"recompute names {odd[0]!r}; it may name: {', '.join(known)}")
    return wire, names


def _made(config: TrainConfig, texts: list[str], device: torch.device) -> tuple[Wire, list[str]]:
    if not config.start:
        links = {name: link for name, link in config.wire.links.items() if name in (config.links or config.wire.links)}
        wire = Wire.create(replace(config.wire, links=links), texts, device)
        if wire.codes is not None:
            wire.codes.fresh = True
        return wire, wire.receivers
    if not config.join:
        wire = Wire.from_pretrained(config.start, device=device, receivers=config.links or None)
        coded = wire.codes is not None
        learned = wire.codes.config.ratios if wire.codes is not None else []
        wire = grown(wire, config.grow) if config.grow else wire
        if wire.codes is not None and learned:  # what grows says nothing of what was learned before
            wire.codes.config.ratios = list(learned)
        if wire.codes is not None and not coded:
            wire.codes.fresh = True
        return wire, wire.receivers
    # a link of the same name is made anew: the config that made a wire's link makes it again
    wire = Wire.from_pretrained(config.start, device=device, without=config.join)
    for name in config.join:
        if name not in config.wire.links:
            raise UserError(f"join names {name!r}, but wire.links has no such link; describe it there")
        wire.join(name, config.wire.links[name], texts)
    # encoder, codes and earlier links stay as they are, bit for bit
    wire.requires_grad_(False)
    if wire.codes is not None:
        wire.codes.learns = False  # books move without gradients
    for name in config.join:
        wire.links[name].requires_grad_(not config.wire.links[name].freeze)
    return wire, list(config.join)


def sampled(rows: list[Example], count: int, seed: int) -> list[Example]:
    """So many of the rows, by luck."""
    return Random(seed).sample(rows, min(count, len(rows)))


def tokenise(
    config: TrainConfig,
    wire: Wire,
    prompts: dict[str, Prompt],
    pairs: list[tuple[str, str]],
    train: list[Example],
    dev: list[Example],
) -> dict[str, Store | None]:
    """The stores of a run, from the cache where they are."""
    corpus, encoder = config.corpus, wire.encoder
    if corpus.longest < encoder.config.window:
        raise UserError(f"corpus.longest ({corpus.longest}) must be at least the encoder's window "
                        f"({encoder.config.window}); give the same number to both")  # fmt: skip
    # what is stored depends on tokenizers, not on weights
    layouts = {name: (tokenizer_hash(prompt.tokenizer), prompt.layout) for name, prompt in prompts.items()}
    general = {"encoder": encoder.reads(), "layouts": layouts, "seed": corpus_seed(config)}

    def kept(name: str, count: int, first: Any, make: Callable[[], Store]) -> Store:
        rest = (field for field in vars(corpus) if field not in ("cache", "threads", "dev", "windows", "seed"))
        of_corpus = {field: getattr(corpus, field) for field in DEPENDS.get(name, rest)}
        return cached(name, general | {"corpus": of_corpus, "n": count, "first": first}, corpus.cache, make)

    stores: dict[str, Store | None] = dict.fromkeys(STORES)
    if pairs:
        stores["text"] = kept("text", len(pairs), pairs[0], lambda: text_store(pairs, encoder, prompts, corpus))
    together = {
        name: sampled(rows, corpus.prompts, corpus_seed(config))
        for name, rows in (("prompt", train), ("dev-prompt", dev))
    }
    for name, rows in {"questions": train, "dev": dev, **together}.items():
        if rows:
            mode = "prompt" if name in together else MODES[0]

            def made(rows: list[Example] = rows, mode: str = mode) -> Store:
                return question_store(rows, encoder, prompts, corpus, mode)

            stores[name] = kept(name, len(rows), rows[0].id, made)
    for name, store in stores.items():
        if store is not None:
            log.info("%s: %d passages", name, store.size)
    return stores
