"""Principal components of the words, then a small transformer that refines them down to the latents.

The hybrid of ``pca`` and ``pooled``: words cost C numbers each instead of E, and are never trained. What is learnt is
added to the means of the components, and begins at zero, so an untrained encoder **is** ``pca`` and can only be
departed from where that helps.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from torch import Tensor, nn
from torch.nn import functional as F

from latentwire.encoders.base import EncoderConfig
from latentwire.encoders.pca import components_for, save_components
from latentwire.encoders.poolers import Reader
from latentwire.encoders.tokens import TokenEncoder, span_means
from latentwire.types import Latents


@EncoderConfig.register_subclass("pca-refined")
@dataclass
class PCARefinedEncoderConfig(EncoderConfig):
    """init, sample, whiten: as in ``pca``. components: kept of each token (the first d_z of them make the beginning).

    width, layers, heads: of the transformer. pooler, group: as in ``pooled``.
    """

    init: str = ""
    sample: str = ""
    whiten: bool = False
    components: int = 256
    width: int = 256
    layers: int = 2
    heads: int = 4
    pooler: str = "stages"
    group: int = 4

    def build(self, assets: Path | None = None) -> PCARefinedEncoder:
        return PCARefinedEncoder(self, assets)


class PCARefinedEncoder(TokenEncoder):
    """Tokens [B, T] → components [B, T, C] → means of spans, and transformer → pooler → linear; their sum is z."""

    config: PCARefinedEncoderConfig

    def __init__(self, config: PCARefinedEncoderConfig, assets: Path | None) -> None:
        super().__init__()
        self.config = config
        where = self._start(config.init, assets and assets / "words")
        self.components = components_for(self, where, assets, config.components, config.sample, config.whiten)
        self.reader = Reader(
            self.components.table_VC.shape[1], width=config.width, layers=config.layers, heads=config.heads,
            pooler=config.pooler, group=config.group, ratios=config.ratios,
        )  # fmt: skip
        self.out = nn.Linear(config.width, config.d_z)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)

    def forward(self, batch: dict[str, Tensor], ratio: int) -> Latents:
        self.check_ratio(ratio)
        count_B = batch["count"].long()
        words_BTC = self.components(batch["ids"].long())
        means_BMC = span_means(words_BTC, count_B, ratio)
        # a negative number cuts: there may be more components than d_z, or fewer
        begin_BMD = F.pad(means_BMC, (0, self.config.d_z - means_BMC.shape[-1]))
        return self.finish(begin_BMD + self.out(self.reader(words_BTC, count_B, ratio)), count_B, ratio)

    def save_assets(self, directory: Path) -> None:
        save_components(self, self.components, directory)
