"""What sources need of the workers, as the extension has it; tests have their own."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

__all__ = ["Feed", "FeedEnded", "Intake", "Piece", "SourceError", "Target", "Workers"]


class SourceError(Exception):
    """A source can't go on; it is tried again."""


class FeedEnded(Exception):
    """Nothing is taken from a source any more: what it fed is gone, and it must begin anew."""

    def __init__(self, feed: Feed) -> None:
        """Say why the feed has ended."""
        self.code, message = feed.ended or ("interrupted", "the feed has ended")
        super().__init__(message)


@dataclass(frozen=True, slots=True)
class Target:
    """An input relation that a source feeds."""

    id: int
    name: str
    columns: tuple[str, ...]
    mode: str | Mapping[str, Any]
    """``set``, ``raw`` or ``{"upsert": [columns]}``."""
    key: frozenset[str]
    """The columns of ``upsert``."""
    document: str
    """All of it, as the extension reads it."""

    @classmethod
    def of(cls, relation: Mapping[str, Any]) -> Target:
        """A relation as the catalog's events describe it."""
        document = {field: relation[field] for field in ("id", "name", "columns", "input")}
        mode = relation["input"]
        names = tuple(column["name"] for column in relation["columns"])
        return cls(
            id=relation["id"],
            name=relation["name"],
            columns=names,
            mode=mode,
            key=frozenset(names[at] for at in mode["upsert"]) if isinstance(mode, Mapping) else frozenset(),
            document=json.dumps(document),
        )


class Piece(Protocol):
    """What was made of a piece of a file."""

    @property
    def consumed(self) -> int:
        """Bytes that are done with."""

    @property
    def lines(self) -> int:
        """Ends of lines in them."""

    @property
    def rows(self) -> int:
        """Rows that were supplied."""

    @property
    def bad_rows(self) -> int:
        """Rows that don't fit."""

    @property
    def bad(self) -> Sequence[tuple[int, str | None, str]]:
        """The first of them: line from 0, column, what is wrong."""


class Feed(Protocol):
    """A bounded queue to the worker that owns it."""

    @property
    def worker(self) -> int:
        """Which, counted through the cluster."""

    @property
    def has_room(self) -> bool:
        """Whether it takes another transaction."""

    @property
    def ended(self) -> tuple[str, str] | None:
        """Code and message of why nothing is taken any more."""

    @property
    def progress(self) -> Mapping[str, int]:
        """What was offered and has taken effect."""

    def csv(self, form: Any, data: bytes, last: bool) -> Piece | None:
        """Supply rows; None, with nothing read, while there is no room."""

    def ndjson(self, form: Any, data: bytes, last: bool) -> Piece | None:
        """The same for lines of JSON."""

    def clear(self, targets: list[str]) -> bool:
        """Empty relations in one transaction; False if the feed has ended."""

    def pgoutput(self, decoder: Any, messages: list[bytes]) -> tuple[int, int | None, int, str | None]:
        """Supply transactions, as far as there is room.

        How many messages were taken, the position behind the last transaction that ended in them, the number
        of bad rows and the first.

        Raises:
            ValueError: the stream can't be followed; says why.
        """

    def close(self) -> None:
        """End it."""


class Intake(Protocol):
    """The door of one source's thread."""

    def feed(self, limit_bytes: int) -> Feed:
        """Open a feed to the worker of the process whose turn it is."""

    def wait(self, seconds: float) -> None:
        """Wait until a feed has news or `ring`."""

    def ring(self) -> None:
        """Wake the thread that waits."""


class Workers(Protocol):
    """The workers of this process."""

    def intake(self, generation: int) -> Intake:
        """A door for one more source; what it feeds is of one generation, and ends with it."""

    def csv(
        self,
        target: Target,
        delimiter: str,
        skip: bool,
        order: tuple[list[int], int] | None,
        null: tuple[str, list[str | None]] | None = None,
    ) -> Any:
        """How a CSV file is read; ``null`` is the text for no value, and what stands for it by column."""

    def pgoutput(self, tables: str, skip: bool, limit_bytes: int) -> Any:
        """Follows a stream of PostgreSQL's, transactions of which may take so many bytes."""

    def first_record(self, data: bytes, delimiter: str, last: bool) -> tuple[list[str], int] | None:
        """The fields of a CSV file's first record and its bytes; None if it isn't complete."""

    def ndjson(self, target: Target, skip: bool) -> Any:
        """How lines of JSON are read."""

    def attach(self, name: str, source: str) -> None:
        """Attach a source of the configuration."""

    def detached(self, ticket: int, time: int, left: list[str]) -> None:
        """Say that a source has ended."""

    def post_source(self, name: str, report: str | None) -> None:
        """What a source says of itself in ``status``."""
