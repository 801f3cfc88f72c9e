//! Run-aware columns for times and differences.
//!
//! Most containers and most batches hold updates of one time, and most differences are 1. A column that has seen one
//! value only stores that value once; the first other value makes it an ordinary vector.

use differential_dataflow::lattice::Lattice;
use timely::order::Product;
use timely::progress::Timestamp;

/// Time inside a recursion: the cluster's time and the iteration.
pub(crate) type Inner = Product<u64, u32>;

/// A vector that takes no space while all its values are equal.
#[derive(Clone, Debug, Default)]
pub(crate) struct RunVec<V> {
    len: usize,
    /// The value of all, while `each` is empty.
    same: V,
    each: Vec<V>,
    /// How many values will come, if that is known.
    expected: usize,
}

impl<V: Copy + Eq + Default> RunVec<V> {
    #[inline]
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    #[inline]
    pub(crate) fn push(&mut self, value: V) {
        if self.each.is_empty() {
            if self.len == 0 {
                self.same = value;
                self.len = 1;
                return;
            }
            if value == self.same {
                self.len += 1;
                return;
            }
            self.spill();
        }
        self.each.push(value);
        self.len += 1;
    }

    #[cold]
    fn spill(&mut self) {
        self.each.reserve(self.expected.max(self.len + 16));
        self.each.resize(self.len, self.same);
    }

    /// Announces so many values in all, for when space is needed.
    pub(crate) fn expect(&mut self, values: usize) {
        self.expected = values;
    }

    #[inline]
    pub(crate) fn get(&self, index: usize) -> V {
        debug_assert!(index < self.len);
        if self.each.is_empty() { self.same } else { self.each[index] }
    }

    /// The one value of all, if there is one and the column knows it.
    #[inline]
    pub(crate) fn uniform(&self) -> Option<V> {
        (self.each.is_empty() && self.len > 0).then_some(self.same)
    }

    /// Appends `other`'s values in `range`.
    pub(crate) fn extend_from(&mut self, other: &Self, range: std::ops::Range<usize>) {
        if range.is_empty() {
            return;
        }
        match other.uniform() {
            Some(value) if self.len == 0 => {
                self.same = value;
                self.len = range.len();
            }
            Some(value) if self.uniform() == Some(value) => self.len += range.len(),
            Some(_) => range.for_each(|index| self.push(other.get(index))),
            None => {
                if self.each.is_empty() {
                    self.spill();
                }
                self.len += range.len();
                self.each.extend_from_slice(&other.each[range]);
            }
        }
    }

    /// Replaces every value; stays uniform where it was.
    pub(crate) fn map<W: Copy + Eq + Default>(&self, logic: impl Fn(V) -> W) -> RunVec<W> {
        match self.uniform() {
            Some(value) => RunVec { len: self.len, same: logic(value), ..RunVec::default() },
            None => {
                let mut mapped = RunVec::default();
                self.each.iter().for_each(|&value| mapped.push(logic(value)));
                mapped
            }
        }
    }

    pub(crate) fn clear(&mut self) {
        self.len = 0;
        self.each.clear();
    }

    /// Bytes on the heap.
    pub(crate) fn heap_bytes(&self) -> usize {
        self.each.capacity() * size_of::<V>()
    }

    /// Releases spare capacity.
    pub(crate) fn shrink(&mut self) {
        self.each.shrink_to_fit();
    }
}

/// A column of times.
pub(crate) trait TimeColumn<T>: Clone + Default + Send + std::fmt::Debug + 'static {
    fn push(&mut self, time: T);
    fn get(&self, index: usize) -> T;
    /// The one time of all, if the column knows there is only one.
    fn uniform(&self) -> Option<T>;
    fn extend_from(&mut self, other: &Self, range: std::ops::Range<usize>);
    /// Announces so many times in all.
    fn expect(&mut self, times: usize);
    fn clear(&mut self);
    fn heap_bytes(&self) -> usize;
    fn shrink(&mut self);
}

