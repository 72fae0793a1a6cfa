"""Packets of learned codes by every way that a text is encoded: one text, a store, many rows, a server."""

from __future__ import annotations

import base64
import json
from dataclasses import replace

import pytest
import torch

from conftest import WORDS
from latentwire import Packet, cli
from latentwire.bulk import encode_rows
from latentwire.errors import UserError
from latentwire.packets.key import key_of
from latentwire.packets.store import Store
from serving.conftest import QUESTION, TEXT, part, running

CHAT = "/v1/chat/completions"


@pytest.fixture(scope="module")
def wire(coded_wire, tmp_path_factory) -> str:
    where = tmp_path_factory.mktemp("coded")
    coded_wire.save_pretrained(where)
    return str(where)


@pytest.fixture
def text(tmp_path):
    path = tmp_path / "my.txt"
    path.write_text(WORDS, encoding="utf-8")
    return path


def test_a_packet_of_codes_is_written_inspected_and_read(coded_wire, wire, text, tmp_path, capsys):
    path = tmp_path / "my.lw"
    assert cli.main(["encode", wire, str(text), "-o", str(path), "--codes", "2"]) == 0
    packet = Packet.load(path)
    assert packet.coded and torch.equal(packet.z_MD, coded_wire.encode([WORDS], 4, codes=2)[0].z_MD)
    assert path.stat().st_size == 32 + 2 * len(packet.z_MD)
    assert f"{path.stat().st_size} bytes for {len(WORDS)} bytes of text" in capsys.readouterr().out
    assert cli.main(["inspect", str(path)]) == 0
    assert "codes" in capsys.readouterr().out
    assert cli.main(["inspect", str(path), "--wire", wire, "--words", "2", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["codec"], found["width"]) == ("codes", 2)
    # norms are those of the vectors that the codes add up to
    norm_M = coded_wire.latents([packet]).z_BMD[0].norm(dim=-1).tolist()
    assert [each["norm"] for each in found["receivers"]["llama"]["latents"]] == pytest.approx(norm_M, rel=1e-5)
    assert cli.main(["generate", wire, "-r", "llama", "--packet", str(path), "--prompt", "Who?"]) == 0


def test_an_evaluation_of_codes_asks_its_controls_of_codes(wire, tmp_path):
    argv = ["eval", wire, "--n", "2", "--ratio", "4", "--conditions", "none,latents,wrong", "--receivers", "llama"]
    found = []
    for more in (["--codes", "2"], ["--codes", "2", "--bits", "8"]):
        assert cli.main([*argv, *more, "--out", str(tmp_path / str(len(more)))]) == 0
        rows = json.loads((tmp_path / str(len(more)) / "results.json").read_text())["rows"]
        found.append({(row["condition"], row["bits"]) for row in rows if row["condition"] != "none"})
    (code,) = {bits for _, bits in found[0]}
    assert code < 1 and found[0] == {("latents", code), ("wrong", code)}
    assert found[1] == {("latents", 8), ("latents", code), ("wrong", 8)}


def test_a_store_holds_each_number_of_codes_beside_the_others(coded_wire, wire, text, tmp_path, capsys):
    argv = ["encode", wire, str(text), "--store", str(tmp_path / "s"), "--ratio", "8"]
    assert [cli.main([*argv, *each]) for each in (["--bits", "8"], ["--codes", "2"], ["--codes", "3"])] == [0, 0, 0]
    assert f"{coded_wire.encode([WORDS], 8, codes=3)[0].size()} bytes" in capsys.readouterr().out
    assert cli.main([*argv, "--codes", "2"]) == 0
    assert "already" in capsys.readouterr().out
    with Store.open(tmp_path / "s") as store:
        assert len(store) == 3
        got = store.get(key_of(WORDS, 8, 3, coded_wire.made_by(coded=True)))
        assert got is not None and torch.equal(got.z_MD, coded_wire.encode([WORDS], 8, codes=3)[0].z_MD)
    assert cli.main(["store", "list", str(tmp_path / "s")]) == cli.main(["store", "verify", str(tmp_path / "s")]) == 0


def test_rows_become_packets_of_codes_once(coded_wire, wire, tmp_path, capsys):
    path, texts = tmp_path / "rows.jsonl", [f"{n}: {WORDS[n : 30 + 7 * n]}" for n in range(20)]
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts), encoding="utf-8")
    argv = ["encode", wire, str(path), "--store", str(tmp_path / "s"), "--codes", "3", "--batch-size", "4"]
    assert cli.main(argv) == 0
    with Store.open(tmp_path / "s", write=True) as store:
        done = encode_rows(coded_wire, path, store, 4, batch_size=4, codes=3)
        assert (done.before, done.written) == (20, 0)
        same = total = 0
        for text in texts:
            got, alone = store.get(key_of(text, 4, 3, coded_wire.made_by(coded=True))), coded_wire.encode([text], 4)[0]
            assert got is not None and got.coded and got.z_MD.shape == (len(alone.z_MD), 3)
            same += int((got.z_MD == coded_wire.books.codes(alone.z_MD, 3)).sum())
            total += got.z_MD.numel()
        assert same > 0.95 * total  # what shares its batch may move a latent to the next vector, now and then
        with pytest.raises(UserError, match="1 to 3 codes"):
            encode_rows(coded_wire, path, store, 4, codes=4)


