//! Graphs, and rows by key.

use differential_dataflow::operators::CountTotal;
use differential_dataflow::operators::iterate::Iterate;

use super::{Output, Rows};

type Edges<'scope> = Rows<'scope, (u32, u32)>;

pub(super) fn closure(edges: Edges<'_>, output: &Output) {
    let by_source = edges.clone().arrange_by_key();
    let path = edges.clone().iterate(move |scope, path| {
        let (edges, by_source) = (edges.enter(scope), by_source.enter(scope));
        let by_end = path.map(|(x, y)| (y, x)).arrange_by_key();
        by_end.join_core(by_source, |_, &x, &z| Some((x, z))).concat(edges).distinct()
    });
    output.take(path, |&(x, y)| [x.into(), y.into()]);
}

pub(super) fn triangles(edges: Edges<'_>, output: &Output) {
    let by_source = edges.clone().arrange_by_key();
    let by_end = edges.clone().map(|(a, b)| (b, a)).arrange_by_key();
    let wedges = by_end.join_core(by_source, |&b, &a, &c| Some(((a, c), b)));
    let whole = edges.arrange_by_self();
    let found = wedges.arrange_by_key().join_core(whole, |&(a, c), &b, &()| Some((a, b, c)));
    let triangles = found.arrange_by_self().as_collection(|row, &()| *row);
    output.take(triangles, |&(a, b, c)| [a.into(), b.into(), c.into()]);
}

pub(super) fn counts(edges: Edges<'_>, output: &Output) {
    let counts = edges.map(|(key, _)| key).count_total();
    output.take(counts, |&(key, count)| [key.into(), count as i64]);
}

pub(super) fn same_generation(parents: Edges<'_>, output: &Output) {
    let by_parent = parents.arrange_by_key();
    let siblings = by_parent.clone().join_core(by_parent.clone(), |_, &x, &y| (x != y).then_some((x, y)));
    let same = siblings.clone().iterate(move |scope, same| {
        let (siblings, by_parent) = (siblings.enter(scope), by_parent.enter(scope));
        let half = same.arrange_by_key().join_core(by_parent.clone(), |_, &b, &x| Some((b, x)));
        half.arrange_by_key().join_core(by_parent, |_, &x, &y| Some((x, y))).concat(siblings).distinct()
    });
    output.take(same, |&(x, y)| [x.into(), y.into()]);
}

pub(super) fn reach(edges: Edges<'_>, roots: Rows<'_, (u32,)>, output: &Output) {
    let (roots, by_source) = (roots.map(|(root,)| root), edges.arrange_by_key());
    let reached = roots.clone().iterate(move |scope, reached| {
        let (roots, by_source) = (roots.enter(scope), by_source.enter(scope));
        reached.arrange_by_self().join_core(by_source, |_, &(), &y| Some(y)).concat(roots).distinct()
    });
    output.take(reached, |&node| [node.into()]);
}
