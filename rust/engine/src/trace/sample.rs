//! A sample of a batch's keys, by which far ones are found.
//!
//! Keys of a long batch are far apart in memory: a search that halves what is left meets another cold line of it at each
//! step. So the first words of some keys stand together.

use std::ops::Range;

use dataflow_protocol::value::Word;

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

/// The first position from `from` up to `end` that is not `less`, which holds for a prefix.
#[inline]
pub(super) fn gallop(from: usize, end: usize, less: impl Fn(usize) -> bool) -> usize {
    if from >= end || !less(from) {
        return from;
    }
    let (mut low, mut step) = (from, 1);
    while low + step < end && less(low + step) {
        low += step;
        step <<= 1;
    }
    bisect(low + 1..end.min(low + step), less)
}

/// The first position in `range`, or its end, that is not `less`, which holds for a prefix.
#[inline]
pub(super) fn bisect(range: Range<usize>, less: impl Fn(usize) -> bool) -> usize {
    let (mut low, mut high) = (range.start, range.end);
    while low < high {
        let middle = low + (high - low) / 2;
        if less(middle) { low = middle + 1 } else { high = middle }
    }
    low
}
