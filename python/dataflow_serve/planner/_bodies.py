"""Order of joins: a conjunction to rows.

Atoms that close a cycle are taken at once (`_cycles`), unless they meet by keys. The others are joined one by
one: where something is known of the rows of some, in an order in which few rows come about (`_statistics`);
else greedily, what is bound already first, then constants, then the fewest new variables. Cross products come
last, so a plan has one only where the rule has one.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from msgspec import Struct

from dataflow_serve.language import Type
from dataflow_serve.language.checked import (
    AggregateLiteral,
    AtomLiteral,
    Call,
    Const,
    Filter,
    Literal,
    RangeLiteral,
    Term,
    Var,
    variables_of,
)
from dataflow_serve.planner import _expressions as ex
from dataflow_serve.planner._apart import conditions_apart
from dataflow_serve.planner._cycles import cyclic_core, paths
from dataflow_serve.planner._flatten import MAX_DEPTH, Equation, FlatAtom, Flattened, flatten
from dataflow_serve.planner._groups import add_to_groups, is_total
from dataflow_serve.planner._names import binds_alone, bound_by, names_of, names_of_range, outer_names
from dataflow_serve.planner._nodes import Nodes
from dataflow_serve.planner._rows import Rows
from dataflow_serve.planner._statistics import (
    Atom,
    RelationStatistics,
    estimates_of,
    join_order,
    meet_by_keys,
)
from dataflow_serve.planner._windows import Window, window_of

__all__ = ["Planned", "plan_body"]


class Planned(Struct, frozen=True):
    """A conjunction's rows, and what was asked of it as terms over them."""

    rows: Rows
    wanted: list[Term]

    def node(self) -> int:
        """A node with what was asked for as its columns."""
        return self.rows.node([self.rows.expr(term) for term in self.wanted])


def plan_body(
    nodes: Nodes,
    literals: Sequence[Literal],
    wanted: Sequence[Term],
    start: Rows | None = None,
    *,
    as_set: bool = False,
) -> Planned:
    """Plan a conjunction.

    Args:
        nodes: Where nodes go.
        literals: The conjunction.
        wanted: Terms that are asked of it.
        start: Rows whose variables are bound from the beginning.
        as_set: Whether it doesn't matter how often a row comes about.
    """
    conditions: list[list[Literal]] = []
    if as_set and start is None:
        literals, conditions = conditions_apart(nodes, literals, wanted)
    flat = flatten(literals, wanted, start.env if start else ())
    rows = _Body(nodes, literals, flat, start, as_set).run()
    needed: set[str] = set()
    for term in flat.wanted:
        variables_of(term, needed)
    for condition in conditions:
        fulfilled = plan_body(nodes, condition, (), as_set=True).node()
        rows = rows.join(Rows(nodes, nodes.distinct(fulfilled), {}), [], needed)
    return Planned(rows, flat.wanted)


class _Source(Struct):
    """A positive atom that hasn't been joined yet."""

    atom: FlatAtom
    rows: Rows
    constants: int
    offers: dict[str, Equation]
    """Variables of other atoms that equations compute from this one's."""
    rank: int = 0
    """Its place in the order that statistics suggest, the same for all where there are none."""


