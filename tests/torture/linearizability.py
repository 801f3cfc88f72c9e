"""Holds the registers of the order test's histories against porcupine, a checker that nobody here wrote.

The order test's own checker (`tests/oracle/order.py`) believes the times that the server states, and verifies
them. Porcupine is told none: it searches for any order of writes and reads, register by register, that real
time allows. Before it is believed it must reject a history that was spoilt. LINEARIZABILITY_RUNS and
LINEARIZABILITY_ROUNDS make it longer.
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parents[1]))

from tests.e2e.cluster import Cluster  # noqa: E402
from tests.e2e.crowd import KEYS, Crowd  # noqa: E402
from tests.oracle.order import History, Read, Write, violations  # noqa: E402

RUNS = int(os.environ.get("LINEARIZABILITY_RUNS", "3"))
ROUNDS = int(os.environ.get("LINEARIZABILITY_ROUNDS", "300"))
SHAPES = ((1, 2), (2, 2))
NEVER = 2**62


def operations(history: History) -> list[dict[str, Any]]:
    """What each register went through, as porcupine is told it."""
    clients: dict[str, int] = {}
    found: list[dict[str, Any]] = []
    for request in history.requests:
        if isinstance(request, Write):
            touched, kind = dict(request.registers), "write"
        elif isinstance(request, Read) and request.relation == "last":
            rows = dict(request.rows)
            touched, kind = {key: rows.get(key) for key in range(KEYS)}, "read"
        else:
            continue
        found += [
            {
                "key": key,
                "kind": kind,
                "value": value,
                "sent": int(request.sent * 1e9),
                "answered": NEVER if request.answered is None else int(request.answered * 1e9),
                "client": clients.setdefault(request.client, len(clients)),
            }
            for key, value in touched.items()
        ]
    return found


def accepts(checker: Path, told: list[dict[str, Any]]) -> bool:
    """Porcupine's verdict."""
    done = subprocess.run([checker], input=json.dumps(told), text=True, stdout=subprocess.PIPE)
    print(done.stdout.strip(), flush=True)
    if done.returncode not in (0, 1):
        raise AssertionError(f"the checker ended with {done.returncode}")
    return done.returncode == 0


def spoilt(told: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The same with a last read that shows what was there first."""
    last = max((each for each in told if each["kind"] == "read"), key=lambda each: each["sent"])
    first = min(
        (each for each in told if each["kind"] == "write" and each["key"] == last["key"]),
        key=lambda each: each["answered"],
    )
    assert first["value"] != last["value"]
    return [{**each, "value": first["value"]} if each is last else each for each in told]


def main() -> int:
    """0 if porcupine accepts every history and rejects every spoilt one."""
    seed = os.environ.get("DATAFLOW_TEST_SEED") or str(random.SystemRandom().randrange(1 << 32))
    print(f"random choices: DATAFLOW_TEST_SEED={seed} repeats them")
    with tempfile.TemporaryDirectory(prefix="dataflow-serve-porcupine-") as directory:
        checker = Path(directory, "porcupine")
        built = subprocess.run(
            ["go", "build", "-o", checker, "."], cwd=HERE / "porcupine", capture_output=True, text=True
        )
        if built.returncode:
            print(f"porcupine can't be built: {built.stderr.strip()[-300:]}")
            return 77
        for shape in SHAPES:
            cluster = Cluster(*shape)
            try:
                for run in range(RUNS):
                    history = Crowd(cluster, f"{seed} {shape} {run}", ROUNDS, 0.5).run()
                    assert violations(history) == []
                    told = operations(history)
                    if not accepts(checker, told) or accepts(checker, spoilt(told)):
                        return 1
                    cluster.empty()
            finally:
                cluster.kill()
    return 0


if __name__ == "__main__":
    sys.exit(main())
