//! Andersen's points-to analysis.

use differential_dataflow::operators::iterate::Iterate;

use super::{Output, Rows};

/// Of assignments, allocations, loads and stores.
pub(super) fn points_to([assign, allocate, load, store]: [Rows<'_, (u32, u32)>; 4], output: &Output) {
    let by_source = assign.map(|(to, from)| (from, to)).arrange_by_key();
    let by_pointer = load.map(|(to, pointer)| (pointer, to)).arrange_by_key();
    let by_target = store.arrange_by_key();
    let points = allocate.clone().iterate(move |scope, points| {
        let points = points.arrange_by_key();
        let assigned = points.clone().join_core(by_source.enter(scope), |_, &object, &to| Some((to, object)));
        let loaded = points
            .clone()
            .join_core(by_pointer.enter(scope), |_, &object, &to| Some((object, to)))
            .arrange_by_key()
            .join_core(points.clone(), |_, &to, &object| Some((to, object)));
        let stored = points
            .clone()
            .join_core(by_target.enter(scope), |_, &object, &from| Some((from, object)))
            .arrange_by_key()
            .join_core(points, |_, &object, &held| Some((object, held)));
        allocate.enter(scope).concatenate([assigned, loaded, stored]).distinct()
    });
    output.take(points, |&(variable, object)| [variable.into(), object.into()]);
}
