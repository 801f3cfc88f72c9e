"""Words on the wire: requests, replies and pushed messages of protocol version 1.

One frozen dataclass a word, equal to the words of the server (the golden files keep both sides so), and four
functions that turn them into bytes and back. A client calls `encode_request` and `decode_message`; a server,
scripted or real, calls `decode_request` and `encode_message`. There is no I/O and no state here: framing and
the matching of replies to requests are the business of ``dataflow_serve.client``.

Values are plain Python values. Encodings differ in how they spell some of them (``docs/protocol.md``);
`row_reader` gives the function that brings a decoded row back to what its columns' types say.
"""

from __future__ import annotations

import dataclasses
import datetime
import enum
import math
import uuid
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, TypeAlias, get_args, overload

import msgspec

from dataflow_serve.errors import DataflowError, LocalProtocolError, RemoteProtocolError, error_from_code
from dataflow_serve.values import Branch, instant_text, instant_value, parse_bytes, parse_instant, parse_uuid

__all__ = [
    "DEFAULT_PORT",
    "PREAMBLE",
    "VERSION",
    "Advance",
    "Advanced",
    "Attach",
    "Attached",
    "Cancel",
    "Cancelled",
    "Change",
    "Changes",
    "Column",
    "Detach",
    "Detached",
    "Encoding",
    "Ended",
    "ErrorBody",
    "Explain",
    "Failure",
    "Hello",
    "Message",
    "Module",
    "Ping",
    "Plan",
    "Pong",
    "Reached",
    "Read",
    "Register",
    "RelationInfo",
    "Reply",
    "ReplyBody",
    "Request",
    "Row",
    "Rows",
    "ServerInfo",
    "Shutdown",
    "Status",
    "StatusReport",
    "Stopping",
    "Subscribe",
    "Subscribed",
    "Transact",
    "Transacted",
    "Tunables",
    "Tune",
    "TypeInfo",
    "Unregister",
    "Unregistered",
    "Unsubscribe",
    "Unsubscribed",
    "Value",
    "decode_message",
    "decode_request",
    "encode_message",
    "encode_request",
    "row_reader",
]

VERSION = 1
"""The protocol's version, as `Hello` says it."""

PREAMBLE = b"\xdfFL\x01"
"""First bytes of a connection that goes on in length-prefixed MessagePack."""

DEFAULT_PORT = 6262
"""Where a server listens unless told otherwise."""

Value: TypeAlias = Any
"""A column's value, as its type says: int, float, str, bool, datetime, UUID or bytes, for a record a tuple or
None, for an algebraic type a `Branch`."""

Row: TypeAlias = tuple[Value, ...]
"""Values in column order."""


class Encoding(enum.Enum):
    """How the words of one message become bytes."""

    JSON = "json"
    MESSAGEPACK = "messagepack"


