//! Facts about a program that nobody wrote, for points-to analysis.

use std::collections::BTreeSet;

use super::{Random, Table};

/// Variables of a procedure.
const LOCALS: u32 = 16;

/// Assignments, allocations, loads and stores among so many variables, which belong to procedures: most
/// statements stay within one, the others hand variables to procedures, of which some are called often, and back.
pub fn statements(variables: u32) -> [Table; 4] {
    let mut random = Random::default();
    let procedures = (variables / LOCALS).max(1);
    let mut tables: [BTreeSet<[u32; 2]>; 4] = Default::default();
    let [assign, allocate, load, store] = &mut tables;
    for procedure in 0..procedures {
        let local = |random: &mut Random| procedure * LOCALS + random.below(LOCALS);
        for object in 0..4 {
            allocate.insert([local(&mut random), variables + procedure * 4 + object]);
        }
        for _ in 0..8 {
            assign.insert([local(&mut random), local(&mut random)]);
        }
        for _ in 0..2 {
            let called = (f64::from(procedures) * random.unit().powi(3)) as u32 * LOCALS;
            assign.insert([called, local(&mut random)]);
            assign.insert([local(&mut random), called + 1]);
        }
        for _ in 0..3 {
            load.insert([local(&mut random), local(&mut random)]);
            store.insert([local(&mut random), local(&mut random)]);
        }
    }
    let names = ["assign", "allocate", "load", "store"];
    let mut named = names.into_iter().zip(tables);
    std::array::from_fn(|_| named.next().map(|(name, rows)| Table::new(name, rows)).expect("as many names"))
}
