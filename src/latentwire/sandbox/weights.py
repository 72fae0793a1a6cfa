"""The readers as they are shipped: int8 by row in files of at most 16 MB, unpacked once into the user's cache.

``readers/<name>/`` in the package holds ``weights-*.safetensors`` (``<tensor>.q`` int8 ``[rows, columns]`` with
``<tensor>.s`` float32 ``[rows]`` as its scale; vectors in bfloat16), ``config.json``, ``tokenizer.json``, a card and
``manifest.json`` with a hash of every part. Unpacked they are ordinary float32 checkpoints.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sys
import tempfile
from importlib import resources
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from latentwire.errors import UserError
from latentwire.sandbox import tokenizers

NAMES = ("llama", "qwen2", "gpt2")
FILE_BYTES = 15_500_000


def quantise(matrix_RC: Tensor) -> tuple[Tensor, Tensor]:
    """int8 ``[R, C]`` and float32 scales ``[R]``: the largest value of each row becomes 127."""
    scale_R = matrix_RC.float().abs().amax(1).clamp_min(1e-12) / 127.0
    return (matrix_RC.float() / scale_R[:, None]).round().clamp(-127, 127).to(torch.int8), scale_R


def pack(checkpoint: Path, folder: Path) -> list[Path]:
    """Write a checkpoint's weights, config and tokenizer in the shipped form; returns the files of weights."""
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.glob("weights-*.safetensors"):
        old.unlink()
    parts: list[dict[str, Tensor]] = [{}]
    size = 0
    for name, tensor in sorted(load_file(checkpoint / "model.safetensors").items()):
        made = {name: tensor.to(torch.bfloat16)}
        if tensor.ndim == 2:
            q, s = quantise(tensor)
            made = {f"{name}.q": q, f"{name}.s": s}
        cost = sum(t.numel() * t.element_size() + 160 for t in made.values())
        if size + cost > FILE_BYTES and parts[-1]:
            parts.append({})
            size = 0
        parts[-1] |= made
        size += cost
    files = []
    for number, part in enumerate(parts):
        files.append(folder / f"weights-{number}.safetensors")
        save_file(part, files[-1], metadata={"format": "pt"})
        files[-1].chmod(0o644)  # safetensors writes 0600
    if (checkpoint / "tokenizer.json").resolve() != (folder / "tokenizer.json").resolve():
        tree = json.loads((checkpoint / "tokenizer.json").read_text(encoding="utf-8"))
        compact = json.dumps(tree, ensure_ascii=False, separators=(",", ":"))
        (folder / "tokenizer.json").write_text(compact, encoding="utf-8")
    shutil.copyfile(checkpoint / "config.json", folder / "config.json")
    hashed = [*files, folder / "config.json", folder / "tokenizer.json"]
    manifest = {"format": 1, "sha256": {path.name: _sha256(path) for path in hashed}}
    (folder / "manifest.json").write_text(json.dumps(manifest, indent=1) + "\n")
    return files


def unpack(folder: Path, target: Path) -> Path:
    """Make ``target`` an ordinary checkpoint of the packed reader in ``folder``.

    The parts are checked against the manifest first. Several processes may do this at once: each works in a folder of
    its own and the first to finish gives it the name.
    """
    if (target / "model.safetensors").exists():
        return target
    try:
        hashes = json.loads((folder / "manifest.json").read_text())["sha256"]
    except FileNotFoundError:
        raise UserError(f"{folder} holds no packed reader (no manifest.json); reinstall latentwire") from None
    for name, expected in hashes.items():
        if not (folder / name).is_file() or _sha256(folder / name) != expected:
            raise UserError(f"{folder / name} is damaged (its hash is not the manifest's); reinstall latentwire")
    tensors: dict[str, Tensor] = {}
    for name in sorted(n for n in hashes if n.startswith("weights-")):
        part = load_file(folder / name)
        for key, value in part.items():
            if key.endswith(".q"):
                tensors[key[:-2]] = value.float() * part[f"{key[:-2]}.s"][:, None]
            elif not key.endswith(".s"):
                tensors[key] = value.float()
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=target.parent))
    try:
        save_file(tensors, partial / "model.safetensors", metadata={"format": "pt"})
        (partial / "model.safetensors").chmod(0o644)
        shutil.copyfile(folder / "config.json", partial / "config.json")
        tokenizers.load(folder / "tokenizer.json").save_pretrained(partial)
        partial.chmod(0o755)  # mkdtemp gives 0700
        try:
            partial.rename(target)
        except OSError:
            if not (target / "model.safetensors").exists():  # not another process that was quicker
                raise
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return target


def packed(name: str) -> Path:
    """The folder of a shipped reader inside the package."""
    folder = Path(str(resources.files("latentwire.sandbox"))) / "readers" / name
    if name not in NAMES:
        raise UserError(f"no sandbox reader is called {name!r}; there are: {', '.join(NAMES)}")
    return folder


def cache_dir() -> Path:
    """Where unpacked readers lie: ``LATENTWIRE_CACHE``, else the platform's cache folder."""
    if chosen := os.environ.get("LATENTWIRE_CACHE"):
        return Path(chosen).expanduser()
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA", Path.home() / "AppData" / "Local")) / "latentwire"
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "latentwire"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "latentwire"


def reader_dir(name: str) -> Path:
    """A shipped reader as a checkpoint for ``AutoModelForCausalLM.from_pretrained``; unpacked on the first call."""
    folder = packed(name)
    manifest = folder / "manifest.json"
    if not manifest.is_file():
        raise UserError(f"the sandbox reader {name!r} is not in this installation ({folder}); reinstall latentwire")
    return unpack(folder, cache_dir() / "readers" / f"{name}-{_sha256(manifest)[:12]}")


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
