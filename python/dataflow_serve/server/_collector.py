"""Python's collector of cycles, out of the way while a program is planned."""

from __future__ import annotations

import contextlib
import gc
import threading
from collections.abc import Iterator

__all__ = ["uncollected"]

_lock = threading.Lock()
_waiting = 0
_enabled = False


@contextlib.contextmanager
def uncollected() -> Iterator[None]:
    """Leave the search for cyclic garbage until this, and whatever else is under way like it, is over.

    A plan is made of very many small objects that stay. The collector looks at them again and again, which
    takes a third of the time of a large program, and finds nothing.
    """
    global _waiting, _enabled
    with _lock:
        if not _waiting:
            _enabled = gc.isenabled()
            gc.disable()
        _waiting += 1
    try:
        yield
    finally:
        with _lock:
            _waiting -= 1
            if not _waiting and _enabled:
                gc.enable()
