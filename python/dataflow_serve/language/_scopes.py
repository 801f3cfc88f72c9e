"""Scopes: which variable of an aggregate is whose, as Soufflé has it.

A variable inside an aggregate that is bound outside of it is the outer one, except that variables of the
target term are always the aggregate's own. A variable that is used outside without being bound there, and
that the body of a ``min`` or ``max`` binds, is a *witness*: the value it has in the rows where the extreme
is reached. All others are local, and another variable in each aggregate.

`resolve` rewrites a conjunction so that every variable has one meaning: local variables get names of their
own, and witnesses are bound by a copy of the aggregate's body beside it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from msgspec import Struct
from msgspec.structs import replace

from dataflow_serve.errors import UnsupportedError
from dataflow_serve.language import ast
from dataflow_serve.language._patterns import pattern_of

__all__ = [
    "Flat",
    "aggregates_in",
    "alternatives",
    "bound_by",
    "display_name",
    "names_in",
    "resolve",
    "terms_of",
]

MAX_ALTERNATIVES = 512
"""Conjunctions that one body may spread out into."""

Flat = ast.Atom | ast.Compare | ast.Constant | ast.Negation
"""A literal of a conjunction; a negation is of an atom here."""


def display_name(name: str) -> str:
    """The name as written of a variable that got a name of its own."""
    return name.split("'", 1)[0]


# Disjunctive form


def alternatives(body: ast.Body | None) -> list[tuple[Flat, ...]]:
    """The conjunctions whose disjunction ``body`` is; negations stand before atoms only."""
    return [()] if body is None else _spread(body, False)


def _spread(body: ast.Body, negated: bool) -> list[tuple[Flat, ...]]:
    match body:
        case ast.Negation(inner):
            return _spread(inner, not negated)
        case ast.Atom():
            return [(ast.Negation(body, body.at) if negated else body,)]
        case ast.Compare():
            return [(_opposite(body) if negated else body,)]
        case ast.Constant(value, at):
            return [(ast.Constant(value != negated, at),)]
        case ast.Conjunction(parts) | ast.Disjunction(parts):
            spread = [_spread(part, negated) for part in parts]
            if isinstance(body, ast.Disjunction) != negated:
                return _limited([one for part in spread for one in part], body)
            product: list[tuple[Flat, ...]] = [()]
            for part in spread:
                product = _limited([left + right for left in product for right in part], body)
            return product


def _limited(
    found: list[tuple[Flat, ...]], body: ast.Conjunction | ast.Disjunction
) -> list[tuple[Flat, ...]]:
    if len(found) > MAX_ALTERNATIVES:
        inner: ast.Body = body
        while isinstance(inner, ast.Conjunction):
            inner = inner.parts[0]
        raise UnsupportedError(
            f"a body with more than {MAX_ALTERNATIVES} alternatives",
            "Derive a part of it in a relation of its own.",
            *inner.at,
        )
    return found


_OPPOSITES = {"=": "!=", "!=": "=", "<": ">=", ">=": "<", ">": "<=", "<=": ">"}


def _opposite(compare: ast.Compare) -> ast.Compare:
    if compare.op in _OPPOSITES:
        return replace(compare, op=_OPPOSITES[compare.op])
    return replace(compare, negated=not compare.negated)


# What occurs where


def terms_of(literal: Flat) -> tuple[ast.Term, ...]:
    """The terms that stand in a literal, in the order of the text."""
    match literal:
        case ast.Atom(args=args):
            return args
        case ast.Negation(ast.Atom(args=args)):
            return args
        case ast.Compare(left=left, right=right):
            return (left, right)
        case _:
            return ()


def names_in(term: ast.Term, into: set[str], *, inside: bool = False) -> None:
    """Add the names of the variables in ``term``, also of those in its aggregates if ``inside``."""
    match term:
        case ast.Variable(name):
            into.add(name)
        case ast.Apply(args=args):
            for arg in args:
                names_in(arg, into, inside=inside)
        case ast.Cast(inner):
            names_in(inner, into, inside=inside)
        case ast.Aggregate(target=target, body=body) if inside:
            if target is not None:
                names_in(target, into, inside=True)
            _names_in_body(body, into)


def _names_in_body(body: ast.Body, into: set[str]) -> None:
    match body:
        case ast.Conjunction(parts) | ast.Disjunction(parts):
            for part in parts:
                _names_in_body(part, into)
        case ast.Negation(inner):
            _names_in_body(inner, into)
        case ast.Atom() | ast.Compare():
            for term in terms_of(body):
                names_in(term, into, inside=True)


def aggregates_in(term: ast.Term) -> Iterable[ast.Aggregate]:
    """The aggregates in ``term`` that don't stand in another aggregate."""
    match term:
        case ast.Aggregate():
            yield term
        case ast.Apply(args=args):
            for arg in args:
                yield from aggregates_in(arg)
        case ast.Cast(inner):
            yield from aggregates_in(inner)


