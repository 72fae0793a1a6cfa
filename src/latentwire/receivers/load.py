"""Loading a receiver from a directory, a hub id, or the name of a sandbox reader's checkpoint directory."""

from __future__ import annotations

import importlib.util
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING
from transformers.utils import logging as transformers_logging

from latentwire.errors import UserError
from latentwire.prompt import PromptConfig
from latentwire.receivers.check import checked
from latentwire.receivers.families import TESTED, check_config
from latentwire.receivers.identity import Identity
from latentwire.receivers.kernels import choose
from latentwire.receivers.receiver import Receiver
from latentwire.receivers.tokenizer import load_tokenizer

log = logging.getLogger(__name__)

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
SPREADS = ("auto", "balanced", "balanced_low_0", "sequential")


@dataclass(frozen=True)
class LoadConfig:
    """How a receiver is put into memory; names are transformers'. It belongs to a machine: a saved wire holds none.

    dtype: ``float32``, ``bfloat16``, ``float16`` or ``auto`` (the checkpoint's own); by default float32 on a CPU and
    bfloat16 on a GPU. load_in_4bit: weights of linear layers in 4 bits, by bitsandbytes (extra ``quant``).
    attn_implementation: ``flash_attention_2``, ``sdpa`` or ``eager``; by default the first of them that is there.
    device_map: a device (``cuda:1``), or how transformers spreads the layers (``auto``, ``balanced``, ``sequential``,
    or a device for each module); by default the wire's device.
    """

    dtype: str = ""
    load_in_4bit: bool = False
    attn_implementation: str = ""
    device_map: Any = ""

    def place(self, device: str | torch.device) -> torch.device:
        """Where the receiver's input goes, as far as that is known before it is loaded."""
        if not self.device_map:
            return torch.device(device)
        if self.spread:
            return torch.device("cuda" if torch.cuda.is_available() else "cpu")
        try:
            return torch.device(self.device_map)
        except RuntimeError:
            known = ", ".join(SPREADS)
            raise UserError(f"device_map {self.device_map!r} is no device (cuda:1, cpu) and none of: {known}") from None

    @property
    def spread(self) -> bool:
        """Whether layers go to more than one device."""
        return not isinstance(self.device_map, (str, torch.device)) or self.device_map in SPREADS

    def chosen_dtype(self, device: torch.device) -> torch.dtype | str:
        """The dtype as transformers takes it. UserError: there is none of that name."""
        name = str(self.dtype).removeprefix("torch.")
        if name == "auto":
            return name
        if name and name not in DTYPES:
            raise UserError(f"dtype is one of {', '.join(DTYPES)}, auto, not {self.dtype!r}")
        return DTYPES[name] if name else torch.float32 if device.type == "cpu" else torch.bfloat16


def check_receiver(path: str | Path) -> int | None:
    """The window in positions, if its config names one, of the causal LM at a checkpoint directory or hub id; weights
    are not read. UserError: there is none, or one of a family that cannot be read with."""
    try:
        config = AutoConfig.from_pretrained(path)
    except (OSError, ValueError) as error:
        raise UserError(f"cannot load a receiver from {path}: {' '.join(str(error).split())[:300]}") from None
    if type(config) not in MODEL_FOR_CAUSAL_LM_MAPPING:
        raise UserError(f"{path} is a {config.model_type}, which is no causal language model; a receiver must be one")
    check_config(config)
    return getattr(config.get_text_config(), "max_position_embeddings", None)


def load_receiver(
    path: str | Path,
    name: str | None = None,
    *,
    prompt: PromptConfig | None = None,
    device: str | torch.device = "cpu",
    dtype: torch.dtype | None = None,
    load: LoadConfig | None = None,
) -> Receiver:
    """A frozen receiver. ``path``: checkpoint directory or hub id; weights must be there (none are ever made up).

    device: where it goes unless ``load`` says otherwise. dtype: in place of that of ``load``. UserError: it is not
    there or not whole, its family cannot be read with, or something is not installed that ``load`` asks for.
    """
    load = load or LoadConfig()
    place = load.place(device)
    kind = dtype or load.chosen_dtype(place)
    options: dict[str, Any] = {"quantization_config": four_bits(kind)} if load.load_in_4bit else {}
    if load.spread or load.load_in_4bit:
        options["device_map"] = load.device_map if load.spread else {"": place}
    quiet = transformers_logging.is_progress_bar_enabled()
    transformers_logging.disable_progress_bar()
    try:
        config = AutoConfig.from_pretrained(path)
        check_config(config)
        # its own attention is read with once at most, to compare ours with: the plainest is the surest
        model, report = AutoModelForCausalLM.from_pretrained(  # ty: ignore[not-iterable]
            path, dtype=kind, output_loading_info=True, attn_implementation="eager", **options
        )
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
    if not options:
        model = model.to(place)
    chosen = choose(load.attn_implementation, model)
    # float16 loses other digits of a number than bfloat16 does
    lossy = (
        model.get_input_embeddings().weight.dtype is torch.float16
        and getattr(config, "dtype", None) is not torch.float16
    )
    identity = Identity(path, model.config, load.load_in_4bit or lossy)

    def made(model: Any) -> Receiver:
        return Receiver(name or Path(path).name, model, tokenizer, prompt, attention=chosen, identity=identity)

    tested = model.config.get_text_config().model_type in TESTED
    return made(model) if tested else checked(model, made)


def four_bits(kind: torch.dtype | str) -> Any:
    """Weights in 4 bits as transformers is told of them. UserError: bitsandbytes is not installed."""
    if importlib.util.find_spec("bitsandbytes") is None:
        raise UserError("load_in_4bit needs the package bitsandbytes; install latentwire[quant], or leave it out")
    from transformers import BitsAndBytesConfig

    # NF4 with computation in the receiver's own dtype (QLoRA, Dettmers et al. 2023)
    compute = kind if isinstance(kind, torch.dtype) else torch.bfloat16
    return BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=compute)


def by_receiver(names: list[str], **given: Any) -> dict[str, LoadConfig]:
    """How each receiver is loaded, from fields of ``LoadConfig`` that hold for all of them, or that are given by name.

    UserError: a name that is no receiver's.
    """
    for field_name, value in given.items():
        if isinstance(value, dict) and (unknown := [name for name in value if name not in names]):
            raise UserError(
                f"{field_name} names {unknown[0]!r}, which is not loaded; receivers are: {', '.join(names)}"
            )
    own = {name: {k: v.get(name) if isinstance(v, dict) else v for k, v in given.items()} for name in names}
    return {name: LoadConfig(**{k: v for k, v in fields.items() if v is not None}) for name, fields in own.items()}
