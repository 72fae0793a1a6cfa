"""The demo: passages, their packets, and what two different frozen models answer from both; then an honest score.

Nothing shown here was picked by its result: the passages and the questions are drawn by a seed from the part of SQuAD
that no reader and no wire was trained on, and every answer from a packet goes through the bytes that would be sent.
"""

from __future__ import annotations

import random
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from rich import box
from rich.console import Console, Group
from rich.markup import escape
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from latentwire.data.rows import read_examples
from latentwire.data.squad import article, shipped_valid
from latentwire.errors import UserError
from latentwire.evaluation.metrics import f1
from latentwire.packets import Packet

if TYPE_CHECKING:
    from latentwire.reading import Reading
    from latentwire.types import Example
    from latentwire.wire import Wire

SHOWN = ("llama", "qwen2")
"""The sandbox's main readers: of different families, with different tokenizers."""
PASSAGES, QUESTIONS = 3, 2
RATIOS, BITS = (4, 8), 8
OUT = Path("runs/demo")


@dataclass(frozen=True)
class Passage:
    """A text with questions about it, each with the answers that count as right (none where nobody knows them)."""

    title: str
    text: str
    questions: list[tuple[str, tuple[str, ...]]]


def run(n: int = 100, seed: int = 0, out: Path | None = None, smoke: bool = False) -> dict:
    """Show passages, score ``n`` drawn questions at 4× and 8× beside text and controls, write ``out/results.json``.

    Returns the results. out: ``runs/demo`` if None, which every demo begins anew. smoke: one passage and one ratio.
    """
    from latentwire.evaluation.runner import PREDICTIONS, RESULTS, evaluate
    from latentwire.evaluation.table import print_table

    console = Console()
    started = time.perf_counter()
    examples = read_examples(shipped_valid())
    wire = _open(console)
    receivers = shown_receivers(wire)
    for passage in drawn_passages(examples, 1 if smoke else PASSAGES, seed):
        show_passage(console, wire, passage, ratio=wire.ratios[0], receivers=receivers)
    ratios = [ratio for ratio in RATIOS if ratio in wire.ratios] or list(wire.ratios)
    chosen = random.Random(seed).sample(examples, min(n, len(examples)))
    console.rule(f"{len(chosen)} unseen questions, text and controls, {' and '.join(f'{r}×' for r in ratios)}")
    if out is None:
        out = OUT
        # an evaluation goes on where an earlier one ended; a demo should be seen to work each time
        for name in (RESULTS, PREDICTIONS):
            (out / name).unlink(missing_ok=True)
    results = evaluate(
        wire, chosen, ratios=ratios[:1] if smoke else ratios, bits=(BITS,), receivers=receivers, seed=seed, out=out
    )
    print_table(results)
    console.print(
        f"[dim]{out / RESULTS} holds the table, {PREDICTIONS} beside it every answer. "
        f"{time.perf_counter() - started:.0f} s in all.[/]"
    )
    console.print("Your own paragraph: [bold]latentwire demo --text my.txt --question 'Who …?'[/]")
    return results


def run_own(text: str, questions: Sequence[str]) -> None:
    """Show one text of a person's own, with their questions."""
    console = Console()
    wire = _open(console)
    passage = Passage("your text", text, [(question, ()) for question in questions])
    for ratio in [ratio for ratio in RATIOS if ratio in wire.ratios] or wire.ratios:
        show_passage(console, wire, passage, ratio=ratio, receivers=shown_receivers(wire))


def _open(console: Console) -> Wire:
    from latentwire.wire import Wire

    with console.status("Loading the frozen readers and the wire between them …"):
        return Wire.from_pretrained("sandbox")


def shown_receivers(wire: Wire) -> list[str]:
    """The main readers, or all where a wire has others."""
    names = list(wire.receivers)
    return [name for name in SHOWN if name in names] or names