def bound_by(literals: Sequence[Flat]) -> set[str]:
    """The variables that a conjunction binds; values of aggregates count as known."""
    return _bound(literals, set())


def _mentions(term: ast.Term, aggregate: ast.Aggregate | None) -> bool:
    return aggregate is not None and any(found is aggregate for found in aggregates_in(term))


def _bound(literals: Sequence[Flat], given: set[str], unbound: ast.Aggregate | None = None) -> set[str]:
    """The variables that the conjunction binds, or that are ``given``.

    Values of aggregates count as known, except that of ``unbound``: what only an aggregate itself could bind
    isn't bound outside of it.
    """
    bound = set(given)
    equalities: list[tuple[str, set[str]]] = []
    for literal in literals:
        if isinstance(literal, ast.Atom):
            bound.update(arg.name for arg in literal.args if isinstance(arg, ast.Variable))
        elif isinstance(literal, ast.Compare) and literal.op == "=":
            for one, other in ((literal.left, literal.right), (literal.right, literal.left)):
                if isinstance(one, ast.Variable) and not _mentions(other, unbound):
                    needed: set[str] = set()
                    names_in(other, needed)
                    equalities.append((one.name, needed))
            if (pattern := pattern_of(literal)) is not None:
                fields = (arg.name for arg in pattern[1].args if isinstance(arg, ast.Variable))
                equalities.extend((name, {pattern[0].name}) for name in fields)
    changed = True
    while changed:
        changed = False
        for name, needed in equalities:
            if name not in bound and needed <= bound:
                bound.add(name)
                changed = True
    return bound


# Resolution


class _Names(Struct):
    """Names that occur nowhere else in the rule."""

    count: int = 0

    def fresh(self, name: str) -> str:
        self.count += 1
        return f"{display_name(name)}'{self.count}"


def resolve(
    heads: Sequence[ast.Atom], literals: Sequence[Flat]
) -> tuple[tuple[ast.Atom, ...], tuple[Flat, ...]]:
    """The same rule with one meaning for every name.

    Raises:
        UnsupportedError: a witness of an aggregate with alternatives.
    """
    terms = [term for literal in (*heads, *literals) for term in terms_of(literal)]
    if not any(True for term in terms for _ in aggregates_in(term)):
        return tuple(heads), tuple(literals)
    scope = _Scope(_Names())
    used: set[str] = set()
    for head in heads:
        for arg in head.args:
            names_in(arg, used)
    # Aggregates of a head belong to the body: they become variables there, once for all heads.
    lifted: list[Flat] = []
    new_heads = [replace(head, args=tuple(scope.lift(arg, lifted) for arg in head.args)) for head in heads]
    flat = scope.level((*literals, *lifted), used, set(), {})
    return tuple(new_heads), flat


