"""Counts that follow their rows, from and to Python: Pathway against a server of ours.

python bench/peers/pathway_live.py [--repeats 3] [--workers 1 2]

Rows go into Pathway's connector for Python or our client's transactions, changed counts come as its callbacks
or our subscription's steps. Both have 100,000 rows of 1,000 keys, and get batches of further rows, each of
which is committed by itself. `one by one` waits for a batch's counts before the next; `in a row` doesn't, and
counts until the last are there. Our server is a process of its own.
"""

import argparse
import importlib.util
import json
import os
import random
import subprocess
import sys
import threading
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from statistics import median

import trio

sys.path.append(str(Path(__file__).parents[1] / "e2e"))

from common import SCALE, server

KEYS = 1_000
ROWS = 100_000
COUNTS = (Path(__file__).parents[1] / "engine" / "programs" / "counts.dl").read_text()
SIZES = {1: 1_000, 100: 300, 10_000: 10}
"""Rows of a batch, and how many batches are measured in either way."""

Row = tuple[int, int]


class Counted:
    """How many rows the counts that have arrived add up to; waits for them, in a thread or a task."""

    def __init__(self) -> None:
        self._rows = 0
        self._arrived = threading.Condition()
        self._changed = trio.Event()

    def add(self, rows: int) -> None:
        """Counts that have grown by so much, or come to less."""
        with self._arrived:
            self._rows += rows
            self._arrived.notify_all()

    def tell(self) -> None:
        """Tells tasks of the same loop."""
        self._changed.set()
        self._changed = trio.Event()

    def in_thread(self, rows: int) -> None:
        """Until they are so many."""
        with self._arrived:
            self._arrived.wait_for(lambda: self._rows == rows)

    async def in_task(self, rows: int) -> None:
        """The same."""
        while self._rows != rows:
            await self._changed.wait()


async def measure(
    commit: Callable[[list[Row]], Awaitable[object]], wait: Callable[[int], Awaitable[object]], size: int
) -> dict[str, float]:
    """Updates a second in both ways, and the median of one batch in microseconds."""
    numbers = random.Random(7)
    batches = max(3, round(SIZES[size] * SCALE))
    total = 0

    def rows(count: int) -> list[Row]:
        nonlocal total
        total += count
        return [(numbers.randrange(KEYS), total - at) for at in range(count)]

    await commit(rows(ROWS))
    await wait(total)
    taken = []
    for _ in range(batches):
        batch = rows(size)
        started = time.perf_counter()
        await commit(batch)
        await wait(total)
        taken.append(time.perf_counter() - started)
    made = [rows(size) for _ in range(batches)]
    started = time.perf_counter()
    for batch in made:
        await commit(batch)
    await wait(total)
    seconds = time.perf_counter() - started
    return {
        "p50_us": median(taken) * 1e6,
        "one by one": size / median(taken),
        "in a row": batches * size / seconds,
    }


def by_pathway(size: int) -> dict[str, float]:
    """Runs a graph until all batches are through."""
    import pathway as pw

    class Edge(pw.Schema):
        key: int
        row: int

    counted, found = Counted(), {}

    class Batches(pw.io.python.ConnectorSubject):
        def run(self) -> None:
            found.update(trio.run(measure, self._commit, self._wait, size))

        async def _wait(self, rows: int) -> None:
            counted.in_thread(rows)

        async def _commit(self, batch: list[Row]) -> None:
            for key, row in batch:
                self.next(key=key, row=row)
            self.commit()

    def change(key: pw.Pointer, row: dict[str, int], time: int, is_addition: bool) -> None:
        counted.add(row["rows"] if is_addition else -row["rows"])

    edge = pw.io.python.read(Batches(), schema=Edge, autocommit_duration_ms=None)
    counts = edge.groupby(edge.key).reduce(edge.key, rows=pw.reducers.count())
    pw.io.subscribe(counts, on_change=change)
    pw.run(monitoring_level=pw.MonitoringLevel.NONE)
    return found


async def by_us(size: int, workers: int) -> dict[str, float]:
    """The same through two connections to a server."""
    import dataflow_serve as ds

    counted = Counted()
    with server(workers) as running:
        url = f"df://127.0.0.1:{running.port}"
        async with (
            ds.open_client(url) as writer,
            ds.open_client(url) as reader,
            trio.open_nursery() as nursery,
        ):
            await writer.register(COUNTS)

            async def follow(task_status: trio.TaskStatus[None]) -> None:
                async with reader.subscribe("counted") as live:
                    task_status.started()
                    async for step in live:
                        counted.add(sum(diff * row[1] for row, diff in step.changes))
                        counted.tell()

            async def commit(batch: list[Row]) -> None:
                await writer.transact(edge=batch, wait=False)

            await nursery.start(follow)
            found = await measure(commit, counted.in_task, size)
            nursery.cancel_scope.cancel()
    return found


def child(system: str, size: int, workers: int) -> dict[str, float]:
    """Measures in a process of its own."""
    command = [sys.executable, __file__, "--child", system, str(size), str(workers)]
    environment = {**os.environ, "PATHWAY_THREADS": str(workers)}
    output = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=environment).stdout
    found: dict[str, float] = json.loads(output.splitlines()[-1])
    return found


def main() -> None:
    """Prints a table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--workers", nargs="+", type=int, default=[1, 2])
    parser.add_argument("--child", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        system, size, workers = options.child[0], int(options.child[1]), int(options.child[2])
        print(json.dumps(by_pathway(size) if system == "Pathway" else trio.run(by_us, size, workers)))
        return
    if importlib.util.find_spec("pathway") is None:
        raise SystemExit("not run: pathway isn't installed (pip install pathway)")
    print(
        "| rows a batch | workers | | a batch, p50 µs | one by one, rows/s | in a row, rows/s |\n|"
        + " --- |" * 6
    )
    for size in SIZES:
        for workers in options.workers:
            middle: dict[str, dict[str, float]] = {}
            runs = [
                {name: child(name, size, workers) for name in ("Pathway", "ours")}
                for _ in range(options.repeats)
            ]
            for name in ("Pathway", "ours"):
                middle[name] = {key: median(run[name][key] for run in runs) for key in runs[0][name]}
                figures = " | ".join(f"{value:,.0f}" for value in middle[name].values())
                print(f"| {size:,} | {workers} | {name} | {figures} |", flush=True)
            ratios = " | ".join(
                f"{middle['ours'][key] / middle['Pathway'][key]:.2f}" for key in middle["ours"]
            )
            print(f"| {size:,} | {workers} | ours / Pathway | {ratios} |", flush=True)


if __name__ == "__main__":
    main()
