"""A receiver's fingerprint: of the weights in memory, or what the cache says of the very same files."""

from __future__ import annotations

import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from latentwire.receivers import LoadConfig, identity, load_receiver
from latentwire.receivers.identity import hashed
from latentwire.receivers.lora import frozen_weights


@pytest.fixture
def cached(tiny_readers, tmp_path, monkeypatch):
    """A checkpoint that counts as large, and an empty cache."""
    monkeypatch.setenv("LATENTWIRE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(identity, "LARGE", 0)
    return shutil.copytree(tiny_readers["llama"], tmp_path / "reader")


def forbid(monkeypatch) -> None:
    def again(*_):
        raise AssertionError("the weights were hashed again")

    monkeypatch.setattr(identity, "hashed", again)


def test_a_small_checkpoint_leaves_nothing_in_the_cache(tiny_readers, tmp_path, monkeypatch):
    monkeypatch.setenv("LATENTWIRE_CACHE", str(tmp_path / "cache"))
    receiver = load_receiver(tiny_readers["llama"])
    assert receiver.fingerprint() == hashed(receiver.geometry, frozen_weights(receiver.model))
    assert not (tmp_path / "cache").exists()


def test_a_large_one_is_hashed_once(cached, tmp_path, monkeypatch):
    receiver = load_receiver(cached)
    found = receiver.fingerprint()
    assert found == hashed(receiver.geometry, frozen_weights(receiver.model))
    assert [f.read_text() for f in (tmp_path / "cache" / "fingerprints").iterdir()] == [found]
    forbid(monkeypatch)
    assert receiver.fingerprint() == load_receiver(cached).fingerprint() == found
    # in another precision it is known by its files alone, which memory would not tell
    assert load_receiver(cached, load=LoadConfig(dtype="float16")).fingerprint() == found


def test_other_weights_of_the_same_size_and_name_are_hashed_anew(cached):
    first = load_receiver(cached).fingerprint()
    file = cached / "model.safetensors"
    state, size = load_file(file), file.stat().st_size
    state["model.norm.weight"] += 1
    save_file(state, file, metadata={"format": "pt"})
    assert file.stat().st_size == size
    assert load_receiver(cached).fingerprint() != first


def test_what_stands_in_the_cache_and_is_no_fingerprint_is_not_believed(cached, tmp_path):
    found = load_receiver(cached).fingerprint()
    (kept,) = (tmp_path / "cache" / "fingerprints").iterdir()
    kept.write_text("half a")
    assert load_receiver(cached).fingerprint() == found == kept.read_text()


def test_a_cache_that_cannot_be_written_is_done_without(cached, tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("LATENTWIRE_CACHE", str(tmp_path / "file"))
    receiver = load_receiver(cached)
    assert receiver.fingerprint() == hashed(receiver.geometry, frozen_weights(receiver.model))


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_the_original_is_named_whatever_precision_is_in_memory(tiny_readers, tmp_path, monkeypatch, dtype):
    monkeypatch.setenv("LATENTWIRE_CACHE", str(tmp_path))
    plain = load_receiver(tiny_readers["gpt2"])
    assert plain.dtype == torch.float32
    assert load_receiver(tiny_readers["gpt2"], load=LoadConfig(dtype=dtype)).fingerprint() == plain.fingerprint()


def test_a_hubs_snapshot_is_known_by_its_files(cached, tmp_path, monkeypatch):
    """Files of a hub's snapshot are links to blobs that are named by what is in them."""
    home, commit = tmp_path / "hub" / "models--me--tiny", "0" * 40
    shutil.copytree(cached, home / "blobs")
    (home / "snapshots" / commit).mkdir(parents=True)
    for blob in (home / "blobs").iterdir():
        (home / "snapshots" / commit / blob.name).symlink_to(blob)
    (home / "refs").mkdir()
    (home / "refs" / "main").write_text(commit)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    receiver = load_receiver("me/tiny")
    assert receiver.name == "tiny" and receiver.fingerprint() == load_receiver(cached).fingerprint()
    forbid(monkeypatch)
    assert load_receiver("me/tiny").fingerprint() == receiver.fingerprint()
