//! A sample of a batch's keys, by which far ones are found.
//!
//! Keys of a long batch are far apart in memory: a search that halves what is left meets another cold line of it at each
//! step. So the first words of some keys stand together.

use std::ops::Range;

use dataflow_protocol::value::Word;

use crate::container::search::gallop;

/// Words of keys for one in the sample, at most, which decides what it takes of memory.
const WORDS: usize = 64;

/// Keys for one in the sample, at least.
const LEAST_STRIDE: usize = 8;

/// Fewer keys than so many in the sample are found without it.
const FEW: usize = 32;

/// The first words of some keys of a batch, at equal distances; none of a short one.
#[derive(Clone, Debug, Default)]
pub(super) struct Sample {
    firsts: Vec<Word>,
    /// Keys stand two to the power of this apart.
    shift: u32,
}

impl Sample {
    /// Of keys of `width` words in order.
    pub(super) fn of(keys: &[Word], width: usize) -> Sample {
        let shift = (WORDS / width.max(1)).max(LEAST_STRIDE).ilog2();
        if width == 0 || keys.len() < (FEW * width) << shift {
            return Sample::default();
        }
        let mut firsts = Vec::with_capacity((keys.len() / width).div_ceil(1 << shift));
        firsts.extend(keys.iter().step_by(width << shift));
        Sample { firsts, shift }
    }

    pub(super) fn heap_bytes(&self) -> usize {
        8 * self.firsts.capacity()
    }

    /// Where, from `from` up to `end`, the first key stands that isn't less than one that begins with `first`; the key at
    /// `from` is less.
    #[inline]
    pub(super) fn narrow(&self, from: usize, end: usize, first: Word) -> Range<usize> {
        let firsts = &self.firsts;
        let next = (from >> self.shift) + 1;
        if next >= firsts.len() {
            return from + 1..end;
        }
        let begin = gallop(next, firsts.len(), |at| firsts[at] < first);
        let stop = gallop(begin, firsts.len(), |at| firsts[at] <= first);
        (from + 1).max(((begin - 1) << self.shift) + 1)..end.min(stop << self.shift)
    }
}
