"""What the measurements share: a server in a process of its own, and a bare MessagePack client."""

import contextlib
import http.client
import os
import socket
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

SCALE = float(os.environ.get("BENCH_SCALE", "1"))
_LENGTH = struct.Struct(">I")


class Server:
    """A ``dataflow-serve`` process."""

    def __init__(self, workers: int, *arguments: str) -> None:
        """Starts it, with further ``arguments``, and waits until it is ready."""
        command = [
            str(Path(sys.executable).with_name("dataflow-serve")),
            "--listen",
            "127.0.0.1:0",
            "-w",
            str(workers),
            *arguments,
        ]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert self.process.stdout is not None
        self.port = int(self.process.stdout.readline().rsplit(":", 1)[1])
        while not self._is_ready():
            pass

    def _is_ready(self) -> bool:
        connection = http.client.HTTPConnection("127.0.0.1", self.port)
        connection.request("GET", "/health/ready")
        ready = connection.getresponse().status == http.HTTPStatus.OK
        connection.close()
        return ready

    def resident_mb(self) -> float:
        """Resident memory now."""
        return resident_mb(self.process.pid)

    def stop(self) -> None:
        """Ends it."""
        self.process.terminate()
        self.process.wait()


def resident_mb(pid: int) -> float:
    """Resident memory of a process."""
    status = Path(f"/proc/{pid}/status").read_text()
    line = next(line for line in status.splitlines() if line.startswith("VmRSS"))
    return int(line.split()[1]) / 1024


def processor_seconds(pid: int) -> float:
    """User and system time of a process so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def helper(*arguments: str) -> list[str]:
    """The command line of a helper in ``bench/net``, which is built first."""
    root = Path(__file__).parents[2]
    subprocess.run(
        ["cargo", "build", "--quiet", "--release", "-p", "dataflow-bench-net"], cwd=root, check=True
    )
    target = Path(os.environ.get("CARGO_TARGET_DIR", root / "target"))
    return [str(target / "release" / "dataflow-bench-net"), *arguments]


@contextlib.contextmanager
def server(workers: int = 2, *arguments: str) -> Iterator[Server]:
    """A server for the duration of a block."""
    running = Server(workers, *arguments)
    try:
        yield running
    finally:
        running.stop()


class Client:
    """One MessagePack connection, blocking."""

    def __init__(self, port: int) -> None:
        """Connects to the server on ``port``."""
        self.socket = socket.create_connection(("127.0.0.1", port))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket.sendall(b"\xdfFL\x01")
        self.reader = self.socket.makefile("rb", buffering=1 << 18)
        self.next_id = 0

    def send(self, op: str, **fields: Any) -> int:
        """Sends a request; its id."""
        self.next_id += 1
        body = msgspec.msgpack.encode({"id": self.next_id, "op": op, **fields})
        self.socket.sendall(_LENGTH.pack(len(body)) + body)
        return self.next_id

    def receive(self) -> dict[str, Any]:
        """The next message."""
        (length,) = _LENGTH.unpack(self.reader.read(4))
        message: dict[str, Any] = msgspec.msgpack.decode(self.reader.read(length))
        if "error" in message:
            raise RuntimeError(message["error"])
        return message

    def call(self, op: str, **fields: Any) -> Any:
        """Sends a request and waits for its reply; the connection must have no subscription."""
        self.send(op, **fields)
        return self.receive()["ok"]


def transact(relation: str, rows: list[list[Any]]) -> dict[str, Any]:
    """The fields of a transaction that inserts rows."""
    return {"changes": [{"relation": relation, "insert": rows}]}


def percentile(values: list[float], share: float) -> float:
    """The value below which this share of the values lies."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))]
