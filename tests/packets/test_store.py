"""A store of packets: what was appended is found, whatever is cut off it, and while others write."""

from __future__ import annotations

import doctest
import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file

from latentwire import cli
from latentwire.errors import UserError
from latentwire.packets import Packet, key, store
from latentwire.packets.key import Index, hashes, key_of
from latentwire.packets.log import HEAD_BYTES
from latentwire.packets.store import Store

MAKER = b"encoder1"


def packet(n: int, m: int = 2, d: int = 8) -> Packet:
    return Packet(torch.randn(m, d, generator=torch.Generator().manual_seed(n)), 4 * m, 4, "context", MAKER)


def name(n: int) -> bytes:
    return key_of(f"text {n}", 4, 8, MAKER)


def filled(path: Path, count: int, **options) -> Path:
    with Store.open(path, write=True, **options) as made:
        for n in range(count):
            assert made.append(name(n), packet(n), name=f"row {n}")
    return path


def content(path: Path) -> dict[bytes, bytes]:
    with Store.open(path) as opened:
        return {entry.key: entry.data for entry in opened.iterate()}


def wanted(*numbers: int) -> dict[bytes, bytes]:
    return {name(n): packet(n).to_bytes(8) for n in numbers}


@pytest.mark.parametrize("shard_bytes", [1 << 20, 700, 1], ids=["a log", "shards and a log", "shards"])
def test_what_was_appended_is_found(tmp_path, shard_bytes):
    with Store.open(tmp_path / "s", write=True, shard_bytes=shard_bytes) as made:
        for n in range(20):
            assert made.append(name(n), packet(n), name=f"row {n}")
            assert not made.append(name(n), packet(n + 1)), "what is there stays"
        for opened in (made, Store.open(tmp_path / "s")):
            assert len(opened) == 20 and name(3) in opened and name(20) not in opened
            assert [entry.name for entry in opened.iterate()] == [f"row {n}" for n in range(20)]
            got = opened.get(name(7))
            assert got is not None and got.to_bytes(8) == packet(7).to_bytes(8)
            assert opened.get(name(20)) is None
            assert [entry.key for entry in opened.find(name(5).hex()[:12])] == [name(5)]
            assert [entry.key for entry in opened.find("row 11")] == [name(11)]
            assert list(opened.verify()) == []
    assert content(tmp_path / "s") == wanted(*range(20))
    kinds = {path.suffix for path in (tmp_path / "s").iterdir()} - {".json", ".lock"}
    assert kinds == {1 << 20: {".log"}, 700: {".log", ".safetensors"}, 1: {".safetensors"}}[shard_bytes]


def test_it_goes_on_where_it_ended(tmp_path):
    filled(tmp_path, 5)
    with Store.open(tmp_path, write=True, shard_bytes=900) as made:
        assert not made.append(name(4), packet(4))
        for n in range(5, 12):
            assert made.append(name(n), packet(n))
        made.seal()
        made.seal()
    assert content(tmp_path) == wanted(*range(12))
    assert not list(tmp_path.glob("*.log"))


def test_any_safetensors_library_opens_a_shard(tmp_path):
    filled(tmp_path, 4, shard_bytes=1 << 20)
    with Store.open(tmp_path, write=True) as made:
        assert made.append(name(4), packet(4).to_bytes(4), name="Łódź")
        made.seal()
    found = load_file(tmp_path / "0-000000.safetensors")
    edges, names = found["offsets"], found["name_offsets"]
    assert bytes(found["packets"][edges[4] : edges[5]]) == packet(4).to_bytes(4)
    assert bytes(found["names"][names[4] : names[5]]).decode() == "Łódź"
    assert [bytes(row) for row in found["keys"]] == [name(n) for n in range(5)]
    assert found["checksums"].dtype == np.uint32


