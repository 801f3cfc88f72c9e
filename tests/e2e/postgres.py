"""A PostgreSQL server of our own: in a temporary directory, on a socket there, not run as root."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg2

SETTINGS = {
    "listen_addresses": "''",
    "wal_level": "logical",
    "max_wal_senders": "20",
    "max_replication_slots": "20",
    "fsync": "off",
    "shared_buffers": "16MB",
    "max_connections": "40",
}


class Missing(Exception):
    """There is no server to test with; says why."""


def programs() -> Path:
    """Where the server's programs are.

    Raises:
        Missing: nowhere, or nobody may run them.
    """
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: int(path.parts[4]))
    if initdb := (str(found[-1]) if found else shutil.which("initdb")):
        if os.geteuid() == 0 and (_runuser() is None or not _has_user("postgres")):
            raise Missing("PostgreSQL refuses to run as root, and there is no user postgres to run it as")
        return Path(initdb).parent
    raise Missing("PostgreSQL is not installed: no initdb")


def _runuser() -> str | None:
    # Where programs for root are, which not every root looks for.
    return shutil.which("runuser", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")


def _has_user(name: str) -> bool:
    try:
        pwd.getpwnam(name)
    except KeyError:
        return False
    return True


class Postgres:
    """A running server with one database."""

    def __init__(self) -> None:
        self._programs = programs()
        runuser = _runuser() if os.geteuid() == 0 else None
        self._prefix = [runuser, "-u", "postgres", "--"] if runuser else []
        self.directory = Path(tempfile.mkdtemp(prefix="dataflow-serve-postgres-"))
        self._data = self.directory / "data"
        if self._prefix:
            shutil.chown(self.directory, "postgres")
        self._lock = threading.Lock()
        try:
            self._run(
                "initdb",
                "-D",
                self._data,
                "-U",
                "postgres",
                "-A",
                "trust",
                "--no-sync",
                "-E",
                "UTF8",
                "--locale=C",
            )
            settings = SETTINGS | {"unix_socket_directories": f"'{self.directory}'"}
            with (self._data / "postgresql.conf").open("a", encoding="utf-8") as file:
                file.writelines(f"{name} = {value}\n" for name, value in settings.items())
            self.start()
        except BaseException:
            self.close()
            raise

    def _run(self, program: str, *arguments: str | Path) -> None:
        command = [*self._prefix, str(self._programs / program), *map(str, arguments)]
        # The server inherits what it prints to: not a pipe, which would then never end.
        with (self.directory / "output").open("ab") as output:
            done = subprocess.run(command, stdout=output, stderr=output, cwd="/", timeout=60, check=False)
        if done.returncode:
            raise AssertionError(f"{program} failed:\n{(self.directory / 'output').read_text()}")

    def start(self) -> None:
        """Start it, and return once it takes connections."""
        self._run("pg_ctl", "start", "-w", "-D", self._data, "-l", self.directory / "log")

    def stop(self, mode: str = "fast") -> None:
        """Stop it: `fast` is clean, `immediate` as if its machine had died."""
        self._run("pg_ctl", "stop", "-w", "-D", self._data, "-m", mode)

    def close(self) -> None:
        """Stop it if it runs, and leave nothing behind."""
        if (self._data / "postmaster.pid").exists():
            self.stop("immediate")
        shutil.rmtree(self.directory)

    @property
    def process(self) -> int:
        """The process that takes its connections."""
        return int((self._data / "postmaster.pid").read_text().split()[0])

    @property
    def dsn(self) -> str:
        """How to connect to it."""
        return f"host={self.directory} user=postgres dbname=postgres"

    def connect(self) -> Any:
        """A connection."""
        return psycopg2.connect(self.dsn)

    @contextmanager
    def transaction(self) -> Iterator[Any]:
        """A cursor in a transaction, which commits at the end."""
        connection = self.connect()
        try:
            with connection, connection.cursor() as cursor:
                yield cursor
        finally:
            connection.close()

    def execute(self, *statements: str) -> None:
        """Statements in one transaction."""
        with self.transaction() as cursor:
            for statement in statements:
                cursor.execute(statement)

    def rows(self, query: str) -> list[tuple[Any, ...]]:
        """What a query gives."""
        with self.transaction() as cursor:
            cursor.execute(query)
            return list(cursor.fetchall())
