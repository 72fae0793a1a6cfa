"""Principal components of a receiver's input embeddings: the encoder that learns nothing.

The floor for everything that is trained: how far do the widest directions of the words alone go? Components are fitted
once, when the encoder is built, and kept as buffers, so a saved wire has them. There is no compression of the sequence
in PCA itself. A packet has one latent for every ``ratio`` tokens, so **the components of the tokens of a span are
averaged**, which loses their order; at ratio 1 a latent is the components of one token.

z has mean 0 and variance 1 like that of every encoder: a token's length and its mean over components are not kept.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from latentwire.encoders.base import EncoderConfig
from latentwire.encoders.tokens import TokenEncoder, load_words, read_shape, span_means, write_shape
from latentwire.errors import UserError
from latentwire.types import Latents


@EncoderConfig.register_subclass("pca")
@dataclass
class PCAEncoderConfig(EncoderConfig):
    """init: checkpoint directory or hub id of the LM whose tokenizer and input embeddings are used. d_z: components
    (those beyond the embeddings' width are zero).

    sample: a text file whose tokens say how much each row of the table counts (every row counts once without it).
    whiten: divide each component by its standard deviation, so that the narrow ones count as much as the wide ones.
    """

    init: str = ""
    sample: str = ""
    whiten: bool = False

    def build(self, assets: Path | None = None) -> PCAEncoder:
        return PCAEncoder(self, assets)


class PCAEncoder(TokenEncoder):
    """Tokens [B, T] → components [B, T, C] → means of spans → z [B, M, D]. No parameters."""

    config: PCAEncoderConfig

    def __init__(self, config: PCAEncoderConfig, assets: Path | None) -> None:
        super().__init__()
        self.config = config
        where = self._start(config.init, assets and assets / "words")
        self.components = components_for(self, where, assets, config.d_z, config.sample, config.whiten)

    def forward(self, batch: dict[str, Tensor], ratio: int) -> Latents:
        self.check_ratio(ratio)
        count_B = batch["count"].long()
        z_BMC = span_means(self.components(batch["ids"].long()), count_B, ratio)
        return self.finish(F.pad(z_BMC, (0, self.config.d_z - z_BMC.shape[-1])), count_B, ratio)

    def save_assets(self, directory: Path) -> None:
        save_components(self, self.components, directory)


class Components(nn.Module):
    """Token ids [B, T] to principal components [B, T, C], of variance 1 on average over components.

    Buffers: ``table_VC``, what is looked up; ``mean_E``, ``axes_CE`` and ``scale_C``, by which a component is an
    embedding again.
    """

    table_VC: Tensor
    mean_E: Tensor
    axes_CE: Tensor
    scale_C: Tensor

    def __init__(self, V: int, C: int, E: int) -> None:
        super().__init__()
        for name, shape in {"table_VC": (V, C), "mean_E": (E,), "axes_CE": (C, E), "scale_C": (C,)}.items():
            self.register_buffer(name, torch.zeros(shape))

    def forward(self, ids_BT: Tensor) -> Tensor:
        return F.embedding(ids_BT, self.table_VC)

    def embeddings(self, components_BTC: Tensor) -> Tensor:
        """Input embeddings [B, T, E] that have these components, divided by the table's standard deviation."""
        return components_BTC * self.scale_C @ self.axes_CE + self.mean_E

    @classmethod
    def fit(cls, words_VE: Tensor, weight_V: Tensor, most: int, whiten: bool) -> Components:
        """The ``most`` widest directions of rows that count ``weight_V`` each."""
        V, E = words_VE.shape
        fitted = cls(V, min(most, E), E)
        weight_V = weight_V.double() / weight_V.sum()
        mean_E = weight_V @ words_VE.double()
        cov_EE = torch.zeros(E, E, dtype=torch.float64)
        # the table of a large model would not fit twice in double
        for rows, weight in zip(words_VE.split(8192), weight_V.split(8192), strict=True):
            off = rows.double() - mean_E
            cov_EE += (off * weight[:, None]).mT @ off
        variance_E, axes_EE = torch.linalg.eigh(cov_EE)
        variance_C = variance_E.flip(0)[: min(most, E)].clamp_min(0)
        axes_CE = axes_EE.mT.flip(0)[: min(most, E)]
        # an eigenvector may as well point the other way: let two fits agree
        axes_CE = axes_CE * axes_CE.gather(1, axes_CE.abs().argmax(1, keepdim=True)).sign()
        if whiten:
            scale_C = variance_C.clamp_min(1e-6 * float(variance_C[0])).sqrt()
        else:
            scale_C = variance_C.mean().sqrt().expand_as(variance_C)
        fitted.mean_E.copy_(mean_E)
        fitted.axes_CE.copy_(axes_CE)
        fitted.scale_C.copy_(scale_C)
        fitted.table_VC.copy_((words_VE - fitted.mean_E) @ fitted.axes_CE.mT / fitted.scale_C)
        return fitted


def components_for(
    encoder: TokenEncoder, where: str | Path, assets: Path | None, most: int, sample: str, whiten: bool
) -> Components:
    """Components fitted for an encoder that has its tokenizer; from ``assets`` of the same shape, filled afterwards."""
    if assets:
        return Components(*read_shape(assets / "words"))
    words_VE = load_words(where)
    weight_V = torch.ones(len(words_VE))
    if sample:
        path = Path(sample).expanduser()
        text = path.read_text(encoding="utf-8") if path.is_file() else ""
        if not text.strip():
            raise UserError(
                f"encoder.sample: {path} holds no text; give a text file, or nothing to weigh all words alike"
            )
        ids = encoder.tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
        weight_V = torch.bincount(torch.tensor(ids), minlength=len(words_VE)).float()
    return Components.fit(words_VE, weight_V, most, whiten)


def save_components(encoder: TokenEncoder, components: Components, directory: Path) -> None:
    """What :func:`components_for` needs beside the weights."""
    (directory / "words").mkdir(parents=True, exist_ok=True)
    encoder.tokenizer.save_pretrained(directory / "words")
    write_shape(directory / "words", *components.table_VC.shape, len(components.mean_E))
