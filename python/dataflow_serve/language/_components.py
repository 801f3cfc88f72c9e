"""Components: a program with instances of them to the same program without.

What an instance ``c`` declares is called ``c.name`` outside. Inside of a component a name means what the
instance declares; else what the instance around it does, and so on outwards; else what the program does.
A clause for a relation that the instance doesn't declare itself belongs to the first around it that does.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from msgspec import Struct, field
from msgspec.structs import replace

from dataflow_serve.errors import IncorrectError, UnsupportedError
from dataflow_serve.language import ast
from dataflow_serve.language._cursor import did_you_mean
from dataflow_serve.language._rename import Renaming

__all__ = ["MAX_INSTANCE_DEPTH", "MAX_INSTANTIATED", "expand"]

MAX_INSTANCE_DEPTH = 64
"""How deep instances may stand in one another."""

MAX_INHERITANCE = 64
"""How long a chain of components may be in which each inherits from the next."""

MAX_INSTANTIATED = 20_000
"""Instances, declarations, directives and clauses that a program may come to."""

MAX_LOOKUPS = 200_000
"""Times that the components of a program may be looked up; ones that name one another double that quickly."""


def expand(program: ast.Program) -> ast.Program:
    """The program with what its instances hold in their place.

    Raises:
        IncorrectError: a component that isn't there, a wrong number of type parameters, an override of what
            can't be overridden, components that inherit from themselves.
        UnsupportedError: instances that are too deep or too many.
    """
    if not program.components and not program.instances:
        return program
    known = _Scope(None, program.components, _Lookups())
    _check_names(program)
    for component in program.components:
        _check(component, known)
    found = _Content()
    outermost = _Instance("", None)
    expansion = _Expansion(found)
    for instance in program.instances:
        expansion.instantiate(instance, known, {}, outermost)
    return ast.Program(
        (*program.types, *found.types),
        (*program.relations, *found.relations),
        (*program.directives, *found.directives),
        (*program.clauses, *found.clauses),
        (*program.subsumptions, *found.subsumptions),
        demanded=program.demanded,
        frozen=program.frozen,
    )


class _Lookups(Struct):
    """How often components have been looked up."""

    count: int = 0

    def note(self, at: ast.Position) -> None:
        self.count += 1
        if self.count > MAX_LOOKUPS:
            raise UnsupportedError(
                f"components that name one another more than {MAX_LOOKUPS} times",
                "Let fewer of them inherit from several others.",
                *at,
            )


class _Scope(Struct):
    """Where components are declared, and what is around it."""

    around: _Scope | None
    components: tuple[ast.Component, ...]
    lookups: _Lookups
    owner: ast.Component | None = None
    """The component whose body it is."""

    def find(self, name: str, at: ast.Position) -> tuple[ast.Component, _Scope] | None:
        """The component of this name, declared here, inherited or declared around, and its own scope."""
        scope: _Scope | None = self
        while scope is not None:
            found = scope.declared(name, at, [])
            if found is not None:
                return found
            scope = scope.around
        return None

    def declared(self, name: str, at: ast.Position, path: list[str]) -> tuple[ast.Component, _Scope] | None:
        """The component of this name that is declared here or inherited."""
        self.lookups.note(at)
        for component in self.components:
            if component.name == name:
                return component, self.inside(component)
        if self.owner is None or self.around is None or self.owner.name in path:
            return None
        for base in self.owner.bases:
            found = self.around.find(base.name, at)
            if found is not None and found[0] is not self.owner:
                inherited = found[1].declared(name, at, [*path, self.owner.name])
                if inherited is not None:
                    return inherited
        return None

    def inside(self, component: ast.Component) -> _Scope:
        """The scope of the body of a component that is declared here."""
        return _Scope(self, component.body.components, self.lookups, component)

    def names(self) -> Iterator[str]:
        """The names of all components in reach, without inherited ones."""
        scope: _Scope | None = self
        while scope is not None:
            yield from (component.name for component in scope.components)
            scope = scope.around


class _Content(Struct):
    """What instances come to."""

    types: list[ast.TypeDeclaration] = field(default_factory=list)
    relations: list[ast.RelationDeclaration] = field(default_factory=list)
    directives: list[ast.Directive] = field(default_factory=list)
    clauses: list[ast.Clause] = field(default_factory=list)
    subsumptions: list[ast.Subsumption] = field(default_factory=list)


class _Instance(Struct):
    """The names that an instance declares, its inner instances' among them."""

    prefix: str
    around: _Instance | None
    depth: int = 0
    names: set[str] = field(default_factory=set)
    types: set[str] = field(default_factory=set)
    branches: set[str] = field(default_factory=set)

    def relation(self, name: str) -> str:
        """The full name of a relation that is called ``name`` here."""
        return self._find(name, lambda instance: instance.names)

    def type(self, name: str) -> str:
        """The full name of a type that is called ``name`` here."""
        return self._find(name, lambda instance: instance.types)

    def branch(self, name: str) -> str:
        """The full name of a branch of an algebraic type that is called ``name`` here."""
        return self._find(name, lambda instance: instance.branches)

    def _find(self, name: str, declared: Callable[[_Instance], set[str]]) -> str:
        instance: _Instance | None = self
        while instance is not None:
            if name in declared(instance):
                return instance.prefix + name
            instance = instance.around
        return name


