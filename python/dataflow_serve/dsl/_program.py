"""Rules, and programs of them: what `Client.register` takes in place of text."""

from __future__ import annotations

from dataclasses import dataclass

from dataflow_serve.dsl._atoms import Atom, Body, Relation
from dataflow_serve.dsl._terms import conjunction

__all__ = ["Program", "Rule", "program", "rule"]


@dataclass(frozen=True, slots=True)
class Rule:
    """A head, and what must hold for it. Without a body it is a fact."""

    head: Atom
    body: tuple[Body, ...]

    @property
    def text(self) -> str:
        """The clause as program text."""
        return f"{self.head.text} :- {conjunction(self.body)}." if self.body else f"{self.head.text}."

    def __repr__(self) -> str:
        """The clause as program text."""
        return self.text


@dataclass(frozen=True, slots=True)
class Program:
    """Relations and rules that are registered together; ``str(program)`` is the same as text."""

    parts: tuple[Relation | Rule, ...]

    def __str__(self) -> str:
        """The program's text: declarations, directives, clauses.

        Raises:
            TypeError: two declarations of a relation differ, or the columns of one aren't known.
        """
        heads = [part.head.relation for part in self.parts if isinstance(part, Rule)]
        given = [part for part in self.parts if isinstance(part, Relation)]
        declared: dict[str, Relation] = {}
        for relation in [*given, *heads]:
            known = declared.setdefault(relation.name, relation)
            if known != relation and relation.columns is not None:
                raise TypeError(f"{relation.name} is declared in two ways: {known!r} and {relation!r}")
        lines = [relation.declaration() for relation in declared.values()]
        derived = {relation.name for relation in heads}
        lines += [f".input {name}" for name, relation in declared.items() if relation.is_input]
        lines += [f".output {name}" for name in declared if name in derived]
        lines += [part.text for part in self.parts if isinstance(part, Rule)]
        return "".join(f"{line}\n" for line in lines)


def rule(head: Atom, *body: Body) -> Rule:
    """A rule: ``rule(path(x, z), path(x, y), edge(y, z))``; without a body a fact.

    Raises:
        TypeError: the head is no atom.
    """
    if not isinstance(head, Atom):
        raise TypeError(f"{head!r} is no head of a rule; make one by calling a relation")
    conjunction(body)
    return Rule(head, body)


def program(*parts: Relation | Rule) -> Program:
    """A program of relations, which it declares, and rules, whose heads it declares.

    Relations that only occur in bodies are those of programs registered before.
    """
    return Program(parts)
