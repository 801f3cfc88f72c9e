"""One connection while it lasts: the tasks that move its bytes, and who waits for what on it.

A link is never repaired. When it is lost, everything that waits on it fails with the reason, and its `Client`
makes a new one.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, Generic, Protocol, TypeAlias, TypeVar

import trio

from dataflow_serve.client._connection import Connection, Disconnected, Event, Refused, Replied, RequestId
from dataflow_serve.client._transport import Transport
from dataflow_serve.errors import ConnectionClosed, DataflowError, RemoteProtocolError
from dataflow_serve.protocol import (
    Changes,
    Ended,
    Ping,
    Pong,
    Reached,
    ReplyBody,
    Request,
    Transact,
    Unsubscribe,
    Unsubscribed,
)

__all__ = ["Link", "Listener", "Pending", "Pushed"]

Pushed: TypeAlias = Changes | Reached | Ended
"""What a server sends for a subscription."""

T = TypeVar("T", bound=ReplyBody)
T_co = TypeVar("T_co", bound=ReplyBody, covariant=True)

# Requests that wait to be written; beyond it callers wait. A single larger request still goes out.
OUTBOX_BYTES = 1024 * 1024

# How long a broken write waits for the reader to come upon the reason.
PARTING_SECONDS = 1.0


class Listener(Protocol):
    """Whoever takes a subscription's messages; called from the link's reading task, must not block."""

    @property
    def full(self) -> bool:
        """Whether it would rather not be given more now."""
        ...

    def push(self, message: Pushed) -> None:
        """Take a message."""
        ...


class Pending(Generic[T_co]):
    """A request that was handed to the connection and whose reply is awaited.

    Attributes:
        claimed: Whether anybody asked for its result.
    """

    def __init__(self, op: str, kind: type[T_co], taken: Callable[[Any], None] | None) -> None:
        """Wait for a reply of ``kind``; ``taken`` gets it before anything that follows it is read."""
        self._op = op
        self._kind = kind
        self._taken = taken
        self.claimed = False
        self._settled = trio.Event()
        self._body: T_co | None = None
        self._failure: Callable[[], DataflowError] | None = None

    @property
    def done(self) -> bool:
        """Whether `result` would return or raise at once."""
        return self._settled.is_set()

    async def result(self) -> T_co:
        """Wait for the reply.

        Cancelling gives up waiting only: the request stays sent, and this can be called again.

        Raises:
            DataflowError: the server refused the request.
            ConnectionClosed: the connection was lost first; whether the request took effect is unknown.
        """
        self.claimed = True
        await self._settled.wait()
        if self._failure is not None:
            raise self._failure()
        assert self._body is not None
        return self._body

    def succeed(self, body: ReplyBody) -> None:
        """Deliver the reply."""
        assert isinstance(body, self._kind)
        if self._taken is not None:
            self._taken(body)
        self._body = body
        self._settled.set()

    def fail(self, failure: Callable[[], DataflowError]) -> None:
        """Deliver a failure; each waiter gets an exception of its own, with its own traceback."""
        self._failure = failure
        self._settled.set()

    def lose(self, reason: DataflowError) -> None:
        """Deliver the loss of the connection, or the server's parting words."""
        if isinstance(reason, ConnectionClosed | RemoteProtocolError):
            self.fail(lambda: _lost(self._op, reason))
        else:
            self.fail(lambda: reason)


def _lost(op: str, reason: DataflowError) -> ConnectionClosed:
    hint = None
    if op == Transact.OP:
        hint = "Whether it took effect is unknown; with a `key` the client settles that by itself."
    return ConnectionClosed(f"{op} got no answer: {reason.message}", hint, retry=True)


class _Outbox:
    """Frames on their way to the socket, bounded in bytes."""

    def __init__(self) -> None:
        self._frames: list[bytes] = []
        self._bytes = 0
        self._filled = trio.Event()
        self._emptied = trio.Event()

    async def room(self) -> None:
        while self._bytes >= OUTBOX_BYTES:
            await self._emptied.wait()

    def put(self, frame: bytes) -> None:
        self._frames.append(frame)
        self._bytes += len(frame)
        self._filled.set()

    async def take(self) -> Sequence[bytes]:
        await self._filled.wait()
        frames, self._frames, self._bytes = self._frames, [], 0
        self._filled = trio.Event()
        self.release()
        return frames

    def release(self) -> None:
        """Let everybody in who waits for room; those that don't fit wait again."""
        self._emptied.set()
        self._emptied = trio.Event()


