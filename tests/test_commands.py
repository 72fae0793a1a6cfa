"""The commands on a small untrained wire: what they write, what they print, and what they refuse."""

from __future__ import annotations

import json

import pytest
import torch

from latentwire import cli
from latentwire.packets import Packet

TEXT = (
    "The Norwegian expedition to the South Pole was led by Roald Amundsen. He and four others arrived at the pole on "
    "14 December 1911, five weeks before a British party. Reykjavík, Łódź and 東京 took note. 🙂"
)
NAMES = ("llama", "qwen2")


@pytest.fixture(scope="module")
def wires(tiny_readers, tmp_path_factory) -> dict[str, str]:
    """Directories of two wires over the same two small random readers; their encoders differ."""
    from latentwire.encoders.lm import LMEncoderConfig
    from latentwire.link import LinkConfig
    from latentwire.receivers import load_receiver
    from latentwire.wire import Wire, WireConfig

    root = tmp_path_factory.mktemp("wires")
    receivers = {name: load_receiver(tiny_readers[name], name) for name in NAMES}
    links = {name: LinkConfig(receiver=str(tiny_readers[name])) for name in NAMES}
    made = {}
    for number, wire in enumerate(("one", "other")):
        torch.manual_seed(number)
        encoder = LMEncoderConfig(d_z=16, ratios=(4, 8), init=str(tiny_readers["llama"]))
        Wire(WireConfig(encoder, links), receivers).eval().save_pretrained(root / wire)
        made[wire] = str(root / wire)
    return made


@pytest.fixture
def text(tmp_path):
    path = tmp_path / "my.txt"
    path.write_text(TEXT, encoding="utf-8")
    return path


@pytest.fixture
def packet(wires, text, tmp_path, capsys):
    path = tmp_path / "out" / "my.lw"
    assert cli.main(["encode", wires["one"], str(text), "-o", str(path), "--ratio", "4", "--bits", "8"]) == 0
    capsys.readouterr()
    return path


def refused(capsys: pytest.CaptureFixture[str], argv: list[str]) -> str:
    """The one line with which a command is refused."""
    assert cli.main(argv) == 2
    err = capsys.readouterr().err.strip()
    assert err.startswith("error: ") and "\n" not in err, err
    return err


def test_encode_says_what_it_wrote(wires, text, tmp_path, capsys):
    path = tmp_path / "p.lw"
    assert cli.main(["encode", wires["one"], str(text), "-o", str(path), "--ratio", "8", "--bits", "4"]) == 0
    said = capsys.readouterr().out
    packet = Packet.load(path)
    assert f"{len(packet.z_MD)} latents for {packet.source_tokens} tokens" in said
    assert f"{path.stat().st_size} bytes for {len(TEXT.encode())} bytes of text" in said
    assert path.stat().st_size == packet.size(4)


def test_inspect_needs_no_model(packet, capsys, monkeypatch):
    monkeypatch.setattr("latentwire.commands.inspect.open_wire", None)
    assert cli.main(["inspect", str(packet)]) == 0
    out = capsys.readouterr().out
    assert "context" in out and str(packet.stat().st_size) in out


