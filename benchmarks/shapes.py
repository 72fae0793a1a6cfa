"""Receivers and encoders of large models' shapes with random weights, made on the device: nothing is fetched or read.

Time and memory depend on shapes alone, so they can be measured where the models are not. What such a model says means
nothing. Tokens are those of the readers that come along; which ones there are makes no difference.
"""

from __future__ import annotations

import gc
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import torch
import transformers as t

from latentwire.adapters.mlp import MLPAdapterConfig
from latentwire.encoders.lm import LMEncoderConfig
from latentwire.environment import device_name, versions
from latentwire.injections.kv_column import KVColumnConfig
from latentwire.link import LinkConfig
from latentwire.receivers import Receiver
from latentwire.receivers.kernels import choose
from latentwire.receivers.tokenizer import load_tokenizer
from latentwire.shipped import resolve
from latentwire.wire import Wire, WireConfig

T = TypeVar("T")


def llama_rope(factor: float) -> dict[str, Any]:
    """How Llama 3.1 and 3.2 lengthen their rotations."""
    return {
        "rope_type": "llama3", "rope_theta": 500000.0, "factor": factor, "low_freq_factor": 1.0,
        "high_freq_factor": 4.0, "original_max_position_embeddings": 8192,
    }  # fmt: skip


LLAMA = {"vocab_size": 128256, "max_position_embeddings": 131072, "num_key_value_heads": 8, "rms_norm_eps": 1e-5,
         "num_attention_heads": 32, "bos_token_id": 0, "eos_token_id": 1}  # fmt: skip
QWEN = {"max_position_embeddings": 32768, "rms_norm_eps": 1e-6, "use_sliding_window": False, "bos_token_id": 0,
        "rope_parameters": {"rope_type": "default", "rope_theta": 1e6}, "eos_token_id": 1}  # fmt: skip
