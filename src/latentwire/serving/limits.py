"""What a server takes at most. Each is checked before anything of that size is done."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Limits:
    """Bounds of one server.

    body: bytes of a request. waiting: prompts and texts that are accepted and not begun; one more is answered 429.
    batch: rows that are answered or encoded together. positions: rows of a batch times the longest context in it,
    which bounds what keys and values take. inputs: texts or prompts of one request. latents: of one context.
    tokens: of one answer. prefixes: bytes of keys and values that are kept of contexts already read. linger: seconds
    that a first request waits for company; a batch that is full goes at once.
    """

    body: int = 16 << 20
    waiting: int = 256
    batch: int = 32
    positions: int = 1 << 17
    inputs: int = 64
    latents: int = 8192
    tokens: int = 256
    prefixes: int = 1 << 30
    linger: float = 0.003