def test_inspect_with_a_wire_shows_what_each_receiver_makes_of_it(wires, packet, text, capsys):
    argv = ["inspect", str(packet), "--wire", wires["one"], "--source", str(text), "--words", "3"]
    assert cli.main([*argv, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    count = found["latents"]
    assert found["source"]["tokens"] == found["source_tokens"]
    assert list(found["receivers"]) == list(NAMES)
    for read in found["receivers"].values():
        assert read["readback"] and set(read["overlap"]) == {"f1", "lcs"}
        assert [each["latent"] for each in read["latents"]] == list(range(count))
        assert all(len(each["words"]) == 3 and each["norm"] > 0 and each["strength"] > 0 for each in read["latents"])
        # the stretches are the whole text: nothing is left out between them
        spoken = "".join("".join(each["source"].split()) for each in read["latents"])
        assert spoken.startswith("TheNorwegian") and "1911" in spoken
    assert cli.main([*argv, "--receiver", "qwen2", "--rows", "4"]) == 0
    page = capsys.readouterr().out
    assert "qwen2 reads back" in page and "llama reads back" not in page
    assert "longest common subsequence" in page and f"{count - 4} latents more" in page


def test_inspect_without_words_or_source(wires, packet, capsys):
    assert cli.main(["inspect", str(packet), "--wire", wires["one"], "-r", "llama", "--words", "0", "--json"]) == 0
    assert set(json.loads(capsys.readouterr().out)["receivers"]["llama"]) == {"readback"}


def test_inspect_as_json_needs_no_model(packet, capsys, monkeypatch):
    monkeypatch.setattr("latentwire.commands.inspect.open_wire", None)
    assert cli.main(["inspect", str(packet), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["bytes"] == packet.stat().st_size


def test_inspect_says_that_the_source_may_be_another_text(wires, packet, tmp_path, capsys):
    other = tmp_path / "other.txt"
    other.write_text("A much shorter text.")
    argv = ["inspect", str(packet), "-w", wires["one"], "-r", "llama", "--source", str(other), "--words", "0"]
    assert cli.main(argv) == 0
    assert "may be another text" in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize("option", [["--receiver", "llama"], ["--source", "my.txt"]])
def test_inspect_names_the_wire_that_is_missing(packet, capsys, option):
    line = refused(capsys, ["inspect", str(packet), *option])
    assert option[0] in line and "--wire" in line


def test_inspect_refuses_a_wire_of_another_encoder(wires, packet, capsys):
    assert "encode the text again" in refused(capsys, ["inspect", str(packet), "--wire", wires["other"]])


def test_generate_answers_one_line_for_each_prompt(wires, packet, capsys):
    argv = ["generate", wires["one"], "-r", "qwen2", "--packet", str(packet), "--max-new-tokens", "3"]
    assert cli.main([*argv, "--prompt", "Who?", "--prompt", "When?"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 2


def test_generate_reads_the_packets_that_go_best_with_the_prompt(wires, packet, tmp_path, capsys):
    other = tmp_path / "other.txt"
    other.write_text("Ships came and went, and nobody wrote their names down. " * 3, encoding="utf-8")
    second = str(tmp_path / "other.lw")
    assert cli.main(["encode", wires["one"], str(other), "-o", second, "--ratio", "4"]) == 0
    capsys.readouterr()

    def said(*packets: str, more: tuple[str, ...] = ()) -> str:
        given = [word for each in packets for word in ("--packet", each)]
        argv = ["generate", wires["one"], "-r", "llama", *given, "--prompt", "Who?", "--max-new-tokens", "6", *more]
        assert cli.main(argv) == 0
        return capsys.readouterr().out

    both = [str(packet), second]
    assert said(*both, more=("--best", "1")) in [said(each) for each in both]
    assert said(*both, more=("--best", "2")) == said(*both)


def test_a_packet_with_its_question_needs_no_prompt(wires, text, tmp_path, capsys):
    path = str(tmp_path / "asked.lw")
    assert cli.main(["encode", wires["one"], str(text), "-o", path, "--question", "Who led it?"]) == 0
    argv = ["generate", wires["one"], "-r", "llama", "--packet", path, "--max-new-tokens", "2"]
    assert cli.main(argv) == 0
    capsys.readouterr()


def test_ask_shows_both_sides(wires, text, capsys):
    assert cli.main(["ask", wires["one"], "--text", str(text), "-q", "Who led it?", "-q", "When?"]) == 0
    out = capsys.readouterr().out
    assert all(word in out for word in ("from the text", "from the packet", "llama", "qwen2", "Who led it?", "When?"))


def test_ask_one_receiver(wires, text, capsys):
    assert cli.main(["ask", wires["one"], "--text", str(text), "-q", "Who?", "-r", "qwen2"]) == 0
    assert "llama" not in capsys.readouterr().out


def test_a_text_longer_than_any_window_is_read_from_its_packet(wires, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "160")
    path = tmp_path / "long.txt"
    path.write_text(TEXT * 12, encoding="utf-8")
    assert cli.main(["ask", wires["one"], "--text", str(path), "-q", "Who?"]) == 0
    out = capsys.readouterr().out
    assert out.count("too long for its window") == 2
    assert f"({len(TEXT * 12):,}" in out


def test_unknown_receiver(wires, packet, capsys):
    argv = ["generate", wires["one"], "-r", "nobody", "--packet", str(packet), "--prompt", "Who?"]
    assert "llama, qwen2" in refused(capsys, argv)


def test_unknown_ratio_and_bits(wires, text, tmp_path, capsys):
    argv = ["encode", wires["one"], str(text), "-o", str(tmp_path / "p.lw")]
    assert "4, 8" in refused(capsys, [*argv, "--ratio", "3"])
    assert "5" in refused(capsys, [*argv, "--bits", "5"])
    assert not (tmp_path / "p.lw").exists()


def test_packet_of_another_encoder(wires, packet, capsys):
    argv = ["generate", wires["other"], "-r", "llama", "--packet", str(packet), "--prompt", "Who?"]
    assert "encode the text again" in refused(capsys, argv)


@pytest.mark.parametrize("damage", ["cut", "flipped", "grown"])
def test_damaged_packets(packet, capsys, damage):
    data = bytearray(packet.read_bytes())
    if damage == "cut":
        data = data[:-1]
    elif damage == "flipped":
        data[-3] ^= 16
    else:
        data += b"more"
    packet.write_bytes(data)
    assert str(packet) in refused(capsys, ["inspect", str(packet)])


def test_a_directory_without_a_wire(text, tmp_path, capsys):
    assert "holds no wire" in refused(capsys, ["ask", str(tmp_path), "--text", str(text), "-q", "Who?"])


def test_a_receiver_whose_weights_changed(wires, tiny_readers, text, tmp_path, capsys):
    import shutil

    from safetensors.torch import load_file, save_file

    changed = tmp_path / "changed"
    shutil.copytree(tiny_readers["llama"], changed)
    state = load_file(changed / "model.safetensors")
    state[next(iter(state))] *= 1.5
    save_file(state, changed / "model.safetensors", metadata={"format": "pt"})
    wire = tmp_path / "wire"
    shutil.copytree(wires["one"], wire)
    tree = json.loads((wire / "config.json").read_text())
    tree["wire"]["links"]["llama"]["receiver"] = str(changed)
    (wire / "config.json").write_text(json.dumps(tree))
    assert "fingerprint" in refused(capsys, ["ask", str(wire), "--text", str(text), "-q", "Who?"])


def test_a_wire_that_is_not_to_be_had(text, capsys, monkeypatch):
    from latentwire.wire import Wire

    def offline(name, **_):
        raise ConnectionError("no route to the hub. Try later")

    monkeypatch.setattr(Wire, "from_pretrained", offline)
    line = refused(capsys, ["ask", "some/wire", "--text", str(text), "-q", "Who?"])
    assert "some/wire" in line and "no route" in line


@pytest.fixture
def rows(tmp_path):
    path = tmp_path / "rows.jsonl"
    asked = [("Who led it?", ["Roald Amundsen"]), ("When did they arrive?", ["14 December 1911", "1911"])]
    lines = [{"context": TEXT, "question": question, "answers": answers} for question, answers in asked]
    path.write_text("".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines), encoding="utf-8")
    return path


def test_eval_on_anyones_rows(wires, rows, tmp_path, capsys):
    out = tmp_path / "out"
    argv = ["eval", wires["one"], "--data", str(rows), "--conditions", "text,none,latents", "--bits", "16,4"]
    assert cli.main([*argv, "--ratio", "4", "--out", str(out)]) == 0
    said = capsys.readouterr().out
    results = json.loads((out / "results.json").read_text())
    found = {(row["receiver"], row["condition"], row["ratio"], row["bits"]) for row in results["rows"]}
    each = {("text", None, None), ("none", None, None), ("latents", 4, 16), ("latents", 4, 4)}
    assert found == {(receiver, *row) for receiver in NAMES for row in each}
    assert all(row["n"] == 2 for row in results["rows"])
    assert len((out / "predictions.jsonl").read_text().splitlines()) == 2 * len(found)
    assert all(name in said for name in (*NAMES, "latents", str(out)))


def test_eval_draws_by_the_seed(wires, rows, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    argv = ["eval", wires["one"], "--data", str(rows), "--n", "1", "--conditions", "none", "--receivers", "llama"]
    for seed in "01":
        assert cli.main([*argv, "--seed", seed]) == 0
    capsys.readouterr()
    # without --out each draw has a directory of its own: nothing is mixed, nothing refused
    assert len(list((tmp_path / "runs" / "eval").iterdir())) == 2


def test_eval_tells_gain_decoding_and_joint_rows(wires, rows, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    argv = ["eval", wires["one"], "--data", str(rows), "--conditions", "none,latents", "--ratio", "4"]
    more = ["--gain", "2", "--joint", "latents", "--max-new-tokens", "4", "--extract", "first-line"]
    assert cli.main(argv) == cli.main([*argv, *more]) == 0
    said = capsys.readouterr().out
    assert "gain 2" in said and "joint:llama+qwen2" in said and "max_new_tokens 4, extract first-line" in said
    # without --out what makes other results has a directory of its own
    found = [json.loads((path / "results.json").read_text()) for path in (tmp_path / "runs" / "eval").iterdir()]
    assert sorted((tree["gain"], tree["decoding"]["max_new_tokens"], len(tree["rows"])) for tree in found) == [
        (1.0, 32, 4),
        (2.0, 4, 5),
    ]


def test_eval_refuses_an_option_before_it_loads_anything(rows, capsys, monkeypatch):
    monkeypatch.setattr("latentwire.commands.evaluate.open_wire", None)
    assert "first-line, layout" in refused(capsys, ["eval", "sandbox", "--data", str(rows), "--extract", "last-line"])


def test_eval_names_the_line_of_a_malformed_row(wires, rows, capsys):
    with rows.open("a", encoding="utf-8") as file:
        file.write('{"context": "A text.", "question": "Who?"}\n')
    assert "line 3" in refused(capsys, ["eval", wires["one"], "--data", str(rows)])


def test_eval_names_an_empty_context(wires, rows, capsys):
    rows.write_text('{"context": "", "question": "Who?", "answers": ["she"]}\n')
    assert "line 1" in refused(capsys, ["eval", wires["one"], "--data", str(rows)])


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("--conditions", "telepathy"),
        ("--receivers", "nobody"),
        ("--ratio", "3"),
        ("--bits", "5"),
        ("--mode", "both"),
        ("--gain", "101"),
        ("--joint", "telepathy"),
    ],
)
def test_eval_refuses_what_there_is_not(wires, rows, tmp_path, capsys, option, value):
    argv = ["eval", wires["one"], "--data", str(rows), "--out", str(tmp_path / "out"), option, value]
    assert value in refused(capsys, argv)


def test_encode_says_what_will_be_lost(tmp_path, capsys):
    text = "The expedition of 1911 was led by Roald Amundsen, who reached the South Pole with four companions and dogs."
    (tmp_path / "text.txt").write_text(text)
    command = ["encode", "sandbox", str(tmp_path / "text.txt"), "-o", str(tmp_path / "p.lw"), "--ratio", "4"]
    assert cli.main([*command, "--least", "0.05"]) == 0
    said = capsys.readouterr()
    assert "llama reads back " in said.out and "gpt2 reads back " in said.out and "warning" not in said.err
    assert cli.main([*command, "--least", "0.999"]) == 1
    assert "send this text as text" in capsys.readouterr().err and (tmp_path / "p.lw").is_file()
    assert cli.main([*command, "--question", "Who?", "--least", "0.5"]) == 2
