"""What is asked: the bodies of requests. A field that is not known or not supported is refused by name, never ignored.

A latent part has the form of OpenAI's ``input_audio``: ``{"type": "latent", "latent": {"data": BASE64, "format":
"lw1"}}``. ``format`` may be left out; it names the first three bytes of a packet.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

LEAST_TEMPERATURE = 0.01
"""Below it a division overflows; whoever wants less wants 0."""


class Strict(BaseModel):
    """Refuses fields that it does not know, and values of another type."""

    model_config = ConfigDict(extra="forbid", strict=True)


def only(value: float | bool) -> AfterValidator:
    """A field of OpenAI's that is understood with one value alone."""

    def check(given: Any) -> Any:
        if given is not None and given != value:
            raise ValueError(f"only {value} is supported here")
        return given

    return AfterValidator(check)


def _warm(given: float | None) -> float | None:
    if given and given < LEAST_TEMPERATURE:
        raise ValueError(f"give 0 for the likeliest token each time, or {LEAST_TEMPERATURE} to 2")
    return given


def _whole(given: str) -> str:
    try:
        given.encode()
    except UnicodeEncodeError:
        raise ValueError("half of a surrogate pair is no character; send text that is Unicode") from None
    return given


Text = Annotated[str, AfterValidator(_whole)]


class LatentData(Strict):
    """A packet as text. data: base64 of its bytes."""

    data: Text
    format: Text | None = None


class TextPart(Strict):
    """Words."""

    type: Literal["text"]
    text: Text


class LatentPart(Strict):
    """A packet among words."""

    type: Literal["latent"]
    latent: LatentData


Part = Annotated[TextPart | LatentPart, Field(discriminator="type")]
Stop = Annotated[Text, Field(min_length=1, max_length=256)]


class Message(Strict):
    """One turn."""

    role: Text
    content: Text | list[Part]
    name: Text | None = None


class StreamOptions(Strict):
    """include_usage: one chunk more, with the counts."""

    include_usage: bool = False
    include_obfuscation: Annotated[bool | None, only(False)] = None


class Sampling(Strict):
    """How an answer is written, and all that OpenAI's clients may send along.

    temperature: 0 if left out, not 1 as with OpenAI: the receivers were trained and measured greedily.
    slots: K/V positions for each latent (not OpenAI's), one of those that the link was made for. best: of several
    packets, only so many are read, those behind which the receiver finds the question likeliest (not OpenAI's).
    """

    model: Text
    max_tokens: Annotated[int, Field(ge=1)] | None = None
    temperature: Annotated[float, Field(ge=0, le=2, allow_inf_nan=False), AfterValidator(_warm)] | None = None
    seed: Annotated[int, Field(ge=-(2**63), lt=2**63)] | None = None
    stop: Stop | Annotated[list[Stop], Field(max_length=4)] | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    slots: Annotated[int, Field(ge=1)] | None = None
    best: Annotated[int, Field(ge=1)] | None = None
    user: Text | None = None
    n: Annotated[int | None, only(1)] = None
    top_p: Annotated[float | None, only(1)] = None
    presence_penalty: Annotated[float | None, only(0)] = None
    frequency_penalty: Annotated[float | None, only(0)] = None

    @property
    def stops(self) -> list[str]:
        """Stop strings, however they were given."""
        return [self.stop] if isinstance(self.stop, str) else list(self.stop or ())


class ChatRequest(Sampling):
    """``POST /v1/chat/completions``."""

    messages: Annotated[list[Message], Field(min_length=1)]
    max_completion_tokens: Annotated[int, Field(ge=1)] | None = None
    logprobs: Annotated[bool | None, only(False)] = None


class CompletionRequest(Sampling):
    """``POST /v1/completions``. prompt: a text, parts, or several of either: each is answered on its own."""

    prompt: Text | list[Text] | list[Part] | list[list[Part]]
    best_of: Annotated[int | None, only(1)] = None
    echo: Annotated[bool | None, only(False)] = None


class LatentsRequest(Strict):
    """``POST /v1/latents``. bits: of a value, 8 if neither these nor codes are given. codes: learned
    codes for each latent, of a wire that has them. question: for prompt mode, one for each text or one for all. norms:
    of latents (codes have none)."""

    input: Text | list[Text]
    model: Text | None = None
    ratio: int | None = None
    bits: int | None = None
    codes: int | None = None
    question: Text | list[Text] | None = None
    norms: bool = False


class PromptEmbedsRequest(Strict):
    """``POST /v1/latents/prompt_embeds``. question: given, the payload is a whole prompt and not its latents alone."""

    model: Text
    latent: LatentData
    question: Text | None = None
    slots: Annotated[int, Field(ge=1)] | None = None
    dtype: Literal["float32", "bfloat16", "float16"] | None = None
