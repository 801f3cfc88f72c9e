"""Compares the engine with hand-written differential dataflow, in turns, and prints ratios of medians.

Triangles are also computed by the engine as pairwise joins (`pairs`), which the ratio isn't about.

python bench/engine/run.py [--repeats 3] [--work closure triangles counts] [--workers 1 2]
"""

import argparse
import json
import statistics
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SIZES = {"closure": 2_000, "triangles": 200_000, "counts": 3_000_000}
COLUMNS = ("load_s", "change_p50_us", "peak_mb")


def build() -> Path:
    """Builds the benchmark; returns its binary."""
    command = ["cargo", "build", "--release", "-p", "dataflow-bench", "--message-format", "json"]
    output = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    artifacts = [json.loads(line) for line in output.splitlines()]
    return Path(next(a["executable"] for a in artifacts if a.get("executable")))


def measure(binary: Path, engine: str, work: str, workers: int) -> dict[str, float]:
    """Runs one computation in a process of its own."""
    command = [str(binary), engine, work, str(workers), str(SIZES[work])]
    result: dict[str, float] = json.loads(
        subprocess.run(command, check=True, capture_output=True, text=True).stdout
    )
    return result


def main() -> None:
    """Prints a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--work", nargs="+", choices=SIZES, default=list(SIZES))
    parser.add_argument("--workers", nargs="+", type=int, default=[1, 2])
    options = parser.parse_args()
    binary = build()
    print("| work | workers | | load, s | one change, p50 µs | peak memory, MB |")
    print("| --- | --- | --- | --- | --- | --- |")
    for work in options.work:
        for workers in options.workers:
            engines = ["plain", "ours", *(["pairs"] if work == "triangles" else [])]
            runs: dict[str, list[dict[str, float]]] = {engine: [] for engine in engines}
            for _ in range(options.repeats):
                for engine, results in runs.items():
                    results.append(measure(binary, engine, work, workers))
            rows = {run["rows"] for results in runs.values() for run in results}
            if len(rows) != 1:
                raise SystemExit(f"{work}: results of different sizes: {sorted(rows)}")
            medians = {e: {c: statistics.median(r[c] for r in runs[e]) for c in COLUMNS} for e in runs}
            for engine, values in medians.items():
                print(
                    f"| {work} | {workers} | {engine} | "
                    + " | ".join(f"{values[c]:,.2f}" for c in COLUMNS)
                    + " |"
                )
            ratios = [medians["ours"][c] / medians["plain"][c] for c in COLUMNS]
            print(
                f"| {work} | {workers} | ratio | " + " | ".join(f"{ratio:.2f}" for ratio in ratios) + " |",
                flush=True,
            )


if __name__ == "__main__":
    main()
