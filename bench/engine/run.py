"""Compares the engine with hand-written differential dataflow, in turns, and prints ratios of medians.

`plain` is written by hand, `sets` the same with inputs that are sets, as the engine's are. Triangles are also
computed by the engine as pairwise joins (`pairs`), and what is compared with `sets` from `raw` inputs, which
are no sets (`raw`).

python bench/engine/run.py [--repeats 3] [--work closure triangles …] [--workers 1 2]

BENCH_SCALE=0.01 makes everything smaller. In each run the engines' results must be equal, after loading and
after all changes. TPC-H (q1, q3, q5, q9) needs `pip install tpchgen-cli`.
"""

import argparse
import json
import statistics
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tpch
from works import ROOT, SCALE, WORKS, tables, write_plan

FIGURES = {
    "load_s": "load, s",
    "peak_mb": "peak memory, MB",
    "change_p50_us": "a transaction, p50 µs",
    "change_p99_us": "p99 µs",
    "changes_per_s": "changes/s",
}
RATIOS = [("ours", "plain"), ("ours", "sets"), ("raw", "plain")]
Figures = dict[str, float]


def build() -> Path:
    """Builds the benchmark; returns its binary."""
    command = ["cargo", "build", "--release", "-p", "dataflow-bench", "--message-format", "json"]
    output = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    artifacts = [json.loads(line) for line in output.splitlines()]
    return Path(next(a["executable"] for a in artifacts if a.get("executable")))


@dataclass(frozen=True)
class Bench:
    """The binary, and a directory for what it reads."""

    binary: Path
    directory: Path
    scale: float = SCALE

    def size(self, work: str) -> int:
        """The computation's size, scaled."""
        return max(100, round(WORKS[work].size * self.scale))

    def engines(self, work: str) -> dict[str, str]:
        """What runs the computation: the hand-written dataflow, and plans."""
        known = tables(work, self.directory / "tpch", self.scale)
        engines = {"plain": "plain", "ours": str(write_plan(work, self.directory, known))}
        if WORKS[work].sets:
            engines["sets"] = "sets"
            engines["raw"] = str(write_plan(work, self.directory, known, raw=True))
        if work == "triangles":
            engines["pairs"] = str(write_plan(work, self.directory, pairs=True))
        return engines

    def facts(self, work: str) -> Path:
        """A directory with the computation's tables as files of facts, and changes of a row each."""
        if WORKS[work].tpch:
            return self.directory / "tpch"
        directory = self.directory / f"{work}-{self.size(work)}"
        directory.mkdir(exist_ok=True)
        subprocess.run([str(self.binary), "facts", work, str(directory), str(self.size(work))], check=True)
        return directory

    def run(self, engine: str, work: str, workers: int, batch: int = 1, batches: int = 100) -> dict[str, Any]:
        """Runs one computation in a process of its own; what it printed."""
        command = [str(self.binary), engine, work, str(workers), str(self.size(work))]
        command += ["--batch", str(batch), "--batches", str(batches)]
        command += ["--tables", str(self.directory / "tpch")]
        output = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
        found: dict[str, Any] = json.loads(output)
        return found

    def compare(self, work: str, workers: int, batch: int, batches: int, repeats: int) -> dict[str, Figures]:
        """Medians of runs in turns, whose results must be equal."""
        engines = self.engines(work)
        runs: dict[str, list[dict[str, Any]]] = {engine: [] for engine in engines}
        for _ in range(repeats):
            for engine, path in engines.items():
                runs[engine].append(self.run(path, work, workers, batch, batches))
        results = {(run["rows"], *run["sums"]) for found in runs.values() for run in found}
        if len(results) != 1:
            raise SystemExit(f"{work}: the results differ: {sorted(results)}")
        return {
            engine: {figure: statistics.median(run[figure] for run in found) for figure in FIGURES}
            for engine, found in runs.items()
        }


def print_table(place: str, medians: dict[str, Figures]) -> None:
    """A line for each engine, and one for each ratio."""
    lines = dict(medians)
    for one, other in RATIOS:
        if one in medians and other in medians:
            ratios = {figure: medians[one][figure] / medians[other][figure] for figure in FIGURES}
            lines[f"{one} / {other}"] = ratios
    for engine, values in lines.items():
        digits = {figure: 2 if "/" in engine or figure == "load_s" else 0 for figure in FIGURES}
        cells = [f"{values[figure]:,.{digits[figure]}f}" for figure in FIGURES]
        print(f"| {place} | {engine} | {' | '.join(cells)} |", flush=True)


def main() -> None:
    """Prints a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--work", nargs="+", choices=WORKS, default=list(WORKS))
    parser.add_argument("--workers", nargs="+", type=int, default=[1, 2])
    options = parser.parse_args()
    works = [work for work in options.work if not WORKS[work].tpch or tpch.available()]
    with tempfile.TemporaryDirectory() as directory:
        bench = Bench(build(), Path(directory))
        print(f"| work | workers | changes a transaction | | {' | '.join(FIGURES.values())} |")
        print(f"|{' --- |' * (4 + len(FIGURES))}")
        for work in works:
            for workers in options.workers:
                for batch, batches in WORKS[work].batches:
                    medians = bench.compare(work, workers, batch, batches, options.repeats)
                    print_table(f"{work} | {workers} | {batch:,}", medians)
    for work in options.work:
        if work not in works:
            print(f"not run: {work}, for which tpchgen-cli isn't installed")


if __name__ == "__main__":
    main()
