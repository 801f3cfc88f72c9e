"""Programs that were compiled, ascent's and FlowLog's, against the engine and `dataflow run`.

python bench/peers/compiled.py [--repeats 3] [--work closure triangles same-generation] [--workers 1 2]

Batch: all read the same files of facts and write the result as text, and their seconds are those of the whole
process; those of computing alone stand beside them where it can be told. Compiling isn't counted. `ours` is
the engine in a process that makes the facts itself and writes nothing: it has no seconds of a whole process.

Live: loading, and then transactions of one row that leaves or comes back, the same ones for all. `ours` is
the engine, `flowlog` its incremental engine; ascent would compute again.
"""

import argparse
import json
import subprocess
import tempfile
from pathlib import Path

from processes import Taken, as_installed, batch_run, execute, has_batch_runs, median
from run import Bench, build

WORK = ("closure", "triangles", "same-generation")
SYSTEMS = ("ascent", "flowlog")


def build_peer(name: str) -> Path | None:
    """Builds a crate beside this file; its binary, or none if it can't be built."""
    crate = Path(__file__).parent / name
    command = ["cargo", "build", "--quiet", "--release", "--locked", "--target-dir", str(crate / "target")]
    if subprocess.run(command, cwd=crate, check=False).returncode != 0:
        return None
    return crate / "target" / "release" / f"dataflow-bench-{name}"


def commands(binaries: dict[str, Path], work: str, workers: int, facts: Path) -> dict[str, list[str]]:
    """What computes once."""
    arguments = [work, str(workers), str(facts)]
    found = {}
    if "ascent" in binaries:
        found["ascent"] = [str(binaries["ascent"]), *arguments]
    if "flowlog" in binaries:
        found["flowlog"] = [str(binaries["flowlog"]), "batch", *arguments]
    if has_batch_runs():
        found["dataflow run"] = batch_run(work, facts, workers)
    return found


def batch(bench: Bench, binaries: dict[str, Path], work: str, workers: int, repeats: int) -> dict[str, Taken]:
    """Medians of computing once, in turns; the results must be of one size."""
    facts, plan = bench.facts(work), bench.engines(work)["ours"]
    runs: dict[str, list[Taken]] = {}
    sizes: set[int] = set()
    installed = as_installed(facts)
    if has_batch_runs():
        execute(batch_run(work, facts, workers), installed)
        next(facts.glob("*.csv")).unlink()
    for _ in range(repeats):
        run = bench.run(plan, work, workers, batches=0)
        runs.setdefault("ours", []).append(Taken(float("nan"), run["peak_mb"], str(run["load_s"])))
        sizes.add(run["rows"])
        for name, command in commands(binaries, work, workers, facts).items():
            runs.setdefault(name, []).append(execute(command, installed))
            (result,) = facts.glob("*.csv")
            sizes.add(result.read_bytes().count(b"\n"))
            result.unlink()
    if len(sizes) != 1:
        raise SystemExit(f"{work}: results of different sizes: {sorted(sizes)}")
    return {name: median(taken) for name, taken in runs.items()}


def live(
    bench: Bench, binaries: dict[str, Path], work: str, workers: int, repeats: int
) -> dict[str, tuple[Taken, Taken]]:
    """Medians of loading and of a changed row, in turns: seconds and memory, and microseconds."""
    facts, plan = bench.facts(work), bench.engines(work)["ours"]
    runs: dict[str, list[tuple[Taken, Taken]]] = {}
    for _ in range(repeats):
        figures = {"ours": bench.run(plan, work, workers)}
        sizes = {figures["ours"]["sums"][1]}
        if "flowlog" in binaries:
            taken = execute([str(binaries["flowlog"]), "live", work, str(workers), str(facts)])
            figures["flowlog"] = json.loads(taken.printed) | {"peak_mb": taken.peak_mb}
            sizes.add(figures["flowlog"]["rows"])
        if len(sizes) != 1:
            raise SystemExit(f"{work}: results of different sizes after changes: {sorted(sizes)}")
        for name, run in figures.items():
            printed = (str(run["load_s"]), str(run["change_p50_us"]))
            load, change = (Taken(float("nan"), run["peak_mb"], text) for text in printed)
            runs.setdefault(name, []).append((load, change))
    return {
        name: (median([load for load, _ in taken]), median([change for _, change in taken]))
        for name, taken in runs.items()
    }


def main() -> None:
    """Prints tables."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--work", nargs="+", choices=WORK, default=list(WORK))
    parser.add_argument("--workers", nargs="+", type=int, default=[1, 2])
    options = parser.parse_args()
    built = {name: build_peer(name) for name in SYSTEMS}
    binaries = {name: binary for name, binary in built.items() if binary is not None}
    rounds = [(work, workers) for work in options.work for workers in options.workers]
    with tempfile.TemporaryDirectory() as directory:
        bench = Bench(build(), Path(directory))
        print("| batch | workers | | computing, s | whole process, s | peak memory, MB |\n|" + " --- |" * 6)
        for work, workers in rounds:
            for name, taken in batch(bench, binaries, work, workers, options.repeats).items():
                figures = f"{taken.computing:.2f} | {taken.seconds:.2f} | {taken.peak_mb:,.0f}"
                print(f"| {work} | {workers} | {name} | {figures} |", flush=True)
        print("\n| live | workers | | load, s | a changed row, ms | peak memory, MB |\n|" + " --- |" * 6)
        for work, workers in rounds:
            for name, (load, change) in live(bench, binaries, work, workers, options.repeats).items():
                figures = f"{load.computing:.2f} | {change.computing / 1e3:.2f} | {load.peak_mb:,.0f}"
                print(f"| {work} | {workers} | {name} | {figures} |", flush=True)
    for name in SYSTEMS:
        if name not in binaries:
            print(f"not run: {name}, whose crate didn't build")
    if not has_batch_runs():
        print("not run: dataflow run, whose extension isn't built (make extension)")


if __name__ == "__main__":
    main()
