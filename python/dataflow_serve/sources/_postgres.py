"""PostgreSQL: the contents of tables, then every transaction that changes them, by logical replication.

A slot holds the server's log back from where it was created, and exports the snapshot that the tables are
copied from: the changes that follow are exactly those that the copy hasn't seen. The position is the end of
the last transaction that was supplied; a connection that is lost is made again, and goes on there. If the
slot is gone as well, there is a gap that nobody can fill: the tables are copied anew.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
import secrets
import select
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from dataflow_serve.sources._doors import Feed, FeedEnded, Intake, SourceError, Target, Workers
from dataflow_serve.sources._report import Report
from dataflow_serve.sources._specs import Postgres, Table

__all__ = ["PostgresReader"]

CHUNK_BYTES = 512 << 10
"""Bytes of a copy that make a transaction."""
BATCH_MESSAGES = 2000
"""Messages handed over at once."""
FEEDBACK_SECONDS = 0.5
RELEASE_SECONDS = 10
"""How long a slot of ours may be in use after our connection to it was closed."""
"""How often the server is told what it needn't keep any more, and that somebody is here."""
SETTINGS = (
    "-c datestyle=ISO -c timezone=UTC -c bytea_output=hex -c extra_float_digits=1 -c intervalstyle=iso_8601"
)
"""Values come as text, which depends on these."""
TIMEOUTS = {"connect_timeout": 10, "keepalives_idle": 10, "keepalives_interval": 5, "keepalives_count": 3}
IDENTIFIER_BYTES = 63

COLUMNS = """
SELECT a.attname,
       coalesce(a.attnum = ANY (key.indkey::int2[]), false),
       coalesce(a.attnum = ANY (pk.indkey::int2[]), false)
FROM pg_attribute a
LEFT JOIN pg_index pk ON pk.indrelid = a.attrelid AND pk.indisprimary
LEFT JOIN pg_index key ON key.indrelid = a.attrelid
     AND CASE %(identity)s WHEN 'd' THEN key.indisprimary WHEN 'i' THEN key.indisreplident ELSE false END
WHERE a.attrelid = %(table)s AND a.attnum > 0 AND NOT a.attisdropped
"""


def identifier(name: str) -> str:
    """A name that the server takes for a slot, different for different names."""
    plain = re.sub(r"[^a-z0-9_]", "_", name)
    if plain != name or len(plain) > IDENTIFIER_BYTES - 10:
        plain = f"{plain[:40]}_{hashlib.sha256(name.encode()).hexdigest()[:8]}"
    return f"dataflow_{plain}"


def quoted(*names: str) -> str:
    """An identifier in SQL."""
    return ".".join('"{}"'.format(name.replace('"', '""')) for name in names)


def shown(position: int) -> str:
    """A position as the server writes it."""
    return f"{position >> 32:X}/{position & 0xFFFFFFFF:X}"


def number(position: str) -> int:
    """The same the other way round."""
    high, low = position.split("/")
    return (int(high, 16) << 32) + int(low, 16)


