"""Many texts into a store: the same packets however often it is killed, and in however many processes."""

from __future__ import annotations

import gzip
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from conftest import WORDS
from latentwire import bulk, cli
from latentwire.bulk import encode_rows, place
from latentwire.data.texts import is_jsonl, read_texts
from latentwire.errors import UserError
from latentwire.packets.key import key_of
from latentwire.packets.store import Store

COUNT = 150


def texts(count: int) -> list[str]:
    """Texts of 20 to 400 characters, all different."""
    return [f"{n}: {(WORDS * 2)[n % 40 : n % 40 + 20 + 37 * n % 380]}" for n in range(count)]


def write(path: Path, rows: list[dict]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def wire(tiny_wire, tmp_path_factory) -> str:
    where = tmp_path_factory.mktemp("wire")
    tiny_wire.save_pretrained(where)
    return str(where)


@pytest.fixture(scope="module")
def rows(tmp_path_factory) -> Path:
    made = [{"id": f"doc {n}", "text": text} for n, text in enumerate(texts(COUNT))]
    again = [{"text": made[3]["text"]}, {"context": made[140]["text"]}]
    return write(tmp_path_factory.mktemp("rows") / "rows.jsonl", made + again)


@pytest.fixture
def small_windows(monkeypatch):
    monkeypatch.setattr(bulk, "WINDOW", 3)


def content(path: Path) -> dict[bytes, tuple[str, bytes]]:
    with Store.open(path) as store:
        assert not list(store.verify())
        return {entry.key: (entry.name, entry.data) for entry in store.iterate()}


def run(wire, rows, path, rank=0, world=1, **options):
    with Store.open(path, write=True, writer=str(rank)) as store:
        return encode_rows(wire, rows, store, 4, 8, batch_size=8, rank=rank, world=world, **options)


def test_every_text_is_there_once_under_its_key(tiny_wire, rows, tmp_path, small_windows):
    done = run(tiny_wire, rows, tmp_path)
    assert (done.rows, done.again, done.mine, done.before, done.written) == (COUNT + 2, 2, COUNT, 0, COUNT)
    found = content(tmp_path)
    assert len(found) == COUNT and done.nbytes == sum(len(data) for _, data in found.values())
    with Store.open(tmp_path) as store:
        for n, text in list(enumerate(texts(COUNT)))[::30]:
            key = key_of(text, 4, 8, tiny_wire.fingerprint)
            got, alone = store.get(key), tiny_wire.encode([text], 4)[0]
            assert got is not None and found[key][0] == f"doc {n}" and got.source_tokens == alone.source_tokens
            # what shares its batch makes a difference in the last places at most: a step of 8 bits, now and then
            step = alone.z_MD.abs().max() / 127
            assert (got.z_MD - alone.z_MD).abs().max() < 1.1 * step


def test_batches_are_full_and_of_like_length(tiny_wire, rows, tmp_path, monkeypatch):
    plain, seen = tiny_wire.encode, []

    def encode(batch, *args, **options):
        seen.append([len(text) for text in batch])
        return plain(batch, *args, **options)

    monkeypatch.setattr(type(tiny_wire), "encode", lambda _, *a, **o: encode(*a, **o))
    run(tiny_wire, rows, tmp_path)
    assert [len(batch) for batch in seen] == [8] * (COUNT // 8) + [COUNT % 8]
    assert max(max(batch) - min(batch) for batch in seen[:-1]) < 60


def test_only_a_window_is_held(monkeypatch):
    monkeypatch.setattr(bulk, "WINDOW", 2)
    taken = []

    def endless():
        for n in range(10**9):
            taken.append(n)
            yield key_of(str(n), 4, 8, b"encoder1"), bulk.TextRow(str(n), "x" * (100 if n < 90 else 10**6), None)

    made = bulk._batches(endless(), bulk.Index(lambda p: p.to_bytes(8, "little", signed=True)), 10, bulk.Done())
    assert [len(next(made)) for _ in range(3)] == [10] * 3 and len(taken) == 40
    for _ in range(5):
        next(made)
    # long texts fill a window by what they weigh, not by their number
    monkeypatch.setattr(bulk, "CHARACTERS", 3 * 10**6)
    assert len(next(made)) == 10 and sum(map(len, (next(made), next(made)))) <= 20 and len(taken) < 110


def test_what_is_there_is_passed_over(tiny_wire, rows, tmp_path, monkeypatch, small_windows):
    run(tiny_wire, rows, tmp_path)
    before = content(tmp_path)
    monkeypatch.setattr(type(tiny_wire), "encode", None)  # it would fail if it were called
    done = run(tiny_wire, rows, tmp_path)
    assert (done.before, done.written) == (COUNT, 0) and content(tmp_path) == before


def test_a_batch_that_is_there_in_part_comes_out_the_same(tiny_wire, rows, tmp_path, small_windows):
    run(tiny_wire, rows, tmp_path / "whole")
    whole = content(tmp_path / "whole")
    with Store.open(tmp_path / "part", write=True) as store:
        for number, (key, (name, data)) in enumerate(whole.items()):
            if number % 5 == 0 or number < 20:
                store.append(key, data, name=name)
    done = run(tiny_wire, rows, tmp_path / "part")
    assert done.written + done.before == COUNT and done.written > 50
    assert content(tmp_path / "part") == whole


def test_ranks_share_the_texts_and_each_has_files_of_its_own(tiny_wire, rows, tmp_path, small_windows):
    run(tiny_wire, rows, tmp_path / "one")
    shares = [run(tiny_wire, rows, tmp_path / "three", rank, 3) for rank in range(3)]
    assert sum(done.written for done in shares) == COUNT and min(done.written for done in shares) > 40
    assert content(tmp_path / "three") == content(tmp_path / "one")
    with Store.open(tmp_path / "three") as store:
        assert sum(map(len, store.files)) == COUNT, "no text twice"
        assert {file.path.name[0] for file in store.files} == {"0", "1", "2"}
    # and another number of processes goes on where these ended
    assert run(tiny_wire, rows, tmp_path / "three", 1, 2).written == 0


def test_questions_are_encoded_behind_their_texts(tiny_wire, tmp_path):
    asked = [{"context": WORDS, "question": question} for question in ("Who led it?", "When?", "When?")]
    path = tmp_path / "asked.jsonl.gz"
    path.write_bytes(gzip.compress("".join(json.dumps(row) + "\n" for row in asked).encode()))
    done = run(tiny_wire, path, tmp_path / "s", questions=True)
    assert (done.written, done.again) == (2, 1)
    with Store.open(tmp_path / "s") as store:
        got = store.get(key_of(WORDS, 4, 8, tiny_wire.fingerprint, "When?"))
        assert got is not None and got.mode == "prompt"
        assert got.source_tokens == tiny_wire.encode([WORDS], 4, ["When?"])[0].source_tokens


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ('{"title": "x"}', "line 3: expected 'text' or 'context', found 'title'"),
        ('{"text": 3}', "line 3: 'text' is not a string"),
        ('{"text": " "}', "line 3: 'text' is empty"),
        ('{"text": "\\ud83d"}', "line 3: 'text' holds half of a surrogate pair"),
        ("nonsense", "line 3: not valid JSON"),
    ],
)
def test_a_row_that_is_none_is_named_before_anything_is_encoded(tiny_wire, tmp_path, row, said):
    path = tmp_path / "rows.jsonl"
    path.write_text('{"text": "a"}\n{"text": "b"}\n' + row + "\n")
    with pytest.raises(UserError) as error:
        run(tiny_wire, path, tmp_path / "s")
    assert said in str(error.value) and not content(tmp_path / "s")


