"""Input embeddings of a pretrained LM through a small transformer of our own, pooled over spans.

Takes words from a pretrained model, and nothing of what it makes of them: what is left of ``lm`` when its layers are
taken away. Removing the pretrained encoder costs about 13 F1 in published work, so this is a baseline for ``lm``, and
the place where ways of pooling are compared (see ``poolers.py``).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from torch import Tensor, nn

from latentwire.encoders.base import EncoderConfig
from latentwire.encoders.poolers import Reader
from latentwire.encoders.tokens import TokenEncoder, word_table, write_shape
from latentwire.types import Latents


@EncoderConfig.register_subclass("pooled")
@dataclass
class PooledEncoderConfig(EncoderConfig):
    """init: checkpoint directory or hub id of a causal LM, whose tokenizer and input embeddings are used. train_words:
    the embeddings learn too (they are frozen otherwise).

    width, layers, heads: of the transformer between embeddings and pooler. pooler: ``queries``, ``stages`` (ratios are
    powers of two), ``convolution`` or ``expand``. group: slots that one vector is expanded to (``expand`` alone).
    """

    init: str = ""
    train_words: bool = False
    width: int = 256
    layers: int = 2
    heads: int = 4
    pooler: str = "queries"
    group: int = 4

    def build(self, assets: Path | None = None) -> PooledEncoder:
        return PooledEncoder(self, assets)


class PooledEncoder(TokenEncoder):
    """Tokens [B, T] → embeddings → transformer → pooler → linear → z [B, M, D]."""

    config: PooledEncoderConfig

    def __init__(self, config: PooledEncoderConfig, assets: Path | None) -> None:
        super().__init__()
        self.config = config
        where = self._start(config.init, assets and assets / "words")
        self.words = word_table(where, assets and assets / "words").requires_grad_(config.train_words)
        self.reader = Reader(
            self.words.embedding_dim, width=config.width, layers=config.layers, heads=config.heads,
            pooler=config.pooler, group=config.group, ratios=config.ratios,
        )  # fmt: skip
        self.out = nn.Linear(config.width, config.d_z)

    def forward(self, batch: dict[str, Tensor], ratio: int) -> Latents:
        self.check_ratio(ratio)
        ids_BT, count_B = batch["ids"].long(), batch["count"].long()
        return self.finish(self.out(self.reader(self.words(ids_BT), count_B, ratio)), count_B, ratio)

    def save_assets(self, directory: Path) -> None:
        (directory / "words").mkdir(parents=True, exist_ok=True)
        self.tokenizer.save_pretrained(directory / "words")
        write_shape(directory / "words", self.words.num_embeddings, self.words.embedding_dim)