class PostgresReader:
    """Follows tables of one database, on one thread.

    The position outlives an error: `run` goes on where it left off.
    """

    def __init__(
        self,
        name: str,
        source: Postgres,
        targets: Mapping[str, Target],
        workers: Workers,
        intake: Intake,
        report: Report,
    ) -> None:
        """Nothing is opened yet."""
        import psycopg2
        import psycopg2.extras

        self._psycopg = psycopg2
        self._extras = psycopg2.extras
        self._source, self._targets, self._workers = source, targets, workers
        self._intake, self._report = intake, report
        self._slot = source.slot or identifier(name)
        self._publication = source.publication or identifier(name)
        self._application = f"dataflow-serve {name}"
        self._feed: Feed = intake.feed(source.queue_bytes)
        self._position: int | None = None
        self._follower: int | None = None
        """The server's process at the other end of the last replication connection."""
        self._woken, self._waker = socket.socketpair()
        self._waker.setblocking(False)
        self._process: int | None = None
        """The server's process at the other end of the connection in use."""
        self._stopped: Callable[[], bool] = lambda: False

    # --- what the supervisor does

    def run(self, stopped: Callable[[], bool]) -> None:
        """Copy, if that hasn't been done, then follow until told to stop.

        Raises:
            SourceError: the server can't be reached, or something in it or in a row is not as it must be.
            FeedEnded: nothing is taken any more.
        """
        self._stopped = stopped
        try:
            if self._position is None or not self._can_resume():
                self._position = None
                self._report.become("copying")
                self._position = self._copy()
            self._follow()
        except self._psycopg.Error as error:
            if not stopped():
                raise SourceError(f"PostgreSQL: {' '.join(str(error).split())}") from error
        except _Stopped:
            pass
        finally:
            self._stopped = lambda: False

    def interrupt(self) -> None:
        """Have `run` look whether it is told to stop, wherever it waits."""
        with contextlib.suppress(OSError):
            self._waker.send(b"!")
        if (process := self._process) is not None:
            # The server may be out of reach: whoever interrupts doesn't wait for it.
            threading.Thread(target=self._cancel, args=(process,), daemon=True).start()

    def _cancel(self, process: int) -> None:
        """Have the server end what a process of it does for us."""
        # psycopg2's own way of cancelling holds the GIL until the server has answered.
        with contextlib.suppress(self._psycopg.Error):
            connection = self._connect()
            try:
                with connection.cursor() as cursor:
                    cursor.execute("SELECT pg_cancel_backend(%s)", [process])
            finally:
                connection.close()

    def close(self) -> None:
        """End the feed."""
        self._feed.close()

    def feeds(self) -> list[Feed]:
        """Its one feed."""
        return [self._feed]

    def clean_up(self) -> list[str]:
        """Drop the slot, and the publication if it is of our making; what could not be."""
        self._woken.close()
        self._waker.close()
        left = []
        try:
            with self._connection() as connection, connection.cursor() as cursor:
                self._drop_slot(cursor)
                if self._source.publication is None:
                    cursor.execute(f"DROP PUBLICATION IF EXISTS {quoted(self._publication)}")
        except (self._psycopg.Error, SourceError) as error:
            reason = " ".join(str(error).split())
            left.append(f"slot {self._slot!r} may be left and hold back the server's log: {reason}")
        return left

    # --- connections

    def _connect(self, **options: Any) -> Any:
        return self._psycopg.connect(
            self._source.dsn, application_name=self._application, **TIMEOUTS, **options
        )

    @contextlib.contextmanager
    def _connection(self, *, replication: bool = False) -> Iterator[Any]:
        """A connection that commits each statement, and that `interrupt` reaches."""
        factory = self._extras.LogicalReplicationConnection if replication else None
        connection = self._connect(connection_factory=factory, options=SETTINGS, client_encoding="UTF8")
        try:
            if not replication:
                connection.autocommit = True
            self._process = connection.info.backend_pid
            if replication:
                self._follower = self._process
            # `interrupt` may have come too early to cancel anything.
            self._check_stopped()
            yield connection
        finally:
            self._process = None
            connection.close()

    # --- what must be there

    def _can_resume(self) -> bool:
        """Whether the slot still has everything behind the position."""
        with self._connection() as connection, connection.cursor() as cursor:
            cursor.execute(
                "SELECT confirmed_flush_lsn FROM pg_replication_slots WHERE slot_name = %s", [self._slot]
            )
            found = cursor.fetchone()
        return (
            self._position is not None
            and found is not None
            and found[0] is not None
            and number(found[0]) <= self._position
        )

    def _drop_slot(self, cursor: Any) -> None:
        patience = time.monotonic() + RELEASE_SECONDS
        while (user := self._slot_user(cursor)) is not None:
            if user != self._follower or time.monotonic() > patience:
                raise SourceError(f"slot {self._slot!r} is in use by the server's process {user}")
            # Our own connection is closed, but the server's process hasn't come to see it.
            time.sleep(RELEASE_SECONDS / 200)
        cursor.execute(
            "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE slot_name = %s",
            [self._slot],
        )

    def _slot_user(self, cursor: Any) -> int | None:
        """The server's process that uses the slot."""
        cursor.execute(
            "SELECT active_pid FROM pg_replication_slots WHERE slot_name = %s AND active_pid IS NOT NULL",
            [self._slot],
        )
        found: tuple[int] | None = cursor.fetchone()
        return found and found[0]

    def _check_table(self, cursor: Any, table: Table) -> None:
        """Whether the table's changes will say enough to follow it in its relation."""
        namespace, name = table.place
        title, target = f"{namespace}.{name}", self._targets[table.relation]
        cursor.execute(
            "SELECT c.oid, c.relreplident FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace "
            "WHERE n.nspname = %s AND c.relname = %s AND c.relkind IN ('r', 'p')",
            [namespace, name],
        )
        found = cursor.fetchone()
        if found is None:
            raise SourceError(f"no table {title}")
        cursor.execute(COLUMNS, {"table": found[0], "identity": found[1]})
        columns = {column: (key, primary) for column, key, primary in cursor.fetchall()}
        mapped = dict(zip(table.columns_of(target.columns), target.columns, strict=True))
        for column in mapped:
            if column not in columns:
                raise SourceError(f"table {title} has no column {column!r}")
        whole = found[1] == "f"
        keys = {column for column, (key, primary) in columns.items() if (primary if whole else key)}
        if isinstance(target.mode, Mapping):
            wanted = {column for column, own in mapped.items() if own in target.key}
            if wanted != keys:
                raise SourceError(
                    f"relation {target.name!r} is keyed by {_list(wanted)}, table {title} by {_list(keys)}: "
                    "they must have the same key"
                )
        elif not whole:
            key = ", ".join(sorted(mapped[key] for key in keys if key in mapped)) or "key"
            raise SourceError(
                f"table {title} does not send the old row of an update or delete, which relation "
                f"{target.name!r} needs: ALTER TABLE {quoted(namespace, name)} REPLICA IDENTITY FULL, "
                f"or declare the relation upsert({key})"
            )
        elif target.mode == "set" and not (keys and keys <= mapped.keys()):
            raise SourceError(
                f"rows of table {title} may be equal in the columns of relation {target.name!r}: "
                "include its primary key, or declare the relation raw"
            )

    def _publish(self, cursor: Any) -> None:
        """Have the publication there, with the tables."""
        wanted = sorted(table.place for table in self._source.tables)
        cursor.execute("SELECT 1 FROM pg_publication WHERE pubname = %s", [self._publication])
        exists = cursor.fetchone() is not None
        cursor.execute(
            "SELECT schemaname, tablename FROM pg_publication_tables WHERE pubname = %s", [self._publication]
        )
        found = {(schema, table) for schema, table in cursor.fetchall()}
        if self._source.publication is not None:
            if missing := [".".join(place) for place in wanted if place not in found]:
                raise SourceError(f"publication {self._publication!r} lacks table {missing[0]}")
        elif not exists or found != set(wanted):
            tables = ", ".join(quoted(*place) for place in wanted)
            cursor.execute(f"DROP PUBLICATION IF EXISTS {quoted(self._publication)}")
            cursor.execute(f"CREATE PUBLICATION {quoted(self._publication)} FOR TABLE {tables}")

    # --- the copy

    def _copy(self) -> int:
        """Replace what is in the relations by what is in the tables; the position that it was there at."""
        with self._connection() as connection, connection.cursor() as cursor:
            cursor.execute("SHOW wal_level")
            if (level := cursor.fetchone()[0]) != "logical":
                raise SourceError(f"the server has wal_level = {level}: logical replication needs logical")
            for table in self._source.tables:
                self._check_table(cursor, table)
            self._publish(cursor)
            self._drop_slot(cursor)
        with self._connection(replication=True) as connection, connection.cursor() as cursor:
            cursor.create_replication_slot(self._slot, output_plugin="pgoutput")
            _, position, snapshot, _ = cursor.fetchone()
            if not self._feed.clear([target.document for target in self._targets.values()]):
                raise FeedEnded(self._feed)
            with self._connection() as copying:
                copying.autocommit = False
                copying.set_session(isolation_level="REPEATABLE READ", readonly=True)
                with copying.cursor() as reading:
                    reading.execute("SET TRANSACTION SNAPSHOT %s", [snapshot])
                    for table in self._source.tables:
                        self._copy_table(reading, table)
        return number(position)

    def _copy_table(self, cursor: Any, table: Table) -> None:
        target = self._targets[table.relation]
        # Nothing that a column may hold: null must not be mistaken for a text.
        null = f"null-{secrets.token_hex(8)}"
        nulls = [table.null.get(column) for column in target.columns]
        form = self._workers.csv(target, ",", self._skip, None, (null, nulls))
        sink = _Sink(lambda data, last: self._supply_copy(form, table, data, last))
        columns = ", ".join(quoted(column) for column in table.columns_of(target.columns))
        query = f"SELECT {columns} FROM {quoted(*table.place)}"
        cursor.copy_expert(f"COPY ({query}) TO STDOUT (FORMAT csv, NULL '{null}')", sink)
        sink.flush(last=True)

    def _supply_copy(self, form: Any, table: Table, data: bytes, last: bool) -> bytes:
        """Supply the rows of a piece of a copy; what is left of it."""
        self._check_stopped()
        while (piece := self._feed.csv(form, data, last)) is None:
            self._pause()
        if piece.bad_rows:
            _, column, message = piece.bad[0]
            of = f', column "{table.columns.get(column, column)}"' if column is not None else ""
            bad = f"table {'.'.join(table.place)}{of}: {message}"
            if not self._skip:
                raise SourceError(bad)
            self._report.bad(piece.bad_rows, bad)
        self._report.partition(self._slot, self._feed, position=None)
        return data[piece.consumed :]

    @property
    def _skip(self) -> bool:
        return self._source.on_bad == "skip"

    def _check_stopped(self) -> None:
        if self._stopped():
            raise _Stopped

    def _pause(self) -> None:
        """Wait for room."""
        if self._feed.ended is not None:
            raise FeedEnded(self._feed)
        self._check_stopped()
        self._intake.wait(FEEDBACK_SECONDS)

    # --- the changes

    def _follow(self) -> None:
        decoder = self._workers.pgoutput(self._tables(), self._skip, self._source.transaction_bytes)
        with self._connection(replication=True) as connection, connection.cursor() as cursor:
            cursor.start_replication(
                slot_name=self._slot,
                decode=False,
                start_lsn=self._position,
                options={"proto_version": "1", "publication_names": quoted(self._publication)},
            )
            self._report.become("running")
            told, inside = 0.0, False
            while not self._stopped():
                batch = self._receive(cursor)
                if batch:
                    self._supply(decoder, batch, cursor)
                    inside = not batch[-1].startswith(b"C")
                elif self._feed.ended is not None:
                    raise FeedEnded(self._feed)
                if time.monotonic() - told >= FEEDBACK_SECONDS:
                    told = time.monotonic()
                    self._feedback(cursor, idle=not batch and not inside)
                if not batch:
                    select.select([cursor, self._woken], [], [], FEEDBACK_SECONDS)

    def _tables(self) -> str:
        """What the decoder must know of the tables."""
        tables = []
        for table in self._source.tables:
            target = self._targets[table.relation]
            namespace, name = table.place
            columns = table.columns_of(target.columns)
            nulls = [table.null.get(column) for column in target.columns]
            tables.append(
                {
                    "namespace": namespace,
                    "name": name,
                    "target": json.loads(target.document),
                    "columns": list(zip(columns, nulls, strict=True)),
                }
            )
        return json.dumps(tables)

    @staticmethod
    def _receive(cursor: Any) -> list[bytes]:
        """Messages that have come."""
        batch: list[bytes] = []
        size = 0
        while len(batch) < BATCH_MESSAGES and size < CHUNK_BYTES:
            message = cursor.read_message()
            if message is None:
                break
            batch.append(message.payload)
            size += len(message.payload)
        return batch

    def _supply(self, decoder: Any, batch: Sequence[bytes], cursor: Any) -> None:
        """Supply the transactions that end in these messages, as there is room."""
        done = 0
        while done < len(batch):
            try:
                count, position, bad_rows, bad = self._feed.pgoutput(decoder, list(batch[done:]))
            except ValueError as error:
                raise SourceError(str(error)) from error
            done += count
            if position is not None:
                self._position = position
            if bad_rows:
                self._report.bad(bad_rows, bad)
            if done < len(batch):
                self._pause()
                # Reads what has come to say that somebody is here, which the server wants to hear.
                self._feedback(cursor, idle=False)

    def _feedback(self, cursor: Any, *, idle: bool) -> None:
        """Tell the server what has taken effect; with nothing under way, that is all it has sent."""
        progress = self._feed.progress
        assert self._position is not None
        if progress["held_bytes"] == 0:
            # What hasn't touched our tables needn't be kept either.
            applied = max(self._position, cursor.wal_end if idle else 0)
        else:
            applied = progress["position"]
        if applied:
            cursor.send_feedback(flush_lsn=applied, reply=False, force=True)
        lag = max(cursor.wal_end - (applied or self._position), 0)
        self._report.partition(self._slot, self._feed, position=shown(self._position), lag_bytes=lag)


class _Sink:
    """Takes a copy as it comes, row by row, and passes it on in pieces."""

    def __init__(self, supply: Callable[[bytes, bool], bytes]) -> None:
        self._supply = supply
        self._pieces: list[bytes] = []
        self._size = 0

    def write(self, data: bytes) -> None:
        self._pieces.append(data)
        self._size += len(data)
        if self._size >= CHUNK_BYTES:
            self.flush(last=False)

    def flush(self, *, last: bool) -> None:
        rest = self._supply(b"".join(self._pieces), last)
        self._pieces, self._size = [rest], len(rest)


class _Stopped(Exception):
    """Told to stop, in the middle of something."""


def _list(columns: set[str]) -> str:
    return f"({', '.join(sorted(columns))})" if columns else "nothing"
