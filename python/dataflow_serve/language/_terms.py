"""Terms and bodies: the inside of a clause."""

from __future__ import annotations

from dataflow_serve.errors import IncorrectError, UnsupportedError
from dataflow_serve.language import ast
from dataflow_serve.language._cursor import Cursor, did_you_mean
from dataflow_serve.language._functions import (
    AGGREGATES,
    FUNCTORS,
    OPERATORS,
    RESERVED,
    UNARY,
)
from dataflow_serve.language._habits import FUNCTORS as MEANT
from dataflow_serve.language._lexer import Token, unescape

__all__ = ["TermParser"]

MAX_NESTING = 64
"""How deep parentheses, calls and aggregates may stand in one another."""

MAX_DEPTH = 128
"""How deep a term may be altogether; a chain of operators counts as well."""

_NO_COUNTERS = (
    "Numbers by the order in which rows come would change with every change; use columns of the row."
)
_MEANINGLESS = {
    "autoinc": _NO_COUNTERS,
    "ord": "Values have an order, but no numbers in it: compare them, as in ord(x) < ord(y) or x < y.",
    "recursive_iteration_cnt": "Rows don't remember when they were derived; count in a column.",
}
"""Functors that mean nothing in a query that stays, and what to do instead."""

_UNARY_STRENGTH = 10
_COMPARISONS = frozenset({"=", "!=", "<", "<=", ">", ">="})
_NO_TERM = _COMPARISONS | {",", ".", ";", ")", "]", "{", "}", ":-", "end"}


