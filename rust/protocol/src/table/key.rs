//! Rows as bytes that compare as the rows do, and can be read again.
//!
//! A row is the bytes of its values, one after the other, and no value's bytes begin another's of its type:
//! * an integer: how many bytes it needs and on which side of 0, then these bytes;
//! * an instant or a float: the eight bytes of its word, which are in order;
//! * a text or bytes: itself, each 0 followed by 255, then two zeros; a uuid: its sixteen bytes;
//! * a record: 0 for `nil`, else 1 and its fields; a value of an algebraic type: its branch's number in two bytes, and
//!   its fields.

use memchr::memchr;

/// The tag of the integer 0; above it the bytes that are needed are added, below −1 taken away.
const ZERO: u8 = 9;

/// Appends an integer: itself, or what it is below −1.
#[inline]
pub(super) fn integer(negative: bool, distance: u64, key: &mut Vec<u8>) {
    let length = (u64::BITS - distance.leading_zeros()).div_ceil(8) as usize;
    let flip = if negative { u64::MAX } else { 0 };
    let bytes = (distance ^ flip).to_be_bytes();
    key.push(if negative { ZERO - 1 - length as u8 } else { ZERO + length as u8 });
    key.extend_from_slice(&bytes[bytes.len() - length..]);
}

/// Appends a signed integer.
#[inline]
pub(super) fn number(number: i64, key: &mut Vec<u8>) {
    let distance = if number < 0 { !number } else { number };
    integer(number < 0, distance as u64, key);
}

/// The record that is nothing.
pub(super) const NIL: u8 = 0;
/// Stands before the fields of a record.
pub(super) const RECORD: u8 = 1;

/// Appends the number of a branch.
pub(super) fn branch(number: u16, key: &mut Vec<u8>) {
    key.extend_from_slice(&number.to_be_bytes());
}

/// Appends a word that is in the order of values.
#[inline]
pub(super) fn word(word: u64, key: &mut Vec<u8>) {
    key.extend_from_slice(&word.to_be_bytes());
}

/// Appends a text, or bytes of any length.
#[inline]
pub(super) fn bytes(mut bytes: &[u8], key: &mut Vec<u8>) {
    while let Some(zero) = memchr(0, bytes) {
        key.extend_from_slice(&bytes[..=zero]);
        key.push(255);
        bytes = &bytes[zero + 1..];
    }
    key.extend_from_slice(bytes);
    key.extend_from_slice(&[0, 0]);
}

/// Reads values from the front of a key; `None` where there is no such value, which is not to happen.
pub(super) struct Reader<'k> {
    rest: &'k [u8],
}

impl<'k> Reader<'k> {
    pub(super) fn new(key: &'k [u8]) -> Self {
        Reader { rest: key }
    }

    /// Bytes that haven't been read.
    pub(super) fn left(&self) -> usize {
        self.rest.len()
    }

    #[inline]
    pub(super) fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (taken, rest) = self.rest.split_first_chunk::<N>()?;
        self.rest = rest;
        Some(*taken)
    }

    /// An integer: whether it is negative, and itself or what it is below −1.
    #[inline]
    pub(super) fn integer(&mut self) -> Option<(bool, u64)> {
        let [tag] = self.take::<1>()?;
        let negative = tag < ZERO;
        let length = usize::from(if negative { ZERO - 1 - tag } else { tag - ZERO });
        let (taken, rest) = self.rest.split_at_checked(length)?;
        self.rest = rest;
        let flip = if negative { 255 } else { 0 };
        Some((negative, taken.iter().fold(0, |value, byte| value << 8 | u64::from(byte ^ flip))))
    }

    /// A signed integer.
    #[inline]
    pub(super) fn number(&mut self) -> Option<i64> {
        let (negative, distance) = self.integer()?;
        Some(if negative { !(distance as i64) } else { distance as i64 })
    }

    /// A word.
    #[inline]
    pub(super) fn word(&mut self) -> Option<u64> {
        self.take().map(u64::from_be_bytes)
    }

    /// A text, or bytes of any length, in parts.
    #[inline]
    pub(super) fn bytes(&mut self, mut part: impl FnMut(&'k [u8])) -> Option<()> {
        loop {
            let zero = memchr(0, self.rest)?;
            let kept = usize::from(*self.rest.get(zero + 1)? == 255);
            part(&self.rest[..zero + kept]);
            self.rest = &self.rest[zero + 2..];
            if kept == 0 {
                return Some(());
            }
        }
    }
}
