//! The process-wide dictionary behind words that stand for text.
//!
//! A symbol is one word that depends on nothing but its text, so that all processes agree without talking:
//! up to seven bytes of UTF-8 stand in the word itself (length in the top byte, then the bytes), longer text is
//! known by a 64-bit hash with its top byte at least 8, and kept here. Two texts with one hash are refused at
//! [`intern`], never confused. Processes learn each other's texts before they meet the words: what clients send is
//! announced with the sequenced command, what functors make travels with the rows ([`take_foreign`]).

use std::collections::HashMap;
use std::hash::Hasher;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock, RwLock};

use crate::value::Word;

const SHARDS: usize = 64;
const INLINE: usize = 7;

struct Entry {
    text: Arc<str>,
    /// Every process of the cluster has been told; otherwise the text must travel with the row.
    announced: bool,
}

type Shard = RwLock<HashMap<Word, Entry, foldhash::fast::FixedState>>;

static SHARD: LazyLock<Vec<Shard>> =
    LazyLock::new(|| (0..SHARDS).map(|_| RwLock::new(HashMap::default())).collect());
static UNANNOUNCED: AtomicUsize = AtomicUsize::new(0);

/// Two different texts have the same 64-bit hash.
#[derive(Debug, thiserror::Error)]
#[error("symbol {text:?} has the same 64-bit hash as another one in use")]
pub struct Collision {
    /// The text that was refused.
    pub text: String,
}

fn inline(text: &str) -> Option<Word> {
    let bytes = text.as_bytes();
    if bytes.len() > INLINE {
        return None;
    }
    let mut word = [0u8; 8];
    word[0] = bytes.len() as u8;
    word[1..=bytes.len()].copy_from_slice(bytes);
    Some(Word::from_be_bytes(word))
}

fn hashed(text: &str) -> Word {
    let mut hasher = siphasher::sip::SipHasher13::new_with_keys(0x6466_6c6f_7773_7276, 0x7379_6d62_6f6c_7331);
    hasher.write(text.as_bytes());
    let hash = hasher.finish();
    if hash >> 56 <= INLINE as u64 { hash | 1 << 63 } else { hash }
}

fn shard(word: Word) -> &'static Shard {
    &SHARD[(word as usize) % SHARDS]
}

fn write(
    word: Word,
) -> std::sync::RwLockWriteGuard<'static, HashMap<Word, Entry, foldhash::fast::FixedState>> {
    shard(word).write().unwrap_or_else(std::sync::PoisonError::into_inner)
}

fn read(word: Word) -> std::sync::RwLockReadGuard<'static, HashMap<Word, Entry, foldhash::fast::FixedState>> {
    shard(word).read().unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// Whether a known text is this one.
fn same(entry: &Entry, text: &str) -> Result<bool, Collision> {
    if *entry.text == *text { Ok(entry.announced) } else { Err(Collision { text: text.into() }) }
}

/// The word for a text, which is remembered; `true` if not every process is known to have been told of it.
///
/// Whoever accepts such a text from a client sends it with the next sequenced command, also where another worker of
/// this process is about to: the rows of either may be sequenced first.
///
/// # Errors
///
/// [`Collision`] if another text with the same hash is in use. Nothing changes in that case.
pub fn intern(text: &str) -> Result<(Word, bool), Collision> {
    let word = match inline(text) {
        Some(word) => return Ok((word, false)),
        None => hashed(text),
    };
    if let Some(entry) = read(word).get(&word) {
        return Ok((word, !same(entry, text)?));
    }
    let mut shard = write(word);
    if let Some(entry) = shard.get(&word) {
        return Ok((word, !same(entry, text)?));
    }
    shard.insert(word, Entry { text: text.into(), announced: false });
    UNANNOUNCED.fetch_add(1, Ordering::Relaxed);
    Ok((word, true))
}

/// The word for a text that came with a sequenced command: from now on rows with it travel without the text.
///
/// # Errors
///
/// [`Collision`] if another text with the same hash is in use. Nothing changes in that case.
pub fn announced(text: &str) -> Result<Word, Collision> {
    let (word, new) = intern(text)?;
    if new && let Some(entry) = write(word).get_mut(&word).filter(|entry| !entry.announced) {
        entry.announced = true;
        UNANNOUNCED.fetch_sub(1, Ordering::Relaxed);
    }
    Ok(word)
}

/// The word that a text has or would have, without remembering it: for questions, which bring no new texts.
///
/// # Errors
///
/// [`Collision`] if another text with the same hash is in use.
pub fn word_of(text: &str) -> Result<Word, Collision> {
    if let Some(word) = inline(text) {
        return Ok(word);
    }
    let word = hashed(text);
    match read(word).get(&word) {
        Some(entry) => same(entry, text).map(|_| word),
        None => Ok(word),
    }
}

/// Calls `logic` with the text of `word`; `None` if this process doesn't know the word.
pub fn with_text<R>(word: Word, logic: impl FnOnce(&str) -> R) -> Option<R> {
    let length = (word >> 56) as usize;
    if length <= INLINE {
        let bytes = word.to_be_bytes();
        return std::str::from_utf8(&bytes[1..=length]).ok().map(logic);
    }
    // The text is cloned out (a reference count), so that `logic` may intern without holding the lock.
    let text = Arc::clone(&read(word).get(&word)?.text);
    Some(logic(&text))
}

/// The text of `word` if it is one that only this process may know: it must travel with the row that holds the word.
///
/// Costs one relaxed load while every text has been announced.
pub fn take_foreign(word: Word) -> Option<Arc<str>> {
    if UNANNOUNCED.load(Ordering::Relaxed) == 0 || (word >> 56) as usize <= INLINE {
        return None;
    }
    read(word).get(&word).filter(|entry| !entry.announced).map(|entry| Arc::clone(&entry.text))
}

/// Whether any text may have to travel with rows.
#[inline]
pub fn any_foreign() -> bool {
    UNANNOUNCED.load(Ordering::Relaxed) > 0
}

/// Texts of more than seven bytes that this process remembers.
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
    fn texts_travel_until_they_are_announced() {
        let (word, new) = intern("made by a functor here").unwrap();
        assert!(new && intern("made by a functor here").unwrap().1, "every worker is told to announce it");
        assert_eq!(take_foreign(word).as_deref(), Some("made by a functor here"));
        announced("made by a functor here").unwrap();
        assert_eq!((take_foreign(word), intern("made by a functor here").unwrap().1), (None, false));
    }

    #[test]
    fn asking_for_a_word_remembers_nothing() {
        let word = word_of("nobody has ever said this").unwrap();
        assert_eq!(with_text(word, str::to_owned), None);
    }
}