@dataclass(frozen=True, slots=True)
class TypeInfo:
    """What values of a defined type hold: the fields of a record, or those of each branch."""

    record: tuple[Column, ...] | None = None
    branches: Mapping[str, tuple[Column, ...]] | None = None


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a relation: its name and its type's name.

    Attributes:
        name: As declared.
        type: As declared, aliases resolved.
        types: The definitions of record types and algebraic types by name, where the column's is one of them.
    """

    name: str
    type: str
    types: Mapping[str, TypeInfo] | None = field(default=None, compare=False, repr=False)


# --- requests -----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Hello:
    """Opens the conversation; must come first, and must come where a token is needed."""

    OP: ClassVar = "hello"
    version: int = VERSION
    token: str | None = None


@dataclass(frozen=True, slots=True)
class Register:
    """Install a program; answered with its `Module`."""

    OP: ClassVar = "register"
    program: str
    name: str | None = None
    limits: Mapping[str, int] | None = None


@dataclass(frozen=True, slots=True)
class Unregister:
    """Remove a module, or one relation."""

    OP: ClassVar = "unregister"
    name: str


@dataclass(frozen=True, slots=True)
class Cancel:
    """End a module and what depends on it, wherever it is."""

    OP: ClassVar = "cancel"
    name: str


@dataclass(frozen=True, slots=True)
class Change:
    """What a transaction does to one relation; its deletes come before all inserts of the transaction."""

    relation: str
    insert: Sequence[Sequence[Value]] | None = None
    delete: Sequence[Sequence[Value]] | None = None


@dataclass(frozen=True, slots=True)
class Transact:
    """Change relations at one logical time, all or nothing."""

    OP: ClassVar = "transact"
    changes: Sequence[Change]
    key: str | None = None
    wait: Literal["sequenced", "visible"] | None = None


@dataclass(frozen=True, slots=True)
class Subscribe:
    """Follow a relation; ``since`` resumes after that time, in the server's ``history`` it was learned in.

    ``slow`` says what happens when it is read too slowly: times are merged, or the subscription ends as soon
    as more than ``backlog`` rows wait. With ``limit`` it is of the first rows only, in ``order``.
    """

    OP: ClassVar = "subscribe"
    relation: str
    snapshot: bool | None = None
    progress: bool | None = None
    where: Mapping[str, Value] | None = None
    since: int | None = None
    history: Any = None
    slow: Literal["coalesce", "end"] | None = None
    backlog: int | None = None
    order: Sequence[str] | None = None
    limit: int | None = None


@dataclass(frozen=True, slots=True)
class Unsubscribe:
    """End a subscription of this connection."""

    OP: ClassVar = "unsubscribe"
    sub: int


@dataclass(frozen=True, slots=True)
class Read:
    """Ask for a relation's contents once; ``order`` names columns, those after a ``-`` descending."""

    OP: ClassVar = "read"
    relation: str
    where: Mapping[str, Value] | None = None
    limit: int | None = None
    order: Sequence[str] | None = None


@dataclass(frozen=True, slots=True)
class Explain:
    """Ask for the plan of a relation."""

    OP: ClassVar = "explain"
    relation: str
    analyze: bool | None = None


@dataclass(frozen=True, slots=True)
class Status:
    """Ask how the server is."""

    OP: ClassVar = "status"


@dataclass(frozen=True, slots=True)
class Attach:
    """Have an external source feed relations; `docs/sources.md` says what ``source`` may be."""

    OP: ClassVar = "attach"
    name: str
    source: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Detach:
    """End an external source."""

    OP: ClassVar = "detach"
    name: str


@dataclass(frozen=True, slots=True)
class Advance:
    """Set the cluster's clock, where it doesn't move by itself."""

    OP: ClassVar = "advance"
    now: datetime.datetime


@dataclass(frozen=True, slots=True)
class Tune:
    """Set tunables of all workers; the names stand beside ``op`` on the wire."""

    OP: ClassVar = "tune"
    tunables: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Ping:
    """Ask for a sign of life."""

    OP: ClassVar = "ping"


@dataclass(frozen=True, slots=True)
class Shutdown:
    """Stop every process of the cluster cleanly."""

    OP: ClassVar = "shutdown"


Request: TypeAlias = (
    Hello
    | Register
    | Unregister
    | Cancel
    | Transact
    | Subscribe
    | Unsubscribe
    | Read
    | Explain
    | Status
    | Attach
    | Detach
    | Advance
    | Tune
    | Ping
    | Shutdown
)


# --- replies ------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class ServerInfo:
    """Answers `Hello`: who serves this connection.

    Attributes:
        version: The protocol's version.
        server: Name and version of the server.
        worker: The owner of this connection, counted through the cluster.
        workers: How many workers the cluster has.
        process: The process that this connection reached.
        processes: How many processes the cluster has.
        time: A logical time that is over.
        history: An id that changes whenever contents or times were lost.
    """

    version: int
    server: str
    worker: int
    workers: int
    process: int
    processes: int
    time: int
    history: Any


@dataclass(frozen=True, slots=True)
class RelationInfo:
    """A relation of a module: ``kind`` is ``input`` or ``derived``."""

    name: str
    kind: str
    columns: tuple[Column, ...]


@dataclass(frozen=True, slots=True)
class Module:
    """Answers `Register`: a program that is installed, and since when."""

    name: str
    relations: tuple[RelationInfo, ...]
    time: int
    types: Mapping[str, TypeInfo] | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class Unregistered:
    """Answers `Unregister`."""

    time: int


