"""What clients ask."""

from __future__ import annotations

import datetime
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal, TypeAlias

from msgspec import Struct, field

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


class Hello(Struct, frozen=True):
    """Opens the conversation; must come first, and must come where a token is needed."""

    OP: ClassVar = "hello"
    version: int = VERSION
    token: str | None = None


class Register(Struct, frozen=True):
    """Install a program; answered with its `Module`."""

    OP: ClassVar = "register"
    program: str
    name: str | None = None
    limits: Mapping[str, int] | None = None


class Unregister(Struct, frozen=True):
    """Remove a module, or one relation."""

    OP: ClassVar = "unregister"
    name: str


class Cancel(Struct, frozen=True):
    """End a module and what depends on it, wherever it is."""

    OP: ClassVar = "cancel"
    name: str


class Change(Struct, frozen=True):
    """What a transaction does to one relation; its deletes come before all inserts of the transaction."""

    relation: str
    insert: Sequence[Sequence[Value]] | None = None
    delete: Sequence[Sequence[Value]] | None = None


class Transact(Struct, frozen=True):
    """Change relations at one logical time, all or nothing."""

    OP: ClassVar = "transact"
    changes: Sequence[Change]
    key: str | None = None
    wait: Literal["sequenced", "visible"] | None = None


class Subscribe(Struct, frozen=True):
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


class Unsubscribe(Struct, frozen=True):
    """End a subscription of this connection."""

    OP: ClassVar = "unsubscribe"
    sub: int


class Read(Struct, frozen=True):
    """Ask for a relation's contents once; ``order`` names columns, those after a ``-`` descending."""

    OP: ClassVar = "read"
    relation: str
    where: Mapping[str, Value] | None = None
    limit: int | None = None
    order: Sequence[str] | None = None


class Explain(Struct, frozen=True):
    """Ask for the plan of a relation."""

    OP: ClassVar = "explain"
    relation: str
    analyze: bool | None = None


class Status(Struct, frozen=True):
    """Ask how the server is."""

    OP: ClassVar = "status"


class Attach(Struct, frozen=True):
    """Have an external source feed relations; `docs/sources.md` says what ``source`` may be."""

    OP: ClassVar = "attach"
    name: str
    source: Mapping[str, Any]


class Detach(Struct, frozen=True):
    """End an external source."""

    OP: ClassVar = "detach"
    name: str


class Advance(Struct, frozen=True):
    """Set the cluster's clock, where it doesn't move by itself."""

    OP: ClassVar = "advance"
    now: datetime.datetime


class Tune(Struct, frozen=True):
    """Set tunables of all workers; the names stand beside ``op`` on the wire."""

    OP: ClassVar = "tune"
    tunables: Mapping[str, Any] = field(default_factory=dict)


class Ping(Struct, frozen=True):
    """Ask for a sign of life."""

    OP: ClassVar = "ping"


class Shutdown(Struct, frozen=True):
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