@pytest.mark.parametrize("to", ["output", "store", "rows"])
@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--codes", "4"], "this wire has 1 to 3 codes for a latent, not 4"),
        (["--codes", "0"], "this wire has 1 to 3 codes for a latent, not 0"),
        (["--codes", "2", "--bits", "8"], "give one of the two"),
    ],
)
def test_codes_that_cannot_be_are_refused_in_one_line(wire, text, tmp_path, capsys, to, options, said):
    rows = tmp_path / "rows.jsonl"
    rows.write_text(json.dumps({"text": WORDS}) + "\n")
    where = ["-o", str(tmp_path / "p.lw")] if to == "output" else ["--store", str(tmp_path / "s")]
    assert cli.main(["encode", wire, str(rows if to == "rows" else text), *where, *options]) == 2
    line = capsys.readouterr().err.strip()
    assert line.startswith("error: ") and "\n" not in line and said in line
    assert not (tmp_path / "p.lw").exists() and not (tmp_path / "s").exists()


def test_a_wire_without_codes_says_so(tiny_wire, text, tmp_path, capsys):
    tiny_wire.save_pretrained(tmp_path / "plain")
    argv = ["encode", str(tmp_path / "plain"), str(text), "--codes", "2"]
    for where in (["-o", str(tmp_path / "p.lw")], ["--store", str(tmp_path / "s")]):
        assert cli.main([*argv, *where]) == 2
        assert "this wire has no codes" in capsys.readouterr().err
    assert not (tmp_path / "s").exists()


def test_a_server_makes_and_reads_packets_of_codes(coded_wire):
    with running(coded_wire) as server:
        with server.http as client:
            assert client.get("/v1/models").json()["data"][0]["latentwire"]["codes"] == 3
        (row,) = server.post("/v1/latents", {"input": TEXT, "codes": 2}).json()["data"]
        packet = Packet.from_bytes(base64.b64decode(row["latent"]["data"]))
        assert torch.equal(packet.z_MD, coded_wire.encode([TEXT], 4, codes=2)[0].z_MD)
        assert (row["codes"], row["bits"], row["bytes"]) == (2, 8, packet.size())
        question = {"type": "text", "text": QUESTION}

        def about(*packets: Packet) -> dict:
            return {"model": "llama", "messages": [{"role": "user", "content": [*map(part, packets), question]}]}

        said = server.post(CHAT, about(packet)).json()["choices"][0]["message"]["content"]
        assert said == coded_wire.receiver("llama").generate(packet, QUESTION)
        # several are read as one text, whether of as many codes, of others or of values
        for other in (packet, coded_wire.encode([TEXT], 4, codes=3)[0], coded_wire.encode([TEXT], 4)[0]):
            said = server.post(CHAT, about(packet, other)).json()["choices"][0]["message"]["content"]
            z_MD = torch.cat([coded_wire.latents([each]).z_BMD[0] for each in (packet, other)])
            whole = replace(
                coded_wire.encode([TEXT], 4)[0], z_MD=z_MD, source_tokens=packet.source_tokens + other.source_tokens
            )
            assert said == coded_wire.receiver("llama").generate(whole, QUESTION)
        for change, says in (
            ({"codes": 4}, "1 to 3 codes"),
            ({"codes": 0}, "1 to 3 codes"),
            ({"codes": 2, "bits": 8}, "one of the two"),
            ({"codes": 2, "norms": True}, "norms"),
        ):
            assert says in server.error("/v1/latents", {"input": TEXT} | change)["message"]
