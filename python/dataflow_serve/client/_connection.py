"""The protocol without I/O: a client's side of one connection as a state machine.

A driver (``_trio.py``, or a test) moves the bytes: it sends what `Connection.send` returns, feeds what the
transport delivers to `Connection.receive`, and asks `Connection.next_event` until there is nothing more. The
machine numbers requests, matches replies to them, knows which subscriptions are open, and turns rows into
Python values.

Two kinds of misuse are two exceptions: `LocalProtocolError` is the driver's or its caller's mistake and
leaves the connection as it was; `RemoteProtocolError` is the server's, and ends the connection.
"""

from __future__ import annotations

import enum
import itertools
from collections.abc import Callable
from typing import NewType, TypeAlias

from msgspec import Struct
from msgspec.structs import replace

from dataflow_serve.client._framing import Framing
from dataflow_serve.errors import DataflowError, LocalProtocolError, RemoteProtocolError
from dataflow_serve.protocol import (
    Changes,
    Encoding,
    Ended,
    Failure,
    Hello,
    Reached,
    Reply,
    ReplyBody,
    Request,
    Row,
    Subscribe,
    Subscribed,
    Undecoded,
    Unsubscribe,
    decode_message,
    encode_request,
    row_reader,
)

__all__ = ["Connection", "Disconnected", "Event", "Refused", "Replied", "RequestId"]

RequestId = NewType("RequestId", int)
"""A request's number on its connection, from 1."""


class Replied(Struct, frozen=True):
    """A request succeeded."""

    id: RequestId
    request: Request
    body: ReplyBody


class Refused(Struct, frozen=True):
    """A request failed; ``id`` is None when the server could not read whose it was, and then none is sure."""

    id: RequestId | None
    error: DataflowError


class Disconnected(Struct, frozen=True):
    """The server closed the connection; nothing follows."""


Event: TypeAlias = Replied | Refused | Changes | Undecoded | Reached | Ended | Disconnected


class _State(enum.Enum):
    FRESH = "nothing was sent yet"
    OPEN = "open"
    CLOSED = "closed"


class _Route(Struct):
    """An open subscription: what pushes for it need."""

    columns: tuple[object, ...]
    read_row: Callable[[Row], Row] | None
    closing: bool = False


class Connection:
    """One connection's protocol state, from preamble to end of stream."""

    def __init__(self, framing: Framing) -> None:
        """Start a conversation in ``framing``."""
        self._framing = framing
        self._state = _State.FRESH
        self._numbers = itertools.count(1)
        self._pending: dict[RequestId, Request] = {}
        self._routes: dict[int, _Route] = {}
        self._undecoded: set[int] = set()
        self._end_of_stream = False

    @property
    def outstanding(self) -> int:
        """How many requests have no reply yet."""
        return len(self._pending)

    def send(self, request: Request) -> tuple[RequestId, bytes]:
        """Number a request and give the bytes that must be sent for it, in the order of these calls.

        Unsubscribing silences a subscription at once: what is under way for it makes no more events.

        Raises:
            LocalProtocolError: the connection is closed, the request makes no sense now, or a value cannot be
                encoded.
        """
        if self._state is _State.CLOSED:
            raise LocalProtocolError(f"cannot send {request.OP}: the connection is closed")
        if isinstance(request, Hello) and self._state is not _State.FRESH:
            raise LocalProtocolError("cannot send hello: it must be the first request of a connection")
        if isinstance(request, Unsubscribe) and self._route(request.sub) is None:
            raise LocalProtocolError(f"cannot unsubscribe from {request.sub}: no such subscription is open")
        number = RequestId(next(self._numbers))
        frame = self._framing.wrap(encode_request(number, request, self._framing.encoding))
        if self._state is _State.FRESH:
            self._state = _State.OPEN
            frame = self._framing.preamble + frame
        if isinstance(request, Unsubscribe):
            self._routes[request.sub].closing = True
        self._pending[number] = request
        return number, frame

    def leave_undecoded(self, sub: int) -> None:
        """Have the changes of an open subscription left as they are sent: they come as `Undecoded`."""
        self._undecoded.add(sub)

    def receive(self, data: bytes | str) -> None:
        """Take what the transport delivered; ``b""`` is the end of the stream.

        Raises:
            LocalProtocolError: the end of the stream was fed already.
        """
        if self._end_of_stream:
            raise LocalProtocolError("cannot receive after the end of the stream")
        if data == b"":
            self._end_of_stream = True
        else:
            self._framing.feed(data)

    def next_event(self) -> Event | None:
        """What happened next, or None until more is received.

        Raises:
            RemoteProtocolError: the server broke the protocol; the connection is closed.
        """
        if self._state is _State.CLOSED:
            return None
        try:
            while (payload := self._framing.next_payload()) is not None:
                if (event := self._interpret(*payload)) is not None:
                    return event
            if not self._end_of_stream:
                return None
            if self._framing.midway:
                raise RemoteProtocolError("the server closed the connection inside a message")
        except RemoteProtocolError:
            self._state = _State.CLOSED
            raise
        self._state = _State.CLOSED
        return Disconnected()

    def _interpret(self, payload: bytes, encoding: Encoding) -> Event | None:
        match decode_message(payload, encoding, self._undecoded):
            case Reply() as reply:
                return self._replied(reply)
            case Failure() as failure:
                return self._refused(failure)
            case Changes() as changes:
                return self._changed(changes)
            case (Undecoded() | Reached()) as pushed:
                return pushed if self._expect(pushed.sub) else None
            case Ended() as ended:
                silenced = not self._expect(ended.sub)
                self._forget(ended.sub)
                return None if silenced else ended

    def _replied(self, reply: Reply) -> Replied:
        number, request = self._take(reply.id)
        body = reply.decode(request)
        match request, body:
            case Subscribe(), Subscribed(sub=sub, columns=columns):
                if sub in self._routes:
                    raise RemoteProtocolError(f"the server gave the number {sub} to two subscriptions")
                self._routes[sub] = _Route(columns, row_reader(columns, reply.encoding))
            case Unsubscribe(sub=sub), _:
                self._forget(sub)
        return Replied(number, request, body)

    def _refused(self, failure: Failure) -> Refused:
        if failure.id is None:
            return Refused(None, failure.error.to_exception())
        number, _ = self._take(failure.id)
        return Refused(number, failure.error.to_exception())

    def _take(self, number: object) -> tuple[RequestId, Request]:
        if not isinstance(number, int) or RequestId(number) not in self._pending:
            raise RemoteProtocolError(f"the server answered request {number!r}, which nobody made")
        return RequestId(number), self._pending.pop(RequestId(number))

    def _changed(self, changes: Changes) -> Changes | None:
        route = self._expect(changes.sub)
        if route is None:
            return None
        if (read := route.read_row) is None:
            return changes
        return replace(changes, changes=[(read(row), diff) for row, diff in changes.changes])

    def _forget(self, sub: int) -> None:
        self._routes.pop(sub, None)
        self._undecoded.discard(sub)

    def _expect(self, sub: int) -> _Route | None:
        """The route of a push, or None where nobody listens any more."""
        route = self._routes.get(sub)
        if route is None:
            raise RemoteProtocolError(f"the server pushed to subscription {sub}, which is not open")
        return None if route.closing else route

    def _route(self, sub: int) -> _Route | None:
        route = self._routes.get(sub)
        return None if route is None or route.closing else route
