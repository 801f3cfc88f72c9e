//! Dropping what nothing holds any more (ADR 0008).
//!
//! Time is divided into epochs, one for each sweep. A sweep begins with the next epoch, in which workers mark the words that
//! they hold; whatever is interned is marked by that. Once all that a process holds is marked, it drops the entries that
//! aren't. Nobody stops meanwhile. When that is safe is for the workers to know; what is here is what
//! the dictionary does for them:
//!
//! * A word is marked with all that stands in it. Words are found without regard to types: a number that happens to equal one
//!   keeps an entry, no more.
//! * Announcements count for an epoch: from its beginning on, rows carry the contents of what hasn't been announced in it
//!   ([`super::foreign`]), until processes have told each other what they keep ([`kept`], [`keep`]).
//! * Words that are in nobody's dataflows are held by a [`Pin`], which [`Grace`] waits for.

use std::cell::Cell;
use std::ops::Range;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};

use super::content::{is_inline, is_number};
use super::{BYTES, ENTRIES, SHARD, SHARDS, Shard, UNANNOUNCED, read, write};
use crate::value::Word;

/// Written with all shards locked.
static EPOCH: AtomicU32 = AtomicU32::new(1);

thread_local! {
    /// The epoch in which this thread's worker applies commands; 0 on other threads.
    static ORDER: Cell<u32> = const { Cell::new(0) };
}

/// The present epoch of the process.
#[inline]
pub(super) fn epoch() -> u32 {
    EPOCH.load(Ordering::Relaxed)
}

/// The epoch to which the commands belong that this thread applies. It may be behind the process's: another worker
/// of it may have applied the beginning of a sweep already.
pub(super) fn order() -> u32 {
    match ORDER.get() {
        0 => epoch(),
        order => order,
    }
}

/// Moves the process on to `next`, unless it is there: nothing is announced in it yet.
fn advance(next: impl FnOnce(u32) -> u32) {
    let shards: Vec<_> = SHARD.iter().map(write).collect();
    let next = next(epoch());
    if next > epoch() {
        EPOCH.store(next, Ordering::Relaxed);
        UNANNOUNCED.store(shards.iter().map(|shard| shard.len()).sum(), Ordering::Relaxed);
    }
}

/// For a worker: it begins to apply a generation's commands. All workers of a process call it before any of them begins a
/// sweep.
pub fn join() {
    ORDER.set(epoch());
}

/// For a worker: a sweep begins, at the same command on all workers.
pub fn begin() {
    let next = order() + 1;
    advance(|_| next);
    ORDER.set(next);
}

/// The processes of a new generation know nothing of what was announced before: everything is to be announced anew. A sweep
/// under way is given up. Not while rows with the words are on their way.
pub fn new_generation() {
    // By two, since what was announced in the epoch before is what `kept` finds.
    advance(|epoch| epoch + 2);
}

/// Marks words of the dictionary, and all that stands in them: they are kept by the sweep that was begun last.
pub fn mark(words: &[Word]) {
    for &word in words.iter().filter(|&&word| !is_inline(word) && !is_number(word)) {
        let within = read(word).get(&word).and_then(|known| known.mark());
        within.iter().for_each(|words| mark(words));
    }
}

/// The shards, for [`kept`] and [`drop_unmarked`].
pub fn shards() -> Range<usize> {
    0..SHARDS
}

/// Words of a shard that are marked, and that all processes knew when the sweep began: as long as each process is told to
/// [`keep`] them before it drops anything, all know them afterwards too.
pub fn kept(shard: usize) -> Vec<Word> {
    let epoch = epoch();
    let shard = SHARD[shard].read().unwrap_or_else(PoisonError::into_inner);
    let known = shard.iter().filter(|(_, known)| {
        known.marked.load(Ordering::Relaxed) == epoch && known.announced.load(Ordering::Relaxed) + 1 == epoch
    });
    known.map(|(&word, _)| word).collect()
}

/// For a worker, at the same command on all workers: every process keeps these words, which therefore count as announced.
pub fn keep(words: &[Word]) {
    mark(words);
    words.iter().for_each(|&word| super::announce(word));
}

/// Drops the entries of a shard that aren't marked; how many. What a process that is `alone` keeps, everybody knows.
pub fn drop_unmarked(shard: usize, alone: bool) -> usize {
    let mut shard = write(&SHARD[shard]);
    let (epoch, before) = (epoch(), shard.len());
    let (mut bytes, mut announced) = (0, 0);
    shard.retain(|_, known| {
        let keep = known.marked.load(Ordering::Relaxed) >= epoch;
        let told = known.announced.load(Ordering::Relaxed) == epoch;
        bytes += if keep { 0 } else { known.bytes() };
        announced += usize::from(!told && (!keep || alone));
        if keep && alone {
            known.announced.store(epoch, Ordering::Relaxed);
        }
        keep
    });
    let dropped = before - shard.len();
    UNANNOUNCED.fetch_sub(announced, Ordering::Relaxed);
    ENTRIES.fetch_sub(dropped, Ordering::Relaxed);
    BYTES.fetch_sub(bytes, Ordering::Relaxed);
    shrink(&mut shard);
    dropped
}

/// Gives memory back, but not for a few entries.
fn shrink(shard: &mut Shard) {
    if shard.capacity() > 4 * shard.len().max(16) {
        shard.shrink_to_fit();
    }
}

/// Pins, by the parity of the grace periods before them.
static PINS: [AtomicUsize; 2] = [AtomicUsize::new(0), AtomicUsize::new(0)];
static PARITY: AtomicUsize = AtomicUsize::new(0);

/// Keeps what its holder knows of the dictionary from being dropped: for words that are in no dataflow, as those of a
/// request between its reading and its taking effect. To be made before the words are met, and not to be held for long.
#[derive(Debug)]
pub struct Pin(usize);

impl Pin {
    /// From now on.
    pub fn new() -> Self {
        loop {
            let parity = PARITY.load(Ordering::SeqCst);
            PINS[parity].fetch_add(1, Ordering::SeqCst);
            if PARITY.load(Ordering::SeqCst) == parity {
                return Pin(parity);
            }
            PINS[parity].fetch_sub(1, Ordering::SeqCst);
        }
    }
}

impl Default for Pin {
    fn default() -> Self {
        Pin::new()
    }
}

/// For as long as the original, whose words it keeps.
impl Clone for Pin {
    fn clone(&self) -> Self {
        PINS[self.0].fetch_add(1, Ordering::SeqCst);
        Pin(self.0)
    }
}

impl Eq for Pin {}

/// What is pinned says nothing of the value that pins it.
impl PartialEq for Pin {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Drop for Pin {
    fn drop(&mut self) {
        PINS[self.0].fetch_sub(1, Ordering::SeqCst);
    }
}

/// Waits for the pins that there are when it begins. One at a time in a process.
#[derive(Debug)]
pub struct Grace(usize);

impl Grace {
    /// From now on.
    pub fn begin() -> Self {
        Grace(PARITY.fetch_xor(1, Ordering::SeqCst))
    }

    /// Whether all those pins are gone.
    pub fn is_over(&self) -> bool {
        PINS[self.0].load(Ordering::SeqCst) == 0
    }
}
