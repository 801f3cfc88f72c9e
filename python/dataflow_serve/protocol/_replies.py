"""What a server answers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias, overload

from msgspec import Struct

from dataflow_serve.protocol._types import Column, Row, TypeInfo

__all__ = [
    "Advanced",
    "Attached",
    "Cancelled",
    "Detached",
    "Module",
    "Plan",
    "Pong",
    "RelationInfo",
    "ReplyBody",
    "Rows",
    "ServerInfo",
    "StatusReport",
    "Stopping",
    "Subscribed",
    "Transacted",
    "Tunables",
    "Unregistered",
    "Unsubscribed",
]


class ServerInfo(Struct, frozen=True):
    """Answers `Hello`: who serves this connection.

    Attributes:
        version: The protocol's version.
        server: Name and version of the server.
        worker: The owner of this connection, counted through the cluster.
        workers: How many workers the cluster has.
        process: The process that this connection reached.
        processes: How many processes the cluster has.
        time: A logical time that is over.
        history: An id that changes whenever contents or times were lost.
    """

    version: int
    server: str
    worker: int
    workers: int
    process: int
    processes: int
    time: int
    history: Any


class RelationInfo(Struct, frozen=True):
    """A relation of a module: ``kind`` is ``input`` or ``derived``."""

    name: str
    kind: str
    columns: tuple[Column, ...]


@dataclass(frozen=True, slots=True)
class Module:
    """Answers `Register`: a program that is installed, and since when."""

    name: str
    relations: tuple[RelationInfo, ...]
    time: int
    types: Mapping[str, TypeInfo] | None = field(default=None, repr=False)


class Unregistered(Struct, frozen=True):
    """Answers `Unregister`."""

    time: int


class Cancelled(Struct, frozen=True):
    """Answers `Cancel`.

    Attributes:
        name: The module.
        modules: All that were ended, readers before what they read.
        iteration: Where its recursion was; 0 if it was in none.
        time: From which on they are gone.
        relation: The recursive relation.
    """

    name: str
    modules: tuple[str, ...]
    iteration: int
    time: int
    relation: str | None = None


class Transacted(Struct, frozen=True):
    """Answers `Transact`: when it took effect, and whether an earlier one with its key had done so."""

    time: int
    deduplicated: bool = False


@dataclass(frozen=True, slots=True)
class Subscribed:
    """Answers `Subscribe`; ``resync`` says that ``since`` could not be honoured and a snapshot follows."""

    sub: int
    columns: tuple[Column, ...]
    time: int
    history: Any
    resync: bool = False
    types: Mapping[str, TypeInfo] | None = field(default=None, repr=False)


class Unsubscribed(Struct, frozen=True):
    """Answers `Unsubscribe`; the last word on its subscription."""

    time: int


@dataclass(frozen=True, slots=True)
class Rows(Sequence[Row]):
    """Answers `Read`: a relation's contents at a finished time, as a sequence of tuples."""

    columns: tuple[Column, ...]
    rows: list[Row]
    time: int
    types: Mapping[str, TypeInfo] | None = field(default=None, repr=False)

    def __len__(self) -> int:
        """How many rows there are."""
        return len(self.rows)

    def __iter__(self) -> Iterator[Row]:
        """Go through the rows, which are in no particular order."""
        return iter(self.rows)

    @overload
    def __getitem__(self, index: int) -> Row: ...
    @overload
    def __getitem__(self, index: slice) -> list[Row]: ...
    def __getitem__(self, index: int | slice) -> Row | list[Row]:
        """The row or rows at a place in the list."""
        return self.rows[index]


class Plan(Struct, frozen=True):
    """Answers `Explain`: a tree of operators."""

    plan: Any


class StatusReport(Struct, frozen=True):
    """Answers `Status`: workers, clients, relations, time, tunables and counters by name."""

    report: Mapping[str, Any]


class Attached(Struct, frozen=True):
    """Answers `Attach`: the source is attached as of this time."""

    time: int


class Advanced(Struct, frozen=True):
    """Answers `Advance`: `now` is that from this time on."""

    time: int


class Detached(Struct, frozen=True):
    """Answers `Detach`: nothing of the source takes effect after this time.

    Attributes:
        left: What couldn't be removed outside, in words.
    """

    time: int
    left: Sequence[str] = ()


class Tunables(Struct, frozen=True):
    """Answers `Tune`: the tunables now in force on every worker."""

    tunables: Mapping[str, Any]


class Pong(Struct, frozen=True):
    """Answers `Ping`."""

    time: int


class Stopping(Struct, frozen=True):
    """Answers `Shutdown`."""


ReplyBody: TypeAlias = (
    ServerInfo
    | Module
    | Cancelled
    | Unregistered
    | Transacted
    | Subscribed
    | Unsubscribed
    | Rows
    | Plan
    | StatusReport
    | Attached
    | Detached
    | Advanced
    | Tunables
    | Pong
    | Stopping
)
