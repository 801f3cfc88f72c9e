"""Relations that are worked out only as far as rules ask for them: magic sets.

A rule that has a relation with some columns known (``answer(y) :- reach("JFK", y).``) needs only the rows
with these values. For each such use, told apart by which columns are known (``bf``: the first is bound, the
second free), there is a relation of what is asked (``reach^bf asked``) and one of the answers (``reach^bf``),
whose rules begin with what is asked and ask further of the relations they need. Both are relations like any
other: what is asked may come and go with rows, and the answers follow.

The transformation is that of Beeri and Ramakrishnan, On the power of magic (1991). It is left out where it
would make a relation depend on its own negation.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from msgspec.structs import replace

from dataflow_serve.errors import IncorrectError, UnsupportedError
from dataflow_serve.language import CheckedProgram, checked, stratify

__all__ = ["restrict"]

_Use = tuple[str, str]
"""A relation, and for each column ``b`` or ``f``."""


def restrict(program: CheckedProgram) -> CheckedProgram:
    """The program with demanded relations (``CheckedProgram.demanded``) replaced by what is asked of them.

    The rows of all other relations are the same.
    """
    candidates = frozenset(_candidates(program))
    if not candidates:
        return program
    whole = candidates & _read_whole(program)
    while True:
        made = _Restriction(program, candidates, whole).run()
        if made.whole == whole:
            break
        whole = made.whole
    if whole == candidates:
        return program
    try:
        strata = stratify(made.relations, made.rules, program.subsumptions)
    except (IncorrectError, UnsupportedError):
        return program
    facts = {name: rows for name, rows in program.facts.items() if name in made.relations}
    return replace(program, relations=made.relations, rules=tuple(made.rules), facts=facts, strata=strata)


def _candidates(program: CheckedProgram) -> Iterator[str]:
    """Demanded relations of nothing but rules, which only rules of other relations read."""
    seen = {directive.relation for directive in program.directives}
    subsumed = {each.relation for each in program.subsumptions}
    derived = {head.relation for rule in program.rules for head in rule.heads}
    read = {
        literal.relation
        for rule in program.rules
        for literal in rule.body
        if isinstance(literal, checked.AtomLiteral)
        and any(head.relation != literal.relation for head in rule.heads)
    }
    # Magic changes the rounds of a recursion, which decide what is chosen, and where a limit ends it.
    by_rounds = {
        name
        for stratum in program.strata
        for name in stratum.relations
        if any(program.relations[each].choices or program.relations[each].limit for each in stratum.relations)
    }
    for name, relation in program.relations.items():
        special = relation.input or relation.output or relation.equivalence or name in by_rounds
        plain = not special and relation.mode == "set" and relation.columns
        known = name in seen or name in subsumed or name in program.facts
        if plain and not known and name in program.demanded and name in derived & read:
            yield name


def _read_whole(program: CheckedProgram) -> set[str]:
    """Relations that are negated, aggregated, or read by a subsumption."""
    found: set[str] = set()

    def visit(literals: Sequence[checked.Literal], strict: bool) -> None:
        for literal in literals:
            match literal:
                case checked.AtomLiteral(relation=name, negated=negated) if strict or negated:
                    found.add(name)
                case checked.AggregateLiteral(alternatives=bodies):
                    for body in bodies:
                        visit(body, True)

    for rule in program.rules:
        visit(rule.body, False)
    for subsumption in program.subsumptions:
        visit(subsumption.body, True)
    return found


class _Restriction:
    """One attempt, with the relations that are known to be needed as a whole."""

    def __init__(self, program: CheckedProgram, candidates: frozenset[str], whole: frozenset[str]) -> None:
        self.program = program
        self.candidates = candidates
        self.whole = whole
        """In the end, with those that turned out to be."""
        self.relations: dict[str, checked.Relation] = {}
        self.rules: list[checked.Rule] = []
        self._known_whole = whole
        self._group = {
            name: place for place, stratum in enumerate(self.program.strata) for name in stratum.relations
        }
        self._uses: dict[_Use, None] = {}
        self._asking: dict[checked.Rule, None] = {}

    def run(self) -> _Restriction:
        """Rewrite all rules, then those of every use that is met, until no other is."""
        for name, relation in self.program.relations.items():
            if name not in self.candidates or name in self._known_whole:
                self.relations[name] = relation
        for rule in self.program.rules:
            heads = tuple(head for head in rule.heads if head.relation in self.relations)
            if heads:
                body = self._rewritten(rule, heads[0].relation, ())
                self.rules.append(replace(rule, heads=heads, body=body))
        done = 0
        while done < len(self._uses):
            use = list(self._uses)[done]
            done += 1
            self._answer(use)
        self.rules += self._asking
        return self

    def _answer(self, use: _Use) -> None:
        """The relations of one use, and the rules of its answers."""
        name, pattern = use
        relation = self.program.relations[name]
        asked = tuple(column for column, bound in zip(relation.columns, pattern, strict=True) if bound == "b")
        self.relations[_asked(use)] = replace(relation, name=_asked(use), columns=asked)
        self.relations[_answers(use)] = replace(relation, name=_answers(use))
        for rule in self.program.rules:
            for head in rule.heads:
                if head.relation == name:
                    known = _bound(head.args, pattern)
                    question = checked.AtomLiteral(_asked(use), known, False, rule.clause.heads[0].at)
                    body = (question, *self._rewritten(rule, name, (question,)))
                    self.rules.append(
                        replace(rule, heads=(checked.Head(_answers(use), head.args),), body=body)
                    )

    def _rewritten(
        self, rule: checked.Rule, head: str, given: tuple[checked.AtomLiteral, ...]
    ) -> tuple[checked.Literal, ...]:
        """The body with answers in place of demanded relations, which are asked with what comes before them.

        ``given`` is what the rule begins with; without it the head is wanted as a whole.
        """
        walk = _Walk(rule.body, given)
        places: dict[int, checked.AtomLiteral] = {}
        while (literal := walk.next(lambda atom: self._may_ask(atom, head, given))) is not None:
            if not isinstance(literal, checked.AtomLiteral) or not self._may_ask(literal, head, given):
                walk.take(literal, literal)
                continue
            pattern = "".join("b" if walk.knows(arg) else "f" for arg in literal.args)
            if "b" not in pattern:
                self.whole |= {literal.relation}
                walk.take(literal, literal)
                continue
            use = (literal.relation, pattern)
            self._uses.setdefault(use)
            self._ask(rule, use, literal, tuple(walk.taken))
            places[id(literal)] = replace(literal, relation=_answers(use))
            walk.take(literal, places[id(literal)])
        for literal in rule.body:
            # Within its own recursion, what is wanted as a whole is.
            if isinstance(literal, checked.AtomLiteral) and id(literal) not in places:
                self.whole |= self.candidates & {literal.relation}
        return tuple(places.get(id(literal), literal) for literal in rule.body)

    def _may_ask(self, atom: checked.AtomLiteral, head: str, given: tuple[checked.AtomLiteral, ...]) -> bool:
        if atom.negated or atom.relation not in self.candidates or atom.relation in self._known_whole:
            return False
        return bool(given) or self._group[atom.relation] != self._group[head]

    def _ask(
        self, rule: checked.Rule, use: _Use, atom: checked.AtomLiteral, before: tuple[checked.Literal, ...]
    ) -> None:
        question = checked.Head(_asked(use), _bound(atom.args, use[1]))
        if any(
            isinstance(literal, checked.AtomLiteral)
            and literal.relation == question.relation
            and literal.args == question.args
            for literal in before
        ):
            # It asks what it was asked.
            return
        self._asking.setdefault(checked.Rule((question,), before, rule.clause))


class _Walk:
    """Goes through a body so that as much as possible is known before each atom."""

    def __init__(self, body: Sequence[checked.Literal], given: Sequence[checked.AtomLiteral]) -> None:
        self._left = list(body)
        self._known: set[str] = set()
        self.taken: list[checked.Literal] = []
        """What has been passed and may restrict what is asked: no negations, no aggregates."""
        for atom in given:
            self.taken.append(atom)
            self._learn(atom)

    def knows(self, arg: checked.Argument) -> bool:
        """Whether an argument has a value already."""
        return not isinstance(arg, checked.Any) and checked.variables_of(arg) <= self._known

    def next(self, demanded: Callable[[checked.AtomLiteral], bool]) -> checked.Literal | None:
        """The literal to go on with: conditions, atoms with something known, demanded ones of these last."""
        best, rank = None, 4
        for literal in self._left:
            match literal:
                case checked.AtomLiteral(negated=False, args=args):
                    if not all(map(self._can_match, args)):
                        continue
                    this = (0 if any(map(self.knows, args)) else 2) + demanded(literal)
                case checked.Filter() | checked.RangeLiteral() if self._is_ready(literal):
                    return literal
                case _:
                    continue
            if this < rank:
                best, rank = literal, this
        return best

    def _can_match(self, arg: checked.Argument) -> bool:
        return not isinstance(arg, checked.Call) or self.knows(arg)

    def take(self, literal: checked.Literal, as_: checked.Literal) -> None:
        """Pass a literal, which is written as another one in what restricts the rest."""
        self._left = [each for each in self._left if each is not literal]
        self.taken.append(as_)
        self._learn(as_)

    def _is_ready(self, literal: checked.Filter | checked.RangeLiteral) -> bool:
        if isinstance(literal, checked.RangeLiteral):
            return all(map(self.knows, literal.bounds))
        return self.knows(literal.condition) or _assigned(literal, self._known) is not None

    def _learn(self, literal: checked.Literal) -> None:
        match literal:
            case checked.AtomLiteral(args=args):
                self._known.update(arg.name for arg in args if isinstance(arg, checked.Var))
            case checked.RangeLiteral(result=result):
                self._known.add(result.name)
            case checked.Filter() if (name := _assigned(literal, self._known)) is not None:
                self._known.add(name)


def _assigned(literal: checked.Filter, known: set[str]) -> str | None:
    """The variable to which an equality gives a value, if it does."""
    match literal.condition:
        case checked.Call(func="eq", args=(left, right)):
            for side, other in ((left, right), (right, left)):
                if isinstance(side, checked.Var) and side.name not in known:
                    return side.name if checked.variables_of(other) <= known else None
    return None


def _bound(args: Sequence[checked.Argument], pattern: str) -> tuple[checked.Term, ...]:
    return tuple(
        arg
        for arg, bound in zip(args, pattern, strict=True)
        if bound == "b" and not isinstance(arg, checked.Any)
    )


def _answers(use: _Use) -> str:
    return f"{use[0]}^{use[1]}"


def _asked(use: _Use) -> str:
    return f"{_answers(use)} asked"