class _Part(Struct):
    """The body of a component or one of its bases, within an instance."""

    component: ast.Component
    scope: _Scope
    types: Mapping[str, str]
    """What the type parameters stand for."""
    overridden: frozenset[str]
    """Relations whose clauses here are left out."""


class _Expansion:
    def __init__(self, found: _Content) -> None:
        self._found = found
        self._count = 0

    def instantiate(
        self, instance: ast.Instance, scope: _Scope, types: Mapping[str, str], around: _Instance
    ) -> None:
        """Add what an instance holds; its names become known ``around`` it."""
        use = instance.component
        component, inner = _resolve(use, scope, types)
        if around.depth == MAX_INSTANCE_DEPTH:
            raise UnsupportedError(
                f'instances in one another, deeper than {MAX_INSTANCE_DEPTH}, at "{instance.name}"',
                "A component must not come to contain an instance of itself.",
                *instance.at,
            )
        made = _Instance(f"{around.prefix}{instance.name}.", around, around.depth + 1)
        bound = _bind(component, use, types)
        parts = list(_parts(_Part(component, inner, bound, frozenset()), []))
        # All names first: clauses may use what is declared further down, or by an inner instance.
        for part in parts:
            made.names.update(relation.name for relation in part.component.body.relations)
            made.types.update(kind.name for kind in part.component.body.types)
            made.branches.update(
                branch.name
                for kind in part.component.body.types
                for branch in kind.branches
                if branch.name is not None
            )
        for part in parts:
            for nested in part.component.body.instances:
                self.instantiate(nested, part.scope, part.types, made)
        for part in parts:
            self._add(part, made, instance)
        around.names.update(f"{instance.name}.{name}" for name in made.names)
        around.types.update(f"{instance.name}.{name}" for name in made.types)
        around.branches.update(f"{instance.name}.{name}" for name in made.branches)

    def _add(self, part: _Part, made: _Instance, instance: ast.Instance) -> None:
        body, found = part.component.body, self._found
        for items in (body.types, body.relations, body.directives, body.clauses, body.subsumptions):
            self._count += len(items)
        self._count += 1
        if self._count > MAX_INSTANTIATED:
            raise UnsupportedError(
                f"instances of more than {MAX_INSTANTIATED} declarations and clauses together",
                "Register parts of the program one after the other.",
                *instance.at,
            )

        declared = {each.name for each in body.types}

        def kind(name: str) -> str:
            return made.type(name if name in declared else part.types.get(name, name))

        renaming = Renaming(made.relation, kind, made.branch)
        found.types.extend(
            replace(renaming.type_declaration(each), name=made.prefix + each.name) for each in body.types
        )
        found.relations.extend(
            replace(renaming.relation_declaration(each), name=made.prefix + each.name)
            for each in body.relations
        )
        found.directives.extend(
            replace(each, relation=made.relation(each.relation)) for each in body.directives
        )
        found.clauses.extend(
            renaming.clause(each)
            for each in body.clauses
            if all(head.relation.split(".")[0] not in part.overridden for head in each.heads)
        )
        found.subsumptions.extend(
            renaming.subsumption(each)
            for each in body.subsumptions
            if each.dominated.relation not in part.overridden
        )


def _parts(part: _Part, path: list[str]) -> Iterator[_Part]:
    """The bases of a component, their bases first, then the component itself."""
    component = part.component
    overridden = part.overridden.union(name for name, _ in component.overrides)
    around = part.scope.around
    assert around is not None
    around.lookups.note(component.at)
    for base in component.bases:
        found, scope = _resolve(base, around, part.types)
        if found.name in path:
            raise _cycle(component)
        types = _bind(found, base, part.types)
        yield from _parts(_Part(found, scope, types, overridden), [*path, component.name])
    yield part


