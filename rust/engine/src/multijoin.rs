//! What the paths of a multijoin are: which of its inputs a change of one meets when, and by which columns.

use dataflow_protocol::value::Type;

use crate::operators::lookup::MAX_MEMBERS;
use crate::validate::require;

/// Inputs that a multijoin may have: it has an operator for every pair of them.
const MAX_INPUTS: usize = 16;

/// An input whose turn it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Member {
    /// Its place among the inputs.
    pub(crate) input: usize,
    /// Columns by which it is arranged, all known by then.
    pub(crate) key: Vec<usize>,
    /// The other columns.
    pub(crate) value: Vec<usize>,
}

/// Inputs that lack the same variables, which they find values for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Group {
    /// These variables; none if nothing is left to be found.
    pub(crate) fresh: Vec<usize>,
    /// The inputs.
    pub(crate) members: Vec<Member>,
}

/// The groups that a change of input `start` meets, and the variables in the order in which they become known.
pub(crate) fn path(variables: &[Vec<usize>], path: &[Vec<usize>], start: usize) -> (Vec<Group>, Vec<usize>) {
    let mut known = variables[start].clone();
    let mut groups = Vec::new();
    for group in path {
        let mut fresh: Vec<usize> =
            group.iter().flat_map(|&input| lacking(&variables[input], &known)).collect();
        fresh.sort_unstable();
        fresh.dedup();
        let members = group.iter().map(|&input| member(variables, input, &known)).collect();
        known.extend(&fresh);
        groups.push(Group { fresh, members });
    }
    (groups, known)
}

fn member(variables: &[Vec<usize>], input: usize, known: &[usize]) -> Member {
    let columns = &variables[input];
    let (mut key, mut value): (Vec<usize>, Vec<usize>) =
        (0..columns.len()).partition(|&column| known.contains(&columns[column]));
    // An input of which everything is known is found by most of its columns, as others find it, not by all.
    if value.is_empty() && key.len() > 1 {
        value.extend(key.pop());
    }
    Member { input, key, value }
}

fn lacking<'a>(variables: &'a [usize], known: &'a [usize]) -> impl Iterator<Item = usize> + 'a {
    variables.iter().copied().filter(|variable| !known.contains(variable))
}

/// The types of the variables, if inputs agree on them.
pub(crate) fn types(inputs: &[&Vec<Type>], variables: &[Vec<usize>]) -> Result<Vec<Type>, String> {
    require(inputs.len() == variables.len(), || "not every input has variables".to_owned())?;
    require((2..=MAX_INPUTS).contains(&inputs.len()), || format!("a multijoin of {} inputs", inputs.len()))?;
    let count = variables.iter().flatten().max().map_or(0, |&most| most.saturating_add(1));
    let columns: usize = variables.iter().map(Vec::len).sum();
    require(count <= columns, || "a variable that no column is".to_owned())?;
    let mut types = vec![None; count];
    for (input, variables) in inputs.iter().zip(variables) {
        require(input.len() == variables.len(), || "a column that is no variable".to_owned())?;
        for (at, (&ty, &variable)) in input.iter().zip(variables).enumerate() {
            require(!variables[..at].contains(&variable), || "two columns are one variable".to_owned())?;
            let known = types[variable].get_or_insert(ty);
            require(*known == ty, || format!("variable {variable} has two types"))?;
        }
    }
    types.into_iter().collect::<Option<_>>().ok_or_else(|| "a variable that no column is".to_owned())
}

/// Checks that each input's changes meet all others, in groups that lack the same variables.
pub(crate) fn paths(variables: &[Vec<usize>], paths: &[Vec<Vec<usize>>]) -> Result<(), String> {
    require(paths.len() == variables.len(), || "not every input has a path".to_owned())?;
    for (start, groups) in paths.iter().enumerate() {
        let mut met: Vec<usize> = groups.iter().flatten().copied().chain([start]).collect();
        met.sort_unstable();
        require(met.iter().copied().eq(0..variables.len()), || {
            format!("path {start} doesn't meet every other input once")
        })?;
        for group in path(variables, groups, start).0 {
            let members = &group.members;
            require(!members.is_empty() && members.len() <= MAX_MEMBERS, || {
                format!("path {start} has a group of {}", members.len())
            })?;
            let alike = group.fresh.is_empty()
                || members.iter().all(|member| member.value.len() == group.fresh.len());
            require(alike, || format!("path {start} has a group that lacks different variables"))?;
            let full = group.fresh.is_empty()
                || members.iter().all(|member| {
                    member.value.iter().all(|&column| group.fresh.contains(&variables[member.input][column]))
                });
            require(full, || format!("path {start} has a group that lacks different variables"))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The edges a-b, b-c and a-c of a triangle.
    fn triangle() -> Vec<Vec<usize>> {
        vec![vec![0, 1], vec![1, 2], vec![0, 2]]
    }

    #[test]
    fn changes_of_an_edge_find_the_third_corner_by_both_others() {
        let (groups, known) = path(&triangle(), &[vec![1, 2]], 0);
        let member = |input, key, value| Member { input, key: vec![key], value: vec![value] };
        assert_eq!(groups, [Group { fresh: vec![2], members: vec![member(1, 0, 1), member(2, 0, 1)] }]);
        assert_eq!(known, [0, 1, 2]);
        let (groups, _) = path(&triangle(), &[vec![0], vec![2]], 1);
        assert_eq!(groups[0], Group { fresh: vec![0], members: vec![member(0, 1, 0)] });
        assert_eq!(groups[1], Group { fresh: Vec::new(), members: vec![member(2, 0, 1)] });
    }

    #[test]
    fn a_path_meets_every_input_once_in_groups_that_lack_the_same() {
        let all = |middle: &[Vec<usize>]| vec![vec![vec![1, 2]], middle.to_vec(), vec![vec![0, 1]]];
        assert_eq!(paths(&triangle(), &all(&[vec![0, 2]])), Ok(()));
        assert_eq!(paths(&triangle(), &all(&[vec![0], vec![2]])), Ok(()));
        for wrong in [vec![], vec![vec![0]], vec![vec![0, 2, 2]], vec![vec![0, 1]], vec![vec![], vec![0, 2]]]
        {
            assert!(paths(&triangle(), &all(&wrong)).is_err(), "{wrong:?}");
        }
        let wide = vec![vec![0, 1], vec![1, 2], vec![1, 2, 3]];
        let starts = vec![vec![vec![1], vec![2]], vec![vec![0], vec![2]], vec![vec![0], vec![1]]];
        assert_eq!(paths(&wide, &starts), Ok(()));
        assert!(paths(&wide, &[vec![vec![vec![1, 2]]], starts[1..].to_vec()].concat()).is_err());
    }

    #[test]
    fn variables_have_one_type_and_a_column() {
        let (number, symbol) = (vec![Type::Number; 2], vec![Type::Number, Type::Symbol]);
        assert_eq!(types(&[&number, &symbol], &[vec![0, 1], vec![1, 2]]).map(|types| types.len()), Ok(3));
        for (variables, inputs) in [
            (vec![vec![0, 1], vec![2, 1]], [&number, &symbol]),
            (vec![vec![0, 0], vec![0, 1]], [&number, &number]),
            (vec![vec![0, 1], vec![1, 3]], [&number, &number]),
            (vec![vec![0, 1], vec![usize::MAX, 1]], [&number, &number]),
            (vec![vec![0, 1], vec![1]], [&number, &number]),
        ] {
            assert!(types(&inputs, &variables).is_err(), "{variables:?}");
        }
    }
}
