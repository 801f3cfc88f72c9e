"""What a blocking client waits for: transactions on their way, and the steps of a subscription."""

from __future__ import annotations

from collections import deque
from types import TracebackType
from typing import Any, Generic, Self, TypeVar

from dataflow_serve.client._link import Pending as TrioPending
from dataflow_serve.client._portal import Portal
from dataflow_serve.client._subscription import Subscription as TrioSubscription
from dataflow_serve.client._trio import Client
from dataflow_serve.client._view import Progress, Step
from dataflow_serve.errors import DataflowError
from dataflow_serve.protocol import (
    Column,
    Transacted,
)

__all__ = ["BlockingPending", "BlockingSubscription"]

ItemT = TypeVar("ItemT", bound=Step | Progress)


class BlockingPending:
    """A transaction on its way."""

    def __init__(self, portal: Portal[Client], pending: TrioPending[Transacted]) -> None:
        """Wrap what the trio client knows."""
        self._portal = portal
        self._pending = pending

    def done(self) -> bool:
        """Whether `result` would return or raise at once."""
        return self._pending.done

    def result(self) -> Transacted:
        """Wait for its time.

        Raises:
            DataflowError: the server refused it.
            ConnectionClosed: the connection was lost first; whether it took effect is unknown.
        """
        return self._portal.call(self._pending.result)


class BlockingSubscription(Generic[ItemT]):
    """Steps of one relation: ``with db["reach"].subscribe() as live: for step in live``.

    Ctrl-C interrupts waiting and loses no step. See `Subscription` for what is promised.
    """

    def __init__(self, portal: Portal[Client], subscription: TrioSubscription[ItemT]) -> None:
        """Wrap a subscription of the trio client."""
        self._portal = portal
        self._subscription = subscription
        # Filled in the client's thread, emptied by the consumer: a call into the thread for many steps at
        # once. It is an attribute, not a return value, so that an interrupted call loses nothing.
        self._fetched: deque[ItemT] = deque()
        self._failure: DataflowError | None = None
        self._time: int | None = None
        self._over = False

    @property
    def relation(self) -> str:
        """The relation's name."""
        return self._subscription.relation

    @property
    def columns(self) -> tuple[Column, ...]:
        """The relation's columns, known once entered."""
        return self._subscription.columns

    @property
    def time(self) -> int | None:
        """The time of the last step taken."""
        return self._time

    @property
    def history(self) -> Any:
        """With `time`, what a later subscription needs to continue from here."""
        return self._subscription.history

    def __enter__(self) -> Self:
        """Subscribe.

        Raises:
            NotFoundError: there is no such relation.
        """
        self._portal.call(self._subscription.__aenter__)
        self._time = self._subscription.time
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Unsubscribe."""
        self.close()

    def close(self) -> None:
        """Unsubscribe, without waiting for the server. Twice is fine."""
        self._over = True
        self._portal.soon(self._subscription.leave)

    def __iter__(self) -> Self:
        """Iterate over the steps."""
        return self

    def __next__(self) -> ItemT:
        """The next step; see `receive`. After the error that ended the subscription the iteration is over."""
        if self._over:
            raise StopIteration
        return self.receive()

    def receive(self) -> ItemT:
        """Wait for the next step, or with ``progress`` also for the next `Progress`.

        Raises:
            NotFoundError: the relation was unregistered.
            InterruptedQueryError: a limit, a cancellation, a shutdown or a restart ended it.
            ConnectionClosed: the connection is gone, and isn't made again.
        """
        if not self._fetched and self._failure is None:
            self._portal.call(self._fetch)
        if not self._fetched:
            self._over = True
            assert self._failure is not None
            raise self._failure
        item = self._fetched.popleft()
        self._time = item.time
        return item

    async def _fetch(self) -> None:
        """Wait for one step and take along what else is complete. Cancelling loses nothing."""
        try:
            item: ItemT | None = await self._subscription.receive()
            while item is not None:
                self._fetched.append(item)
                item = self._subscription.receive_nowait()
        except DataflowError as error:
            self._failure = error
