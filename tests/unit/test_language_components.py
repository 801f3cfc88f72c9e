"""Components: what instances hold, and what names mean inside of them."""

from __future__ import annotations

import pytest

from dataflow_serve.errors import UnsupportedError
from dataflow_serve.language import ast, check, digest_of, parse
from dataflow_serve.values import Branch
from tests.oracle import evaluate

AT = ast.Position(1, 1)


def contents(text: str) -> dict[str, list[object]]:
    """The rows of every relation that isn't empty; a single column stands without a row around it."""
    found = evaluate(check(parse(text)), {})
    return {
        name: sorted((row[0] if len(row) == 1 else row for row in rows), key=repr)
        for name, rows in found.items()
        if rows
    }


def test_a_component_is_read_with_its_parameters_bases_and_items() -> None:
    (component,) = parse(
        ".comp C<T, U> : A<T>, B { .type K = T .decl r(k: K, v: x.V) .override s r(1, 2). "
        ".comp D { } .init d = D .output r }"
    ).components
    assert (component.name, component.parameters) == ("C", ("T", "U"))
    assert component.bases == (ast.ComponentUse("A", ("T",), AT), ast.ComponentUse("B", (), AT))
    assert [name for name, _ in component.overrides] == ["s"]
    assert [[c.type for c in r.columns] for r in component.body.relations] == [["K", "x.V"]]
    assert [inner.name for inner in component.body.components] == ["D"]
    assert component.body.instances == (ast.Instance("d", ast.ComponentUse("D", (), AT), AT),)
    assert [d.relation for d in component.body.directives] == ["r"]
    assert len(component.body.clauses) == 1


def test_names_with_full_stops_stand_wherever_a_relation_may() -> None:
    program = parse(
        "a.b.r(x) :- c.r(x), !d.r(x), n = count : { e.r(x) }, m = max y : f.r(y).\n"
        ".input a.b.r(IO=file)\n.output c.r, d.r"
    )
    (clause,) = program.clauses
    assert clause.heads[0].relation == "a.b.r"
    assert [d.relation for d in program.directives] == ["a.b.r", "c.r", "d.r"]
    assert parse("p(1).q(2).") == parse("p(1). q(2).")


def test_each_instance_has_relations_of_its_own() -> None:
    component = ".comp C { .decl r(x: number) .decl s(x: number) s(x + 1) :- r(x). }"
    assert contents(f"{component} .init a = C .init b = C a.r(1). b.r(5).") == {
        "a.r": [1],
        "a.s": [2],
        "b.r": [5],
        "b.s": [6],
    }


def test_a_name_means_the_innermost_relation_around_it() -> None:
    assert contents(
        """
        .decl g(x: number) g(1).
        .decl h(x: number) h(10).
        .comp Inner { .decl r(x: number) r(x) :- g(x). r(x) :- h(x). }
        .comp Outer { .decl h(x: number) h(20). .init i = Inner }
        .init o = Outer
        .init i = Inner
        """
    ) == {"g": [1], "h": [10], "o.h": [20], "o.i.r": [1, 20], "i.r": [1, 10]}


def test_a_clause_for_a_relation_outside_adds_to_it() -> None:
    assert contents(
        """
        .decl total(x: number)
        .comp Part<T> { .decl r(x: number) total(x) :- r(x). }
        .init a = Part<number>
        .init b = Part<number>
        a.r(1). b.r(2).
        """
    ) == {"total": [1, 2], "a.r": [1], "b.r": [2]}


def test_a_component_inherits_declarations_clauses_and_inner_components() -> None:
    assert contents(
        """
        .comp Base { .decl r(x: number) r(1). .comp Inner { r(7). } .init own = Inner }
        .comp Derived : Base { r(2). .init mine = Inner .decl s(x: number) s(x) :- r(x), x > 1. }
        .init d = Derived
        """
    ) == {"d.r": [1, 2, 7], "d.s": [2, 7]}


def test_overriding_leaves_out_the_inherited_clauses_and_no_others() -> None:
    assert contents(
        """
        .comp A { .decl r(x: number) overridable r(1). .decl s(x: number) s(1). }
        .comp B : A { .override r r(2). s(2). }
        .comp C : B { r(3). }
        .comp D : C { .override r r(4). }
        .init a = A .init b = B .init c = C .init d = D
        """
    ) == {
        "a.r": [1],
        "a.s": [1],
        "b.r": [2],
        "b.s": [1, 2],
        "c.r": [2, 3],
        "c.s": [1, 2],
        "d.r": [4],
        "d.s": [1, 2],
    }


