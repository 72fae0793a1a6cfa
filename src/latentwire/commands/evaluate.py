"""``latentwire eval WIRE``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from latentwire.commands.options import DeviceOption, OutOption, SmokeOption, WireArgument, numbers, open_wire, words
from latentwire.errors import UserError


def evaluate(
    wire: WireArgument,
    data: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="SQuAD-shaped JSON or JSONL rows; the shipped SQuAD questions if left out."),
    ] = None,
    n: Annotated[
        int | None, typer.Option(min=1, help="This many questions, drawn by the seed; all if left out.")
    ] = None,
    ratio: Annotated[
        str | None, typer.Option(help="Ratios with commas between; all of the wire's, or of its codes, if left out.")
    ] = None,
    bits: Annotated[
        str | None,
        typer.Option(
            help="Bits per value of the packet, with commas between; 16 if neither these nor --codes are there."
        ),
    ] = None,
    codes: Annotated[
        str | None,
        typer.Option(
            help="Latents as so many learned codes (bytes) each, with commas between, if the wire has any; controls "
            "are asked of the first."
        ),
    ] = None,
    conditions: Annotated[
        str | None,
        typer.Option(help="What is given about the context, with commas between; `all`: also those that give vectors."),
    ] = None,
    receivers: Annotated[str | None, typer.Option(help="Receivers with commas between; all if left out.")] = None,
    joint: Annotated[
        str | None,
        typer.Option(
            metavar="CONDITIONS",
            help="Under these, all receivers weigh one another's answers as well, and the best mean score is taken.",
        ),
    ] = None,
    mode: Annotated[
        str, typer.Option(help="`context`: the question stays text. `prompt`: it is encoded too.")
    ] = "context",
    slots: Annotated[
        str | None,
        typer.Option(
            help="K/V positions for each latent, or `half` as many as it stands for tokens; the links' first."
        ),
    ] = None,
    gain: Annotated[
        float, typer.Option(help="What is injected is multiplied by it, say 0.5 to 4; 1: as the links were trained.")
    ] = 1.0,
    min_new_tokens: Annotated[int, typer.Option(help="An answer has at least so many tokens.")] = 0,
    max_new_tokens: Annotated[int, typer.Option(help="An answer has at most so many tokens.")] = 32,
    eos_ban_steps: Annotated[
        int,
        typer.Option(help="For so many steps the end token is forbidden; the larger of this and the minimum counts."),
    ] = 0,
    first_temperature: Annotated[
        float,
        typer.Option(help="The first token is drawn at this temperature, by the seed; 0: the likeliest is taken."),
    ] = 0.0,
    first_top_p: Annotated[
        float, typer.Option(help="The first token is drawn among the likeliest that have this probability together.")
    ] = 1.0,
    extract: Annotated[
        str,
        typer.Option(
            help="What of the text is the answer: `none` (all of it), `first-line`, `layout` (until it writes the "
            "prompt's own words)."
        ),
    ] = "none",
    seed: Annotated[int, typer.Option(help="Draws the questions and the controls.")] = 0,
    batch_size: Annotated[int, typer.Option(min=0, help="Questions read at a time; 0: what suits the device.")] = 0,
    device: DeviceOption = "auto",
    out: OutOption = None,
    smoke: SmokeOption = False,
) -> None:
    """Score a wire beside full text, no context and the controls, and print the table."""
    chosen_ratios = None if ratio is None else numbers("--ratio", ratio)
    chosen_bits = numbers("--bits", bits or "16") if bits or not codes else ()
    per_latent = slots if slots in (None, "half") else numbers("--slots", slots)[0]
    if smoke:
        n, chosen_bits = min(n or 4, 4), chosen_bits[:1]
    from latentwire.evaluation.decoding import Decoding

    # a slip in an option should not wait for models to load
    decoding = Decoding(min_new_tokens, max_new_tokens, eos_ban_steps, first_temperature, first_top_p, extract).check()
    from latentwire.config import config_hash
    from latentwire.data.rows import draw, read_examples
    from latentwire.data.squad import shipped_valid
    from latentwire.evaluation.runner import evaluate as run
    from latentwire.evaluation.table import print_table

    # the rows are read first: a slip in a file should not wait for models to load
    examples = draw(read_examples(data or shipped_valid()), n, seed)
    opened = open_wire(wire, device=device)
    known = opened.codes.config.ratios if codes and opened.codes is not None else []
    ratios = chosen_ratios or tuple(known or opened.ratios)
    # a row is named by its bits per value, and a code is a byte for all values of a latent
    coded = () if codes is None else numbers("--codes", codes)
    width = opened.settings.encoder.d_z
    if coded and 8 * max(coded) >= width:
        raise UserError(f"--codes {max(coded)}: that is a bit per value or more ({width} values); give --bits instead")
    all_bits = (*chosen_bits, *(8 * count / width for count in coded))
    if out is None:
        # a name of its own for everything that makes other results: a stopped run is found again, others never mixed
        changed = ({"gain": gain} if gain != 1 else {}) | decoding.changed()
        run_hash = config_hash(
            changed
            | {
                "encoder": opened.fingerprint.hex(),
                "ids": [e.id for e in examples],
                "mode": mode,
                "seed": seed,
                "slots": per_latent,
            }
        )
        out = Path("runs/eval") / f"{Path(wire).name}-{run_hash[:6]}"
    results = run(
        opened,
        examples,
        ratios=ratios[:1] if smoke else ratios,
        bits=all_bits,
        conditions=words(conditions),
        receivers=words(receivers),
        mode=mode,
        slots=per_latent,
        gain=gain,
        decoding=decoding,
        joint=words(joint) or (),
        seed=seed,
        batch_size=batch_size,
        out=out,
    )
    print_table(results)
    typer.echo(f"{out / 'results.json'} holds the table, predictions.jsonl beside it every answer.")
