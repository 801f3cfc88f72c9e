"""What names mean: types, relations declared here or earlier, and who may write to them."""

from __future__ import annotations

from msgspec import Struct, field
from msgspec.structs import replace

from dataflow_serve.errors import ConflictError, IncorrectError, UnsupportedError
from dataflow_serve.language import ast
from dataflow_serve.language._catalog import STANDING, Catalog, CatalogRelation
from dataflow_serve.language._composites import identify, reachable
from dataflow_serve.language._cursor import Where, did_you_mean
from dataflow_serve.language._errors import Errors
from dataflow_serve.language._habits import TYPES
from dataflow_serve.language._types import ALIASES, BUILT_IN, Branch, Column, Composite, Kind, Type
from dataflow_serve.language.checked import Relation

__all__ = ["Names", "declare", "declare_types", "signature"]

MAX_COLUMNS = 256
"""Columns that the engine takes in a relation."""
MAX_TYPE_CHAIN = 100
"""Declared types between a type and the built-in one that it is in the end."""


def signature(name: str, columns: tuple[Column, ...]) -> str:
    """A relation as it is declared."""
    return f"{name}({', '.join(map(str, columns))})"


class Names(Struct):
    """The names of one program."""

    catalog: Catalog
    types: dict[str, Kind] = field(default_factory=dict)
    relations: dict[str, Relation] = field(default_factory=dict)
    imports: dict[str, CatalogRelation] = field(default_factory=dict)
    """Relations of earlier programs that a clause of this one has used so far."""

    def type(self, name: str, at: ast.Position) -> Kind:
        """The base of a type's name.

        Raises:
            IncorrectError: there is no such type.
        """
        known = self.types.get(name) or ALIASES.get(name)
        if known is None:
            meant = [TYPES[name]] if name in TYPES else [*ALIASES, *self.types]
            hint = did_you_mean(TYPES.get(name, name), meant) or (
                f'Declare it, as in ".type {name} <: symbol"; built in are ' + ", ".join(Type) + "."
            )
            raise IncorrectError(f'no type "{name}"', hint, *at)
        return known

    def composites(self) -> list[Composite]:
        """The record types and algebraic types that this program declares, and those of relations it uses."""
        columns = (column.type for relation in self.imports.values() for column in relation.columns)
        return reachable((*self.types.values(), *columns))

    def use(self, atom: ast.Atom, where: Where) -> tuple[Column, ...]:
        """The columns of the relation that ``atom`` reads.

        Raises:
            IncorrectError: there is no such relation, or it has another number of columns.
        """
        known = self.relations.get(atom.relation)
        if known is not None:
            columns = known.columns
        else:
            earlier = self.catalog.get(atom.relation) or STANDING.get(atom.relation)
            if earlier is None:
                hint = self.nearest(atom.relation) or (
                    f"{_declaring(atom.relation)}, or register the program that does so first."
                )
                raise IncorrectError(f'no relation "{atom.relation}"{where}', hint, *atom.at)
            self.imports[atom.relation] = earlier
            columns = earlier.columns
        self._check_width(atom, columns, where)
        return columns

    def derive(self, atom: ast.Atom, where: Where) -> tuple[Column, ...]:
        """The columns of the relation whose rows the head ``atom`` gives.

        Raises:
            ConflictError: the relation belongs to another program.
            IncorrectError: there is no such relation, it has another number of columns, or allows no rules.
        """
        known = self.relations.get(atom.relation)
        if known is None:
            earlier = self.catalog.get(atom.relation)
            if earlier is None and atom.relation in STANDING:
                raise IncorrectError(
                    f'rules or facts for "{atom.relation}", which the cluster keeps{where}',
                    f"{_declaring(atom.relation)} if you mean a relation of your own.",
                    *atom.at,
                )
            if earlier is not None:
                raise ConflictError(
                    f'rules for "{atom.relation}", a relation of module "{earlier.module}"{where}',
                    f'Derive the rows in a relation of your own that also holds those of "{atom.relation}".',
                    *atom.at,
                )
            hint = self.nearest(atom.relation) or f"{_declaring(atom.relation)}."
            raise IncorrectError(f'no relation "{atom.relation}" declared{where}', hint, *atom.at)
        if known.mode != "set":
            raise IncorrectError(
                f'facts or rules for the {known.mode} relation "{atom.relation}"{where}',
                "Only transactions write to it.",
                *atom.at,
            )
        self._check_width(atom, known.columns, where)
        return known.columns

    def nearest(self, name: str) -> str | None:
        """A hint with the relation whose name is nearest, if any is near."""
        return did_you_mean(name, [*self.relations, *self.catalog])

    def _check_width(self, atom: ast.Atom, columns: tuple[Column, ...], where: Where) -> None:
        if len(atom.args) != len(columns):
            raise IncorrectError(
                f'"{atom.relation}" has {_count(len(columns), "column")}, '
                f"but {_count(len(atom.args), 'term')} here{where}",
                f"It is declared as {signature(atom.relation, columns)}.",
                *atom.at,
            )


