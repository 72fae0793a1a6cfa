"""What a report shows of an evaluation: a few large figures, the table, drawings, answers by kind, and where it ran."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from latentwire.evaluation.table import share
from latentwire.experiments.figures import Figure, Series, Style, draw, style_of
from latentwire.experiments.runs import Evaluation, flat

Row = dict[str, Any]


class Column(NamedTuple):
    """A column of the table: its key in a row, heading, what it is, and how a value is written."""

    key: str
    heading: str
    about: str
    write: Callable[[Any], str]


def percent(value: float) -> str:
    """``0.876`` as ``88 %``, ``-0.04`` as ``−4 %``: a minus as wide as a digit, a space at which no line ends."""
    return f"{round(100 * value)}\N{NO-BREAK SPACE}%".replace("-", "\N{MINUS SIGN}")


COLUMNS = (
    Column("ratio", "ratio", "tokens of the text per latent", lambda v: f"{v}×"),
    Column("bits", "bits", "bits per value of the packet", str),
    Column("f1", "F1", "overlap of words with the right answer, 0 to 1", share),
    Column("f1_ci", "95 %", "bootstrap interval of F1", lambda v: "–".join(share(end) for end in v)),
    Column("retention", "kept", "of what the text adds to F1 over no context", percent),
    Column("em", "EM", "answers that are exactly right, 0 to 1", share),
    Column("nll", "NLL", "negative log-likelihood per token of the first right answer", lambda v: f"{v:.2f}"),
    Column("first_token", "1st", "most likely first tokens that begin a right answer, 0 to 1", share),
    Column("n", "n", "questions", lambda v: f"{v:,}"),
    Column("positions", "positions", "of the whole prompt", lambda v: f"{v:,.1f}"),
    Column("kv_positions", "K/V", "key/value positions that stand for the context", lambda v: f"{v:,.1f}"),
    Column("own_ratio", "own ratio", "the receiver's own tokens per such position", lambda v: f"{v:.2f}"),
    Column("bytes", "bytes", "of the packet, or of the text given", lambda v: f"{v:,.0f}"),
    Column("cut", "cut", "texts that were cut to the receiver's window", lambda v: f"{v:,}"),
)  # fmt: skip


KEPT = (
    "Share of what the text adds to F1 over no context, at the highest number of bits; bars are the "
    "95\N{NO-BREAK SPACE}% interval of the latents' F1 on this scale"
)


@dataclass(frozen=True)
class Cell:
    """A value as the file has it, as JSON, and as it is read."""

    value: str
    text: str


@dataclass(frozen=True)
class Line:
    """A row of the table. cells: one for each column, None where empty. span: F1 with its interval as percent of the
    highest one, for the bar."""

    condition: str
    style: Style
    cells: list[Cell | None]
    span: tuple[float, float, float] | None


@dataclass(frozen=True)
class Table:
    """One receiver's table. absent: ``(condition, ratio, bits, why)`` of the rows that say nothing on this data."""

    receiver: str
    columns: list[Column]
    lines: list[Line]
    absent: list[tuple[str, int | None, int | None, str]]


@dataclass(frozen=True)
class Panel:
    """The same figure for several receivers, under one legend."""

    title: str
    about: str
    legend: list[tuple[str, Style]]
    figures: list[Figure]


@dataclass(frozen=True)
class Tile:
    """What is told first of a receiver: ``(ratio, [kept, F1, its interval])`` of its latents, and F1 of the text."""

    receiver: str
    kept: list[tuple[str, list[Cell | None]]]
    text: Cell


def tables(run: Evaluation) -> list[Table]:
    """One for each receiver; a column that would be empty for all of them is left out, as is one of zeros (``cut``)."""
    used = [
        column
        for column in COLUMNS
        if any(row.get(column.key) is not None for row in run.rows)
        and (column.key != "cut" or any(row.get("cut") for row in run.rows))
    ]
    top = max([row["f1_ci"][1] for row in run.rows if row.get("f1_ci")], default=0.0) or 1.0
    found = []
    for name in run.receivers:
        rows = _of(run, name)
        lines = [_line(row, used, top) for row in rows if not row.get("na")]
        absent = [(row["condition"], row["ratio"], row["bits"], row["na"]) for row in rows if row.get("na")]
        found.append(Table(name, used, lines, absent))
    return found


def cell(row: Row, column: Column) -> Cell | None:
    """One value, None where the row has none."""
    value = row.get(column.key)
    return None if value is None else Cell(json.dumps(value), column.write(value))


def _line(row: Row, columns: Sequence[Column], top: float) -> Line:
    span = None
    if row.get("f1_ci"):
        low, mid, high = (round(100 * value / top, 1) for value in (row["f1_ci"][0], row["f1"], row["f1_ci"][1]))
        span = (low, mid, high)
    cells = [cell(row, column) for column in columns]
    return Line(row["condition"], style_of(row["condition"]), cells, span)


def tiles(run: Evaluation) -> list[Tile]:
    """One for each receiver whose latents can be held against its text."""
    named = {column.key: column for column in COLUMNS}
    found = []
    for name in run.receivers:
        text = _row(run, name, "text")
        kept = [
            (f"{row['ratio']}×", [cell(row, named[key]) for key in ("retention", "f1", "f1_ci")])
            for row in _finest(_of(run, name))
            if row["condition"] == "latents" and row.get("retention") is not None
        ]
        if text and kept and (full := cell(text, named["f1"])):
            found.append(Tile(name, kept, full))
    return found


