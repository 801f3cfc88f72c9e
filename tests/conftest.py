"""What all suites share: one seed for everything random, printed so that a failure can be repeated."""

from __future__ import annotations

import os
import random

import pytest

_SEED = pytest.StashKey[int]()
FAR_TOO_LONG = 120


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    """Choose the seed: `DATAFLOW_TEST_SEED`, `--hypothesis-seed` or a new one. Hypothesis uses it too."""
    chosen = os.environ.get("DATAFLOW_TEST_SEED") or config.getoption("hypothesis_seed", None)
    seed = random.SystemRandom().randrange(1 << 32) if chosen in (None, "random") else int(chosen)
    config.stash[_SEED] = seed
    config.option.hypothesis_seed = seed


def pytest_report_header(config: pytest.Config) -> str:
    """Print the seed."""
    return f"random choices: DATAFLOW_TEST_SEED={config.stash[_SEED]} repeats them"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Give every test an end; one that needs longer says so itself."""
    for item in items:
        if item.get_closest_marker("timeout") is None:
            item.add_marker(pytest.mark.timeout(FAR_TOO_LONG))


@pytest.fixture
def rng(request: pytest.FixtureRequest) -> random.Random:
    """Random numbers that depend on the run's seed and the test's name alone."""
    return random.Random(f"{request.config.stash[_SEED]} {request.node.nodeid}")
