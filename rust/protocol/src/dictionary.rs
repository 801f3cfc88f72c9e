//! The process-wide dictionary behind words that stand for more than fits into a word.
//!
//! Such a word depends on nothing but what it stands for, so that all processes agree without talking: texts and
//! bytes of up to seven bytes stand in the word itself (length in the top byte, then the bytes), longer ones are known
//! by a 64-bit hash with its top byte at least 8, and kept here. Two contents with one hash are refused at
//! [`intern`], never confused. Processes learn each other's contents before they meet the words: what clients send is
//! announced with the sequenced command, what functors make travels with the rows ([`foreign`]).

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};
use std::hash::Hasher;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock, RwLock};

use serde::{Deserialize, Serialize};

use crate::shape::{MAX_BYTES, MAX_DEPTH};
use crate::value::Word;

const SHARDS: usize = 64;
const INLINE: usize = 7;
const KEY: u64 = 0x6466_6c6f_7773_7276;

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

    fn inline(self) -> Option<Word> {
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
    fn hashed(self) -> Word {
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
        if hash >> 56 <= INLINE as u64 { hash | 1 << 63 } else { hash }
    }
}

struct Known {
    content: Content,
    /// Every process of the cluster has been told; otherwise the content must travel with the row.
    announced: bool,
    /// Of a record: bytes that it holds, all that stands in it included, and how deep it nests.
    extent: Extent,
}

/// How much there is to a value.
#[derive(Clone, Copy, Debug, Default)]
struct Extent {
    bytes: usize,
    depth: usize,
}

type Shard = HashMap<Word, Known, foldhash::fast::FixedState>;

static SHARD: LazyLock<Vec<RwLock<Shard>>> =
    LazyLock::new(|| (0..SHARDS).map(|_| RwLock::new(HashMap::default())).collect());
static UNANNOUNCED: AtomicUsize = AtomicUsize::new(0);

/// A record is larger than any may be.
#[derive(Debug, thiserror::Error)]
#[error("a record of more than {MAX_BYTES} bytes, or more than {MAX_DEPTH} in one another")]
pub struct TooLarge;

/// Two different contents have the same 64-bit hash.
#[derive(Debug, thiserror::Error)]
#[error("{what} has the same 64-bit hash as another value in use")]
pub struct Collision {
    /// The value that was refused.
    pub what: String,
}

impl Collision {
    fn of(entry: Entry<'_>) -> Self {
        let what = match entry {
            Entry::Text(text) => format!("symbol {text:?}"),
            Entry::Bytes(bytes) => format!("a value of {} bytes", bytes.len()),
            Entry::Record(_) => "a record".to_owned(),
        };
        Collision { what }
    }
}

fn shard(word: Word) -> &'static RwLock<Shard> {
    &SHARD[(word as usize) % SHARDS]
}

fn write(word: Word) -> std::sync::RwLockWriteGuard<'static, Shard> {
    shard(word).write().unwrap_or_else(std::sync::PoisonError::into_inner)
}

fn read(word: Word) -> std::sync::RwLockReadGuard<'static, Shard> {
    shard(word).read().unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// Whether a word stands for itself rather than for something kept here.
#[inline]
fn is_inline(word: Word) -> bool {
    (word >> 56) as usize <= INLINE
}

/// Whether the known content of a word is this one, and has been announced.
fn same(known: &Known, entry: Entry<'_>) -> Result<bool, Collision> {
    if known.content.entry() == entry { Ok(known.announced) } else { Err(Collision::of(entry)) }
}

/// The word for a content, which is remembered; `true` if not every process is known to have been told of it.
///
/// Whoever accepts such a content from a client sends it with the next sequenced command, also where another worker of
/// this process is about to: the rows of either may be sequenced first.
///
/// # Errors
///
/// [`Collision`] if another content with the same hash is in use. Nothing changes in that case.
pub fn intern<'a>(entry: impl Into<Entry<'a>>) -> Result<(Word, bool), Collision> {
    let entry = entry.into();
    let word = match entry.inline() {
        Some(word) => return Ok((word, false)),
        None => entry.hashed(),
    };
    if let Some(known) = read(word).get(&word) {
        return Ok((word, !same(known, entry)?));
    }
    // Before the lock: what a record holds may be in the same shard.
    let extent = extent(entry);
    let mut shard = write(word);
    if let Some(known) = shard.get(&word) {
        return Ok((word, !same(known, entry)?));
    }
    shard.insert(word, Known { content: entry.to_content(), announced: false, extent });
    UNANNOUNCED.fetch_add(1, Ordering::Relaxed);
    Ok((word, true))
}

