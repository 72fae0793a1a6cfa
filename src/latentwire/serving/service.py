"""A wire as it is served: its receivers, and requests about packets and texts as jobs.

Whatever can be wrong with a request is found here (and in ``prompts``), before it waits for anything.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from latentwire.codecs import Codec
from latentwire.errors import UserError
from latentwire.packets import Packet
from latentwire.serving.embeds import EmbedsJob, check
from latentwire.serving.encoding import EncodeJob, too_long
from latentwire.serving.engine import Engine
from latentwire.serving.errors import ApiError, invalid
from latentwire.serving.limits import Limits
from latentwire.serving.metrics import Metrics
from latentwire.serving.prefixes import Prefixes
from latentwire.serving.schema import (
    LatentData,
    LatentsRequest,
    PromptEmbedsRequest,
)

if TYPE_CHECKING:
    from latentwire.wire import Wire

Tell = Callable[[int, Any], None]
"""Called with the number of a job among those of its request, and with what it says."""


class Service:
    """A wire with the receivers that are served, its engine, and its bounds. Methods of preparation run one at a time,
    in a thread that is not the event loop's: tokenising a long text takes a while."""

    def __init__(self, wire: Wire, names: Sequence[str] | None = None, limits: Limits | None = None) -> None:
        self.wire, self.names = wire, list(names or wire.receivers)
        self.limits = limits or Limits()
        self.metrics = Metrics()
        self.engine = Engine(self.limits, self.metrics)
        self.prefixes = kept = Prefixes(self.limits.prefixes)
        self.metrics.gauge("latentwire_prefix_cache_queries", "Contexts looked for.", lambda: kept.asked)
        self.metrics.gauge("latentwire_prefix_cache_hits", "Contexts that were kept from before.", lambda: kept.found)
        self.metrics.gauge("latentwire_prefix_cache_bytes", "What the kept ones take.", lambda: kept.bytes)
        for name in self.names:
            # read once and kept, here: afterwards only the engine's thread may let a receiver read
            self.wire.get_receiver(name).head()

    def models(self) -> list[dict[str, Any]]:
        """What each receiver is and can do."""
        shared = {
            "encoder": self.wire.fingerprint.hex(),
            "ratios": list(self.wire.ratios),
            "bits": sorted({kind.bits for kind in Codec.known().values()}, reverse=True),
            "codes": 0 if self.wire.codes is None else self.wire.codes.config.stages,
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
            packet = Packet.from_bytes(data)
            self.wire.check(packet)
            self.wire.encoder.check_ratio(packet.ratio)
        except UserError as error:
            raise invalid(str(error), f"{param}.data", "invalid_packet") from None
        m = len(packet.z_MD)
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
        coded = request.codes is not None and self.wire.codes is not None
        ratio = self.wire.usual_ratio(coded) if request.ratio is None else request.ratio
        try:
            self.wire.encoder.check_ratio(ratio)
        except UserError as error:
            raise invalid(str(error), "ratio") from None
        if request.bits not in (None, *(bits := sorted({kind.bits for kind in Codec.known().values()}))):
            raise invalid(f"bits is one of {', '.join(map(str, bits))}, not {request.bits}", "bits")
        if request.codes is not None:
            self.coded(request.codes, ratio, request)
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
                    latents=self.limits.latents, codes=request.codes,
                )
            )  # fmt: skip
        return jobs

    def coded(self, codes: int, ratio: int, request: LatentsRequest) -> None:
        """ApiError: the wire has not so many codes, or not at this ratio, or what they do not go with is asked too."""
        try:
            self.wire.books.stages(codes)
            self.wire.books.at(ratio)
        except UserError as error:
            raise invalid(str(error), "codes") from None
        if request.bits is not None:
            raise invalid("bits is for values, codes are in their place; give one of the two", "codes")
        if request.norms:
            raise invalid("norms are of latents; codes are numbers of vectors and have none", "norms")

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

    def slots(self, name: str, asked: int | None) -> int:
        """K/V positions for each latent. ApiError: the link was not made for so many."""
        try:
            return self.wire.links[name].slots(asked)  # ty: ignore[not-callable]
        except UserError as error:
            raise invalid(str(error), "slots") from None


def form(data: bytes) -> str:
    """The name of a packet's form: its first three bytes in lower case."""
    return data[:3].decode("latin-1").lower()


def numbered(tell: Tell, number: int) -> Callable[[Any], None]:
    """``tell`` for one job of a request."""
    return lambda event: tell(number, event)
