//! What the planner is told of the relations that a program may be about.

use std::collections::{BTreeMap, BTreeSet};

use dataflow_engine::Statistics;

use crate::member::Member;

/// Relations of which a planner is told; more of them are as good as unknown.
const MOST: usize = 256;

impl Member {
    /// What is known of the relations that a program's text names, JSON by name.
    pub(crate) fn statistics(&self, program: &str) -> String {
        let known = names(program).into_iter().filter_map(|name| self.engine.relation(name));
        let told: BTreeMap<String, Statistics> = known
            .take(MOST)
            .filter_map(|info| Some((info.name.clone(), self.engine.statistics(info.id, self.peers())?)))
            .collect();
        serde_json::to_string(&told).unwrap_or_else(|_| "{}".to_owned())
    }
}

/// All that could be a relation's name, those of components' instances with their dots.
fn names(program: &str) -> BTreeSet<&str> {
    let part = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '?' | '.');
    program.split(|c| !part(c)).map(|word| word.trim_matches('.')).filter(|word| !word.is_empty()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_what_a_text_could_mean() {
        let text = ".decl p(x:number)\np(x):-edge(x,_),!net.far?(x),x>3.\n.output p";
        let found = names(text);
        assert!(
            ["p", "edge", "net.far?", "x", "3", "output"].iter().all(|name| found.contains(name)),
            "{found:?}"
        );
    }
}
