//! The dictionary from one generation to the next. In a process of its own: the dictionary is the process's.

use dataflow_protocol::dictionary::{self, Content, Entry};

#[test]
fn what_was_announced_is_announced_anew_in_the_next_generation() {
    let text = "announced in the first one";
    let word = dictionary::announced(text).unwrap();
    let record = dictionary::announced(Entry::Record(&[0, word])).unwrap();
    assert_eq!(dictionary::foreign([word, record]), []);
    dictionary::sweep::new_generation();
    dictionary::sweep::new_generation();
    let whole = [Content::Text(text.into()), Content::Record([0, word].into())];
    assert_eq!(dictionary::foreign([record]), whole);
    assert_eq!(dictionary::intern(text).unwrap(), (word, true));
    dictionary::announce_whole(record);
    assert_eq!(dictionary::foreign([word, record]), []);
}
