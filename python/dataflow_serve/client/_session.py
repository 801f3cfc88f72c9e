"""What keeps a client connected: one link after another, what was sent on it, and subscriptions that go on.

The client's operations are in `_trio`; what they have in common is here.
"""

from __future__ import annotations

import logging
import random
from collections.abc import Awaitable, Callable
from typing import Any, Literal, TypeVar

import trio

from dataflow_serve.client._connection import Connection
from dataflow_serve.client._framing import Framing
from dataflow_serve.client._link import Link, Pending
from dataflow_serve.client._subscription import Subscription
from dataflow_serve.client._transport import Transport
from dataflow_serve.errors import (
    ConnectionClosed,
    DataflowError,
    ForbiddenError,
    LocalProtocolError,
    RemoteProtocolError,
    UnavailableError,
    UnsupportedError,
)
from dataflow_serve.protocol import (
    Change,
    Hello,
    ReplyBody,
    Request,
    ServerInfo,
    Subscribed,
    Transact,
    Transacted,
)

__all__ = ["Session", "Wait"]

BodyT = TypeVar("BodyT", bound=ReplyBody)
Dial = Callable[[trio.Nursery], Awaitable[tuple[Transport, Framing]]]
Wait = bool | Literal["sequenced", "visible"]
"""What a transaction waits for; False: nothing."""

# A new attempt to connect waits between these, doubling; how long one attempt may take; how often it is told.
FIRST_PAUSE = 0.1
LONGEST_PAUSE = 5.0
ATTEMPT_SECONDS = 10.0
TELL_SECONDS = 30.0

# Pipelined transactions that are settled are dropped once there are this many, so that dropping costs little
# each.
FORGET_AT = 1024

_log = logging.getLogger("dataflow_serve.client")


