"""What a figure leaves out, and the numbers at its axes."""

from __future__ import annotations

import math
import re

import pytest

from latentwire.experiments.figures import POINTS, Figure, Series, Style, draw, thinned


def drawn(*series, **given) -> Figure:
    figure = draw("title", "about", series, "x", "y", **given)
    assert figure
    return figure


def words(figure: Figure) -> list[str]:
    return re.findall(r"<text[^>]*>([^<]*)</text>", figure.svg)


def test_what_is_no_number_is_not_drawn():
    assert draw("t", "a", [], "x", "y") is None
    assert draw("t", "a", [Series("a", Style(), [1, 2], [math.nan, math.inf])], "x", "y") is None
    figure = drawn(Series("a", Style(), [1, 2, 3], [1.0, math.nan, 3.0]), Series("empty", Style(), [], []))
    assert [label for label, _ in figure.legend] == ["a"]


def test_a_long_line_keeps_its_mean_and_few_points():
    values = [float(number) for number in range(16 * POINTS)]
    short = thinned(values)
    assert len(short) == POINTS and sum(short) / POINTS == pytest.approx(sum(values) / len(values))
    assert thinned([1.0, 2.0]) == [1.0, 2.0] and thinned([]) == []
    long = Series("a", Style(), values, values)
    assert len(drawn(long).svg) < 16_000


def test_numbers_at_the_axes_are_whole():
    # places are rounded to hundredths, the numbers beside them are not
    shown = words(drawn(Series("a", Style(), [1, 2], [0.0, 0.018]), floor=0.0))
    assert "0.0025" in shown and "0.0175" in shown


def test_an_axis_is_logarithmic_where_that_serves():
    narrow = words(drawn(Series("a", Style(), [1, 2], [2.0, 9.0]), wide_y=True))
    wide = words(drawn(Series("a", Style(), [1, 2], [0.3, 90.0]), wide_y=True))
    assert {"4", "5"} <= set(narrow) and {"1", "10"} <= set(wide) and "4" not in wide


def test_all_at_the_floor_still_has_an_axis():
    assert "0.0" in words(drawn(Series("a", Style(), [1, 2], [0.0, 0.0]), floor=0.0))


def test_the_same_figure_is_the_same_text():
    one, other = (drawn(Series("a", Style(), [1, 2], [3, 4])) for _ in range(2))
    assert one.svg == other.svg
