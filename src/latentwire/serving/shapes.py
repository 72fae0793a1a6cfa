"""Answers as OpenAI's clients expect them, whole and in pieces."""

from __future__ import annotations

import base64
import time
import uuid
from collections.abc import Sequence
from typing import Any

from latentwire.packets import Packet
from latentwire.serving.answering import Answer
from latentwire.serving.service import form

BITS = 8
"""Of a value of a packet, where a request says nothing."""


class Shape:
    """How one endpoint writes its answers. Beside OpenAI's fields stands ``latentwire``: what the answer took."""

    whole_kind = piece_kind = ""
    prefix = ""

    def __init__(self, model: str) -> None:
        self.model = model
        self.id = f"{self.prefix}-{uuid.uuid4().hex}"
        self.created = int(time.time())

    def whole(self, answers: Sequence[Answer]) -> dict[str, Any]:
        """A response that is not streamed."""
        choices = [
            self.choice(index, answer.text) | {"finish_reason": answer.finish} for index, answer in enumerate(answers)
        ]
        return self._frame(self.whole_kind, choices) | {"usage": usage(answers), "latentwire": list(map(took, answers))}

    def piece(self, index: int, text: str, first: bool = False) -> dict[str, Any]:
        """Some text more of choice ``index``. first: nothing of it was sent before."""
        return self._frame(self.piece_kind, [self.change(index, text, first) | {"finish_reason": None}])

    def last(self, index: int, answer: Answer) -> dict[str, Any]:
        """The end of choice ``index``."""
        choice = self.change(index, "", False) | {"finish_reason": answer.finish}
        return self._frame(self.piece_kind, [choice]) | {"latentwire": [took(answer)]}

    def counts(self, answers: Sequence[Answer]) -> dict[str, Any]:
        """The chunk behind all others that clients may ask for."""
        return self._frame(self.piece_kind, []) | {"usage": usage(answers)}

    def choice(self, index: int, text: str) -> dict[str, Any]:
        """A whole choice, without how it ended."""
        raise NotImplementedError

    def change(self, index: int, text: str, first: bool) -> dict[str, Any]:
        """A part of a choice, without how it ended."""
        raise NotImplementedError

    def _frame(self, kind: str, choices: list[dict[str, Any]]) -> dict[str, Any]:
        return {"id": self.id, "object": kind, "created": self.created, "model": self.model, "choices": choices}


class ChatShape(Shape):
    """``/v1/chat/completions``."""

    whole_kind, piece_kind, prefix = "chat.completion", "chat.completion.chunk", "chatcmpl"

    def choice(self, index: int, text: str) -> dict[str, Any]:
        return {"index": index, "message": {"role": "assistant", "content": text}, "logprobs": None}

    def change(self, index: int, text: str, first: bool) -> dict[str, Any]:
        delta = {"role": "assistant", "content": text} if first else {"content": text} if text else {}
        return {"index": index, "delta": delta, "logprobs": None}


class TextShape(Shape):
    """``/v1/completions``."""

    whole_kind, piece_kind, prefix = "text_completion", "text_completion", "cmpl"

    def choice(self, index: int, text: str) -> dict[str, Any]:
        return {"index": index, "text": text, "logprobs": None}

    def change(self, index: int, text: str, first: bool) -> dict[str, Any]:
        return self.choice(index, text)


def usage(answers: Sequence[Answer]) -> dict[str, int]:
    """Counts of a response. A prompt's tokens are the K/V positions that the receiver holds of it."""
    prompt, written = sum(answer.prompt for answer in answers), sum(answer.tokens for answer in answers)
    return {"prompt_tokens": prompt, "completion_tokens": written, "total_tokens": prompt + written}


def took(answer: Answer) -> dict[str, Any]:
    """What one answer took: positions, seconds, and how many were answered with it."""
    return {
        "prompt_positions": answer.prompt,
        "context_positions": answer.context,
        "waiting_seconds": round(answer.waited, 4),
        "answering_seconds": round(answer.took, 4),
        "batch": answer.rows,
    }


def latents(packets: Sequence[Packet], bits: int | None, norms: bool, wire: str) -> dict[str, Any]:
    """The response of ``/v1/latents``: each ``latent`` goes into a part of a prompt as it is. bits: 8 if None."""
    bits = BITS if bits is None else bits
    data = []
    for index, packet in enumerate(packets):
        packed = packet.to_bytes(bits)
        m, d = packet.z_MD.shape
        row: dict[str, Any] = {
            "object": "latent",
            "index": index,
            "latent": {"data": base64.b64encode(packed).decode(), "format": form(packed)},
            "latents": m,
            "width": d,
            "ratio": packet.ratio,
            "bits": packet.codec(bits).bits,
            "bytes": len(packed),
            "mode": packet.mode,
            "source_tokens": packet.source_tokens,
        }
        if packet.coded:
            row["codes"] = d
        if norms:
            row["norms"] = [round(norm, 4) for norm in Packet.from_bytes(packed).z_MD.norm(dim=-1).tolist()]
        data.append(row)
    read = sum(packet.source_tokens for packet in packets)
    return {"object": "list", "model": wire, "data": data, "usage": {"prompt_tokens": read, "total_tokens": read}}
