"""The order of evaluation: which relations depend on one another, and no cycle through a negation."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

from dataflow_serve.errors import IncorrectError, UnsupportedError
from dataflow_serve.language import ast
from dataflow_serve.language._cursor import quote
from dataflow_serve.language.checked import (
    AggregateLiteral,
    AtomLiteral,
    Literal,
    Relation,
    Rule,
    Stratum,
    Subsumption,
)

__all__ = ["stratify"]


class _Edge(NamedTuple):
    """A relation whose rows those of another come from."""

    source: str
    strict: str | None
    """Why ``source`` must be complete first: ``!`` or the name of an aggregate."""
    at: ast.Position
    text: str
    """Of the clause that makes it so."""


def stratify(
    relations: Mapping[str, Relation], rules: Iterable[Rule], subsumptions: Iterable[Subsumption]
) -> tuple[Stratum, ...]:
    """Group ``relations`` so that each group depends on itself and earlier ones only.

    Raises:
        IncorrectError: a relation depends on its own negation, or on an aggregate of itself.
        UnsupportedError: a choice domain or a limit in a recursion whose rounds aren't those of its rules.
    """
    subsumptions = list(subsumptions)
    edges: dict[str, list[_Edge]] = {name: [] for name in relations}
    for rule in rules:
        for head in rule.heads:
            for edge in _edges_of(rule.clause.text, rule.body, None):
                if edge.source in edges:
                    edges[head.relation].append(edge)
    for each in subsumptions:
        for edge in _edges_of(each.clause.text, each.body, None):
            # Its own rows are those from before the subsumption.
            if edge.source in edges and (edge.source != each.relation or edge.strict is not None):
                edges[each.relation].append(edge)
    for name, relation in relations.items():
        # Several domains leave rows by turns, as a recursion does.
        if relation.equivalence or len(relation.choices) > 1:
            edges[name].append(_Edge(name, None, ast.Position(1, 1), ""))
    strata: list[Stratum] = []
    for group in _components({name: [edge.source for edge in found] for name, found in edges.items()}):
        members = set(group)
        recursive = False
        for name in group:
            for edge in edges[name]:
                if edge.source in members:
                    recursive = True
                    if edge.strict is not None:
                        raise _cycle(name, edge, edges, members)
        if recursive:
            _check_rounds(group, relations, edges, subsumptions)
        strata.append(Stratum(tuple(group), recursive))
    return tuple(strata)


def _check_rounds(
    group: Sequence[str],
    relations: Mapping[str, Relation],
    edges: Mapping[str, Sequence[_Edge]],
    subsumptions: Sequence[Subsumption],
) -> None:
    """Make sure that a recursion whose rounds matter has those of its rules, and that what is there stays."""
    chosen = next((name for name in group if relations[name].choices or relations[name].limit), None)
    if chosen is None:
        return
    what = f'the {"choice domain" if relations[chosen].choices else "limit of size"} of "{chosen}"'
    for each in subsumptions:
        if each.relation in group:
            raise UnsupportedError(
                f'subsumption in "{each.relation}", which depends on {what} and the '
                f"other way round, in `{quote(each.clause.text)}`",
                "What is there stays; take rows away in a relation that none of these depends on.",
                *each.clause.at,
            )
    closed = next((name for name in group if relations[name].equivalence), None)
    if closed is not None:
        edge = next(edge for edge in edges[chosen] if edge.source in group and edge.source != chosen)
        raise UnsupportedError(
            f'{what}, which depends on "{closed}", an eqrel, and the other way round, '
            f"in `{quote(edge.text)}`",
            f'Break the cycle: "{closed}" must not depend on "{chosen}".',
            *edge.at,
        )


def _edges_of(text: str, literals: tuple[Literal, ...], strict: str | None) -> Iterator[_Edge]:
    for literal in literals:
        if isinstance(literal, AtomLiteral):
            why = "!" if literal.negated and strict is None else strict
            yield _Edge(literal.relation, why, literal.at, text)
        elif isinstance(literal, AggregateLiteral):
            for inner in literal.alternatives:
                yield from _edges_of(text, inner, strict or literal.func)


def _components(graph: dict[str, list[str]]) -> list[list[str]]:
    """Tarjan's algorithm without recursion: components by dependency, their members in the order given."""
    order = {name: place for place, name in enumerate(graph)}
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    on_stack: set[str] = set()
    found: list[list[str]] = []
    for root in graph:
        if root in index:
            continue
        index[root] = low[root] = len(index)
        stack.append(root)
        on_stack.add(root)
        work = [(root, iter(graph[root]))]
        while work:
            node, successors = work[-1]
            for other in successors:
                if other not in index:
                    index[other] = low[other] = len(index)
                    stack.append(other)
                    on_stack.add(other)
                    work.append((other, iter(graph[other])))
                    break
                if other in on_stack:
                    low[node] = min(low[node], index[other])
            else:
                work.pop()
                if work:
                    low[work[-1][0]] = min(low[work[-1][0]], low[node])
                if low[node] == index[node]:
                    cut = stack.index(node)
                    members = stack[cut:]
                    del stack[cut:]
                    on_stack.difference_update(members)
                    found.append(sorted(members, key=order.__getitem__))
    return found


def _cycle(name: str, edge: _Edge, edges: dict[str, list[_Edge]], members: set[str]) -> IncorrectError:
    """The error for a strict edge inside a component, naming a shortest cycle through it."""
    previous: dict[str, str] = {edge.source: ""}
    queue = deque([edge.source])
    while queue and name not in previous:
        here = queue.popleft()
        for further in edges[here]:
            if further.source in members and further.source not in previous:
                previous[further.source] = here
                queue.append(further.source)
    back: list[str] = []
    here = name
    while here != edge.source:
        back.append(here)
        here = previous[here]
    first = f"!{edge.source}" if edge.strict == "!" else f"{edge.strict} of {edge.source}"
    path = " -> ".join([name, first, *reversed(back)])
    what = "its own negation" if edge.strict == "!" else f"a {edge.strict} of itself"
    return IncorrectError(
        f'"{name}" depends on {what}: {path}, in `{quote(edge.text)}`',
        f"Break the cycle: what is {'negated' if edge.strict == '!' else 'aggregated'} "
        f'must not depend on "{name}".',
        *edge.at,
    )
