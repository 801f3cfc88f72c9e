"""Rows a second of external sources, against reading the same source and doing nothing with it.

Files are in the page cache for both. The clock runs from attaching, or from the first change, until the
server has counted all rows. PostgreSQL is skipped where it isn't installed.
"""

import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from common import SCALE, Client, server

sys.path.append(str(Path(__file__).parents[2]))
from tests.e2e.postgres import Missing, Postgres

PROGRAM = """
.decl event(key: number, id: number, name: symbol) upsert(id)
.input event
.decl counted(n: number)
counted(n) :- n = count : { event(_, _, _) }.
.output counted
"""
ROWS = int(1_000_000 * SCALE)
TRANSACTION_ROWS = 100
REPEATS = 3
CHUNK = 512 << 10


def csv_line(row: int) -> str:
    return f"{row % 1000},{row},name of {row % 10000}\n"


def json_line(row: int) -> str:
    return f'{{"key": {row % 1000}, "id": {row}, "name": "name of {row % 10000}"}}\n'


def read_only(path: Path) -> float:
    """Seconds to read a file and find the ends of its lines."""
    started = time.perf_counter()
    lines = 0
    with path.open("rb", buffering=0) as file:
        while chunk := file.read(CHUNK):
            lines += chunk.count(b"\n")
    assert lines == ROWS
    return time.perf_counter() - started


def follow(source: dict[str, Any], change: Callable[[], None] | None = None) -> float:
    """Seconds until a server that is told to read a source has counted all its rows, or those of a change."""
    with server(2) as running:
        client, watcher = Client(running.port), Client(running.port)
        client.call("register", program=PROGRAM)
        watcher.send("subscribe", relation="counted")
        started = time.perf_counter()
        client.call("attach", name="bench", source=source)
        if change is not None:
            wait_for(client, watcher, 0, "running")
            started = time.perf_counter()
            change()
        wait_for(client, watcher, ROWS)
        seconds = time.perf_counter() - started
        client.call("detach", name="bench")
        return seconds


def wait_for(client: Client, watcher: Client, rows: int, state: str | None = None) -> None:
    """Wait for a state of the source, or until so many rows are counted."""
    while state is not None:
        for status in client.call("status")["sources"]:
            if status["state"] == state:
                return
            if status["state"] == "failed":
                raise RuntimeError(status["error"])
        time.sleep(0.01)
    while not any(row == [rows] and copies > 0 for row, copies in watcher.receive().get("changes", [])):
        pass


def files(directory: Path) -> list[tuple[str, float, float]]:
    """What, rows a second of reading only, of the source."""
    measured = []
    for name, line in (("events.csv", csv_line), ("events.ndjson", json_line)):
        path = directory / name
        with path.open("w", encoding="utf-8") as file:
            file.writelines(map(line, range(ROWS)))
        source = {"kind": "files", "path": str(path), "relation": "event"}
        pairs = [(read_only(path), follow(source)) for _ in range(REPEATS)]
        measured.append((name, *rates(pairs)))
    return measured


def rates(pairs: list[tuple[float, float]]) -> tuple[float, float]:
    """Medians of both, as rows a second."""
    first, second = (ROWS / statistics.median(each) for each in zip(*pairs, strict=True))
    return first, second


def fill(postgres: Postgres, transaction_rows: int) -> None:
    """Insert all rows, so many a transaction."""
    connection = postgres.connect()
    connection.autocommit = True
    with connection.cursor() as cursor:
        cursor.execute(
            "CREATE OR REPLACE PROCEDURE fill() LANGUAGE plpgsql AS $$ BEGIN "
            f"FOR lowest IN 0..{ROWS - 1} BY {transaction_rows} LOOP "
            "INSERT INTO event SELECT n % 1000, n, 'name of ' || n % 10000 "
            f"FROM generate_series(lowest, least(lowest + {transaction_rows}, {ROWS}) - 1) n; "
            "COMMIT; END LOOP; END $$"
        )
        cursor.execute("CALL fill()")
    connection.close()


def copy_only(postgres: Postgres) -> float:
    """Seconds to copy the table to nowhere."""

    class Nowhere:
        def write(self, data: bytes) -> None:
            pass

    started = time.perf_counter()
    with postgres.transaction() as cursor:
        cursor.copy_expert("COPY event TO STDOUT (FORMAT csv)", Nowhere())
    return time.perf_counter() - started


def receive_only(postgres: Postgres) -> float:
    """Seconds to receive the changes while they are made."""
    import psycopg2.extras

    postgres.execute("TRUNCATE event", "CREATE PUBLICATION bench_only FOR TABLE event")
    connection = psycopg2.connect(
        postgres.dsn, connection_factory=psycopg2.extras.LogicalReplicationConnection
    )
    with connection.cursor() as cursor:
        cursor.create_replication_slot("bench_only", output_plugin="pgoutput")
        options = {"proto_version": "1", "publication_names": "bench_only"}
        started = time.perf_counter()
        filling = threading.Thread(target=fill, args=(postgres, TRANSACTION_ROWS))
        filling.start()
        cursor.start_replication(slot_name="bench_only", decode=False, options=options)
        rows = 0
        while rows < ROWS:
            message = cursor.read_message()
            if message is not None and message.payload.startswith(b"I"):
                rows += 1
        seconds = time.perf_counter() - started
        filling.join()
    connection.close()
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        try:
            postgres.rows("SELECT pg_drop_replication_slot('bench_only')")
            break
        except psycopg2.errors.ObjectInUse:
            time.sleep(0.05)
    postgres.execute("DROP PUBLICATION bench_only")
    return seconds


def database() -> list[tuple[str, float, float]]:
    """The same of the copy of a table, and of changes in small transactions."""
    try:
        postgres = Postgres()
    except Missing as missing:
        print(f"PostgreSQL SKIPPED: {missing}")
        return []
    try:
        postgres.execute("CREATE TABLE event (key int, id int PRIMARY KEY, name text)")
        source = {
            "kind": "postgres",
            "dsn": postgres.dsn,
            "tables": [{"table": "event", "relation": "event"}],
        }
        fill(postgres, ROWS)
        copies = [(copy_only(postgres), follow(source)) for _ in range(REPEATS)]
        changes = []
        for _ in range(REPEATS):
            only = receive_only(postgres)
            postgres.execute("TRUNCATE event")
            changes.append((only, follow(source, lambda: fill(postgres, TRANSACTION_ROWS))))
        return [
            ("PostgreSQL, copy", *rates(copies)),
            (f"PostgreSQL, {TRANSACTION_ROWS} rows a transaction", *rates(changes)),
        ]
    finally:
        postgres.close()


def main() -> None:
    """Prints a table."""
    with tempfile.TemporaryDirectory() as directory:
        measured = files(Path(directory)) + database()
    print(f"| source, {ROWS:,} rows | reading only, rows/s | counted by the server, rows/s | ratio |")
    print("| --- | --- | --- | --- |")
    for what, only, followed in measured:
        print(f"| {what} | {only:,.0f} | {followed:,.0f} | {followed / only:.2f} |")


if __name__ == "__main__":
    main()
