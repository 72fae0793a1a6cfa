"""A wire's card, and what is uploaded with it. The hub is never asked: a stand-in keeps the folder."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml

from latentwire.card import SIGN, model_of
from latentwire.errors import UserError
from latentwire.wire import Wire

ROW = {"mode": "context", "n": 40, "em": 0.25, "f1": 0.5, "f1_ci": [0.4, 0.6], "retention": 0.75}


@pytest.fixture
def results(tiny_wire, tmp_path) -> Path:
    """A ``results.json`` of the tiny wire, as ``latentwire eval`` writes it."""
    rows = [
        {"receiver": "llama", "condition": condition, "ratio": ratio, "bits": bits, **ROW}
        for condition, ratio, bits in (
            ("latents", 8, 4), ("latents", 4, 4), ("zero", 4, 16), ("latents", 4, 16), ("text", None, None),
        )
    ]  # fmt: skip
    rows += [{"receiver": "llama", "condition": "same-bytes", "ratio": 4, "bits": 16, **ROW, "f1": None}]
    rows += [{"receiver": "joint:llama+qwen2", "condition": "latents", "ratio": 4, "bits": 16, **ROW}]
    made_by = {
        "encoder": tiny_wire.fingerprint.hex(),
        "receivers": {"llama": tiny_wire.get_receiver("llama").fingerprint()},
        "links": {"llama": tiny_wire.links["llama"].fingerprint()},
    }
    path = tmp_path / "results.json"
    path.write_text(json.dumps({"wire": made_by, "slots": None, "rows": rows}))
    return path


@pytest.fixture
def hub(monkeypatch, tmp_path):
    """Stands in for the hub's client: what it was asked, and the folder that was uploaded."""
    asked = SimpleNamespace(made=[], uploaded=[], folder=tmp_path / "uploaded", token=None)

    class Api:
        def __init__(self, token: str | None = None) -> None:
            asked.token = token

        def create_repo(self, **how):
            asked.made.append(how)
            return SimpleNamespace(repo_id=how["repo_id"])

        def upload_folder(self, **how):
            asked.uploaded.append(how)
            shutil.copytree(how["folder_path"], asked.folder)
            return f"https://hub.test/{how['repo_id']}/commit/1"

    monkeypatch.setattr("huggingface_hub.hub_mixin.HfApi", Api)
    return asked


def head_of(card: str) -> dict:
    return yaml.safe_load(card.split("---\n")[1])


def test_a_saved_wire_says_what_it_is(tiny_wire, tmp_path):
    tiny_wire.save_pretrained(tmp_path)
    card = (tmp_path / "README.md").read_text(encoding="utf-8")
    head, tree = head_of(card), json.loads((tmp_path / "config.json").read_text())
    assert head["library_name"] == "latentwire" and {"latentwire", "prompt-compression"} <= set(head["tags"])
    told = head["latentwire"]
    assert (told["d_z"], told["ratios"], told["encoder"]) == (32, [4, 8], tree["encoder_fingerprint"])
    assert {name: fact["fingerprint"] for name, fact in told["receivers"].items()} == tree["readers"]
    assert told["scores"] == [] and "Not measured" in card and all(limit in card for limit in told["limits"])
    # no path of the machine that saved it: the directory's name is enough to know which model is meant
    link = tiny_wire.settings.links["llama"]
    assert link.receiver not in card and "| `llama` | llama (a directory) |" in card
    assert 'paths={"llama": "DIR", "qwen2": "DIR"}' in card and "base_model" not in head


def test_hub_receivers_are_base_models(tiny_wire):
    link = replace(tiny_wire.settings.links["llama"], receiver="Qwen/Qwen2.5-0.5B")
    settings = replace(tiny_wire.settings, links={**tiny_wire.settings.links, "llama": link})
    wire = Wire(settings, tiny_wire.frozen)
    head = head_of(str(wire.generate_model_card(repo_id="me/wire")))
    assert head["base_model"] == ["Qwen/Qwen2.5-0.5B"]
    assert head["latentwire"]["receivers"]["llama"]["model"] == "Qwen/Qwen2.5-0.5B"
    assert model_of("sandbox:gpt2") == "sandbox:gpt2" and model_of("models/mine/") == "mine (a directory)"


def test_a_card_is_written_anew_unless_a_person_wrote_it(tiny_wire, tmp_path):
    path = tmp_path / "README.md"
    path.write_text(f"{SIGN}\nof another wire")
    tiny_wire.save_pretrained(tmp_path)
    assert tiny_wire.fingerprint.hex() in path.read_text(encoding="utf-8")
    path.write_text("my own words")
    tiny_wire.save_pretrained(tmp_path)
    assert path.read_text() == "my own words"


def test_what_is_uploaded_is_a_whole_wire_with_its_scores(tiny_wire, hub, results):
    where = tiny_wire.push_to_hub("me/wire", results=results, limits=["English only."], private=True, token="t")
    assert where == "https://hub.test/me/wire/commit/1" and hub.token == "t"
    assert hub.made == [{"repo_id": "me/wire", "private": True, "exist_ok": True}]
    (upload,) = hub.uploaded
    assert (upload["repo_id"], upload["repo_type"], upload["commit_message"]) == ("me/wire", "model", "Upload wire")
    again = Wire.from_pretrained(hub.folder)
    assert again.fingerprint == tiny_wire.fingerprint and again.receivers == tiny_wire.receivers
    card = (hub.folder / "README.md").read_text(encoding="utf-8")
    assert 'Wire.from_pretrained("me/wire"' in card and "- English only.\n" in card
    table = [line for line in card.splitlines() if line.startswith("| `llama` | ") and "(a directory)" not in line]
    figures = "0.500 (0.400–0.600) | 0.250 | 0.75 |"
    latents = [f"| `llama` | **latents** | {at} | {figures}" for at in ("4× | 16", "4× | 4", "8× | 4")]
    assert table == [f"| `llama` | full text |  |  | {figures}", *latents]
    first = head_of(card)["latentwire"]["scores"][0]
    assert first == {"receiver": "llama", "condition": "text", **ROW}


def test_the_folder_of_results_does_as_well(tiny_wire, hub, results):
    tiny_wire.push_to_hub("me/wire", results=results.parent)
    assert "0.500 (0.400–0.600)" in (hub.folder / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("part", "value", "told"),
    [
        ("encoder", "0" * 16, "was measured with encoder 0000000000000000"),
        ("links", {"llama": "0" * 16}, "another receiver or link 'llama'"),
        ("receivers", {"llama": "0" * 16}, "another receiver or link 'llama'"),
        ("receivers", {}, "holds no results of `latentwire eval`"),
    ],
)
def test_results_of_another_wire_are_refused_before_the_hub_is_asked(tiny_wire, hub, results, part, value, told):
    tree = json.loads(results.read_text())
    tree["wire"][part] = value
    results.write_text(json.dumps(tree))
    with pytest.raises(UserError, match=told):
        tiny_wire.push_to_hub("me/wire", results=results)
    with pytest.raises(UserError, match="there is no"):
        tiny_wire.push_to_hub("me/wire", results=results.parent / "none.json")
    assert not hub.made and not hub.uploaded
