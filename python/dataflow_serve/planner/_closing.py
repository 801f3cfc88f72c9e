"""What a declaration makes of the rows that facts and rules give: equivalences, choices, subsumption."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from dataflow_serve.language import Composite, Kind, Type
from dataflow_serve.language.checked import Any as AnyValue
from dataflow_serve.language.checked import (
    Argument,
    AtomLiteral,
    Call,
    Filter,
    Literal,
    Relation,
    Subsumption,
    Term,
    Var,
)
from dataflow_serve.planner import _expressions as ex
from dataflow_serve.planner._bodies import plan_body
from dataflow_serve.planner._nodes import Nodes

__all__ = ["choose", "close_equivalence", "subsume", "until_full"]


def close_equivalence(nodes: Nodes, relation: str, parts: Sequence[int], *, transacted: bool) -> int:
    """The rows of the least equivalence that holds those of ``parts``, and its transacted ones.

    Every step goes along one of the given pairs, so that work is in proportion to pairs that there will be
    and how many given ones meet an element, instead of to all triples.
    """
    whole = nodes.get(relation)
    given = [*parts, whole] if transacted else list(parts)
    either = nodes.distinct(
        nodes.union([way for part in given for way in (part, nodes.map(part, [], [ex.Col(1), ex.Col(0)]))])
    )
    itself = nodes.map(either, [], [ex.Col(0), ex.Col(0)])
    further = nodes.join(whole, either, [1], [0], [], [ex.Col(0), ex.Col(3)])
    return nodes.union([either, itself, further])


def choose(nodes: Nodes, relation: Relation, source: int) -> int:
    """The rows of ``source`` that the choice domains leave.

    In a recursion they come to those of the round before, which stay: what agrees with them is out.
    """
    source = nodes.distinct(source)
    types = [column.type for column in relation.columns]
    if not nodes.is_recursive(relation.name):
        return _first(nodes, source, relation.choices[0], types)
    there = nodes.get(relation.name)
    for key in relation.choices:
        source = nodes.antijoin(source, there, key, key)
    every = list(range(len(relation.columns)))
    columns: list[ex.Expr] = [ex.Col(place) for place in every]
    before_all = _first(nodes, source, relation.choices[0], types)
    for key in relation.choices[1:]:
        before_all = nodes.join(before_all, _first(nodes, source, key, types), every, every, [], columns)
    return nodes.union([there, before_all])


def until_full(nodes: Nodes, limited: Sequence[Relation], source: int) -> int:
    """The rows of ``source``, as long as none of the relations has as many rows as its limit allows."""
    for relation in limited:
        assert relation.limit is not None
        counted = nodes.reduce(nodes.get(relation.name), [], ("count", None), totals=True)
        enough = ex.Call("ge", Type.NUMBER, (ex.Col(0), ex.Const(Type.NUMBER, relation.limit)))
        source = nodes.antijoin(source, nodes.map(counted, [enough], []), [], [])
    return source


def _first(nodes: Nodes, source: int, key: Sequence[int], types: Sequence[Kind]) -> int:
    """Of the rows with equal values in the columns of ``key``, the first by the others, left to right."""
    places = list(range(len(types)))
    others = [place for place in places if place not in key]
    if any(isinstance(types[place], Composite) for place in others):
        # No reduction knows their order.
        both: list[ex.Expr] = [ex.Col(place) for place in range(2 * len(types))]
        pairs = nodes.join(source, source, key, key, [], both)
        lefts = [(types[place], both[place]) for place in others]
        rights = [both[len(types) + place] for place in others]
        later = [nodes.map(pairs, filters, both[: len(types)]) for filters in _later(lefts, rights)]
        return nodes.antijoin(source, nodes.union(later), places, places)
    for place in others:
        if len(others) == 1:
            return _extreme(nodes, source, key, "min", place)
        least = nodes.reduce(source, key, ("min", place))
        columns: list[ex.Expr] = [ex.Col(column) for column in places]
        source = nodes.join(source, least, [*key, place], list(range(len(key) + 1)), [], columns)
    return source


def subsume(nodes: Nodes, relation: Relation, subsumptions: Sequence[Subsumption], source: int) -> int:
    """The rows of ``source`` without those that others of it dominate."""
    source = nodes.distinct(source)
    extreme = _as_extreme(subsumptions)
    if extreme is not None:
        func, place = extreme
        return _extreme(nodes, source, [p for p in range(len(relation.columns)) if p != place], func, place)
    # Atoms of the relation in a subsumption are about these rows. No program can write this name.
    name = f"{relation.name}'s"
    nodes.name(name, source)
    pairs: list[int] = []
    for each in subsumptions:
        literals: list[Literal] = [
            AtomLiteral(name, _named(each.dominated, "<"), False, each.clause.at),
            AtomLiteral(name, _named(each.dominating, ">"), False, each.clause.at),
            *(_renamed(literal, relation.name, name) for literal in each.body),
        ]
        wanted = [*_values(each.dominated, "<"), *_values(each.dominating, ">")]
        with nodes.made_for(each.clause):
            pairs.append(plan_body(nodes, literals, wanted).node())
    types = [column.type for column in relation.columns]
    width = len(types)
    first: list[ex.Expr] = [ex.Col(place) for place in range(width)]
    if len(subsumptions) == 1 and _is_strict(subsumptions[0]):
        gone = nodes.map(pairs[0], [], first)
    else:
        gone = _gone(nodes, nodes.union(pairs), types)
    every = list(range(width))
    return nodes.antijoin(source, gone, every, every)


def _extreme(nodes: Nodes, source: int, key: Sequence[int], func: str, place: int) -> int:
    """For each value of the other columns, the row with the least or greatest value in one."""
    reduced = nodes.reduce(source, key, (func, place))
    columns = [*key, place]
    return nodes.map(reduced, [], [ex.Col(columns.index(column)) for column in range(len(columns))])


def _as_extreme(subsumptions: Sequence[Subsumption]) -> tuple[str, int] | None:
    """Whether only the row with the least or greatest value in one column stays, and in which."""
    if len(subsumptions) != 1 or len(subsumptions[0].body) != 1:
        return None
    only = subsumptions[0].body[0]
    sides = list(zip(subsumptions[0].dominated, subsumptions[0].dominating, strict=True))
    unlike = [place for place, (left, right) in enumerate(sides) if left != right]
    # Every column is a variable of its own, but one that is two.
    variables = {arg.name for both in sides for arg in both if isinstance(arg, Var)}
    if len(unlike) != 1 or len(variables) != len(sides) + 1:
        return None
    place = unlike[0]
    left, right = sides[place]
    if not isinstance(only, Filter) or not isinstance(only.condition, Call):
        return None
    call = only.condition
    for func, args in ((call.func, call.args), (_SWAPPED.get(call.func), call.args[::-1])):
        if func in ("lt", "le", "gt", "ge") and args == (right, left):
            return ("min" if func in ("lt", "le") else "max"), place
    return None


_SWAPPED = {"lt": "gt", "le": "ge", "gt": "lt", "ge": "le"}


def _gone(nodes: Nodes, pairs: int, types: Sequence[Kind]) -> int:
    """The first halves of ``pairs`` that give way: all but the least of rows that dominate one another."""
    width = len(types)
    left, right = list(range(width)), list(range(width, 2 * width))
    first: list[ex.Expr] = [ex.Col(place) for place in left]
    both: list[ex.Expr] = [ex.Col(place) for place in (*left, *right)]
    unlike = nodes.distinct(nodes.union([nodes.map(pairs, filters, both) for filters in _unlike(types)]))
    one_way = nodes.antijoin(unlike, unlike, [*left, *right], [*right, *left])
    mutual = nodes.join(unlike, unlike, [*left, *right], [*right, *left], [], both)
    columns = [(kind, ex.Col(place)) for place, kind in enumerate(types)]
    later = [nodes.map(mutual, filters, first) for filters in _later(columns, both[width:])]
    return nodes.union([nodes.map(one_way, [], first), *later])


def _unlike(types: Sequence[Kind]) -> Iterable[list[ex.Expr]]:
    """Conditions of which one holds for two rows side by side that aren't equal."""
    width = len(types)
    equal: list[ex.Expr] = []
    for place, kind in enumerate(types):
        sides = (ex.Col(place), ex.Col(width + place))
        yield [*equal, ex.Call("ne", kind, sides)]
        equal.append(ex.Call("eq", kind, sides))


