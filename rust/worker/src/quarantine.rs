//! Programs that the cluster fell over twice while they were first computed are not built a third time.
//!
//! A panic outside of our expressions ends the generation, whichever program it came from. What was being built or first
//! computed at that moment is suspected; what has been suspected twice is quarantined, by the digest of its program. All
//! this outlives the generation: it belongs to the process.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, PoisonError};

/// How often the cluster may fall while a program is first computed, before it isn't built again.
const CRASHES: u32 = 2;

/// Suspects remembered; where there are more, the first by digest is forgotten.
const SUSPECTS: usize = 1 << 10;

/// What a process remembers of programs over its generations.
#[derive(Debug, Default)]
pub(crate) struct Quarantine(Mutex<Memory>);

#[derive(Debug, Default)]
struct Memory {
    /// Being built or first computed in this generation.
    under_way: BTreeSet<String>,
    /// How often the cluster fell meanwhile.
    crashes: BTreeMap<String, u32>,
}

impl Quarantine {
    /// A generation begins: nothing is under way. What the last one left fell with it, but not by a panic of ours.
    pub(crate) fn generation_begins(&self) {
        self.lock().under_way.clear();
    }

    /// A program is about to be built.
    pub(crate) fn begin(&self, digest: &str) {
        self.lock().under_way.insert(digest.to_owned());
    }

    /// A program has been computed for the first time, or is gone before.
    pub(crate) fn computed(&self, digest: &str) {
        self.lock().under_way.remove(digest);
    }

    /// The generation has ended in a panic.
    pub(crate) fn crashed(&self) {
        let mut memory = self.lock();
        for digest in std::mem::take(&mut memory.under_way) {
            *memory.crashes.entry(digest).or_default() += 1;
            if memory.crashes.len() > SUSPECTS {
                memory.crashes.pop_first();
            }
        }
    }

    /// The programs that aren't to be built.
    pub(crate) fn all(&self) -> Vec<String> {
        let memory = self.lock();
        let held = memory.crashes.iter().filter(|(_, crashes)| **crashes >= CRASHES);
        held.map(|(digest, _)| digest.clone()).collect()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Memory> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn program_is_quarantined_by_the_second_crash_while_it_is_first_computed() {
        let quarantine = Quarantine::default();
        for generation in 0..2 {
            assert!(quarantine.all().is_empty(), "{generation}");
            quarantine.begin("bad");
            quarantine.begin("good");
            quarantine.computed("good");
            quarantine.crashed();
            quarantine.crashed();
        }
        quarantine.begin("unlucky");
        quarantine.generation_begins();
        quarantine.crashed();
        assert_eq!(quarantine.all(), ["bad"]);
    }
}