def figures(run: Evaluation) -> list[Panel]:
    """Retention by ratio and F1 by bytes, each with a figure for every receiver that has points for it."""
    found = []
    for title, about, one in (
        ("Kept, by ratio", KEPT, retention_by_ratio),
        ("F1, by bytes", "F1 by what the packet or the text weighs; latents of one ratio are joined", f1_by_bytes),
    ):
        drawn = [figure for name in run.receivers if (figure := one(run, name))]
        if drawn:
            found.append(Panel(title, about, list(dict.fromkeys(entry for f in drawn for entry in f.legend)), drawn))
    return found


def retention_by_ratio(run: Evaluation, receiver: str) -> Figure | None:
    """Each condition's retention at each ratio; of several numbers of bits the highest. The interval of the latents is
    that of F1, on this scale."""
    rows = [row for row in _finest(_of(run, receiver)) if row.get("retention") is not None]
    ratios = sorted({row["ratio"] for row in rows if row["ratio"]})
    if not ratios:
        return None
    place = {ratio: number for number, ratio in enumerate(ratios)}
    text, none = (_row(run, receiver, name) for name in ("text", "none"))
    series = []
    for condition in dict.fromkeys(row["condition"] for row in rows):
        own = sorted((row for row in rows if row["condition"] == condition), key=lambda row: row["ratio"] or 0)
        kept = [100 * row["retention"] for row in own]
        if own[0]["ratio"] is None:
            series.append(Series(condition, style_of(condition), [], kept[:1], level=True))
            continue
        spans: list[tuple[float, float]] = []
        width = text["f1"] - none["f1"] if text and none else 0.0
        if condition == "latents" and none and width > 0 and all(row.get("f1_ci") for row in own):
            low = none["f1"]
            spans = [(100 * (row["f1_ci"][0] - low) / width, 100 * (row["f1_ci"][1] - low) / width) for row in own]
        series.append(Series(condition, style_of(condition), [place[row["ratio"]] for row in own], kept, spans))
    ticks = {float(number): f"{ratio}×" for ratio, number in place.items()}
    return draw(receiver, "share kept, by ratio", series, "ratio", "kept, %", ticks=ticks)


def f1_by_bytes(run: Evaluation, receiver: str) -> Figure | None:
    """F1 of each row by what it weighs; rows of one condition and ratio are joined, conditions without bytes go across.
    """  # fmt: skip
    rows = [row for row in _of(run, receiver) if row.get("bytes") is not None and row.get("f1") is not None]
    series = []
    for condition, ratio in dict.fromkeys((row["condition"], row["ratio"]) for row in rows):
        own = sorted((r for r in rows if (r["condition"], r["ratio"]) == (condition, ratio)), key=lambda r: r["bytes"])
        style, scores = style_of(condition), [row["f1"] for row in own]
        if not own[-1]["bytes"]:
            series.append(Series(condition, style, [], scores[:1], level=True))
            continue
        spans = [tuple(row["f1_ci"]) for row in own] if all(row.get("f1_ci") for row in own) else []
        # the controls weigh what the latents weigh: their bars would hide those that matter
        bars = spans if condition in ("latents", "text", "same-bytes") else []
        notes = [*[""] * (len(own) - 1), f"{ratio}×"] if ratio and condition == "latents" else []
        marked = Style(style.colour, style.marker or "o", style.dashed)
        series.append(Series(condition, marked, [r["bytes"] for r in own], scores, bars, notes=notes))
    if all(one.level for one in series):
        return None
    return draw(receiver, "F1, by bytes", series, "bytes", "F1", log_x=True, floor=0.0)


def kinds(run: Evaluation) -> list[Row]:
    """``{receiver, condition, ratio, bits, f1}`` with F1 as cells by kind; empty where the file has no kinds."""
    found: dict[tuple, Row] = {}
    for row in run.results.get("kinds") or []:
        key = tuple(row[name] for name in ("receiver", "condition", "ratio", "bits"))
        line = found.setdefault(
            key, dict(zip(("receiver", "condition", "ratio", "bits"), key, strict=True)) | {"f1": {}}
        )
        line["f1"][row["kind"]] = (Cell(json.dumps(row["f1"]), share(row["f1"])), row["n"])
    return list(found.values())


def facts(run: Evaluation) -> list[tuple[str, str]]:
    """All that the file says beside its rows, as ``(dotted name, value)``: what ran, on what, and where."""

    return flat({key: value for key, value in run.results.items() if key not in ("rows", "kinds")})


def _of(run: Evaluation, receiver: str) -> list[Row]:
    return [row for row in run.rows if row["receiver"] == receiver]


def _row(run: Evaluation, receiver: str, condition: str) -> Row | None:
    return next((row for row in _of(run, receiver) if row["condition"] == condition and row["f1"] is not None), None)


def _finest(rows: list[Row]) -> list[Row]:
    """Of rows that differ in bits alone, that with most of them, in the order of the rows."""
    best: dict[tuple, Row] = {}
    for row in rows:
        key = (row["condition"], row["ratio"])
        if key not in best or (row["bits"] or 0) > (best[key]["bits"] or 0):
            best[key] = row
    return list(best.values())
