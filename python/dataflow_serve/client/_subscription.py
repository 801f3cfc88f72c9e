"""A subscription of the trio client: messages in from the link, steps out to one consumer."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from types import TracebackType
from typing import Any, Generic, Literal, Protocol, Self, TypeAlias, TypeVar, cast

import trio
from msgspec.structs import replace

from dataflow_serve.client._link import Link, Pushed
from dataflow_serve.client._order import Order, order_names
from dataflow_serve.client._view import Progress, Step, StepAssembler
from dataflow_serve.errors import BusyError, ConnectionClosed, DataflowError, LocalProtocolError
from dataflow_serve.protocol import Changes, Column, Ended, Reached, Subscribe, Subscribed, Value

__all__ = ["Slow", "Subscription"]

Slow: TypeAlias = Literal["coalesce", "end"]
"""What becomes of a subscription that is read too slowly."""

ItemT = TypeVar("ItemT", bound=Step | Progress)

BUFFERED_CHANGES = 50_000
"""Changes that wait for the consumer before the connection stops reading."""


class Host(Protocol):
    """What a subscription needs of its client: a way to the server, now and after a reconnection."""

    async def adopt(self, subscription: Subscription[Any]) -> Subscribed:
        """Keep the subscription alive from now on, and make its first request."""
        ...

    async def resume(self, subscription: Subscription[Any]) -> None:
        """Make the request that continues it."""
        ...

    def release(self, subscription: Subscription[Any]) -> None:
        """Forget the subscription."""
        ...


class _Gap:
    """Stands in the buffer where a connection was lost: a step that has begun will never end."""


class Subscription(Generic[ItemT]):
    """Steps of one relation, for one task: ``async with db["reach"].subscribe() as steps: ...``.

    The steps, applied in order, give exactly the relation's contents at each step's time. Of a lost
    connection only a log line tells: the subscription goes on where it was, or, where the server can't, with
    a step marked ``resync`` that holds the whole contents again.

    Steps that nobody takes wait in a bounded buffer. When that is full the client stops reading the
    connection, so that the server's merging of steps and its limits for slow readers take effect; other
    subscriptions of the same client then wait as well. Requests don't: while one waits for its reply, reading
    goes on.

    Attributes:
        relation: The relation's name.
        columns: Its columns, known once entered.
        time: The time of the last step taken; before the first, the time the subscription began at.
        history: With ``time``, what a later subscription needs to continue from here.
    """

    def __init__(self, host: Host, request: Subscribe) -> None:
        """Describe a subscription; entering it makes it."""
        self.relation = request.relation
        self.columns: tuple[Column, ...] = ()
        self.time: int | None = request.since
        self.history: Any = request.history
        self._host = host
        self._request = request
        self._wants_progress = bool(request.progress)
        self._buffer: deque[Changes | Reached | Ended | DataflowError | _Gap] = deque()
        self._buffered = 0
        self._arrived = trio.Event()
        self._assembler = StepAssembler()
        self._link: Link | None = None
        self._sub: int | None = None
        # The last time that is whole in what was pushed so far; where a continuation starts.
        self._reached: int | None = request.since
        self._too_slow = False
        self._end_ahead = False
        self._finished = False
        self._entered = False

    # --- for the consumer -----------------------------------------------------------------------------------

    async def __aenter__(self) -> Self:
        """Subscribe.

        Cancelling leaves nothing subscribed, at the latest when the server's answer comes.

        Raises:
            NotFoundError: there is no such relation.
            IncorrectError: ``where`` doesn't fit its columns.
        """
        if self._entered:
            raise LocalProtocolError(f"a subscription of {self.relation} can be entered once only")
        self._entered = True
        try:
            await self._host.adopt(self)
        except BaseException:
            self.leave()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Unsubscribe, without waiting for the server: also when cancelled."""
        self.leave()

    async def aclose(self) -> None:
        """Unsubscribe without waiting for the server; also when cancelled. Can be called twice."""
        self.leave()
        await trio.lowlevel.checkpoint()

    def __aiter__(self) -> Self:
        """Iterate over the steps."""
        return self

    async def __anext__(self) -> ItemT:
        """The next step; see `receive`. After the error that ended the subscription the iteration is over."""
        if self._finished:
            raise StopAsyncIteration
        return await self.receive()

    async def receive(self) -> ItemT:
        """Wait for the next step, or with ``progress`` also for the next `Progress`.

        Cancelling loses nothing: the next call gives what this one would have.

        Raises:
            NotFoundError: the relation was unregistered.
            InterruptedQueryError: a limit, a cancellation, a shutdown or a restart ended it.
            ConnectionClosed: the connection is gone, and isn't made again.
        """
        await trio.lowlevel.checkpoint()
        while True:
            if (item := self._next_whole()) is not None:
                return item
            if self._too_slow:
                await self._host.resume(self)
            elif not self._buffer:
                await self._arrived.wait()

    def receive_nowait(self) -> ItemT | None:
        """The next step if all of it is here, or None.

        Raises:
            DataflowError: as `receive`.
        """
        return self._next_whole()

    def _next_whole(self) -> ItemT | None:
        if self._finished:
            raise ConnectionClosed(f"the subscription of {self.relation} is over")
        while self._buffer and not self._too_slow:
            message = self._buffer.popleft()
            if not self._buffer:
                self._arrived = trio.Event()
            match message:
                case Changes():
                    self._relieve(len(message.changes) + 1)
                    if (step := self._assembler.add(message)) is not None:
                        self.time = step.time
                        return cast(ItemT, step)
                case Reached(time=time):
                    self._relieve(1)
                    self.time = time
                    if self._wants_progress:
                        # ItemT has it where it was asked for; see the overloads of `Client.subscribe`.
                        return cast(ItemT, Progress(time))
                case _Gap():
                    self._assembler.discard()
                case Ended(error=body):
                    self._ended(body.to_exception())
                case DataflowError():
                    self._ended(message)
        return None

    def _ended(self, error: DataflowError) -> None:
        self._end_ahead = False
        self._assembler.discard()
        self._sub = None
        if isinstance(error, BusyError) and self._request.slow != "end":
            # Too slow for a while. Whoever comes back for more gets on from where it was: see `receive`.
            self._too_slow = True
            return
        self.leave()
        raise error

    def _relieve(self, amount: int) -> None:
        was_full = self.full
        self._buffered -= amount
        if was_full and not self.full and self._link is not None:
            self._link.relieve()

    def leave(self) -> None:
        """Unsubscribe without waiting; nothing more comes out of it. Twice is fine."""
        self._finished = True
        self._host.release(self)
        if self._link is not None and self._sub is not None:
            self._link.silence(self._sub)
        self._buffer.clear()
        self._sub = self._link = None

    # --- for the link and the client ------------------------------------------------------------------------

    @property
    def full(self) -> bool:
        """Whether more waits for the consumer than should."""
        return self._buffered >= BUFFERED_CHANGES

    def push(self, message: Pushed) -> None:
        """Take a message from the link."""
        match message:
            case Changes():
                self._buffered += len(message.changes) + 1
                if not message.more:
                    self._reached = message.time
            case Reached():
                self._buffered += 1
                self._reached = message.time
            case Ended():
                self._end_ahead = True
        self._put(message)

    @property
    def goes_on(self) -> bool:
        """Whether another connection continues it; not one whose end waits for the consumer, who decides."""
        return not self._end_ahead

    def request(self) -> Subscribe:
        """The request that starts it, or continues it after the last whole step that was pushed."""
        if self._reached is None:
            return self._request
        return replace(self._request, since=self._reached, history=self.history)

    def opened(self, link: Link, body: Subscribed) -> None:
        """The server agreed on ``link``; everything that follows for it is for this object, or for nobody."""
        link.listen(body.sub, self)
        if self._finished or self._sub is not None:
            link.silence(body.sub)
            return
        self._link, self._sub = link, body.sub
        self._too_slow = False
        self.columns, self.history = body.columns, body.history
        if self.time is None:
            self.time = body.time
        if self._request.snapshot is False and self._reached is None:
            self._reached = body.time

    def disconnected(self) -> None:
        """The link is lost; another may come."""
        self._link = self._sub = None
        self._put(_Gap())

    def fail(self, error: DataflowError) -> None:
        """It cannot go on: the consumer gets to know after what it has not taken yet."""
        self._end_ahead = True
        self._put(error)

    def _put(self, message: Changes | Reached | Ended | DataflowError | _Gap) -> None:
        self._buffer.append(message)
        self._arrived.set()


def subscribe_request(
    relation: str,
    *,
    snapshot: bool,
    progress: bool,
    where: Mapping[str, Value] | None,
    since: int | None,
    history: Any,
    slow: Slow = "coalesce",
    backlog: int | None = None,
    order: Order | None = None,
    limit: int | None = None,
) -> Subscribe:
    """Spell the wish of a caller; defaults of the protocol are left unsaid."""
    if (since is None) != (history is None):
        raise LocalProtocolError("to resume a subscription, `since` and `history` are needed together")
    return Subscribe(
        relation,
        snapshot=None if snapshot else False,
        progress=True if progress else None,
        where=dict(where) if where else None,
        since=since,
        history=history,
        slow=None if slow == "coalesce" else slow,
        backlog=backlog,
        order=order_names(order),
        limit=limit,
    )
