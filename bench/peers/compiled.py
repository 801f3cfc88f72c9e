"""Batch runs by programs that were compiled: ascent's and FlowLog's against the engine and `dataflow run`.

python bench/peers/compiled.py [--repeats 3] [--work closure triangles same-generation] [--workers 1 2]

All read the same files of facts and write the result as text, and their seconds are those of the whole
process; those of computing alone stand beside them where it can be told. Compiling isn't counted. `ours` is
the engine in a process that makes the facts itself and writes nothing: it has no seconds of a whole process.
What follows is the time for one changed row, where ours makes a step and ascent would compute again.
"""

import argparse
import subprocess
import tempfile
from pathlib import Path

from processes import Taken, batch_run, execute, has_batch_runs, median
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


def ours(bench: Bench, plan: str, work: str, workers: int) -> tuple[Taken, float, int]:
    """The engine by itself: what loading took, the time for a changed row, and how many rows come of it."""
    run = bench.run(plan, work, workers, batches=100)
    return Taken(float("nan"), run["peak_mb"], str(run["load_s"])), run["change_p50_us"] / 1e3, run["rows"]


def main() -> None:
    """Prints tables."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--work", nargs="+", choices=WORK, default=list(WORK))
    parser.add_argument("--workers", nargs="+", type=int, default=[1, 2])
    options = parser.parse_args()
    binaries = {name: build_peer(name) for name in SYSTEMS}
    changes: list[str] = []
    print("| work | workers | | computing, s | whole process, s | peak memory, MB |\n|" + " --- |" * 6)
    with tempfile.TemporaryDirectory() as directory:
        bench = Bench(build(), Path(directory))
        for work in options.work:
            facts, plan = bench.facts(work), bench.engines(work)["ours"]
            for workers in options.workers:
                commands = {
                    name: [str(binary), work, str(workers), str(facts)]
                    for name, binary in binaries.items()
                    if binary is not None
                }
                if has_batch_runs():
                    commands["dataflow run"] = batch_run(work, facts, workers)
                runs: dict[str, list[Taken]] = {name: [] for name in ("ours", *commands)}
                lines: set[int] = set()
                steps: list[float] = []
                for _ in range(options.repeats):
                    taken, step, rows = ours(bench, plan, work, workers)
                    runs["ours"].append(taken)
                    steps.append(step)
                    lines.add(rows)
                    for name, command in commands.items():
                        runs[name].append(execute(command))
                        (result,) = facts.glob("*.csv")
                        lines.add(result.read_bytes().count(b"\n"))
                        result.unlink()
                if len(lines) != 1:
                    raise SystemExit(f"{work}: results of different sizes: {sorted(lines)}")
                medians = {name: median(taken) for name, taken in runs.items()}
                for name, figure in medians.items():
                    cells = (f"{value:.2f}" for value in (figure.computing, figure.seconds))
                    print(
                        f"| {work} | {workers} | {name} | {' | '.join(cells)} | {figure.peak_mb:,.0f} |",
                        flush=True,
                    )
                step = sorted(steps)[len(steps) // 2]
                again = medians["ascent"].computing * 1e3 if "ascent" in medians else float("nan")
                changes.append(f"| {work} | {workers} | {step:,.2f} | {again:,.0f} |")
    print("\n| work | workers | ours, a step for one changed row, ms | ascent again, ms |\n|" + " --- |" * 4)
    print("\n".join(changes))
    for name in SYSTEMS:
        if binaries[name] is None:
            print(f"not run: {name}, whose crate didn't build")
    if not has_batch_runs():
        print("not run: dataflow run, whose extension isn't built (make extension)")


if __name__ == "__main__":
    main()
