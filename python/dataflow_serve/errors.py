"""Every exception of the package.

`DataflowError` is the root. Below it stands one class per error code of the protocol, so that a caller can
write ``except ds.ConflictError`` whether the mistake was found in the caller's process or on a distant
server. Beside them stand the failures that have no code of their own on the wire: a misuse of the client
(`LocalProtocolError`), a server that breaks the protocol (`RemoteProtocolError`), a connection that is gone
(`ConnectionClosed`) and workers that can't go on (`WorkerFailed`).

A message is lower case, has no full stop and says what was attempted on which named thing; a hint is a full
sentence that says what to do.
"""

from __future__ import annotations

from typing import Any, ClassVar

__all__ = [
    "BusyError",
    "ConflictError",
    "ConnectionClosed",
    "DataflowError",
    "FaultError",
    "ForbiddenError",
    "IncorrectError",
    "InterruptedQueryError",
    "LocalProtocolError",
    "NotFoundError",
    "RemoteProtocolError",
    "TooLargeError",
    "UnavailableError",
    "UnsupportedError",
    "WorkerFailed",
    "error_from_code",
]


class DataflowError(Exception):
    """What went wrong, in the words of the protocol.

    Attributes:
        code: One of the protocol's error codes.
        message: What was attempted on which named thing, without the position and the hint.
        hint: What to do about it, a full sentence.
        line: Line in the program's text, from 1.
        column: Column in that line, from 1, in characters.
        retry: Whether the same request can succeed later.
    """

    def __init__(
        self,
        code: str,
        message: str,
        hint: str | None = None,
        line: int | None = None,
        column: int | None = None,
        retry: bool = False,
    ) -> None:
        """Describe a failure; positions count from 1, and stand together or not at all."""
        super().__init__(message)
        self.code = code
        self.message = message
        self.hint = hint
        self.line = line
        self.column = column
        self.retry = retry

    def __str__(self) -> str:
        """The message with its position and hint, on one line as far as the parts are."""
        text = self.message
        if self.line is not None:
            text += f" (line {self.line}, column {self.column})"
        if self.hint:
            text += f"; {self.hint[0].lower()}{self.hint[1:]}"
        return text

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle by class and state: the constructors of the classes below take no code."""
        return (_restore, (type(self), self.__dict__.copy()))


def _restore(kind: type[DataflowError], state: dict[str, Any]) -> DataflowError:
    error = kind.__new__(kind, state["message"])
    error.__dict__.update(state)
    return error


class _CodedError(DataflowError):
    """A `DataflowError` whose class fixes the code."""

    CODE: ClassVar[str]

    def __init__(
        self,
        message: str,
        hint: str | None = None,
        line: int | None = None,
        column: int | None = None,
        retry: bool = False,
    ) -> None:
        """Describe a failure of this class's code."""
        super().__init__(self.CODE, message, hint, line, column, retry)


class IncorrectError(_CodedError):
    """The request is malformed or ill-typed, or its program has an error."""

    CODE = "incorrect"


class NotFoundError(_CodedError):
    """A relation, module or subscription that a request names doesn't exist."""

    CODE = "not-found"


class ConflictError(_CodedError):
    """The request contradicts what is there already."""

    CODE = "conflict"


class ForbiddenError(_CodedError):
    """The client's role doesn't allow the request."""

    CODE = "forbidden"


class UnsupportedError(_CodedError):
    """A part of the language or of the protocol that this build doesn't have."""

    CODE = "unsupported"


class BusyError(_CodedError):
    """A limit in force: too many clients, a subscriber too slow."""

    CODE = "busy"


class TooLargeError(_CodedError):
    """A message or an answer beyond the size in force."""

    CODE = "too-large"


class InterruptedQueryError(_CodedError):
    """A query was ended by a limit, a cancellation, a shutdown or a restart of the cluster."""

    CODE = "interrupted"


class UnavailableError(_CodedError):
    """The cluster isn't formed, so that nothing can be answered now."""

    CODE = "unavailable"


class FaultError(_CodedError):
    """The server's fault; the message carries the reference under which it was logged."""

    CODE = "fault"


class LocalProtocolError(_CodedError):
    """The caller used the client in a way that the protocol doesn't allow; nothing was sent."""

    CODE = "incorrect"


class RemoteProtocolError(_CodedError):
    """The server sent something that the protocol doesn't allow; the connection is closed."""

    CODE = "fault"


class ConnectionClosed(_CodedError):
    """The connection is closed; what was under way on it has an unknown outcome."""

    CODE = "unavailable"


class WorkerFailed(_CodedError):
    """The workers of this process can't go on: no other generation of the cluster can be formed here."""

    CODE = "fault"


_CLASSES: dict[str, type[_CodedError]] = {
    kind.CODE: kind
    for kind in (
        IncorrectError,
        NotFoundError,
        ConflictError,
        ForbiddenError,
        UnsupportedError,
        BusyError,
        TooLargeError,
        InterruptedQueryError,
        UnavailableError,
        FaultError,
    )
}


def error_from_code(
    code: str,
    message: str,
    hint: str | None = None,
    line: int | None = None,
    column: int | None = None,
    retry: bool = False,
) -> DataflowError:
    """The exception for an error body of the wire; an unknown code gives a plain `DataflowError`."""
    kind = _CLASSES.get(code)
    if kind is None:
        return DataflowError(code, message, hint, line, column, retry)
    return kind(message, hint, line, column, retry)