@dataclass(frozen=True, slots=True)
class Cancelled:
    """Answers `Cancel`.

    Attributes:
        name: The module.
        modules: All that were ended, readers before what they read.
        iteration: Where its recursion was; 0 if it was in none.
        time: From which on they are gone.
        relation: The recursive relation.
    """

    name: str
    modules: tuple[str, ...]
    iteration: int
    time: int
    relation: str | None = None


@dataclass(frozen=True, slots=True)
class Transacted:
    """Answers `Transact`: when it took effect, and whether an earlier one with its key had done so."""

    time: int
    deduplicated: bool = False


@dataclass(frozen=True, slots=True)
class Subscribed:
    """Answers `Subscribe`; ``resync`` says that ``since`` could not be honoured and a snapshot follows."""

    sub: int
    columns: tuple[Column, ...]
    time: int
    history: Any
    resync: bool = False
    types: Mapping[str, TypeInfo] | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class Unsubscribed:
    """Answers `Unsubscribe`; the last word on its subscription."""

    time: int


@dataclass(frozen=True, slots=True)
class Rows(Sequence[Row]):
    """Answers `Read`: a relation's contents at a finished time, as a sequence of tuples."""

    columns: tuple[Column, ...]
    rows: list[Row]
    time: int
    types: Mapping[str, TypeInfo] | None = field(default=None, repr=False)

    def __len__(self) -> int:
        """How many rows there are."""
        return len(self.rows)

    def __iter__(self) -> Iterator[Row]:
        """Go through the rows, which are in no particular order."""
        return iter(self.rows)

    @overload
    def __getitem__(self, index: int) -> Row: ...
    @overload
    def __getitem__(self, index: slice) -> list[Row]: ...
    def __getitem__(self, index: int | slice) -> Row | list[Row]:
        """The row or rows at a place in the list."""
        return self.rows[index]


@dataclass(frozen=True, slots=True)
class Plan:
    """Answers `Explain`: a tree of operators."""

    plan: Any


@dataclass(frozen=True, slots=True)
class StatusReport:
    """Answers `Status`: workers, clients, relations, time, tunables and counters by name."""

    report: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Attached:
    """Answers `Attach`: the source is attached as of this time."""

    time: int


@dataclass(frozen=True, slots=True)
class Advanced:
    """Answers `Advance`: `now` is that from this time on."""

    time: int


@dataclass(frozen=True, slots=True)
class Detached:
    """Answers `Detach`: nothing of the source takes effect after this time.

    Attributes:
        left: What couldn't be removed outside, in words.
    """

    time: int
    left: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class Tunables:
    """Answers `Tune`: the tunables now in force on every worker."""

    tunables: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Pong:
    """Answers `Ping`."""

    time: int


@dataclass(frozen=True, slots=True)
class Stopping:
    """Answers `Shutdown`."""


ReplyBody: TypeAlias = (
    ServerInfo
    | Module
    | Cancelled
    | Unregistered
    | Transacted
    | Subscribed
    | Unsubscribed
    | Rows
    | Plan
    | StatusReport
    | Attached
    | Detached
    | Advanced
    | Tunables
    | Pong
    | Stopping
)


@dataclass(frozen=True, slots=True)
class ErrorBody:
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


# --- messages -----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Reply:
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


@dataclass(frozen=True, slots=True)
class Failure:
    """A request failed; ``id`` is None where the server could not tell which."""

    id: Any
    error: ErrorBody


@dataclass(frozen=True, slots=True)
class Changes:
    """Changes of a relation, or a part of them when ``more`` is set; each row stands once in a step."""

    sub: int
    time: int
    changes: list[tuple[Row, int]]
    snapshot: bool = False
    resync: bool = False
    more: bool = False


@dataclass(frozen=True, slots=True)
class Undecoded:
    """`Changes` whose rows are left as they were sent: ``changes`` is the field's bytes, in MessagePack."""

    sub: int
    changes: bytes
    more: bool = False


@dataclass(frozen=True, slots=True)
class Reached:
    """Progress: all changes of a subscription up to and including ``time`` have been sent."""

    sub: int
    time: int


@dataclass(frozen=True, slots=True)
class Ended:
    """The server ended a subscription; ``time`` is what it had reached, where the server says so."""

    sub: int
    error: ErrorBody
    time: int | None = None