TINY = {"vocab_size": 8192, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2,
        "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 512}  # fmt: skip
SHAPES: dict[str, tuple[str, dict[str, Any]]] = {
    # as the config.json of meta-llama/Llama-3.1-8B, Qwen/Qwen2.5-7B, meta-llama/Llama-3.2-1B and Qwen/Qwen2.5-0.5B
    "llama8b": ("Llama", {**LLAMA, "hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32,
                          "tie_word_embeddings": False, "rope_parameters": llama_rope(8.0)}),
    "qwen7b": ("Qwen2", {**QWEN, "vocab_size": 152064, "hidden_size": 3584, "intermediate_size": 18944,
                         "num_hidden_layers": 28, "num_attention_heads": 28, "num_key_value_heads": 4,
                         "tie_word_embeddings": False}),
    "llama1b": ("Llama", {**LLAMA, "hidden_size": 2048, "intermediate_size": 8192, "num_hidden_layers": 16,
                          "head_dim": 64, "tie_word_embeddings": True, "rope_parameters": llama_rope(32.0)}),
    "qwen0.5b": ("Qwen2", {**QWEN, "vocab_size": 151936, "hidden_size": 896, "intermediate_size": 4864,
                           "num_hidden_layers": 24, "num_attention_heads": 14, "num_key_value_heads": 2,
                           "tie_word_embeddings": True}),
    "tiny-llama": ("Llama", {**LLAMA, **TINY}),
    "tiny-qwen": ("Qwen2", {**QWEN, **TINY}),
}  # fmt: skip
"""By name: the beginning of transformers' classes, and the config."""
WIDTHS = {"tiny-llama": (16, 32)}
"""By encoder: ``d_z``, and the width of a slot in a link; others as in ``configs/llama8b_qwen7b_squad.yaml``."""
TEXTS = ["The expedition was led by Roald Amundsen, who arrived on 14 December 1911.", "The city is small."]


def config_of(shape: str) -> Any:
    """transformers' config of a shape."""
    kind, settings = SHAPES[shape]
    return getattr(t, f"{kind}Config")(**settings)


def model_of(shape: str, device: torch.device, seed: int = 0) -> Any:
    """A causal LM of a shape, random: in bfloat16 on a GPU, in float32 on a CPU."""
    torch.manual_seed(seed)
    with torch.device(device):  # made where it will be: 8 billion numbers take a CPU minutes
        kind = torch.bfloat16 if device.type == "cuda" else torch.float32
        return t.AutoModelForCausalLM.from_config(config_of(shape), dtype=kind)


def receiver_of(shape: str, device: torch.device) -> Receiver:
    """A frozen receiver of a shape."""
    model = model_of(shape, device)
    return Receiver(shape, model, load_tokenizer(resolve("sandbox:llama")), attention=choose("", model))


def wire_of(shapes: dict[str, torch.device], encoder: str, device: torch.device, ratios: tuple[int, ...]) -> Wire:
    """A new wire to receivers of ``shapes``, each on its device, with an encoder of shape ``encoder`` on ``device``
    that learns in full (float32)."""
    d_z, width = WIDTHS.get(encoder, (1024, 1024))
    receivers = {name: receiver_of(name, at) for name, at in shapes.items()}
    links = {
        name: LinkConfig(name, MLPAdapterConfig((1,), layers=2, multiple=0.0), KVColumnConfig(width, 0.5))
        for name in shapes
    }
    with tempfile.TemporaryDirectory() as folder:
        assets = Path(folder)
        config_of(encoder).save_pretrained(assets / "lm")
        load_tokenizer(resolve("sandbox:llama")).save_pretrained(assets / "lm")
        settings = WireConfig(LMEncoderConfig(d_z=d_z, ratios=ratios, window=256), links)
        with torch.device(device):
            wire = Wire(settings, receivers, assets)
    wire.place(device)
    for name in shapes:
        wire.calibrate(name, TEXTS)
    return wire


def attempt(work: Callable[[], T]) -> T | None:
    """What ``work`` gives, or None if it does not fit into the GPU's memory; what it held is free then."""
    try:
        return work()
    except torch.cuda.OutOfMemoryError:
        pass
    # outside of the except block, where the error would still hold the tensors
    fresh_peak()
    return None


def sync() -> None:
    """Wait for all GPUs."""
    for number in range(torch.cuda.device_count()):
        torch.cuda.synchronize(number)


def kernels(work: Callable[[], Any], title: str, path: Path, times: int = 4) -> None:
    """Append a table of what the time of ``work`` goes to, kernel by kernel, to a text file."""
    from torch.profiler import ProfilerActivity, profile

    cuda = torch.cuda.is_available()
    kinds = [ProfilerActivity.CPU, ProfilerActivity.CUDA] if cuda else [ProfilerActivity.CPU]
    begun = time.monotonic()
    with profile(activities=kinds) as trace:
        for _ in range(times):
            work()
        sync()
    seconds = time.monotonic() - begun
    key = "self_device_time_total" if cuda else "self_cpu_time_total"
    table = trace.key_averages().table(sort_by=key, row_limit=60, max_name_column_width=90)
    events = [e for e in trace.events() if str(e.device_type).endswith("CUDA")]
    busy = sum(e.time_range.elapsed_us() for e in events) / 1e6
    with path.open("a") as file:
        file.write(
            f"== {title}: {times} steps in {seconds:.3f} s, kernels {busy:.3f} s, {len(events)} of them\n{table}\n"
        )


def fresh_peak() -> None:
    """Free what nobody holds, and count peaks of memory from here on."""
    if not torch.cuda.is_available():
        return
    gc.collect()
    torch.cuda.empty_cache()
    for number in range(torch.cuda.device_count()):
        torch.cuda.reset_peak_memory_stats(number)


def peak_gib() -> list[float] | None:
    """The most that was held on each GPU that was used, in GiB."""
    found = [torch.cuda.max_memory_allocated(n) / 2**30 for n in range(torch.cuda.device_count())]
    return [round(each, 2) for each in found if each > 0.01] or None


def facts(device: torch.device) -> dict[str, Any]:
    """Where something was measured."""
    count = torch.cuda.device_count() if device.type == "cuda" else 0
    return {"device": device_name(device), "gpus": count, "threads": torch.get_num_threads(), "versions": versions()}
