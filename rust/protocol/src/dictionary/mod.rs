//! The process-wide dictionary behind words that stand for more than fits into a word.
//!
//! Such a word depends on nothing but what it stands for, so that all processes agree without talking: texts and
//! bytes of up to seven bytes stand in the word itself (length in the top byte, then the bytes), longer ones are known
//! by a 64-bit hash with its top byte at least 8, and kept here. Two contents with one hash are refused at
//! [`intern`], never confused. Processes learn each other's contents before they meet the words: what clients send is
//! announced with the sequenced command, what functors make travels with the rows ([`foreign`]).
//!
//! What nothing holds any more is dropped, see [`sweep`] and ADR 0008.

mod content;
pub mod sweep;
#[cfg(test)]
mod tests;

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

pub use content::{Content, Entry};

use self::content::{is_inline, is_number};
use crate::shape::{MAX_BYTES, MAX_DEPTH};
use crate::value::Word;

const SHARDS: usize = 64;

/// What an entry takes besides its content, about.
const ENTRY_BYTES: usize = size_of::<Word>() + size_of::<Known>();

/// What is known of a word. Atomics change under a shard's lock for reading, the epoch doesn't.
struct Known {
    content: Content,
    /// Of a record: bytes that it holds, all that stands in it included, and how deep it nests.
    extent: Extent,
    /// The last epoch in which it was marked or interned.
    marked: AtomicU32,
    /// The last epoch in which every process has been told, if any; unless it is the present one, the content must
    /// travel with rows.
    announced: AtomicU32,
}

impl Known {
    fn new(content: Content, extent: Extent) -> Self {
        Known { content, extent, marked: AtomicU32::new(sweep::epoch()), announced: AtomicU32::new(0) }
    }

    fn bytes(&self) -> usize {
        ENTRY_BYTES + self.content.bytes()
    }

    /// Whether every process has been told in the present epoch.
    fn is_announced(&self) -> bool {
        self.announced.load(Ordering::Relaxed) == sweep::epoch()
    }

    /// Marks it. Returns what stands in it, if it is a record that is marked for the first time in this epoch: that
    /// is to be marked as well.
    fn mark(&self) -> Option<Arc<[Word]>> {
        let epoch = sweep::epoch();
        if self.marked.load(Ordering::Relaxed) >= epoch {
            return None;
        }
        self.marked.fetch_max(epoch, Ordering::Relaxed);
        self.content.record()
    }
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

/// Entries that aren't announced in the present epoch. The epoch doesn't change while a shard is locked.
static UNANNOUNCED: AtomicUsize = AtomicUsize::new(0);
static ENTRIES: AtomicUsize = AtomicUsize::new(0);
static BYTES: AtomicUsize = AtomicUsize::new(0);

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

fn write(shard: &'static RwLock<Shard>) -> RwLockWriteGuard<'static, Shard> {
    shard.write().unwrap_or_else(PoisonError::into_inner)
}

fn read(word: Word) -> RwLockReadGuard<'static, Shard> {
    shard(word).read().unwrap_or_else(PoisonError::into_inner)
}

/// Checks that the known content of a word is this one.
fn same(known: &Known, entry: Entry<'_>) -> Result<(), Collision> {
    if known.content.entry() == entry { Ok(()) } else { Err(Collision::of(entry)) }
}

/// What is done about an entry that was met.
struct Met {
    /// Some process may not have been told of it.
    new: bool,
    /// What stands in it, to be marked once no shard is locked.
    within: Option<Arc<[Word]>>,
}

fn met(known: &Known, entry: Entry<'_>) -> Result<Met, Collision> {
    same(known, entry)?;
    Ok(Met { new: !known.is_announced(), within: known.mark() })
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
    let known = read(word).get(&word).map(|known| met(known, entry)).transpose()?;
    let Met { new, within } = match known {
        Some(met) => met,
        None => insert(word, entry)?,
    };
    within.iter().for_each(|words| sweep::mark(words));
    Ok((word, new))
}

fn insert(word: Word, entry: Entry<'_>) -> Result<Met, Collision> {
    // Before the lock: what a record holds may be in the same shard.
    let extent = extent(entry);
    let mut shard = write(shard(word));
    if let Some(known) = shard.get(&word) {
        return met(known, entry);
    }
    let known = Known::new(entry.to_content(), extent);
    let within = known.content.record();
    UNANNOUNCED.fetch_add(1, Ordering::Relaxed);
    ENTRIES.fetch_add(1, Ordering::Relaxed);
    BYTES.fetch_add(known.bytes(), Ordering::Relaxed);
    shard.insert(word, known);
    Ok(Met { new: true, within })
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
    if is_inline(word) {
        return;
    }
    // The epoch doesn't change under the lock.
    let shard = read(word);
    let Some(known) = shard.get(&word) else { return };
    let (told, now) = (sweep::order(), sweep::epoch());
    let before = known.announced.fetch_max(told, Ordering::Relaxed);
    if before < now && told == now {
        UNANNOUNCED.fetch_sub(1, Ordering::Relaxed);
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
        Some(known) => same(known, entry).map(|()| word),
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
    if is_inline(word) || is_number(word) {
        return;
    }
    let content = read(word).get(&word).filter(|known| !known.is_announced()).map(|k| k.content.clone());
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
    ENTRIES.load(Ordering::Relaxed)
}

/// Bytes that they take, about.
pub fn bytes() -> usize {
    BYTES.load(Ordering::Relaxed)
}
