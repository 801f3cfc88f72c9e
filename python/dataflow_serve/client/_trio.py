"""The client for trio programs: `open_client` and what can be done with the `Client` it gives."""

from __future__ import annotations

import datetime
import math
import ssl
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from typing import Any, Literal, overload

import trio

from dataflow_serve.client import _changes, _load
from dataflow_serve.client._defaults import DEFAULT_URL, PING_INTERVAL
from dataflow_serve.client._framing import Framing, LengthPrefixed, Lines
from dataflow_serve.client._link import Pending
from dataflow_serve.client._order import Order, order_names
from dataflow_serve.client._relation import Relation
from dataflow_serve.client._session import Session, Wait
from dataflow_serve.client._subscription import Slow, Subscription, subscribe_request
from dataflow_serve.client._text_files import FileSource
from dataflow_serve.client._transport import Address, StreamTransport, Transport
from dataflow_serve.client._view import Progress, Step
from dataflow_serve.dsl import Atom, Condition, Program, Rule, rel, rule
from dataflow_serve.dsl import Relation as NamedRelation
from dataflow_serve.protocol import (
    Advance,
    Advanced,
    Attach,
    Attached,
    Cancel,
    Cancelled,
    Change,
    Detach,
    Detached,
    Encoding,
    Explain,
    Module,
    Ping,
    Plan,
    Pong,
    Read,
    Register,
    Rows,
    ServerInfo,
    Shutdown,
    Status,
    StatusReport,
    Stopping,
    Transacted,
    Tunables,
    Tune,
    Unregister,
    Unregistered,
    Value,
)

__all__ = ["Client", "open_client", "open_client_on"]


@asynccontextmanager
async def open_client(
    url: str = DEFAULT_URL,
    *,
    token: str | None = None,
    ssl_context: ssl.SSLContext | None = None,
    reconnect: bool = True,
    ping_interval: float = PING_INTERVAL,
) -> AsyncIterator[Client]:
    """Connect to a server for the length of an ``async with`` block.

    ``df://host:port`` is framed TCP, the fast way; ``ws://host:port`` is a WebSocket, for where only HTTP
    passes. ``dfs://`` and ``wss://`` are the same through TLS; ``ssl_context`` says whom to trust there, else
    the system's authorities do. A server that stays silent for ``ping_interval`` seconds counts as lost. With
    ``reconnect`` a lost connection is made again in the background, and its subscriptions go on; requests
    meanwhile fail with `UnavailableError`.

    The block waits at its end for transactions sent with ``wait=False``. Cancelling closes the connection at
    once.

    Raises:
        UnavailableError: nobody answers at ``url``, or nobody whom ``ssl_context`` trusts.
        ForbiddenError: the server wants another token.
    """
    address = Address.parse(url, token, ssl_context)
    async with _running(
        Session(str(address), address.dial, address.token, reconnect, ping_interval)
    ) as client:
        yield client


@asynccontextmanager
async def open_client_on(
    stream: trio.abc.Stream, *, encoding: Encoding = Encoding.MESSAGEPACK, ping_interval: float = math.inf
) -> AsyncIterator[Client]:
    """Like `open_client`, over a stream that is connected already: TLS, a Unix socket, memory in a test.

    The stream is closed with the block, however it ends. There is no second stream, so nothing is
    reconnected.
    """

    async def dial(nursery: trio.Nursery) -> tuple[Transport, Framing]:
        framing = LengthPrefixed() if encoding is Encoding.MESSAGEPACK else Lines()
        return StreamTransport(stream), framing

    async with _running(Session("a stream", dial, None, False, ping_interval)) as client:
        yield client


@asynccontextmanager
async def _running(session: Session) -> AsyncIterator[Client]:
    # The tasks behind the client never raise, so a failure is the block's. It goes past the nursery by hand:
    # the nursery would wrap it in a group, and `except ds.IncorrectError` around the block would miss it.
    failure: BaseException | None = None
    async with trio.open_nursery() as nursery:
        try:
            await nursery.start(session.run)
            yield Client(session)
            await session.settle()
        except trio.Cancelled:
            raise
        except BaseException as error:
            failure = error
        finally:
            nursery.cancel_scope.cancel()
    if failure is not None:
        try:
            raise failure
        finally:
            del failure


