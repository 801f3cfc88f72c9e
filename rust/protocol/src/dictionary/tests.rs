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
