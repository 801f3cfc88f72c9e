"""A relation's contents as the server sent them, for what reads them without Python."""

from __future__ import annotations

from collections.abc import Callable

import trio

from dataflow_serve.client._link import Link, Pushed
from dataflow_serve.errors import ConnectionClosed, DataflowError, LocalProtocolError, RemoteProtocolError
from dataflow_serve.protocol import Changes, Ended, Subscribe, Subscribed, Undecoded

__all__ = ["fetch_undecoded"]


async def fetch_undecoded(link: Link, relation: str, take: Callable[[bytes], object]) -> None:
    """Give all rows of a relation to ``take``: the ``changes`` of each message of a snapshot, in MessagePack.

    ``take`` is called from the link's reading task, which so reads no faster than it takes; it may raise
    `ValueError`. Nothing is fetched again after a loss of the connection. Cancelling unsubscribes.

    Raises:
        NotFoundError: there is no such relation.
        InterruptedQueryError: a limit, a cancellation, a shutdown or a restart ended it.
        ConnectionClosed: the connection was lost before all rows were here.
        RemoteProtocolError: what came isn't what ``take`` can read.
    """
    contents = _Contents(link, take)
    try:
        await link.call(Subscribe(relation), Subscribed, contents.opened)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(contents.watch)
            await contents.over.wait()
            nursery.cancel_scope.cancel()
    finally:
        contents.leave()
    if contents.error is not None:
        raise contents.error


class _Contents:
    """Listens to one subscription until its first step is whole."""

    full = False

    def __init__(self, link: Link, take: Callable[[bytes], object]) -> None:
        self.over = trio.Event()
        self.error: DataflowError | None = None
        self._link = link
        self._take = take
        self._sub: int | None = None
        self._left = False

    def opened(self, body: Subscribed) -> None:
        """The server agreed; what follows is for this object, or for nobody any more."""
        self._sub = body.sub
        self._link.listen(body.sub, self, undecoded=True)
        if self._left:
            self._link.silence(body.sub)

    def push(self, message: Pushed) -> None:
        """Take a message from the link."""
        match message:
            case Undecoded() if not self.over.is_set():
                try:
                    self._take(message.changes)
                except ValueError as error:
                    raise RemoteProtocolError(f"the server sent rows of another kind: {error}") from error
                if not message.more:
                    self.over.set()
            case Ended():
                self._end(message.error.to_exception())
            case Changes():
                self._end(LocalProtocolError("cannot leave rows undecoded on a connection in JSON"))

    async def watch(self) -> None:
        """Notice the loss of the link. Cancelling leaves nothing behind."""
        await self._link.lost.wait()
        reason = self._link.reason
        if isinstance(reason, ConnectionClosed):
            reason = ConnectionClosed(f"the rows aren't all here: {reason.message}", reason.hint)
        self._end(reason)

    def leave(self) -> None:
        """Unsubscribe without waiting."""
        self._left = True
        if self._sub is not None:
            self._link.silence(self._sub)

    def _end(self, error: DataflowError | None) -> None:
        if not self.over.is_set():
            self.error = error
            self.over.set()
