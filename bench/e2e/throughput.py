"""Rows a second from one connection into a maintained count per key, MessagePack and NDJSON.

Encoding is done before the clock starts; the clock stops when everything sent is visible. In turns with it:
the same count written by hand on differential dataflow and fed in its own process, without a set of rows.
"""

import json
import socket
import statistics
import struct
import subprocess
import sys
import time
from pathlib import Path

import msgspec
from common import SCALE, Client, server

PROGRAM = """
.decl event(key: number, id: number)
.input event
.decl counted(key: number, n: number)
counted(k, n) :- event(k, _), n = count : { event(k, _) }.
.output counted
"""
ROWS = int(1_000_000 * SCALE)
REPEATS = 3
WORKERS = 2

sys.path.append(str(Path(__file__).parents[1] / "engine"))
from run import build  # noqa: E402  the other benchmark's build of its binary


def messages(encoding: str, batch: int) -> list[bytes]:
    """All transactions, framed."""
    framed = []
    for start in range(0, ROWS, batch):
        rows = [[row % 1000, row] for row in range(start, min(start + batch, ROWS))]
        last = start + batch >= ROWS
        request = {
            "id": 1,
            "op": "transact",
            "changes": [{"relation": "event", "insert": rows}],
            "wait": "visible" if last else "sequenced",
        }
        if encoding == "NDJSON":
            framed.append(msgspec.json.encode(request) + b"\n")
        else:
            body = msgspec.msgpack.encode(request)
            framed.append(struct.pack(">I", len(body)) + body)
    return framed


def replies(stream: socket.socket, encoding: str, expected: int) -> None:
    """Reads so many replies."""
    reader = stream.makefile("rb", buffering=1 << 18)
    for _ in range(expected):
        data = (
            reader.readline() if encoding == "NDJSON" else reader.read(struct.unpack(">I", reader.read(4))[0])
        )
        if b"error" in data:
            raise RuntimeError(data)


def run(encoding: str, batch: int, workers: int = WORKERS, *arguments: str) -> float:
    """Rows a second on a server with further ``arguments``."""
    framed = messages(encoding, batch)
    with server(workers, *arguments) as running:
        Client(running.port).call("register", program=PROGRAM)
        with socket.create_connection(("127.0.0.1", running.port)) as stream:
            stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if encoding != "NDJSON":
                stream.sendall(b"\xdfFL\x01")
            started = time.perf_counter()
            # A window of requests under way, so that neither side's buffers fill up.
            window = max(1, 50_000 // batch)
            for start in range(0, len(framed), window):
                part = framed[start : start + window]
                stream.sendall(b"".join(part))
                replies(stream, encoding, len(part))
            return ROWS / (time.perf_counter() - started)


def by_hand(binary: Path) -> float:
    """Rows a second of the hand-written dataflow, on as many workers as the server has."""
    command = [str(binary), "plain", "counts", str(WORKERS), str(ROWS)]
    output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return ROWS / float(json.loads(output)["load_s"])


def main() -> None:
    """Prints a table."""
    binary = build()
    kinds = [(encoding, batch) for encoding in ("MessagePack", "NDJSON") for batch in (100, 10_000)]
    rates: dict[tuple[str, int], list[float]] = {kind: [] for kind in kinds}
    anchor = []
    for _ in range(REPEATS):
        anchor.append(by_hand(binary))
        for kind in kinds:
            rates[kind].append(run(*kind))
    hand = statistics.median(anchor)
    print(f"| encoding | rows a transaction | rows/s, median of {REPEATS} | ratio |")
    print("| --- | --- | --- | --- |")
    print(f"| none: by hand, in process | {ROWS:,} | {hand:,.0f} | 1 |")
    for (encoding, batch), each in rates.items():
        rate = statistics.median(each)
        print(f"| {encoding} | {batch:,} | {rate:,.0f} | {rate / hand:.2f} |")


if __name__ == "__main__":
    main()
