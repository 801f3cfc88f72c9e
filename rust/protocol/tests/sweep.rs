//! Sweeps of the dictionary. They are the whole process's, so the tests here take turns.

use std::sync::{Mutex, MutexGuard, PoisonError};

use dataflow_protocol::dictionary::sweep::{self, Grace, Pin};
use dataflow_protocol::dictionary::{self, Content, Entry, announced, foreign, intern, word_of};
use dataflow_protocol::value::{Word, from_number};

static TURN: Mutex<()> = Mutex::new(());

fn turn() -> MutexGuard<'static, ()> {
    let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    sweep::join();
    turn
}

fn drop_unmarked(alone: bool) -> usize {
    sweep::shards().map(|shard| sweep::drop_unmarked(shard, alone)).sum()
}

/// A sweep in which `words` are all that is held.
fn sweep_keeping(words: &[Word]) {
    sweep::begin();
    sweep::mark(words);
    drop_unmarked(true);
}

fn is_known(text: &str) -> bool {
    dictionary::with_text(word_of(text).unwrap(), |_| ()).is_some()
}

#[test]
fn what_is_marked_or_interned_stays_and_the_rest_goes() {
    let _turn = turn();
    let marked = announced("marked in the sweep").unwrap();
    announced("interned in the sweep").unwrap();
    announced("nobody holds this any more").unwrap();
    let (entries, bytes) = (dictionary::len(), dictionary::bytes());
    sweep::begin();
    sweep::mark(&[5, from_number(7), marked, from_number(-7)]);
    intern("interned in the sweep").unwrap();
    intern("new in the sweep").unwrap();
    let dropped = drop_unmarked(true);
    assert!(["marked in the sweep", "interned in the sweep", "new in the sweep"].into_iter().all(is_known));
    assert!(!is_known("nobody holds this any more"));
    assert_eq!(dictionary::len(), entries + 1 - dropped);
    assert!(dropped >= 1 && dictionary::bytes() < bytes + 200);
    sweep_keeping(&[]);
    assert!(!is_known("marked in the sweep") && !is_known("new in the sweep"));
    assert_eq!((dictionary::len(), dictionary::bytes()), (0, 0), "everything is accounted for");
}

#[test]
fn what_stands_in_a_record_stays_with_it() {
    let _turn = turn();
    let record = |words: &[Word]| announced(Entry::Record(words)).unwrap();
    let inner = announced("a text within a record").unwrap();
    let (within, other) = (record(&[0, inner]), record(&[0, inner, 5]));
    let whole = record(&[1, within]);
    sweep_keeping(&[whole]);
    assert!(is_known("a text within a record"), "through a record in a record");
    assert!(dictionary::record(within).is_some() && dictionary::record(other).is_none());
    // Made again of what nobody else holds.
    sweep::begin();
    assert_eq!(intern(Entry::Record(&[1, within])).unwrap().0, whole);
    drop_unmarked(true);
    assert!(is_known("a text within a record") && dictionary::record(within).is_some());
    // Made for the first time, of old words.
    sweep::begin();
    let new = intern(Entry::Record(&[2, within])).unwrap().0;
    drop_unmarked(true);
    assert!(is_known("a text within a record") && dictionary::record(new).is_some());
    assert!(dictionary::record(whole).is_none());
}

#[test]
fn announcements_count_for_an_epoch_and_are_renewed_by_what_is_kept() {
    let _turn = turn();
    let [held, dropped] =
        ["announced and held", "announced and dropped"].map(|text| announced(text).unwrap());
    let made = intern("never announced").unwrap().0;
    let content = |text: &str| Content::Text(text.into());
    assert_eq!(foreign([held, made]), [content("never announced")]);
    sweep::begin();
    let all = ["announced and held", "announced and dropped", "never announced"].map(content);
    assert_eq!(foreign([held, dropped, made]), all, "rows carry what may be dropped elsewhere");
    assert_eq!(
        intern("announced and held").unwrap(),
        (held, true),
        "and clients' contents are announced anew"
    );
    sweep::mark(&[held, made]);
    let kept: Vec<Word> = sweep::shards().flat_map(sweep::kept).collect();
    assert_eq!(kept, [held], "not what others never knew");
    sweep::keep(&kept);
    drop_unmarked(false);
    assert_eq!(foreign([held, made]), [content("never announced")]);
    assert_eq!(intern("announced and held").unwrap(), (held, false));
    assert!(!is_known("announced and dropped"));
    // Where another process keeps it.
    announced("held elsewhere").unwrap();
    sweep::begin();
    sweep::keep(&[word_of("held elsewhere").unwrap()]);
    drop_unmarked(false);
    assert!(is_known("held elsewhere") && !is_known("announced and held"));
}

#[test]
fn a_worker_that_is_behind_announces_for_the_epoch_that_it_is_in() {
    let _turn = turn();
    let text = "announced by a worker that has not begun";
    sweep::begin();
    let other = std::thread::scope(|scope| {
        let ahead = scope.spawn(|| {
            sweep::join();
            sweep::begin();
        });
        ahead.join().unwrap();
        announced(text).unwrap()
    });
    assert_eq!(foreign([other]), [Content::Text(text.into())], "not for the one that begins meanwhile");
    sweep::begin();
    assert_eq!(sweep::shards().flat_map(sweep::kept).filter(|word| *word == other).count(), 1);
    announced(text).unwrap();
    assert_eq!(foreign([other]), []);
}

#[test]
fn a_process_alone_has_told_everybody_of_what_it_keeps() {
    let _turn = turn();
    let word = intern("made by a functor, alone").unwrap().0;
    sweep_keeping(&[word]);
    assert_eq!(foreign([word]), []);
}

#[test]
fn in_a_new_generation_nothing_is_announced_and_nothing_renewed() {
    let _turn = turn();
    let word = announced("of an earlier generation").unwrap();
    sweep::new_generation();
    sweep::join();
    assert_eq!(foreign([word]), [Content::Text("of an earlier generation".into())]);
    sweep::begin();
    sweep::mark(&[word]);
    assert_eq!(sweep::shards().flat_map(sweep::kept).count(), 0, "other processes may never have known it");
}

#[test]
fn a_grace_period_waits_for_the_pins_before_it_and_their_clones() {
    let _turn = turn();
    let pin = Pin::new();
    let grace = Grace::begin();
    let later = Pin::new();
    assert!(!grace.is_over());
    let clone = pin.clone();
    drop(pin);
    assert!(!grace.is_over(), "the clone may hold what the original held");
    drop(clone);
    assert!(grace.is_over(), "who came later isn't waited for");
    let next = Grace::begin();
    assert!(!next.is_over());
    drop(later);
    assert!(next.is_over());
}

#[test]
fn usual_numbers_are_told_from_words_without_a_look_up_and_no_hash_is_one() {
    let _turn = turn();
    for index in 0..200_000u64 {
        let word = word_of(format!("a longer text, number {index}").as_str()).unwrap();
        assert!(!matches!(word >> 52, 0x7ff | 0x800) && word >> 56 > 7);
    }
}