def _resolve(use: ast.ComponentUse, scope: _Scope, types: Mapping[str, str]) -> tuple[ast.Component, _Scope]:
    name = types.get(use.name, use.name)
    found = scope.find(name, use.at)
    if found is None:
        hint = did_you_mean(name, scope.names()) or f'Declare it, as in ".comp {name} {{ … }}".'
        raise IncorrectError(f'no component "{name}"', hint, *use.at)
    return found


def _bind(component: ast.Component, use: ast.ComponentUse, types: Mapping[str, str]) -> dict[str, str]:
    if len(use.arguments) != len(component.parameters):
        declared = f"<{', '.join(component.parameters)}>" if component.parameters else ""
        count = len(use.arguments) or "no"
        raise IncorrectError(
            f'component "{component.name}" with {count} type parameter{"" if count == 1 else "s"}',
            f"It is declared as {component.name}{declared}.",
            *use.at,
        )
    # Parameters of what is around stay in reach, as in Soufflé.
    given = [types.get(argument, argument) for argument in use.arguments]
    return {**types, **dict(zip(component.parameters, given, strict=True))}


# Checks of components that nobody may have instantiated


def _check_names(program: ast.Program) -> None:
    taken = {declaration.name: "type" for declaration in program.types}
    taken.update((declaration.name, "relation") for declaration in program.relations)
    for what, declarations in (("component", program.components), ("instance", program.instances)):
        for declaration in declarations:
            if declaration.name in taken:
                raise IncorrectError(
                    f'{what} "{declaration.name}" has the name of a {taken[declaration.name]}',
                    "Give one of them another name.",
                    *declaration.at,
                )
            taken[declaration.name] = what


def _check(component: ast.Component, scope: _Scope) -> None:
    """Check that bases and inner components exist, and that what is overridden may be."""
    own = scope.inside(component)
    inherited, all_known = _inherited(component, scope, [])
    declared = {relation.name for relation in component.body.relations}
    for name, at in component.overrides:
        if name not in inherited and name not in declared and not all_known:
            continue
        if name in declared or name not in inherited:
            hint = did_you_mean(name, inherited) or "Only what a component inherits can be overridden."
            raise IncorrectError(
                f'.override of "{name}", which component "{component.name}" doesn\'t inherit', hint, *at
            )
        if not any(qualifier.name == "overridable" for qualifier in inherited[name].qualifiers):
            raise IncorrectError(
                f'.override of "{name}", which isn\'t overridable',
                'Declare it so, as in ".decl r(x: number) overridable".',
                *at,
            )
    names: set[str] = set()
    for inner in component.body.components:
        if inner.name in names:
            raise IncorrectError(
                f'component "{inner.name}" is declared twice', "Give one another name.", *inner.at
            )
        names.add(inner.name)
        _check(inner, own)
    instances: set[str] = set()
    for instance in component.body.instances:
        if instance.name in instances:
            raise IncorrectError(
                f'instance "{instance.name}" is declared twice', "Give one another name.", *instance.at
            )
        instances.add(instance.name)
        _check_use(instance.component, own, component)


def _check_use(use: ast.ComponentUse, scope: _Scope, component: ast.Component) -> ast.Component | None:
    """The component that is named; None if a type parameter will say which."""
    owner: _Scope | None = scope
    while owner is not None:
        if owner.owner is not None and use.name in owner.owner.parameters:
            return None
        owner = owner.around
    if use.name in component.parameters:
        return None
    found, _ = _resolve(use, scope, {})
    _bind(found, use, {})
    return found


def _inherited(
    component: ast.Component, scope: _Scope, path: list[str]
) -> tuple[dict[str, ast.RelationDeclaration], bool]:
    """The relations of a component's bases, and whether those are all: none is a type parameter."""
    if len(path) > MAX_INHERITANCE:
        raise UnsupportedError(
            f"components that inherit from one another, more than {MAX_INHERITANCE} in a row",
            None,
            *component.at,
        )
    relations: dict[str, ast.RelationDeclaration] = {}
    all_known = True
    for base in component.bases:
        found = _check_use(base, scope, component)
        if found is None:
            all_known = False
            continue
        if found.name in (*path, component.name):
            raise _cycle(component)
        where = scope.find(found.name, base.at)
        assert where is not None and where[1].around is not None
        further, known = _inherited(found, where[1].around, [*path, component.name])
        all_known = all_known and known
        relations.update(further)
        relations.update((relation.name, relation) for relation in found.body.relations)
    return relations, all_known


def _cycle(component: ast.Component) -> IncorrectError:
    return IncorrectError(
        f'component "{component.name}" inherits from itself',
        "Take one of the bases away.",
        *component.at,
    )