/// Whether a record of these words is no larger than any may be.
///
/// # Errors
///
/// [`TooLarge`] if it isn't.
pub fn check_record(words: &[Word]) -> Result<(), TooLarge> {
    let extent = extent(Entry::Record(words));
    if extent.bytes > MAX_BYTES || extent.depth > MAX_DEPTH { Err(TooLarge) } else { Ok(()) }
}

/// What a record holds is known by its words alone: a number that happens to equal a word of the dictionary counts
/// for more than it is.
fn extent(entry: Entry<'_>) -> Extent {
    match entry {
        Entry::Text(text) => Extent { bytes: text.len(), depth: 0 },
        Entry::Bytes(bytes) => Extent { bytes: bytes.len(), depth: 0 },
        Entry::Record(words) => {
            let mut extent = Extent { bytes: 8, depth: 0 };
            for &word in words {
                let inner = if is_inline(word) { None } else { read(word).get(&word).map(|k| k.extent) };
                let inner = inner.unwrap_or_default();
                extent.bytes = extent.bytes.saturating_add(8).saturating_add(inner.bytes);
                extent.depth = extent.depth.max(inner.depth);
            }
            Extent { depth: extent.depth + 1, ..extent }
        }
    }
}

/// The word for a content that came with a sequenced command: from now on rows with it travel without it.
///
/// # Errors
///
/// [`Collision`] if another content with the same hash is in use. Nothing changes in that case.
pub fn announced<'a>(entry: impl Into<Entry<'a>>) -> Result<Word, Collision> {
    let (word, new) = intern(entry)?;
    if new {
        announce(word);
    }
    Ok(word)
}

