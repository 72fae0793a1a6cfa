"""``serve`` and ``prompt-embeds``: a wire behind HTTP, and its packets for vLLM."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from latentwire.commands.options import (
    DeviceOption,
    ReceiversOption,
    WireArgument,
    chosen_receivers,
    open_packet,
    open_wire,
)
from latentwire.errors import UserError

KEYS = "LATENTWIRE_API_KEYS"


def serve(
    wire: WireArgument,
    host: Annotated[str, typer.Option(help="Address to listen on; 0.0.0.0 for all of the machine's.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port to listen on; 0 for any that is free.")] = 8000,
    receiver: ReceiversOption = None,
    api_key: Annotated[
        list[str] | None,
        typer.Option(
            "--api-key", metavar="KEY",
            help=f"A key that clients have to send; may be given several times. {KEYS} (commas between) does not show "
            "in the list of processes.",
        ),
    ] = None,
    device: DeviceOption = "auto",
    max_batch: Annotated[int, typer.Option(min=1, help="Prompts or texts computed together.")] = 32,
    max_waiting: Annotated[int, typer.Option(min=1, help="Prompts or texts that may wait, then 429.")] = 256,
    max_tokens: Annotated[int, typer.Option(min=1, help="Tokens of an answer.")] = 256,
    max_latents: Annotated[int, typer.Option(min=1, help="Latents of a context.")] = 8192,
    max_inputs: Annotated[int, typer.Option(min=1, help="Texts or prompts of one request.")] = 64,
    prefix_cache: Annotated[
        int,
        typer.Option(min=0, metavar="MB", help="Megabytes of keys and values kept of contexts already read; 0: none."),
    ] = 1024,
    max_body: Annotated[int, typer.Option(min=1, metavar="MB", help="Megabytes of a request.")] = 16,
    grace: Annotated[
        int, typer.Option(min=0, metavar="SECONDS", help="How long answers may take once it should end.")
    ] = 60,
    graphs: Annotated[
        bool, typer.Option(help="Decode by recorded CUDA graphs; the first request of each shape waits for its own.")
    ] = False,
) -> None:  # fmt: skip
    """Serve a wire over HTTP: OpenAI-shaped requests with latents in them, and a page to try it in a browser."""
    keys = [*(api_key or ()), *(key.strip() for key in os.environ.get(KEYS, "").split(",") if key.strip())]
    if "" in keys:
        raise UserError("--api-key is empty; give a key, or leave the option out")
    try:
        from latentwire.serving.server import run
    except ModuleNotFoundError as error:
        raise UserError(
            f"serving needs {error.name}, which is not installed; pip install 'latentwire[serve]'"
        ) from None
    from latentwire.receivers.recorded import on_one_gpu
    from latentwire.serving.limits import Limits
    from latentwire.serving.service import Service

    opened = open_wire(wire, device=device)
    limits = Limits(
        body=max_body << 20, waiting=max_waiting, batch=max_batch, inputs=max_inputs, latents=max_latents,
        tokens=max_tokens, prefixes=prefix_cache << 20,
    )  # fmt: skip
    service = Service(opened, chosen_receivers(opened, receiver), limits)
    for name in service.names if graphs else ():
        opened.get_receiver(name).record()
        if not on_one_gpu(opened.get_receiver(name)):
            typer.echo(f"warning: --graphs needs one GPU and plain weights; {name} decodes the ordinary way", err=True)

    def ready(address: str) -> None:
        typer.echo(f"{wire} on {address}, models {', '.join(service.names)}. Ctrl-C ends it.")
        typer.echo(f"Browsers: {address}/   OpenAI clients: {address}/v1")
        if not keys and host not in ("127.0.0.1", "::1", "localhost"):
            typer.echo(f"warning: everybody who reaches {host} may ask; set {KEYS}", err=True)

    run(service, host, port, keys, grace, ready)


def prompt_embeds(
    wire: WireArgument,
    packet: Annotated[Path, typer.Argument(metavar="PACKET", help="A packet that `latentwire encode` wrote.")],
    receiver: Annotated[str, typer.Option("--receiver", "-r", metavar="R", help="The model that vLLM serves.")],
    question: Annotated[
        str | None,
        typer.Option(
            "--question", "-q", help="Make it a whole prompt, for /v1/completions; else latents alone, for a chat.",
        ),
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="FILE", help="Write the bytes; else base64 on stdout.")
    ] = None,
    slots: Annotated[
        int | None, typer.Option(min=1, help="Vectors for each latent; what the link gives first if left out.")
    ] = None,
    dtype: Annotated[str | None, typer.Option(help="float32, bfloat16 or float16; the receiver's if left out.")] = None,
) -> None:  # fmt: skip
    """Turn a packet into what vLLM takes as `prompt_embeds`; for links that inject by soft tokens."""
    received = open_packet(packet)
    from latentwire.serving import embeds

    if dtype is not None and dtype not in embeds.DTYPES:
        raise UserError(f"--dtype is one of {', '.join(embeds.DTYPES)}, not {dtype!r}")
    opened = open_wire(wire)
    name = chosen_receivers(opened, [receiver])[0]
    vectors = embeds.prompt_embeds(opened, name, received, question, slots, dtype)
    if output is None:
        typer.echo(embeds.payload_text(vectors))
        return
    data = embeds.payload(vectors)
    output.write_bytes(data)
    typer.echo(
        f"{output}: {len(data)} bytes, {vectors.shape[0]} vectors of {vectors.shape[1]} {str(vectors.dtype)[6:]} values"
    )
