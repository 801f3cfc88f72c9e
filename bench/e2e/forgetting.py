"""Sweeps of the dictionary: what another client notices of one, and what is left of texts that are gone.

A million rows (``BENCH_SCALE``) hold a text of 34 bytes each. First they stay, and are swept through, once
more with a window that they are in; then 100,000 rows are replaced ten times over, with sweeps and without.
"""

import re
import time
import urllib.request

from common import SCALE, Client, percentile, server, transact
from interference import OTHER, Prober

ROWS = int(1_000_000 * SCALE)
BATCH = 10_000
NEVER = 1 << 60
NOTES = """
.decl note(k: number, text: symbol)
.input note
.decl twice(text: symbol, n: number)
twice(t, n) :- note(_, t), n = count : { note(_, t) }.
.output twice
"""
WINDOW = (
    NOTES
    + """
.decl young(k: number, text: symbol)
young(k, t) :- note(k, t), now(n), n < to_instant("2100-01-01T00:00:00Z") + k.
"""
)


def figure(port: int, name: str) -> float:
    """One of the process's metrics."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics") as response:
        found = re.search(rf"^dataflow_{name} (\S+)$", response.read().decode(), re.MULTILINE)
    return float(found[1]) if found else 0.0


def rows(start: int, count: int) -> list[list[object]]:
    """Rows with texts that no others have."""
    return [[row, f"a text of a row with number {row:06}"] for row in range(start, start + count)]


def sweep(held: str, program: str) -> None:
    """Prints what another client notices of a sweep through all rows, and what ``held`` says."""
    with server(2) as running:
        port = running.port
        client = Client(port)
        client.call("tune", dictionary_bytes=NEVER)
        client.call("register", program=OTHER)
        client.call("register", program=program)
        for start in range(0, ROWS, BATCH):
            client.call("transact", **transact("note", rows(start, BATCH)))
        client.call("transact", changes=[], wait="visible")
        prober = Prober(port)
        quiet = [prober.once() for _ in range(3_000)]
        client.call("tune", dictionary_bytes=1)
        swept: list[float] = []
        while len(swept) % 100 or not figure(port, "dictionary_sweeps_total"):
            swept.append(prober.once())
        for name, taken in (("nothing", quiet), (f"a sweep through {ROWS:,} texts{held}", swept)):
            p50, p99, longest = (percentile(taken, share) * 1e3 for share in (0.5, 0.99, 1.0))
            print(
                f"| {name} | {len(taken):,} | {sum(taken):.2f} | {p50:.2f} | {p99:.2f} | {longest:.2f} |",
                flush=True,
            )


def replace() -> None:
    """Prints what is left after all rows have been replaced several times."""
    print(
        "\n| rows replaced | sweeps | entries left | resident, MB | seconds |\n"
        "| --- | --- | --- | --- | --- |"
    )
    held = ROWS // 10
    for least in (NEVER, 32 << 20):
        with server(2) as running:
            port = running.port
            client = Client(port)
            client.call("tune", dictionary_bytes=least)
            client.call("register", program=NOTES)
            client.call("transact", **transact("note", rows(0, held)), wait="visible")
            taken = 0.0
            for start in range(held, 11 * held, BATCH):
                change = {
                    "relation": "note",
                    "delete": rows(start - held, BATCH),
                    "insert": rows(start, BATCH),
                }
                started = time.perf_counter()
                client.call("transact", changes=[change], wait="visible")
                taken += time.perf_counter() - started
            # Figures are looked up once a second; a sweep that is due comes to its end.
            entries = -1.0
            while entries != (entries := figure(port, "dictionary_entries")):
                client.call("ping")
            print(
                f"| {10 * held:,} | {figure(port, 'dictionary_sweeps_total'):.0f} | {entries:,.0f} "
                f"| {running.resident_mb():.0f} | {taken:.1f} |",
                flush=True,
            )


def main() -> None:
    """Prints two tables."""
    print(
        "| meanwhile | rounds | seconds | p50, ms | p99, ms | longest, ms |\n"
        "| --- | --- | --- | --- | --- | --- |"
    )
    sweep("", NOTES)
    sweep(" that a window holds too", WINDOW)
    replace()


if __name__ == "__main__":
    main()
