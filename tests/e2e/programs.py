"""Programs that together use every part of the language that a server runs, one part each as far as possible.

Every one is fed random inserts and deletes of its input relations and compared with the naive evaluator after
each transaction (`test_programs.py`), and is run as a batch as well (`test_batch.py`).
"""

from __future__ import annotations

PROGRAMS: dict[str, str] = {
    "copy": """
        .decl e(x: number, y: symbol)
        .input e
        .output e
    """,
    "join": """
        .decl e(x: number, y: number)
        .input e
        .decl f(x: number, s: symbol)
        .input f
        .decl j(s: symbol, t: symbol)
        j(s, t) :- e(x, y), f(x, s), f(y, t).
        .output j
    """,
    "self_join_repeated_variables": """
        .decl e(x: number, y: number)
        .input e
        .decl loop(x: number)
        loop(x) :- e(x, x).
        .decl triangle(x: number, y: number, z: number)
        triangle(x, y, z) :- e(x, y), e(y, z), e(z, x).
        .output loop
        .output triangle
    """,
    "cycles": """
        .decl e(x: number, y: number)
        .input e
        .decl f(x: number, s: symbol)
        .input f
        .decl square(a: number, b: number, c: number, d: number)
        square(a, b, c, d) :- e(a, b), e(b, c), e(c, d), e(d, a), a < c.
        .decl clique(a: number, b: number, c: number, d: number)
        clique(a, b, c, d) :- e(a, b), e(a, c), e(a, d), e(b, c), e(b, d), e(c, d).
        .decl named(s: symbol, n: number)
        named(s, n) :- f(a, s), n = count : { e(a, b), e(b, c), e(c, a) }.
        .decl odd(a: number, s: symbol)
        odd(a, s) :- e(a, b), e(b, c), e(a, c), f(c, s), !f(a, s), b != 1.
        .decl closed(a: number, b: number)
        closed(a, b) :- square(a, b, _, _).
        closed(a, c) :- closed(a, b), closed(b, c), closed(a, c), e(b, c).
        .output square
        .output clique
        .output named
        .output odd
        .output closed
    """,
    "constants_and_wildcards": """
        .decl f(x: number, s: symbol, b: bool)
        .input f
        .decl named(x: number)
        named(x) :- f(x, "a", _).
        .decl yes(s: symbol)
        yes(s) :- f(_, s, true).
        .decl some()
        some() :- f(1, _, _).
        .output named
        .output yes
        .output some
    """,
    "comparisons": """
        .decl e(x: number, y: number)
        .input e
        .decl f(s: symbol, v: float)
        .input f
        .decl less(x: number, y: number)
        less(x, y) :- e(x, y), x < y.
        .decl within(x: number)
        within(x) :- e(x, y), x != y, x >= -1, y <= 2.
        .decl before(s: symbol, t: symbol)
        before(s, t) :- f(s, v), f(t, w), s < t, v > w.
        .output less
        .output within
        .output before
    """,
    "arithmetic": """
        .decl e(x: number, y: number)
        .input e
        .decl u(a: unsigned, v: float)
        .input u
        .decl sums(x: number, y: number, z: number)
        sums(x + y, x - y, x * 2 + -y) :- e(x, y).
        .decl quotient(x: number, q: number, r: number)
        quotient(x, x / y, x % y) :- e(x, y).
        .decl halves(v: float, w: float)
        halves(v, v / 2.0) :- u(_, v), v >= 0.0.
        .decl bits(a: unsigned, b: unsigned)
        bits(a, a band 3u) :- u(a, _).
        .output sums
        .output quotient
        .output halves
        .output bits
    """,
    "text": """
        .decl f(s: symbol, x: number)
        .input f
        .decl pair(s: symbol, n: number)
        pair(cat(s, cat("-", t)), strlen(s)) :- f(s, x), f(t, x), s != t.
        .decl shown(s: symbol)
        shown(to_string(x)) :- f(_, x).
        .decl parsed(s: symbol, n: number)
        parsed(s, to_number(s)) :- f(s, _).
        .decl has(s: symbol)
        has(s) :- f(s, _), contains("o", s).
        .output pair
        .output shown
        .output parsed
        .output has
    """,
    "disjunction_and_several_heads": """
        .decl e(x: number, y: number)
        .input e
        .decl a(x: number)
        .decl b(x: number)
        a(x), b(x) :- e(x, _) ; e(_, x), x > 0.
        .decl c(x: number)
        c(x) :- a(x), (x < 1 ; e(x, x)).
        .output a
        .output b
        .output c
    """,
    "facts": """
        .decl e(x: number, y: number)
        .input e
        e(1, 2).
        e(2, 3).
        .decl next(x: number, y: number)
        next(0, 1).
        next(x, y) :- e(x, y).
        .output e
        .output next
    """,
    "negation": """
        .decl e(x: number, y: number)
        .input e
        .decl n(x: number)
        .input n
        .decl root(x: number)
        root(x) :- n(x), !e(_, x).
        .decl lonely(x: number)
        lonely(x) :- root(x), !e(x, _).
        .decl one_way(x: number, y: number)
        one_way(x, y) :- e(x, y), !e(y, x).
        .output root
        .output lonely
        .output one_way
    """,
    "linear_recursion": """
        .decl e(x: number, y: number)
        .input e
        .decl path(x: number, y: number)
        path(x, y) :- e(x, y).
        path(x, z) :- path(x, y), e(y, z).
        .output path
    """,
    "non_linear_recursion": """
        .decl e(x: symbol, y: symbol)
        .input e
        .decl path(x: symbol, y: symbol)
        path(x, y) :- e(x, y).
        path(x, z) :- path(x, y), path(y, z).
        .output path
    """,
    "mutual_recursion": """
        .decl e(x: number, y: number)
        .input e
        .decl s(x: number)
        .input s
        .decl odd(x: number)
        .decl even(x: number)
        even(x) :- s(x).
        odd(y) :- even(x), e(x, y).
        even(y) :- odd(x), e(x, y).
        .output odd
        .output even
    """,
    "same_generation": """
        .decl parent(c: symbol, p: symbol)
        .input parent
        .decl sg(x: symbol, y: symbol)
        sg(x, y) :- parent(x, p), parent(y, p), x != y.
        sg(x, y) :- parent(x, p), sg(p, q), parent(y, q).
        .output sg
    """,
    "recursion_below_negation": """
        .decl e(x: number, y: number)
        .input e
        .decl n(x: number)
        .input n
        .decl reach(x: number, y: number)
        reach(x, y) :- e(x, y).
        reach(x, z) :- reach(x, y), e(y, z).
        .decl apart(x: number, y: number)
        apart(x, y) :- n(x), n(y), !reach(x, y), x != y.
        .decl island(x: number)
        island(x) :- n(x), c = count : { apart(x, _) }, c > 1.
        .output apart
        .output island
    """,
    "bounded_counting_recursion": """
        .decl e(x: number, y: number)
        .input e
        .decl walk(x: number, n: number)
        walk(x, 0) :- e(x, _).
        walk(y, n + 1) :- walk(x, n), e(x, y), n < 4.
        .output walk
    """,
    "aggregates_by_key": """
        .decl v(k: symbol, x: number, w: float)
        .input v
        .decl keys(k: symbol)
        keys(k) :- v(k, _, _).
        .decl stats(k: symbol, n: number, s: number, lo: number, hi: number, m: float)
        stats(k, n, s, lo, hi, m) :- keys(k), n = count : { v(k, _, _) }, s = sum x : { v(k, x, _) },
            lo = min x : { v(k, x, _) }, hi = max x : { v(k, x, _) }, m = mean x : { v(k, x, _) }.
        .decl weight(k: symbol, t: float)
        weight(k, t) :- keys(k), t = sum w : { v(k, _, w) }.
        .output stats
        .output weight
    """,
    "aggregates_of_nothing": """
        .decl n(k: number)
        .input n
        .decl v(k: number, x: number)
        .input v
        .decl counted(k: number, c: number, s: number)
        counted(k, c, s) :- n(k), c = count : { v(k, _) }, s = sum x : { v(k, x), x > 0 }.
        .decl least(k: number, x: number)
        least(k, m) :- n(k), m = min x : { v(k, x) }.
        .decl total(c: number, s: number)
        total(c, s) :- c = count : { v(_, _) }, s = sum x : { v(_, x) }.
        .output counted
        .output least
        .output total
    """,
    "aggregate_over_a_join": """
        .decl item(o: number, p: symbol, q: number)
        .input item
        .decl price(p: symbol, c: number)
        .input price
        .decl bill(o: number, t: number)
        bill(o, t) :- item(o, _, _), t = sum q * c : { item(o, p, q), price(p, c) }.
        .decl dear(p: symbol)
        dear(p) :- price(p, c), c = max d : { price(_, d) }.
        .output bill
        .output dear
    """,
    "raw": """
        .decl r(k: symbol, x: number) raw
        .input r
        .decl total(k: symbol, n: number, s: number)
        total(k, n, s) :- r(k, _), n = count : { r(k, _) }, s = sum x : { r(k, x) }.
        .decl there(k: symbol)
        there(k) :- r(k, _).
        .output r
        .output total
        .output there
    """,
    "upsert": """
        .decl price(p: symbol, c: number) upsert(p)
        .input price
        .decl cheap(p: symbol)
        cheap(p) :- price(p, c), c < 1.
        .decl same(p: symbol, q: symbol)
        same(p, q) :- price(p, c), price(q, c), p < q.
        .output price
        .output cheap
        .output same
    """,
    "instants": """
        .decl at(t: instant, n: number)
        .input at
        .decl near(t: instant, u: instant, d: number)
        near(t, u, t - u) :- at(t, _), at(u, _), t - 2000000 < u, u <= t.
        .decl moved(t: instant, n: number)
        moved(t + n, to_number(t)) :- at(t, n).
        .decl first(n: number, t: instant, u: instant)
        first(n, t, u) :- at(_, n), t = min x : { at(x, n) }, u = max x : { at(x, n) }.
        .decl before(t: instant)
        before(t) :- at(t, _), t < to_instant("2026-11-23T21:00:00.5+00:00").
        .decl told(s: symbol, t: instant)
        told(s, to_instant(s)) :- at(t, _), s = to_string(t).
        before(to_instant(0)).
        .output near
        .output moved
        .output first
        .output before
        .output told
    """,
    "uuids_and_bytes": """
        .decl u(id: uuid, n: number)
        .input u
        .decl b(data: bytes, id: uuid)
        .input b
        .decl joined(n: number, data: bytes)
        joined(n, data) :- u(id, n), b(data, id).
        .decl less(a: uuid, c: uuid)
        less(a, c) :- u(a, _), u(c, _), a < c.
        .decl order(x: bytes, y: bytes)
        order(x, y) :- b(x, _), b(y, _), x < y.
        order(x, y) :- b(x, i), y = to_bytes(i), x >= y.
        .decl shown(s: symbol, t: symbol)
        shown(to_string(id), to_string(data)) :- b(data, id).
        .decl back(id: uuid, data: bytes)
        back(to_uuid(s), to_bytes(t)) :- shown(s, t).
        .decl known(n: number)
        known(n) :- u(to_uuid("00000000-0000-0000-0000-00000000000a"), n).
        .decl first(n: number)
        first(n) :- n = count : { b(to_bytes("AA=="), _) }.
        .output joined
        .output less
        .output order
        .output shown
        .output back
        .output known
        .output first
    """,
    "records": """
        .type Pair = [x: number, s: symbol]
        .decl pairs(p: Pair, n: number)
        .input pairs
        .decl taken(x: number, s: symbol)
        taken(x, s) :- pairs([x, s], _).
        .decl joined(p: Pair, q: Pair)
        joined(p, q) :- pairs(p, _), p = [x, _], pairs([x, t], _), q = [x + 1, cat(t, " and then some")].
        .decl nothing(n: number)
        nothing(n) :- pairs(nil, n).
        .decl known(p: Pair)
        known([n, "a"]) :- pairs(_, n), pairs([n, "a"], _).
        known(p) :- pairs(p, _), p != nil, !pairs(p, 1).
        .decl counted(x: number, c: number)
        counted(x, c) :- taken(x, _), c = count : { pairs([x, _], _) }.
        .output taken
        .output joined
        .output nothing
        .output known
        .output counted
    """,
    "lists": """
        .type List = [head: number, tail: List]
        .decl lists(l: List)
        .input lists
        .decl parts(l: List)
        parts(l) :- lists(l).
        parts(t) :- parts([_, t]).
        .decl length(l: List, n: number)
        length(nil, 0).
        length(l, n + 1) :- parts(l), l = [_, t], length(t, n).
        .decl reversed(l: List, done: List, left: List)
        reversed(l, nil, l) :- lists(l).
        reversed(l, [x, d], t) :- reversed(l, d, [x, t]).
        .decl longest(l: List)
        longest(l) :- length(l, n), n = max m : { length(_, m) }.
        .output parts
        .output length
        .output reversed
        .output longest
    """,
    "trees": """
        .type Tree = Leaf { x: number } | Node { left: Tree, right: Tree } | Empty {}
        .decl trees(t: Tree, n: number)
        .input trees
        .decl within(t: Tree)
        within(t) :- trees(t, _).
        within(l), within(r) :- within($Node(l, r)).
        .decl total(t: Tree, n: number)
        total(t, x) :- within(t), t = $Leaf(x).
        total($Empty, 0).
        total(t, a + b) :- within(t), t = $Node(l, r), total(l, a), total(r, b).
        .decl turned(t: Tree, u: Tree)
        turned(t, t) :- within(t), (t = $Leaf(_) ; t = $Empty).
        turned(t, $Node(v, u)) :- within(t), t = $Node(l, r), turned(l, u), turned(r, v).
        .decl same(t: Tree)
        same(t) :- turned(t, t).
        .output within
        .output total
        .output turned
        .output same
    """,
    "wide_rows": """
        .decl w(a: number, b: symbol, c: unsigned, d: float, e: bool, f: symbol, g: number)
        .input w
        .decl turned(g: number, f: symbol, e: bool, d: float, c: unsigned, b: symbol, a: number)
        turned(g, f, e, d, c, b, a) :- w(a, b, c, d, e, f, g).
        .decl pairs(a: number, g: number, b: symbol)
        pairs(a, g, b) :- w(a, b, _, _, _, _, _), turned(g, b, _, _, _, _, _).
        .output turned
        .output pairs
    """,
    "ranges_and_least_texts": """
        .decl e(x: number, y: number)
        .input e
        .decl f(s: symbol, x: number)
        .input f
        .decl between(x: number, y: number, z: number)
        between(x, y, z) :- e(x, y), z = range(x, y + 2).
        .decl steps(x: number)
        steps(x) :- e(x, _), x = range(3, -2, -2).
        .decl reach(x: number)
        reach(0).
        reach(z) :- reach(x), e(x, y), z = range(x, y % 4).
        .decl first(x: number, s: symbol, t: symbol)
        first(x, s, max(s, t + "!")) :- f(_, x), s = min a : { f(a, x) }, t = max a : { f(a, _) }.
        .output between
        .output steps
        .output reach
        .output first
    """,
    "equivalence": """
        .decl e(x: number, y: number)
        .input e
        .decl n(x: number)
        .input n
        .decl same(x: number, y: number) eqrel
        same(x, y) :- e(x, y), x < y.
        .decl merged(x: number, y: number) eqrel
        merged(x, y) :- e(x, y), n(x).
        merged(x, y) :- merged(a, b), e(x, a), e(y, b), n(y).
        .decl apart(x: number, y: number)
        apart(x, y) :- n(x), n(y), !same(x, y).
        .output same
        .output merged
        .output apart
    """,
    "choice_domain": """
        .decl wish(who: symbol, what: symbol, n: number)
        .input wish
        .decl gets(who: symbol, what: symbol, n: number) choice-domain who
        gets(a, b, n) :- wish(a, b, n).
        .decl taken(what: symbol, n: number) choice-domain (what)
        taken(b, n) :- gets(_, b, n).
        .decl none(what: symbol)
        none(b) :- wish(_, b, _), !taken(b, _).
        .output gets
        .output taken
        .output none
        // Nobody has two tables, and no table has two guests.
        .decl seat(who: symbol, what: symbol) choice-domain who, what
        seat(a, b) :- wish(a, b, _).
        .output seat
    """,
    "aggregates_in_a_recursion": """
        .decl e(x: number, y: number)
        .input e
        .decl step(n: number, c: number)
        step(0, 0).
        step(n + 1, c) :- step(n, _), n < 6, c = count : { e(x, y), x <= n, y >= -n }.
        // What is counted leads on to what is counted next.
        .decl at(x: number)
        at(0).
        at(s % 7) :- at(x), s = sum y : { e(z, y), z <= x, y >= x }.
        at(m) :- at(x), m = max y : { e(z, y), z + y < x + 3 }, z = min w : { e(w, _), w != x }.
        .decl next(x: number, y: number)
        next(x, y) :- e(x, y).
        next(x, z) :- next(x, y), e(_, z), count : { e(w, z), w > y } = count : { e(w, z), w < x }.
        .output step
        .output at
        .output next
    """,
    "records_that_give_way": """
        .type Span = [low: number, high: number]
        .type Known = Nothing {} | Between {span: Span} | Anything {}
        .decl e(x: number, y: number)
        .input e
        // The widest spans, of each two that hold one another the least.
        .decl wide(x: number, s: Span)
        wide(x, [y - z, y + z]) :- e(x, y), e(y, z).
        wide(x, nil) :- e(x, x).
        wide(_, [a, b]) <= wide(_, [c, d]) :- c <= a, b <= d.
        wide(x, s) <= wide(x, nil) :- s != nil.
        .decl known(x: number, k: Known)
        known(x, $Between([x, y])) :- e(x, y), x < y.
        known(x, $Nothing) :- e(x, _).
        known(y, $Anything) :- e(x, y), x > y.
        known(x, k) <= known(y, l) :- k != l, (x = y ; x < 2, y < 2).
        .decl one(x: number, k: Known) choice-domain x
        one(y, k) :- known(x, k), e(x, y).
        .decl led(s: Span, x: number) choice-domain s, x
        led([x, y], x) :- e(x, y).
        led([x, y], y) :- led(_, x), e(x, y).
        .output wide
        .output known
        .output one
        .output led
    """,
    "limits_of_size": """
        .decl e(x: number, y: number)
        .input e
        .decl n(x: number)
        n(x) :- e(x, _).
        n(x + y) :- n(x), e(y, _).
        n(x + 1) :- n(x).
        .limitsize n(n=12)
        .decl odd(x: number)
        .decl even(x: number)
        even(x) :- e(x, x).
        odd(y) :- even(x), e(x, y).
        even(y) :- odd(x), e(x, y).
        .limitsize odd(n=3)
        .decl many(x: number)
        many(x) :- e(x, _).
        .limitsize many(n=1)
        .output n
        .output even
        .output odd
        .output many
    """,
    "choice_in_a_recursion": """
        .decl e(x: number, y: number)
        .input e
        .decl root(x: number)
        .input root
        .decl tree(parent: number, x: number) choice-domain x
        tree(x, x) :- root(x).
        tree(x, y) :- tree(_, x), e(x, y).
        .decl chain(x: number, y: number) choice-domain x, y
        chain(-1, x) :- root(x).
        chain(x, y) :- chain(_, x), e(x, y).
        // One takes turns with the other.
        .decl left(x: number, y: number) choice-domain y
        .decl right(x: number, y: number)
        left(x, y) :- e(x, y), root(y).
        left(y, z) :- right(x, y), e(y, z).
        right(x, y) :- left(x, y), !root(x).
        .output tree
        .output chain
        .output right
    """,
    "subsumption": """
        .decl e(x: number, y: number)
        .input e
        .decl most(x: number, y: number)
        most(x, y) :- e(x, y).
        most(x, a) <= most(x, b) :- a < b.
        .decl front(x: number, y: number)
        front(x, y) :- e(x, y).
        front(x, y) <= front(a, b) :- x <= a, y <= b.
        .decl either(x: number, y: number)
        either(x, y) :- most(x, y).
        either(x, _) <= either(y, _) :- e(x, y).
        .output most
        .output front
        .output either
        // What follows from the rows that stay says which rows those are.
        .decl last(x: number, y: number)
        .decl known(x: number, n: number)
        last(x, y) :- e(x, y).
        last(y, x) :- known(x, _), e(x, y), y > 2.
        known(x, y) :- last(x, y), y > 1.
        last(x, y) <= last(a, b) :- x = a, known(a, b), y < b.
        .output last
        .output known
    """,
    "shortest_paths": """
        .decl e(x: number, y: number)
        .input e
        .decl dist(x: number, y: number, d: number)
        dist(x, y, 1) :- e(x, y).
        dist(x, z, d + 1) :- dist(x, y, d), e(y, z).
        dist(x, y, d) <= dist(x, y, c) :- c < d.
        .decl odd(x: number, y: number)
        odd(x, y) :- dist(x, y, d), d % 2 = 1.
        .output dist
        .output odd
    """,
    "what_is_asked": """
        .pragma "magic-transform" "path, near, deep"
        .decl e(x: number, y: number)
        .input e
        .decl ask(x: number)
        .input ask
        .decl path(x: number, y: number)
        path(x, y) :- e(x, y).
        path(x, z) :- e(x, y), path(y, z).
        .decl near(x: number, y: number)
        near(x, y) :- path(x, y), path(y, x).
        .decl deep(x: number, d: number)
        deep(x, 0) :- e(x, _).
        deep(y, d + 1) :- deep(x, d), e(x, y), d < 4.
        .decl from(x: number, y: number)
        from(x, y) :- ask(x), path(x, y).
        .decl to(x: number, y: number)
        to(x, y) :- path(x, y), ask(y).
        .decl around(x: number, n: number)
        around(x, n) :- ask(x), near(x, y), n = count : { e(y, _) }.
        .decl one(y: number)
        one(y) :- path(1, y), !ask(y).
        .decl levels(x: number, d: number)
        levels(x, d) :- ask(x), deep(x, d).
        .output from
        .output to
        .output around
        .output one
        .output levels
    """,
    "components": """
        .comp Graph<N> {
            .decl edge(x: N, y: N)
            .decl reach(x: N, y: N) overridable
            reach(x, y) :- edge(x, y).
            reach(x, z) :- reach(x, y), edge(y, z).
        }
        .comp OneStep<N> : Graph<N> {
            .override reach
            reach(x, y) :- edge(x, y), keep(x).
        }
        .decl keep(x: number)
        .input keep
        .init all = Graph<number>
        .init one = OneStep<number>
        .decl e(x: number, y: number)
        .input e
        all.edge(x, y) :- e(x, y).
        one.edge(x, y) :- e(x, y).
        .decl further(x: number, y: number)
        further(x, y) :- all.reach(x, y), !one.reach(x, y).
        .output all.reach
        .output one.reach
        .output further
    """,
}