class Link:
    """A connection in use: requests out, replies to whoever waits, pushes to their listeners."""

    def __init__(self, connection: Connection, transport: Transport) -> None:
        """Wrap an open transport; `run` must be started for anything to move."""
        self.lost = trio.Event()
        self.reason: DataflowError | None = None
        self._connection = connection
        self._transport = transport
        self._outbox = _Outbox()
        self._pending: dict[RequestId, Pending[Any]] = {}
        self._listeners: dict[int, Listener] = {}
        self._relief = trio.Event()
        self._chunks_received = 0
        self._paused = False

    # --- what callers do ------------------------------------------------------------------------------------

    async def send(
        self, request: Request, kind: type[T], taken: Callable[[T], None] | None = None
    ) -> Pending[T]:
        """Hand a request to the connection once its outbox has room.

        Cancelling while there is no room sends nothing; afterwards the request is on its way as a whole.

        Raises:
            LocalProtocolError: a value cannot be encoded; nothing was sent.
            ConnectionClosed: the link is lost; nothing was sent.
        """
        await trio.lowlevel.checkpoint()
        await self._outbox.room()
        return self.send_nowait(request, kind, taken)

    def send_nowait(
        self, request: Request, kind: type[T], taken: Callable[[T], None] | None = None
    ) -> Pending[T]:
        """Like `send`, over the bound of the outbox if it must be; for requests that are small and rare."""
        if self.reason is not None:
            raise _lost(request.OP, self.reason)
        number, frame = self._connection.send(request)
        pending = Pending(request.OP, kind, taken)
        self._pending[number] = pending
        self._outbox.put(frame)
        # A pause must end when a reply is awaited; see `_read`.
        self.relieve()
        return pending

    async def call(self, request: Request, kind: type[T], taken: Callable[[T], None] | None = None) -> T:
        """Send a request and wait for its reply.

        Cancelling while waiting leaves the request sent.
        """
        return await (await self.send(request, kind, taken)).result()

    def listen(self, sub: int, listener: Listener) -> None:
        """Route a subscription's messages."""
        self._listeners[sub] = listener

    def silence(self, sub: int) -> None:
        """Unsubscribe without waiting: no message reaches the listener from here on."""
        if self.reason is None and self._listeners.pop(sub, None) is not None:
            self.send_nowait(Unsubscribe(sub), Unsubscribed)
            self.relieve()

    def relieve(self) -> None:
        """Say that a full listener has room again, or that a reply is awaited now."""
        self._relief.set()

    # --- the tasks ------------------------------------------------------------------------------------------

    async def run(self, ping_interval: float) -> None:
        """Move bytes until the link is lost; never raises but for cancellation, which loses the link."""
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._guarded, self._read)
                nursery.start_soon(self._guarded, self._write)
                if ping_interval < math.inf:
                    nursery.start_soon(self._guarded, self._watch, ping_interval)
                await self.lost.wait()
                nursery.cancel_scope.cancel()
        finally:
            self.lose(ConnectionClosed("the connection was closed by this client"))
            await trio.aclose_forcefully(self._transport)

    def lose(self, reason: DataflowError) -> None:
        """Declare the link dead; the first reason counts."""
        if self.reason is not None:
            return
        self.reason = reason
        pending, self._pending = self._pending, {}
        for request in pending.values():
            request.lose(reason)
        self._listeners = {}
        self._outbox.release()
        self.lost.set()

    async def _guarded(self, task: Callable[..., Any], *args: object) -> None:
        try:
            await task(*args)
        except DataflowError as error:
            self.lose(error)
        except (trio.BrokenResourceError, trio.ClosedResourceError, OSError) as error:
            text = str(error) or str(error.__cause__ or "") or type(error).__name__
            self.lose(ConnectionClosed(f"the connection broke: {text}", retry=True))

    async def _read(self) -> None:
        """Deliver what comes in, and stop reading while a listener is full: the server's turn to hold back.

        While a reply is awaited reading goes on in any case. Otherwise a task that makes a request between
        two steps could wait for a reply that stands behind steps only it can take. What a listener gets too
        much then is bounded by what the server has under way for this connection.
        """
        while True:
            data = await self._transport.receive()
            self._chunks_received += 1
            self._connection.receive(data)
            # Once the link is lost nobody waits any more, so that nothing can be delivered either.
            while self.reason is None and (event := self._connection.next_event()) is not None:
                self._deliver(event)
                while self._must_pause():
                    self._paused = True
                    self._relief = trio.Event()
                    await self._relief.wait()
                self._paused = False

    def _must_pause(self) -> bool:
        return self._connection.outstanding == 0 and any(
            listener.full for listener in self._listeners.values()
        )

    def _deliver(self, event: Event) -> None:
        match event:
            case Replied(id=number, body=body):
                self._pending.pop(number).succeed(body)
            case Refused(id=None, error=error):
                # It answers one of our requests, and nobody can say which: it has to answer all of them.
                raise error
            case Refused(id=int(number), error=error):
                self._pending.pop(RequestId(number)).fail(lambda: error)
            case Changes(sub=sub) | Reached(sub=sub):
                self._listeners[sub].push(event)
            case Ended(sub=sub):
                self._listeners.pop(sub).push(event)
            case Disconnected():
                raise ConnectionClosed("the server closed the connection", retry=True)

    async def _write(self) -> None:
        try:
            while True:
                await self._transport.send(await self._outbox.take())
        except (trio.BrokenResourceError, OSError):
            # A server that closes says why before: let the reader find that, it's the better reason.
            with trio.move_on_after(PARTING_SECONDS):
                await self.lost.wait()
            raise

    async def _watch(self, ping_interval: float) -> None:
        """Notice a silent peer within ``ping_interval``.

        A third of it hears the last of the peer at the latest, a third is quiet, and a third waits for the
        answer to a ping. While reading is paused silence says nothing.
        """
        while True:
            heard = self._chunks_received
            await trio.sleep(ping_interval / 3)
            if self._paused or self._chunks_received > heard:
                continue
            pong = self.send_nowait(Ping(), Pong)
            await trio.sleep(ping_interval / 3)
            if not pong.done and not self._paused and self._chunks_received == heard:
                raise ConnectionClosed(f"the server was silent for {ping_interval:g} s", retry=True)