class Client:
    """A connection to a server, and through it to the whole cluster.

    Any number of tasks may use it at once. Made by `open_client`.

    """

    def __init__(self, session: Session) -> None:
        """A client of a session that `open_client` runs."""
        self._session = session

    @property
    def url(self) -> str:
        """Where the server is."""
        return self._session.url

    @property
    def info(self) -> ServerInfo:
        """What the server said about itself when the connection was last made."""
        return self._session.info

    # --- what a program does --------------------------------------------------------------------------------

    async def register(
        self,
        program: str | Program,
        name: str | None = None,
        *,
        limits: Mapping[str, int] | None = None,
    ) -> Module:
        """Install a Datalog program, as text or made in Python, on all workers, as module ``name``.

        ``limits`` are of ``iterations``, ``rows``, ``bytes`` and ``lag_millis``, instead of the server's own;
        0 is none. A program that passes one ends with `InterruptedQueryError` for its subscribers.

        Returns when every worker has built it; its relations may still be catching up then. The same program
        again is the same module and costs nothing. Cancelling before the server has read the request has no
        effect there; cancelling later leaves the program registered, and `unregister` removes it.

        Raises:
            IncorrectError: an error in the text, with line and column.
            ConflictError: ``name`` belongs to another program, or a relation is declared otherwise already.
        """
        return await self._session.ask(Register(str(program), name, limits), Module)

    rel = staticmethod(rel)

    async def rule(self, head: Atom, *body: Condition, name: str | None = None) -> Module:
        """Install one rule made in Python: ``await db.rule(fame(y, n), n == ds.count(reach(ds._, y)))``.

        The head's relation is declared by it. See `register` for what cancelling leaves.

        Raises:
            IncorrectError: an error in the rule.
            ConflictError: the head's relation belongs to another program; `rules` takes several at once.
        """
        return await self.register(Program((rule(head, *body),)), name)

    async def rules(self, *parts: NamedRelation | Rule, name: str | None = None) -> Module:
        """Install relations and rules made in Python as one program; see `register`.

        Raises:
            IncorrectError: an error in a rule.
            ConflictError: a relation belongs to another program.
        """
        return await self.register(Program(parts), name)

    async def unregister(self, name: str) -> int:
        """Remove a module, or one relation; the time from which on it is gone.

        Cancelling leaves it registered or removed.

        Raises:
            NotFoundError: nothing has that name.
            ConflictError: another program depends on it.
        """
        return (await self._session.ask(Unregister(name), Unregistered)).time

    async def cancel(self, name: str) -> Cancelled:
        """End a module and all that depend on it, whatever they are doing; where its recursion was.

        Their subscriptions end. Cancelling this call leaves the module ended or not.

        Raises:
            NotFoundError: no module has that name.
        """
        return await self._session.ask(Cancel(name), Cancelled)

    @overload
    async def transact(
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
    async def transact(
        self,
        changes: _changes.RowsByRelation | None = None,
        /,
        *,
        delete: _changes.RowsByRelation | None = None,
        key: str | None = None,
        wait: Literal[False],
        **insert: Iterable[Iterable[Value]],
    ) -> Pending[Transacted]: ...
    async def transact(
        self,
        changes: _changes.RowsByRelation | None = None,
        /,
        *,
        delete: _changes.RowsByRelation | None = None,
        key: str | None = None,
        wait: Wait = True,
        **insert: Iterable[Iterable[Value]],
    ) -> Transacted | Pending[Transacted]:
        """Insert and delete rows in one transaction: ``await db.transact(knows=[("ann", "bob")])``.

        Rows to insert are given by relation, as keywords or as one mapping; deletes come before all inserts.

        Args:
            changes: Rows to insert by relation, for names that aren't Python's.
            delete: Rows to delete by relation.
            key: Makes it safe to send again: a transaction takes effect once for a key, and the client does
                send it again when the connection is lost before the answer.
            wait: True or ``"visible"`` returns when every relation that depends on it has it; ``"sequenced"``
                as soon as its time is fixed. False returns a `Pending` as soon as the request is on its way,
                so that transactions can follow one another without waiting; this waits only while too much is
                under way.
            insert: Rows to insert by relation.

        Cancelling before the request is on its way has no effect on the server; later the transaction as a
        whole takes effect or doesn't, and `key` is the means to find out which.

        Raises:
            IncorrectError: a row doesn't fit; nothing of the transaction takes effect.
            ConflictError: ``key`` was used for something else.
        """
        return await self._session.transact(_changes.changes(changes, insert, delete), key, wait)

    async def read(
        self,
        relation: str,
        *,
        where: Mapping[str, Value] | None = None,
        order: Order | None = None,
        limit: int | None = None,
    ) -> Rows:
        """The rows of a relation at a finished time, which sees all acknowledged writes.

        ``where`` gives columns the values that rows must have. ``order`` names the columns to order by, those
        after a ``-`` with their greatest values first; the others decide where these don't. ``limit`` is how
        many rows, the first ones in that order. Cancelling leaves nothing behind.

        Raises:
            NotFoundError: there is no such relation.
            IncorrectError: ``where`` or ``order`` doesn't fit its columns.
            TooLargeError: the rows don't fit one answer; ``db[relation].rows()`` fetches them in parts.
        """
        request = Read(relation, dict(where) if where else None, limit, order_names(order))
        return await self._session.ask(request, Rows)

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
    ) -> Subscription[Step]: ...
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
    ) -> Subscription[Step | Progress]: ...
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
    ) -> Subscription[Step] | Subscription[Step | Progress]:
        """Follow a relation: ``async with db.subscribe("reach") as steps: async for step in steps``.

        Args:
            relation: Its name.
            snapshot: Whether the first step holds the contents; without, only changes from now on are seen.
            progress: Whether to be told of times that changed nothing as well, as `Progress`.
            where: Values that columns must have.
            since: With ``history``: continue after that time, as an earlier subscription left off.
            history: The earlier subscription's.
            slow: What happens when steps aren't read as fast as they come: ``"coalesce"`` merges consecutive
                times, ``"end"`` merges nothing and ends the subscription as soon as too many rows wait.
            backlog: How many rows may wait at the server before it ends with `BusyError`; the server has a
                bound of its own.
            order: Columns to order by, as in `read`; needs ``limit``.
            limit: Follow the first so many rows only: what comes among them, and what no longer is.
        """
        request = subscribe_request(
            relation,
            snapshot=snapshot,
            progress=progress,
            where=where,
            since=since,
            history=history,
            slow=slow,
            backlog=backlog,
            order=order,
            limit=limit,
        )
        return Subscription(self._session, request)

    async def explain(self, relation: str, *, analyze: bool = False) -> Any:
        """The plan of a relation, a tree of operators; with ``analyze`` also what each holds and has done.

        Cancelling leaves nothing behind.
        """
        return (await self._session.ask(Explain(relation, analyze or None), Plan)).plan

    async def status(self) -> dict[str, Any]:
        """How the server is: workers, clients, relations, counters. Cancelling leaves nothing behind."""
        return dict((await self._session.ask(Status(), StatusReport)).report)

    async def attach(self, name: str, source: Mapping[str, Any]) -> int:
        """Have the server read an external source; the time from which on it does.

        `docs/sources.md` says what a source may be. Cancelling leaves it attached or not.

        Raises:
            IncorrectError: it isn't a source that can be read.
            ConflictError: another one has that name.
        """
        return (await self._session.ask(Attach(name, source), Attached)).time

    async def detach(self, name: str) -> Detached:
        """End an external source; waits until nothing of it takes effect any more.

        Rows that it brought stay. Cancelling leaves it attached or not.

        Raises:
            NotFoundError: no source has that name.
        """
        return await self._session.ask(Detach(name), Detached)

    async def advance(self, now: datetime.datetime) -> int:
        """Set the time that rules see as `now`; the logical time from which on they do.

        For clusters whose clock doesn't move by itself (the tunable ``now_tick_ms`` is 0). Cancelling leaves
        it set or not.

        Raises:
            ConflictError: the clock moves by itself, or shows a later time.
            ForbiddenError: this client's role doesn't allow it.
        """
        return (await self._session.ask(Advance(now), Advanced)).time

    async def tune(self, **tunables: Any) -> dict[str, Any]:
        """Set tunables of all workers; those now in force. Cancelling leaves them set or not."""
        return dict((await self._session.ask(Tune(tunables), Tunables)).tunables)

    async def ping(self) -> int:
        """Ask for a sign of life; a time that is over. Cancelling leaves nothing behind."""
        return (await self._session.ask(Ping(), Pong)).time

    async def shutdown(self) -> None:
        """Stop every process of the cluster. Cancelling may or may not have stopped it.

        Raises:
            ForbiddenError: this client's role doesn't allow it.
        """

        def agreed(_: Stopping) -> None:
            self._reconnect = False

        await self._session.current().call(Shutdown(), Stopping, agreed)

    async def load(
        self,
        source: _load.Source,
        into: str,
        *,
        header: bool | None = None,
        delimiter: str = ",",
        batch_rows: int = _load.BATCH_ROWS,
        on_batch: Callable[[_load.LoadProgress], object] | None = None,
        wait: Literal["sequenced", "visible"] = "visible",
    ) -> _load.Loaded:
        """Insert many rows: the path of a CSV file, a data frame, anything Arrow, or an iterable of tuples.

        Rows go in batches, each a transaction, several under way at once; returns when all are visible.

        Args:
            source: Where rows come from.
            into: The relation that gets them.
            header: Whether a file's first line names the columns; None finds out by comparing them.
            delimiter: What separates the fields of a file.
            batch_rows: How many rows make a transaction.
            on_batch: Called after each batch that was sent.
            wait: Whether to return when all rows are visible, or when their times are fixed.

        Cancelling, like an error in the middle, leaves the batches before it inserted.

        Raises:
            IncorrectError: a row doesn't fit; of a file it names line and column.
        """
        columns = (await self.read(into, limit=0)).columns
        rows = _load.open_source(source, columns, header=header, delimiter=delimiter)
        # Files are read in a thread; what else gives rows belongs to the caller, and to the caller's thread.
        in_thread = isinstance(rows, FileSource)
        under_way: deque[Pending[Transacted]] = deque()
        batches = _load.batches(rows, batch_rows)
        while True:
            batch = await trio.to_thread.run_sync(next, batches) if in_thread else next(batches)
            if len(under_way) >= _load.BATCHES_UNDER_WAY:
                await under_way.popleft().result()
            changes = [Change(into, insert=batch.rows)]
            visible = batch.last and wait == "visible"
            sent = await self._session.send(changes, None, visible=visible)
            under_way.append(sent)
            if on_batch is not None:
                on_batch(batch.progress)
            if batch.last:
                break
        for pending in under_way:
            done = await pending.result()
        return _load.Loaded(batch.progress.rows, done.time)

    def __getitem__(self, relation: str | NamedRelation) -> Relation:
        """A handle on a relation, by name or as rules have it; nothing is asked of the server yet."""
        return Relation(self, relation if isinstance(relation, str) else relation.name)

    @property
    def connected(self) -> bool:
        """Whether there is a connection right now."""
        return self._session.connected

    async def wait_connected(self) -> None:
        """Wait until there is a connection. Cancelling leaves nothing behind.

        Raises:
            ConnectionClosed: there won't be any more.
        """
        await self._session.wait_connected()

    async def aclose(self) -> None:
        """Close the connection; what waits on it fails. Leaving `open_client`'s block does it too."""
        self._session.close()
        await trio.lowlevel.checkpoint()

    def __repr__(self) -> str:
        """Where it is connected to."""
        return f"<Client of {self.url}>"
