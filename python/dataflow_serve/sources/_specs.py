"""What a source is, as `[[source]]` in the configuration and ``attach`` describe it."""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Sequence
from typing import Annotated, Any, Literal, TypeAlias

import msgspec

from dataflow_serve.errors import IncorrectError, UnsupportedError

__all__ = ["Files", "Postgres", "Source", "Table", "check", "dump", "parse"]

OnBad: TypeAlias = Literal["stop", "skip"]
"""A row that doesn't fit: nothing behind it is read, or it is counted and left out."""


class Files(
    msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="kind", tag="files"
):
    """Files that grow, one row a line."""

    path: str
    """Of one file, or a pattern (``*``, ``?``, ``[…]``, ``**``), each file of which is a partition."""
    relation: str
    format: Literal["csv", "ndjson"] | None = None
    """By default what the name ends in: ``.csv``, ``.ndjson``, ``.jsonl``."""
    delimiter: str = ","
    """What separates fields of CSV; one character."""
    header: bool | None = None
    """Whether the first line names columns. By default it does if it has exactly the relation's."""
    on_bad: OnBad = "stop"
    queue_bytes: Annotated[int, msgspec.Meta(ge=1)] = 16 << 20
    """Rows of one file that may wait for their effect; beyond, it isn't read further."""
    poll_seconds: Annotated[float, msgspec.Meta(gt=0, le=60)] = 0.1
    """How often a file is looked at that had nothing new."""
    linger_seconds: Annotated[float, msgspec.Meta(ge=0, le=3600)] = 5.0
    """How long a file that was moved away is still read, after it last grew."""

    @property
    def relations(self) -> tuple[str, ...]:
        """What it feeds."""
        return (self.relation,)

    @property
    def kind_of_line(self) -> str:
        """The format, given or guessed."""
        if self.format is not None:
            return self.format
        return "ndjson" if self.path.endswith((".ndjson", ".jsonl")) else "csv"


class Table(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A table and the relation that follows it."""

    table: str
    """Its name, with its schema unless that is ``public``."""
    relation: str
    columns: dict[str, str] = {}
    """The table's column for each of the relation's that is named differently."""
    null: dict[str, str] = {}
    """What stands for null, by column of the relation; elsewhere a row with a null doesn't fit."""

    @property
    def place(self) -> tuple[str, str]:
        """Schema and name."""
        schema, dot, name = self.table.rpartition(".")
        return (schema if dot else "public", name)

    def columns_of(self, relation: Sequence[str]) -> list[str]:
        """The table's columns, in the order of the relation's."""
        return [self.columns.get(column, column) for column in relation]


class Postgres(
    msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="kind", tag="postgres"
):
    """Tables of a PostgreSQL database, by logical replication."""

    dsn: str
    """Where it is, as libpq reads it; the rest comes from libpq's environment and password file."""
    tables: Annotated[list[Table], msgspec.Meta(min_length=1)]
    slot: str | None = None
    """By default one named after the source. Whatever slot has the name is the source's to drop."""
    publication: str | None = None
    """An existing one that has the tables. By default one is made, and dropped at the end."""
    on_bad: OnBad = "stop"
    queue_bytes: Annotated[int, msgspec.Meta(ge=1)] = 16 << 20
    """Rows that may wait for their effect; beyond, nothing is read from the server."""
    transaction_bytes: Annotated[int, msgspec.Meta(ge=1)] = 256 << 20
    """Rows of one transaction; a larger one can't be followed."""

    @property
    def relations(self) -> tuple[str, ...]:
        """What it feeds."""
        return tuple(table.relation for table in self.tables)


Source: TypeAlias = Files | Postgres

_AT = re.compile(r" - at `\$\.?(?P<at>[^`]*)`")


def parse(name: str, document: Any) -> Source:
    """A source from its description.

    Raises:
        IncorrectError: a field is missing, unknown or of the wrong type; says which.
    """
    try:
        source: Source = msgspec.convert(document, Source)
    except msgspec.ValidationError as error:
        place = _AT.search(str(error))
        field = f", field `{place['at']}`" if place and place["at"] else ""
        message = _AT.sub("", str(error))
        raise IncorrectError(f"source {name!r}{field}: {message[0].lower()}{message[1:]}") from error
    check(name, source)
    return source


def check(name: str, source: Source) -> None:
    """What types don't say.

    Raises:
        IncorrectError: it can't be run; says why.
    """
    if isinstance(source, Postgres):
        _check_postgres(name, source)
    elif len(source.delimiter) != 1 or not source.delimiter.isascii():
        message = f"a delimiter is one character of ASCII, not {source.delimiter!r}"
        raise IncorrectError(f"source {name!r}, field `delimiter`: {message}")


def _check_postgres(name: str, source: Postgres) -> None:
    if importlib.util.find_spec("psycopg2") is None:
        raise UnsupportedError(
            f"source {name!r} needs psycopg2, which is not installed",
            "Install dataflow-serve with its extra `postgres`.",
        )
    for field in ("relation", "table"):
        values = [table.relation if field == "relation" else table.place for table in source.tables]
        if twice := [value for value in values if values.count(value) > 1]:
            raise IncorrectError(f"source {name!r}, field `tables`: {field} {twice[0]!r} stands there twice")


def dump(source: Source) -> str:
    """The description, JSON."""
    return msgspec.json.encode(source).decode()
