"""Another client's one-row latency while a million rows are loaded, and while a program starts over them.

``BENCH_SCALE=10`` loads ten million rows. The last columns are the workers' own: their longest step so far,
and the kind of operator that worked longest in one without a pause. The second half is with loads that aren't
cut over several times.
"""

import multiprocessing
import re
import time
import urllib.request
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


def longest_of(port: int) -> tuple[str, str]:
    """The workers' longest step so far, and their longest work without a pause, in ms."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics") as response:
        text = response.read().decode()
    found = [
        (float(seconds) * 1e3, labels)
        for labels, seconds in re.findall(r"dataflow_longest_\w+_seconds\{(.*)\} (\S+)", text)
    ]
    step = max(time for time, labels in found if "operator" not in labels)
    work, labels = max(each for each in found if "operator" in each[1])
    kind = re.search('operator="(.*)"', labels)
    return f"{step:.0f}", f"{work:.0f} ({kind[1] if kind else labels})"


def main() -> None:
    """Prints a table."""
    print(
        "| meanwhile | rounds | p50, ms | p99, ms | longest, ms | longest step, ms | longest work, ms |\n"
        "| --- | --- | --- | --- | --- | --- | --- |"
    )

    def show(name: str, taken: list[float], port: int) -> None:
        p50, p99, longest = (percentile(taken, share) * 1e3 for share in (0.5, 0.99, 1.0))
        step, work = longest_of(port)
        row = f"| {name} | {len(taken):,} | {p50:.2f} | {p99:.2f} | {longest:.2f} | {step} | {work} |"
        print(row, flush=True)

    for cut in (True, False):
        with server(2) as running:
            port = running.port
            other = Client(port)
            if not cut:
                other.call("tune", max_rows_per_time=ROWS)
            other.call("register", program=OTHER)
            other.call("register", program=BIG)
            prober = Prober(port)
            show("nothing", [prober.once() for _ in range(1_000)], port)
            loaded = f"{ROWS:,} rows are loaded" + ("" if cut else ", uncut")
            show(loaded, prober.during(load, port), port)
            show(f"a program starts over {ROWS:,} rows", prober.during(register, port), port)


if __name__ == "__main__":
    main()
