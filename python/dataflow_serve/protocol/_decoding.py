"""Bytes to words."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection, Mapping
from typing import Any, TypeAlias, get_args

import msgspec
from msgspec import Struct

from dataflow_serve.errors import RemoteProtocolError
from dataflow_serve.protocol._messages import Changes, Ended, ErrorBody, Failure, Reached, Undecoded
from dataflow_serve.protocol._replies import (
    Advanced,
    Attached,
    Cancelled,
    Detached,
    Module,
    Plan,
    Pong,
    ReplyBody,
    Rows,
    ServerInfo,
    StatusReport,
    Stopping,
    Subscribed,
    Transacted,
    Tunables,
    Unregistered,
    Unsubscribed,
)
from dataflow_serve.protocol._requests import (
    Advance,
    Attach,
    Cancel,
    Detach,
    Explain,
    Hello,
    Ping,
    Read,
    Register,
    Request,
    Shutdown,
    Status,
    Subscribe,
    Transact,
    Tune,
    Unregister,
    Unsubscribe,
)
from dataflow_serve.protocol._rows import row_reader
from dataflow_serve.protocol._types import Column, Encoding

__all__ = ["Message", "Reply", "decode_message", "decode_request"]


class Reply(Struct, frozen=True):
    """A request succeeded; the body stays undecoded until the request that it answers is known."""

    id: Any
    body: msgspec.Raw
    encoding: Encoding

    def decode(self, request: Request) -> ReplyBody:
        """Read the body as the answer to ``request``.

        Raises:
            RemoteProtocolError: the body isn't such an answer.
        """
        return _decode_body(self.body, request, self.encoding)


Message: TypeAlias = Reply | Failure | Changes | Undecoded | Reached | Ended


class _Place(msgspec.Struct, frozen=True):
    line: int
    column: int


class _WireError(msgspec.Struct, frozen=True):
    code: str
    message: str
    retry: bool = False
    hint: str | None = None
    at: _Place | None = None

    def body(self) -> ErrorBody:
        at = None if self.at is None else (self.at.line, self.at.column)
        return ErrorBody(self.code, self.message, self.retry, self.hint, at)


_ABSENT = msgspec.Raw()


class _Envelope(msgspec.Struct, frozen=True):
    """Any message of a server: which fields are there says which one it is."""

    id: Any = None
    ok: msgspec.Raw = _ABSENT
    error: _WireError | None = None
    sub: int | None = None
    time: int | None = None
    progress: int | None = None
    changes: list[tuple[tuple[Any, ...], int]] | None = None
    snapshot: bool = False
    resync: bool = False
    more: bool = False


_ENVELOPES: Mapping[Encoding, Callable[[bytes | memoryview], _Envelope]] = {
    Encoding.JSON: msgspec.json.Decoder(_Envelope).decode,
    Encoding.MESSAGEPACK: msgspec.msgpack.Decoder(_Envelope).decode,
}


class _Pushed(msgspec.Struct, frozen=True):
    """Of a pushed message what says whose it is, and its changes as they are."""

    sub: int | None = None
    changes: msgspec.Raw = _ABSENT
    more: bool = False


_PUSHED = msgspec.msgpack.Decoder(_Pushed)


def decode_message(payload: bytes, encoding: Encoding, undecoded: Collection[int] = ()) -> Message:
    """Read one message of a server; fields that this version doesn't know are ignored.

    Changes for the subscriptions in ``undecoded`` become `Undecoded`, if they are in MessagePack.

    Raises:
        RemoteProtocolError: it isn't a message of the protocol.
    """
    try:
        if undecoded and encoding is Encoding.MESSAGEPACK:
            pushed = _PUSHED.decode(payload)
            if pushed.sub is not None and pushed.sub in undecoded and pushed.changes is not _ABSENT:
                return Undecoded(pushed.sub, bytes(pushed.changes), pushed.more)
        envelope = _ENVELOPES[encoding](payload)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise RemoteProtocolError(f"the server sent a malformed message: {error}") from error
    match envelope:
        case _Envelope(sub=None, error=_WireError() as failure):
            return Failure(envelope.id, failure.body())
        case _Envelope(sub=None, ok=body) if body is not _ABSENT:
            return Reply(envelope.id, body, encoding)
        case _Envelope(sub=int(sub), error=_WireError() as failure):
            return Ended(sub, failure.body(), envelope.time)
        case _Envelope(sub=int(sub), progress=int(time)):
            return Reached(sub, time)
        case _Envelope(sub=int(sub), time=int(time), changes=list(changes)):
            return Changes(sub, time, changes, envelope.snapshot, envelope.resync, envelope.more)
    raise RemoteProtocolError("the server sent a message that is neither a reply nor a push")


_BODIES: Mapping[type[Any], type[Any]] = {
    Hello: ServerInfo,
    Register: Module,
    Unregister: Unregistered,
    Cancel: Cancelled,
    Transact: Transacted,
    Subscribe: Subscribed,
    Unsubscribe: Unsubscribed,
    Read: Rows,
    Explain: Plan,
    Attach: Attached,
    Detach: Detached,
    Advance: Advanced,
    Ping: Pong,
    Shutdown: Stopping,
}


def _decode_body(body: msgspec.Raw, request: Request, encoding: Encoding) -> ReplyBody:
    decode: Callable[..., Any] = msgspec.json.decode if encoding is Encoding.JSON else msgspec.msgpack.decode
    try:
        match request:
            case Status():
                return StatusReport(decode(body, type=dict[str, Any]))
            case Tune():
                return Tunables(decode(body, type=dict[str, Any]))
            case _:
                decoded: ReplyBody = decode(body, type=_BODIES[type(request)])
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise RemoteProtocolError(f"the server's answer to {request.OP} is malformed: {error}") from error
    if isinstance(decoded, Module | Subscribed | Rows) and decoded.types is not None:
        decoded = _with_types(decoded)
    if isinstance(decoded, Rows) and (reader := row_reader(decoded.columns, encoding)) is not None:
        return dataclasses.replace(decoded, rows=[reader(row) for row in decoded.rows])
    return decoded


def _with_types(body: Module | Subscribed | Rows) -> Module | Subscribed | Rows:
    """The same with columns that say what their types are."""
    types = body.types

    def typed(columns: tuple[Column, ...]) -> tuple[Column, ...]:
        return tuple(
            dataclasses.replace(column, types=types) if column.type in (types or ()) else column
            for column in columns
        )

    if isinstance(body, Module):
        relations = (msgspec.structs.replace(each, columns=typed(each.columns)) for each in body.relations)
        return dataclasses.replace(body, relations=tuple(relations))
    return dataclasses.replace(body, columns=typed(body.columns))


_REQUESTS: Mapping[str, Any] = {kind.OP: kind for kind in get_args(Request)}


def decode_request(payload: bytes, encoding: Encoding) -> tuple[Any, Request]:
    """Read one request with its id, as a server does.

    Raises:
        RemoteProtocolError: it isn't a request; an unknown field is named.
    """
    decode: Callable[..., Any] = msgspec.json.decode if encoding is Encoding.JSON else msgspec.msgpack.decode
    try:
        fields: dict[str, Any] = decode(payload, type=dict[str, Any])
        request_id = fields.pop("id", None)
        kind = _REQUESTS[fields.pop("op")]
        if kind is Tune:
            return request_id, Tune(fields)
        known = set(kind.__struct_fields__)
        if unknown := sorted(fields.keys() - known):
            raise RemoteProtocolError(f"{kind.OP} has no field {unknown[0]!r}")
        return request_id, msgspec.convert(fields, kind)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError, KeyError) as error:
        raise RemoteProtocolError(f"malformed request: {error}") from error
