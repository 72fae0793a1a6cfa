"""Figures of a report: matplotlib's SVG, changed so that it belongs to the page it stands in.

A page has one set of colours for light and one for dark, as CSS variables. matplotlib knows no variables; it is given
colours that stand for them, and those are put into its SVG in their place. No text of a run is ever drawn: names are in
the page's own legend, where they are escaped, found by a search, and wrap on a narrow screen.
"""

from __future__ import annotations

import io
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from html import escape
from typing import TYPE_CHECKING, Any

from latentwire.errors import UserError

if TYPE_CHECKING:
    from matplotlib.axes import Axes

INK, LINE = "currentColor", "var(--line)"
COLOURS = tuple(f"var(--s{number})" for number in range(1, 9))
MARKERS = {  # as a path of 12 x 28, for the legend
    "o": "M14 2.5a3.5 3.5 0 1 0 .01 0z", "s": "M11 3h6v6h-6z", "D": "M14 1.8l4.2 4.2-4.2 4.2-4.2-4.2z",
    "^": "M14 2l4 7h-8z", "v": "M14 10l4-7h-8z", "x": "M11 3l6 6M17 3l-6 6", "+": "M14 2v8M10 6h8",
}  # fmt: skip
STAND_IN = {INK: "#0a0b00", LINE: "#0a0bff"} | {colour: f"#0a0c{n:02x}" for n, colour in enumerate(COLOURS, 1)}
SIZE = (4.6, 2.9)  # inches; shown at the width of a phone its letters are as large as those of the page's notes
NAMED = "figure--"
"""What names in a drawn SVG begin with until it has a place in a page."""
POINTS = 160
"""A line has no more points than this: more cannot be told apart, and a long run would weigh megabytes."""


@dataclass(frozen=True)
class Style:
    """How one thing looks in every figure and legend. marker: a key of :data:`MARKERS`, or nothing."""

    colour: str = INK
    marker: str = ""
    dashed: bool = False

    @property
    def shape(self) -> str:
        """The marker as an SVG path for the legend."""
        return MARKERS.get(self.marker, "")


CONDITIONS = {
    "text": Style(INK),
    "none": Style(INK, dashed=True),
    "latents": Style(COLOURS[0], "o"),
    "budget-question": Style(COLOURS[1], "s"),
    "budget": Style(COLOURS[2], "D"),
    "same-bytes": Style(COLOURS[3], "^"),
    "zero": Style(COLOURS[5], "x", dashed=True),
    "shuffled": Style(COLOURS[6], "+", dashed=True),
    "wrong": Style(COLOURS[4], "v", dashed=True),
}


def style_of(condition: str) -> Style:
    """The style of a condition; the others' share one, and their legend tells them from the shipped ones."""
    return CONDITIONS.get(condition, Style(COLOURS[7], "s", dashed=True))


@dataclass(frozen=True)
class Series:
    """One line. spans: ``(low, high)`` for each point, drawn as a bar; empty for none. level: a line across the whole
    figure at ``ys[0]``, without points. notes: a few words beside each point (from us, not from a run)."""

    label: str
    style: Style
    xs: Sequence[float]
    ys: Sequence[float]
    spans: Sequence[tuple[float, float]] = ()
    level: bool = False
    notes: Sequence[str] = ()


@dataclass(frozen=True)
class Figure:
    """A drawn figure with its legend, as the template shows it. about: what is seen, also for those who do not see."""

    title: str
    about: str
    svg: str
    legend: list[tuple[str, Style]]

    def numbered(self, number: int) -> str:
        """The SVG as the ``number``-th of its page: no two figures may share a name, also if they are the same."""
        return self.svg.replace(NAMED, f"figure-{number}-")


def draw(
    title: str,
    about: str,
    series: Sequence[Series],
    x_label: str,
    y_label: str,
    ticks: dict[float, str] | None = None,
    log_x: bool = False,
    wide_y: bool = False,
    floor: float | None = None,
    marks: Sequence[float] = (),
) -> Figure | None:
    """One figure; None where no series has a point that is a number.

    ticks: places on the x axis and what stands there. log_x: a logarithmic x axis. wide_y: a logarithmic y axis if the
    values span more than one serves. floor: where the y axis begins, if no value is below it. marks: places on the x
    axis that get a thin upright line.
    UserError: matplotlib is not installed.
    """
    try:
        from matplotlib import rc_context
        from matplotlib.figure import Figure as Canvas
    except ImportError:
        raise missing("matplotlib") from None
    series = [kept for one in series if (kept := _finite(one, log_x)).xs or kept.level]
    if not series:
        return None
    values = [y for one in series for y in one.ys]
    log_y = wide_y and min(values) > 0 and max(values) > 20 * min(values)
    ink, line = STAND_IN[INK], STAND_IN[LINE]
    settings: Any = {
        "svg.fonttype": "none", "svg.hashsalt": "latentwire", "font.size": 10, "axes.edgecolor": line,
        "grid.color": line,
        "axes.labelcolor": ink, "text.color": ink, "xtick.color": line, "ytick.color": line, "xtick.labelcolor": ink,
        "ytick.labelcolor": ink, "axes.spines.top": False, "axes.spines.right": False, "text.parse_math": False,
        "axes.formatter.use_mathtext": False,
    }  # fmt: skip
    with rc_context(settings):
        canvas = Canvas(figsize=SIZE, layout="constrained")
        axes = canvas.add_subplot()
        axes.grid(axis="y", linewidth=0.6)
        axes.set_axisbelow(True)
        for place in marks:
            axes.axvline(place, color=STAND_IN[COLOURS[4]], linewidth=0.9, linestyle=":")
        for number, one in enumerate(series):
            _line(axes, one, 10 + number)
        _scales(axes, log_x, log_y, series)
        if floor is not None and min(values) >= floor:
            top = axes.get_ylim()[1]
            axes.set_ylim(floor, top if max(values) > floor else floor + 1)
        if ticks:
            axes.set_xticks(list(ticks), list(ticks.values()))
            axes.set_xlim(min(ticks) - 0.4, max(ticks) + 0.4)
        axes.set_xlabel(x_label)
        axes.set_ylabel(y_label)
        file = io.StringIO()
        canvas.savefig(file, format="svg", transparent=True, metadata={"Date": None})
    legend = [(one.label, one.style) for one in series]
    return Figure(title, about, _inline(file.getvalue(), f"{title}: {about}"), list(dict.fromkeys(legend)))


