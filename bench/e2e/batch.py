"""Batch runs (`dataflow run`) of transitive closure and triangles against the same written by hand.

Both read the same edges, the batch run from a file, and start anew each time; its seconds include starting
Python, reading the facts and writing the result. Medians of several runs in turns.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from common import SCALE

sys.path.append(str(Path(__file__).parents[1] / "engine"))
from run import build
from works import program

REPEATS = 3
SIZES = {"closure": int(2_000 * SCALE), "triangles": int(200_000 * SCALE)}


def batch(directory: Path, workers: int) -> tuple[float, float, int]:
    """Seconds, peak memory in MB and rows of one run."""
    command = [str(Path(sys.executable).with_name("dataflow")), "run", "program.dl"]
    command += ["-F", ".", "-D", "out", "-w", str(workers)]
    # As where it is installed: Python keeps what it has compiled.
    environment = {**os.environ, "PYTHONPYCACHEPREFIX": str(directory / "compiled")}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    started = time.perf_counter()
    process = subprocess.Popen(
        command, cwd=directory, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    _, status, usage = os.wait4(process.pid, 0)
    taken = time.perf_counter() - started
    if status != 0:
        raise SystemExit(f"{command} failed")
    (result,) = (directory / "out").glob("*.csv")
    return taken, usage.ru_maxrss / 1024, result.read_bytes().count(b"\n")


def by_hand(binary: Path, work: str, workers: int) -> tuple[float, float, int]:
    """The same of the hand-written dataflow."""
    command = [str(binary), "plain", work, str(workers), str(SIZES[work])]
    found = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    return found["load_s"], found["peak_mb"], found["rows"]


def main() -> None:
    """Prints a table."""
    binary = build()
    print("| work | workers | | s | peak memory, MB |\n| --- | --- | --- | --- | --- |")
    for work, size in SIZES.items():
        with tempfile.TemporaryDirectory() as name:
            directory = Path(name)
            (directory / "out").mkdir()
            subprocess.run([str(binary), "facts", work, str(directory), str(size)], check=True)
            (directory / "program.dl").write_text(program(work))
            batch(directory, 1)
            for workers in (1, 2):
                runs: dict[str, list[tuple[float, float, int]]] = {"by hand": [], "dataflow run": []}
                for _ in range(REPEATS):
                    runs["by hand"].append(by_hand(binary, work, workers))
                    runs["dataflow run"].append(batch(directory, workers))
                if len({rows for each in runs.values() for _, _, rows in each}) != 1:
                    raise SystemExit(f"{work}: results of different sizes")
                medians = {
                    kind: [statistics.median(run[at] for run in each) for at in (0, 1)]
                    for kind, each in runs.items()
                }
                for kind, (seconds, memory) in medians.items():
                    print(f"| {work} | {workers} | {kind} | {seconds:.2f} | {memory:,.0f} |")
                hand, ours = medians.values()
                ratios = [mine / theirs for mine, theirs in zip(ours, hand, strict=True)]
                print(f"| {work} | {workers} | ratio | {ratios[0]:.2f} | {ratios[1]:.2f} |", flush=True)


if __name__ == "__main__":
    main()
