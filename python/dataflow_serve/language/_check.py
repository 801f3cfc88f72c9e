"""A parsed program to a checked one: every error is found here, before anything runs."""

from __future__ import annotations

from collections.abc import Iterator

from msgspec.structs import replace

from dataflow_serve.errors import IncorrectError, UnsupportedError
from dataflow_serve.language import ast
from dataflow_serve.language._canonical import digest
from dataflow_serve.language._catalog import CLOCK, Catalog
from dataflow_serve.language._components import expand
from dataflow_serve.language._cursor import Where
from dataflow_serve.language._declarations import Names, declare, declare_types
from dataflow_serve.language._errors import Errors
from dataflow_serve.language._grounding import check_grounded
from dataflow_serve.language._inference import Inference
from dataflow_serve.language._inline import inline
from dataflow_serve.language._lowering import Lowering, constant
from dataflow_serve.language._patterns import Flattening
from dataflow_serve.language._scopes import alternatives, resolve
from dataflow_serve.language._strata import stratify
from dataflow_serve.language._types import Column, Composite, Scalar
from dataflow_serve.language.checked import AtomLiteral, CheckedProgram, Head, Rule, Subsumption

__all__ = ["check", "digest_of"]


def check(program: ast.Program, catalog: Catalog | None = None) -> CheckedProgram:
    """Check ``program`` against what earlier programs registered.

    Raises:
        IncorrectError: an error in the program, with line and column; of several the first, whose hint says
            where the others are.
        ConflictError: it contradicts an earlier program.
        UnsupportedError: it uses a part of the dialect that this build doesn't have.
    """
    program = expand(program)
    whole, program = program, inline(program)
    names = declare(program, catalog or Catalog())
    facts: dict[str, dict[tuple[Scalar, ...], None]] = {}
    rules: list[Rule] = []
    subsumptions: list[Subsumption] = []
    errors = Errors()
    demanded: set[str] = set()
    for name, at in program.demanded:
        with errors.caught():
            demanded |= _demanded(name, at, whole, names)
    for clause in program.clauses:
        with errors.caught():
            _check_clause(clause, names, facts, rules)
    for subsumption in program.subsumptions:
        with errors.caught():
            subsumptions.extend(_check_subsumption(subsumption, names))
    errors.check()
    if program.frozen is not None:
        _check_frozen(program, names, program.frozen)
    return CheckedProgram(
        relations=names.relations,
        imports=names.imports,
        facts={name: tuple(rows) for name, rows in facts.items()},
        rules=tuple(rules),
        subsumptions=tuple(subsumptions),
        strata=stratify(names.relations, rules, subsumptions),
        directives=program.directives,
        demanded=frozenset(demanded),
        frozen=program.frozen is not None,
        digest=digest(whole, names),
    )


def _check_frozen(program: ast.Program, names: Names, at: ast.Position) -> None:
    """A program that is worked out once can have nothing in it that would change afterwards."""
    for declaration in program.relations:
        declared = names.relations.get(declaration.name)
        if declared is not None and declared.input:
            raise IncorrectError(
                f'input "{declaration.name}" of a frozen program',
                "Nothing would come of its rows; register it before, as a program of its own.",
                *declaration.at,
            )
    if CLOCK in names.imports.values():
        raise UnsupportedError('"now" in a frozen program', "Give the time as a row.", *at)


def digest_of(program: ast.Program) -> str:
    """The digest of a program whatever is registered; equal to that of the checked program.

    Raises:
        IncorrectError: its declarations contradict themselves.
    """
    program = expand(program)
    return digest(program, declare_types(program, Catalog()))


def _demanded(name: str, at: ast.Position, program: ast.Program, names: Names) -> set[str]:
    """The relations of this program that a name in ``.pragma "magic-transform"`` stands for."""
    if name == "*":
        return set(names.relations)
    known = name in names.catalog or any(each.name == name for each in program.relations)
    if not known:
        raise IncorrectError(
            f'no relation "{name}" for .pragma "magic-transform"',
            names.nearest(name) or 'Name relations of this program, or all with "*".',
            *at,
        )
    return names.relations.keys() & {name}


