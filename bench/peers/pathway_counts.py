"""Rows counted by key: Pathway against `dataflow run` from the same file, and against the engine from memory.

python bench/peers/pathway_counts.py [--repeats 3] [--workers 1 2]

From the file, seconds are those of whole processes, from the facts to the counts as text. From memory, they
are those from the first row introduced to all counts there: Pathway's of running a graph over a table that
was made of Python's rows before, ours of one transaction.
"""

import argparse
import importlib.util
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from processes import Taken, batch_run, execute, has_batch_runs, median
from run import Bench, build

WORK = "counts"


def by_pathway(source: str, directory: Path) -> None:
    """Runs in a process of its own; prints the seconds that running the graph took."""
    import pathway as pw

    class Edge(pw.Schema):
        key: int
        row: int

    facts = directory / "edge.facts"
    rows: Any
    if source == "file":
        settings = pw.io.csv.CsvParserSettings(delimiter="\t")
        rows = pw.io.csv.read(str(directory / "edge.csv"), schema=Edge, mode="static", csv_settings=settings)
    else:
        made = [tuple(map(int, line.split("\t"))) for line in facts.read_text().splitlines()]
        rows = pw.debug.table_from_rows(Edge, made)
    counted = rows.groupby(rows.key).reduce(rows.key, rows=pw.reducers.count())
    pw.io.csv.write(counted, str(directory / "counted.csv"))
    started = time.perf_counter()
    pw.run(monitoring_level=pw.MonitoringLevel.NONE)
    print(time.perf_counter() - started)


def main() -> None:
    """Prints a table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--workers", nargs="+", type=int, default=[1, 2])
    parser.add_argument("--child", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        by_pathway(options.child[0], Path(options.child[1]))
        return
    if importlib.util.find_spec("pathway") is None:
        raise SystemExit("not run: pathway isn't installed (pip install pathway)")
    print("| rows from | workers | | s | rows/s | peak memory, MB |\n|" + " --- |" * 6)
    with tempfile.TemporaryDirectory() as directory:
        bench = Bench(build(), Path(directory))
        facts, plan, size = bench.facts(WORK), bench.engines(WORK)["ours"], bench.size(WORK)
        text = (facts / "edge.facts").read_text()
        (facts / "edge.csv").write_text("key\trow\n" + text)
        for workers in options.workers:
            runs: dict[tuple[str, str], list[Taken]] = {}
            for _ in range(options.repeats):
                for source in ("file", "memory"):
                    child = [sys.executable, __file__, "--child", source, str(facts)]
                    taken = execute(child, {"PATHWAY_THREADS": str(workers)})
                    runs.setdefault((source, "Pathway"), []).append(taken)
                if has_batch_runs():
                    taken = execute(batch_run(WORK, facts, workers))
                    runs.setdefault(("file", "dataflow run"), []).append(taken)
                run = bench.run(plan, WORK, workers, batches=0)
                ours = Taken(float("nan"), run["peak_mb"], str(run["load_s"]))
                runs.setdefault(("memory", "ours"), []).append(ours)
            for (source, name), found in sorted(runs.items()):
                middle = median(found)
                seconds = middle.seconds if source == "file" else middle.computing
                figures = f"{seconds:.2f} | {size / seconds:,.0f} | {middle.peak_mb:,.0f}"
                print(f"| {source} | {workers} | {name} | {figures} |", flush=True)
    if not has_batch_runs():
        print("not run: dataflow run, whose extension isn't built (make extension)")


if __name__ == "__main__":
    main()
