"""Loading a receiver from a directory, a hub id, or the name of a sandbox reader's checkpoint directory."""

from __future__ import annotations

import logging
from pathlib import Path

import torch
from transformers import AutoConfig, AutoModelForCausalLM
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING
from transformers.utils import logging as transformers_logging

from latentwire.errors import UserError
from latentwire.prompt import PromptConfig
from latentwire.receivers.receiver import Receiver
from latentwire.receivers.tokenizer import load_tokenizer

log = logging.getLogger(__name__)


def check_receiver(path: str | Path) -> int | None:
    """The window in positions, if its config names one, of the causal LM at a checkpoint directory or hub id; weights
    are not read. UserError: there is none."""
    try:
        config = AutoConfig.from_pretrained(path)
    except (OSError, ValueError) as error:
        raise UserError(f"cannot load a receiver from {path}: {' '.join(str(error).split())[:300]}") from None
    if type(config) not in MODEL_FOR_CAUSAL_LM_MAPPING:
        raise UserError(f"{path} is a {config.model_type}, which is no causal language model; a receiver must be one")
    return getattr(config.get_text_config(), "max_position_embeddings", None)


def load_receiver(
    path: str | Path,
    name: str | None = None,
    *,
    prompt: PromptConfig | None = None,
    device: str | torch.device = "cpu",
    dtype: torch.dtype | None = None,
) -> Receiver:
    """A frozen receiver. ``path``: checkpoint directory or hub id; weights must be there (none are ever made up).

    dtype: float32 on CPU and bfloat16 on a GPU unless said.
    """
    dtype = dtype or (torch.float32 if torch.device(device).type == "cpu" else torch.bfloat16)
    quiet = transformers_logging.is_progress_bar_enabled()
    transformers_logging.disable_progress_bar()
    try:
        model, report = AutoModelForCausalLM.from_pretrained(path, dtype=dtype, output_loading_info=True)  # ty: ignore[not-iterable]
        tokenizer = load_tokenizer(path)
    except (OSError, ValueError) as error:
        raise UserError(f"cannot load a receiver from {path}: {' '.join(str(error).split())[:300]}") from None
    finally:
        if quiet:
            transformers_logging.enable_progress_bar()
    if missing := [
        key for key in report["missing_keys"] if "lm_head" not in key or not model.config.tie_word_embeddings
    ]:
        raise UserError(f"{path} lacks weights ({', '.join(sorted(missing)[:3])} …); they would have been random")
    return Receiver(name or Path(path).name, model.to(device), tokenizer, prompt)
