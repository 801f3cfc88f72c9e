"""A server inside a program that does nothing else meanwhile, such as a batch run, and a connection to it.

Whoever waits here for a reply also does what the workers ask of Python, in the same thread. So there is no
other thread of Python's and no trio, importing which takes longer than many a batch run.
"""

from __future__ import annotations

import datetime
import select
import socket
from collections import deque
from collections.abc import Callable
from types import TracebackType
from typing import Any, Self, TypeVar

from dataflow_serve.client._connection import Connection, Disconnected, Refused, Replied, RequestId
from dataflow_serve.client._framing import LengthPrefixed
from dataflow_serve.client._load import Batch, Loaded, send_batches
from dataflow_serve.client._progress import showing_progress
from dataflow_serve.client._text_files import FileSource
from dataflow_serve.errors import (
    ConnectionClosed,
    DataflowError,
    RemoteProtocolError,
    UnsupportedError,
    WorkerFailed,
)
from dataflow_serve.protocol import (
    Advance,
    Advanced,
    Change,
    Ended,
    Hello,
    Module,
    Register,
    ReplyBody,
    Request,
    ServerInfo,
    Subscribe,
    Subscribed,
    Transact,
    Transacted,
    Undecoded,
    Unsubscribe,
)
from dataflow_serve.server import _cluster
from dataflow_serve.server._cluster import Cluster
from dataflow_serve.server._queries import Queries
from dataflow_serve.server._settings import Settings

__all__ = ["AttendedServer"]

RECEIVE_BYTES = 256 * 1024
"""Most that is taken from the socket at once."""

BodyT = TypeVar("BodyT", bound=ReplyBody)


class AttendedServer:
    """A server in this process that lives for a ``with`` block. One thread may use it."""

    def __init__(self, workers: int, **tunables: int) -> None:
        """Return once requests are served.

        Raises:
            IncorrectError: a tunable doesn't exist or has a value that it can't have.
            OSError: the system is out of something.
        """
        self._cluster = Cluster(Settings(listen="127.0.0.1:0", threads=workers, tunables=tunables))
        self._queries = Queries(self._cluster)
        self._poll = select.poll()
        self._poll.register(self._cluster.event_fd, select.POLLIN)
        self._formed = False
        self._connection = Connection(LengthPrefixed())
        self._answers: dict[RequestId, ReplyBody | DataflowError] = {}
        self._pushed: deque[Undecoded | Ended] = deque()
        self._socket: socket.socket | None = None
        try:
            while not self._formed:
                self._attend()
            self._socket = socket.create_connection(self._cluster.address)
            self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._poll.register(self._socket, select.POLLIN)
            self._ask(Hello(), ServerInfo)
        except BaseException:
            self.close()
            raise

    def advance(self, now: datetime.datetime) -> int:
        """Set the time that rules see as `now`; see `Client.advance`."""
        return self._ask(Advance(now), Advanced).time

    def register(self, program: str) -> Module:
        """Install a program, as text; see `Client.register`.

        Raises:
            IncorrectError: an error in the text, with line and column.
        """
        return self._ask(Register(program), Module)

    def load(self, source: FileSource, into: str, *, batch_rows: int, progress: bool = False) -> Loaded:
        """Insert the rows of a file; see `Client.load`. Whatever is asked later on sees them.

        Raises:
            IncorrectError: a row doesn't fit; names file, line and column.
        """

        def send(batch: Batch) -> Callable[[], Transacted]:
            number = self._send(Transact([Change(into, insert=batch.rows)]))
            return lambda: self._reply(number, Transacted)

        with showing_progress(f"loading {into}", shown=progress) as show:
            return send_batches(source, batch_rows, send, show)

    def fetch_undecoded(self, relation: str, take: Callable[[bytes], object]) -> None:
        """Give all rows of a relation to ``take``: the ``changes`` of each message, in MessagePack.

        Raises:
            NotFoundError: there is no such relation.
            InterruptedQueryError: a limit or a shutdown ended it.
            RemoteProtocolError: what came isn't what ``take`` can read.
        """
        sub = self._ask(Subscribe(relation), Subscribed).sub
        more = True
        while more:
            while not self._pushed:
                self._attend()
            message = self._pushed.popleft()
            if isinstance(message, Ended):
                raise message.error.to_exception()
            try:
                take(message.changes)
            except ValueError as error:
                raise RemoteProtocolError(f"the server sent rows of another kind: {error}") from error
            more = message.more
        self._send(Unsubscribe(sub))

    def close(self) -> None:
        """Stop the workers and wait for them."""
        if self._socket is not None:
            self._socket.close()
        self._cluster.shutdown()
        self._cluster.join()

    def __enter__(self) -> Self:
        """Use it for a block."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Stop it."""
        self.close()

    # --- requests -------------------------------------------------------------------------------------------

    def _ask(self, request: Request, kind: type[BodyT]) -> BodyT:
        return self._reply(self._send(request), kind)

    def _send(self, request: Request) -> RequestId:
        number, frame = self._connection.send(request)
        assert self._socket is not None
        try:
            # The workers read whatever Python does, so this doesn't wait for anything that waits for it.
            self._socket.sendall(frame)
        except OSError as error:
            raise ConnectionClosed(f"the connection broke: {error}") from error
        return number

    def _reply(self, number: RequestId, kind: type[BodyT]) -> BodyT:
        while number not in self._answers:
            self._attend()
        answer = self._answers.pop(number)
        if isinstance(answer, DataflowError):
            raise answer
        assert isinstance(answer, kind)
        return answer

    # --- what happens meanwhile -----------------------------------------------------------------------------

    def _attend(self) -> None:
        """Wait until something happens, and do what is to be done about it."""
        for descriptor, _ in self._poll.poll():
            if descriptor == self._cluster.event_fd:
                for event in self._cluster.drain():
                    self._happened(event)
            else:
                self._receive()

    def _happened(self, event: _cluster.Event) -> None:
        match event:
            case _cluster.Register():
                self._queries.planned(event, self._queries.catalog)()
            case _cluster.Explain():
                self._queries.explained(event)()
            case _cluster.Registered():
                self._queries.registered(event)
            case _cluster.Unregistered():
                self._queries.unregistered(event)
            case _cluster.Attach():
                self._cluster.reject(event.ticket, UnsupportedError("sources in a batch run"))
            case _cluster.Detach():
                self._cluster.detached(event.ticket, 0, [])
            case _cluster.Formed():
                self._formed = True
            case _cluster.Stopped(failure=str(failure)):
                raise WorkerFailed(f"this process can't go on: {failure}")
            # That a generation fell, or all stopped, the connection says as well.
            case _:
                pass

    def _receive(self) -> None:
        assert self._socket is not None
        try:
            data = self._socket.recv(RECEIVE_BYTES)
        except OSError as error:
            raise ConnectionClosed(f"the connection broke: {error}") from error
        self._connection.receive(data)
        while (event := self._connection.next_event()) is not None:
            self._deliver(event)

    def _deliver(self, event: Any) -> None:
        match event:
            case Replied(id=number, body=body):
                self._answers[number] = body
                if isinstance(body, Subscribed):
                    self._connection.leave_undecoded(body.sub)
            case Refused(id=None, error=error):
                raise error
            case Refused(id=int(number), error=error):
                self._answers[RequestId(number)] = error
            case Undecoded() | Ended():
                self._pushed.append(event)
            case Disconnected():
                raise ConnectionClosed("the server closed the connection")