def _later(lefts: Sequence[tuple[Kind, ex.Expr]], rights: Sequence[ex.Expr]) -> Iterable[list[ex.Expr]]:
    """Conditions of which one holds where values come after others, in the order from left to right.

    Of records ``nil`` comes first, of an algebraic type the branches in the order of their names.
    """
    equal: list[ex.Expr] = []
    for (kind, left), right in zip(lefts, rights, strict=True):
        if isinstance(kind, Type):
            yield [*equal, ex.Call("gt", kind, (left, right))]
        else:
            for conditions in _later_record(kind, left, right):
                yield [*equal, *conditions]
        equal.append(ex.Call("eq", kind, (left, right)))


def _later_record(kind: Composite, left: ex.Expr, right: ex.Expr) -> Iterable[list[ex.Expr]]:
    def is_of(record: ex.Expr, branch: int) -> ex.Expr:
        return ex.Call("is", kind, (record, ex.Const(Type.UNSIGNED, branch)))

    def field(record: ex.Expr, branch: int, place: int) -> ex.Expr:
        args = (record, ex.Const(Type.UNSIGNED, branch), ex.Const(Type.UNSIGNED, place))
        return ex.Call("unpack", kind, args)

    if kind.record is not None:
        yield [is_of(left, 0), ex.Call("eq", kind, (right, ex.Call("nil", kind, ())))]
    order = sorted(range(len(kind.branches)), key=lambda place: (kind.branches[place].name or "").encode())
    for rank, branch in enumerate(order):
        for before in order[:rank]:
            yield [is_of(left, branch), is_of(right, before)]
        fields = kind.branches[branch].fields
        lefts = [(column.type, field(left, branch, place)) for place, column in enumerate(fields)]
        rights = [field(right, branch, place) for place in range(len(fields))]
        for conditions in _later(lefts, rights):
            yield [is_of(left, branch), is_of(right, branch), *conditions]


def _is_strict(subsumption: Subsumption) -> bool:
    """Whether a comparison of a column with itself says that no two rows can dominate one another."""
    for literal in subsumption.body:
        if isinstance(literal, Filter) and isinstance(literal.condition, Call):
            call = literal.condition
            for left, right in zip(subsumption.dominated, subsumption.dominating, strict=True):
                variables = isinstance(left, Var) and isinstance(right, Var) and left != right
                if variables and call.func in ("lt", "gt") and set(call.args) == {left, right}:
                    return True
    return False


def _named(args: Sequence[Argument], side: str) -> tuple[Argument, ...]:
    return tuple(
        Var(f"{side}{place}", arg.type) if isinstance(arg, AnyValue) else arg
        for place, arg in enumerate(args)
    )


def _values(args: Sequence[Argument], side: str) -> list[Term]:
    return [arg for arg in _named(args, side) if not isinstance(arg, AnyValue)]


def _renamed(literal: Literal, old: str, new: str) -> Literal:
    if isinstance(literal, AtomLiteral) and literal.relation == old:
        return AtomLiteral(new, literal.args, literal.negated, literal.at)
    return literal