def test_cut_at_every_byte_of_its_last_record_all_earlier_ones_are_there(tmp_path):
    filled(tmp_path / "whole", 4)
    (log,) = (tmp_path / "whole").glob("*.log")
    with Store.open(tmp_path / "whole") as opened:
        starts = opened.files[0].starts
    size = log.stat().st_size
    assert starts[-1] < size - HEAD_BYTES
    for cut in range(starts[-1], size):
        folder = tmp_path / "cut"
        shutil.copytree(tmp_path / "whole", folder)
        with (folder / log.name).open("r+b") as file:
            file.truncate(cut)
        assert content(folder) == wanted(0, 1, 2)
        with Store.open(folder) as opened:
            lost = opened.lost
            assert [(each.offset, each.size) for each in lost] == (
                [(starts[-1], cut - starts[-1])] if cut > starts[-1] else []
            )
            assert all("unfinished record" in str(each) and log.name in str(each) for each in lost)
            assert list(opened.verify()) == lost
        with Store.open(folder, write=True) as made:  # who writes on says it too, and loses nothing more
            assert made.lost == lost
            assert made.append(name(3), packet(3)) and made.append(name(9), packet(9))
        assert content(folder) == wanted(0, 1, 2, 3, 9)
        with Store.open(folder) as opened:
            assert not opened.lost and not list(opened.verify())
        shutil.rmtree(folder)


def test_a_shard_cut_at_every_byte_of_its_last_packet_has_all_earlier_ones(tmp_path):
    filled(tmp_path, 4)
    with Store.open(tmp_path, write=True) as made:
        made.append(name(4), packet(4))
        made.seal()
    path = tmp_path / "0-000000.safetensors"
    whole = path.read_bytes()
    for cut in range(len(whole) - len(packet(4).to_bytes(8)), len(whole)):
        path.write_bytes(whole[:cut])
        assert content(tmp_path) == wanted(0, 1, 2, 3)
        with Store.open(tmp_path) as opened:
            (lost,) = opened.lost
            assert "1 of 5 packets are gone" in str(lost)
    for cut in range(0, len(whole), 7):
        path.write_bytes(whole[:cut])
        with Store.open(tmp_path) as opened:
            assert content(tmp_path).items() <= wanted(0, 1, 2, 3).items() and opened.lost


@given(st.data())
@settings(deadline=None, max_examples=60)
def test_damage_anywhere_costs_only_what_it_hits(tmp_path_factory, data):
    folder = tmp_path_factory.mktemp("damaged")
    filled(folder, 6, shard_bytes=data.draw(st.sampled_from([450, 1 << 20])))
    files = [path for path in folder.iterdir() if path.suffix in (".log", ".safetensors")]
    path = data.draw(st.sampled_from(sorted(files)))
    whole = path.read_bytes()
    start = data.draw(st.integers(0, len(whole) - 1))
    span = data.draw(st.binary(min_size=1, max_size=40))
    path.write_bytes((whole[:start] + span + whole[start + len(span) :])[: len(whole)])
    if path.read_bytes() == whole:
        return
    with Store.open(folder) as opened:
        found = list(opened.verify())
        assert found, "damage must be told"
        good = {}
        for entry in opened.iterate():
            try:
                good[entry.key] = entry.packet.to_bytes(8)
            except UserError:
                continue
        kept = {k: v for k, v in good.items() if wanted(*range(6)).get(k) == v}
        # a span hits two neighbours at most; of a shard whose index is hit nothing is taken on trust
        assert len(kept) >= (4 if path.suffix == ".log" else 1)
    with Store.open(folder, write=True) as made:
        for n in range(6):
            made.append(name(n), packet(n))
        assert len(made) >= 6 and all(name(n) in made for n in range(6))


def test_a_damaged_log_is_kept_aside_when_it_is_sealed(tmp_path):
    filled(tmp_path, 3)
    (log,) = tmp_path.glob("*.log")
    data = bytearray(log.read_bytes())
    data[HEAD_BYTES + 20] ^= 1
    log.write_bytes(data)
    with Store.open(tmp_path, write=True) as made:
        (lost,) = made.lost
        assert f"damaged record {name(0).hex()[:12]}" in str(lost)
    assert content(tmp_path) == wanted(1, 2)
    assert (tmp_path / f"{log.name}.damaged").read_bytes() == data


def test_a_packet_damaged_in_a_shard_is_told_and_refused(tmp_path):
    filled(tmp_path, 3, shard_bytes=1)
    path = sorted(tmp_path.glob("*.safetensors"))[1]
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with Store.open(tmp_path) as opened:
        (found,) = opened.verify()
        assert path.name in str(found) and name(1).hex()[:12] in str(found)
        with pytest.raises(UserError, match=f"packet {name(1).hex()[:12]} of the store"):
            opened.get(name(1))
        assert opened.get(name(2)) is not None