Message: TypeAlias = Reply | Failure | Changes | Undecoded | Reached | Ended


# --- encoding -----------------------------------------------------------------------------------------------


def encode_request(request_id: Any, request: Request, encoding: Encoding) -> bytes:
    """Spell a request; fields that are None are left out.

    Raises:
        LocalProtocolError: a value that the encoding cannot carry.
    """
    return _encode({"id": request_id, "op": request.OP, **_fields(request)}, encoding, request.OP)


def encode_message(
    message: Failure | Changes | Reached | Ended | tuple[Any, ReplyBody], encoding: Encoding
) -> bytes:
    """Spell what a server sends; a successful reply is the pair of the request's id and its body.

    Raises:
        LocalProtocolError: a value that the encoding cannot carry.
    """
    return _encode(_spelled_message(message), encoding, "message")


def _spelled_message(message: Failure | Changes | Reached | Ended | tuple[Any, ReplyBody]) -> dict[str, Any]:
    match message:
        case Failure(id=request_id, error=error):
            return {"id": request_id, "error": _spelled_error(error)}
        case Changes():
            flags = {name: True for name in ("snapshot", "resync", "more") if getattr(message, name)}
            return {"sub": message.sub, "time": message.time, "changes": message.changes, **flags}
        case Reached(sub=sub, time=time):
            return {"sub": sub, "progress": time}
        case Ended(sub=sub, error=error, time=time):
            reached = {} if time is None else {"time": time}
            return {"sub": sub, "error": _spelled_error(error), **reached}
        case (request_id, body):
            return {"id": request_id, "ok": _spelled_body(body)}


def _spelled_error(error: ErrorBody) -> dict[str, Any]:
    spelled: dict[str, Any] = {"code": error.code, "message": error.message, "retry": error.retry}
    if error.hint is not None:
        spelled["hint"] = error.hint
    if error.at is not None:
        spelled["at"] = {"line": error.at[0], "column": error.at[1]}
    return spelled


def _spelled_body(body: ReplyBody) -> Mapping[str, Any]:
    match body:
        case StatusReport(report=fields) | Tunables(tunables=fields):
            return fields
        case Transacted(time=time, deduplicated=False):
            return {"time": time}
        case _:
            fields = {item.name: getattr(body, item.name) for item in dataclasses.fields(body)}
            if not fields.get("resync", True):
                del fields["resync"]
            if fields.get("types", True) is None:
                del fields["types"]
            return {name: _plain(value) for name, value in fields.items()}


def _plain(value: Any) -> Any:
    """Descriptions of columns and types as the wire has them."""
    match value:
        case Column(name, kind):
            return {"name": name, "type": kind}
        case RelationInfo(name, kind, columns):
            return {"name": name, "kind": kind, "columns": _plain(columns)}
        case TypeInfo(record=None, branches=branches):
            return {"branches": _plain(branches)}
        case TypeInfo(record=fields):
            return {"record": _plain(fields)}
        case tuple():
            return [_plain(item) for item in value]
        case Mapping():
            return {name: _plain(item) for name, item in value.items()}
        case _:
            return value


def _fields(word: Any) -> dict[str, Any]:
    if isinstance(word, Tune):
        return dict(word.tunables)
    spelled = {item.name: getattr(word, item.name) for item in dataclasses.fields(word)}
    if isinstance(word, Transact):
        spelled["changes"] = [_fields(change) for change in word.changes]
    return {name: value for name, value in spelled.items() if value is not None}


def _plain_value(value: Any) -> Any:
    """Scalars of numpy and its like know how to become Python's own."""
    if isinstance(value, datetime.datetime):
        return instant_value(value)
    if isinstance(value, Branch):
        return {f"${value.name}": value.values}
    item = getattr(value, "item", None)
    if item is None:
        raise TypeError(f"a value of type {type(value).__name__} has no place in a relation")
    return item()


# A UUID goes as 16 bytes in MessagePack and as text in JSON; datetimes as timestamp extension and as RFC
# 3339.
_MESSAGEPACK = msgspec.msgpack.Encoder(enc_hook=_plain_value, uuid_format="bytes")
_JSON = msgspec.json.Encoder(enc_hook=_plain_value)