def test_type_parameters_stand_for_types_and_for_components() -> None:
    assert contents(
        """
        .type Name <: symbol
        .comp Store<T> { .type K = T .decl r(x: K) }
        .comp Numbers { .decl r(x: number) r(3). }
        .comp Both<T, S> : S { .init store = Store<T> .decl two(x: T, y: store.K) two(x, x) :- store.r(x). }
        .init b = Both<Name, Numbers>
        .decl copy(x: b.store.K) copy(x) :- b.store.r(x).
        b.store.r("n").
        """
    ) == {"b.r": [3], "b.store.r": ["n"], "b.two": [("n", "n")], "copy": ["n"]}


def test_a_base_that_a_parameter_names_may_be_overridden() -> None:
    program = """
        .comp M { .decl R(s: symbol) overridable R("M"). }
        .comp X<T> : T { .override R R("X"). }
        .init y = X<M>
    """
    assert contents(program) == {"y.R": ["X"]}


def test_directives_of_a_component_are_those_of_each_instance() -> None:
    program = check(
        parse(".comp C { .decl r(x: number) .input r .output r } .init a = C .init b = C .decl q(x: number)")
    )
    assert [(d.kind, d.relation) for d in program.directives] == [
        ("input", "a.r"),
        ("output", "a.r"),
        ("input", "b.r"),
        ("output", "b.r"),
    ]
    assert [name for name, relation in program.relations.items() if relation.input] == ["a.r", "b.r"]


def test_a_component_without_instances_is_nothing() -> None:
    plain = ".decl r(x: number) r(1)."
    assert digest_of(parse(plain + ".comp C { .decl q(x: nonsense) q(x) :- nothing(x). }")) == digest_of(
        parse(plain)
    )


def test_the_same_instances_are_the_same_program_however_they_are_written() -> None:
    one = ".comp C<T> { .decl r(x: T) } .init a = C<number> a.r(1)."
    other = ".comp B { .decl r(x: number) r(1). } .comp C : B { } .init a = C"
    assert digest_of(parse(one)) == digest_of(parse(other))
    assert digest_of(parse(one)) != digest_of(parse(one.replace("a", "b")))


def test_instances_that_double_again_and_again_are_refused_soon() -> None:
    levels = [f".comp C0 {{ {' '.join(f'.decl r{n}()' for n in range(50))} }}"]
    levels += [f".comp C{n} {{ .init a = C{n - 1} .init b = C{n - 1} }}" for n in range(1, 40)]
    program = parse("\n".join(levels) + "\n.init c = C39")
    with pytest.raises(UnsupportedError, match="instances of more than 20000 declarations"):
        check(program)


def test_components_that_inherit_twice_from_each_other_are_refused_soon() -> None:
    levels = [".comp A0 { } .comp B0 { }"]
    levels += [
        f".comp A{n} : A{n - 1}, B{n - 1} {{ }} .comp B{n} : A{n - 1}, B{n - 1} {{ }}" for n in range(1, 40)
    ]
    with pytest.raises(UnsupportedError, match="name one another more than 200000 times"):
        check(parse("\n".join(levels) + "\n.init c = A39"))


def test_a_long_chain_of_components_is_refused() -> None:
    levels = [".comp A0 { }", *(f".comp A{n} : A{n - 1} {{ }}" for n in range(1, 3000))]
    with pytest.raises(UnsupportedError, match="more than 64 in a row"):
        check(parse("\n".join(levels)))


def test_a_branch_is_called_by_its_instance_outside() -> None:
    program = """
        .type T = b { x: number }
        .comp C<P> {
            .type T = b { x: P } | c { t: T }
            .decl r(x: T)
            r($c($b(1))).
        }
        .comp Around {
            .init inner = C<number>
            .decl s(x: inner.T)
            s($inner.b(2)).
            s(x) :- inner.r($inner.c(x)).
        }
        .init one = C<number>
        .init two = Around
        one.r($one.b(3)).
        .decl plain(x: T)
        plain($b(4)).
    """
    assert contents(program) == {
        "one.r": [Branch("one.b", (3,)), Branch("one.c", (Branch("one.b", (1,)),))],
        "two.inner.r": [Branch("two.inner.c", (Branch("two.inner.b", (1,)),))],
        "two.s": [Branch("two.inner.b", (1,)), Branch("two.inner.b", (2,))],
        "plain": [Branch("b", (4,))],
    }


def test_a_type_of_a_component_hides_a_parameter_of_its_name() -> None:
    component = ".comp C<P> { .type P <: number .decl r(x: P) } .init c = C<symbol>"
    assert contents(f"{component} c.r(1).") == {"c.r": [1]}
