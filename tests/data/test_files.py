"""Reading files: compressed or not, cut short, of another encoding."""

from __future__ import annotations

import builtins
import gzip
import json
import lzma

import pytest
import zstandard

from latentwire.data.files import open_text, read_jsonl, read_text
from latentwire.errors import UserError

ROWS = [{"text": f"row {n}: Łódź, 東京, 🙂", "n": n} for n in range(2000)]
LINES = "".join(json.dumps(row, ensure_ascii=n % 2 == 0) + "\n" for n, row in enumerate(ROWS)).encode()
PACK = {
    "": lambda data: data,
    ".gz": gzip.compress,
    ".xz": lzma.compress,
    ".zst": zstandard.ZstdCompressor().compress,
}


@pytest.mark.parametrize("ending", PACK)
def test_rows_come_back_with_their_line_numbers(tmp_path, ending):
    path = tmp_path / f"rows.jsonl{ending}"
    path.write_bytes(PACK[ending](LINES))
    assert list(read_jsonl(path)) == list(enumerate(ROWS, 1))


@pytest.mark.parametrize("ending", [".gz", ".xz", ".zst"])
def test_all_parts_of_a_joined_file_are_read(tmp_path, ending):
    path = tmp_path / f"rows.jsonl{ending}"
    path.write_bytes(PACK[ending](LINES) + PACK[ending](LINES))
    assert len(list(read_jsonl(path))) == 2 * len(ROWS)


@pytest.mark.parametrize("ending", [".gz", ".xz", ".zst"])
@pytest.mark.parametrize("kept", [0.3, 0.9, -1])
def test_a_file_cut_short_is_refused(tmp_path, ending, kept):
    whole = PACK[ending](LINES)
    path = tmp_path / f"rows.jsonl{ending}"
    path.write_bytes(whole[:kept] if kept == -1 else whole[: int(len(whole) * kept)])
    with pytest.raises(UserError, match="cut short"):
        list(read_jsonl(path))


def test_a_cut_at_the_end_of_a_zst_block_is_refused(tmp_path):
    packer = zstandard.ZstdCompressor().compressobj()
    path = tmp_path / "rows.jsonl.zst"
    # all bytes so far can be unpacked, and they end with a whole line, but the frame is open
    path.write_bytes(packer.compress(LINES) + packer.flush(zstandard.COMPRESSOBJ_FLUSH_BLOCK))
    with pytest.raises(UserError, match="cut short"):
        list(read_jsonl(path))


@pytest.mark.parametrize("ending", [".gz", ".xz", ".zst"])
def test_what_is_no_compressed_file_is_refused(tmp_path, ending):
    path = tmp_path / f"rows.jsonl{ending}"
    path.write_bytes(LINES)
    with pytest.raises(UserError, match="cannot be unpacked"):
        list(read_jsonl(path))


@pytest.mark.parametrize("ending", PACK)
def test_an_empty_file_has_no_rows(tmp_path, ending):
    path = tmp_path / f"rows.jsonl{ending}"
    path.write_bytes(PACK[ending](b"") if ending else b"")
    assert list(read_jsonl(path)) == []


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ('{"a": 1', "line 3: not valid JSON"),
        ("[1, 2]", "line 3: expected a JSON object, found a list"),
        ("[" * 100_000, "line 3: not valid JSON (nested too deeply)"),
    ],
)
def test_a_malformed_line_is_named(tmp_path, line, said):
    path = tmp_path / "rows.jsonl"
    path.write_text('{"a": 1}\n\n' + line + '\n{"a": 2}\n')
    with pytest.raises(UserError) as error:
        list(read_jsonl(path))
    assert str(error.value).startswith(f"{path}, ")
    assert said in str(error.value)


def test_missing_file_and_folder(tmp_path):
    with pytest.raises(UserError, match=r"there is no file .*none\.jsonl"):
        list(read_jsonl(tmp_path / "none.jsonl"))
    with pytest.raises(UserError, match="is a folder"):
        open_text(tmp_path)


def test_other_encodings_are_refused_and_a_byte_order_mark_is_dropped(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_bytes('{"text": "Łódź"}'.encode("utf-16"))
    with pytest.raises(UserError, match="is not UTF-8"):
        list(read_jsonl(path))
    path.write_bytes(b"\xef\xbb\xbf" + '{"text": "Łódź"}'.encode())
    assert list(read_jsonl(path)) == [(1, {"text": "Łódź"})]
    path.write_bytes(b"caf\xe9")
    with pytest.raises(UserError, match="is not UTF-8"):
        read_text(path)


def test_zst_without_the_library_names_the_extra(tmp_path, monkeypatch):
    path = tmp_path / "rows.jsonl.zst"
    path.write_bytes(PACK[".zst"](LINES))
    real = builtins.__import__

    def without(name, *rest):
        if name == "zstandard":
            raise ImportError(name)
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(UserError, match=r"latentwire\[data\]"):
        list(read_jsonl(path))