def declare(program: ast.Program, catalog: Catalog) -> Names:
    """Find out what the declarations and directives of ``program`` say.

    Raises:
        IncorrectError: they contradict themselves or name what isn't there.
        ConflictError: they contradict what earlier programs declared.
    """
    names = declare_types(program, catalog)
    repeated: dict[str, ast.Position] = {}
    errors = Errors()
    for declaration in program.relations:
        with errors.caught():
            _declare_relation(declaration, names, repeated)
    errors.check()
    for directive in program.directives:
        with errors.caught():
            _apply_directive(directive, names)
    for declaration in program.relations:
        with errors.caught():
            _check_input(declaration, names)
    errors.check()
    return names


def declare_types(program: ast.Program, catalog: Catalog) -> Names:
    """Find out what the type names of ``program`` stand for, and nothing else.

    Raises:
        IncorrectError: they contradict themselves.
    """
    names = Names(catalog)
    declared: dict[str, ast.TypeDeclaration] = {}
    for declaration in program.types:
        if declaration.name in BUILT_IN or declaration.name in declared:
            what = "a built-in type" if declaration.name in BUILT_IN else "declared before"
            raise IncorrectError(
                f'type "{declaration.name}" is {what}', "Give the type another name.", *declaration.at
            )
        declared[declaration.name] = declaration
    composites = {
        declaration.name: Composite(declaration.name) for declaration in program.types if declaration.branches
    }
    names.types.update(composites)
    for declaration in program.types:
        if not declaration.branches:
            _resolve_type(declaration, declared, names, [])
    for declaration in program.types:
        if declaration.branches:
            composites[declaration.name].branches = _branches(declaration, names)
    identify(composites.values())
    return names


def _branches(declaration: ast.TypeDeclaration, names: Names) -> tuple[Branch, ...]:
    found: list[Branch] = []
    for branch in declaration.branches:
        if any(branch.name == before.name for before in found):
            raise IncorrectError(
                f'branch "{branch.name}" of type "{declaration.name}" is declared twice',
                "Give one of them another name.",
                *branch.at,
            )
        fields: list[Column] = []
        for each in branch.fields:
            if any(each.name == before.name for before in fields):
                raise IncorrectError(
                    f'field "{each.name}" of type "{declaration.name}" is declared twice',
                    "Give one of them another name.",
                    *each.at,
                )
            fields.append(Column(each.name, names.type(each.type, each.type_at)))
        if len(fields) > MAX_COLUMNS:
            raise IncorrectError(
                f'type "{declaration.name}" has {len(fields)} fields',
                f"At most {MAX_COLUMNS} are possible; put some of them into a record of their own.",
                *branch.at,
            )
        found.append(Branch(branch.name, tuple(fields)))
    return tuple(found)


def _resolve_type(
    declaration: ast.TypeDeclaration,
    declared: dict[str, ast.TypeDeclaration],
    names: Names,
    path: list[str],
) -> Kind:
    known = names.types.get(declaration.name)
    if known is not None:
        return known
    if len(path) > MAX_TYPE_CHAIN:
        raise UnsupportedError(
            f"a chain of more than {MAX_TYPE_CHAIN} types, each based on the next",
            "Base some of them on a built-in type.",
            *declaration.at,
        )
    if declaration.name in path:
        chain = " -> ".join([*path[path.index(declaration.name) :], declaration.name])
        raise IncorrectError(
            f'type "{declaration.name}" is its own base: {chain}',
            "Base one of them on a built-in type.",
            *declaration.at,
        )
    found: list[tuple[str, Kind]] = []
    for base, at in declaration.bases:
        other = declared.get(base)
        kind = (
            names.type(base, at)
            if other is None or other.branches
            else _resolve_type(other, declared, names, [*path, declaration.name])
        )
        found.append((base, kind))
        if kind is not found[0][1] and kind != found[0][1]:
            raise IncorrectError(
                f'type "{declaration.name}" unites {found[0][0]} (a {found[0][1]}) with {base} (a {kind})',
                "All parts of a union must have the same base.",
                *at,
            )
    names.types[declaration.name] = found[0][1]
    return found[0][1]


