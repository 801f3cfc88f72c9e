"""What a server sends besides answers: errors, and what happens to subscriptions."""

from __future__ import annotations

from typing import Any

from msgspec import Struct

from dataflow_serve.errors import DataflowError, error_from_code
from dataflow_serve.protocol._types import Row

__all__ = ["Changes", "Ended", "ErrorBody", "Failure", "Reached", "Undecoded"]


class ErrorBody(Struct, frozen=True):
    """An error as the wire spells it; ``at`` is line and column, both from 1."""

    code: str
    message: str
    retry: bool = False
    hint: str | None = None
    at: tuple[int, int] | None = None

    def to_exception(self) -> DataflowError:
        """The exception that a caller gets to see."""
        line, column = self.at if self.at is not None else (None, None)
        return error_from_code(self.code, self.message, self.hint, line, column, self.retry)


class Failure(Struct, frozen=True):
    """A request failed; ``id`` is None where the server could not tell which."""

    id: Any
    error: ErrorBody


class Changes(Struct, frozen=True):
    """Changes of a relation, or a part of them when ``more`` is set; each row stands once in a step."""

    sub: int
    time: int
    changes: list[tuple[Row, int]]
    snapshot: bool = False
    resync: bool = False
    more: bool = False


class Undecoded(Struct, frozen=True):
    """`Changes` whose rows are left as they were sent: ``changes`` is the field's bytes, in MessagePack."""

    sub: int
    changes: bytes
    more: bool = False


class Reached(Struct, frozen=True):
    """Progress: all changes of a subscription up to and including ``time`` have been sent."""

    sub: int
    time: int


class Ended(Struct, frozen=True):
    """The server ended a subscription; ``time`` is what it had reached, where the server says so."""

    sub: int
    error: ErrorBody
    time: int | None = None
