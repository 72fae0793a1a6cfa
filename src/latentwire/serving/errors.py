"""Refusals in OpenAI's shape: ``{"error": {"message", "type", "param", "code"}}``."""

from __future__ import annotations

from typing import Any

KINDS = {401: "authentication_error", 429: "rate_limit_error", 500: "server_error", 503: "server_error"}
"""``type`` by status; every other one is the asker's to put right."""


class ApiError(Exception):
    """A request that is not answered. message: for a person. code: for a program. param: the field that is wrong."""

    def __init__(self, status: int, message: str, code: str, param: str | None = None) -> None:
        super().__init__(message)
        self.status, self.message, self.code, self.param = status, writable(message), code, param and writable(param)

    def body(self) -> dict[str, Any]:
        """What is sent."""
        kind = KINDS.get(self.status, "invalid_request_error")
        return {"error": {"message": self.message, "type": kind, "param": self.param, "code": self.code}}

    @property
    def headers(self) -> dict[str, str]:
        """What goes with it."""
        if self.status == 401:
            return {"WWW-Authenticate": "Bearer"}
        if self.status == 429:
            return {"Retry-After": "1"}
        # the rest of a body that is too large is not read, so nothing can follow it on this connection
        return {"Connection": "close"} if self.status == 413 else {}


def writable(text: str) -> str:
    """Text as it can be sent: what was asked is repeated in refusals, and may hold what is no character."""
    return text.encode("utf-8", "replace").decode()


def invalid(message: str, param: str | None = None, code: str = "invalid_value") -> ApiError:
    """A request that can be put right."""
    return ApiError(400, message, code, param)


def of_validation(errors: list[Any]) -> ApiError:
    """What pydantic found, as one line: the error that lies deepest, because a union complains about each branch."""
    worst = max(errors, key=lambda error: len(error["loc"]))
    if worst["type"] == "json_invalid":
        return invalid(f"the body is not JSON: {worst.get('ctx', {}).get('error', 'cannot be read')}", code="bad_json")
    places: list[str] = []
    for before, part in zip((None, *worst["loc"]), worst["loc"], strict=False):
        # branches of unions are no fields: the kind of a value, and the kind of a part in a list of them
        kind = isinstance(part, str) and (part == "str" or "[" in part)
        if part != "body" and not kind and not (isinstance(before, int) and part in ("text", "latent")):
            places.append(str(part))
    param = ".".join(places) or None
    message = worst["msg"].removeprefix("Value error, ")
    return invalid(f"{param}: {message}" if param else message, param)
