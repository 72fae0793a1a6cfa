"""What a report shows of a training: how far it came, its curves, and what the collapse watch saw."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from latentwire.experiments.figures import COLOURS, INK, Figure, Series, Style, draw
from latentwire.experiments.runs import Training

LOOKS = ("distinct", "token", "variety")  # of the first answer tokens, beside a receiver's losses
MEASURES = ("right", "cosine")  # figures that stand beside a loss and are none
KNOWN = ("step", "source", "event", "receiver", "words", "halved", "share", "token", "variety", "loss")

Line = dict[str, Any]


def figures(run: Training) -> list[Figure]:
    """All curves that the files have points for."""
    steps, dev, looks = run.of("text", "questions"), run.of("dev"), run.diagnostics
    marks = [event["step"] for event in events(run)]
    found = [_whole(run, marks)]
    for name in receivers(run):
        for title, about, lines, wanted in (
            ("losses", "Each loss of this receiver, by step", steps, _is_loss),
            ("losses aside", "Each loss of this receiver on the slice kept aside, by step", dev, _is_loss),
            ("targets predicted", "Share of targets that are the most likely token, by step", steps, _is_right),
        ):
            found.append(_curves(f"{name}: {title}", about, name, lines, wanted, marks))
    found += [first_tokens(run, marks), dominance(run, marks), scales(looks), gradients(looks), predictions(looks)]
    return [figure for figure in found if figure]


def receivers(run: Training) -> list[str]:
    """Names of those that have losses, sorted."""
    keys = {key for line in run.of("text", "questions", "dev") for key in line}
    named = {key.split("/")[0] for key in keys if "/" in key and not key.startswith("gate/")}
    return sorted(named | {name for line in run.diagnostics for name in line.get("receivers", {})})


def events(run: Training) -> list[dict[str, Any]]:
    """What happened beside the steps: ``step``, ``event``, ``receiver`` and ``words``, in order."""
    found = []
    for line in run.of("event"):
        words = line.get("words") or ", ".join(f"{key}: {value}" for key, value in line.items() if key not in KNOWN)
        if halved := line.get("halved"):
            words += f"; weights halved: {', '.join(f'{name} to {factor:g}' for name, factor in halved.items())}"
        found.append(
            {"step": line["step"], "event": line.get("event", ""), "receiver": line.get("receiver"), "words": words}
        )
    return found


def facts(run: Training) -> list[tuple[str, str, str]]:
    """How far it came and how fast it went, as ``(what, the file's JSON, how it is read)``."""
    steps, dev = run.of("text", "questions"), [line for line in run.of("dev") if "smoothed" in line]
    found = []
    if steps:
        last = steps[-1]
        for key, what, write in (
            ("step", "steps", lambda v: f"{v:,}"),
            ("loss", "last loss", lambda v: f"{v:.3f}"),
            ("seconds", "minutes", lambda v: f"{v / 60:.1f}"),
            ("rows_per_second", "rows per second", lambda v: f"{v:,.0f}"),
            ("utilisation", "utilisation", lambda v: f"{100 * v:.0f} %"),
            ("skipped", "steps skipped", str),
        ):
            if last.get(key) is not None:
                found.append((what, json.dumps(last[key]), write(last[key])))
    if dev:
        best = min(dev, key=lambda line: line["smoothed"])
        found.append(("lowest smoothed loss aside", json.dumps(best["smoothed"]), f"{best['smoothed']:.3f}"))
        found.append(("at step", json.dumps(best["step"]), f"{best['step']:,}"))
    return found


def _whole(run: Training, marks: Sequence[float]) -> Figure | None:
    """The loss of all objectives together, of steps of text and of questions apart, and aside."""
    lines = (
        Series("text", Style(COLOURS[2]), *_points(run.of("text"), lambda line: line.get("loss"))),
        Series("questions", Style(COLOURS[0]), *_points(run.of("questions"), lambda line: line.get("loss"))),
        Series("aside", Style(INK, "o"), *_points(run.of("dev"), lambda line: line.get("answer"))),
        Series("aside, smoothed", Style(INK, dashed=True), *_points(run.of("dev"), lambda line: line.get("smoothed"))),
    )
    about = "The weighted loss of steps of text and of questions; on the slice kept aside that of the answers alone"
    return draw("Loss", about, lines, "step", "loss", wide_y=True, marks=marks)


def _is_loss(key: str) -> bool:
    return key.split("@", 1)[0].rsplit("/", 1)[-1] not in (*LOOKS, *MEASURES)


def _is_right(key: str) -> bool:
    return key.endswith("/right")


def _curves(
    title: str, about: str, name: str, lines: Sequence[Line], wanted: Callable[[str], bool], marks: Sequence[float]
) -> Figure | None:
    """A line for each key ``NAME/…`` that is wanted: losses, or shares."""
    keys = dict.fromkeys(key for line in lines for key in line if key.startswith(f"{name}/") and wanted(key))
    series = [
        Series(key.removeprefix(f"{name}/"), _nth(number), *_points(lines, lambda line, key=key: line.get(key)))
        for number, key in enumerate(keys)
    ]
    if wanted is _is_loss:
        return draw(title, about, series, "step", "loss", wide_y=True, marks=marks)
    return draw(title, about, series, "step", "share", floor=0.0, marks=marks)


def first_tokens(run: Training, marks: Sequence[float]) -> Figure | None:
    """Accuracy of the first answer token, from diagnostics."""
    series = []
    for number, name in enumerate(receivers(run)):
        for key, label, dashed in (("at1", "first", False), ("at5", "among five", True)):
            points = _points(run.diagnostics, _of_receiver(name, "first", key))
            series.append(Series(f"{name}, {label}", Style(COLOURS[number % 8], dashed=dashed), *points))
    about = "Share of questions whose right first answer token is the most likely one, and among the five most likely"
    return draw("First-token accuracy", about, series, "step", "share", floor=0.0, marks=marks)


def dominance(run: Training, marks: Sequence[float]) -> Figure | None:
    """Share of the most frequent prediction among the first answer tokens: what the collapse watch looks at."""
    lines = run.of("questions")
    series = [
        Series(name, _nth(number), *_points(lines, lambda line, key=f"{name}/distinct": line.get(key)))
        for number, name in enumerate(receivers(run))
    ]
    about = "Share of the most frequent first answer token, by step of questions; near 1 the wire has collapsed"
    return draw("Most frequent first token", about, series, "step", "share", floor=0.0, marks=marks)


def scales(lines: Sequence[Line]) -> Figure | None:
    """Root mean squares of latents, of each link's slots, and of the receiver's own embeddings."""
    latents = _points(lines, lambda line: line.get("latents", {}).get("rms"))
    series = [Series("latents", Style(INK), *latents)]
    for number, name in enumerate(_looked_at(lines)):
        for key, label, dashed in (("slot_rms", "slots", False), ("embedding_rms", "embeddings", True)):
            style = Style(COLOURS[number % 8], dashed=dashed)
            series.append(Series(f"{name}, {label}", style, *_points(lines, _of_receiver(name, key))))
    about = "Root mean square per channel of latents, of the slots made from them, and of the receiver's own words"
    return draw("Latent norms", about, series, "step", "RMS", wide_y=True)


def gradients(lines: Sequence[Line]) -> Figure | None:
    """Norm of the gradient in each part of the wire."""
    parts = [(line["step"], line.get("gradients", {}).get("features", {})) for line in lines]
    names = dict.fromkeys(name for _, part in parts for name in part)
    series = []
    for number, name in enumerate(names):
        found = [(step, part[name]) for step, part in parts if name in part]
        series.append(Series(name, _nth(number), [step for step, _ in found], [value for _, value in found]))
    return draw("Gradients", "Norm of the gradient by part, before it is clipped", series, "step", "norm", wide_y=True)


def predictions(lines: Sequence[Line]) -> Figure | None:
    """Entropy of the first answer token's distribution."""
    series = [
        Series(name, _nth(number), *_points(lines, _of_receiver(name, "first", "entropy")))
        for number, name in enumerate(_looked_at(lines))
    ]
    return draw("Entropy", "Mean entropy of the first answer token, in nats", series, "step", "nats", floor=0.0)


def favourites(run: Training) -> list[tuple[str, int, int, list[tuple[str, int]]]]:
    """What each receiver predicts most as the first answer token in the last line of diagnostics that says so:
    ``(receiver, step, rows, [(token, count)])``."""
    found = {}
    for line in run.diagnostics:
        for name, seen in line.get("receivers", {}).items():
            if first := seen.get("first"):
                top = [(text, count) for _, count, text in first.get("predicted", [])]
                found[name] = (name, line["step"], first["rows"], top)
    return [found[name] for name in sorted(found)]


def _looked_at(lines: Iterable[Line]) -> list[str]:
    return sorted({name for line in lines for name in line.get("receivers", {})})


def _of_receiver(name: str, *path: str) -> Callable[[Line], Any]:
    def read(line: Line) -> Any:
        node: Any = line.get("receivers", {}).get(name, {})
        for key in path:
            node = node.get(key) if isinstance(node, dict) else None
        return node

    return read


def _points(lines: Iterable[Line], read: Callable[[Line], Any]) -> tuple[list[float], list[float]]:
    found = [(line["step"], value) for line in lines if isinstance(value := read(line), (int, float))]
    return [step for step, _ in found], [value for _, value in found]


def _nth(number: int) -> Style:
    """The style of the nth of many lines: colours first, then the same ones dashed."""
    return Style(COLOURS[number % 8], dashed=number // 8 % 2 == 1)