def test_readers_see_what_one_writer_appends_and_seals_meanwhile(tmp_path):
    with Store.open(tmp_path, write=True, shard_bytes=2000) as made:
        reader = Store.open(tmp_path)
        begun = None
        for n in range(60):
            made.append(name(n), packet(n))
            if n == 10:
                reader.refresh()
                begun = reader.iterate()
                next(begun)
            if n % 7 == 0:
                reader.refresh()
                assert len(reader) == n + 1 and reader.get(name(n)) is not None
                assert not reader.lost, "what is being written is not lost"
        # logs that were read have been sealed since: what was found stays found
        reader._view.cache_clear()
        assert reader.get(name(0)) is not None and reader.get(name(56)) is not None
        assert begun is not None and len({entry.key for entry in begun}) >= 10


WRITER = """
import sys
sys.path.insert(0, sys.argv[2])
from packets.test_store import name, packet
from latentwire.packets.store import Store
with Store.open(sys.argv[1], write=True, writer=sys.argv[3], shard_bytes=3000) as made:
    for n in range(int(sys.argv[4]), 10**9):
        made.append(name(n), packet(n), name=f"row {n}")
        print(n, flush=True)
"""


def writing(path: Path, writer: str, start: int = 0) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", WRITER, str(path), str(Path(__file__).parents[1]), writer, str(start)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def test_a_killed_writer_loses_nothing_it_had_appended(tmp_path):
    last = -1
    for wait in (40, 7):
        process = writing(tmp_path, "0", last + 1)
        try:
            assert process.stdout
            for line in process.stdout:
                last = int(line)
                if last % 10 == 0:
                    with Store.open(tmp_path) as reader:
                        assert all(name(n) in reader for n in range(last + 1))
                wait -= 1
                if not wait:
                    break
        finally:
            process.kill()
            process.wait()
        said = [int(line) for line in process.stdout]  # what it had said before it died
        last = max([last, *said])
    with Store.open(tmp_path, write=True) as made:
        assert all(made.get(name(n)) is not None for n in range(last + 1))
        assert not [each for each in made.verify() if not each.torn]


def test_one_writer_of_a_name_and_any_number_of_others(tmp_path):
    with Store.open(tmp_path, write=True) as first, Store.open(tmp_path, write=True, writer="b") as second:
        with pytest.raises(UserError, match="another process is writing"):
            Store.open(tmp_path, write=True)
        first.append(name(0), packet(0))
        second.append(name(1), packet(1))
        second.append(name(0), packet(0))  # it has not seen the other's: twice there, once counted
        assert len(Store.open(tmp_path)) == 2
    assert content(tmp_path) == wanted(0, 1)
    Store.open(tmp_path, write=True).close()


def test_a_full_disk_leaves_what_was_there(tmp_path, monkeypatch):
    made = Store.open(tmp_path, write=True)
    made.append(name(0), packet(0))
    assert made._writer and made._writer._file
    plain = made._writer._file

    class Full:
        def write(self, data):
            plain.write(data[:50])
            raise OSError(28, "No space left on device")

        def close(self):
            plain.close()

    monkeypatch.setattr(made._writer, "_file", Full())
    with pytest.raises(OSError, match="No space left"):
        made.append(name(1), packet(1))
    assert name(1) not in made and made.append(name(2), packet(2)) and made.append(name(1), packet(1))
    made.close()
    assert content(tmp_path) == wanted(0, 1, 2)


def test_what_is_no_store_is_refused(tmp_path):
    with pytest.raises(UserError, match="holds no store of packets; `latentwire encode"):
        Store.open(tmp_path / "none")
    (tmp_path / "my.txt").write_text("mine")
    with pytest.raises(UserError, match="neither a store of packets nor an empty folder"):
        Store.open(tmp_path, write=True)
    filled(tmp_path / "s", 1)
    (tmp_path / "s" / "store.json").write_text('{"format": "other"}')
    with pytest.raises(UserError, match="this LatentWire reads latentwire-store-1"):
        Store.open(tmp_path / "s")


