"""From requests to jobs: whatever can be wrong with a request is found here, before it waits for anything.

A receiver's layout has one context and one question (see ``latentwire.prompt``), and nothing else builds prompts. So
the parts of a request are sorted by what they are, not by where they stand: latents, or the text of a system message,
are the context; the user's text is the question.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch

from latentwire.codecs import Codec
from latentwire.errors import UserError
from latentwire.packets import Packet
from latentwire.serving.answering import AnswerJob
from latentwire.serving.embeds import EmbedsJob, check
from latentwire.serving.encoding import EncodeJob, too_long
from latentwire.serving.engine import Engine
from latentwire.serving.errors import ApiError, invalid
from latentwire.serving.limits import Limits
from latentwire.serving.metrics import Metrics
from latentwire.serving.schema import (
    ChatRequest,
    CompletionRequest,
    LatentData,
    LatentPart,
    LatentsRequest,
    Message,
    Part,
    PromptEmbedsRequest,
    Sampling,
)

if TYPE_CHECKING:
    from latentwire.wire import Wire

Tell = Callable[[int, Any], None]
"""Called with the number of a job among those of its request, and with what it says."""

TOKENS = 32
"""Tokens of an answer at most, if a request does not say; as in evaluation."""


@dataclass(frozen=True)
class Asked:
    """One prompt, sorted: packets in their order (or a text, or nothing) as the context, and the question."""

    question: str
    packets: tuple[Packet, ...] = ()
    context: str = ""


class Service:
    """A wire with the receivers that are served, its engine, and its bounds. Methods of preparation run one at a time,
    in a thread that is not the event loop's: tokenising a long text takes a while."""

    def __init__(self, wire: Wire, names: Sequence[str] | None = None, limits: Limits | None = None) -> None:
        self.wire, self.names = wire, list(names or wire.receivers)
        self.limits = limits or Limits()
        self.metrics = Metrics()
        self.engine = Engine(self.limits, self.metrics)

    def models(self) -> list[dict[str, Any]]:
        """What each receiver is and can do."""
        shared = {
            "encoder": self.wire.fingerprint.hex(),
            "ratios": list(self.wire.ratios),
            "bits": sorted({kind.bits for kind in Codec.known().values()}, reverse=True),
        }
        found = []
        for name in self.names:
            config, geometry = self.wire.settings.links[name], self.wire.get_receiver(name).geometry
            own = {
                "family": geometry.family,
                "window": geometry.window,
                "slots": list(config.adapter.slots),
                "prompt_embeds": config.injection.only_vectors and config.lora is None,
            }
            found.append(
                {"id": name, "object": "model", "created": 0, "owned_by": "latentwire", "latentwire": own | shared}
            )
        return found

    def known(self, model: str) -> str:
        """The receiver of that name. ApiError 404: there is none."""
        if model not in self.names:
            raise ApiError(
                404, f"there is no model {model!r}; this wire's receivers are {', '.join(self.names)}",
                "model_not_found", "model",
            )  # fmt: skip
        return model

    # -- packets and texts ------------------------------------------------------------------------------------------

    def packet(self, given: LatentData, param: str) -> Packet:
        """A packet of this wire. ApiError: it is none, is damaged, too large, or of another wire."""
        try:
            data = base64.b64decode(given.data, validate=True)
        except (binascii.Error, ValueError):
            raise invalid(f"{param}.data is not base64", f"{param}.data", "bad_base64") from None
        if given.format is not None and given.format != form(data):
            raise invalid(
                f"{param}.format is {given.format!r}, the data begins as {form(data)!r}; leave the format out",
                f"{param}.format",
            )
        try:
            packet = Packet.from_bytes(data, encoder=self.wire.fingerprint)
            self.wire.encoder.check_ratio(packet.ratio)
        except UserError as error:
            raise invalid(str(error), f"{param}.data", "invalid_packet") from None
        m, d = packet.z_MD.shape
        if d != self.wire.settings.encoder.d_z:
            raise invalid(
                f"a latent of this packet has {d} values, of this wire {self.wire.settings.encoder.d_z}",
                f"{param}.data", "invalid_packet",
            )  # fmt: skip
        if m > self.limits.latents:
            raise invalid(
                f"the packet has {m} latents, more than the {self.limits.latents} that this server takes",
                f"{param}.data", "context_length_exceeded",
            )  # fmt: skip
        return packet

    def encode_jobs(self, request: LatentsRequest, tell: Tell) -> list[EncodeJob]:
        """A job for each text."""
        if request.model is not None:
            self.known(request.model)
        texts = [request.input] if isinstance(request.input, str) else request.input
        ratio = self.wire.ratios[0] if request.ratio is None else request.ratio
        try:
            self.wire.encoder.check_ratio(ratio)
        except UserError as error:
            raise invalid(str(error), "ratio") from None
        if request.bits not in (bits := {kind.bits for kind in Codec.known().values()}):
            raise invalid(f"bits is one of {', '.join(map(str, sorted(bits)))}, not {request.bits}", "bits")
        given = request.question
        asked = [given] * len(texts) if given is None or isinstance(given, str) else given
        if len(asked) != len(texts):
            raise invalid(f"{len(texts)} texts but {len(asked)} questions; give one for each", "question")
        jobs = []
        for number, (text, question) in enumerate(zip(texts, asked, strict=True)):
            if not text.strip():
                raise invalid(f"text {number} is empty; there is nothing to encode", "input")
            # more than any tokenizer makes of a token: this long it need not even be counted
            if len(text) + len(question or "") > 16 * ratio * self.limits.latents:
                raise too_long(len(text) // (4 * ratio), self.limits.latents)
            jobs.append(
                EncodeJob(
                    tell=numbered(tell, number), wire=self.wire, text=text, ratio=ratio, question=question,
                    latents=self.limits.latents,
                )
            )  # fmt: skip
        return jobs

    def embeds_job(self, request: PromptEmbedsRequest, tell: Tell) -> EmbedsJob:
        """A packet to be made vectors of."""
        name = self.known(request.model)
        check(self.wire, name)
        self.slots(name, request.slots)
        packet = self.packet(request.latent, "latent")
        if request.question is not None and len(request.question) > self.limits.latents:
            raise invalid("the question is too long", "question", "context_length_exceeded")
        return EmbedsJob(
            tell=numbered(tell, 0), wire=self.wire, receiver=name, packet=packet, question=request.question,
            slots=request.slots, dtype=request.dtype,
        )  # fmt: skip

    # -- prompts ----------------------------------------------------------------------------------------------------

    def chat_jobs(self, request: ChatRequest, tell: Tell) -> list[AnswerJob]:
        """The one prompt of a chat."""
        name = self.known(request.model)
        return [self.answer_job(name, self.of_messages(request.messages), request, request.max_completion_tokens, tell)]

    def completion_jobs(self, request: CompletionRequest, tell: Tell) -> list[AnswerJob]:
        """A job for each prompt."""
        name = self.known(request.model)
        return [
            self.answer_job(name, self.of_parts(parts, param), request, None, tell, number)
            for number, (parts, param) in enumerate(prompts_of(request))
        ]

    def of_messages(self, messages: Sequence[Message]) -> Asked:
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
        asked = self.of_parts(messages[user[0]].content, f"messages.{user[0]}.content")
        system = [
            self.of_parts(message.content, f"messages.{number}.content", "system")
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

    def of_parts(self, content: str | Sequence[Part], param: str, role: str = "user") -> Asked:
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
                packets.append(self.packet(part.latent, f"{param}.{number}.latent"))
        return Asked("\n".join(words).strip(), tuple(packets))

    def slots(self, name: str, asked: int | None) -> int:
        """K/V positions for each latent. ApiError: the link was not made for so many."""
        try:
            return self.wire.links[name].slots(asked)  # ty: ignore[not-callable]
        except UserError as error:
            raise invalid(str(error), "slots") from None

    def answer_job(
        self, name: str, asked: Asked, request: Sampling, most: int | None, tell: Tell, number: int = 0
    ) -> AnswerJob:
        """A prompt that fits the receiver's window. ApiError: it does not, or there is nothing to answer."""
        receiver, slots = self.wire.get_receiver(name), self.slots(name, request.slots)
        layout = receiver.prompt
        packet = joined(asked.packets) if asked.packets else None
        held = packet is not None and packet.mode == "prompt"
        if held and asked.question:
            raise invalid("the packet holds its question already; send no text beside it", "messages")
        if not held and not asked.question:
            raise invalid("there is no question; add a text part that asks one", "messages")
        if packet is not None and len(packet.z_MD) > self.limits.latents:
            raise too_long(len(packet.z_MD), self.limits.latents)
        window = receiver.geometry.window
        if len(asked.question) > 32 * window or len(asked.context) > 32 * window:
            raise invalid(f"the text is longer than the window of {name!r} ({window})", code="context_length_exceeded")
        tail = layout.anchor_ids() if held else layout.question_ids([asked.question])[0]
        context = layout.context_ids([asked.context])[0] if packet is None else []
        start = receiver.head().mask_BM.shape[1] + len(context)
        if packet is not None:
            with torch.no_grad():
                latents = self.wire.encoder.part(self.wire.latents([packet]), name)
                start = int(self.wire.links[name].place([latents], receiver, slots)[1])  # ty: ignore[not-callable]
        return AnswerJob(
            tell=numbered(tell, number), wire=self.wire, receiver=name, packet=packet, context=context, tail=tail,
            most=self.room(name, window - start - len(tail), most or request.max_tokens),
            temperature=request.temperature or 0.0, seed=request.seed or 0, stops=request.stops,
            slots=slots, stream=bool(request.stream),
        )  # fmt: skip

    def room(self, name: str, left: int, asked: int | None) -> int:
        """Tokens that an answer may have. ApiError: more were asked for, or nothing is left for one."""
        if asked is not None and asked > self.limits.tokens:
            raise invalid(f"max_tokens is at most {self.limits.tokens} on this server, not {asked}", "max_tokens")
        if left < (asked or 1):
            raise invalid(
                f"behind context and question the window of {name!r} has room for {max(left, 0)} tokens of an answer; "
                "ask for fewer, shorten the question, or send the text as a packet",
                "max_tokens" if left > 0 else "messages",
                "context_length_exceeded",
            )
        return asked or min(TOKENS, self.limits.tokens, left)


def form(data: bytes) -> str:
    """The name of a packet's form: its first three bytes in lower case."""
    return data[:3].decode("latin-1").lower()


def numbered(tell: Tell, number: int) -> Callable[[Any], None]:
    """``tell`` for one job of a request."""
    return lambda event: tell(number, event)


def prompts_of(request: CompletionRequest) -> list[tuple[str | Sequence[Part], str]]:
    """Each prompt of a request and the name of its place."""
    given = request.prompt
    if isinstance(given, str):
        return [(given, "prompt")]
    if given and not isinstance(given[0], str | list):
        return [(given, "prompt")]  # ty: ignore[invalid-explicit-return]
    return [(each, f"prompt.{number}") for number, each in enumerate(given)]  # ty: ignore[invalid-explicit-return]


def joined(packets: Sequence[Packet]) -> Packet:
    """Several packets as one, as if their texts had been pieces of one text."""
    if len(packets) == 1:
        return packets[0]
    first = packets[0]
    if any((packet.mode, packet.ratio) != ("context", first.ratio) for packet in packets):
        raise invalid("several latent parts are read as one text: they have to be of context mode and of one ratio")
    try:
        return replace(
            first,
            z_MD=torch.cat([packet.z_MD for packet in packets]),
            source_tokens=sum(packet.source_tokens for packet in packets),
        )
    except UserError as error:
        raise invalid(str(error)) from None
