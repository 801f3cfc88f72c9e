"""What clients ask."""

from __future__ import annotations

import datetime
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, TypeAlias

from dataflow_serve.protocol._types import VERSION, Value

__all__ = [
    "Advance",
    "Attach",
    "Cancel",
    "Change",
    "Detach",
    "Explain",
    "Hello",
    "Ping",
    "Read",
    "Register",
    "Request",
    "Shutdown",
    "Status",
    "Subscribe",
    "Transact",
    "Tune",
    "Unregister",
    "Unsubscribe",
]


@dataclass(frozen=True, slots=True)
class Hello:
    """Opens the conversation; must come first, and must come where a token is needed."""

    OP: ClassVar = "hello"
    version: int = VERSION
    token: str | None = None


@dataclass(frozen=True, slots=True)
class Register:
    """Install a program; answered with its `Module`."""

    OP: ClassVar = "register"
    program: str
    name: str | None = None
    limits: Mapping[str, int] | None = None


@dataclass(frozen=True, slots=True)
class Unregister:
    """Remove a module, or one relation."""

    OP: ClassVar = "unregister"
    name: str


@dataclass(frozen=True, slots=True)
class Cancel:
    """End a module and what depends on it, wherever it is."""

    OP: ClassVar = "cancel"
    name: str


@dataclass(frozen=True, slots=True)
class Change:
    """What a transaction does to one relation; its deletes come before all inserts of the transaction."""

    relation: str
    insert: Sequence[Sequence[Value]] | None = None
    delete: Sequence[Sequence[Value]] | None = None


@dataclass(frozen=True, slots=True)
class Transact:
    """Change relations at one logical time, all or nothing."""

    OP: ClassVar = "transact"
    changes: Sequence[Change]
    key: str | None = None
    wait: Literal["sequenced", "visible"] | None = None


@dataclass(frozen=True, slots=True)
class Subscribe:
    """Follow a relation; ``since`` resumes after that time, in the server's ``history`` it was learned in.

    ``slow`` says what happens when it is read too slowly: times are merged, or the subscription ends as soon
    as more than ``backlog`` rows wait. With ``limit`` it is of the first rows only, in ``order``.
    """

    OP: ClassVar = "subscribe"
    relation: str
    snapshot: bool | None = None
    progress: bool | None = None
    where: Mapping[str, Value] | None = None
    since: int | None = None
    history: Any = None
    slow: Literal["coalesce", "end"] | None = None
    backlog: int | None = None
    order: Sequence[str] | None = None
    limit: int | None = None


@dataclass(frozen=True, slots=True)
class Unsubscribe:
    """End a subscription of this connection."""

    OP: ClassVar = "unsubscribe"
    sub: int


@dataclass(frozen=True, slots=True)
class Read:
    """Ask for a relation's contents once; ``order`` names columns, those after a ``-`` descending."""

    OP: ClassVar = "read"
    relation: str
    where: Mapping[str, Value] | None = None
    limit: int | None = None
    order: Sequence[str] | None = None


@dataclass(frozen=True, slots=True)
class Explain:
    """Ask for the plan of a relation."""

    OP: ClassVar = "explain"
    relation: str
    analyze: bool | None = None


@dataclass(frozen=True, slots=True)
class Status:
    """Ask how the server is."""

    OP: ClassVar = "status"


@dataclass(frozen=True, slots=True)
class Attach:
    """Have an external source feed relations; `docs/sources.md` says what ``source`` may be."""

    OP: ClassVar = "attach"
    name: str
    source: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Detach:
    """End an external source."""

    OP: ClassVar = "detach"
    name: str


@dataclass(frozen=True, slots=True)
class Advance:
    """Set the cluster's clock, where it doesn't move by itself."""

    OP: ClassVar = "advance"
    now: datetime.datetime


@dataclass(frozen=True, slots=True)
class Tune:
    """Set tunables of all workers; the names stand beside ``op`` on the wire."""

    OP: ClassVar = "tune"
    tunables: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Ping:
    """Ask for a sign of life."""

    OP: ClassVar = "ping"


@dataclass(frozen=True, slots=True)
class Shutdown:
    """Stop every process of the cluster cleanly."""

    OP: ClassVar = "shutdown"


Request: TypeAlias = (
    Hello
    | Register
    | Unregister
    | Cancel
    | Transact
    | Subscribe
    | Unsubscribe
    | Read
    | Explain
    | Status
    | Attach
    | Detach
    | Advance
    | Tune
    | Ping
    | Shutdown
)