class Session:
    """A connection to a server that is made again when it is lost, for any number of tasks.

    Attributes:
        url: Where the server is.
        info: What the server said about itself when the connection was last made.
        link: The present connection, if there is one.
    """

    info: ServerInfo

    def __init__(
        self, url: str, dial: Dial, token: str | None, reconnect: bool, ping_interval: float
    ) -> None:
        """Describe it; `run` makes the connection."""
        self.url = url
        self._dial = dial
        self._token = token
        self._reconnect = reconnect
        self._ping_interval = ping_interval
        self.link: Link | None = None
        self._closed: DataflowError | None = None
        self._changed = trio.Event()
        self._scope = trio.CancelScope()
        self._subscriptions: set[Subscription[Any]] = set()
        self._pipelined: set[Pending[Transacted]] = set()
        self._forget_at = FORGET_AT

    @property
    def connected(self) -> bool:
        """Whether there is a connection right now."""
        return self.link is not None and self.link.reason is None

    async def wait_connected(self) -> None:
        """Wait until there is a connection. Cancelling leaves nothing behind.

        Raises:
            ConnectionClosed: there won't be any more.
        """
        while not self.connected:
            if self._closed is not None:
                raise self._over()
            await self._changed.wait()

    def close(self) -> None:
        """Close the connection for good; what waits on it fails."""
        self._scope.cancel()

    # --- requests -------------------------------------------------------------------------------------------

    async def transact(
        self, changes: list[Change], key: str | None, wait: Wait
    ) -> Transacted | Pending[Transacted]:
        """Transact, and wait as ``wait`` says; with a ``key``, again on the next connection where need be.

        Cancelling leaves the outcome unknown.

        Raises:
            ConnectionClosed: the outcome is unknown, or there won't be another connection.
            UnavailableError: not connected right now.
        """
        if wait is False:
            return await self.send(changes, key, visible=False)
        request = Transact(changes, key, None if wait == "sequenced" else "visible")
        while True:
            try:
                return await self.ask(request, Transacted)
            except (ConnectionClosed, UnavailableError):
                if key is None or self._closed is not None:
                    raise
                # The same key makes this the same transaction, whether or not the first one came through.
                await self.wait_connected()

    async def send(self, changes: list[Change], key: str | None, *, visible: bool) -> Pending[Transacted]:
        """Send a transaction without waiting for it."""
        request = Transact(changes, key, "visible" if visible else None)
        pending = await self.current().send(request, Transacted)
        self._remember(pending)
        return pending

    async def ask(self, request: Request, kind: type[BodyT]) -> BodyT:
        """A request's reply. Cancelling leaves its outcome unknown.

        Raises:
            DataflowError: the server's answer, or the connection's end.
        """
        return await self.current().call(request, kind)

    def current(self) -> Link:
        """The present connection.

        Raises:
            ConnectionClosed: there won't be any more.
            UnavailableError: there is none right now.
        """
        if self.link is not None and self.link.reason is None:
            return self.link
        if self._closed is not None:
            raise self._over()
        raise UnavailableError(f"not connected to {self.url} right now; connecting again", retry=True)

    def _over(self) -> ConnectionClosed:
        assert self._closed is not None
        return ConnectionClosed(f"the client of {self.url} is closed: {self._closed.message}")

    async def settle(self) -> None:
        """Wait for transactions that were sent without waiting. Cancelling leaves their outcome unknown."""
        for pending in [pending for pending in self._pipelined if not pending.claimed]:
            try:
                await pending.result()
            except DataflowError as error:
                _log.warning("a transaction sent with wait=False failed, and nobody asked: %s", error)

    def _remember(self, pending: Pending[Transacted]) -> None:
        self._pipelined.add(pending)
        if len(self._pipelined) >= self._forget_at:
            self._pipelined = {other for other in self._pipelined if not other.done}
            self._forget_at = max(FORGET_AT, 2 * len(self._pipelined))

    # --- the host of subscriptions --------------------------------------------------------------------------

    async def adopt(self, subscription: Subscription[Any]) -> Subscribed:
        """Make a subscription's first request; see `Subscription`. Cancelling leaves nothing subscribed."""
        self._subscriptions.add(subscription)
        return await self._request_subscription(self.current(), subscription)

    async def resume(self, subscription: Subscription[Any]) -> None:
        """Continue a subscription that was too slow. Cancelling may leave it continued."""
        await self.wait_connected()
        try:
            await self._request_subscription(self.current(), subscription)
        except ConnectionClosed:
            # The next connection continues it with all the others, or the end of the client ends it.
            await self.wait_connected()

    def release(self, subscription: Subscription[Any]) -> None:
        """Forget a subscription."""
        self._subscriptions.discard(subscription)

    async def _request_subscription(self, link: Link, subscription: Subscription[Any]) -> Subscribed:
        def opened(body: Subscribed) -> None:
            subscription.opened(link, body)

        return await link.call(subscription.request(), Subscribed, opened)

    # --- staying connected ----------------------------------------------------------------------------------

    async def run(self, *, task_status: trio.TaskStatus[None]) -> None:
        """Keep a connection up until the client is closed or there is no point in going on.

        Raises what the first attempt failed with; cancelling closes the client.
        """
        reason: DataflowError = ConnectionClosed("closed by this program")
        try:
            with self._scope:
                came_up, failure = await self._converse(task_status.started)
                if not came_up:
                    raise failure
                while self._reconnect and _worth_retrying(failure):
                    _log.warning("lost %s (%s); connecting again", self.url, failure.message)
                    failure = await self._converse_again()
                reason = failure
        finally:
            self._end(reason)

    async def _converse_again(self) -> DataflowError:
        """Try until a connection comes up, and why that one was lost. Cancelling leaves no connection."""
        pause, told = FIRST_PAUSE, trio.current_time()
        while True:
            await trio.sleep(pause * random.uniform(0.5, 1.0))
            came_up, failure = await self._converse(lambda: _log.info("connected to %s again", self.url))
            if came_up or not _worth_retrying(failure):
                return failure
            if trio.current_time() >= told + TELL_SECONDS:
                told = trio.current_time()
                _log.warning("still not connected: %s", failure.message)
            pause = min(2 * pause, LONGEST_PAUSE)

    async def _converse(self, came_up: Callable[[], object]) -> tuple[bool, DataflowError]:
        """One connection from dialling to its loss: whether it came up, and why it ended.

        Cancelling closes it.
        """
        up = False
        async with trio.open_nursery() as nursery:
            try:
                with trio.fail_after(ATTEMPT_SECONDS):
                    transport, framing = await self._dial(nursery)
                    link = Link(Connection(framing), transport)
                    nursery.start_soon(link.run, self._ping_interval)
                    self.info = await link.call(Hello(token=self._token), ServerInfo)
                await self._restore(link)
                up = True
                self._connected(link)
                came_up()
                await link.lost.wait()
                assert link.reason is not None
                failure = link.reason
            except trio.TooSlowError:
                failure = UnavailableError(f"{self.url} gave no answer in {ATTEMPT_SECONDS:g} s", retry=True)
            except DataflowError as error:
                failure = error
            finally:
                self._disconnected()
                nursery.cancel_scope.cancel()
        return up, failure

    async def _restore(self, link: Link) -> None:
        """Continue all subscriptions on a new connection. Cancelling leaves some not continued."""
        for subscription in list(self._subscriptions):
            if not subscription.goes_on:
                continue
            try:
                await self._request_subscription(link, subscription)
            except ConnectionClosed:
                raise
            except DataflowError as error:
                subscription.fail(error)

    def _connected(self, link: Link) -> None:
        self.link = link
        self._announce()

    def _disconnected(self) -> None:
        self.link = None
        for subscription in self._subscriptions:
            subscription.disconnected()

    def _end(self, reason: DataflowError) -> None:
        self._closed = reason
        for subscription in self._subscriptions:
            text = f"the subscription of {subscription.relation} ended: {reason.message}"
            subscription.fail(ConnectionClosed(text) if isinstance(reason, ConnectionClosed) else reason)
        self._announce()

    def _announce(self) -> None:
        self._changed.set()
        self._changed = trio.Event()


def _worth_retrying(failure: DataflowError) -> bool:
    """Whether another connection could fare better than the one that ended with ``failure``."""
    return not isinstance(
        failure, ForbiddenError | UnsupportedError | RemoteProtocolError | LocalProtocolError
    )