class TermParser(Cursor):
    """Reads terms and bodies by recursive descent."""

    def __init__(self, text: str) -> None:
        """Start at the first token of ``text``."""
        super().__init__(text)
        self._nesting = 0
        self._depth = 0  # of the term read last
        self._closing: dict[int, int] = {}
        self._lists: set[int] = set()
        self._match_parentheses()

    def recover(self) -> None:
        """Begin anew after an error, outside of all terms."""
        self._nesting = self._depth = 0

    # Terms

    def term(self, strength: int = 0) -> ast.Term:
        """A term whose infix operators all bind at least as strongly as ``strength``."""
        self._enter()
        left = self._prefix()
        depth = self._depth
        while (operator := OPERATORS.get(self.token.text)) and operator.strength >= strength:
            token = self.advance()
            right = self.term(operator.strength + (0 if operator.right else 1))
            depth = max(depth, self._depth) + 1
            if depth > MAX_DEPTH:
                raise self._too_deep(token)
            left = ast.Apply(token.text, (left, right), token.at)
        self._depth = depth
        self._nesting -= 1
        return left

    def arguments(self) -> tuple[ast.Term, ...]:
        """A list of terms in parentheses, possibly empty."""
        return self._list("(", ")")

    def _list(self, opening: str, closing: str) -> tuple[ast.Term, ...]:
        self.expect(opening)
        args: list[ast.Term] = []
        depth = 0
        if not self.at(closing):
            args.append(self.term())
            depth = self._depth
            while self.take(","):
                args.append(self.term())
                depth = max(depth, self._depth)
        self.expect(closing, expected=f'"," or "{closing}"')
        self._depth = depth + 1
        return tuple(args)

    def _prefix(self) -> ast.Term:
        token = self.token
        if token.kind == "-" or (token.kind == "name" and token.text in UNARY):
            self.advance()
            nested = self.token
            term = self.term(_UNARY_STRENGTH)
            if token.kind == "-" and nested.kind in ("number", "float"):
                if isinstance(term, ast.NumberLiteral) and not term.unsigned:
                    return ast.NumberLiteral(-term.value, False, token.at)
                if isinstance(term, ast.FloatLiteral):
                    return ast.FloatLiteral(-term.value, token.at)
            self._depth += 1
            return ast.Apply(UNARY[token.text], (term,), token.at)
        return self._primary()

    def _primary(self) -> ast.Term:
        token = self.token
        self._depth = 1
        match token.kind:
            case "name":
                return self._named(token)
            case "number":
                self.advance()
                unsigned = token.text.endswith("u")
                digits = token.text.removesuffix("u")
                base = {"0x": 16, "0b": 2}.get(digits[:2], 10)
                if len(digits) > 80:
                    raise IncorrectError(f'number "{digits[:20]}…" doesn\'t fit 64 bits', None, *token.at)
                return ast.NumberLiteral(int(digits, base), unsigned, token.at)
            case "address":
                self.advance()
                parts = [int(part) for part in token.text.split(".") if len(part) <= 3]
                if len(parts) < 4 or max(parts) > 255:
                    raise IncorrectError(
                        f'"{token.text}" is no address', "Each of its four parts is at most 255.", *token.at
                    )
                return ast.NumberLiteral(int.from_bytes(bytes(parts)), False, token.at)
            case "float":
                self.advance()
                value = float(token.text)
                if value == float("inf"):
                    raise IncorrectError(f'number "{token.text}" doesn\'t fit a float', None, *token.at)
                return ast.FloatLiteral(value, token.at)
            case "text":
                self.advance()
                return ast.TextLiteral(unescape(token), token.at)
            case "(":
                self.advance()
                term = self.term()
                self.expect(")")
                return term
            case "[":
                return ast.Apply("[]", self._list("[", "]"), token.at)
            case "$":
                return self._branch(token)
            case "@":
                raise UnsupportedError(
                    f"a functor of the user's own in a term{self._where()}",
                    "Compute such values where the rows come from, and transact them.",
                    *token.at,
                )
            case _:
                raise self.unexpected("a term")

    def _branch(self, token: Token) -> ast.Term:
        """A branch of an algebraic type; ``$`` alone is a counter, which has no meaning here."""
        self.advance()
        if self.token.kind != "name" or self.token.start != token.end:
            raise UnsupportedError(f"a counter in a term{self._where()}", _NO_COUNTERS, *token.at)
        name, _ = self.qualified_name("the name of a branch")
        return ast.Apply(f"${name}", self.arguments() if self.at("(") else (), token.at)

    def _named(self, token: Token) -> ast.Term:
        word = token.text
        if word == "_":
            self.advance()
            return ast.Wildcard(token.at)
        if word in ("true", "false"):
            self.advance()
            return ast.TruthLiteral(word == "true", token.at)
        if word in AGGREGATES and not self._is_functor_call():
            return self._aggregate()
        if word == "nil":
            self.advance()
            return ast.Apply("nil", (), token.at)
        if word in _MEANINGLESS:
            raise UnsupportedError(f'"{word}" in a term{self._where()}', _MEANINGLESS[word], *token.at)
        if word == "as" and self.peek().kind == "(":
            return self._cast()
        if self.peek().kind == "(":
            self.advance()
            if word not in FUNCTORS:
                raise self._unknown_functor(token)
            return ast.Apply(word, self.arguments(), token.at)
        if word in RESERVED:
            raise IncorrectError(
                f'"{word}" is a reserved word{self._where()}', "Give the variable another name.", *token.at
            )
        self.advance()
        return ast.Variable(word, token.at)

    def _cast(self) -> ast.Term:
        at = self.advance().at
        self.expect("(")
        term = self.term()
        self.expect(",")
        kind, _ = self.qualified_name("a type")
        self.expect(")")
        self._depth += 1
        return ast.Cast(term, kind, at)

    def _unknown_functor(self, token: Token) -> IncorrectError:
        hint = (
            MEANT.get(token.text)
            or did_you_mean(token.text, FUNCTORS)
            or (
                "A relation stands alone in a body, not inside a term; functors are "
                + ", ".join(sorted(FUNCTORS))
                + "."
            )
        )
        return IncorrectError(f'no functor "{token.text}"{self._where()}', hint, *token.at)

    # Aggregates

    def _is_functor_call(self) -> bool:
        """Whether ``min`` or ``max`` is called on a list here: on several terms, or no colon follows."""
        if self.token.text not in FUNCTORS or self.peek().kind != "(":
            return False
        if self.index + 1 in self._lists:
            return True
        after = self.tokens[self._closing[self.index + 1] + 1]
        return after.kind != ":"

    def _aggregate(self) -> ast.Term:
        token = self.advance()
        target = None
        depth = 0
        if self.token.kind in _NO_TERM:
            raise IncorrectError(
                f'"{token.text}" is a reserved word{self._where()}',
                f"Give a variable another name; an aggregate is written {_shape(token.text)}.",
                *token.at,
            )
        if not self.at(":"):
            target = self.term()
            depth = self._depth
        elif token.text != "count":
            raise IncorrectError(
                f"{token.text} of nothing{self._where()}",
                f"Write {token.text} x : {{ … }}, where x is what to take the {token.text} of.",
                *token.at,
            )
        if token.text == "count" and target is not None:
            raise IncorrectError(
                f"count of a term{self._where()}", "Write count : { … }; it counts the rows.", *token.at
            )
        self.expect(":", hint=f"An aggregate is written {_shape(token.text)}.")
        self._enter()
        if self.take("{"):
            body = self.body()
            self.expect("}", expected='"," or ";" or "}"')
        else:
            body = self._atom('"{" or a relation')
        self._nesting -= 1
        self._depth = depth + 1
        return ast.Aggregate(token.text, target, body, token.at)

    # Bodies

    def body(self) -> ast.Body:
        """A body: conjunctions separated by semicolons."""
        at = self.token.at
        parts = [self._conjunction()]
        while self.take(";"):
            parts.append(self._conjunction())
        return parts[0] if len(parts) == 1 else ast.Disjunction(tuple(parts), at)

    def _conjunction(self) -> ast.Body:
        parts = [self._literal()]
        while self.take(","):
            parts.append(self._literal())
        return parts[0] if len(parts) == 1 else ast.Conjunction(tuple(parts))

    def _literal(self) -> ast.Body:
        token = self.token
        if token.kind == "!":
            self._enter()
            self.advance()
            body = self._literal()
            self._nesting -= 1
            return ast.Negation(body, token.at)
        if token.kind == "(" and self._parenthesis_holds_a_body():
            self._enter()
            self.advance()
            body = self.body()
            self.expect(")", expected='"," or ";" or ")"')
            self._nesting -= 1
            return body
        if token.kind == "name":
            follows = self.peek()
            if token.text in ("match", "contains"):
                return self._predicate()
            if token.text in ("true", "false") and follows.text not in _COMPARISONS:
                self.advance()
                return ast.Constant(token.text == "true", token.at)
            if follows.kind == "(" and token.text not in RESERVED and not self._call_is_a_term():
                return self._atom("a relation")
            if follows.kind == "." and follows.start == token.end and self._goes_on(follows):
                return self._atom("a relation")
        if token.kind in _NO_TERM:
            raise self.unexpected("an atom or a constraint")
        return self._comparison()

    def _comparison(self) -> ast.Body:
        ordinals = self._compares_ordinals()
        left = self._ordinal() if ordinals else self.term()
        operator = self.token
        if operator.kind not in _COMPARISONS:
            hint = None
            if isinstance(left, ast.Variable) and operator.kind in (",", ".", ";", ")", "}"):
                hint = f'A relation is written with parentheses, as in "{left.name}(x)" or "{left.name}()".'
            raise self.unexpected("a comparison such as = or <", hint)
        self.advance()
        right = self._ordinal() if ordinals else self.term()
        return ast.Compare(operator.kind, left, right, operator.at)

    def _compares_ordinals(self) -> bool:
        """Whether ``ord(x) < ord(y)``, or so, is what follows: it compares the values themselves."""
        left = self._end_of_ordinal(self.index)
        if left is None or self.tokens[left].kind not in _COMPARISONS:
            return False
        right = self._end_of_ordinal(left + 1)
        return right is not None and self.tokens[right].text not in OPERATORS

    def _end_of_ordinal(self, index: int) -> int | None:
        """The index behind ``ord(…)``, if it stands at this one."""
        if self.tokens[index].text != "ord" or self.tokens[index + 1].kind != "(":
            return None
        return self._closing[index + 1] + 1

    def _ordinal(self) -> ast.Term:
        self.advance()
        self.expect("(")
        term = self.term()
        self.expect(")")
        return term

    def _predicate(self) -> ast.Body:
        token = self.advance()
        args = self.arguments()
        if len(args) != 2:
            count = f"{len(args)} term{'' if len(args) == 1 else 's'}"
            raise IncorrectError(f'"{token.text}" of {count}{self._where()}', "It takes 2.", *token.at)
        return ast.Compare(token.text, args[0], args[1], token.at)

    def _atom(self, expected: str) -> ast.Atom:
        name, at = self.qualified_name(expected)
        return ast.Atom(name, self.arguments(), at)

    def _call_is_a_term(self) -> bool:
        """Whether the name and parentheses here begin a comparison, so that a functor was meant."""
        after = self.tokens[min(self._closing[self.index + 1] + 1, len(self.tokens) - 1)]
        return after.kind in _COMPARISONS or after.text in OPERATORS

    def _parenthesis_holds_a_body(self) -> bool:
        """Whether the parentheses here enclose a body rather than the beginning of a comparison.

        What follows them tells: an operator or a comparison goes on with a term. Looking there first,
        instead of trying one reading and then the other, keeps nested parentheses linear.
        """
        after = self.tokens[min(self._closing[self.index] + 1, len(self.tokens) - 1)]
        return after.kind not in _COMPARISONS and after.text not in OPERATORS

    def _goes_on(self, stop: Token) -> bool:
        """Whether a name stands directly behind the full stop that follows the current token."""
        after = self.peek(2)
        return after.kind == "name" and after.start == stop.end

    def _match_parentheses(self) -> None:
        """Find what closes each opening parenthesis (or the end) and which of them enclose a list."""
        open_ones: list[int] = []
        for index, token in enumerate(self.tokens):
            match token.kind:
                case "(" | "{" | "[":
                    open_ones.append(index)
                case "," if open_ones and self.tokens[open_ones[-1]].kind == "(":
                    self._lists.add(open_ones[-1])
                case ")" | "}" | "]" if open_ones:
                    self._closing[open_ones.pop()] = index
        for index in open_ones:
            self._closing[index] = len(self.tokens) - 2

    def _enter(self) -> None:
        self._nesting += 1
        if self._nesting > MAX_NESTING:
            raise self._too_deep(self.token)

    def _too_deep(self, token: Token) -> UnsupportedError:
        return UnsupportedError(
            f"a term with more than {MAX_NESTING} nested levels or {MAX_DEPTH} operators in a row",
            "Give parts of it names, as in x = …, y = x + ….",
            *token.at,
        )


def _shape(func: str) -> str:
    return "count : { … }" if func == "count" else f"{func} x : {{ … }}"
