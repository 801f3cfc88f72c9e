"""Declarations, directives and clauses: the outside of a program."""

from __future__ import annotations

from collections.abc import Callable

from msgspec import Struct, field

from dataflow_serve.errors import DataflowError, IncorrectError, UnsupportedError
from dataflow_serve.language import ast
from dataflow_serve.language._cursor import did_you_mean
from dataflow_serve.language._errors import Errors
from dataflow_serve.language._functions import RESERVED
from dataflow_serve.language._lexer import DIRECTIVES, Token, unescape
from dataflow_serve.language._terms import TermParser
from dataflow_serve.language._types import BUILT_IN

__all__ = ["parse"]

_QUALIFIERS = frozenset(
    {
        "brie",
        "btree",
        "btree_delete",
        "eqrel",
        "ignored",
        "inline",
        "input",
        "magic",
        "no_inline",
        "no_magic",
        "output",
        "overridable",
        "printsize",
        "raw",
        "upsert",
    }
)
MAX_COMPONENT_DEPTH = 16
"""How deep components may be declared in one another."""

_UNSUPPORTED = {
    "functor": (
        "functors of the user's own",
        "Compute such values where the rows come from, and transact them.",
    ),
    "include": ("inclusion of files", "A server reads no files; put the text in, or use `dataflow run`."),
    "lattice": (
        "lattices",
        "Keep the least or greatest values with subsumption, or take them with min and max.",
    ),
    "once": ("inclusion of files", "A server reads no files; put the text in, or use `dataflow run`."),
}
"""Directives that are refused: what they are for, and what to do instead."""


def parse(text: str) -> ast.Program:
    """Read a program; nothing is checked beyond its form.

    Raises:
        IncorrectError: the text isn't a program, with line and column; of several errors the first, whose
            hint says where the others are.
        UnsupportedError: it uses a part of the dialect that this build doesn't have.
    """
    return _Parser(text).program()


class _Items(Struct):
    """What a program or the body of a component holds."""

    types: list[ast.TypeDeclaration] = field(default_factory=list)
    relations: list[ast.RelationDeclaration] = field(default_factory=list)
    directives: list[ast.Directive] = field(default_factory=list)
    clauses: list[ast.Clause] = field(default_factory=list)
    subsumptions: list[ast.Subsumption] = field(default_factory=list)
    components: list[ast.Component] = field(default_factory=list)
    instances: list[ast.Instance] = field(default_factory=list)
    overrides: list[tuple[str, ast.Position]] = field(default_factory=list)
    demanded: list[tuple[str, ast.Position]] = field(default_factory=list)
    frozen: ast.Position | None = None

    def program(self) -> ast.Program:
        return ast.Program(
            tuple(self.types),
            tuple(self.relations),
            tuple(self.directives),
            tuple(self.clauses),
            tuple(self.subsumptions),
            tuple(self.components),
            tuple(self.instances),
            tuple(self.demanded),
            self.frozen,
        )