class _Body:
    def __init__(
        self,
        nodes: Nodes,
        literals: Sequence[Literal],
        flat: Flattened,
        start: Rows | None,
        as_set: bool,
    ) -> None:
        self._nodes = nodes
        self._as_set = as_set
        self._literals = literals
        self._flat = flat
        self._rows = start
        self._wanted: set[str] = set()
        for term in flat.wanted:
            variables_of(term, self._wanted)
        self._windows = self._take_windows()
        self._sources = [self._source(atom) for atom in flat.atoms]

    def run(self) -> Rows:
        flat = self._flat
        self._push_filters()
        self._push_windows()
        self._push_negations()
        if self._rows is None:
            self._rows = self._cycle()
        self._rank()
        if self._rows is None and self._sources:
            first = min(self._sources, key=lambda source: (source.rank, -source.constants))
            self._sources.remove(first)
            self._rows = first.rows
        if self._rows is None:
            self._rows = Rows.unit(self._nodes)
        self._close()
        while self._sources or flat.aggregates:
            if not self._join_connected() and not self._apply_aggregate():
                next_ = min(self._sources, key=lambda s: (s.rank, -s.constants, len(s.atom.names)))
                self._join(next_, [])
            self._close()
        return self._rows

    # Sources

    def _source(self, atom: FlatAtom) -> _Source:
        rows = self._read(atom)
        constants = sum(isinstance(arg, Const) for arg in atom.args)
        names = atom.names
        offers: dict[str, Equation] = {}
        for equation in self._flat.equations:
            for one, other in equation.sides():
                if isinstance(one, Var) and one.name not in names and variables_of(other) <= names:
                    offers.setdefault(one.name, equation)
        return _Source(atom, rows, constants, offers)

    def _read(self, atom: FlatAtom) -> Rows:
        """The rows of a relation in which constants and repeated variables agree."""
        rows = Rows(self._nodes, self._nodes.get(atom.relation), {})
        for place, arg in enumerate(atom.args):
            column = ex.Col(place)
            if isinstance(arg, Const):
                rows.filter(ex.Call("eq", arg.type, (column, ex.Const(arg.type, arg.value))))
            elif isinstance(arg, Var):
                first = rows.env.setdefault(arg.name, column)
                if first != column:
                    rows.filter(ex.Call("eq", arg.type, (first, column)))
        return rows

    def _push_filters(self) -> None:
        """Apply conditions on one atom's variables where its rows are read.

        A condition that several atoms could check goes to those that are filtered or projected anyway. The
        others stay as they are in their relation, where all plans can share one arrangement of them, and
        lose the rows in the join.
        """
        flat = self._flat
        conditions = [(condition, names) for condition, names in flat.filters]
        conditions += [(_equality(equation), equation.names) for equation in flat.equations]
        pushed: list[Term] = []
        for condition, names in conditions:
            able = [source for source in self._sources if names and names <= source.rows.env.keys()]
            if able:
                chosen = [source for source in able if self._needs_map(source)] or able[:1]
                for source in chosen:
                    source.rows.filter(source.rows.expr(condition))
                pushed.append(condition)
        flat.filters = [entry for entry in flat.filters if entry[0] not in pushed]
        flat.equations = [equation for equation in flat.equations if _equality(equation) not in pushed]

    def _needs_map(self, source: _Source) -> bool:
        return not source.rows.is_plain or None in source.atom.args

    def _take_windows(self) -> list[Window]:
        """Conditions on ``now``, where it serves for nothing else: then it needn't be joined."""
        flat = self._flat
        clocks = [atom for atom in flat.atoms if self._nodes.is_clock(atom.relation)]
        if len(clocks) != 1 or not isinstance(now := clocks[0].args[0], Var):
            return []
        bound_outside = self._rows is not None and now.name in self._rows.env
        if bound_outside or now.name in self._needed_by(clocks[0]):
            return []
        entries = [entry for entry in flat.filters if now.name in entry[1]]
        windows = [window_of(condition, now.name) for condition, _ in entries]
        found = [window for window in windows if window is not None]
        if not entries or len(found) < len(entries) or not self._can_stand_outside(found):
            return []
        flat.atoms.remove(clocks[0])
        flat.filters = [entry for entry in flat.filters if entry not in entries]
        return found

    def _needed_by(self, clock: FlatAtom) -> set[str]:
        """Variables of all but the conditions and the one atom of the clock."""
        flat = self._flat
        needed = set(self._wanted).union(*(equation.names for equation in flat.equations))
        for atom in (*flat.atoms, *flat.negated):
            if atom is not clock:
                needed |= atom.names
        for aggregate in flat.aggregates:
            needed.update(outer_names(aggregate))
        for literal in flat.ranges:
            needed |= names_of_range(literal)
        return needed

    def _can_stand_outside(self, windows: Sequence[Window]) -> bool:
        """Whether no window is of rows that a recursion changes: those come and go with an iteration."""
        if not self._loops() and (self._rows is None or not self._rows.iterates):
            return True
        static = [a for a in self._flat.atoms if not self._nodes.is_recursive(a.relation)]
        return all(window.names and any(window.names <= a.names for a in static) for window in windows)

    def _push_windows(self) -> None:
        """Apply them where the rows they are about are read: what is out of time doesn't get into joins."""
        for source in self._sources:
            if self._nodes.is_recursive(source.atom.relation):
                continue
            able = [window for window in self._windows if window.names <= source.rows.env.keys()]
            if any(window.names for window in able):
                source.rows = source.rows.within(able, source.atom.names)
                self._windows = [window for window in self._windows if window not in able]

    def _push_negations(self) -> None:
        """In a recursion, take the negated rows away outside of the loop where an atom allows it."""
        for negated in list(self._flat.negated):
            names = negated.names
            for source in self._sources:
                iterated = self._nodes.is_recursive(source.atom.relation)
                if names and not iterated and names <= source.rows.env.keys() and self._loops():
                    source.rows = source.rows.antijoin(self._read(negated), sorted(names), source.atom.names)
                    self._flat.negated.remove(negated)
                    break

    def _loops(self) -> bool:
        return any(self._nodes.is_recursive(atom.relation) for atom in self._flat.atoms)

    # Cycles

    def _cycle(self) -> Rows | None:
        """The rows of the atoms that close a cycle, if some do and no recursion changes them.

        Atoms that meet by keys make no rows for nothing, and are joined two at a time.
        """
        static = [s for s in self._sources if not self._nodes.is_recursive(s.atom.relation)]
        core = [static[place] for place in cyclic_core([frozenset(s.rows.env) for s in static])]
        if not core or meet_by_keys([self._placed(source) for source in core]):
            return None
        self._sources = [source for source in self._sources if source not in core]
        needed = self._needed()
        inputs: list[tuple[int, Rows]] = []
        for source in core:
            shared = set().union(*(other.rows.env for other in core if other is not source))
            inputs.append(source.rows.only((needed | shared) & source.rows.env.keys()))
        names = sorted(set().union(*(rows.env for _, rows in inputs)))
        numbers = {name: number for number, name in enumerate(names)}
        variables: list[list[int]] = []
        for node, rows in inputs:
            columns = [0] * self._nodes.width[node]
            for name in rows.env:
                columns[rows.column(name)] = numbers[name]
            variables.append(columns)
        make = partial(
            self._nodes.multijoin,
            [node for node, _ in inputs],
            variables,
            paths(
                [frozenset(rows.env) for _, rows in inputs],
                estimates_of([self._counted(source) for source in core]),
            ),
        )
        return Rows.open(self._nodes, make, {name: ex.Col(number) for name, number in numbers.items()})

    def _placed(self, source: _Source) -> tuple[RelationStatistics | None, dict[str, int]]:
        """What is known of an atom's relation, and the column of each variable."""
        columns = {arg.name: place for place, arg in enumerate(source.atom.args) if isinstance(arg, Var)}
        return self._nodes.statistics.get(source.atom.relation), columns

    def _rank(self) -> None:
        """Give the atoms their places in the order that statistics suggest, if there are any."""
        order = join_order([self._counted(source) for source in self._sources])
        for place, source in enumerate(order or ()):
            self._sources[source].rank = place

    def _counted(self, source: _Source) -> Atom:
        columns: dict[str, tuple[int, ...]] = {}
        for place, arg in enumerate(source.atom.args):
            if isinstance(arg, Var):
                columns.setdefault(arg.name, (place,))
        for name, equation in source.offers.items():
            value = equation.right if equation.left == Var(name, equation.left.type) else equation.left
            columns[name] = tuple(place for known in variables_of(value) for place in columns[known])
        return Atom(
            self._nodes.statistics.get(source.atom.relation),
            columns,
            tuple(place for place, arg in enumerate(source.atom.args) if isinstance(arg, Const)),
            max(0, source.rows.conditions - source.constants),
        )

    # Steps

    def _needed(self) -> set[str]:
        """Variables that what is still to come asks for."""
        flat = self._flat
        needed = set(self._wanted)
        for source in self._sources:
            needed |= source.atom.names
        for equation in flat.equations:
            needed |= equation.names
        for _, names in flat.filters:
            needed |= names
        for window in self._windows:
            needed |= window.names
        for atom in flat.negated:
            needed |= atom.names
        for aggregate in flat.aggregates:
            needed.update(outer_names(aggregate))
            needed.add(aggregate.result.name)
        for literal in flat.ranges:
            needed |= names_of_range(literal)
            needed.add(literal.result.name)
        return needed

    def _join_connected(self) -> bool:
        """Join the best of the atoms that share a variable with what there is."""
        best: tuple[tuple[int, bool, int, int, int], int, _Source, list[str]] | None = None
        assert self._rows is not None
        bound = self._rows.env.keys()
        needed = self._needed()
        for place, source in enumerate(self._sources):
            names = source.atom.names
            offers = {name for name, equation in source.offers.items() if equation in self._flat.equations}
            shared = sorted((names | offers) & bound)
            if shared:
                new = len((names & needed) - bound)
                score = (source.rank, new > 0, -source.constants, new, -len(shared))
                if best is None or (score, place) < best[:2]:
                    best = (score, place, source, shared)
        if best is None:
            return False
        self._join(best[2], best[3])
        return True

    def _join(self, source: _Source, on: list[str]) -> None:
        assert self._rows is not None
        self._sources.remove(source)
        rows = source.rows
        for name in on:
            if name not in rows.env:
                equation = source.offers[name]
                value = equation.right if equation.left == Var(name, equation.left.type) else equation.left
                rows.define(name, value)
                self._flat.equations.remove(equation)
        self._rows = self._rows.join(rows, on, self._needed())

    def _close(self) -> None:
        """Apply all that needs no further variables: equations, conditions, negated atoms."""
        flat = self._flat
        changed = True
        while changed:
            changed = False
            for equation in list(flat.equations):
                changed |= self._apply_equation(equation)
            assert self._rows is not None
            for entry in list(flat.filters):
                if self._rows.binds(entry[1]):
                    flat.filters.remove(entry)
                    self._rows.filter(self._rows.expr(entry[0]))
            if able := [window for window in self._windows if self._rows.binds(window.names)]:
                self._windows = [window for window in self._windows if window not in able]
                self._rows = self._rows.within(able, self._needed())
            for atom in list(flat.negated):
                if self._rows.binds(atom.names):
                    flat.negated.remove(atom)
                    needed = self._needed()
                    self._rows = self._rows.antijoin(self._read(atom), sorted(atom.names), needed)
            for literal in list(flat.ranges):
                if self._rows.binds(names_of_range(literal)):
                    flat.ranges.remove(literal)
                    self._add_range(literal)
                    changed = True

    def _add_range(self, literal: RangeLiteral) -> None:
        """A row for each value of the range; one that is known already only has to be among them."""
        assert self._rows is not None
        nodes, name = self._nodes, literal.result.name
        known = self._needed().union(names_of_range(literal), [name])
        source, rows = self._rows.only(known & self._rows.env.keys())
        start, stop, step = (
            None if bound is None else rows.expr(bound)
            for bound in (literal.start, literal.stop, literal.step)
        )
        assert start is not None and stop is not None
        node = nodes.range(source, literal.result.type, start, stop, step)
        value = ex.Col(nodes.width[source])
        self._rows = Rows(nodes, node, {name: value, **rows.env})
        if name in rows.env:
            self._rows.filter(ex.Call("eq", literal.result.type, (rows.env[name], value)))

    def _apply_equation(self, equation: Equation) -> bool:
        """Use an equation as a condition or a definition, if its variables allow it."""
        rows = self._rows
        assert rows is not None
        if rows.binds(equation.names):
            self._flat.equations.remove(equation)
            rows.filter(rows.expr(_equality(equation)))
            return False
        for one, other in equation.sides():
            if isinstance(one, Var) and one.name not in rows.env and rows.binds(variables_of(other)):
                self._flat.equations.remove(equation)
                rows.define(one.name, other)
                if ex.depth(rows.env[one.name]) > MAX_DEPTH:
                    names = (self._needed() | {one.name}) & rows.env.keys()
                    self._rows = rows.only(names)[1]
                return True
        return False

    # Aggregates

    def _apply_aggregate(self) -> bool:
        assert self._rows is not None
        for aggregate in self._flat.aggregates:
            if self._rows.binds(outer_names(aggregate)):
                self._flat.aggregates.remove(aggregate)
                self._add_aggregate(aggregate)
                return True
        return False

    def _add_aggregate(self, aggregate: AggregateLiteral) -> None:
        """Join the rows with the aggregate's value for their outer variables."""
        assert self._rows is not None
        nodes, result, outer = self._nodes, aggregate.result, outer_names(aggregate)
        # Asked for without the aggregate, which is off the list; a value known already has to be compared.
        needed = self._needed().union(outer, [result.name])
        reduced = self._reduce(aggregate, needed)
        rows = self._rows
        if aggregate.func in ("min", "max", "mean") and rows.is_unit:
            self._rows = Rows(nodes, reduced, {result.name: ex.Col(0)})
            return
        left, mine = rows.only(needed & rows.env.keys())
        if self._as_set and (groups := add_to_groups(nodes, left, mine, aggregate, reduced)):
            self._rows = groups
            return
        width = nodes.width[left]
        project: list[ex.Expr] = [ex.Col(column) for column in range(width)]
        keys = [mine.column(name) for name in outer]
        places = list(range(len(outer)))
        known = mine.env.get(result.name)
        if known is None:
            joined = nodes.join(left, reduced, keys, places, [], [*project, ex.Col(width + len(outer))])
        else:
            value_key = [*keys, mine.column(result.name)]
            joined = nodes.join(left, reduced, value_key, [*places, len(outer)], [], project)
        if aggregate.func in ("count", "sum"):
            nothing = nodes.antijoin(left, reduced, keys, places)
            zero = ex.Const(result.type, 0.0 if result.type is Type.FLOAT else 0)
            if known is None:
                nothing = nodes.map(nothing, [], [*project, zero])
            else:
                nothing = nodes.map(nothing, [ex.Call("eq", result.type, (known, zero))], project)
            joined = nodes.union([joined, nothing])
        self._rows = Rows(nodes, joined, {result.name: ex.Col(width), **mine.env})

    def _reduce(self, aggregate: AggregateLiteral, needed: set[str]) -> int:
        """A node of the outer variables' values for which the body has rows, and the aggregate's for each."""
        outer: list[Term] = list(aggregate.outer)
        start = None
        if not binds_alone(aggregate):
            start = self._bindings(aggregate, needed)
        target = [] if aggregate.target is None else [aggregate.target]
        key = list(range(len(outer)))
        if len(aggregate.alternatives) == 1:
            source = self._plan(aggregate.alternatives[0], [*outer, *target], start).node()
        else:
            columns: list[Term] = [*outer, *aggregate.shared]
            parts = [self._plan(body, columns, start).node() for body in aggregate.alternatives]
            united = self._nodes.distinct(self._nodes.union(parts))
            names = [*outer_names(aggregate), *(variable.name for variable in aggregate.shared)]
            env: dict[str, ex.Expr] = {name: ex.Col(place) for place, name in enumerate(names)}
            source = self._plan((), [*outer, *target], Rows(self._nodes, united, env)).node()
        column = len(outer) if target else None
        return self._nodes.reduce(source, key, (aggregate.func, column), totals=is_total(aggregate))

    def _plan(self, body: Sequence[Literal], wanted: Sequence[Term], start: Rows | None) -> Planned:
        # Each alternative closes its own filters over the start's rows, so each gets its own.
        fresh = None if start is None else start.only(start.env)[1]
        return plan_body(self._nodes, body, wanted, fresh)

    def _bindings(self, aggregate: AggregateLiteral, needed: set[str]) -> Rows:
        """The values of the outer variables for which the aggregate is asked, each once."""
        assert self._rows is not None
        names = outer_names(aggregate)
        node, rows = self._rows.only(needed & self._rows.env.keys())
        self._rows = rows
        if self._nodes.is_iterated(node) and (static := self._static_bindings(aggregate)):
            node, rows = static
        node, rows = rows.only(names)
        return Rows(self._nodes, self._nodes.distinct(node), rows.env)

    def _static_bindings(self, aggregate: AggregateLiteral) -> tuple[int, Rows] | None:
        """Bindings from the part of the rule that no recursion changes, if it has all of them.

        Then the aggregate is taken once, outside of the loop.
        """
        static = [
            literal
            for literal in self._literals
            if isinstance(literal, Filter | RangeLiteral)
            or (
                isinstance(literal, AtomLiteral)
                and not literal.negated
                and not self._nodes.is_recursive(literal.relation)
            )
        ]
        bound = bound_by(static)
        static = [literal for literal in static if names_of(literal) <= bound]
        if not {variable.name for variable in aggregate.outer} <= bound:
            return None
        planned = plan_body(self._nodes, static, aggregate.outer)
        env = {
            name: planned.rows.expr(term)
            for name, term in zip(outer_names(aggregate), planned.wanted, strict=True)
        }
        planned.rows.env.update(env)
        return planned.rows.only(outer_names(aggregate))


def _equality(equation: Equation) -> Call:
    return Call("eq", equation.over, (equation.left, equation.right), Type.BOOL, False)
