"""What each tunable trades: a mixed load under one setting after the other, on one server.

    python bench/tradeoffs/sweep.py --rounds 5 --seconds 3

Writers send rows as fast as the server takes them, a recursive query is kept changing, subscribers read, and
a probe measures how long one row takes to its subscriber. Each setting differs from the defaults in what its
name says, and is compared with the defaults as measured just before it, so that what else the machine does
hits both alike. Medians of the ratios are printed and plotted (``docs/tradeoffs.svg``, with
``pip install 'dataflow-serve[bench]'``).
"""

import argparse
import multiprocessing
import random
import statistics
import sys
import time
from collections.abc import Callable
from multiprocessing.sharedctypes import Synchronized
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).parents[1] / "e2e"))

from common import Client, percentile, server, transact

PICTURE = Path(__file__).parents[2] / "docs" / "tradeoffs.svg"

PROGRAM = """
    .decl load(k: number, v: number)
    .input load
    .decl total(k: number, n: number)
    total(k, n) :- load(k, _), n = count : { load(k, _) }.
    .output total
    .decl edge(x: number, y: number)
    .input edge
    .decl reach(x: number, y: number)
    reach(x, y) :- edge(x, y).
    reach(x, z) :- reach(x, y), edge(y, z).
    .output reach
    .decl probe(n: number) raw
    .input probe
"""
NODES = 120
WRITERS = 2
WINDOW = 64
ROWS = 20
SUBSCRIBERS = 20

