"""Starts and stops real clusters: `dataflow-serve` as users run it, one operating system process each."""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import signal
import socket
import subprocess
import sys
import sysconfig
import tempfile
import threading
import time
from collections.abc import Iterable
from pathlib import Path

from .wire import PATIENCE, Closed, Refused, Wire

SHAPES = ((1, 1), (1, 2), (2, 1), (2, 2))
"""Processes and workers a process, the shapes every scenario runs at."""

COMMAND = Path(sysconfig.get_path("scripts")) / "dataflow-serve"
_LISTENING = re.compile(r"listening on (?P<host>[0-9.]+):(?P<port>[0-9]+)")


class Process:
    """One process of a cluster, its output kept for the report of a failing test."""

    def __init__(
        self,
        arguments: Iterable[str],
        environment: dict[str, str],
        *,
        prefix: Iterable[str] = (),
        script: Path = COMMAND,
    ) -> None:
        self.popen = subprocess.Popen(
            [*prefix, sys.executable, str(script), *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env={**os.environ, **environment},
            text=True,
        )
        self.output: list[str] = []
        self.address: tuple[str, int] | None = None
        self._listening = threading.Event()
        self._printed = threading.Condition()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.popen.stdout is not None
        with self.popen.stdout as lines:
            for line in lines:
                with self._printed:
                    self.output.append(line)
                    self._printed.notify_all()
                if self.address is None and (match := _LISTENING.search(line)):
                    self.address = (match["host"], int(match["port"]))
                    self._listening.set()
        self._listening.set()

    def wait_listening(self) -> tuple[str, int]:
        """The address it accepts clients at."""
        if not self._listening.wait(PATIENCE) or self.address is None:
            raise AssertionError(f"the server doesn't listen; its output:\n{''.join(self.output)}")
        return self.address

    def wait_said(self, words: str, times: int = 1) -> None:
        """Wait until it has printed lines with these words."""
        deadline = time.monotonic() + PATIENCE
        with self._printed:
            while sum(words in line for line in self.output) < times:
                if not self._printed.wait(deadline - time.monotonic()):
                    raise AssertionError(f"{words!r} was not said; the output:\n{''.join(self.output)}")

    def wait(self, seconds: float) -> int:
        """Its exit code, once it has ended by itself."""
        code = self.popen.wait(seconds)
        self._reader.join(seconds)
        return code

    def kill(self) -> None:
        """End it at once."""
        self.popen.kill()
        self.popen.wait()
        self._reader.join()


class Cluster:
    """A running cluster; `clients` opens connections to it."""

    def __init__(
        self, processes: int = 1, workers: int = 2, *arguments: str, token: str | None = None
    ) -> None:
        """`token` is what the clients opened here give; the server's are in its `arguments`."""
        self.processes, self.workers = processes, workers
        self.arguments, self.token = arguments, token
        self._directory = tempfile.TemporaryDirectory(prefix="dataflow-serve-test-")
        self._clients: list[Wire] = []
        options = ["--listen", "127.0.0.1:0", "-w", str(workers), *arguments]
        environment = {}
        if processes > 1:
            hosts = Path(self._directory.name, "hosts")
            self.mesh = [("127.0.0.1", port) for port in free_ports(processes)]
            hosts.write_text("".join(f"{host}:{port}\n" for host, port in self.mesh))
            options += ["-n", str(processes), "-h", str(hosts)]
            environment["DATAFLOW_SERVE_SECRET"] = secrets.token_hex(16)
        self._options, self._environment = options, environment
        self.members = [self._start(index) for index in range(processes)]
        try:
            self.addresses = [member.wait_listening() for member in self.members]
            self.wait_formed()
        except BaseException:
            self.kill()
            raise

    def _start(self, index: int) -> Process:
        index_of = ["-p", str(index)] if self.processes > 1 else []
        return Process([*self._options, *index_of], self._environment)

    def kill_member(self, index: int) -> None:
        """End one process at once, without a word to anybody."""
        self.members[index].kill()

    def restart(self, index: int) -> None:
        """Start a process that has ended anew, as it was, and wait until the cluster is formed."""
        self.members[index] = self._start(index)
        self.addresses[index] = self.members[index].wait_listening()
        self.wait_formed()

    def wait_formed(self, after: str | None = None) -> None:
        """Wait until all processes answer as parts of one cluster, whose history isn't `after`."""
        for address in self.addresses:
            wait_formed(address, self.token, after)

    @property
    def size(self) -> int:
        """Workers of the whole cluster."""
        return self.processes * self.workers

    def open(self, encoding: str = "ndjson", process: int = 0, *, hello: bool = True) -> Wire:
        """A new client of one process; `close_clients` closes it."""
        client = Wire(self.addresses[process], encoding, hello=hello, token=self.token)
        self._clients.append(client)
        return client

    def clients(self, *encodings: str) -> list[Wire]:
        """One client for each of `encodings`, spread over the processes; neighbours have different owners."""
        return [self.open(encoding, index % self.processes) for index, encoding in enumerate(encodings)]

    def close_clients(self) -> None:
        """Close every client that was opened here."""
        for client in self._clients:
            client.close()
        self._clients.clear()

    def empty(self) -> None:
        """Close all clients and unregister everything; what depends on another program goes before it."""
        self.close_clients()
        with Wire(self.addresses[0], token=self.token) as client:
            names = sorted({relation["module"] for relation in client.call("status")["relations"]})
            while names:
                left = []
                for name in names:
                    try:
                        client.call("unregister", name=name)
                    except Refused as refused:
                        if refused.code != "conflict":
                            raise
                        left.append(name)
                assert len(left) < len(names), f"{left} can't be unregistered"
                names = left
            assert client.call("status")["relations"] == []

    def alive(self) -> bool:
        """Whether every process still runs."""
        return all(member.popen.poll() is None for member in self.members)

    def stop(self, number: int = signal.SIGTERM, member: int = 0, seconds: float = 5.0) -> list[int]:
        """Send one process a signal; the exit codes of all, which must have ended within `seconds`."""
        self.members[member].popen.send_signal(number)
        deadline = time.monotonic() + seconds
        try:
            return [each.wait(max(0.0, deadline - time.monotonic())) for each in self.members]
        finally:
            self.kill()

    def kill(self) -> None:
        """End all processes at once."""
        self.close_clients()
        for member in self.members:
            member.kill()
        self._directory.cleanup()

    def report(self) -> str:
        """What the processes printed."""
        return "\n".join(
            f"--- process {index} (exit code {member.popen.poll()})\n{''.join(member.output)}"
            for index, member in enumerate(self.members)
        )


def wait_formed(address: tuple[str, int], token: str | None = None, after: str | None = None) -> None:
    """Wait until the process at `address` answers as a part of its cluster, whose history isn't `after`."""
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            with Wire(address, token=token) as client:
                if client.info["history"] != after:
                    return
        except Closed:
            # Opened in the last moment of the generation that ends.
            pass
        except Refused as refused:
            if refused.code not in ("unavailable", "interrupted"):
                raise
        assert time.monotonic() < deadline, f"the cluster is not formed at {address}"


def free_ports(count: int) -> list[int]:
    """Ports that nothing listens on now; they are told apart by being held at the same time.

    They are none of those that the system gives to connections, so that a process may come back to its own.
    """
    try:
        range_file = Path("/proc/sys/net/ipv4/ip_local_port_range")
        first_given = int(range_file.read_text().split()[0])
    except (OSError, ValueError):
        first_given = 32768
    held: list[socket.socket] = []
    while len(held) < count:
        with contextlib.suppress(OSError):
            held.append(socket.create_server(("127.0.0.1", secrets.randbelow(first_given - 10000) + 10000)))
    ports = [int(each.getsockname()[1]) for each in held]
    for each in held:
        each.close()
    return ports
