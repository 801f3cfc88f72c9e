"""Runs the slow suites one after the other; says at the end which passed, which failed, which did not run.

    run.py [SUITE...]        these suites, or all of them
    run.py --list            what there is, and what of it could not run here

Every suite is a file `NAME.toml` beside this one; README.md says what is in it.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import tomllib
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
NOT_RUN = 77
"""The exit code with which a command says that it can't run here; the last line it printed is the reason."""

_FIELDS = {"proves", "pytest", "command", "needs", "environment", "minutes"}


@dataclass(frozen=True)
class Suite:
    """One suite, as its file describes it."""

    name: str
    proves: str
    minutes: float
    pytest: str | None = None
    command: str | None = None
    needs: tuple[str, ...] = ()
    environment: tuple[tuple[str, str], ...] = ()

    def missing(self) -> list[str]:
        """Which of the tools that it needs aren't on this machine."""
        return [tool for tool in self.needs if shutil.which(tool) is None]


@dataclass(frozen=True)
class Outcome:
    """How a suite ended: `passed`, `failed` or `not run`, with what is to be said about it."""

    suite: str
    verdict: str
    seconds: float = 0.0
    remarks: tuple[str, ...] = ()


def load(directory: Path) -> list[Suite]:
    """All suites of a directory, by name.

    Raises:
        ValueError: a file that describes no suite, naming the file and what is wrong.
    """
    return [_suite(path) for path in sorted(directory.glob("*.toml"))]


def _suite(path: Path) -> Suite:
    told = tomllib.loads(path.read_text(encoding="utf-8"))
    if unknown := told.keys() - _FIELDS:
        raise ValueError(f"{path.name}: unknown fields {sorted(unknown)}")
    if ("pytest" in told) == ("command" in told):
        raise ValueError(f"{path.name}: a suite has either `pytest` or `command`")
    if not told.get("proves") or not told.get("minutes", 0) > 0:
        raise ValueError(f"{path.name}: `proves` and `minutes` are needed")
    return Suite(
        path.stem,
        told["proves"],
        told["minutes"],
        told.get("pytest"),
        told.get("command"),
        tuple(told.get("needs", ())),
        tuple(sorted(told.get("environment", {}).items())),
    )


def run(suite: Suite, root: Path = ROOT) -> Outcome:
    """Run one suite, with four times the minutes that it says it takes."""
    if missing := suite.missing():
        return Outcome(suite.name, "not run", remarks=(f"{', '.join(missing)} not installed",))
    with tempfile.TemporaryDirectory(prefix="dataflow-serve-torture-") as directory:
        report, output = Path(directory, "report.xml"), Path(directory, "output")
        if suite.pytest is not None:
            arguments = shlex.split(suite.pytest)
            command = [sys.executable, "-m", "pytest", "-rs", f"--junitxml={report}", *arguments]
        else:
            command = ["bash", "-euo", "pipefail", "-c", str(suite.command)]
        # What is set outside wins over what the suite asks for.
        environment = {**dict(suite.environment), **os.environ}
        environment["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{environment['PATH']}"
        started = time.monotonic()
        status = _execute(command, root, environment, output, suite.minutes * 60 * 4)
        seconds = time.monotonic() - started
        lines = output.read_text(encoding="utf-8", errors="replace").splitlines()
        passed, skips = _reported(report) if suite.pytest is not None else (1, [])
    if status is None:
        return Outcome(suite.name, "failed", seconds, (f"stopped after {seconds:.0f} s",))
    if status == NOT_RUN and suite.command is not None:
        return Outcome(suite.name, "not run", seconds, tuple(lines[-1:]) or ("no reason was given",))
    if status != 0:
        return Outcome(suite.name, "failed", seconds, (f"exit code {status}",))
    if not passed:
        return Outcome(suite.name, "not run", seconds, tuple(skips) or ("no test was selected",))
    return Outcome(suite.name, "passed", seconds, tuple(f"without {skip}" for skip in skips))


def _execute(
    command: list[str], root: Path, environment: dict[str, str], output: Path, limit: float
) -> int | None:
    """The exit code, or `None` where the limit came first; what is printed is shown and kept."""
    # A session of its own, so that whatever the suite started can be ended with it.
    started = subprocess.Popen(
        command,
        cwd=root,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    tee = subprocess.Popen(["tee", str(output)], stdin=started.stdout)
    assert started.stdout is not None
    started.stdout.close()
    try:
        status = started.wait(limit)
    except subprocess.TimeoutExpired:
        status = None
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(started.pid, signal.SIGKILL)
        started.wait()
        tee.wait()
    return status


def _reported(report: Path) -> tuple[int, list[str]]:
    """How many tests of a pytest run passed, and what it says of those it skipped."""
    if not report.exists():
        return 0, []
    passed, skips = 0, []
    for case in ElementTree.parse(report).iter("testcase"):
        skipped = case.find("skipped")
        if skipped is not None:
            skips.append(f"{case.get('name')}: {skipped.get('message')}")
        elif case.find("failure") is None and case.find("error") is None:
            passed += 1
    return passed, skips


def summary(outcomes: Iterable[Outcome]) -> str:
    """A line for each suite, and for everything that did not run."""
    outcomes = list(outcomes)
    width = max((len(each.suite) for each in outcomes), default=0)
    lines = ["", "=== torture"]
    for each in outcomes:
        lines.append(f"{each.suite:<{width}}  {each.verdict:<7}  {each.seconds:6.0f} s".rstrip())
        lines += [f"{'':<{width}}    {remark}" for remark in each.remarks]
    counts = {verdict: sum(each.verdict == verdict for each in outcomes) for verdict in VERDICTS}
    lines.append("=== " + ", ".join(f"{count} {verdict}" for verdict, count in counts.items()))
    return "\n".join(lines)


VERDICTS = ("passed", "failed", "not run")


def main(arguments: list[str] | None = None, directory: Path = HERE) -> int:
    """The exit code: 0 unless a suite failed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("suites", nargs="*", metavar="SUITE")
    parser.add_argument("--list", action="store_true")
    options = parser.parse_args(arguments)
    suites = {suite.name: suite for suite in load(directory)}
    if unknown := [name for name in options.suites if name not in suites]:
        parser.error(f"no suite {', '.join(unknown)}; there are {', '.join(suites)}")
    chosen = [suites[name] for name in options.suites or suites]
    if options.list:
        for suite in chosen:
            lacks = f" (would not run: {', '.join(suite.missing())} not installed)" if suite.missing() else ""
            print(f"{suite.name}: {suite.proves}; about {suite.minutes:g} minutes{lacks}")
        return 0
    outcomes = []
    for suite in chosen:
        print(f"\n=== {suite.name}: {suite.proves}", flush=True)
        outcomes.append(run(suite))
        print(f"=== {suite.name}: {outcomes[-1].verdict}", flush=True)
    print(summary(outcomes), flush=True)
    return int(any(each.verdict == "failed" for each in outcomes))


if __name__ == "__main__":
    sys.exit(main())