def _declare_relation(
    declaration: ast.RelationDeclaration, names: Names, repeated: dict[str, ast.Position]
) -> None:
    columns: list[Column] = []
    for column in declaration.columns:
        if any(column.name == before.name for before in columns):
            raise IncorrectError(
                f'column "{column.name}" of "{declaration.name}" is declared twice',
                "Give one of them another name.",
                *column.at,
            )
        columns.append(Column(column.name, names.type(column.type, column.type_at)))
    if len(columns) > MAX_COLUMNS:
        raise IncorrectError(
            f'relation "{declaration.name}" has {len(columns)} columns',
            f"At most {MAX_COLUMNS} are possible; split it into several relations with a common key.",
            *declaration.at,
        )
    mode, key = _mode(declaration, columns)
    choices = _choices(declaration, columns)
    equivalence = _is_equivalence(declaration, columns)
    before = repeated.get(declaration.name)
    if before is not None:
        raise IncorrectError(
            f'relation "{declaration.name}" is declared twice',
            f"The first declaration is in line {before.line}.",
            *declaration.at,
        )
    repeated[declaration.name] = declaration.at
    earlier = names.catalog.get(declaration.name)
    if earlier is None:
        names.relations[declaration.name] = Relation(
            declaration.name, tuple(columns), False, False, mode, key, equivalence, choices
        )
    elif earlier.columns != tuple(columns) or earlier.mode != _mode_text(mode, key, columns):
        raise ConflictError(
            f'relation "{declaration.name}" is declared otherwise by module "{earlier.module}"',
            f"There it is {signature(earlier.name, earlier.columns)}"
            f"{'' if earlier.mode == 'set' else ' ' + earlier.mode}; repeat that, or choose another name.",
            *declaration.at,
        )


def _mode(declaration: ast.RelationDeclaration, columns: list[Column]) -> tuple[str, tuple[int, ...]]:
    chosen = [q for q in declaration.qualifiers if q.name in ("raw", "upsert")]
    if not chosen:
        return "set", ()
    if len(chosen) > 1:
        raise IncorrectError(
            f'relation "{declaration.name}" is both {chosen[0].name} and {chosen[1].name}',
            "Keep one of the two.",
            *chosen[1].at,
        )
    return chosen[0].name, _places(declaration, chosen[0], columns)


def _places(
    declaration: ast.RelationDeclaration,
    qualifier: ast.Qualifier,
    columns: list[Column],
    *,
    repeated: bool = False,
) -> tuple[int, ...]:
    """The places of the columns that a qualifier names, each once; ``repeated``: it may name one again."""
    key: list[int] = []
    places = {column.name: index for index, column in enumerate(columns)}
    for name, at in qualifier.columns:
        if name not in places:
            hint = (
                did_you_mean(name, places)
                or f"It is declared as {signature(declaration.name, tuple(columns))}."
            )
            raise IncorrectError(f'no column "{name}" in relation "{declaration.name}"', hint, *at)
        if places[name] in key:
            if repeated:
                continue
            raise IncorrectError(f'column "{name}" stands twice in a key', "Name it once.", *at)
        key.append(places[name])
    return tuple(key)


