"""Measures, over and over, one row's way from a client of one worker to a subscriber at another.

    python pulse.py HOST:PORT        prints "ready" once it measures, what it found when stdin closes

It is a process of its own, so that it waits for the server and not for whatever else its parent does. It
speaks NDJSON over plain sockets: the protocol is simple enough for a page of Python.
"""

from __future__ import annotations

import json
import socket
import statistics
import sys
import threading
import time
from typing import Any

PROGRAM = ".decl pulse(beat: number) upsert(beat)\n.input pulse"
PAUSE_SECONDS = 0.02
LEAST_BEATS = 2
"""What percentiles need, however soon it is told to end."""


class Connection:
    """One connection, one message a line."""

    def __init__(self, address: str) -> None:
        """Connect."""
        host, port = address.rsplit(":", 1)
        self._socket = socket.create_connection((host, int(port)))
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._lines = self._socket.makefile("rb")

    def send(self, **request: Any) -> None:
        """Send a request."""
        self._socket.sendall(json.dumps(request).encode() + b"\n")

    def receive(self) -> Any:
        """Wait for the next message."""
        return json.loads(self._lines.readline())


def main(address: str) -> None:
    """Measure until standard input ends."""
    stop = threading.Event()
    threading.Thread(target=lambda: (sys.stdin.read(), stop.set()), daemon=True).start()
    writer, reader = Connection(address), Connection(address)
    writer.send(id=0, op="register", program=PROGRAM, name="pulse")
    writer.receive()
    reader.send(id=0, op="subscribe", relation="pulse", snapshot=False)
    reader.receive()
    print("ready", flush=True)
    milliseconds: list[float] = []
    beat = 0
    while not stop.wait(PAUSE_SECONDS) or len(milliseconds) < LEAST_BEATS:
        beat += 1
        start = time.perf_counter()
        writer.send(id=beat, op="transact", changes=[{"relation": "pulse", "insert": [[beat]]}])
        message = reader.receive()
        milliseconds.append((time.perf_counter() - start) * 1e3)
        assert message["changes"] == [[[beat], 1]], message
        writer.receive()
    cuts = statistics.quantiles(milliseconds, n=100, method="inclusive")
    print(f"p50 {cuts[49]:.2f} ms, p99 {cuts[98]:.2f} ms ({len(milliseconds):,} times)")


if __name__ == "__main__":
    main(sys.argv[1])
