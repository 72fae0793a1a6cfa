"""Text while it is written: pieces add up to the whole, and nothing is shown that has to be taken back."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from latentwire.serving.growing import Growing, begun

PIECES = [" ", "the", " th", "e", "\n", "Oslo", "é", "x"]
BYTES = [piece.encode() for piece in PIECES] + [b"\xe2", b"\x82", b"\xac"]


def decode(ids: list[int]) -> str:
    return b"".join(BYTES[token] for token in ids).decode(errors="replace")


@given(ids=st.lists(st.integers(0, len(BYTES) - 1), min_size=1, max_size=20),
       stops=st.lists(st.sampled_from(["the", "he\n", "Oslo", " ", "€", "xx"]), max_size=2))  # fmt: skip
def test_pieces_add_up(ids, stops):
    growing, shown = Growing(decode, len(ids), stops), ""
    for token in ids:
        finish = growing.take(token)
        shown += growing.fresh(ended=bool(finish))
        if finish:
            break
    whole = decode(ids)
    found = [place for stop in stops if (place := whole.find(stop)) >= 0]
    assert growing.text() == (whole[: min(found)] if found else whole).strip()
    assert shown == growing.text()
    assert (finish == "stop") == bool(found)


def test_the_beginning_of_a_stop_is_held_back():
    growing = Growing(decode, 9, ["the"])
    assert growing.take(PIECES.index("Oslo")) is None and growing.fresh() == "Oslo"
    assert growing.take(PIECES.index(" th")) is None and growing.fresh() == ""
    assert growing.take(PIECES.index("x")) is None and growing.fresh() == " thx"
    assert begun("a th", ["the"]) == 2 and begun("the", ["the"]) == 0


def test_half_a_character_is_held_back():
    growing = Growing(decode, 9)
    for token, piece in ((8, ""), (9, ""), (10, "€")):
        growing.take(token)
        assert growing.fresh() == piece
