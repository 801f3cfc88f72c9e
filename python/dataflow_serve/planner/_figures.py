"""What operators hold and have done, put where they stand in the tree of a plan."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

__all__ = ["Figures", "notes"]

Json = dict[str, Any]


class Figures:
    """The shares of all workers, by the part of the plan."""

    def __init__(self, plan: Json, analysis: Sequence[Json]) -> None:
        """The plan's, from the analysis of each worker in their order."""
        self._parts: defaultdict[tuple[str, int], list[Json]] = defaultdict(list)
        self._arrangements: dict[str, dict[tuple[int, ...] | None, Json]] = {}
        self._columns = {
            relation["name"]: [column["name"] for column in relation["columns"]]
            for relation in plan["relations"]
        }
        for share in analysis:
            for figures in share["operators"]:
                ((kind, place),) = figures["part"].items()
                self._parts[kind, place].append(figures)
            for figures in share["arrangements"]:
                key = None if figures["key"] is None else tuple(figures["key"])
                sums = self._arrangements.setdefault(figures["relation"], {}).setdefault(key, {})
                for name in ("rows", "keys", "bytes", "micros"):
                    sums[name] = sums.get(name, 0) + figures[name]

    def add(self, tree: Json, kind: str, place: int) -> None:
        """Give an operator, whose inputs have them already, its figures.

        One that is none in the dataflow, because what reads it does its work as well, gets none.
        """
        shares = self._parts.get((kind, place), [])
        known = [child.get("stats", {}).get("out") for child in tree["inputs"]]
        into = None if None in known or not known else sum(known)
        if not shares:
            if tree["op"] == "union" and into is not None:
                tree["stats"] = {"in": into, "out": into}
            return
        total = {name: sum(share[name] for share in shares) for name in ("rows", "bytes", "runs", "micros")}
        out = sum(share["changes"] for share in shares)
        if tree["op"] == "antijoin":
            # Its own are those taken away from the left input's.
            out = None if not known or known[0] is None else known[0] + out
        elif tree["op"] in ("get", "relation") and not out:
            # Nothing, or what reads it reads an arrangement.
            out = None
        stats = {"in": into, "out": out, **total, "worker_micros": [share["micros"] for share in shares]}
        tree["stats"] = {name: value for name, value in stats.items() if value is not None}

    def arranged(self, tree: Json, relation: str) -> None:
        """Give an operator the arrangements of a relation that are of concern to the plan."""
        found = self._arrangements.get(relation, {})
        if found:
            tree["arrangements"] = [
                {"by": self._named(relation, key), **sums}
                for key, sums in sorted(found.items(), key=lambda entry: (entry[0] is not None, entry[0]))
            ]

    def _named(self, relation: str, key: tuple[int, ...] | None) -> list[str] | None:
        """The columns of a key; those of another plan's relation have their numbers alone."""
        columns = self._columns.get(relation)
        return None if key is None else [f"c{at}" if columns is None else columns[at] for at in key]


def notes(tree: Json) -> list[str]:
    """An operator's figures, and the lines of the rules that it is there for, in words."""
    found: list[str] = []
    stats = tree.get("stats", {})
    if "micros" in stats:
        found += [_duration(stats["micros"]), f"holds {stats['rows']:,} rows, {_size(stats['bytes'])}"]
    found += [f"{stats[name]:,} {name}" for name in ("in", "out") if name in stats]
    for each in tree.get("arrangements", ()):
        if each["by"] is None:
            found.append(f"kept: {each['rows']:,} rows, {_size(each['bytes'])}")
        else:
            sizes = f"{each['rows']:,} rows, {each['keys']:,} keys, {_size(each['bytes'])}"
            found.append(f"by {', '.join(each['by']) or 'nothing'}: {sizes}")
    if found and tree.get("rules"):
        found.append(f"line {', '.join(str(rule['line']) for rule in tree['rules'])}")
    return found


def _duration(micros: int) -> str:
    return f"{micros / 1000:,.1f} ms"


def _size(octets: int) -> str:
    return f"{octets / 1024:,.0f} KiB" if octets < 1 << 20 else f"{octets / (1 << 20):,.1f} MiB"
