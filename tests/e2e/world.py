"""A cluster, its clients and the model it is held against after every transaction."""

from __future__ import annotations

import itertools
import random
import re
from collections.abc import Sequence
from typing import Any

from .cluster import Cluster
from .model import Input, Model, random_changes
from .wire import ENCODINGS, Subscription, Wire

_MODE = re.compile(
    r"\.decl\s+(?P<name>\w+)\s*\((?P<columns>[^)]*)\)\s*(?P<mode>raw|upsert\((?P<key>[^)]*)\))"
)


class World:
    """Clients in all encodings on different owners, whose transactions take turns; `compare` after each."""

    def __init__(self, cluster: Cluster, encodings: Sequence[str] = ENCODINGS) -> None:
        self.cluster = cluster
        self.model = Model()
        self.clients = cluster.clients(*encodings)
        self.subscriptions: list[Subscription] = []
        self.relations: dict[str, list[str]] = {}
        self.types: dict[str, list[str]] = {}
        self.time = 0
        self._latest = 0
        self._turn = itertools.count()

    def next_client(self) -> Wire:
        """Whose turn it is."""
        return self.clients[next(self._turn) % len(self.clients)]

    def all_relations(self) -> list[str]:
        """The names of all relations of all modules."""
        return [relation for relations in self.relations.values() for relation in relations]

    def depends(self, module: str, other: str) -> bool:
        """Whether `module` mentions a relation of `other`."""
        words = set(re.findall(r"\w+", self.model.programs[module]))
        return not words.isdisjoint(self.relations[other])

    def register(self, program: str, name: str = "program") -> dict[str, Any]:
        """Register a program with the cluster and the model."""
        reply = self.next_client().register(program, name)
        modes = {match["name"]: match for match in _MODE.finditer(program)}
        declared = {
            relation["name"]: relation
            for relation in reply["relations"]
            if re.search(rf"\.decl\s+{re.escape(relation['name'])}\b", program)
        }
        inputs = {
            relation: make_input(description, modes.get(relation))
            for relation, description in declared.items()
            if description["kind"] == "input" and relation not in self.model.inputs
        }
        for relation, description in declared.items():
            self.types[relation] = [column["type"] for column in description["columns"]]
        self.model.register(name, program, inputs)
        self.relations[name] = [
            each for each in declared if each not in itertools.chain(*self.relations.values())
        ]
        self._moved_to(reply["time"])
        return reply

    def unregister(self, name: str) -> None:
        """Unregister a module; its subscriptions must end."""
        gone = self.relations.pop(name)
        self._moved_to(self.next_client().call("unregister", name=name)["time"])
        self.model.unregister(name, gone)
        for subscription in [each for each in self.subscriptions if each.relation in gone]:
            assert subscription.until_ended()["code"] == "not-found"
            self.subscriptions.remove(subscription)

    def subscribe(self, relation: str, client: Wire | None = None) -> Subscription:
        """Subscribe with progress, so that `compare` can wait for any time."""
        subscription = (client or self.next_client()).subscribe(relation, progress=True)
        self._moved_to(subscription.time)
        self.subscriptions.append(subscription)
        return subscription

    def subscribe_all(self) -> None:
        """Every client to every relation."""
        for relations in self.relations.values():
            for relation in relations:
                for client in self.clients:
                    self.subscribe(relation, client)

    def unsubscribe(self, subscription: Subscription) -> None:
        """End a subscription."""
        self._moved_to(subscription.wire.unsubscribe(subscription))
        self.subscriptions.remove(subscription)

    def transact(self, *changes: dict[str, Any], client: Wire | None = None, **fields: Any) -> int:
        """A transaction on the cluster and on the model."""
        time = (client or self.next_client()).transact(*changes, **fields)
        self.transacted(time)
        self.model.transact(changes)
        return time

    def transacted(self, time: int, *, concurrent: bool = False) -> None:
        """A transaction that the model has was given `time`, perhaps while others were answered."""
        if not concurrent:
            self._moved_to(time)
        self.time = max(self.time, time)

    def transact_random(self, rng: random.Random, size: int = 6) -> int:
        """A random transaction over all inputs."""
        return self.transact(*random_changes(self.model.inputs, rng, size))

    def compare(self) -> None:
        """Hold every subscription and a read of every relation against the model, at the last time."""
        for subscription in self.subscriptions:
            found = subscription.until(self.time)
            expected = self.model.contents(subscription.relation)
            assert found == expected, difference(subscription.relation, found, expected)
        for relations in self.relations.values():
            for relation in relations:
                found = self.next_client().read(relation)
                expected = self.model.contents(relation)
                assert found == expected, difference(f"read of {relation}", found, expected)

    def _moved_to(self, time: int) -> None:
        # Reads see all acknowledged writes: what is asked after an answer of time t has a time of t or later.
        assert time >= self._latest, f"an answer of time {time} after one of time {self._latest}"
        self._latest = time


def make_input(description: dict[str, Any], mode: re.Match[str] | None) -> Input:
    """The model's side of an input relation as `register` describes it."""
    names = [column["name"] for column in description["columns"]]
    types = tuple(column["type"] for column in description["columns"])
    if mode is None:
        return Input(types)
    if mode["mode"] == "raw":
        return Input(types, "raw")
    return Input(types, "upsert", tuple(names.index(each.strip()) for each in mode["key"].split(",")))


def difference(what: str, found: Any, expected: Any) -> str:
    """What a failing comparison should say."""
    return f"{what}: unexpected {dict(found - expected)}, missing {dict(expected - found)}"
