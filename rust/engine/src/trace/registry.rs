//! What a worker holds of rows, so that the words in it can be marked (ADR 0008): its batches, and the state of operators that
//! keep rows elsewhere.
//!
//! The registry is the thread's, as a worker is. While words are marked it holds on to batches that aren't yet, also where the
//! dataflows have let go of them: rows that came of them may be on their way. Merged batches hold nothing new.

use std::cell::RefCell;
use std::rc::{Rc, Weak};

use dataflow_protocol::dictionary::sweep;
use dataflow_protocol::value::Word;

/// Words looked at, about, before it is asked whether to go on.
pub(crate) const PIECE: usize = 1 << 10;

/// Batches filed before those that are gone are looked for.
const LEAST_FILED: usize = 1 << 10;

/// A batch, as the words of its rows.
pub(crate) trait Words {
    /// All of them, in two parts.
    fn words(&self) -> [&[Word]; 2];
}

/// The state of an operator that keeps rows in something else than batches. It says what comes into it, and what leaves
/// it ([`moves`]).
pub(crate) trait State {
    /// Words are to be marked anew.
    fn begin(&self);
    /// Marks the words of some more of the rows that were there then, about [`PIECE`] of them; how many, 0 once there are no
    /// more.
    fn mark(&self) -> usize;
}

#[derive(Default)]
struct Registry {
    batches: Vec<Weak<dyn Words>>,
    /// How many batches are filed when those that are gone are looked for.
    full: usize,
    states: Vec<Weak<dyn State>>,
    marking: Option<Marking>,
}

/// Words are being marked.
#[derive(Default)]
struct Marking {
    batches: Vec<Rc<dyn Words>>,
    /// The batch under way, and how many of its words are marked.
    under_way: Option<(Rc<dyn Words>, usize)>,
    /// Those that there were when marking began: what comes into later ones is marked as it comes.
    states: Vec<Weak<dyn State>>,
    /// Words of batches built since the last call of [`mark`].
    built: usize,
}

thread_local! {
    static REGISTRY: RefCell<Registry> = RefCell::default();
}

/// Nothing is held any more: the worker begins anew.
pub(crate) fn clear() {
    REGISTRY.take();
}

/// Files a batch that was built of rows.
pub(super) fn built(batch: Rc<dyn Words>) {
    REGISTRY.with_borrow_mut(|registry| {
        registry.file(&batch);
        if let Some(marking) = &mut registry.marking {
            marking.built += batch.words().iter().map(|words| words.len()).sum::<usize>();
            marking.batches.push(batch);
        }
    });
}

/// Files a batch that was made of two others.
pub(super) fn merged(batch: &Rc<dyn Words>) {
    REGISTRY.with_borrow_mut(|registry| registry.file(batch));
}

/// Files the state of an operator.
pub(crate) fn state(state: &Rc<impl State + 'static>) {
    let state: Rc<dyn State> = Rc::clone(state) as Rc<dyn State>;
    REGISTRY.with_borrow_mut(|registry| {
        registry.states.retain(|state| state.strong_count() > 0);
        registry.states.push(Rc::downgrade(&state));
    });
}

/// Marks rows that come into the state of an operator, or leave it, if words are being marked: whoever looks through the state
/// piece by piece may miss them.
pub(crate) fn moves(words: &[Word]) {
    if REGISTRY.with_borrow(|registry| registry.marking.is_some()) {
        sweep::mark(words);
    }
}

/// All batches that there are, and that are built from now on, and the states of operators are to be marked.
pub(crate) fn begin() {
    REGISTRY.with_borrow_mut(|registry| {
        let batches = registry.batches.iter().filter_map(Weak::upgrade).collect();
        registry.states.iter().filter_map(Weak::upgrade).for_each(|state| state.begin());
        registry.marking = Some(Marking { batches, states: registry.states.clone(), ..Marking::default() });
    });
}

/// Marks on, for about `words` words more than twice those built since the last call; whether nothing is left.
pub(crate) fn mark(words: usize) -> bool {
    REGISTRY.with_borrow_mut(|registry| {
        registry.marking.as_mut().is_none_or(|marking| {
            let built = std::mem::take(&mut marking.built);
            marking.mark(words + 2 * built)
        })
    })
}

/// Marks all that is left.
pub(crate) fn finish() {
    REGISTRY.with_borrow_mut(|registry| {
        registry.marking.take().into_iter().for_each(|mut marking| {
            marking.mark(usize::MAX);
        });
    });
}

impl Registry {
    fn file(&mut self, batch: &Rc<dyn Words>) {
        if self.batches.len() >= self.full {
            self.batches.retain(|batch| batch.strong_count() > 0);
            self.full = LEAST_FILED.max(2 * self.batches.len());
        }
        self.batches.push(Rc::downgrade(batch));
    }
}