def test_questions_that_are_missing_and_files_without_rows(tmp_path, tiny_wire):
    with pytest.raises(UserError, match="line 1: 'question' is missing"):
        list(read_texts(write(tmp_path / "a.jsonl", [{"text": "a"}]), questions=True))
    with pytest.raises(UserError, match="holds no rows"):
        run(tiny_wire, write(tmp_path / "b.jsonl", []), tmp_path / "s")
    assert [is_jsonl(name) for name in ("a.jsonl", "a.jsonl.zst", "b/a.ndjson", "a.json", "a.txt", "-")] == [
        True, True, True, False, False, False,
    ]  # fmt: skip


@pytest.mark.parametrize(("rank", "world"), [("2", "2"), ("x", "2"), ("0", "0"), ("-1", "2")])
def test_a_place_that_is_none_is_refused(monkeypatch, rank, world):
    monkeypatch.setenv("RANK", rank)
    monkeypatch.setenv("WORLD_SIZE", world)
    with pytest.raises(UserError, match="expected a rank"):
        place()


def command(wire: str, rows: Path, store: Path) -> list[str]:
    return ["encode", wire, str(rows), "--store", str(store), "--batch-size", "2"]


@pytest.mark.slow
def test_killed_and_gone_on_with_it_is_the_same_store(wire, rows, tmp_path):
    assert cli.main(command(wire, rows, tmp_path / "whole")) == 0
    kills = 0
    while kills < 2:
        process = subprocess.Popen([sys.executable, "-m", "latentwire", *command(wire, rows, tmp_path / "killed")])
        log = tmp_path / "killed" / "0-000000.log"
        before = log.stat().st_size if log.exists() else 0
        while process.poll() is None and (not log.exists() or log.stat().st_size < before + 3000):
            time.sleep(0.005)
        assert process.poll() is None, "it was done before it was killed"
        process.kill()
        process.wait()
        kills += 1
    with Store.open(tmp_path / "killed") as store:
        assert 0 < len(store) < COUNT
    assert cli.main(command(wire, rows, tmp_path / "killed")) == 0
    assert content(tmp_path / "killed") == content(tmp_path / "whole")


