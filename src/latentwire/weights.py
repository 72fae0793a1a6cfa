"""Weights as they are shipped: int8 by row in files of at most 16 MB, unpacked once into the user's cache.

A shipped folder holds ``weights-N.safetensors.zz`` (zlib; ``<tensor>.q`` int8 [rows, columns] with ``<tensor>.s``
float32 [rows] as its scale; everything that is no matrix in float32), any other files as they are, and
``manifest.json`` with a hash of each. Unpacked, it is an ordinary directory with ``model.safetensors``.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sys
import tempfile
import zlib
from pathlib import Path

import torch
from safetensors.torch import load, load_file, save, save_file
from torch import Tensor

from latentwire.errors import UserError

FILE_BYTES = 15_500_000
MANIFEST, MODEL = "manifest.json", "model.safetensors"
SHIPPED = {"wire": "wire", "llama": "readers/llama", "qwen2": "readers/qwen2", "gpt2": "readers/gpt2"}
"""Names of what comes along, and where in the sandbox's folder it lies."""


def quantise(matrix_RC: Tensor) -> tuple[Tensor, Tensor]:
    """int8 [R, C] and float32 scales [R]: the largest value of each row becomes 127.

    Scales keep 16 bits of mantissa, so that 127 scales are exact in float32 and rounding what was rounded before
    changes nothing: a wire may be rounded, joined by another receiver and rounded again with its encoder unchanged.
    """
    scale_R = matrix_RC.float().abs().amax(1).clamp_min(1e-12) / 127.0
    scale_R = ((scale_R.view(torch.int32) + 0x80) & ~0xFF).view(torch.float32)
    return (matrix_RC.float() / scale_R[:, None]).round().clamp(-127, 127).to(torch.int8), scale_R


def rounded(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """A state as it comes back from the shipped form: float32, matrices with the error of int8."""
    back = {}
    for name, tensor in state.items():
        if tensor.ndim == 2:
            q, s = quantise(tensor)
            back[name] = q.float() * s[:, None]
        else:
            back[name] = tensor.float()
    return back


def pack(directory: Path, folder: Path) -> list[Path]:
    """Write an ordinary directory (with ``model.safetensors``) in the shipped form; returns the files of weights."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    parts: list[dict[str, Tensor]] = [{}]
    size = 0
    for name, tensor in sorted(load_file(directory / MODEL).items()):
        made = {name: tensor.float()}
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
        files.append(folder / f"weights-{number}.safetensors.zz")
        # values of a row are bunched around zero: a tenth of the bytes says nothing
        files[-1].write_bytes(zlib.compress(save(part, metadata={"format": "pt"}), 9))
    for path in sorted(p for p in directory.rglob("*") if p.is_file() and p.name != MODEL):
        target = folder / path.relative_to(directory)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, target)
    hashes = {str(p.relative_to(folder)): _sha256(p) for p in sorted(folder.rglob("*")) if p.is_file()}
    (folder / MANIFEST).write_text(json.dumps({"format": 1, "sha256": hashes}, indent=1) + "\n")
    return files


def check(folder: Path) -> dict[str, str]:
    """The manifest of a shipped folder, once every file's hash has been found right."""
    try:
        hashes = json.loads((folder / MANIFEST).read_text())["sha256"]
    except (FileNotFoundError, json.JSONDecodeError, KeyError):
        raise UserError(f"{folder} holds no shipped weights ({MANIFEST} is missing); reinstall latentwire") from None
    for name, expected in hashes.items():
        if not (folder / name).is_file() or _sha256(folder / name) != expected:
            raise UserError(f"{folder / name} is damaged (its hash is not the manifest's); reinstall latentwire")
    return hashes


def unpack(folder: Path, target: Path) -> Path:
    """Make ``target`` the ordinary directory of a shipped folder, unless it is there already.

    Several processes may do this at once: each works in a folder of its own, the first to finish gives it the name.
    """
    if (target / MODEL).exists():
        return target
    hashes = check(folder)
    tensors: dict[str, Tensor] = {}
    for name in sorted(n for n in hashes if n.startswith("weights-")):
        part = load(inflate(folder / name))
        for key, value in part.items():
            if key.endswith(".q"):
                tensors[key[:-2]] = value.float() * part[f"{key[:-2]}.s"][:, None]
            elif not key.endswith(".s") or f"{key[:-2]}.q" not in part:
                tensors[key] = value.float()
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=target.parent))
    try:
        save_file(tensors, partial / MODEL, metadata={"format": "pt"})
        (partial / MODEL).chmod(0o644)
        for name in hashes:
            if not name.startswith("weights-"):
                (partial / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(folder / name, partial / name)
        partial.chmod(0o755)  # mkdtemp gives 0700
        try:
            partial.rename(target)
        except OSError:
            if not (target / MODEL).exists():  # not another process that was quicker
                raise
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return target


def inflate(path: Path) -> bytes:
    """A shipped file's bytes. Its hash has been checked, its size is checked here."""
    most = 2 * FILE_BYTES
    unfinished = zlib.decompressobj()
    data = unfinished.decompress(path.read_bytes(), most)
    if not unfinished.eof:
        raise UserError(f"{path} holds more than {most} bytes or is cut short; reinstall latentwire")
    return data


def cache_dir() -> Path:
    """Where unpacked weights lie: ``LATENTWIRE_CACHE``, else the platform's cache folder."""
    if chosen := os.environ.get("LATENTWIRE_CACHE"):
        return Path(chosen).expanduser()
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA", Path.home() / "AppData" / "Local")) / "latentwire"
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "latentwire"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "latentwire"


def shipped(name: str) -> Path:
    """The folder inside the package of what is shipped under ``name``."""
    if name not in SHIPPED:
        raise UserError(f"nothing called {name!r} comes along; there are: {', '.join(SHIPPED)}")
    return Path(__file__).parent / "sandbox" / SHIPPED[name]


def unpacked(name: str) -> Path:
    """What is shipped under ``name`` as an ordinary directory; unpacked on the first call of each version."""
    folder = shipped(name)
    if not (folder / MANIFEST).is_file():
        raise UserError(f"{name!r} is not in this installation ({folder}); reinstall latentwire")
    return unpack(folder, cache_dir() / f"{name}-{_sha256(folder / MANIFEST)[:12]}")


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