def drawn_passages(examples: Iterable[Example], n: int, seed: int) -> list[Passage]:
    """``n`` passages with their first questions, each of another article, drawn by the seed and not by any result."""
    by_context: dict[str, list[Example]] = {}
    for example in examples:
        by_context.setdefault(example.context, []).append(example)
    # passages of a screen's size, so that text, packet and answers are seen together
    fitting = [rows for text, rows in by_context.items() if 350 <= len(text) <= 800 and len(rows) >= QUESTIONS]
    if len(fitting) < n:
        raise UserError(f"the demo shows {n} passages of 350 to 800 characters; this data has {len(fitting)}")
    drawn: dict[str, Passage] = {}
    for rows in random.Random(seed).sample(fitting, len(fitting)):
        title = article(rows[0].id).replace("_", " ")
        drawn.setdefault(
            title, Passage(title, rows[0].context, [(row.question, row.answers) for row in rows[:QUESTIONS]])
        )
        if len(drawn) == n:
            break
    return list(drawn.values())


def show_passage(
    console: Console, wire: Wire, passage: Passage, ratio: int, receivers: Sequence[str], bits: int = BITS
) -> None:
    """Print one passage: its text, its packet's size, and each receiver's answers from the text and from the packet.

    ratio: tokens of the encoder per latent. bits: per value of the packet, which is encoded once, written to bytes and
    read back before any receiver sees it.
    """
    with console.status("Encoding once, answering from the text and from the packet …"):
        data = wire.encode([passage.text], ratio=ratio)[0].to_bytes(bits=bits)
        packet = Packet.from_bytes(data, encoder=wire.fingerprint)
        table = _answers(wire, passage, packet, receivers)
    text_bytes = len(passage.text.encode())
    sizes = Text.assemble(
        ("text    ", "dim"), f"{text_bytes:>6,} bytes  {packet.source_tokens:>4} tokens\n",
        ("packet  ", "dim"), f"{len(data):>6,} bytes  {len(packet.z_MD):>4} latents",
        (f" of {packet.z_MD.shape[1]} values at {bits} bits, {ratio} tokens each", "dim"),
    )  # fmt: skip
    body = Group(_shortened(passage.text), Text(), sizes, Text(), table)
    console.print(Panel(body, title=f"[bold]{escape(passage.title)}[/]", title_align="left", box=box.ROUNDED))


def _answers(wire: Wire, passage: Passage, packet: Packet, receivers: Sequence[str]) -> Group:
    """A small table per question, one row per receiver; the columns of all of them line up."""
    questions = [question for question, _ in passage.questions]
    readings = {name: wire.receiver(name) for name in receivers}
    from_text = {name: [_answer(reading, passage.text, q) for q in questions] for name, reading in readings.items()}
    from_packet = {name: reading.generate(packet, questions) for name, reading in readings.items()}
    parts: list[Text | Table] = []
    for index, (question, answers) in enumerate(passage.questions):
        known = ("  right: " + answers[0], "dim") if answers else ""
        parts.append(Text.assemble((question, "bold"), known))
        table = Table(box=None, expand=True, padding=(0, 1), show_header=index == 0, header_style="dim")
        table.add_column("", width=max(map(len, receivers)), style="cyan")
        table.add_column("from the text", ratio=1)
        table.add_column("from the packet", ratio=1)
        for name in receivers:
            table.add_row(name, _marked(from_text[name][index], answers), _marked(from_packet[name][index], answers))
        parts.append(table)
    return Group(*parts)


def _shortened(text: str, longest: int = 1200) -> Text:
    """A text as it is shown: a long one by its beginning, so that the answers stay on the screen."""
    if len(text) <= longest:
        return Text(text)
    return Text.assemble(text[:longest].rsplit(" ", 1)[0], (f" … ({len(text):,} characters in all)", "dim"))


def _answer(reading: Reading, text: str, question: str) -> str:
    try:
        return reading.answer(text, question)
    except UserError:
        # a text may be longer than a small reader's window; its packet can still be read, and is worth showing
        return "(too long for its window)"


def _marked(answer: str, answers: tuple[str, ...]) -> Text:
    """An answer, green where it is right, yellow where it shares words with a right one."""
    if not answers:
        return Text(answer or "–")
    score = f1(answer, answers)
    return Text(answer or "–", style="green" if score == 1 else "yellow" if score > 0 else "red")
