"""What a training run is made of."""

from __future__ import annotations

from dataclasses import dataclass, field

from latentwire.objectives import ObjectiveConfig
from latentwire.types import MODES
from latentwire.wire import WireConfig


@dataclass
class CorpusConfig:
    """text: folder of articles (default: ``text`` in the data directory). questions: a file of rows (default: SQuAD
    train in the data directory; without either, there are only text steps). windows: passages cut from plain
    text. contexts: question passages at most (0: all).

    made: passages of plain text whose questions are made from their own sentences (see data/cloze.py), added to
    the people's. prompts: of all these questions so many are encoded behind their passages as well, for draws of
    prompt mode. shortest, longest: encoder tokens of a passage. row: tokens of a row of text (continuation, recall).
    asked: tokens of a question with its answer.
    dev: questions of the slice kept aside, for choosing the best checkpoint. threads: processes that tokenise.
    stretch: receiver tokens that are kept for each encoder token of a passage; passages beyond it are left out.
    """

    text: str = ""
    questions: str = ""
    windows: int = 400_000
    contexts: int = 0
    made: int = 0
    prompts: int = 0
    shortest: int = 128
    longest: int = 256
    row: int = 64
    asked: int = 64
    dev: int = 256
    threads: int = 0
    stretch: float = 1.25
    cache: str = ""


@dataclass
class Stage:
    """A part of training that lasts until ``until`` (share of all steps); ``questions``: share of its steps that are
    questions, the others being plain text."""

    until: float = 1.0
    questions: float = 0.0


@dataclass
class Draw:
    """What a step may be at: source tokens per latent, slots that a receiver gets for each latent (the link's first
    number if left out), and how often (``share``, relative to the other draws). mode ``prompt``: the question is
    encoded behind its passage, and the receiver answers from latents alone (needs ``corpus.prompts``)."""

    ratio: int = 4
    slots: int | None = None
    share: float = 1.0
    mode: str = "context"

    @property
    def name(self) -> str:
        """``4x``, or ``4x2`` with two slots for each latent; ``4x-prompt`` in prompt mode."""
        return f"{self.ratio}x{self.slots or ''}" + (f"-{self.mode}" if self.mode != MODES[0] else "")


@dataclass
class TrainConfig:
    """wire: the wire to train; or ``start``, a trained wire that is trained on; or ``start`` and ``join`` (link names),
    to give it these new links and train them alone. links: of the wire's links only these take part, and others are not
    kept (default: all; a changed encoder is no longer the one that a link left out was made for).

    steps, or minutes (the number of steps is then fixed from the speed measured at the beginning). passages: passages
    per step. asks: questions behind each passage. rate: peak learning rate of the links; the encoder's is
    ``encoder_rate``. optimizer: ``adamw``, or ``muon`` for the matrices of linear layers. best_over: half-life, in
    evaluations, of the smoothed metric that chooses the best checkpoint.
    draws: ratio and slots of the steps, drawn by their shares (default: each of the encoder's ratios alike).
    graphs: record a step's forward and backward as CUDA graphs where there is one GPU and steps are compiled: a third
    faster on an H100 that a run has for itself. Elsewhere steps are ordinary.
    score: questions of the slice kept aside that the finished wire answers, to ``dev/results.json`` of the run.
    """

    wire: WireConfig = field(default_factory=WireConfig)
    objectives: dict[str, ObjectiveConfig] = field(default_factory=dict)
    corpus: CorpusConfig = field(default_factory=CorpusConfig)
    stages: list[Stage] = field(default_factory=lambda: [Stage(0.65, 0.0), Stage(1.0, 0.75)])
    start: str = ""
    join: list[str] = field(default_factory=list)
    links: list[str] = field(default_factory=list)
    seed: int = 0
    steps: int = 0
    minutes: float = 0.0
    passages: int = 128
    asks: int = 4
    rate: float = 2e-3
    encoder_rate: float = 1e-3
    optimizer: str = "adamw"
    betas: tuple[float, float] = (0.9, 0.98)
    weight_decay: float = 0.01
    warmup: int = 150
    floor: float = 0.0
    clip: float = 1.0
    log_every: int = 20
    eval_every: int = 500
    save_every: int = 1000
    best_over: float = 2.0
    draws: list[Draw] = field(default_factory=list)
    score: int = 0
    on_collapse: str = "warn"
    compile: str = "auto"
    graphs: bool = False
    device: str = "auto"