class _Scope:
    def __init__(self, names: _Names) -> None:
        self.names = names

    def lift(self, term: ast.Term, into: list[Flat]) -> ast.Term:
        """``term`` with variables in place of its aggregates, which go ``into`` equalities."""
        match term:
            case ast.Aggregate(at=at):
                variable = ast.Variable(self.names.fresh(term.func), at)
                into.append(ast.Compare("=", variable, term, at))
                return variable
            case ast.Apply(args=args) if any(True for _ in aggregates_in(term)):
                return replace(term, args=tuple(self.lift(arg, into) for arg in args))
            case ast.Cast(inner):
                return replace(term, term=self.lift(inner, into))
            case _:
                return term

    def level(
        self, literals: Sequence[Flat], used: set[str], given: set[str], env: dict[str, str]
    ) -> tuple[Flat, ...]:
        """Resolve one conjunction.

        Args:
            literals: The conjunction.
            used: Names that what surrounds the conjunction takes from it: those of heads.
            given: Names bound outside of it.
            env: New names of old ones; the level adds to it.
        """
        literals = self._with_witnesses(list(literals), used, given)
        bound = _bound(literals, given)
        renamed: list[Flat] = []
        for literal in literals:
            terms = tuple(self._term(term, literals, bound, given, env) for term in terms_of(literal))
            renamed.append(_with_terms(literal, terms))
        return tuple(renamed)

    def _term(
        self, term: ast.Term, literals: Sequence[Flat], bound: set[str], given: set[str], env: dict[str, str]
    ) -> ast.Term:
        match term:
            case ast.Variable(name, at):
                new = env.get(name)
                return term if new is None or new == name else ast.Variable(new, at)
            case ast.Apply(args=args):
                return replace(term, args=tuple(self._term(arg, literals, bound, given, env) for arg in args))
            case ast.Cast(inner):
                return replace(term, term=self._term(inner, literals, bound, given, env))
            case ast.Aggregate():
                outer = self._outer_names(term, literals, given)
                return self._aggregate(term, outer, env)
            case _:
                return term

    def _outer_names(self, aggregate: ast.Aggregate, literals: Sequence[Flat], given: set[str]) -> set[str]:
        """Names in the aggregate that mean variables of the conjunction around it."""
        inside: set[str] = set()
        names_in(aggregate, inside, inside=True)
        target: set[str] = set()
        if aggregate.target is not None:
            names_in(aggregate.target, target)
        return (inside - target) & _bound(literals, given, unbound=aggregate)

    def _aggregate(self, aggregate: ast.Aggregate, outer: set[str], env: dict[str, str]) -> ast.Term:
        inner_env = {name: env.get(name, name) for name in outer}
        own: set[str] = set()
        if aggregate.target is not None:
            names_in(aggregate.target, own)
        spread = alternatives(aggregate.body)
        for literals in spread:
            for literal in literals:
                for term in terms_of(literal):
                    names_in(term, own)
        for name in sorted(own - outer):
            inner_env[name] = self.names.fresh(name)
        used: set[str] = set()
        target = aggregate.target
        if target is not None:
            names_in(target, used)
            if any(True for _ in aggregates_in(target)):
                lifted: list[Flat] = []
                target = self.lift(target, lifted)
                spread = [(*literals, *lifted) for literals in spread]
            target = self._term(target, (), set(), set(), inner_env)
        bodies = [self.level(literals, used, outer, inner_env) for literals in spread]
        parts: list[ast.Body] = [ast.Conjunction(literals) for literals in bodies]
        body = parts[0] if len(parts) == 1 else ast.Disjunction(tuple(parts), aggregate.at)
        return replace(aggregate, target=target, body=body)

    # Witnesses

    def _with_witnesses(self, literals: list[Flat], used: set[str], given: set[str]) -> list[Flat]:
        """The conjunction with a copy of the body of each aggregate that has witnesses."""
        literals = self._with_nested_witnesses(literals, used, given)
        for aggregate in [
            found for literal in literals for term in terms_of(literal) for found in aggregates_in(term)
        ]:
            loose = _loose(literals, used, given)
            if not loose:
                break
            witnesses = loose & self._bound_inside(aggregate, literals, given)
            if witnesses and aggregate.func in ("min", "max"):
                literals = self._export(aggregate, witnesses, literals, given)
        return literals

    def _with_nested_witnesses(self, literals: list[Flat], used: set[str], given: set[str]) -> list[Flat]:
        """The conjunction with aggregates taken out of others they stand in, if it uses their witnesses."""
        while (inner := self._nested_with_witnesses(literals, used, given)) is not None:
            value = ast.Variable(self.names.fresh(inner.func), inner.at)
            literals = [
                _with_terms(literal, tuple(_replaced(term, inner, value) for term in terms_of(literal)))
                for literal in literals
            ]
            literals.append(ast.Compare("=", value, inner, inner.at))
        return literals

    def _nested_with_witnesses(
        self, literals: Sequence[Flat], used: set[str], given: set[str]
    ) -> ast.Aggregate | None:
        """One that has witnesses, and means the same outside of what it stands in."""
        loose = _loose(literals, used, given)
        if not loose:
            return None
        known = _bound(literals, given)
        for literal in literals:
            for outer in (found for term in terms_of(literal) for found in aggregates_in(term)):
                for inner in _nested_in(outer):
                    if inner.func not in ("min", "max"):
                        continue
                    beside: set[str] = set()
                    names_in(_replaced(outer, inner, ast.Wildcard(inner.at)), beside, inside=True)
                    target: set[str] = set()
                    if inner.target is not None:
                        names_in(inner.target, target)
                    asked: set[str] = set()
                    names_in(inner, asked, inside=True)
                    told = ((asked - target) & beside) - known
                    if not told and (loose - beside) & self._bound_inside(inner, literals, given):
                        return inner
        return None

    def _bound_inside(self, aggregate: ast.Aggregate, literals: Sequence[Flat], given: set[str]) -> set[str]:
        outer = self._outer_names(aggregate, literals, given)
        inside = [_bound(body, outer) for body in alternatives(aggregate.body)]
        return set.intersection(*inside)

    def _export(
        self, aggregate: ast.Aggregate, witnesses: set[str], literals: list[Flat], given: set[str]
    ) -> list[Flat]:
        spread = alternatives(aggregate.body)
        if len(spread) > 1:
            name = min(witnesses)
            raise UnsupportedError(
                f'the witness "{display_name(name)}" of an aggregate with alternatives',
                "Derive the alternatives in a relation of their own.",
                *aggregate.at,
            )
        assert aggregate.target is not None
        outer = self._outer_names(aggregate, literals, given)
        inside: set[str] = set()
        names_in(aggregate, inside, inside=True)
        # Within the aggregate the witness is a local variable; beside it, everything else that is local is.
        local = {name: self.names.fresh(name) for name in sorted(witnesses)}
        beside = {name: self.names.fresh(name) for name in sorted(inside - outer - witnesses)}
        value = ast.Variable(self.names.fresh(aggregate.func), aggregate.at)
        inner = _renamed(aggregate, local)
        assert isinstance(inner, ast.Aggregate)
        kept = [
            _with_terms(literal, tuple(_replaced(term, aggregate, value) for term in terms_of(literal)))
            for literal in literals
            if not _discards(literal, aggregate)
        ]
        copied = [
            _with_terms(literal, tuple(_renamed(term, beside) for term in terms_of(literal)))
            for literal in spread[0]
        ]
        reached = ast.Compare("=", _renamed(aggregate.target, beside), value, aggregate.at)
        return [*kept, ast.Compare("=", value, inner, aggregate.at), *copied, reached]