def test_what_cannot_be_kept_is_refused(tmp_path):
    filled(tmp_path, 1)
    with Store.open(tmp_path) as opened, pytest.raises(UserError, match="open for reading"):
        opened.append(name(1), packet(1))
    with pytest.raises(UserError, match="letters and digits"):
        Store.open(tmp_path, write=True, writer="../a")
    with Store.open(tmp_path, write=True) as made:
        with pytest.raises(UserError, match="a key has 32 bytes, not 3"):
            made.append(b"key", packet(1))
        with pytest.raises(UserError, match="at most 1024 are kept"):
            made.append(name(1), packet(1), name="x" * 1025)
        with pytest.raises(UserError, match="checksum"):
            made.append(name(1), packet(1).to_bytes(8)[:-1] + b"\0")
        assert len(made) == 1


def test_keys_tell_apart_all_that_makes_another_packet():
    some = [
        key_of("a text", 4, 8, MAKER), key_of("a text.", 4, 8, MAKER), key_of("a text", 8, 8, MAKER),
        key_of("a text", 4, 4, MAKER), key_of("a text", 4, 8, b"another1"), key_of("a text", 4, 8, MAKER, ""),
        key_of("a text", 4, 8, MAKER, "Who?"), key_of("a textWho", 4, 8, MAKER, "?"), key_of("a textWho?", 4, 8, MAKER),
    ]  # fmt: skip
    assert len(set(some)) == len(some)
    assert key_of("a text", 4, 8, MAKER) == some[0]


@given(st.lists(st.binary(min_size=1, max_size=2), max_size=60), st.integers(0, 60))
@settings(deadline=None)
def test_an_index_is_a_dictionary_also_where_hashes_are_equal(words, cut):
    keys = [word.ljust(31, b"\0") + bytes([n % 3]) for n, word in enumerate(words)]  # eight bytes are often equal
    index = Index(lambda place: keys[place][8:])
    first = np.frombuffer(b"".join(keys[:cut]), np.uint8).reshape(-1, 32)
    index.fill([(hashes(first), np.arange(len(first)))])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(key, "RECENT", 3)
        for place, each in list(enumerate(keys))[cut:]:
            index.add(each, place)
    for each in keys:
        assert index.find(each) == keys.index(each)
    assert index.find(b"\xff" * 32) is None and len(index) == len(set(keys))


@pytest.fixture
def folder(tmp_path, capsys):
    return str(filled(tmp_path / "s", 25))


def test_the_command_lists_verifies_and_shows(folder, tmp_path, capsys):
    assert cli.main(["store", "list", folder, "--rows", "3"]) == 0
    said = capsys.readouterr().out
    assert "row 2" in said and "row 3" not in said and "22 more" in said and "25 packets" in said
    assert cli.main(["store", "list", folder, "--json"]) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [row["name"] for row in rows] == [f"row {n}" for n in range(25)]
    assert rows[3]["key"] == name(3).hex() and rows[3]["bits"] == 8 and rows[3]["encoder"] == MAKER.hex()
    assert cli.main(["store", "verify", folder]) == 0
    assert "25 packets, all whole" in capsys.readouterr().out
    out = tmp_path / "out" / "one.lw"
    assert cli.main(["store", "show", folder, "row 7", "-o", str(out)]) == 0
    assert name(7).hex() in "".join(capsys.readouterr().out.split()) and out.read_bytes() == packet(7).to_bytes(8)
    assert cli.main(["store", "show", folder, name(7).hex()[:10], "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["name"] == "row 7"


def test_the_command_says_what_is_lost(folder, capsys):
    (log,) = Path(folder).glob("*.log")
    data = bytearray(log.read_bytes())
    data[-3] ^= 1
    log.write_bytes(data[:-1])
    assert cli.main(["store", "list", folder]) == 0
    assert "an unfinished record at the end" in capsys.readouterr().out
    log.write_bytes(data)
    assert cli.main(["store", "verify", folder]) == 1
    said = capsys.readouterr().out
    assert f"damaged record {name(24).hex()[:12]}" in said and "1 findings" in said


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["verify", "none"], "holds no store"),
        (["show", "S", "nobody"], "store list"),
        (["show", "S", ""], "more than one"),
    ],
)
def test_the_command_refuses_in_one_line(folder, capsys, argv, said):
    assert cli.main(["store", *(folder if word == "S" else word for word in argv)]) == 2
    line = capsys.readouterr().err.strip()
    assert line.startswith("error: ") and "\n" not in line and said in line


@pytest.mark.parametrize("module", [key, store])
def test_examples_in_the_docstrings(module):
    assert doctest.testmod(module).failed == 0
