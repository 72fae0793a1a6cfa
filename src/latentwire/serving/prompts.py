"""From chats and completions to prompts.

A receiver's layout has one context and one question (see ``latentwire.prompt``), and nothing else builds prompts. So
the parts of a request are sorted by what they are, not by where they stand: latents, or the text of a system message,
are the context; the user's text is the question.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch

from latentwire.packets import Packet
from latentwire.serving.answering import AnswerJob
from latentwire.serving.contexts import joined
from latentwire.serving.encoding import too_long
from latentwire.serving.errors import invalid
from latentwire.serving.schema import ChatRequest, CompletionRequest, LatentPart, Message, Part, Sampling
from latentwire.serving.service import Service, Tell, numbered

TOKENS = 32
"""Tokens of an answer at most, if a request does not say; as in evaluation."""


@dataclass(frozen=True)
class Asked:
    """One prompt, sorted: packets in their order (or a text, or nothing) as the context, and the question."""

    question: str
    packets: tuple[Packet, ...] = ()
    context: str = ""


def chat_jobs(service: Service, request: ChatRequest, tell: Tell) -> list[AnswerJob]:
    """The one prompt of a chat."""
    name = service.known(request.model)
    return [
        answer_job(service, name, of_messages(service, request.messages), request, request.max_completion_tokens, tell)
    ]


def completion_jobs(service: Service, request: CompletionRequest, tell: Tell) -> list[AnswerJob]:
    """A job for each prompt."""
    name = service.known(request.model)
    return [
        answer_job(service, name, of_parts(service, parts, param), request, None, tell, number)
        for number, (parts, param) in enumerate(prompts_of(request))
    ]


def of_messages(service: Service, messages: Sequence[Message]) -> Asked:
    """A chat as context and question."""
    user = [number for number, message in enumerate(messages) if message.role == "user"]
    for number, message in enumerate(messages):
        if message.role not in ("user", "system", "developer"):
            raise invalid(
                f"a message of role {message.role!r} cannot be read: receivers answer one question, not a "
                "conversation; send the system message (optional) and one user message",
                f"messages.{number}.role",
            )
    if len(user) != 1:
        raise invalid(f"there are {len(user)} user messages; receivers answer one question at a time", "messages")
    asked = of_parts(service, messages[user[0]].content, f"messages.{user[0]}.content")
    system = [
        of_parts(service, message.content, f"messages.{number}.content", "system")
        for number, message in enumerate(messages)
        if message.role != "user"
    ]
    context = "\n".join(part.question for part in system if part.question).strip()
    if context and asked.packets:
        raise invalid(
            "a system message is the context as text, and latents are the context already; send one of them",
            "messages",
        )
    return replace(asked, context=context)


def of_parts(service: Service, content: str | Sequence[Part], param: str, role: str = "user") -> Asked:
    """Parts sorted into packets and words."""
    if isinstance(content, str):
        return Asked(content.strip())
    words, packets = [], []
    for number, part in enumerate(content):
        if not isinstance(part, LatentPart):
            words.append(part.text)
        elif role == "system":
            raise invalid("latents stand in the user message", f"{param}.{number}")
        else:
            packets.append(service.packet(part.latent, f"{param}.{number}.latent"))
    return Asked("\n".join(words).strip(), tuple(packets))


def answer_job(
    service: Service, name: str, asked: Asked, request: Sampling, most: int | None, tell: Tell, number: int = 0
) -> AnswerJob:
    """A prompt that fits the receiver's window. ApiError: it does not, or there is nothing to answer."""
    receiver, slots = service.wire.get_receiver(name), service.slots(name, request.slots)
    layout = receiver.prompt
    packet = joined(service.wire, asked.packets) if asked.packets else None
    held = packet is not None and packet.mode == "prompt"
    if held and asked.question:
        raise invalid("the packet holds its question already; send no text beside it", "messages")
    if not held and not asked.question:
        raise invalid("there is no question; add a text part that asks one", "messages")
    if packet is not None and len(packet.z_MD) > service.limits.latents:
        raise too_long(len(packet.z_MD), service.limits.latents)
    window = receiver.geometry.window
    if len(asked.question) > 32 * window or len(asked.context) > 32 * window:
        raise invalid(f"the text is longer than the window of {name!r} ({window})", code="context_length_exceeded")
    tail = layout.anchor_ids() if held else layout.question_ids([asked.question])[0]
    context = layout.context_ids([asked.context])[0] if packet is None else []
    start = receiver.head().mask_BM.shape[1] + len(context)
    if packet is not None:
        with torch.no_grad():
            latents = service.wire.encoder.part(service.wire.latents([packet]), name)
            start = int(service.wire.links[name].place([latents], receiver, slots)[1])  # ty: ignore[not-callable]
    return AnswerJob(
        tell=numbered(tell, number), wire=service.wire, receiver=name, packet=packet, context=context, tail=tail,
        most=room(service, name, window - start - len(tail), most or request.max_tokens),
        temperature=request.temperature or 0.0, seed=request.seed or 0, stops=request.stops,
        slots=slots, stream=bool(request.stream), kept=service.prefixes,
        among=asked.packets, best=request.best or len(asked.packets),
    )  # fmt: skip


def room(service: Service, name: str, left: int, asked: int | None) -> int:
    """Tokens that an answer may have. ApiError: more were asked for, or nothing is left for one."""
    if asked is not None and asked > service.limits.tokens:
        raise invalid(f"max_tokens is at most {service.limits.tokens} on this server, not {asked}", "max_tokens")
    if left < (asked or 1):
        raise invalid(
            f"behind context and question the window of {name!r} has room for {max(left, 0)} tokens of an answer; "
            "ask for fewer, shorten the question, or send the text as a packet",
            "max_tokens" if left > 0 else "messages",
            "context_length_exceeded",
        )
    return asked or min(TOKENS, service.limits.tokens, left)


def prompts_of(request: CompletionRequest) -> list[tuple[str | Sequence[Part], str]]:
    """Each prompt of a request and the name of its place."""
    given = request.prompt
    if isinstance(given, str):
        return [(given, "prompt")]
    if given and not isinstance(given[0], str | list):
        return [(given, "prompt")]  # ty: ignore[invalid-explicit-return]
    return [(each, f"prompt.{number}") for number, each in enumerate(given)]  # ty: ignore[invalid-explicit-return]
