"""A receiver of one's own joins a trained wire: what is trained, what stays, what is refused and what is said."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file

from latentwire import cli
from latentwire.config import encode
from latentwire.encoders.lm import LMEncoderConfig
from latentwire.errors import UserError
from latentwire.link import LinkConfig
from latentwire.saved import settings_of
from latentwire.training import run as training
from latentwire.training.join import checked, join_config, name_of
from latentwire.wire import Wire, WireConfig
from training.conftest import sentence

SMALL = ("wire.links.mine.injection.width=32", "corpus.shortest=8", "corpus.longest=160", "corpus.row=72",
         "corpus.asked=96", "corpus.stretch=1.4")  # fmt: skip

SHORT = ["corpus.longest=160", "corpus.stretch=1"]
"""For receivers with few positions."""


@pytest.fixture(scope="module")
def start(tiny_readers, tmp_path_factory) -> Path:
    """A saved wire with links for ``llama`` and ``qwen2``: d_z 32, ratios 4 and 8, window 160."""
    torch.manual_seed(0)
    links = {name: LinkConfig(receiver=str(tiny_readers[name])) for name in ("llama", "qwen2")}
    encoder = LMEncoderConfig(d_z=32, ratios=(4, 8), window=160, init=str(tiny_readers["llama"]))
    where = tmp_path_factory.mktemp("start")
    Wire.create(WireConfig(encoder, links), [sentence(1), sentence(2)]).save_pretrained(where)
    return where


@pytest.fixture(scope="module")
def command(start, tiny_readers, corpus, tmp_path_factory) -> list[str]:
    """What is typed; the receiver is of another family than the wire's."""
    data = [f"corpus.text={corpus / 'text'}", f"corpus.questions={corpus / 'questions.jsonl'}"]
    out = tmp_path_factory.mktemp("joined") / "run"
    return ["join", str(start), "--receiver", str(tiny_readers["gemma"]), *SMALL, *data, "--name", "mine",
            "--out", str(out), "--smoke"]  # fmt: skip


@pytest.fixture(scope="module")
def joined(command) -> Path:
    """The wire that the command wrote, by the config that comes along."""
    assert cli.main(command) == 0
    return Path(command[command.index("--out") + 1]) / "wire"


def test_encoder_and_earlier_links_are_there_bit_for_bit(start, joined):
    before, after = load_file(start / "model.safetensors"), load_file(joined / "model.safetensors")
    assert all(torch.equal(tensor, after[key]) for key, tensor in before.items())
    assert {key.split(".")[1] for key in after.keys() - before.keys()} == {"mine"}
    earlier, now = (json.loads((where / "config.json").read_text()) for where in (start, joined))
    assert now["encoder_fingerprint"] == earlier["encoder_fingerprint"]
    assert now["readers"].items() > earlier["readers"].items()
    assert now["wire"]["links"].items() > earlier["wire"]["links"].items()


def test_the_new_receiver_reads_the_same_packets(start, joined):
    packet = Wire.from_pretrained(start).encode(["Letters were sent from Oslo."], ratio=4)[0]
    wire = Wire.from_pretrained(joined, receivers=["mine"])
    assert isinstance(wire.receiver("mine").generate(packet, "From where?"), str)


def test_the_same_command_finds_the_finished_run_and_says_what_comes_next(command, joined, capsys):
    steps = (joined.parent / "metrics.jsonl").read_text()
    assert cli.main(command) == 0
    assert capsys.readouterr().out.splitlines() == [
        f"The wire is in {joined}, with a link for mine, beside llama, qwen2 as they were.",
        f"Next: latentwire eval {joined} --receivers mine",
    ]
    assert (joined.parent / "metrics.jsonl").read_text() == steps