/// Takes note that every process has been, or will have been, told what `word` stands for before it meets it.
pub fn announce(word: Word) {
    if !is_inline(word)
        && let Some(known) = write(word).get_mut(&word).filter(|known| !known.announced)
    {
        known.announced = true;
        UNANNOUNCED.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The processes of a new generation know nothing of what was announced before: everything is to be announced anew.
/// Not while rows with the words are on their way.
pub fn forget_announcements() {
    for shard in SHARD.iter() {
        let mut shard = shard.write().unwrap_or_else(std::sync::PoisonError::into_inner);
        for known in shard.values_mut().filter(|known| known.announced) {
            known.announced = false;
            UNANNOUNCED.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// [`announce`] of a word and of all that stands in it.
pub fn announce_whole(word: Word) {
    if let Some(Content::Record(words)) = content(word) {
        words.iter().for_each(|&inner| announce_whole(inner));
    }
    announce(word);
}

/// The word that a content has or would have, without remembering it: for questions, which bring nothing new.
///
/// # Errors
///
/// [`Collision`] if another content with the same hash is in use.
pub fn word_of<'a>(entry: impl Into<Entry<'a>>) -> Result<Word, Collision> {
    let entry = entry.into();
    if let Some(word) = entry.inline() {
        return Ok(word);
    }
    let word = entry.hashed();
    match read(word).get(&word) {
        Some(known) => same(known, entry).map(|_| word),
        None => Ok(word),
    }
}

/// Calls `logic` with the text of `word`; `None` if this process knows no text for it.
pub fn with_text<R>(word: Word, logic: impl FnOnce(&str) -> R) -> Option<R> {
    if is_inline(word) {
        let bytes = word.to_be_bytes();
        return std::str::from_utf8(&bytes[1..=(word >> 56) as usize]).ok().map(logic);
    }
    match content(word)? {
        Content::Text(text) => Some(logic(&text)),
        _ => None,
    }
}

/// Calls `logic` with the bytes of `word`; `None` if this process knows no bytes for it.
pub fn with_bytes<R>(word: Word, logic: impl FnOnce(&[u8]) -> R) -> Option<R> {
    if is_inline(word) {
        let bytes = word.to_be_bytes();
        return Some(logic(&bytes[1..=(word >> 56) as usize]));
    }
    match content(word)? {
        Content::Bytes(bytes) => Some(logic(&bytes)),
        _ => None,
    }
}

/// The branch and the fields of `word`; `None` if this process knows no record for it, as for `nil`.
pub fn record(word: Word) -> Option<Arc<[Word]>> {
    if is_inline(word) {
        return None;
    }
    match content(word)? {
        Content::Record(words) => Some(words),
        _ => None,
    }
}

/// Cloned out (a reference count), so that whoever looks at it may intern without holding the lock.
fn content(word: Word) -> Option<Content> {
    read(word).get(&word).map(|known| known.content.clone())
}

/// The contents of those of the `words` that only this process may know, each once: they must travel with the rows
/// that hold the words.
///
/// Costs one relaxed load while everything has been announced. A number that happens to equal such a word sends a
/// content in vain, no more.
pub fn foreign(words: impl IntoIterator<Item = Word>) -> Vec<Content> {
    if UNANNOUNCED.load(Ordering::Relaxed) == 0 {
        return Vec::new();
    }
    let mut seen = HashSet::new();
    let mut found = Vec::new();
    for word in words {
        collect_foreign(word, &mut seen, &mut found);
    }
    found
}

/// What stands in a record comes before it. Whoever announces a record has announced what stands in it.
fn collect_foreign(word: Word, seen: &mut HashSet<Word>, found: &mut Vec<Content>) {
    if is_inline(word) {
        return;
    }
    let content = read(word).get(&word).filter(|known| !known.announced).map(|k| k.content.clone());
    if let Some(content) = content
        && seen.insert(word)
    {
        if let Content::Record(words) = &content {
            words.iter().for_each(|&inner| collect_foreign(inner, seen, found));
        }
        found.push(content);
    }
}

/// Contents that this process remembers.
pub fn len() -> usize {
    SHARD.iter().map(|s| s.read().unwrap_or_else(std::sync::PoisonError::into_inner).len()).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_and_long_texts_come_back() {
        for text in ["", "a", "sevenby", "eight by", "a rather long symbol", "ünï"] {
            let word = announced(text).unwrap();
            assert_eq!(with_text(word, str::to_owned).as_deref(), Some(text));
            assert_eq!((intern(text).unwrap(), word_of(text).unwrap()), ((word, false), word));
        }
    }

    #[test]
    fn short_and_long_bytes_come_back() {
        for bytes in [&b""[..], b"\0", b"\xff\xfe", b"1234567", b"12345678", &[0xff; 300]] {
            let word = announced(Entry::Bytes(bytes)).unwrap();
            assert_eq!(with_bytes(word, <[u8]>::to_vec).as_deref(), Some(bytes));
            assert_eq!(word_of(Entry::Bytes(bytes)).unwrap(), word);
        }
    }

    #[test]
    fn a_text_and_equal_bytes_are_two_entries() {
        let text = announced("the same eight and more").unwrap();
        let bytes = announced(Entry::Bytes(b"the same eight and more")).unwrap();
        assert_ne!(text, bytes);
        assert_eq!((with_bytes(text, <[u8]>::len), with_text(bytes, str::len)), (None, None));
    }

    #[test]
    fn contents_travel_until_they_are_announced() {
        let text = "made by a functor here";
        let (word, new) = intern(text).unwrap();
        assert!(new && intern(text).unwrap().1, "every worker is told to announce it");
        assert_eq!(foreign([word, 5, word]), [Content::Text(text.into())]);
        announced(text).unwrap();
        assert_eq!((foreign([word]), intern(text).unwrap().1), (vec![], false));
    }

    #[test]
    fn records_travel_after_what_stands_in_them() {
        let inner = intern(Entry::Record(&[0, 7])).unwrap().0;
        let (outer, _) = intern(Entry::Record(&[0, inner, 0])).unwrap();
        let (within, whole) =
            (Content::Record([0, 7].as_slice().into()), Content::Record([0, inner, 0].as_slice().into()));
        assert_eq!(foreign([outer, inner]), [within.clone(), whole.clone()]);
        assert_eq!(record(outer).as_deref(), Some(&[0, inner, 0][..]));
        let (kind, bytes) = whole.parts();
        assert_eq!(Content::from_parts(kind, &bytes), Some(whole.clone()));
        announce_whole(outer);
        assert_eq!((foreign([outer, inner]), record(0)), (vec![], None));
    }

    #[test]
    fn a_record_has_bounds_whatever_it_shares() {
        let mut word = 0;
        let mut made = 0;
        while check_record(&[0, word, word]).is_ok() {
            word = intern(Entry::Record(&[0, word, word])).unwrap().0;
            made += 1;
        }
        assert_eq!(made, 15, "each is twice the one before, and a MiB is enough");
        let mut list = 0;
        for _ in 0..MAX_DEPTH {
            check_record(&[0, 1, list]).unwrap();
            list = intern(Entry::Record(&[0, 1, list])).unwrap().0;
        }
        assert!(check_record(&[0, 1, list]).is_err());
    }

    #[test]
    fn asking_for_a_word_remembers_nothing() {
        let word = word_of("nobody has ever said this").unwrap();
        assert_eq!(with_text(word, str::to_owned), None);
    }
}