def _choices(declaration: ast.RelationDeclaration, columns: list[Column]) -> tuple[tuple[int, ...], ...]:
    """The choice domains; one says nothing that holds the columns of another, or all columns."""
    chosen: dict[tuple[int, ...], None] = {}
    for qualifier in declaration.qualifiers:
        if qualifier.name == "choice-domain":
            key = tuple(sorted(_places(declaration, qualifier, columns, repeated=True)))
            if len(key) < len(columns):
                chosen[key] = None
    choices = tuple(key for key in chosen if not any(set(other) < set(key) for other in chosen))
    if choices and any(
        isinstance(column.type, Composite) and not column.type.has_order for column in columns
    ):
        raise UnsupportedError(
            f'a choice domain of "{declaration.name}", which has records without an order',
            "It says which row stays; a record has one if its type isn't part of itself, nor large.",
            *next(q.at for q in declaration.qualifiers if q.name == "choice-domain"),
        )
    return choices


def _is_equivalence(declaration: ast.RelationDeclaration, columns: list[Column]) -> bool:
    qualifier = next((q for q in declaration.qualifiers if q.name == "eqrel"), None)
    if qualifier is None:
        return False
    if len(columns) != 2 or columns[0].type is not columns[1].type:
        raise IncorrectError(
            f'relation "{declaration.name}" is eqrel, but not of two columns of one type',
            f"It is declared as {signature(declaration.name, tuple(columns))}.",
            *qualifier.at,
        )
    others = [q.name for q in declaration.qualifiers if q.name in ("raw", "upsert", "choice-domain")]
    if others:
        raise IncorrectError(
            f'relation "{declaration.name}" is both eqrel and {others[0]}',
            "Keep one of the two.",
            *qualifier.at,
        )
    return True


def _mode_text(mode: str, key: tuple[int, ...], columns: list[Column]) -> str:
    return f"upsert({', '.join(columns[index].name for index in key)})" if mode == "upsert" else mode


def _apply_directive(directive: ast.Directive, names: Names) -> None:
    known = names.relations.get(directive.relation)
    if known is None:
        earlier = names.catalog.get(directive.relation)
        if earlier is None:
            hint = names.nearest(directive.relation) or f"{_declaring(directive.relation)}."
            raise IncorrectError(
                f'no relation "{directive.relation}" for .{directive.kind}', hint, *directive.at
            )
        if directive.kind == "input" and not earlier.input:
            raise ConflictError(
                f'.input for "{directive.relation}", a derived relation of module "{earlier.module}"',
                "Only the program that declares a relation can make it an input.",
                *directive.at,
            )
        if directive.kind == "limitsize":
            raise ConflictError(
                f'.limitsize for "{directive.relation}", a relation of module "{earlier.module}"',
                "Only the program that declares a relation can limit it.",
                *directive.at,
            )
    elif directive.kind == "input":
        if known.choices:
            raise UnsupportedError(
                f'a choice domain of the input "{directive.relation}"',
                "Choose in a relation that is derived from it, or declare the input with upsert.",
                *directive.at,
            )
        names.relations[directive.relation] = replace(known, input=True)
    elif directive.kind == "output":
        names.relations[directive.relation] = replace(known, output=True)
    elif directive.kind == "limitsize":
        if known.equivalence:
            raise UnsupportedError(
                f'a limit of size of "{directive.relation}", which is eqrel',
                "Limit a relation that it is derived from.",
                *directive.at,
            )
        names.relations[directive.relation] = replace(known, limit=_limit(directive))


def _limit(directive: ast.Directive) -> int:
    match directive.parameters:
        case (("n", digits),) if digits.isdecimal() and 0 < int(digits[:20]) < 1 << 63:
            return int(digits[:20])
    raise IncorrectError(
        f'no number of rows for .limitsize "{directive.relation}"',
        f'Write ".limitsize {directive.relation}(n=1000)".',
        *directive.at,
    )


def _check_input(declaration: ast.RelationDeclaration, names: Names) -> None:
    known = names.relations.get(declaration.name)
    if known is not None and known.mode != "set" and not known.input:
        at = next(q.at for q in declaration.qualifiers if q.name == known.mode)
        raise IncorrectError(
            f'relation "{known.name}" is {known.mode} but not an input',
            f"Add .input {known.name} to it.",
            *at,
        )


def _declaring(relation: str) -> str:
    instance, _, part = relation.rpartition(".")
    if instance:
        return f'Declare "{part}" in a component of which "{instance}" is an instance'
    return f'Declare it, as in ".decl {relation}(x: symbol)"'


def _count(number: int, thing: str) -> str:
    return f"{number or 'no'} {thing}{'' if number == 1 else 's'}"
