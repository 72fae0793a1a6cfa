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
    text. contexts: question passages at most (0: all). crops: further copies of each passage of people's questions,
    each without some of its first or last sentences (see data/crops.py).

    made: passages of plain text whose questions are made from their own sentences (see data/cloze.py), added to
    the people's. made_lines: of ``all`` articles, or only of the ``odd`` or ``even`` ones by their number in their
    file; the readers that come along have seen questions made of the even ones. written: passages of ``written`` in
    the data directory, whose questions a small model has written (see sandbox/asker.py), added as well. prompts: of
    all these questions so many are encoded behind their passages as well, for draws of prompt mode.

    shortest, longest: encoder tokens of a passage. row: tokens of a row of text (continuation, recall). asked: tokens
    of a question with its answer.
    dev: questions of the slice kept aside, for choosing the best checkpoint. threads: processes that tokenise.
    stretch: receiver tokens that are kept for each encoder token of a passage; passages beyond it are left out.
    cache: folder that keeps what was tokenised. seed: of what is cut, made and drawn (the run's if left out); runs of
    several seeds side by side may share one corpus.
    """

    text: str = ""
    questions: str = ""
    windows: int = 400_000
    contexts: int = 0
    crops: int = 0
    made: int = 0
    made_lines: str = "all"
    written: int = 0
    prompts: int = 0
    shortest: int = 128
    longest: int = 256
    row: int = 64
    asked: int = 64
    dev: int = 256
    threads: int = 0
    stretch: float = 1.25
    cache: str = ""
    seed: int | None = None

    @property
    def most(self) -> int:
        """Positions that a receiver's longest row may take: a passage as text, and what stands behind it."""
        return int(self.longest * self.stretch) + max(self.row, self.asked)


@dataclass
class Draw:
    """What a step may be at: source tokens per latent, slots that a receiver gets for each latent (the link's first
    number if left out), and how often (``share``, relative to the other draws). mode ``prompt``: the question is
    encoded behind its passage, and the receiver answers from latents alone (needs ``corpus.prompts``). codes: what is
    read is what so many of the wire's learned codes leave of a latent (needs ``wire.codes``), and the codes learn.
    documents: so many packets stand behind one another, the passage's own at each place in turn, others of the step
    around it; the teacher has the passage alone. bits: what is read is what a packet of so many bits a value leaves,
    and the encoder gets the gradient as if nothing had happened (straight-through)."""

    ratio: int = 4
    slots: int | None = None
    share: float = 1.0
    mode: str = "context"
    codes: int | None = None
    documents: int = 1
    bits: int | None = None

    @property
    def name(self) -> str:
        """``4x``; ``4x2`` with two slots for each latent, ``4x-prompt`` in prompt mode, ``4x-16codes`` from codes,
        ``4x-4bits`` from packets of four bits, ``4x-of3`` with three packets."""
        name = f"{self.ratio}x{self.slots or ''}" + (f"-{self.mode}" if self.mode != MODES[0] else "")
        name += f"-{self.codes}codes" if self.codes else f"-{self.bits}bits" if self.bits else ""
        return name + (f"-of{self.documents}" if self.documents > 1 else "")

    @property
    def how(self) -> tuple[int, int | None, str, int | None, int, int | None]:
        """What a step is told of it, all but how often."""
        return self.ratio, self.slots, self.mode, self.codes, self.documents, self.bits


READERS = ("all", "sampled", "none")
"""Who reads in a step: every receiver, one of them by luck, nobody."""


@dataclass
class Stage:
    """A part of training that lasts until ``until`` (share of all steps). A run goes through its stages in order, with
    one optimiser, one count of steps and one schedule of the rate; see docs/training.md.

    questions: share of its steps that are questions, the others being plain text. name: a stage with a name leaves its
    wire in ``stages/NAME/wire`` of the run. learn: what learns in it, as beginnings of parameter names (``encoder``,
    ``codes``, ``links``, ``links.llama``, ``links.*.adapter``, ``links.*.lora``, ``objectives`` for what objectives
    train beside the links; default: all that the run trains); the rest stands still and keeps its moments for when it
    goes on. rate: factor on the learning rates. weights: factors on the weights of objectives, by name. draws: those of
    this stage (default: the run's). receivers: the run's if left out; ``none``: nobody reads, and codes are held to the
    latents that they stand for and to nothing else (all its draws have codes, and nothing but these learns). Such steps
    cost a small part of others, so they are best a run of their own. score: questions of the slice kept aside that are
    answered at its end, to ``stages/NAME/dev``; a stage that ends where the one before it does has no steps and only
    scores.
    """

    until: float = 1.0
    questions: float = 0.0
    name: str = ""
    learn: list[str] = field(default_factory=list)
    rate: float = 1.0
    weights: dict[str, float] = field(default_factory=dict)
    draws: list[Draw] = field(default_factory=list)
    receivers: str = ""
    score: int = 0


@dataclass
class DiagnosticsConfig:
    """every: steps between two lines of ``diagnostics.jsonl``, 0 for none. Each costs about a step without its backward
    pass. gradients: every so many of these lines also have the gradient of each objective, 0 for none; that costs a
    step, and another one for each objective. top: first answer tokens that are listed with their counts.
    """

    every: int = 0
    gradients: int = 0
    top: int = 10


@dataclass
class WatchConfig:
    """When the collapse watch speaks (``on_collapse``: what it then does). It looks at log steps that are questions.

    share: one first answer token in so large a share of the predictions is dominating. variety: so few kinds of
    predicted first tokens, as a share of the kinds of right ones, are few. rise: the smoothed answer loss so far above
    its lowest (0.5: half as much again) is going up. patience: looks in a row. after: steps that pass before it looks:
    an untrained wire predicts one token too.
    """

    share: float = 0.8
    variety: float = 0.1
    rise: float = 0.5
    patience: int = 5
    after: int = 0


@dataclass
class TextWarmup:
    """Passages given as their text early in training: ``share`` of them at the first step, in a line down to ``tail``
    at ``until`` (share of training), ``tail`` from there on. Off where both are 0.

    beside False: the text stands in place of the latents. Such rows teach what acts on text as well and nothing else:
    encoder, adapters and injections get no gradient from them. True: the latents stay there beside the text.
    A step with such passages reads their text once more, for all passages, without gradient.
    """

    share: float = 0.0
    tail: float = 0.0
    until: float = 0.3
    beside: bool = False


@dataclass
class OwnTokens:
    """Scheduled sampling (Bengio et al. 2015, in one extra pass as in Mihaylova & Martins 2019): the share of answer
    tokens that are fed as the model's own greedy prediction grows in a line from 0 at ``begin`` to ``share`` at ``end``
    (shares of training). What must be predicted stays the true answer. Off where ``share`` is 0; a step of questions
    with it reads its rows once more, without gradient.
    """

    share: float = 0.0
    begin: float = 0.0
    end: float = 1.0


@dataclass
class TrainConfig:
    """wire: the wire to train; or ``start``, a trained wire that is trained on; or ``start`` and ``join`` (link names),
    to give it these new links and train them alone. links: of the wire's links only these take part, and others are not
    kept (default: all; a changed encoder is no longer the one that a link left out was made for). grow: settings of
    ``start`` that give it further weights, as ``encoder.told=true`` or ``links.*.adapter.told=true``.

    steps, or minutes (the number of steps is then fixed from the speed measured at the beginning). passages: passages
    per step. asks: questions behind each passage. rate: peak learning rate of the links; the encoder's is
    ``encoder_rate``. optimizer: ``adamw``, or ``muon`` for the matrices of linear layers. best_over: half-life, in
    evaluations, of the smoothed metric that chooses the best checkpoint.
    draws: ratio and slots of the steps, drawn by their shares (default: each of the encoder's ratios alike).
    graphs: record a step's forward and backward as CUDA graphs where there is one GPU and steps are compiled: a third
    faster on an H100 that a run has for itself. Elsewhere steps are ordinary.
    score: questions of the slice kept aside that the finished wire answers, to ``dev/results.json`` of the run.
    receivers: ``all`` in every step, or ``sampled``: one a step, drawn from seed and step, for a fraction of its cost.
    lean: weights of receivers in a step's mean loss (default 1 each): what the encoder keeps leans towards the heavier.
    accumulate: parts that a step of ``passages`` x ``accumulate`` passages is done in, one after another.
    recompute: whose layers keep nothing for the backward pass and are worked out again in it, which takes about a third
    more arithmetic and a small part of the memory: ``encoder``, ``receivers``, or names of links.
    head_tokens: target tokens whose logits are there at a time; they are made again in the backward pass (0: all at
    once, and kept).
    shard: split the encoder's weights, gradients and moments over the processes (``torchrun``), for an encoder that
    does not fit beside its optimiser; links stay whole. With one process it changes nothing, so a run may go on with
    any number of them.
    on_collapse: ``warn``, ``stop``, or ``halve`` the weights of the objectives on questions. keep: checkpoints kept.
    """

    wire: WireConfig = field(default_factory=WireConfig)
    objectives: dict[str, ObjectiveConfig] = field(default_factory=dict)
    corpus: CorpusConfig = field(default_factory=CorpusConfig)
    stages: list[Stage] = field(default_factory=lambda: [Stage(0.65, 0.0), Stage(1.0, 0.75)])
    start: str = ""
    join: list[str] = field(default_factory=list)
    links: list[str] = field(default_factory=list)
    grow: list[str] = field(default_factory=list)
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
    receivers: str = "all"
    lean: dict[str, float] = field(default_factory=dict)
    accumulate: int = 1
    recompute: list[str] = field(default_factory=list)
    head_tokens: int = 0
    text_warmup: TextWarmup = field(default_factory=TextWarmup)
    own_tokens: OwnTokens = field(default_factory=OwnTokens)
    diagnostics: DiagnosticsConfig = field(default_factory=DiagnosticsConfig)
    watch: WatchConfig = field(default_factory=WatchConfig)
    on_collapse: str = "warn"
    keep: int = 2
    compile: str = "auto"
    graphs: bool = False
    shard: bool = False
    device: str = "auto"
