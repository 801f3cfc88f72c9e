//! What words of the dictionary stand for, and which word that makes.

use std::borrow::Cow;
use std::hash::Hasher;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::value::Word;

const INLINE: usize = 7;
const KEY: u64 = 0x6466_6c6f_7773_7276;

/// Whether a word stands for itself rather than for something that the dictionary keeps.
#[inline]
pub(super) fn is_inline(word: Word) -> bool {
    (word >> 56) as usize <= INLINE
}

/// Whether a word is a number less than 2⁵² away from 0: no hash is, so that what looks for words of the
/// dictionary passes over most numbers without a look-up.
#[inline]
pub(super) fn is_number(word: Word) -> bool {
    matches!(word >> 52, 0x7ff | 0x800)
}

/// What a word stands for, owned.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "(u64, Vec<u8>)", into = "(u64, Vec<u8>)")]
pub enum Content {
    /// A symbol.
    Text(Arc<str>),
    /// A `bytes` or a `uuid`.
    Bytes(Arc<[u8]>),
    /// A record or a value of an algebraic type: its branch, then its fields; see [`crate::shape`].
    Record(Arc<[Word]>),
}

/// What a word stands for, borrowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Entry<'a> {
    /// A symbol.
    Text(&'a str),
    /// A `bytes` or a `uuid`.
    Bytes(&'a [u8]),
    /// A record or a value of an algebraic type: its branch, then its fields.
    Record(&'a [Word]),
}

impl<'a> From<&'a str> for Entry<'a> {
    fn from(text: &'a str) -> Self {
        Entry::Text(text)
    }
}

impl<'a> From<&'a [u8]> for Entry<'a> {
    fn from(bytes: &'a [u8]) -> Self {
        Entry::Bytes(bytes)
    }
}

impl<'a> From<&'a Content> for Entry<'a> {
    fn from(content: &'a Content) -> Self {
        content.entry()
    }
}

impl Content {
    /// Bytes it takes, about.
    pub fn bytes(&self) -> usize {
        size_of::<Content>() + self.parts().1.len()
    }

    /// The words of a record.
    pub(super) fn record(&self) -> Option<Arc<[Word]>> {
        match self {
            Content::Record(words) => Some(Arc::clone(words)),
            _ => None,
        }
    }

    /// The content, borrowed.
    pub fn entry(&self) -> Entry<'_> {
        match self {
            Content::Text(text) => Entry::Text(text),
            Content::Bytes(bytes) => Entry::Bytes(bytes),
            Content::Record(words) => Entry::Record(words),
        }
    }
}

impl Content {
    /// How it travels between processes: its kind, and its bytes.
    pub fn parts(&self) -> (u64, Cow<'_, [u8]>) {
        match self {
            Content::Text(text) => (0, Cow::Borrowed(text.as_bytes())),
            Content::Bytes(bytes) => (1, Cow::Borrowed(bytes)),
            Content::Record(words) => (2, words.iter().flat_map(|word| word.to_le_bytes()).collect()),
        }
    }

    /// The content with these [`Self::parts`].
    pub fn from_parts(kind: u64, bytes: &[u8]) -> Option<Content> {
        match kind {
            0 => std::str::from_utf8(bytes).ok().map(|text| Content::Text(text.into())),
            1 => Some(Content::Bytes(bytes.into())),
            2 if bytes.len().is_multiple_of(8) => {
                let word = |bytes: &[u8]| bytes.try_into().map_or(0, Word::from_le_bytes);
                Some(Content::Record(bytes.chunks_exact(8).map(word).collect()))
            }
            _ => None,
        }
    }
}

impl From<Content> for (u64, Vec<u8>) {
    fn from(content: Content) -> Self {
        let (kind, bytes) = content.parts();
        (kind, bytes.into_owned())
    }
}

impl TryFrom<(u64, Vec<u8>)> for Content {
    type Error = &'static str;

    fn try_from((kind, bytes): (u64, Vec<u8>)) -> Result<Self, Self::Error> {
        Content::from_parts(kind, &bytes).ok_or("no content of the dictionary")
    }
}

impl Entry<'_> {
    /// The content, owned.
    pub fn to_content(self) -> Content {
        match self {
            Entry::Text(text) => Content::Text(text.into()),
            Entry::Bytes(bytes) => Content::Bytes(bytes.into()),
            Entry::Record(words) => Content::Record(words.into()),
        }
    }

    pub(super) fn inline(self) -> Option<Word> {
        let bytes = match self {
            Entry::Text(text) => text.as_bytes(),
            Entry::Bytes(bytes) => bytes,
            Entry::Record(_) => return None,
        };
        if bytes.len() > INLINE {
            return None;
        }
        let mut word = [0u8; 8];
        word[0] = bytes.len() as u8;
        word[1..=bytes.len()].copy_from_slice(bytes);
        Some(Word::from_be_bytes(word))
    }

    /// Kinds hash apart, so that a text and equal bytes have each their own place.
    pub(super) fn hashed(self) -> Word {
        let hasher = |kind| siphasher::sip::SipHasher13::new_with_keys(KEY, kind);
        let of = |kind, bytes: &[u8]| {
            let mut hasher = hasher(kind);
            hasher.write(bytes);
            hasher.finish()
        };
        let hash = match self {
            Entry::Text(text) => of(0x7379_6d62_6f6c_7331, text.as_bytes()),
            Entry::Bytes(bytes) => of(0x6279_7465_735f_7331, bytes),
            Entry::Record(words) => {
                let mut hasher = hasher(0x7265_636f_7264_7331);
                words.iter().for_each(|&word| hasher.write(&word.to_le_bytes()));
                hasher.finish()
            }
        };
        let hash = if is_inline(hash) { hash | 1 << 63 } else { hash };
        if is_number(hash) { hash ^ 1 << 62 } else { hash }
    }
}
