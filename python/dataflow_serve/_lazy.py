"""Packages whose modules are imported when a name of theirs is asked for.

A batch run needs little of what its packages hold. Importing all of it would take longer than many runs.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Mapping

__all__ = ["lazily"]


def lazily(
    package: str, places: Mapping[str, str]
) -> tuple[Callable[[str], object], Callable[[], list[str]]]:
    """A package's ``__getattr__`` and ``__dir__``.

    Args:
        package: Its name.
        places: In which of its modules each name is, relative to the package, as ``_module`` or
            ``_module:name in it``.
    """

    def get(name: str) -> object:
        place = places.get(name)
        if place is None:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        module, _, inside = place.partition(":")
        value: object = getattr(importlib.import_module(f"{package}.{module}"), inside or name)
        setattr(sys.modules[package], name, value)
        return value

    def names() -> list[str]:
        return sorted({*vars(sys.modules[package]), *places})

    return get, names