class _Parser(TermParser):
    def __init__(self, text: str) -> None:
        super().__init__(text)
        self._items = _Items()
        self._errors = Errors()
        self._components = 0  # around the item being read

    def program(self) -> ast.Program:
        while not self.at("end"):
            self._item()
        self._errors.check()
        return self._items.program()

    def _item(self) -> None:
        """Read a declaration, directive, component or clause; if it can't be read, go on with the next."""
        first, components = self.index, self._components
        self.item_start = self.token.start
        try:
            if self.at("directive"):
                self._directive()
            else:
                self._clause()
        except DataflowError as error:
            self._errors.add(error)
            self.recover()
            self._components = components
            if self.index == first:
                self.advance()
            self._skip()

    def _skip(self) -> None:
        """Move to where the next item seems to begin."""
        while not self.at("end") and not self.at("directive") and not (self._components and self.at("}")):
            token = self.advance()
            if token.kind == "." and self.token.start != token.end:
                return

    # Directives

    def _directive(self) -> None:
        token = self.advance()
        match token.text[1:]:
            case "decl":
                self._relation()
            case "type":
                self._type()
            case "number_type" | "symbol_type" as word:
                name = self.name("the name of a type")
                base = word.removesuffix("_type")
                self._items.types.append(ast.TypeDeclaration(name.text, ((base, name.at),), name.at))
            case "input" | "output" | "printsize" | "limitsize" as kind:
                self._relation_directive(kind)
            case "pragma":
                pragma = unescape(self.expect("text", expected="the name of a pragma in quotes"))
                value = self.take("text")
                if value is not None and pragma == "magic-transform":
                    names = unescape(value).split(",")
                    self._items.demanded += [(name.strip(), value.at) for name in names]
                if value is None and pragma == "frozen":
                    self._items.frozen = token.at
            case "plan":
                self._plan()
            case "comp":
                self._component()
            case "init":
                self._instance()
            case "override":
                self._override(token)
            case word:
                what, hint = _UNSUPPORTED[word]
                raise UnsupportedError(f'{what} ("{token.text}")', hint, *token.at)

    def _type(self) -> None:
        name = self.name("the name of a type")
        if self.take("<:"):
            bases = [self.qualified_name("a type")]
        elif self.take("="):
            if self.at("[") or self.peek().kind == "{":
                self._items.types.append(ast.TypeDeclaration(name.text, (), name.at, self._branches()))
                return
            bases = [self.qualified_name("a type")]
            while self.take("|"):
                bases.append(self.qualified_name("a type"))
            if self.at("{"):
                raise IncorrectError(
                    f'type "{name.text}" unites types and branches',
                    f'Write "{bases[0][0]} {{}}" if that is to be a branch, too.',
                    *self.token.at,
                )
        elif self.at("name") and self.peek().kind != "(" and self.token.text in BUILT_IN:
            raise self.unexpected('"<:" or "="', f'Write ".type {name.text} <: {self.token.text}".')
        else:
            bases = [("symbol", name.at)]
        self._items.types.append(ast.TypeDeclaration(name.text, tuple(bases), name.at))

    def _branches(self) -> tuple[ast.BranchDeclaration, ...]:
        """What a record type holds, or the branches of an algebraic type."""
        at = self.token.at
        if self.take("["):
            return (ast.BranchDeclaration(None, self._fields("]"), at),)
        branches: list[ast.BranchDeclaration] = []
        while not branches or self.take("|"):
            name = self.name("the name of a branch")
            self.expect("{", hint=f'Write what the branch holds, as in "{name.text} {{ x: number }}".')
            branches.append(ast.BranchDeclaration(name.text, self._fields("}"), name.at))
        return tuple(branches)

    def _fields(self, closing: str) -> tuple[ast.ColumnDeclaration, ...]:
        fields: list[ast.ColumnDeclaration] = []
        while not self.take(closing):
            if fields:
                self.expect(",", expected=f'"," or "{closing}"')
            name = self.name("the name of a field")
            self.expect(":", hint=f'A field is written with its type, as in "{name.text}: number".')
            kind, kind_at = self.qualified_name("a type")
            fields.append(ast.ColumnDeclaration(name.text, kind, name.at, kind_at))
        return tuple(fields)

    def _relation(self) -> None:
        names = [self._relation_name()]
        while self.take(","):
            names.append(self._relation_name())
        if self.at("="):
            raise UnsupportedError(
                f'the view "{names[0].text}" of another relation',
                "Rows don't remember when they were derived.",
                *self.token.at,
            )
        columns = self._columns()
        qualifiers = self._qualifiers()
        for name in names:
            kept = tuple(q for q in qualifiers if q.name not in ("input", "output", "printsize"))
            self._items.relations.append(ast.RelationDeclaration(name.text, columns, kept, name.at))
            for q in qualifiers:
                if q not in kept:
                    self._items.directives.append(ast.Directive(q.name, name.text, (), q.at))

    def _relation_name(self) -> Token:
        name = self.name("the name of a relation")
        if name.text in RESERVED:
            raise IncorrectError(
                f'"{name.text}" is a reserved word', "Give the relation another name.", *name.at
            )
        return name

    def _columns(self) -> tuple[ast.ColumnDeclaration, ...]:
        self.expect("(", hint='Columns follow in parentheses, as in ".decl edge(from: symbol, to: symbol)".')
        columns: list[ast.ColumnDeclaration] = []
        while not self.at(")"):
            if columns:
                self.expect(",", expected='"," or ")"')
            name = self.name("the name of a column")
            self.expect(":", hint=f'A column is written with its type, as in "{name.text}: number".')
            kind, kind_at = self.qualified_name("a type")
            if self.at("<"):
                raise UnsupportedError(
                    f'the lattice column "{name.text}"', _UNSUPPORTED["lattice"][1], *name.at
                )
            columns.append(ast.ColumnDeclaration(name.text, kind, name.at, kind_at))
        self.expect(")")
        return tuple(columns)

    def _qualifiers(self) -> list[ast.Qualifier]:
        qualifiers: list[ast.Qualifier] = []
        while True:
            token = self.token
            if token.kind == "choice-domain":
                self.advance()
                qualifiers.append(ast.Qualifier("choice-domain", self._domain(), token.at))
                while self.take(","):
                    qualifiers.append(ast.Qualifier("choice-domain", self._domain(), token.at))
                continue
            # A clause may follow without any separation; what comes after its name tells it.
            if token.kind != "name" or self.peek().kind == "." or self._is_head():
                return qualifiers
            if token.text not in _QUALIFIERS:
                hint = did_you_mean(token.text, _QUALIFIERS) or (
                    "If a clause begins here: its relation is written with parentheses, as in "
                    f'"{token.text}(x)" or "{token.text}()".'
                )
                raise IncorrectError(f'unknown qualifier "{token.text}"', hint, *token.at)
            self.advance()
            columns: tuple[tuple[str, ast.Position], ...] = ()
            if token.text == "upsert":
                self.expect("(", hint='Name the key\'s columns, as in "upsert(id)".')
                columns = self._key_columns()
            qualifiers.append(ast.Qualifier(token.text, columns, token.at))

    def _domain(self) -> tuple[tuple[str, ast.Position], ...]:
        return self._key_columns() if self.take("(") else (self._key_column(),)

    def _key_columns(self) -> tuple[tuple[str, ast.Position], ...]:
        columns = [self._key_column()]
        while self.take(","):
            columns.append(self._key_column())
        self.expect(")", expected='"," or ")"')
        return tuple(columns)

    def _is_head(self) -> bool:
        return self.peek().kind == "(" and self.token.text != "upsert"

    def _key_column(self) -> tuple[str, ast.Position]:
        token = self.name("the name of a column")
        return token.text, token.at

    def _relation_directive(self, kind: str) -> None:
        names = [self.qualified_name("the name of a relation")]
        while self.take(","):
            names.append(self.qualified_name("the name of a relation"))
        parameters: list[tuple[str, str]] = []
        if self.take("("):
            while not self.at(")"):
                if parameters:
                    self.expect(",", expected='"," or ")"')
                key = self.name("a parameter").text
                self.expect("=")
                parameters.append((key, self._parameter()))
            self.expect(")")
        for name, at in names:
            self._items.directives.append(ast.Directive(kind, name, tuple(parameters), at))

    def _parameter(self) -> str:
        match self.token.kind:
            case "text":
                return unescape(self.advance())
            case "name" | "number" | "float":
                return self.advance().text
            case _:
                raise self.unexpected("the value of a parameter")

    def _plan(self) -> None:
        """Read and forget an order of joins: ours is chosen anew for each program."""
        while True:
            self.expect("number")
            self.expect(":")
            self.expect("(")
            while not self.take(")"):
                self.expect("number")
                if not self.at(")"):
                    self.expect(",", expected='"," or ")"')
            if not self.take(","):
                return

    # Components

    def _component(self) -> None:
        name = self.name("the name of a component")
        parameters = self._type_list("the name of a type parameter", lambda what: self.name(what).text)
        bases: list[ast.ComponentUse] = []
        if self.take(":"):
            bases.append(self._component_use())
            while self.take(","):
                bases.append(self._component_use())
        self.expect("{", hint=f'Write ".comp {name.text} {{ … }}".')
        if self._components == MAX_COMPONENT_DEPTH:
            raise UnsupportedError(
                f"components in one another, deeper than {MAX_COMPONENT_DEPTH}", None, *name.at
            )
        around, self._items = self._items, _Items()
        self._components += 1
        while not self.at("}") and not self.at("end"):
            self._item()
        self._components -= 1
        inside, self._items = self._items, around
        if self.at("end"):
            raise self.unexpected(f'"}}", which closes the component "{name.text}",')
        self.advance()
        around.components.append(
            ast.Component(
                name.text, parameters, tuple(bases), tuple(inside.overrides), inside.program(), name.at
            )
        )

    def _component_use(self) -> ast.ComponentUse:
        name = self.name("the name of a component")
        arguments = self._type_list("a type", lambda what: self.qualified_name(what)[0])
        return ast.ComponentUse(name.text, arguments, name.at)

    def _type_list(self, what: str, read: Callable[[str], str]) -> tuple[str, ...]:
        found: list[str] = []
        if self.take("<"):
            found.append(read(what))
            while self.take(","):
                found.append(read(what))
            self.expect(">", expected='"," or ">"')
        return tuple(found)

    def _instance(self) -> None:
        name = self.name("the name of an instance")
        self.expect("=", hint=f'Write ".init {name.text} = Component".')
        self._items.instances.append(ast.Instance(name.text, self._component_use(), name.at))

    def _override(self, token: Token) -> None:
        name = self.name("the name of a relation")
        if not self._components:
            raise IncorrectError(
                ".override outside of a component",
                "It leaves out clauses that a component inherits from another.",
                *token.at,
            )
        self._items.overrides.append((name.text, name.at))

    # Clauses

    def _clause(self) -> None:
        first = self.token
        if first.kind == "." and self.peek().kind == "name" and self.peek().start == first.end:
            raise self._unknown_directive()
        heads = [self._head()]
        if self.take("<="):
            self._subsumption(first, heads[0])
            return
        while self.take(","):
            heads.append(self._head())
        body = None
        if self.take(":-"):
            body = self.body()
            end = self.expect(".", expected='"," or ";" or "."', hint="A clause ends with a full stop.")
        else:
            end = self.expect(".", expected='":-" or "."', hint="A clause ends with a full stop.")
        text = self.source[first.start : end.end]
        self._items.clauses.append(ast.Clause(tuple(heads), body, text, first.at))

    def _subsumption(self, first: Token, dominated: ast.Atom) -> None:
        dominating = self._head()
        self.expect(":-", hint="Conditions have to follow; write :- true if there are none.")
        body = self.body()
        end = self.expect(".", expected='"," or ";" or "."', hint="A clause ends with a full stop.")
        text = self.source[first.start : end.end]
        self._items.subsumptions.append(ast.Subsumption(dominated, dominating, body, text, first.at))

    def _head(self) -> ast.Atom:
        name, at = self.qualified_name("a relation")
        if name in RESERVED:
            raise IncorrectError(
                f'"{name}" is a reserved word{self._where()}', "Give the relation another name.", *at
            )
        return ast.Atom(name, self.arguments(), at)

    def _unknown_directive(self) -> IncorrectError:
        word = self.peek().text
        at = self.token.at
        if word in DIRECTIVES:
            return IncorrectError(f'".{word}" with nothing after it', f'Write ".{word} " and a name.', *at)
        hint = did_you_mean("." + word, ["." + known for known in DIRECTIVES])
        return IncorrectError(f'unknown directive ".{word}"', hint, *at)
