"""Record types and algebraic ones: what they hold, and what identifies them.

Two types are the same if they have one name and one definition, the definitions of all types in them
included; so programs that repeat a definition agree on it, whoever registered first.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from typing import Any

from dataflow_serve.language._types import Branch, Column, Composite, Type

__all__ = ["composites_from_json", "composites_json", "identify", "reachable"]

_DIGITS = 16
"""Hexadecimal digits of an id: 64 bits of a digest."""


def reachable(kinds: Iterable[Type | Composite]) -> list[Composite]:
    """The composite types among ``kinds`` and in these, by id."""
    found: dict[int, Composite] = {}
    pending = [kind for kind in kinds if isinstance(kind, Composite)]
    while pending:
        kind = pending.pop()
        if id(kind) not in found:
            found[id(kind)] = kind
            pending.extend(
                column.type
                for branch in kind.branches
                for column in branch.fields
                if isinstance(column.type, Composite)
            )
    # Programs that repeat a definition have an object of their own for it.
    known = {kind.id or id(kind): kind for kind in found.values()}
    return sorted(known.values(), key=lambda kind: kind.id)


def identify(composites: Iterable[Composite]) -> None:
    """Give types whose branches are known the ids that these make."""
    waiting = list(composites)
    for composite in waiting:
        lines = sorted(map(_definition, reachable([composite])))
        text = "\n".join([composite.name, *lines])
        composite.id = "#" + hashlib.sha256(text.encode()).hexdigest()[:_DIGITS]


def _definition(composite: Composite) -> str:
    branches = (
        f"{branch.name or ''}({','.join(f'{field.name}:{field.type}' for field in branch.fields)})"
        for branch in composite.branches
    )
    return f"{composite.name}={'|'.join(branches)}"


def composites_json(kinds: Iterable[Type | Composite]) -> list[dict[str, Any]]:
    """The definitions that ``kinds`` lead to, as plans have them."""
    return [
        {
            "id": composite.id,
            "name": composite.name,
            "branches": [
                {
                    "name": branch.name,
                    "fields": [{"name": field.name, "type": field.type.value} for field in branch.fields],
                }
                for branch in composite.branches
            ],
        }
        for composite in reachable(kinds)
    ]


def composites_from_json(definitions: Iterable[Mapping[str, Any]]) -> dict[str, Composite]:
    """Types by their ids, from what `composites_json` wrote."""
    definitions = list(definitions)
    found = {each["id"]: Composite(each["name"], each["id"]) for each in definitions}
    for each in definitions:
        found[each["id"]].branches = tuple(
            Branch(
                branch["name"],
                tuple(
                    Column(field["name"], found.get(field["type"]) or Type(field["type"]))
                    for field in branch["fields"]
                ),
            )
            for branch in each["branches"]
        )
    return found
