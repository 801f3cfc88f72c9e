"""The client for scripts and notebooks: the same names as the trio client's, without ``await``."""

from __future__ import annotations

import datetime
import ssl
import weakref
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractAsyncContextManager
from functools import partial
from types import TracebackType
from typing import Any, Generic, Literal, Self, TypeVar, overload

from dataflow_serve.client import _changes, _load, _tables
from dataflow_serve.client._link import Pending as TrioPending
from dataflow_serve.client._order import Order
from dataflow_serve.client._portal import Portal
from dataflow_serve.client._progress import showing_progress
from dataflow_serve.client._session import Wait
from dataflow_serve.client._subscription import Slow
from dataflow_serve.client._subscription import Subscription as TrioSubscription
from dataflow_serve.client._trio import DEFAULT_URL, PING_INTERVAL, Client, open_client
from dataflow_serve.client._undecoded import fetch_undecoded
from dataflow_serve.client._view import Progress, Step
from dataflow_serve.dsl import Atom, Condition, Program, Rule, rel
from dataflow_serve.dsl import Relation as NamedRelation
from dataflow_serve.errors import DataflowError
from dataflow_serve.protocol import (
    Cancelled,
    Change,
    Column,
    Detached,
    Module,
    Row,
    Rows,
    ServerInfo,
    Transacted,
    Value,
)

__all__ = ["BlockingClient", "BlockingPending", "BlockingRelation", "BlockingSubscription", "connect"]

ItemT = TypeVar("ItemT", bound=Step | Progress)


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
        under_way: deque[BlockingPending] = deque()
        with showing_progress(f"loading {into}", shown=progress) as show:
            # The rows are taken in the caller's thread: what gives them may be bound to it.
            for batch in _load.batches(rows, batch_rows):
                if len(under_way) >= _load.BATCHES_UNDER_WAY:
                    under_way.popleft().result()
                under_way.append(
                    self._send(
                        [Change(into, insert=batch.rows)], None, visible=batch.last and wait == "visible"
                    )
                )
                show(batch.progress)
            outcomes = [pending.result() for pending in under_way]
        return _load.Loaded(batch.progress.rows, outcomes[-1].time)

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

    def _fetch_undecoded(self, relation: str, take: Callable[[bytes], object]) -> None:
        """All rows of a relation, for what reads them itself; see `fetch_undecoded`."""
        self._portal.call(lambda: fetch_undecoded(self._client._session.current(), relation, take))

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


class BlockingRelation:
    """A handle on one relation: ``db["reach"]``; showing it shows its first rows."""

    def __init__(self, client: BlockingClient, name: str) -> None:
        """Name a relation; whether it exists shows when it is used."""
        self.name = name
        self._client = client

    def rows(
        self,
        where: Mapping[str, Value] | None = None,
        *,
        order: Order | None = None,
        limit: int | None = None,
    ) -> list[Row]:
        """All rows, in no particular order; or as `Client.read` has them with these arguments.

        Raises:
            NotFoundError: there is no such relation.
        """
        return list(self.contents(where, order=order, limit=limit))

    def contents(
        self,
        where: Mapping[str, Value] | None = None,
        *,
        order: Order | None = None,
        limit: int | None = None,
    ) -> Rows:
        """All rows with their columns and the time they are true for; arguments are those of `Client.read`.

        Raises:
            NotFoundError: there is no such relation.
        """
        relation = self._client._client[self.name]
        return self._client._portal.call(lambda: relation.contents(where, order=order, limit=limit))

    def subscribe(
        self,
        *,
        snapshot: bool = True,
        where: Mapping[str, Value] | None = None,
        since: int | None = None,
        history: Any = None,
        slow: Slow = "coalesce",
        backlog: int | None = None,
        order: Order | None = None,
        limit: int | None = None,
    ) -> BlockingSubscription[Step]:
        """Follow the relation; see `Client.subscribe`."""
        return self._client.subscribe(
            self.name,
            snapshot=snapshot,
            where=where,
            since=since,
            history=history,
            slow=slow,
            backlog=backlog,
            order=order,
            limit=limit,
        )

    def insert(self, rows: Iterable[Iterable[Value]], *, key: str | None = None) -> Transacted:
        """Insert rows in one transaction, and wait until they are visible."""
        return self._client.transact({self.name: rows}, key=key)

    def delete(self, rows: Iterable[Iterable[Value]], *, key: str | None = None) -> Transacted:
        """Delete rows in one transaction, and wait until it is visible."""
        return self._client.transact(delete={self.name: rows}, key=key)

    def df(self, where: Mapping[str, Value] | None = None) -> Any:
        """All rows as a pandas data frame; needs pandas."""
        return _tables.to_pandas(self.contents(where))

    def pl(self, where: Mapping[str, Value] | None = None) -> Any:
        """All rows as a polars data frame; needs polars."""
        return _tables.to_polars(self.contents(where))

    def arrow(self, where: Mapping[str, Value] | None = None) -> Any:
        """All rows as an Arrow table; needs pyarrow."""
        return _tables.to_arrow(self.contents(where))

    def __repr__(self) -> str:
        """The first rows and the time they are true for, or why they can't be shown."""
        try:
            return _tables.text_table(self.name, self._first())
        except DataflowError as error:
            return f"<relation {self.name!r}: {error}>"

    def _repr_html_(self) -> str | None:
        """The same for a notebook, which shows the plain one where this gives nothing."""
        try:
            return _tables.html_table(self.name, self._first())
        except DataflowError:
            return None

    def _first(self) -> Rows:
        # One more than is shown tells whether there are more.
        return self._client.read(self.name, limit=_tables.SHOWN_ROWS + 1)
