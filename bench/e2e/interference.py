"""Another client's one-row latency while a million rows are loaded, and while a program starts over them.

``BENCH_SCALE=10`` loads ten million rows.
"""

import multiprocessing
import time
from collections.abc import Callable

from common import SCALE, Client, percentile, server, transact

ROWS = int(1_000_000 * SCALE)
BATCH = 10_000
OTHER = ".decl ping(x: number)\n.input ping\n.decl pong(x: number)\npong(x) :- ping(x).\n.output pong"
BIG = ".decl big(k: number, v: number)\n.input big"
OVER = ".decl per(k: number, n: number)\nper(k, n) :- big(k, _), n = count : { big(k, _) }.\n.output per"


class Prober:
    """A client that transacts one row after the other and takes the time to each step, until told to stop."""

    def __init__(self, port: int) -> None:
        """Subscribes on the server on ``port``."""
        self.writer, self.reader = Client(port), Client(port)
        self.reader.call("subscribe", relation="pong", snapshot=False)
        self.row = 0

    def once(self) -> float:
        """Seconds of one round."""
        started = time.perf_counter()
        self.row += 1
        self.writer.send("transact", **transact("ping", [[self.row]]))
        self.reader.receive()
        taken = time.perf_counter() - started
        self.writer.receive()
        return taken

    def during(self, work: Callable[[int], None], port: int) -> list[float]:
        """Rounds for as long as ``work`` takes, in a process of its own."""
        process = multiprocessing.get_context("spawn").Process(target=work, args=(port,))
        process.start()
        taken = []
        while process.is_alive():
            taken.append(self.once())
        process.join()
        return taken


def load(port: int) -> None:
    """Loads all rows, a few transactions under way at a time."""
    client = Client(port)
    for start in range(0, ROWS, BATCH):
        client.send("transact", **transact("big", [[row % 1000, row] for row in range(start, start + BATCH)]))
        if start >= 4 * BATCH:
            client.receive()
    for _ in range(min(4, ROWS // BATCH)):
        client.receive()
    client.call("transact", changes=[], wait="visible")


def register(port: int) -> None:
    """Registers a program over the rows, and waits until it has counted them."""
    client = Client(port)
    client.call("register", program=OVER)
    client.call("transact", **transact("big", [[0, -1]]), wait="visible")


def main() -> None:
    """Prints a table."""
    print("| meanwhile | rounds | p50, ms | p99, ms | longest, ms |\n| --- | --- | --- | --- | --- |")

    def show(name: str, taken: list[float]) -> None:
        p50, p99, longest = (percentile(taken, share) * 1e3 for share in (0.5, 0.99, 1.0))
        print(f"| {name} | {len(taken):,} | {p50:.2f} | {p99:.2f} | {longest:.2f} |", flush=True)

    with server(2) as running:
        other = Client(running.port)
        other.call("register", program=OTHER)
        other.call("register", program=BIG)
        prober = Prober(running.port)
        show("nothing", [prober.once() for _ in range(1_000)])
        show(f"{ROWS:,} rows are loaded", prober.during(load, running.port))
        show(f"a program starts over {ROWS:,} rows", prober.during(register, running.port))


if __name__ == "__main__":
    main()