SETTINGS: dict[str, dict[str, int]] = {
    "the same again": {},
    **{f"commands {n}": {"commands_per_turn": n} for n in (16, 128, 8_192)},
    **{f"visit {n}": {"requests_per_visit": n} for n in (1, 16, 1_024)},
    **{f"bytes {n >> 10}k": {"bytes_per_turn": n} for n in (16 << 10, 256 << 10, 64 << 20)},
    **{f"steps {n}": {"steps_per_turn": n} for n in (1, 4, 64, 512)},
    **{f"{n} µs": {"step_micros": n} for n in (100, 500, 10_000, 50_000)},
    **{f"emit {n}": {"emit_rows": n, "slice_rows": n // 4} for n in (1_024, 1 << 20)},
    "spin 50 µs": {"spin_micros": 50},
    "spin": {"spin_micros": 1 << 40},
}


def writer(port: int, seed: int, rows: "Synchronized[int]") -> None:
    """Rows as fast as they are taken: a window of transactions, each seen by the query before it counts."""
    client, rng, waiting = Client(port), random.Random(seed), 0
    while True:
        while waiting < WINDOW:
            batch = [[rng.randrange(1_000), rng.randrange(200)] for _ in range(ROWS)]
            fields = transact("load", batch)
            if rng.random() < 0.5:
                fields["changes"] = [{"relation": "load", "delete": batch}]
            client.send("transact", **fields, wait="visible")
            waiting += 1
        client.receive()
        waiting -= 1
        with rows.get_lock():
            rows.value += ROWS


def recursion(port: int, changes: "Synchronized[int]") -> None:
    """One edge of a strongly connected graph gone, then back: much of the closure each time."""
    client, rng = Client(port), random.Random(0)
    edges = [[x, (x + 1) % NODES] for x in range(NODES)]
    edges += [[rng.randrange(NODES), rng.randrange(NODES)] for _ in range(NODES)]
    client.call("transact", **transact("edge", edges), wait="visible")
    while True:
        edge = [rng.choice(edges)]
        for change in ("delete", "insert"):
            client.call("transact", changes=[{"relation": "edge", change: edge}], wait="visible")
            changes.value += 1


def subscribers(port: int) -> None:
    """Many that read all there is."""
    import selectors

    selector = selectors.DefaultSelector()
    for _ in range(SUBSCRIBERS):
        client = Client(port)
        client.call("subscribe", relation="total", snapshot=False)
        selector.register(client.socket, selectors.EVENT_READ)
    while True:
        for key, _ in selector.select():
            key.fileobj.recv(1 << 20)  # type: ignore[union-attr]


def prober(port: int, pipe: Any) -> None:
    """When asked to, rows to their subscriber one by one; answers with the seconds each took."""
    sender, receiver = Client(port), Client(port)
    receiver.call("subscribe", relation="probe", snapshot=False)
    number = 0
    while True:
        until = time.perf_counter() + pipe.recv()
        taken: list[float] = []
        while (started := time.perf_counter()) < until or not taken:
            number += 1
            sender.send("transact", **transact("probe", [[number]]))
            receiver.receive()
            taken.append(time.perf_counter() - started)
            sender.receive()
            time.sleep(0.002)
        pipe.send(taken)


def sweep(rounds: int, seconds: float, names: list[str]) -> dict[str, dict[str, float]]:
    """For each setting the medians of what it has against the defaults."""
    context = multiprocessing.get_context("spawn")
    rows, changes = context.Value("q", 0), context.Value("q", 0)
    here, there = context.Pipe()
    found: dict[str, list[dict[str, float]]] = {name: [] for name in names}
    with server(2) as running:
        control = Client(running.port)
        control.call("register", program=PROGRAM)
        defaults = control.call("status")["tunables"]
        started: list[tuple[Callable[..., None], tuple[Any, ...]]] = [
            *((writer, (running.port, seed, rows)) for seed in range(WRITERS)),
            (recursion, (running.port, changes)),
            (subscribers, (running.port,)),
            (prober, (running.port, there)),
        ]
        processes = [context.Process(target=body, args=arguments, daemon=True) for body, arguments in started]
        for process in processes:
            process.start()

        def measure(duration: float) -> dict[str, float]:
            before, at = (rows.value, changes.value), time.perf_counter()
            here.send(duration)
            taken = here.recv()
            elapsed = time.perf_counter() - at
            return {
                "rows": (rows.value - before[0]) / elapsed,
                "changes": (changes.value - before[1]) / elapsed,
                "p50": percentile(taken, 0.5),
                "p99": percentile(taken, 0.99),
            }

        measure(3 * seconds)
        for number in range(rounds):
            for name in random.sample(names, len(names)):
                runs = []
                for setting in ({}, SETTINGS[name]):
                    control.call("tune", **{**defaults, **setting})
                    measure(seconds / 4)
                    runs.append(measure(seconds))
                before, after = runs
                found[name].append({key: after[key] / max(before[key], 1e-9) for key in before})
            print(f"round {number + 1} of {rounds}", file=sys.stderr, flush=True)
        for process in processes:
            process.terminate()
    return {
        name: {key: statistics.median(run[key] for run in runs) for key in runs[0]}
        for name, runs in found.items()
    }


def table(found: dict[str, dict[str, float]]) -> None:
    """Prints the medians."""
    print("| setting, against the defaults | rows/s | recursion, changes/s | probe, p50 | probe, p99 |")
    print("| --- | --- | --- | --- | --- |")
    for name, run in found.items():
        print(f"| {name} | {' | '.join(f'{run[key]:.2f}' for key in ('rows', 'changes', 'p50', 'p99'))} |")


def plot(found: dict[str, dict[str, float]]) -> None:
    """Draws throughput against latency."""
    import pygal

    chart = pygal.XY(
        title="Each point a setting, against the defaults: throughput and the latency of one row",
        x_title="rows/s, ratio",
        y_title="latency of one row, p50, ratio",
        stroke=False,
        print_labels=True,
        show_legend=False,
        dots_size=4,
        width=1100,
        height=700,
        js=[],
    )
    for name, run in found.items():
        chart.add(name, [{"value": (run["rows"], run["p50"]), "label": name}])
    chart.render_to_file(str(PICTURE))


def main() -> None:
    """Sweeps, prints, plots."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--only", nargs="*", choices=SETTINGS, help="these settings only")
    arguments = parser.parse_args()
    found = sweep(arguments.rounds, arguments.seconds, arguments.only or list(SETTINGS))
    table(found)
    try:
        plot(found)
    except ImportError:
        print("\nNot plotted: pygal isn't installed (pip install 'dataflow-serve[bench]').")


if __name__ == "__main__":
    main()