def missing(package: str) -> UserError:
    """The error for a package of the extra that is not installed."""
    return UserError(f"a report needs the package {package}; install latentwire[report]")


def thinned(values: Sequence[float]) -> list[float]:
    """Means over equal stretches of a long line, so that no more than :data:`POINTS` are left."""
    size = -(-len(values) // POINTS) or 1
    parts = [values[start : start + size] for start in range(0, len(values), size)]
    return [sum(part) / len(part) for part in parts]


def _finite(one: Series, log_x: bool) -> Series:
    """The points that can be drawn, thinned where nothing hangs on single ones."""
    if one.level:
        return one
    kept = [
        place
        for place, (x, y) in enumerate(zip(one.xs, one.ys, strict=True))
        if math.isfinite(x) and math.isfinite(y) and (x > 0 or not log_x)
    ]
    xs, ys = [one.xs[place] for place in kept], [one.ys[place] for place in kept]
    if not one.spans and not one.notes:
        return replace(one, xs=thinned(xs), ys=thinned(ys))
    spans = [one.spans[place] for place in kept] if one.spans else []
    notes = [one.notes[place] for place in kept] if one.notes else []
    return replace(one, xs=xs, ys=ys, spans=spans, notes=notes)


def _scales(axes: Axes, log_x: bool, log_y: bool, series: Sequence[Series]) -> None:
    from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

    plain = FuncFormatter(lambda value, _: f"{value:,.0f}" if value >= 1 else f"{value:.4f}".rstrip("0"))
    for wanted, axis, set_scale, which in (
        (log_x, axes.xaxis, axes.set_xscale, "xs"),
        (log_y, axes.yaxis, axes.set_yscale, "ys"),
    ):
        if not wanted:
            continue
        set_scale("log")
        values = [value for one in series for value in getattr(one, which) if value > 0]
        # within a power of ten or two, powers of ten alone may leave an axis without a number
        near = bool(values) and max(values) < 200 * min(values)
        axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0) if near else (1.0,)))
        axis.set_major_formatter(plain)
        axis.set_minor_formatter(NullFormatter())
    if not log_x:
        axes.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=True))


def _line(axes: Axes, one: Series, order: int) -> None:
    colour, dash = STAND_IN[one.style.colour], "--" if one.style.dashed else "-"
    if one.level:
        axes.axhline(one.ys[0], color=colour, linewidth=1.1, linestyle=dash, zorder=order)
        return
    if one.spans:
        lows = [max(y - low, 0.0) for y, (low, _) in zip(one.ys, one.spans, strict=True)]
        highs = [max(high - y, 0.0) for y, (_, high) in zip(one.ys, one.spans, strict=True)]
        axes.errorbar(one.xs, one.ys, (lows, highs), fmt="none", ecolor=colour, elinewidth=1.0, alpha=0.55, zorder=9)
    # the only point of a line that has no markers would not be seen
    marker = one.style.marker or ("o" if len(one.xs) == 1 else "")
    axes.plot(
        one.xs, one.ys, color=colour, linewidth=1.6, linestyle=dash, marker=marker, markersize=4.5, zorder=order
    )  # fmt: skip
    for x, y, note in zip(one.xs, one.ys, one.notes or [""] * len(one.xs), strict=True):
        if note:
            axes.annotate(note, (x, y), (0, 6), textcoords="offset points", ha="center", fontsize=8, color=colour)


def _inline(svg: str, label: str) -> str:
    """An SVG file as a part of a page: names of its own, the page's colours and letters, no fixed size."""
    body = svg[svg.index("<svg") :]
    body = re.sub(r"<metadata>.*?</metadata>", "", body, flags=re.DOTALL)
    body = re.sub(r"<style[^>]*>.*?</style>", "", body, flags=re.DOTALL)  # it would hold for the whole page
    used = set(re.findall(r"#([\w-]+)", body))  # most names are used by nothing
    body = re.sub(r' id="([^"]+)"', lambda m: f' id="{NAMED}{m[1]}"' if m[1] in used else "", body)
    body = re.sub(r'(href="|url\()#', rf"\1#{NAMED}", body)
    body = re.sub(r"font-family: [^;\"]+", "font-family: inherit", body)
    for colour, stand_in in STAND_IN.items():
        body = body.replace(stand_in, colour)
    body = re.sub(r"\s+", " ", body).replace("> <", "><")
    # a hundredth of a point is enough for places, but not for the numbers that stand at an axis
    body = re.sub(r"<[^>]+>", lambda tag: re.sub(r"(\.\d\d)\d+", r"\1", tag[0]), body)
    head, rest = body.split(">", 1)
    box = re.search(r'viewBox="[^"]+"', head)
    assert box
    return f'<svg {box[0]} xmlns:xlink="http://www.w3.org/1999/xlink" role="img" aria-label="{escape(label)}">{rest}'
