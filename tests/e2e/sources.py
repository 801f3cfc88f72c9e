"""What tests of external sources share: attaching, and waiting for what `status` says."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest

from .wire import PATIENCE, Subscription, Wire


def _on(*shapes: tuple[int, int]) -> pytest.MarkDecorator:
    ids = [f"{processes}x{workers}" for processes, workers in shapes]
    return pytest.mark.parametrize("slot", shapes, ids=ids, indirect=True, scope="session")


on_some_shapes = _on((1, 1), (1, 2), (2, 2))
on_one_shape = _on((1, 2))
"""For what happens in one process, whichever others there are."""


def source(client: Wire, name: str) -> dict[str, Any] | None:
    """What `status` says of a source; None if there is none."""
    found = [each for each in client.call("status")["sources"] if each["name"] == name]
    assert len(found) <= 1, found
    return found[0] if found else None


def until(client: Wire, name: str, right: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
    """Ask for the status again and again until it is right."""
    deadline = time.monotonic() + PATIENCE
    while True:
        status = source(client, name)
        if status is not None and right(status):
            return status
        assert time.monotonic() < deadline, f"source {name!r} never came to be as expected: {status}"


def until_rows(subscription: Subscription, count: int) -> None:
    """Wait until a relation has so many rows, copies counted."""
    while subscription.contents.total() != count:
        subscription.wire.pump()
