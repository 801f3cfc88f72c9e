"""Runs programs to their end, in turns, and takes their time and memory; `dataflow run` is one of them."""

import importlib.util
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

ENGINE = Path(__file__).parents[1] / "engine"
sys.path.append(str(ENGINE))


@dataclass(frozen=True)
class Taken:
    """What a process took."""

    seconds: float
    """From its start to its end."""
    peak_mb: float
    printed: str

    @property
    def computing(self) -> float:
        """The seconds that it printed, if it did."""
        return float(self.printed) if self.printed else float("nan")


def execute(command: Sequence[str], environment: Mapping[str, str] | None = None) -> Taken:
    """Runs a program; it must succeed."""
    started = time.perf_counter()
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env={**os.environ, **(environment or {})},
    )
    assert process.stdout is not None
    printed = process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    taken = time.perf_counter() - started
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode != 0:
        raise SystemExit(f"{' '.join(command)} failed")
    return Taken(taken, usage.ru_maxrss / 1024, printed.strip())


def median(taken: Sequence[Taken]) -> Taken:
    """Medians of each figure."""
    return Taken(
        statistics.median(each.seconds for each in taken),
        statistics.median(each.peak_mb for each in taken),
        str(statistics.median(each.computing for each in taken)) if taken[0].printed else "",
    )


def batch_run(work: str, facts: Path, workers: int) -> list[str]:
    """The command of a batch run; it writes to the directory of the facts."""
    command = [
        str(Path(sys.executable).with_name("dataflow")),
        "run",
        str(ENGINE / "programs" / f"{work}.dl"),
    ]
    return [*command, "-F", str(facts), "-D", str(facts), "-w", str(workers)]


def as_installed(facts: Path) -> dict[str, str]:
    """An environment in which Python keeps what it has compiled, as where the package is installed."""
    return {"PYTHONPYCACHEPREFIX": str(facts / "compiled"), "PYTHONDONTWRITEBYTECODE": ""}


def has_batch_runs() -> bool:
    """Whether this package's extension is built."""
    return importlib.util.find_spec("dataflow_serve._core") is not None
