"""What an I/O thread gains and costs: one worker with none and with one, in turns.

Rows a second from one connection, as in ``throughput.py``, and one row to its step, as in ``latency.py``.
The client takes a part of the machine too: with two cores, nothing is left for a third thread.
"""

import os
import statistics

import latency
import throughput
from common import percentile

REPEATS = 3
VARIANTS = {"no I/O thread": (), "1 I/O thread": ("--io-threads", "1")}
KINDS = [("MessagePack", 100), ("MessagePack", 10_000), ("NDJSON", 100), ("NDJSON", 10_000)]


def once(arguments: tuple[str, ...]) -> list[float]:
    """Rows a second of each kind, then p50 and p99 of a step in seconds."""
    rates = [throughput.run(encoding, batch, 1, *arguments) for encoding, batch in KINDS]
    taken, _ = latency.steps(1, 1, *arguments)
    return [*rates, percentile(taken, 0.5), percentile(taken, 0.99)]


def main() -> None:
    """Prints a table of medians."""
    runs: dict[str, list[list[float]]] = {name: [] for name in VARIANTS}
    for _ in range(REPEATS):
        for name, arguments in VARIANTS.items():
            runs[name].append(once(arguments))
    medians = {
        name: [statistics.median(each) for each in zip(*found, strict=True)] for name, found in runs.items()
    }
    print(f"| 1 worker, {os.cpu_count()} cores | {' | '.join(VARIANTS)} |\n| --- | --- | --- |")
    for at, (encoding, batch) in enumerate(KINDS):
        rates = " | ".join(f"{found[at]:,.0f}" for found in medians.values())
        print(f"| {encoding}, {batch:,} rows a transaction, rows/s | {rates} |")
    for at, name in ((-2, "p50"), (-1, "p99")):
        times = " | ".join(f"{found[at] * 1e6:,.0f}" for found in medians.values())
        print(f"| one row to its step, {name}, µs | {times} |")


if __name__ == "__main__":
    main()