impl<T: Copy + Eq + Default + Send + std::fmt::Debug + 'static> TimeColumn<T> for RunVec<T> {
    #[inline]
    fn push(&mut self, time: T) {
        RunVec::push(self, time);
    }
    #[inline]
    fn get(&self, index: usize) -> T {
        RunVec::get(self, index)
    }
    fn uniform(&self) -> Option<T> {
        RunVec::uniform(self)
    }
    fn extend_from(&mut self, other: &Self, range: std::ops::Range<usize>) {
        RunVec::extend_from(self, other, range);
    }
    fn expect(&mut self, times: usize) {
        RunVec::expect(self, times);
    }
    fn clear(&mut self) {
        RunVec::clear(self);
    }
    fn heap_bytes(&self) -> usize {
        RunVec::heap_bytes(self)
    }
    fn shrink(&mut self) {
        RunVec::shrink(self);
    }
}

/// Times of a recursion: after compaction the outer coordinate is one value, so the two stand apart.
#[derive(Clone, Debug, Default)]
pub(crate) struct InnerColumn {
    outer: RunVec<u64>,
    inner: RunVec<u32>,
}

impl TimeColumn<Inner> for InnerColumn {
    #[inline]
    fn push(&mut self, time: Inner) {
        self.outer.push(time.outer);
        self.inner.push(time.inner);
    }
    #[inline]
    fn get(&self, index: usize) -> Inner {
        Product::new(self.outer.get(index), self.inner.get(index))
    }
    fn uniform(&self) -> Option<Inner> {
        Some(Product::new(self.outer.uniform()?, self.inner.uniform()?))
    }
    fn extend_from(&mut self, other: &Self, range: std::ops::Range<usize>) {
        self.outer.extend_from(&other.outer, range.clone());
        self.inner.extend_from(&other.inner, range);
    }
    fn expect(&mut self, times: usize) {
        self.outer.expect(times);
        self.inner.expect(times);
    }
    fn clear(&mut self) {
        self.outer.clear();
        self.inner.clear();
    }
    fn heap_bytes(&self) -> usize {
        self.outer.heap_bytes() + self.inner.heap_bytes()
    }
    fn shrink(&mut self) {
        self.outer.shrink();
        self.inner.shrink();
    }
}

/// The two kinds of time the engine computes with: the cluster's, and [`Inner`] inside a recursion.
pub(crate) trait EngineTime: Timestamp + Lattice + Copy + Default {
    /// How a batch keeps its times.
    type Column: TimeColumn<Self>;
    /// A time of the cluster, seen from here.
    fn from_outer(time: u64) -> Self;
    /// The cluster's time.
    fn outer(self) -> u64;
    /// The iteration; 0 outside a recursion.
    fn iteration(self) -> u32;
    /// Put together again.
    fn compose(outer: u64, iteration: u32) -> Self;
}

impl EngineTime for u64 {
    type Column = RunVec<u64>;
    #[inline]
    fn from_outer(time: u64) -> Self {
        time
    }
    #[inline]
    fn outer(self) -> u64 {
        self
    }
    #[inline]
    fn iteration(self) -> u32 {
        0
    }
    #[inline]
    fn compose(outer: u64, _: u32) -> Self {
        outer
    }
}

impl EngineTime for Inner {
    type Column = InnerColumn;
    #[inline]
    fn from_outer(time: u64) -> Self {
        Product::new(time, 0)
    }
    #[inline]
    fn outer(self) -> u64 {
        self.outer
    }
    #[inline]
    fn iteration(self) -> u32 {
        self.inner
    }
    #[inline]
    fn compose(outer: u64, iteration: u32) -> Self {
        Product::new(outer, iteration)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn run_takes_no_space_until_a_second_value() {
        let mut run = RunVec::default();
        (0..100).for_each(|_| run.push(7u64));
        assert_eq!((run.len(), run.uniform(), run.heap_bytes()), (100, Some(7), 0));
        run.push(8);
        assert_eq!((run.get(0), run.get(99), run.get(100), run.uniform()), (7, 7, 8, None));
    }

    #[test]
    fn extending_keeps_every_value_in_place() {
        let runs: [&[u64]; 5] = [&[], &[5, 5, 5], &[5], &[1, 2, 3], &[5, 6]];
        for (left, right) in runs.iter().flat_map(|left| runs.map(|right| (left, right))) {
            let (mut extended, mut other) = (RunVec::default(), RunVec::default());
            left.iter().for_each(|&value| extended.push(value));
            right.iter().for_each(|&value| other.push(value));
            extended.extend_from(&other, 0..right.len());
            let values: Vec<u64> = (0..extended.len()).map(|index| extended.get(index)).collect();
            assert_eq!(values, [left, right].concat());
        }
    }
}