impl Marking {
    fn mark(&mut self, mut words: usize) -> bool {
        while words > 0 {
            let marked = self.mark_batch().or_else(|| self.mark_state());
            let Some(marked) = marked else { return true };
            words = words.saturating_sub(marked);
        }
        self.batches.is_empty() && self.under_way.is_none() && self.states.is_empty()
    }

    /// Marks a piece of a batch, if there is one; how many words.
    fn mark_batch(&mut self) -> Option<usize> {
        let next = || self.batches.pop().map(|batch| (batch, 0));
        let (batch, done) = self.under_way.take().or_else(next)?;
        let piece = piece(batch.words(), done);
        sweep::mark(piece);
        let marked = piece.len();
        self.under_way = (marked > 0).then_some((batch, done + marked));
        Some(marked)
    }

    /// Marks a piece of an operator's state, if there is one; how many words.
    fn mark_state(&mut self) -> Option<usize> {
        let marked = self.states.last()?.upgrade().map_or(0, |state| state.mark());
        if marked == 0 {
            self.states.pop();
        }
        Some(marked)
    }
}

/// The words that follow the first `done`.
fn piece([first, second]: [&[Word]; 2], done: usize) -> &[Word] {
    let rest = match done.checked_sub(first.len()) {
        Some(done) if done >= second.len() => &[],
        Some(done) => &second[done..],
        None => &first[done..],
    };
    &rest[..rest.len().min(PIECE)]
}

#[cfg(test)]
mod tests {
    use dataflow_protocol::dictionary;

    use super::*;

    struct Batch(Vec<Word>, Vec<Word>);

    impl Words for Batch {
        fn words(&self) -> [&[Word]; 2] {
            [&self.0, &self.1]
        }
    }

    /// Marked a word at a time.
    struct Held(Vec<Word>, RefCell<usize>);

    impl State for Held {
        fn begin(&self) {
            self.1.replace(0);
        }

        fn mark(&self) -> usize {
            let Some(word) = self.0.get(*self.1.borrow()) else { return 0 };
            sweep::mark(&[*word]);
            *self.1.borrow_mut() += 1;
            1
        }
    }

    fn known(text: &str) -> bool {
        dictionary::with_text(word(text), |_| ()).is_some()
    }

    fn word(text: &str) -> Word {
        dictionary::word_of(text).unwrap()
    }

    fn announced(text: &str) -> Word {
        dictionary::announced(text).unwrap()
    }

    fn batch(text: &str, length: usize) -> Rc<dyn Words> {
        Rc::new(Batch(vec![7; length], vec![announced(text)]))
    }

    /// The one test of this process's dictionary here: sweeps are the whole process's.
    #[test]
    fn what_a_batch_holds_is_marked_whenever_the_batch_was_built_or_dropped() {
        let kept = batch("in a batch that stays", 3);
        let dropped = batch("in a batch that goes meanwhile", 3 * PIECE);
        for batch in [&kept, &dropped] {
            built(Rc::clone(batch));
        }
        drop(batch("in a batch that was gone before", 3));
        let held = Rc::new(Held(
            vec![announced("first in an operator"), announced("last there")],
            RefCell::default(),
        ));
        state(&held);
        let left = announced("what comes into an operator meanwhile or leaves it");
        sweep::begin();
        begin();
        moves(&[left]);
        drop(dropped);
        assert!(!mark(1), "a piece of the batch at most");
        let later = batch("in a batch that is built meanwhile", 3);
        built(Rc::clone(&later));
        assert!(!mark(1));
        while *held.1.borrow() == 0 {
            assert!(!mark(1), "the operator's rows come last");
        }
        finish();
        assert!(sweep::shards().map(|shard| sweep::drop_unmarked(shard, true)).sum::<usize>() > 0);
        assert!(known("in a batch that stays") && known("in a batch that goes meanwhile"));
        assert!(
            known("in a batch that is built meanwhile")
                && known("what comes into an operator meanwhile or leaves it")
        );
        assert!(!known("in a batch that was gone before"));
        assert!(known("first in an operator") && known("last there"));
        // Without a word's batch, nothing is left of it after the next.
        drop((kept, later));
        sweep::begin();
        begin();
        assert!(mark(3), "only what the operator holds is left");
        finish();
        assert!(sweep::shards().map(|shard| sweep::drop_unmarked(shard, true)).sum::<usize>() > 0);
        assert!(!known("in a batch that stays") && !known("in a batch that is built meanwhile"));
        assert!(known("first in an operator") && known("last there"), "marked anew");
    }

    #[test]
    fn batches_that_are_gone_are_not_filed_for_long() {
        let kept = batch("kept", 1);
        built(Rc::clone(&kept));
        (0..10 * LEAST_FILED).for_each(|_| merged(&batch("short", 1)));
        let filed = REGISTRY.with_borrow(|registry| registry.batches.len());
        assert!(filed <= LEAST_FILED, "{filed} are filed");
        assert!(REGISTRY.with_borrow(|registry| registry.batches[0].strong_count() > 0));
    }
}
