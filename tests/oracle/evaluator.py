"""What a checked program means, by nested loops and naive iteration.

Written from the language's definition and from nothing in the planner or the engine, so that an agreement
between them says something. It is as slow as that sounds: a few dozen rows a relation are plenty.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence

from dataflow_serve.language import (
    Catalog,
    CatalogRelation,
    CheckedProgram,
    Scalar,
    Type,
    check,
    parse,
)
from dataflow_serve.language.checked import (
    AggregateLiteral,
    Any,
    AtomLiteral,
    Call,
    Const,
    Filter,
    Literal,
    RangeLiteral,
    Rule,
    Subsumption,
    Term,
    Var,
    variables_of,
)
from tests.oracle.values import (
    Failed,
    Row,
    aggregate,
    apply,
    equal,
    floating,
    order,
    values_of_range,
)

Bag = Counter[Row]
Binding = dict[str, Scalar]


class Diverged(Exception):
    """More rows than the caller allows."""


def evaluate(
    program: CheckedProgram, inputs: Mapping[str, Iterable[Row]], max_rows: int = 20_000
) -> dict[str, Bag]:
    """The contents of every relation of ``program``.

    Args:
        program: The program.
        inputs: Transacted rows of its inputs and the contents of its imports; copies count for raw ones.
        max_rows: Rows a relation may have.

    Raises:
        Diverged: a recursion goes on past ``max_rows``.
    """
    return _Evaluator(program, inputs, max_rows).run()


def evaluate_texts(texts: Iterable[str], inputs: Mapping[str, Iterable[Row]]) -> dict[str, Bag]:
    """The contents of all relations of several programs; later ones may use relations of earlier ones."""
    contents: dict[str, Bag] = {}
    known: list[CatalogRelation] = []
    for place, text in enumerate(texts):
        program = check(parse(text), Catalog(known))
        rows = {name: bag.elements() for name, bag in contents.items()}
        found = evaluate(program, {**inputs, **rows})
        contents.update((name, found[name]) for name in program.relations)
        for relation in program.relations.values():
            key = ", ".join(relation.columns[column].name for column in relation.key)
            mode = f"upsert({key})" if relation.mode == "upsert" else relation.mode
            known.append(
                CatalogRelation(
                    len(known), relation.name, relation.columns, relation.input, mode, f"program {place}"
                )
            )
    return contents


class _Evaluator:
    def __init__(self, program: CheckedProgram, inputs: Mapping[str, Iterable[Row]], max_rows: int) -> None:
        self._program = program
        self._max_rows = max_rows
        self._contents: dict[str, Bag] = {}
        for name in (*program.imports, *program.relations):
            declared = program.relations.get(name)
            mode = declared.mode if declared else program.imports[name].mode
            rows: Bag = Counter(tuple(map(_canonical, row)) for row in inputs.get(name, ()))
            if mode != "raw":
                rows = Counter(dict.fromkeys(rows, 1))
            rows.update(row for row in program.facts.get(name, ()) if row not in rows)
            self._contents[name] = rows

    def run(self) -> dict[str, Bag]:
        if self._program.subsumptions or any(r.choices or r.limit for r in self._program.relations.values()):
            # Rows go away again, so it matters what is evaluated together.
            for stratum in self._program.strata:
                limits = {name: self._program.relations[name].limit for name in stratum.relations}
                self._settle(stratum.relations, limits if stratum.recursive else {})
            return self._contents
        levels = self._levels()
        for level in sorted(set(levels.values())):
            rules = [
                rule
                for rule in self._program.rules
                if any(levels[head.relation] == level for head in rule.heads)
            ]
            changed = True
            while changed:
                changed = False
                for rule in rules:
                    for relation, row in list(self._derive(rule)):
                        if levels[relation] == level and row not in self._contents[relation]:
                            self._contents[relation][row] = 1
                            changed = True
                            if len(self._contents[relation]) > self._max_rows:
                                raise Diverged(relation)
                for name, declared in self._program.relations.items():
                    if declared.equivalence and levels[name] == level:
                        closed = _equivalence(self._contents[name])
                        changed = changed or closed != self._contents[name]
                        self._contents[name] = closed
        return self._contents

    def _settle(self, relations: Sequence[str], limits: Mapping[str, int | None]) -> None:
        """Evaluate relations that depend on one another, round by round, each from the round before.

        It is over when one has as many rows as ``limits`` say.
        """
        given = {name: Counter(self._contents[name]) for name in relations}
        self._contents.update((name, Counter()) for name in relations)
        while not any(limit and len(self._contents[name]) >= limit for name, limit in limits.items()):
            derived = {name: Counter(rows) for name, rows in given.items()}
            for rule in self._program.rules:
                if any(head.relation in derived for head in rule.heads):
                    for relation, row in self._derive(rule):
                        if relation in derived:
                            derived[relation].setdefault(row, 1)
            for name, rows in derived.items():
                derived[name] = self._closed(name, rows)
                if len(derived[name]) > self._max_rows:
                    raise Diverged(name)
            if all(self._contents[name] == rows for name, rows in derived.items()):
                return
            self._contents.update(derived)

    def _closed(self, name: str, rows: Bag) -> Bag:
        """What its declaration and subsumption make of the rows that a relation would have otherwise."""
        declared = self._program.relations[name]
        if declared.equivalence:
            return _equivalence(rows)
        if declared.choices:
            return self._chosen(declared.choices, rows, self._contents[name])
        subsumptions = [each for each in self._program.subsumptions if each.relation == name]
        if not subsumptions:
            return rows
        before, self._contents[name] = self._contents[name], rows
        pairs = {
            (row, other)
            for row in rows
            for other in rows
            if row != other and any(self._dominates(each, row, other) for each in subsumptions)
        }
        self._contents[name] = before
        kept = Counter(rows)
        for row, other in pairs:
            both = (other, row) in pairs
            if not both or tuple(map(order, other)) < tuple(map(order, row)):
                kept.pop(row, None)
        return kept

    def _chosen(self, choices: Sequence[Sequence[int]], rows: Bag, there: Bag) -> Bag:
        """What is there, and each of the rows that agrees neither with it nor with a row before its own."""

        def agree(one: Row, other: Row) -> bool:
            return any(all(one[place] == other[place] for place in domain) for domain in choices)

        free = [row for row in rows if not any(agree(row, other) for other in there)]
        kept = Counter(there)
        for row in free:
            before = [other for other in free if tuple(map(order, other)) < tuple(map(order, row))]
            if not any(agree(row, other) for other in before):
                kept[row] = 1
        return kept

    def _dominates(self, subsumption: Subsumption, row: Row, other: Row) -> bool:
        """Whether ``row`` gives way to ``other``."""
        at = subsumption.clause.at
        binding: Binding | None = {}
        for args, values in ((subsumption.dominated, row), (subsumption.dominating, other)):
            atom = AtomLiteral(subsumption.relation, args, False, at)
            binding = None if binding is None else _matched(atom, values, binding)
        return binding is not None and next(self._solve(subsumption.body, binding), None) is not None

    def _levels(self) -> dict[str, int]:
        """A level for each relation: above those it negates or aggregates, not below any other it reads."""
        levels = dict.fromkeys(self._program.relations, 0)
        for _ in range(len(levels) + 1):
            changed = False
            for rule in self._program.rules:
                for source, strict in _reads(rule.body, False):
                    for head in rule.heads:
                        least = levels.get(source, 0) + strict
                        if levels[head.relation] < least:
                            levels[head.relation] = least
                            changed = True
            if not changed:
                return levels
        raise AssertionError("a program that can't be stratified passed the check")

    def _derive(self, rule: Rule) -> Iterator[tuple[str, Row]]:
        for binding in self._solve(list(rule.body), {}):
            for head in rule.heads:
                try:
                    yield head.relation, tuple(_value(arg, binding) for arg in head.args)
                except Failed:
                    continue

    # Bodies

    def _solve(self, literals: Sequence[Literal], binding: Binding) -> Iterator[Binding]:
        """All ways to make a conjunction true, one for each combination of rows."""
        if not literals:
            yield binding
            return
        chosen = next((literal for literal in literals if _is_ready(literal, binding)), None)
        assert chosen is not None, f"nothing binds the variables of {literals}"
        rest = [literal for literal in literals if literal is not chosen]
        for further in self._satisfy(chosen, binding):
            yield from self._solve(rest, further)

    def _satisfy(self, literal: Literal, binding: Binding) -> Iterator[Binding]:
        if isinstance(literal, Filter):
            yield from _filtered(literal, binding)
        elif isinstance(literal, AggregateLiteral):
            yield from self._aggregated(literal, binding)
        elif isinstance(literal, RangeLiteral):
            yield from _ranged(literal, binding)
        elif not literal.negated:
            yield from self._matches(literal, binding)
        else:
            try:
                for arg in literal.args:
                    if not isinstance(arg, Any):
                        _value(arg, binding)
            except Failed:
                return
            if next(self._matches(literal, binding), None) is None:
                yield binding

    def _matches(self, atom: AtomLiteral, binding: Binding) -> Iterator[Binding]:
        for row, copies in list(self._contents[atom.relation].items()):
            further = _matched(atom, row, binding)
            if further is not None:
                for _ in range(copies):
                    yield further

    def _aggregated(self, literal: AggregateLiteral, binding: Binding) -> Iterator[Binding]:
        outer = {variable.name: binding[variable.name] for variable in literal.outer}
        kind = literal.target.type if literal.target is not None else Type.NUMBER
        if len(literal.alternatives) == 1:
            solutions = list(self._solve(literal.alternatives[0], outer))
        else:
            names = [variable.name for variable in literal.shared]
            found = {
                tuple(solution[name] for name in names)
                for body in literal.alternatives
                for solution in self._solve(body, outer)
            }
            solutions = [{**outer, **dict(zip(names, values, strict=True))} for values in found]
        values: list[Scalar] = []
        for solution in solutions:
            try:
                values.append(0 if literal.target is None else _value(literal.target, solution))
            except Failed:
                continue
        try:
            result = aggregate(literal.func, kind, values)
        except Failed:
            return
        if literal.result.type is Type.FLOAT:
            result = floating(float(result))
        known = binding.get(literal.result.name)
        if known is None:
            yield {**binding, literal.result.name: result}
        elif equal(known, result):
            yield binding


def _equivalence(rows: Bag) -> Bag:
    """The least equivalence that holds all of ``rows``."""
    classes: list[set[Scalar]] = []
    for pair in rows:
        touched = [members for members in classes if not members.isdisjoint(pair)]
        classes = [members for members in classes if members.isdisjoint(pair)]
        classes.append(set(pair).union(*touched))
    return Counter((x, y) for members in classes for x in members for y in members)


def _reads(literals: Iterable[Literal], strict: bool) -> Iterator[tuple[str, bool]]:
    for literal in literals:
        if isinstance(literal, AtomLiteral):
            yield literal.relation, strict or literal.negated
        elif isinstance(literal, AggregateLiteral):
            for body in literal.alternatives:
                yield from _reads(body, True)


def _canonical(value: Scalar) -> Scalar:
    return floating(value) if isinstance(value, float) else value


def _value(term: Term, binding: Binding) -> Scalar:
    if isinstance(term, Var):
        return binding[term.name]
    if isinstance(term, Const):
        return term.value
    return apply(term.func, term.over, [_value(arg, binding) for arg in term.args])


def _is_ready(literal: Literal, binding: Binding) -> bool:
    bound = binding.keys()
    if isinstance(literal, AggregateLiteral):
        return {variable.name for variable in literal.outer} <= bound
    if isinstance(literal, RangeLiteral):
        needed = {name for bound_term in literal.bounds for name in variables_of(bound_term)}
        return needed <= bound
    if isinstance(literal, Filter):
        return variables_of(literal.condition) <= bound or _definition(literal, binding) is not None
    plain = {arg.name for arg in literal.args if isinstance(arg, Var)}
    needed: set[str] = set() if not literal.negated else set(plain)
    for arg in literal.args:
        if isinstance(arg, Call):
            needed |= variables_of(arg)
    return needed <= (bound if literal.negated else bound | plain)


def _definition(literal: Filter, binding: Binding) -> tuple[Var, Term] | None:
    """The variable that an equality can give a value now, and the term it is the value of."""
    condition = literal.condition
    if isinstance(condition, Call) and condition.func == "eq":
        left, right = condition.args
        for one, other in ((left, right), (right, left)):
            if isinstance(one, Var) and one.name not in binding and variables_of(other) <= binding.keys():
                return one, other
    return None


def _filtered(literal: Filter, binding: Binding) -> Iterator[Binding]:
    try:
        definition = _definition(literal, binding)
        if definition is not None:
            yield {**binding, definition[0].name: _value(definition[1], binding)}
        elif _value(literal.condition, binding):
            yield binding
    except Failed:
        return


def _ranged(literal: RangeLiteral, binding: Binding) -> Iterator[Binding]:
    name = literal.result.name
    try:
        bounds = [_value(bound, binding) for bound in literal.bounds]
        values = values_of_range(literal.result.type, bounds[0], bounds[1], [*bounds, None][2])
    except Failed:
        return
    for value in values:
        if name not in binding:
            yield {**binding, name: value}
        elif equal(binding[name], value):
            yield binding


def _matched(atom: AtomLiteral, row: Row, binding: Binding) -> Binding | None:
    """The binding in which the atom's arguments are the row's values, if there is one."""
    further = dict(binding)
    computed: list[tuple[Term, Scalar]] = []
    for arg, value in zip(atom.args, row, strict=True):
        if isinstance(arg, Call):
            computed.append((arg, value))
        elif isinstance(arg, Const):
            if not equal(arg.value, value):
                return None
        elif isinstance(arg, Var):
            if arg.name not in further:
                further[arg.name] = value
            elif not equal(further[arg.name], value):
                return None
    try:
        if all(equal(_value(arg, further), value) for arg, value in computed):
            return further
    except Failed:
        pass
    return None