@pytest.mark.slow
def test_two_processes_make_the_same_store_as_one(wire, rows, tmp_path, capsys):
    assert cli.main(command(wire, rows, tmp_path / "one")) == 0
    assert f"{COUNT + 2} rows, {COUNT} packets written" in capsys.readouterr().out
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m"]
    done = subprocess.run(
        [*torchrun, "latentwire", *command(wire, rows, tmp_path / "two")],
        capture_output=True, text=True, check=False, timeout=300, env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    assert "process 1 of 2: " in done.stdout and "process 2 of 2: " in done.stdout
    assert content(tmp_path / "two") == content(tmp_path / "one")
    with Store.open(tmp_path / "two") as store:
        assert sum(map(len, store.files)) == COUNT and len(store.files) == 2


def test_one_text_into_a_store(wire, tmp_path, capsys):
    path = tmp_path / "my.txt"
    path.write_text(f"  {WORDS}\n")
    argv = ["encode", wire, str(path), "--store", str(tmp_path / "s"), "--ratio", "8", "--bits", "4"]
    assert cli.main(argv) == 0
    assert f"bytes for {len(WORDS)} bytes of text" in capsys.readouterr().out
    assert cli.main(argv) == 0
    assert "already" in capsys.readouterr().out
    assert cli.main([*argv, "--question", "Who?"]) == 0
    with Store.open(tmp_path / "s") as store:
        (first, second) = store.iterate()
        assert first.name == "my.txt" and (first.packet.ratio, first.packet.bits) == (8, 4)
        assert second.packet.mode == "prompt"


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        ([], "--output for one packet, or --store"),
        (["-o", "p.lw", "--store", "s"], "--output for one packet, or --store"),
        (["-o", "p.lw", "--questions"], "--questions is for rows"),
        (["--store", "s", "--question", "Who?"], "--questions encodes the question that each row has"),
        (["--store", "s", "--bits", "5"], "no codec of bits 5"),
        (["--store", "s", "--ratio", "3"], "no ratio 3"),
    ],
)
def test_the_command_refuses_in_one_line(wire, rows, tmp_path, monkeypatch, capsys, argv, said):
    monkeypatch.chdir(tmp_path)
    assert cli.main(["encode", wire, str(rows), *argv]) == 2
    line = capsys.readouterr().err.strip()
    assert line.startswith("error: ") and "\n" not in line and said in line
    assert not list(tmp_path.glob("s/*.log"))


def test_an_encoder_alone_makes_the_same_latents(tiny_wire, wire):
    from latentwire.wire import Wire

    alone = Wire.from_pretrained(wire, receivers=[])
    assert alone.fingerprint == tiny_wire.fingerprint
    assert torch.equal(alone.encode([WORDS], 4)[0].z_MD, tiny_wire.encode([WORDS], 4)[0].z_MD)
