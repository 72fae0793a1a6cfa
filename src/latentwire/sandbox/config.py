"""What a reader's training run is made of."""

from __future__ import annotations

from dataclasses import dataclass, field

from latentwire.sandbox.schedule import Phase
from latentwire.sandbox.trunk import Shape


@dataclass(frozen=True)
class ReaderConfig:
    """How one reader is made. Times are minutes of training without compilation; ``limit`` cuts the data for smokes."""

    name: str = "llama"
    seed: int = 1
    shape: Shape = field(default_factory=Shape)
    tokenizer: str = "bpe"
    tokenizer_sample: int = 8  # every n-th article
    tokenizer_text: str = ""  # fitted to the files whose names begin so (several with commas between); "": all
    shipped_tokenizer: bool = True  # take the package's own where there is one of that name
    row: int = 512
    batch: int = 64
    rate: float = 3.5e-3
    language: Phase = field(default_factory=lambda: Phase(minutes=6.0, warmup=200, flat=0.55, start=1.0, end=0.4))
    questions: Phase = field(default_factory=lambda: Phase(minutes=3.5, start=0.4, end=0.0))
    made_from: float = 0.35  # point of the language phase from which made questions are mixed in
    made_share: float = 0.25  # and their share of the steps
    made_every: int = 1  # questions are made of every n-th article
    epochs: float = 5.0  # of real questions; more would make the reader know train answers by heart
    rest: float = 0.2  # weight of the loss on words that are not the answer
    compiled: bool = True
    graphs: bool = True  # forward and backward as CUDA graphs, where there is CUDA and ``compiled``
    device: str = "auto"
    workers: int = 0  # processes that tokenise; 0: one a core
    limit: int | None = None
    log_every: int = 25
    save_minutes: float = 3.0
    out: str = "runs/readers"
    start: str | None = None  # folder of a checkpoint to go on from instead of fresh weights
