"""The client for scripts and notebooks: the same names as the trio client's, without ``await``."""

from __future__ import annotations

import datetime
import ssl
import weakref
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractAsyncContextManager
from functools import partial
from types import TracebackType
from typing import Any, Literal, Self, overload

from dataflow_serve.client import _changes, _load
from dataflow_serve.client._blocking_relation import BlockingRelation
from dataflow_serve.client._blocking_subscription import BlockingPending, BlockingSubscription
from dataflow_serve.client._defaults import DEFAULT_URL, PING_INTERVAL
from dataflow_serve.client._order import Order
from dataflow_serve.client._portal import Portal
from dataflow_serve.client._progress import showing_progress
from dataflow_serve.client._session import Wait
from dataflow_serve.client._subscription import Slow
from dataflow_serve.client._trio import Client, open_client
from dataflow_serve.client._view import Progress, Step
from dataflow_serve.dsl import Atom, Condition, Program, Rule, rel
from dataflow_serve.dsl import Relation as NamedRelation
from dataflow_serve.protocol import (
    Cancelled,
    Change,
    Detached,
    Module,
    Rows,
    ServerInfo,
    Transacted,
    Value,
)

__all__ = ["BlockingClient", "connect"]


def connect(
    url: str = DEFAULT_URL,
    *,
    token: str | None = None,
    ssl_context: ssl.SSLContext | None = None,
    reconnect: bool = True,
    ping_interval: float = PING_INTERVAL,
    on_close: Callable[[], object] | None = None,
) -> BlockingClient:
    """Connect to a server: ``db = ds.connect("df://host:6262")``.

    See `open_client` for the arguments; ``on_close`` is called once after the client was closed, which is how
    an embedded server goes with its client. The connection lives until ``db.close()``, the end of a ``with
    db:`` block, or until nobody refers to ``db`` any more.

    Raises:
        UnavailableError: nobody answers at ``url``.
        ForbiddenError: the server wants another token.
    """
    opened = partial(
        open_client,
        url,
        token=token,
        ssl_context=ssl_context,
        reconnect=reconnect,
        ping_interval=ping_interval,
    )
    return BlockingClient(opened, on_close)


