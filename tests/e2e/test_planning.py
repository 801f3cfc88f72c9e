"""Plans are made for the rows that are there when a program comes, and all workers build the same one."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

from .cluster import Cluster
from .wire import Refused

INPUTS = """
.decl large(x: number, y: number)
.input large
.decl small(y: number)
.input small
"""
# Written in the worst order: all pairs of large rows first.
RULES = """
.decl p(x: number)
p(x) :- large(x, y), large(y, z), small(z).
"""


def first_read(tree: dict[str, Any]) -> str:
    """The relation with which a plan's joins begin."""
    while tree["inputs"]:
        tree = tree["inputs"][0]
    return str(tree["detail"])


def test_joins_begin_where_few_rows_are(cluster: Cluster) -> None:
    client = cluster.open()
    client.register(RULES.replace("p(", "q(") + INPUTS, "first")
    assert first_read(client.call("explain", relation="q")["plan"]) == "large", "nothing was there yet"
    large = {(x, (7 * x + 3) % 1000) for x in range(1000)}
    small = {(1,), (2,), (3,)}
    client.insert("large", *large, wait="visible")
    client.insert("small", *small, wait="visible")
    other = cluster.open(process=cluster.processes - 1)
    other.register(RULES, "second")
    assert first_read(client.call("explain", relation="p")["plan"]) == "small"
    for change in range(6):
        expected = Counter({(x,): 1 for x, y in large for again, z in large if again == y and (z,) in small})
        assert client.read("p") == client.read("q") == expected
        gone, new = (change + 1,), (10 * change,)
        other.transact(
            {"relation": "small", "delete": [list(gone)], "insert": [list(new)]},
            {"relation": "large", "delete": [list(row) for row in sorted(large)[change::9]]},
            wait="visible",
        )
        small = (small - {gone}) | {new}
        large -= set(sorted(large)[change::9])


def excluding(count: int) -> str:
    """A rule of so many operators in a row, about."""
    body = ", ".join(f"!large(x, {value})" for value in range(count))
    return f".decl left(x: number)\nleft(x) :- small(x), {body}."


def test_a_long_rule_works_and_one_of_half_a_hundred_atoms_can_be_explained(cluster: Cluster) -> None:
    client = cluster.open()
    client.register(INPUTS, "inputs")
    client.insert("small", *((x,) for x in range(4)), wait="visible")
    client.insert("large", (1, 0), (3, 1999), (2, 2000), wait="visible")
    client.register(excluding(2000), "long")
    assert client.read("left") == Counter({(0,): 1, (2,): 1})
    with pytest.raises(Refused) as refused:
        client.call("explain", relation="left")
    assert refused.value.code == "too-large"
    client.call("unregister", name="long")
    client.register(excluding(54), "short")
    for encoding in ("ndjson", "msgpack", "ws-text"):
        plan = cluster.open(encoding).call("explain", relation="left", analyze=True)["plan"]
        assert first_read(plan) == "small"
