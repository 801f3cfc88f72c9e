"""Running clusters, one for each shape, handed from test to test and checked to be empty in between."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from .cluster import SHAPES, Cluster
from .world import World

_running: list[Cluster] = []

Shape = tuple[Any, ...]
"""Processes, workers a process, further arguments."""


class Slot:
    """A cluster of one shape, started when first asked for and again after a test that broke it."""

    def __init__(self, shape: Shape) -> None:
        self.shape = shape
        self._cluster: Cluster | None = None

    def take(self) -> Cluster:
        if self._cluster is None:
            self._cluster = Cluster(*self.shape)
            _running.append(self._cluster)
        return self._cluster

    def drop(self) -> None:
        if self._cluster is not None:
            _running.remove(self._cluster)
            self._cluster.kill()
            self._cluster = None


SLOTS: tuple[Shape, ...] = (*SHAPES, (1, 2, "--io-threads", "1"))
IO_SUITES = (
    "test_backpressure",
    "test_framing",
    "test_http",
    "test_requests",
    "test_state_machine",
    "test_subscriptions",
    "test_transactions",
)
"""What also runs with sockets on a thread of their own: the suites in which that could make a difference."""


def name_of(shape: Shape) -> str:
    return f"{shape[0]}x{shape[1]}" + ("-io" if len(shape) > 2 else "")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave the shape with I/O threads to the suites that are about sockets."""

    def superfluous(item: pytest.Item) -> bool:
        call = getattr(item, "callspec", None)
        shape = call.params.get("slot") if call is not None else None
        return shape is not None and len(shape) > 2 and item.path.stem not in IO_SUITES

    gone = [item for item in items if superfluous(item)]
    if gone:
        config.hook.pytest_deselected(items=gone)
        items[:] = [item for item in items if not superfluous(item)]


@pytest.fixture(scope="session", params=SLOTS, ids=name_of)
def slot(request: pytest.FixtureRequest) -> Iterator[Slot]:
    """Session-wide and parametrised, so that pytest runs all tests of a shape together."""
    slot = Slot(request.param)
    yield slot
    slot.drop()


@pytest.fixture
def cluster(slot: Slot, request: pytest.FixtureRequest) -> Iterator[Cluster]:
    """An empty cluster: processes × workers as the parameter says."""
    cluster = slot.take()
    yield cluster
    cluster.close_clients()
    report = request.node.stash.get(_FAILED, False)
    if report or not cluster.alive():
        slot.drop()
        assert report, f"a process ended during the test\n{cluster.report()}"
    else:
        cluster.empty()


@pytest.fixture
def world(cluster: Cluster) -> World:
    """Clients of an empty cluster in all four encodings, with a model to compare with."""
    return World(cluster)


_FAILED = pytest.StashKey[bool]()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Iterator[None]:
    """Add what the servers printed to the report of a failing test."""
    report = yield
    if report.failed:
        item.stash[_FAILED] = True
        for cluster in _running:
            report.sections.append((f"{cluster.processes}x{cluster.workers} server", cluster.report()))
    return report