def _loose(literals: Sequence[Flat], used: set[str], given: set[str]) -> set[str]:
    """Names that a conjunction, or what surrounds it, uses, and that nothing binds."""
    names = set(used)
    for literal in literals:
        for term in terms_of(literal):
            names_in(term, names)
    return names - _bound(literals, given)


def _nested_in(aggregate: ast.Aggregate) -> Iterable[ast.Aggregate]:
    """The aggregates that stand in an aggregate, however deep."""
    terms = [] if aggregate.target is None else [aggregate.target]
    terms += [
        term for literals in alternatives(aggregate.body) for each in literals for term in terms_of(each)
    ]
    for term in terms:
        for found in aggregates_in(term):
            yield found
            yield from _nested_in(found)


def _discards(literal: Flat, aggregate: ast.Aggregate) -> bool:
    """Whether the literal is ``_ = aggregate``, written for the sake of the witnesses."""
    if not isinstance(literal, ast.Compare):
        return False
    sides = (literal.left, literal.right)
    return any(side is aggregate for side in sides) and any(isinstance(side, ast.Wildcard) for side in sides)


def _with_terms(literal: Flat, terms: tuple[ast.Term, ...]) -> Flat:
    match literal:
        case ast.Atom():
            return replace(literal, args=terms)
        case ast.Negation(ast.Atom() as atom):
            return replace(literal, body=replace(atom, args=terms))
        case ast.Compare():
            return replace(literal, left=terms[0], right=terms[1])
        case _:
            return literal


def _replaced(term: ast.Term, old: ast.Aggregate, new: ast.Term) -> ast.Term:
    """``term`` with another in place of an aggregate; what doesn't hold it stays the same object."""
    if term is old:
        return new
    match term:
        case ast.Aggregate(target=target, body=body):
            if not any(found is old for found in _nested_in(term)):
                return term
            new_target = None if target is None else _replaced(target, old, new)
            new_body = _mapped_body(body, lambda inner: _replaced(inner, old, new))
            return replace(term, target=new_target, body=new_body)
        case ast.Apply(args=args):
            return replace(term, args=tuple(_replaced(arg, old, new) for arg in args))
        case ast.Cast(inner):
            return replace(term, term=_replaced(inner, old, new))
        case _:
            return term


def _renamed(term: ast.Term, names: dict[str, str]) -> ast.Term:
    match term:
        case ast.Variable(name, at):
            return ast.Variable(names[name], at) if name in names else term
        case ast.Apply(args=args):
            return replace(term, args=tuple(_renamed(arg, names) for arg in args))
        case ast.Cast(inner):
            return replace(term, term=_renamed(inner, names))
        case ast.Aggregate(target=target, body=body):
            new_target = None if target is None else _renamed(target, names)
            return replace(
                term, target=new_target, body=_mapped_body(body, lambda inner: _renamed(inner, names))
            )
        case _:
            return term


def _mapped_body(body: ast.Body, logic: Callable[[ast.Term], ast.Term]) -> ast.Body:
    """The body with what ``logic`` makes of its terms."""
    match body:
        case ast.Conjunction(parts) | ast.Disjunction(parts):
            return replace(body, parts=tuple(_mapped_body(part, logic) for part in parts))
        case ast.Negation(inner):
            return replace(body, body=_mapped_body(inner, logic))
        case ast.Constant():
            return body
        case _:
            mapped = _with_terms(body, tuple(map(logic, terms_of(body))))
            assert not isinstance(mapped, ast.Negation)
            return mapped