def _check_clause(
    clause: ast.Clause,
    names: Names,
    facts: dict[str, dict[tuple[Scalar, ...], None]],
    rules: list[Rule],
) -> None:
    where = Where(clause.text)
    columns = [names.derive(head, where) for head in clause.heads]
    if clause.body is None:
        heads = [
            head
            for head, declared in zip(clause.heads, columns, strict=True)
            if not _take_fact(head, declared, facts, where)
        ]
        if not heads:
            return
        columns = [names.derive(head, where) for head in heads]
    else:
        heads = list(clause.heads)
    for head in heads:
        _check_head(head, clause.body is None, where)
    flattening = Flattening()
    heads = [replace(head, args=tuple(map(flattening.term, head.args))) for head in heads]
    flat = None if clause.body is None else flattening.body(clause.body)
    for literals in alternatives(flat):
        new_heads, resolved = resolve(heads, literals)
        inference = Inference(names, where)
        inference.heads(new_heads, columns)
        inference.literals(resolved)
        inference.settle()
        check_grounded(new_heads, resolved, where)
        lowering = Lowering(inference, where)
        body = lowering.body(resolved)
        lowered = tuple(
            Head(head.relation, tuple(lowering.term(arg, body, set()) for arg in head.args))
            for head in new_heads
        )
        rules.append(Rule(lowered, tuple(body), clause))


def _check_subsumption(subsumption: ast.Subsumption, names: Names) -> Iterator[Subsumption]:
    where = Where(subsumption.text)
    relation = subsumption.dominated.relation
    if subsumption.dominating.relation != relation:
        raise IncorrectError(
            f"subsumption between two relations{where}",
            f'Both sides of "<=" must be rows of "{relation}".',
            *subsumption.dominating.at,
        )
    columns = names.derive(subsumption.dominated, where)
    declared = names.relations[relation]
    if not columns:
        raise IncorrectError(
            f'subsumption in "{relation}", which has no columns{where}',
            "It has one row at most, which can't give way to another.",
            *subsumption.at,
        )
    if declared.input or declared.equivalence or declared.choices:
        what = "an input" if declared.input else "eqrel" if declared.equivalence else "of a choice domain"
        raise UnsupportedError(
            f'subsumption in "{relation}", which is {what}{where}',
            f'Apply it to a relation that is derived from "{relation}".',
            *subsumption.at,
        )
    if any(isinstance(column.type, Composite) and not column.type.has_order for column in columns):
        raise UnsupportedError(
            f'subsumption in "{relation}", which has records without an order{where}',
            "It says which row stays; a record has one if its type isn't part of itself, nor large.",
            *subsumption.at,
        )
    whole = ast.Conjunction((subsumption.dominated, subsumption.dominating, subsumption.body))
    for literals in alternatives(Flattening().body(whole)):
        _, resolved = resolve((), literals)
        inference = Inference(names, where)
        inference.literals(resolved)
        inference.settle()
        check_grounded((), resolved, where)
        body = Lowering(inference, where).body(resolved)
        # Aggregates and ranges in the two stand before them.
        dominated, dominating = [each for each in body if isinstance(each, AtomLiteral)][:2]
        rest = tuple(each for each in body if each is not dominated and each is not dominating)
        yield Subsumption(relation, dominated.args, dominating.args, rest, subsumption)


def _take_fact(
    head: ast.Atom,
    columns: tuple[Column, ...],
    facts: dict[str, dict[tuple[Scalar, ...], None]],
    where: Where,
) -> bool:
    """Note a fact that consists of literals; others are rules without a body."""
    row = [constant(arg, column.type, where) for arg, column in zip(head.args, columns, strict=True)]
    if None in row:
        return False
    facts.setdefault(head.relation, {})[tuple(value for value in row if value is not None)] = None
    return True


def _check_head(head: ast.Atom, fact: bool, where: Where) -> None:
    for arg in head.args:
        if isinstance(arg, ast.Wildcard):
            raise IncorrectError(
                f'"_" in a head{where}', "Give the column a value or a bound variable.", *arg.at
            )
        if fact and isinstance(arg, ast.Variable):
            raise IncorrectError(
                f'variable "{arg.name}" in a fact{where}',
                f'Add a body that binds it, or quote it as a text: "{arg.name}".',
                *arg.at,
            )