def _encode(spelled: dict[str, Any], encoding: Encoding, what: str) -> bytes:
    try:
        if encoding is Encoding.MESSAGEPACK:
            return _MESSAGEPACK.encode(spelled)
        return _JSON.encode(_json_values(spelled))
    except (TypeError, ValueError, OverflowError, msgspec.MsgspecError) as error:
        raise LocalProtocolError(f"cannot encode this {what}: {error}") from error


def _json_values(value: Any) -> Any:
    """Values as the protocol spells them in JSON, where JSON alone leaves a choice or has none."""
    match value:
        case float():
            return (
                value if math.isfinite(value) else "NaN" if value != value else "inf" if value > 0 else "-inf"
            )
        case datetime.datetime():
            return instant_text(instant_value(value))
        case Branch(name, values):
            return {f"${name}": _json_values(values)}
        case Mapping():
            return {name: _json_values(item) for name, item in value.items()}
        case list() | tuple():
            return [_json_values(item) for item in value]
        case _:
            return value


# --- decoding -----------------------------------------------------------------------------------------------


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
        relations = (dataclasses.replace(each, columns=typed(each.columns)) for each in body.relations)
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
        known = {item.name for item in dataclasses.fields(kind)}
        if unknown := sorted(fields.keys() - known):
            raise RemoteProtocolError(f"{kind.OP} has no field {unknown[0]!r}")
        return request_id, msgspec.convert(fields, kind)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError, KeyError) as error:
        raise RemoteProtocolError(f"malformed request: {error}") from error


# --- values -------------------------------------------------------------------------------------------------

_NAN = math.nan


def _float(value: Any) -> float:
    # Every NaN becomes the same object: tuples then compare and hash equal, as the protocol's NaNs do.
    number = float(value)
    return number if number == number else _NAN


def _instant(value: Any) -> datetime.datetime:
    return parse_instant(value) if isinstance(value, str) else instant_value(value)


def _uuid(value: Any) -> uuid.UUID:
    return parse_uuid(value) if isinstance(value, str) else uuid.UUID(bytes=bytes(value))


def _bytes(value: Any) -> bytes:
    return parse_bytes(value) if isinstance(value, str) else bytes(value)


def _defined(kind: str, types: Mapping[str, TypeInfo]) -> Callable[[Any], Any]:
    """A reader of a defined type's values. Rows must be hashable, so records become tuples."""

    def fields(values: Sequence[Any], columns: tuple[Column, ...]) -> tuple[Any, ...]:
        return tuple(read(value, column.type) for value, column in zip(values, columns, strict=True))

    def read(value: Any, name: str) -> Any:
        info = types.get(name)
        if info is None:
            reader = _READERS.get(name)
            return value if reader is None else reader(value)
        if info.record is not None:
            return None if value is None else fields(value, info.record)
        ((branch, values),) = value.items()
        name = branch.removeprefix("$")
        return Branch(name, fields(values, (info.branches or {})[name]))

    return lambda value: read(value, kind)


_SPELLED_AS_THEMSELVES = frozenset({"number", "unsigned", "symbol", "bool"})
_READERS: Mapping[str, Callable[[Any], Any]] = {
    "float": _float,
    "instant": _instant,
    "uuid": _uuid,
    "bytes": _bytes,
}


def row_reader(columns: Sequence[Column], encoding: Encoding) -> Callable[[Row], Row] | None:
    """The function that turns decoded rows into rows of Python values, or None where they are already.

    Reading a value that doesn't fit its column raises `RemoteProtocolError`.
    """
    if all(column.type in _SPELLED_AS_THEMSELVES for column in columns):
        return None
    readers = [
        None
        if column.type in _SPELLED_AS_THEMSELVES
        else _READERS.get(column.type) or _defined(column.type, column.types or {})
        for column in columns
    ]

    def read(row: Row) -> Row:
        try:
            return tuple(
                value if reader is None else reader(value) for reader, value in zip(readers, row, strict=True)
            )
        except (TypeError, ValueError, LookupError, AttributeError, msgspec.MsgspecError) as error:
            raise RemoteProtocolError(
                f"the server sent a row that does not fit its columns: {error}"
            ) from error

    return read
