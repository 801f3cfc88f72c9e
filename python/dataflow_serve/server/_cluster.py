"""The workers of this process. The only importer of the extension module."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import Any, TypeAlias

import msgspec

from dataflow_serve import _core
from dataflow_serve._core import (
    Attach,
    Attached,
    Detach,
    Explain,
    Fallen,
    Formed,
    Register,
    Registered,
    Stopped,
    Table,
    Unattached,
    Unregistered,
)
from dataflow_serve.errors import DataflowError, IncorrectError
from dataflow_serve.protocol import Column
from dataflow_serve.server._settings import Settings
from dataflow_serve.sources import Intake, Target

__all__ = [
    "Attach",
    "Attached",
    "Cluster",
    "Detach",
    "Event",
    "Explain",
    "Fallen",
    "Formed",
    "Register",
    "Registered",
    "Stopped",
    "Table",
    "Unattached",
    "Unregistered",
    "check_version",
    "limit_defaults",
    "new_table",
    "tunable_names",
]

Event: TypeAlias = (
    Formed
    | Fallen
    | Register
    | Explain
    | Registered
    | Unregistered
    | Attach
    | Attached
    | Unattached
    | Detach
    | Stopped
)

JOIN_SECONDS = 3.0
"""How long threads that have nothing left to do may take to end."""


def check_version() -> None:
    """Compare the extension with the package that is installed.

    Raises:
        ImportError: it is another version's.
    """
    # A fifth of the time that it takes to import all that a batch run needs.
    import importlib.metadata

    try:
        expected = importlib.metadata.version("dataflow-serve")
    except importlib.metadata.PackageNotFoundError:
        # Run from a source tree that was never installed: there is nothing to compare with.
        return
    if _core.__version__ != expected:
        raise ImportError(
            f"dataflow_serve is version {expected}, its extension {_core.__version__}: install it again"
        )


class Cluster:
    """A handle on this process's workers, and through them on the cluster.

    Everything but `events` may be called from any thread.
    """

    def __init__(self, settings: Settings) -> None:
        """Bind the port and start the workers, which answer ``unavailable`` until the cluster is formed.

        Raises:
            IncorrectError: a setting is wrong.
            OSError: an address can't be listened on, or the system is out of something.
        """
        try:
            self._host = _core.Host(settings.to_core())
        except ValueError as error:
            raise IncorrectError(str(error)) from error

    @property
    def address(self) -> tuple[str, int]:
        """Where clients connect."""
        return self._host.address

    @property
    def event_fd(self) -> int:
        """Readable while there are events."""
        return self._host.event_fd

    def drain(self) -> list[Event]:
        """All events since the last call, oldest first; the last of all is `Stopped`."""
        return self._host.drain()

    async def events(self) -> AsyncIterator[list[Event]]:
        """Batches of events, the last of which ends with `Stopped`.

        Cancelling loses no event: what wasn't handed out is handed out next time.
        """
        # Here, as whoever attends to the workers without it must not have to import it.
        import trio

        while True:
            await trio.lowlevel.wait_readable(self.event_fd)
            batch = self.drain()
            if batch:
                yield batch
            if any(isinstance(event, Stopped) for event in batch):
                return

    def respond(self, ticket: int, plan: str) -> None:
        """Answer a `Register` with its plan."""
        self._host.respond(ticket, plan)

    def explain(self, ticket: int, tree: str) -> None:
        """Answer an `Explain`."""
        self._host.explain(ticket, tree)

    def accept(self, ticket: int, source: str) -> None:
        """Answer an `Attach` with the source as it will be run."""
        self._host.accept(ticket, source)

    def reject(self, ticket: int, error: DataflowError) -> None:
        """Answer a `Register`, an `Explain` or an `Attach` with an error."""
        position = None
        if error.line is not None and error.column is not None:
            position = (error.line, error.column)
        self._host.reject(
            ticket, error.code, error.message, hint=error.hint, position=position, retry=error.retry
        )

    def set_access(self, settings: Settings) -> None:
        """Put other rules of who may do what in force; connections that they wouldn't let in are closed.

        Raises:
            IncorrectError: a rule is malformed; nothing changes.
        """
        try:
            self._host.set_access(msgspec.json.encode(settings.access()).decode())
        except ValueError as error:
            raise IncorrectError(str(error)) from error

    def set_certificate(self, settings: Settings) -> None:
        """Show another certificate to new connections; those that are open keep theirs.

        Raises:
            IncorrectError: it can't be used; the one before stays in force.
        """
        try:
            self._host.set_certificate(msgspec.json.encode(settings.tls()).decode())
        except ValueError as error:
            raise IncorrectError(str(error)) from error

    # --- what sources need of it

    def intake(self, generation: int) -> Intake:
        """A door for the thread of one more source, in one generation."""
        return self._host.intake(generation)

    def csv(
        self,
        target: Target,
        delimiter: str,
        skip: bool,
        order: tuple[list[int], int] | None,
        null: tuple[str, list[str | None]] | None = None,
    ) -> Any:
        """How a CSV file is read; ``null`` is the text for no value, and what stands for it by column."""
        return _core.Csv(target.document, delimiter, skip, order=order, null=null)

    def pgoutput(self, tables: str, skip: bool, limit_bytes: int) -> Any:
        """Follows a stream of PostgreSQL's."""
        return _core.PgOutput(tables, skip, limit_bytes)

    def first_record(self, data: bytes, delimiter: str, last: bool) -> tuple[list[str], int] | None:
        """The fields of a CSV file's first record and its bytes; None if it isn't complete."""
        return _core.Csv.first(data, delimiter, last)

    def ndjson(self, target: Target, skip: bool) -> Any:
        """How lines of JSON are read."""
        return _core.Ndjson(target.document, skip)

    def attach(self, name: str, source: str) -> None:
        """Attach a source of the configuration; `Attached` or `Unattached` follows."""
        self._host.attach(name, source)

    def detached(self, ticket: int, time: int, left: list[str]) -> None:
        """Answer a `Detach`."""
        self._host.detached(ticket, time, left)

    def post_source(self, name: str, report: str | None) -> None:
        """What a source says of itself in ``status``; None once it has ended."""
        self._host.post_source(name, report)

    def shutdown(self) -> None:
        """Ask the whole cluster to stop; a `Stopped` event follows."""
        self._host.shutdown()

    def join(self, seconds: float = JOIN_SECONDS) -> Stopped | None:
        """Wait, without the GIL, until the workers have ended; None if they haven't in time."""
        return self._host.join(seconds)


def limit_defaults() -> dict[str, bool | int | float]:
    """The limits of connections that there are."""
    return msgspec.json.decode(_core.LIMITS, type=dict[str, bool | int | float])


def tunable_names() -> list[str]:
    """The tunables that there are."""
    return list(_core.TUNABLES)


def new_table(columns: Sequence[Column]) -> Table:
    """No rows yet, of these columns: changes as a server sends them are added, lines of text come out."""
    return _core.Table(msgspec.json.encode(columns).decode())
