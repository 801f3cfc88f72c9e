"""How text is read: what binds to what, and what the words of the dialect stand for."""

from __future__ import annotations

import random

import pytest

from dataflow_serve.errors import DataflowError
from dataflow_serve.language import ast, parse
from dataflow_serve.language._canonical import _term
from tests.oracle import generate

AT = ast.Position(1, 1)


def term_of(text: str) -> ast.Term:
    """The term that ``text`` is read as."""
    (clause,) = parse(f"p({text}).").clauses
    return clause.heads[0].args[0]


def body_of(text: str) -> ast.Body:
    """The body that ``text`` is read as."""
    (clause,) = parse(f"p() :- {text}.").clauses
    assert clause.body is not None
    return clause.body


@pytest.mark.parametrize(
    ("text", "read"),
    [
        ("1 + 2 * 3", "(+ 1,(* 2,3))"),
        ("1 - 2 - 3", "(- (- 1,2),3)"),
        ("2 ^ 3 ^ 2", "(^ 2,(^ 3,2))"),
        ("-2 ^ 2", "(neg (^ 2,2))"),
        ("2 ^ -1", "(^ 2,-1)"),
        ("-x * y", "(* (neg x),y)"),
        ("- - 1", "(neg -1)"),
        ("1 + 2 bshl 3", "(bshl (+ 1,2),3)"),
        ("a band b bor c bxor d", "(bor (band a,b),(bxor c,d))"),
        ("a lor b land c lxor d", "(lor a,(lxor (land b,c),d))"),
        ("bnot a band b", "(band (bnot a),b)"),
        ("lnot a land b", "(land (lnot a),b)"),
        ("(1 + 2) * 3", "(* (+ 1,2),3)"),
        ("min(1, 2, x)", "(min 1,2,x)"),
        ("max(a, min(b, c)) % 4", "(% (max a,(min b,c)),4)"),
        ('cat("a", to_string(1), "c")', '(cat "a",(to_string 1),"c")'),
        ("as(x, number)", "(as x number)"),
        ("count : { a(_) }", "(count :{a(_)})"),
        ("count : a(_) + 1", "(+ (count :{a(_)}),1)"),
        ("sum x + 1 : { a(x), x > 2 }", "(sum (+ x,1):{a(x),x > 2})"),
        ("min (x + 1) : { a(x) }", "(min (+ x,1):{a(x)})"),
        ("sum min(x, 3) : { a(x) }", "(sum (min x,3):{a(x)})"),
        ("mean x : a(x)", "(mean x:{a(x)})"),
        ("max y : { a(y), y < min z : { b(z) } }", "(max y:{a(y),y < (min z:{b(z)})})"),
    ],
)
def test_terms_bind_as_in_souffle(text: str, read: str) -> None:
    assert _term(term_of(text)) == read


@pytest.mark.parametrize(
    ("text", "read"),
    [
        ("42", ast.NumberLiteral(42, False, AT)),
        ("-42", ast.NumberLiteral(-42, False, AT)),
        ("0x1F", ast.NumberLiteral(31, False, AT)),
        ("0b101", ast.NumberLiteral(5, False, AT)),
        ("7u", ast.NumberLiteral(7, True, AT)),
        ("0xFFu", ast.NumberLiteral(255, True, AT)),
        ("-9223372036854775808", ast.NumberLiteral(-(1 << 63), False, AT)),
        ("10.0.0.1", ast.NumberLiteral(0x0A000001, False, AT)),
        ("255.255.255.255", ast.NumberLiteral(0xFFFFFFFF, False, AT)),
        ("1.5", ast.FloatLiteral(1.5, AT)),
        ("-1.5", ast.FloatLiteral(-1.5, AT)),
        ("1e3", ast.FloatLiteral(1000.0, AT)),
        ("2.5e-1", ast.FloatLiteral(0.25, AT)),
        ('"a b"', ast.TextLiteral("a b", AT)),
        (r'"a\"b\\c\td\n"', ast.TextLiteral('a"b\\c\td\n', AT)),
        ('"// no comment"', ast.TextLiteral("// no comment", AT)),
        ('"ünïcödé 🙂"', ast.TextLiteral("ünïcödé 🙂", AT)),
        ("true", ast.TruthLiteral(True, AT)),
        ("false", ast.TruthLiteral(False, AT)),
        ("_", ast.Wildcard(AT)),
        ("?x", ast.Variable("?x", AT)),
        ("_x", ast.Variable("_x", AT)),
    ],
)
def test_literals(text: str, read: ast.Term) -> None:
    assert term_of(text) == read


A, B, C = (ast.Atom(name, (), AT) for name in "abc")
X, Y = ast.Variable("x", AT), ast.Variable("y", AT)