def test_a_dry_run_shows_the_config_and_writes_nothing(command, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    place = command.index("--out")
    assert cli.main([*command[:place], *command[place + 2 :], "--dry-run"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown["config"]["join"] == ["mine"] and shown["config"]["start"] == command[1]
    assert shown["out"].startswith("runs/join-mine-") and not list(tmp_path.iterdir())


def config_file(folder: Path, links: object, **more: object) -> Path:
    path = folder / "join.yaml"
    tree = {"wire": {"links": links}, "objectives": {"answer": {"type": "answer"}}, "steps": 2, **more}
    path.write_text(yaml.safe_dump(tree))
    return path


def test_the_config_describes_the_link_and_the_command_names_it(start, tiny_readers, tmp_path):
    link = {"adapter": {"type": "linear"}, "injection": {"type": "soft-tokens"}, "receiver": "another"}
    path = config_file(tmp_path, {"template": link}, start="another")
    made = join_config(str(start), str(tiny_readers["gpt2"]), path, [*SHORT, "wire.links.gpt2.prompt.head=Text"])
    assert made.start == str(start) and made.join == ["gpt2"]
    tree = encode(made)["wire"]["links"]["gpt2"]
    assert tree["adapter"]["type"] == "linear" and tree["injection"]["type"] == "soft-tokens"
    assert tree["receiver"] == str(tiny_readers["gpt2"]) and tree["prompt"]["head"] == "Text"


def test_of_several_links_the_one_of_the_name_is_taken(start, tiny_readers, tmp_path):
    path = config_file(tmp_path, {"one": {"adapter": {"type": "linear"}}, "two": {"adapter": {"type": "mlp"}}})
    made = join_config(str(start), str(tiny_readers["gpt2"]), path, SHORT, "two")
    assert list(made.wire.links) == ["two"] and encode(made)["wire"]["links"]["two"]["adapter"]["type"] == "mlp"
    with pytest.raises(UserError, match=r"several links \(one, two\), none of them 'gpt2'"):
        join_config(str(start), str(tiny_readers["gpt2"]), path)


def test_names_come_from_receivers():
    assert name_of("sandbox:gpt2") == name_of("some/place/gpt2/") == "gpt2"
    assert name_of("Qwen/Qwen2.5-0.5B") == "Qwen2-5-0-5B"
    for name in ("with.dot", "keys", "-x", ""):
        with pytest.raises(UserError, match="cannot be called"):
            checked(name)


def refused(capsys, start, *more: str) -> str:
    assert cli.main(["join", str(start), *more]) == 2
    line = capsys.readouterr().err.strip()
    assert line.startswith("error: ") and "\n" not in line
    return line


def test_unknown_receivers_are_refused_before_anything_is_read(start, tmp_path, tiny_readers, capsys):
    assert "there is no directory nowhere" in refused(capsys, start, "--receiver", "nowhere")
    assert "cannot load a receiver" in refused(capsys, start, "--receiver", str(tmp_path))
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "t5"}))
    assert "no causal language model" in refused(capsys, start, "--receiver", str(tmp_path))
    assert "holds no whole wire" in refused(capsys, tmp_path, "--receiver", str(tiny_readers["gpt2"]))


def test_a_receiver_that_the_wire_has_is_refused_unless_told(start, tiny_readers, capsys):
    llama = str(tiny_readers["llama"])
    assert "already has a receiver 'llama'; give another --name, or --replace" in refused(
        capsys, start, "--receiver", llama
    )
    assert join_config(str(start), llama, replace=True, overrides=SHORT).join == ["llama"]


@pytest.mark.parametrize(
    ("links", "more", "overrides", "told"),
    [
        ({}, {}, [], "describes no link"),
        ({"x": {"like": "gemma"}}, {}, [], "links.gpt2.like is 'gemma', and .* has: llama, qwen2"),
        ({"x": {}}, {"draws": [{"ratio": 16}]}, [], "names ratio 16, .* has 4, 8"),
        ({"x": {}}, {"corpus": {"longest": 64}}, [], r"corpus.longest \(64\) must be at least the window .* \(160\)"),
        ({"x": {}}, {}, ["wire.encoder={type: lm, d_z: 16}"], "latents of width 16 .* have 32"),
        ({"x": {}}, {}, ["wire.links.x.adapter.slots=[2]"], "the link's own keys begin with wire.links.gpt2"),
        ({"x": {}}, {}, [], "the receiver has 224 positions, and rows of this corpus may take 384"),
        ({"x": {}}, {}, ["start=sandbox"], "are given to the command"),
        ({"x": {"adaptor": {}}}, {}, [], "adaptor"),
    ],
)  # fmt: skip
def test_a_config_of_another_wire_is_refused(start, tiny_readers, tmp_path, links, more, overrides, told):
    with pytest.raises(UserError, match=told):
        join_config(str(start), str(tiny_readers["gpt2"]), config_file(tmp_path, links, **more), overrides)


def test_books_stay_as_they_are_where_a_joining_link_reads_codes(start, command, tmp_path):
    """Books move by averages, without gradients: freezing parameters alone would not hold them."""
    coded = tmp_path / "coded"
    tree = json.loads((start / "config.json").read_text())
    tree["wire"]["codes"] = {"stages": 2, "size": 16}
    books = {"codes.books": torch.randn(32, 32), "codes.use": torch.ones(2, 16)}
    (coded / "encoder").parent.mkdir()
    (coded / "encoder").symlink_to(start / "encoder")
    (coded / "config.json").write_text(json.dumps(tree))
    save_file(load_file(start / "model.safetensors") | books, coded / "model.safetensors")
    data = [word for word in command if word.startswith("corpus.")]
    steps = ["steps=2", "minutes=0", "passages=2", "asks=1", "corpus.windows=8", "corpus.made=8", "corpus.dev=2"]
    made = join_config(str(coded), command[3], None, [*SMALL, *data, *steps, "draws=[{ratio: 4, codes: 2}]"], "mine")
    after = load_file(training.train(made, out=tmp_path / "run") / "model.safetensors")
    assert all(torch.equal(after[key], tensor) for key, tensor in books.items())
    assert settings_of(tmp_path / "run" / "wire").codes == settings_of(coded).codes