class BlockingClient:
    """A connection to a server, and through it to the whole cluster. Made by `connect` or `serve`.

    Any thread may use it. Ctrl-C interrupts the call that is under way; the connection stays.
    """

    def __init__(
        self,
        opened: Callable[[], AbstractAsyncContextManager[Client]],
        on_close: Callable[[], object] | None = None,
    ) -> None:
        """Open a client in a thread of its own."""
        self._portal = Portal(opened)
        self._client = self._portal.resource
        self._on_close = on_close
        # The portal must not keep this object alive, nor outlive it.
        self._finalizer = weakref.finalize(self, _finish, self._portal, on_close)

    @property
    def url(self) -> str:
        """Where the server is."""
        return self._client.url

    @property
    def info(self) -> ServerInfo:
        """What the server said about itself when the connection was last made."""
        return self._client.info

    @property
    def connected(self) -> bool:
        """Whether there is a connection right now."""
        return self._client.connected

    def register(
        self,
        program: str | Program,
        name: str | None = None,
        *,
        limits: Mapping[str, int] | None = None,
    ) -> Module:
        """Install a Datalog program, as text or made in Python, on all workers; see `Client.register`.

        Raises:
            IncorrectError: an error in the text, with line and column.
            ConflictError: ``name`` belongs to another program, or a relation is declared otherwise already.
        """
        return self._portal.call(lambda: self._client.register(program, name, limits=limits))

    rel = staticmethod(rel)

    def rule(self, head: Atom, *body: Condition, name: str | None = None) -> Module:
        """Install one rule made in Python: ``db.rule(fame(y, n), n == ds.count(reach(ds._, y)))``.

        Raises:
            IncorrectError: an error in the rule.
            ConflictError: the head's relation belongs to another program; `rules` takes several at once.
        """
        return self._portal.call(lambda: self._client.rule(head, *body, name=name))

    def rules(self, *parts: NamedRelation | Rule, name: str | None = None) -> Module:
        """Install relations and rules made in Python as one program; see `Client.register`.

        Raises:
            IncorrectError: an error in a rule.
            ConflictError: a relation belongs to another program.
        """
        return self._portal.call(lambda: self._client.rules(*parts, name=name))

    def unregister(self, name: str) -> int:
        """Remove a module, or one relation; see `Client.unregister`.

        Raises:
            NotFoundError: nothing has that name.
            ConflictError: another program depends on it.
        """
        return self._portal.call(lambda: self._client.unregister(name))

    def cancel(self, name: str) -> Cancelled:
        """End a module and all that depend on it, whatever they are doing; see `Client.cancel`.

        Raises:
            NotFoundError: no module has that name.
        """
        return self._portal.call(lambda: self._client.cancel(name))

    @overload
    def transact(
        self,
        changes: _changes.RowsByRelation | None = None,
        /,
        *,
        delete: _changes.RowsByRelation | None = None,
        key: str | None = None,
        wait: Literal[True, "sequenced", "visible"] = True,
        **insert: Iterable[Iterable[Value]],
    ) -> Transacted: ...
    @overload
    def transact(
        self,
        changes: _changes.RowsByRelation | None = None,
        /,
        *,
        delete: _changes.RowsByRelation | None = None,
        key: str | None = None,
        wait: Literal[False],
        **insert: Iterable[Iterable[Value]],
    ) -> BlockingPending: ...
    def transact(
        self,
        changes: _changes.RowsByRelation | None = None,
        /,
        *,
        delete: _changes.RowsByRelation | None = None,
        key: str | None = None,
        wait: Wait = True,
        **insert: Iterable[Iterable[Value]],
    ) -> Transacted | BlockingPending:
        """Insert and delete rows in one transaction: ``db.transact(knows=[("ann", "bob")])``.

        Returns when all that depends on it has it; with ``wait=False`` at once, with something to ask for the
        result later, so that transactions can follow one another. See `Client.transact`.

        Raises:
            IncorrectError: a row doesn't fit; nothing of the transaction takes effect.
            ConflictError: ``key`` was used for something else.
        """
        return self._transact(_changes.changes(changes, insert, delete), key, wait)

    def read(
        self,
        relation: str,
        *,
        where: Mapping[str, Value] | None = None,
        order: Order | None = None,
        limit: int | None = None,
    ) -> Rows:
        """The rows of a relation at a finished time; see `Client.read`.

        Raises:
            NotFoundError: there is no such relation.
            TooLargeError: the rows don't fit one answer; ``db[relation].rows()`` fetches them in parts.
        """
        return self._portal.call(lambda: self._client.read(relation, where=where, order=order, limit=limit))

    @overload
    def subscribe(
        self,
        relation: str,
        *,
        snapshot: bool = True,
        progress: Literal[False] = False,
        where: Mapping[str, Value] | None = None,
        since: int | None = None,
        history: Any = None,
        slow: Slow = "coalesce",
        backlog: int | None = None,
        order: Order | None = None,
        limit: int | None = None,
    ) -> BlockingSubscription[Step]: ...
    @overload
    def subscribe(
        self,
        relation: str,
        *,
        snapshot: bool = True,
        progress: Literal[True],
        where: Mapping[str, Value] | None = None,
        since: int | None = None,
        history: Any = None,
        slow: Slow = "coalesce",
        backlog: int | None = None,
        order: Order | None = None,
        limit: int | None = None,
    ) -> BlockingSubscription[Step | Progress]: ...
    def subscribe(
        self,
        relation: str,
        *,
        snapshot: bool = True,
        progress: bool = False,
        where: Mapping[str, Value] | None = None,
        since: int | None = None,
        history: Any = None,
        slow: Slow = "coalesce",
        backlog: int | None = None,
        order: Order | None = None,
        limit: int | None = None,
    ) -> BlockingSubscription[Step] | BlockingSubscription[Step | Progress]:
        """Follow a relation: ``with db.subscribe("reach") as live: ...``; see `Client.subscribe`."""
        if progress:
            following = self._client.subscribe(
                relation,
                snapshot=snapshot,
                progress=True,
                where=where,
                since=since,
                history=history,
                slow=slow,
                backlog=backlog,
                order=order,
                limit=limit,
            )
            return BlockingSubscription(self._portal, following)
        steps = self._client.subscribe(
            relation,
            snapshot=snapshot,
            where=where,
            since=since,
            history=history,
            slow=slow,
            backlog=backlog,
            order=order,
            limit=limit,
        )
        return BlockingSubscription(self._portal, steps)

    def load(
        self,
        source: _load.Source,
        into: str,
        *,
        header: bool | None = None,
        delimiter: str = ",",
        batch_rows: int = _load.BATCH_ROWS,
        progress: bool = False,
        wait: Literal["sequenced", "visible"] = "visible",
    ) -> _load.Loaded:
        """Insert many rows: the path of a CSV file, a data frame, anything Arrow, or an iterable of tuples.

        Returns when all rows are visible, or with ``wait="sequenced"`` when their times are fixed.
        ``progress`` shows a bar with the time left. An error or Ctrl-C in the middle leaves the batches
        before it inserted. See `Client.load` for the other arguments.

        Raises:
            IncorrectError: a row doesn't fit; of a file it names line and column.
        """
        columns = self.read(into, limit=0).columns
        rows = _load.open_source(source, columns, header=header, delimiter=delimiter)

        def send(batch: _load.Batch) -> Callable[[], Transacted]:
            visible = batch.last and wait == "visible"
            return self._send([Change(into, insert=batch.rows)], None, visible=visible).result

        with showing_progress(f"loading {into}", shown=progress) as show:
            # The rows are taken in the caller's thread: what gives them may be bound to it.
            return _load.send_batches(rows, batch_rows, send, show)

    def explain(self, relation: str, *, analyze: bool = False) -> Any:
        """The plan of a relation, a tree of operators; with ``analyze`` also what each holds and has done."""
        return self._portal.call(lambda: self._client.explain(relation, analyze=analyze))

    def status(self) -> dict[str, Any]:
        """How the server is: workers, clients, relations, counters."""
        return self._portal.call(self._client.status)

    def attach(self, name: str, source: Mapping[str, Any]) -> int:
        """Have the server read an external source; see `Client.attach`.

        Raises:
            IncorrectError: it isn't a source that can be read.
            ConflictError: another one has that name.
        """
        return self._portal.call(lambda: self._client.attach(name, source))

    def detach(self, name: str) -> Detached:
        """End an external source; see `Client.detach`.

        Raises:
            NotFoundError: no source has that name.
        """
        return self._portal.call(lambda: self._client.detach(name))

    def advance(self, now: datetime.datetime) -> int:
        """Set the time that rules see as `now`; see `Client.advance`.

        Raises:
            ConflictError: the clock moves by itself, or shows a later time.
            ForbiddenError: this client's role doesn't allow it.
        """
        return self._portal.call(lambda: self._client.advance(now))

    def tune(self, **tunables: Any) -> dict[str, Any]:
        """Set tunables of all workers; those now in force."""
        return self._portal.call(lambda: self._client.tune(**tunables))

    def ping(self) -> int:
        """Ask for a sign of life; a time that is over."""
        return self._portal.call(self._client.ping)

    def shutdown(self) -> None:
        """Stop every process of the cluster."""
        self._portal.call(self._client.shutdown)

    def wait_connected(self) -> None:
        """Wait until there is a connection.

        Raises:
            ConnectionClosed: there won't be any more.
        """
        self._portal.call(self._client.wait_connected)

    def close(self) -> None:
        """Wait for transactions sent with ``wait=False``, then close the connection. Twice is fine."""
        if self._finalizer.detach() is not None:
            self._portal.close()
            if self._on_close is not None:
                self._on_close()

    def __enter__(self) -> Self:
        """Use it for a block."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Close it, at once if the block failed."""
        if kind is not None:
            self._portal.abandon()
        self.close()

    def __getitem__(self, relation: str | NamedRelation) -> BlockingRelation:
        """A handle on a relation, by name or as rules have it; nothing is asked of the server yet."""
        return BlockingRelation(self, relation if isinstance(relation, str) else relation.name)

    def __repr__(self) -> str:
        """Where it is connected to."""
        return f"<BlockingClient of {self.url}>"

    def _transact(self, changes: list[Change], key: str | None, wait: Wait) -> Transacted | BlockingPending:
        if wait is False:
            return self._send(changes, key, visible=False)
        outcome = self._portal.call(lambda: self._client._session.transact(changes, key, wait))
        assert isinstance(outcome, Transacted)
        return outcome

    def _send(self, changes: list[Change], key: str | None, *, visible: bool) -> BlockingPending:
        send = partial(self._client._session.send, changes, key, visible=visible)
        return BlockingPending(self._portal, self._portal.call(send))


def _finish(portal: Portal[Client], on_close: Callable[[], object] | None) -> None:
    portal.abandon()
    if on_close is not None:
        on_close()