@pytest.mark.parametrize(
    ("text", "read"),
    [
        ("a()", A),
        ("a(), b()", ast.Conjunction((A, B))),
        ("a(), b() ; c()", ast.Disjunction((ast.Conjunction((A, B)), C), AT)),
        ("a(), (b() ; c())", ast.Conjunction((A, ast.Disjunction((B, C), AT)))),
        ("!a()", ast.Negation(A, AT)),
        ("!(a() ; b())", ast.Negation(ast.Disjunction((A, B), AT), AT)),
        ("!!a()", ast.Negation(ast.Negation(A, AT), AT)),
        ("(((a())))", A),
        ("x = y", ast.Compare("=", X, Y, AT)),
        ("(x) <= (y)", ast.Compare("<=", X, Y, AT)),
        ("(x + y) != y", ast.Compare("!=", ast.Apply("+", (X, Y), AT), Y, AT)),
        ("((x < y))", ast.Compare("<", X, Y, AT)),
        ("match(x, y)", ast.Compare("match", X, Y, AT)),
        ("!contains(x, y)", ast.Negation(ast.Compare("contains", X, Y, AT), AT)),
        ("true, false", ast.Conjunction((ast.Constant(True, AT), ast.Constant(False, AT)))),
        ("true = x", ast.Compare("=", ast.TruthLiteral(True, AT), X, AT)),
    ],
)
def test_bodies(text: str, read: ast.Body) -> None:
    assert body_of(text) == read


def test_a_declaration_of_several_names_declares_each() -> None:
    program = parse(".decl a, b(x: number, y: symbol) btree no_inline\n.decl empty()")
    assert [declared.name for declared in program.relations] == ["a", "b", "empty"]
    assert [[c.name for c in declared.columns] for declared in program.relations] == [
        ["x", "y"],
        ["x", "y"],
        [],
    ]
    assert [q.name for q in program.relations[1].qualifiers] == ["btree", "no_inline"]


def test_directives_keep_their_parameters_for_batch_runs() -> None:
    program = parse(
        '.input a, b(IO=file, filename="dir/a.csv", delimiter=",", rfc4180=true, headers=true)\n'
        ".output c()\n.printsize c\n.decl d(x: number) input output"
    )
    csv = (
        ("IO", "file"),
        ("filename", "dir/a.csv"),
        ("delimiter", ","),
        ("rfc4180", "true"),
        ("headers", "true"),
    )
    assert [(d.kind, d.relation, d.parameters) for d in program.directives] == [
        ("input", "a", csv),
        ("input", "b", csv),
        ("output", "c", ()),
        ("printsize", "c", ()),
        ("input", "d", ()),
        ("output", "d", ()),
    ]


def test_what_only_guides_other_engines_is_read_and_forgotten() -> None:
    plain = parse("p(x) :- a(x), b(x).")
    assert parse('.pragma "legacy"\n.pragma "a" "b"\np(x) :- a(x), b(x).\n.plan 1:(2,1), 2:(1,2)') == plain


def test_annotations_are_read_and_forgotten() -> None:
    plain = parse(".type R = [a: number] .decl r(a: R) r([1]) :- 1 = 1.")
    annotated = parse(
        """
        @[of = {a type, [1]}] .type R = [@[x] a: number]
        @[p] @[q(")")] .decl r(@[doc = "]"] a: R)
        @[rule(r(1) :- 2.)] r([1]) :- @![inner] 1 = 1.
        """
    )
    assert annotated == plain


def test_a_clause_may_follow_a_declaration_without_any_separation() -> None:
    program = parse(".decl a(x: number) a(1). .decl b(x: number) inline b(x) :- a(x).")
    assert [clause.heads[0].relation for clause in program.clauses] == ["a", "b"]


def test_a_clause_remembers_its_own_text() -> None:
    (clause,) = parse("  p(x) :-  // first\n a(x).  ").clauses
    assert clause.text == "p(x) :-  // first\n a(x)."


@pytest.mark.parametrize("seed", range(20))
def test_whatever_is_read_the_only_errors_are_ours(seed: int) -> None:
    rng = random.Random(seed)
    text = generate(rng, transactions=0).program
    pieces = [
        "(",
        ")",
        "{",
        "}",
        "!",
        "count",
        "min",
        "_",
        "0u",
        '"',
        ";",
        ":-",
        ".",
        "=",
        ".decl ",
        "as",
        "$",
        "*/",
    ]
    for _ in range(50):
        start = rng.randrange(len(text))
        broken = text[:start] + rng.choice(pieces) + text[start + rng.randrange(3) :]
        try:
            parse(broken)
        except DataflowError as error:
            assert error.line is not None
