//! PostgreSQL's stream of changes, from messages as the plugin writes them (encoded by the library that also reads
//! them) to transactions.

use std::sync::Arc;

use dataflow_protocol::ids::RelationId;
use dataflow_protocol::intake::pgoutput::{Commit, Decoder, StreamError, Table};
use dataflow_protocol::intake::{OnBad, Target};
use dataflow_protocol::plan::InputMode;
use dataflow_protocol::rows::RowBuf;
use dataflow_protocol::value::{Column, Type, to_number};
use pg_walstream::{
    ColumnData, ColumnInfo, LogicalReplicationMessage as Message, TupleData, encode_message_to_bytes,
};

const TABLE: u32 = 16_384;

fn decoder(input: InputMode, on_bad: OnBad) -> Decoder {
    let columns = ["k", "v"].map(|name| Column::new(name, Type::Number)).to_vec();
    let table = Table {
        namespace: "public".into(),
        name: "t".into(),
        target: Target { id: RelationId(7), name: "r".into(), columns, input },
        columns: vec![("id".into(), None), ("value".into(), Some("-1".into()))],
    };
    Decoder::new(vec![table], on_bad, 1 << 20)
}

fn send(decoder: &mut Decoder, message: &Message) -> Result<Option<Commit>, StreamError> {
    decoder.message(&encode_message_to_bytes(message, 1))
}

fn relation(columns: &[&str]) -> Message {
    let column = |name: &&str| ColumnInfo::new(0, (*name).to_owned(), 23, -1);
    Message::Relation {
        relation_id: TABLE,
        namespace: Arc::from("public"),
        relation_name: Arc::from("t"),
        replica_identity: b'f',
        columns: columns.iter().map(column).collect(),
    }
}

/// A row as the server sends it; `-` is null, `?` a large value that wasn't changed.
fn tuple(values: &[&str]) -> TupleData {
    let data = |value: &&str| match *value {
        "-" => ColumnData::null(),
        "?" => ColumnData::unchanged(),
        text => ColumnData::text(text.as_bytes().to_vec()),
    };
    TupleData::new(values.iter().map(data).collect())
}

fn insert(values: &[&str]) -> Message {
    Message::Insert { relation_id: TABLE, tuple: tuple(values) }
}

fn update(old: Option<(char, &[&str])>, new: &[&str]) -> Message {
    Message::Update {
        relation_id: TABLE,
        old_tuple: old.map(|(_, values)| tuple(values)),
        new_tuple: tuple(new),
        key_type: old.map(|(kind, _)| kind),
    }
}

fn delete(kind: char, values: &[&str]) -> Message {
    Message::Delete { relation_id: TABLE, old_tuple: tuple(values), key_type: kind }
}

fn begin() -> Message {
    Message::Begin { final_lsn: 90, timestamp: 0, xid: 1 }
}

fn commit(end_lsn: u64) -> Message {
    Message::Commit { flags: 0, commit_lsn: end_lsn - 1, end_lsn, timestamp: 0 }
}

/// A transaction of these changes.
fn transaction(decoder: &mut Decoder, changes: &[Message]) -> Result<Commit, StreamError> {
    send(decoder, &begin())?;
    send(decoder, &relation(&["other", "value", "id"]))?;
    for change in changes {
        assert_eq!(send(decoder, change)?, None);
    }
    Ok(send(decoder, &commit(100))?.expect("the transaction ends"))
}

fn numbers(rows: &RowBuf) -> Vec<Vec<i64>> {
    let mut numbers: Vec<Vec<i64>> =
        rows.iter().map(|row| row.iter().map(|word| to_number(*word)).collect()).collect();
    numbers.sort();
    numbers
}

/// What a transaction changes: rows that go, rows that come.
fn changed(commit: &Commit) -> (Vec<Vec<i64>>, Vec<Vec<i64>>) {
    let [change] = &commit.transaction.changes[..] else { panic!("one change, not {commit:?}") };
    assert_eq!((change.relation, change.clear, change.erase.len()), (RelationId(7), false, 0));
    (numbers(&change.delete), numbers(&change.insert))
}

#[test]
fn columns_are_taken_by_name_and_a_transaction_ends_with_its_position() {
    let mut decoder = decoder(InputMode::Set, OnBad::Stop);
    let commit = transaction(&mut decoder, &[insert(&["x", "1", "2"]), insert(&["x", "-", "3"])]).unwrap();
    assert_eq!(commit.position, 100);
    assert_eq!(changed(&commit), (vec![], vec![vec![2, 1], vec![3, -1]]));
}

#[test]
fn an_update_takes_the_old_row_away() {
    let mut decoder = decoder(InputMode::Set, OnBad::Stop);
    let changes = [
        update(Some(('O', &["x", "1", "2"])), &["x", "5", "2"]),
        delete('O', &["x", "7", "8"]),
        insert(&["x", "0", "9"]),
        delete('O', &["x", "0", "9"]),
    ];
    let commit = transaction(&mut decoder, &changes).unwrap();
    assert_eq!(changed(&commit), (vec![vec![2, 1], vec![8, 7], vec![9, 0]], vec![vec![2, 5]]));
}

#[test]
fn a_large_value_that_stayed_is_taken_from_the_old_row() {
    let mut set = decoder(InputMode::Set, OnBad::Stop);
    let commit = transaction(&mut set, &[update(Some(('O', &["x", "1", "2"])), &["x", "?", "3"])]).unwrap();
    assert_eq!(changed(&commit), (vec![vec![2, 1]], vec![vec![3, 1]]));
    let mut keyed = decoder(InputMode::Upsert(vec![0]), OnBad::Stop);
    let error = transaction(&mut keyed, &[update(None, &["x", "?", "3"])]).unwrap_err();
    assert!(error.to_string().contains("REPLICA IDENTITY FULL"), "{error}");
}

#[test]
fn a_relation_with_a_key_needs_no_old_rows() {
    let mut decoder = decoder(InputMode::Upsert(vec![0]), OnBad::Stop);
    let changes = [
        update(None, &["x", "5", "2"]),
        delete('K', &["-", "-", "8"]),
        update(Some(('K', &["-", "-", "3"])), &["x", "4", "33"]),
    ];
    let commit = transaction(&mut decoder, &changes).unwrap();
    let [change] = &commit.transaction.changes[..] else { panic!("one change") };
    let keys: Vec<i64> = numbers(&change.erase).iter().map(|row| row[0]).collect();
    assert_eq!((keys, numbers(&change.insert)), (vec![3, 8], vec![vec![2, 5], vec![33, 4]]));
    assert!(change.delete.is_empty());
}

#[test]
fn without_the_old_row_a_set_cannot_be_followed() {
    for change in [update(None, &["x", "5", "2"]), delete('K', &["-", "-", "8"])] {
        let mut decoder = decoder(InputMode::Set, OnBad::Stop);
        let error = transaction(&mut decoder, &[change]).unwrap_err();
        assert_eq!(error, StreamError::NoOldRow("public.t".into()));
    }
}

#[test]
fn truncating_forgets_what_the_transaction_did_before() {
    let mut decoder = decoder(InputMode::Set, OnBad::Stop);
    let truncate = Message::Truncate { relation_ids: vec![1, TABLE], flags: 0 };
    let changes = [insert(&["x", "1", "1"]), truncate, insert(&["x", "2", "2"])];
    let commit = transaction(&mut decoder, &changes).unwrap();
    let [change] = &commit.transaction.changes[..] else { panic!("one change") };
    assert!(change.clear);
    assert_eq!(numbers(&change.insert), vec![vec![2, 2]]);
}

#[test]
fn a_row_that_does_not_fit_stops_or_is_left_out() {
    let misfit = insert(&["x", "1", "two"]);
    let message = "table public.t, column \"id\": \"two\" is not a number (64 bits, signed)";
    let mut stops = decoder(InputMode::Set, OnBad::Stop);
    assert_eq!(transaction(&mut stops, &[misfit]).unwrap_err(), StreamError::Bad(message.into()));
    let mut skips = decoder(InputMode::Upsert(vec![0]), OnBad::Skip);
    let changes = [
        insert(&["x", "1", "two"]),
        insert(&["x", "1", "-"]),
        update(None, &["x", "five", "5"]),
        // It was never there.
        delete('O', &["x", "1", "two"]),
        insert(&["x", "1", "1"]),
    ];
    let commit = transaction(&mut skips, &changes).unwrap();
    assert_eq!((commit.bad_rows, commit.bad.as_deref()), (3, Some(message)));
    let [change] = &commit.transaction.changes[..] else { panic!("one change") };
    assert_eq!((numbers(&change.insert), change.erase.len()), (vec![vec![1, 1]], 1), "5 is gone");
    let commit = transaction(&mut skips, &[]).unwrap();
    assert_eq!((commit.bad_rows, commit.bad, commit.transaction.changes), (0, None, vec![]));
}

#[test]
fn a_stream_that_starts_again_forgets_half_a_transaction() {
    let mut decoder = decoder(InputMode::Set, OnBad::Stop);
    send(&mut decoder, &begin()).unwrap();
    send(&mut decoder, &relation(&["id", "value"])).unwrap();
    send(&mut decoder, &insert(&["1", "1"])).unwrap();
    decoder.reset();
    let commit = transaction(&mut decoder, &[insert(&["x", "2", "2"])]).unwrap();
    assert_eq!(changed(&commit), (vec![], vec![vec![2, 2]]));
}

#[test]
fn other_tables_and_columns_that_come_and_go() {
    let mut decoder = decoder(InputMode::Set, OnBad::Stop);
    send(&mut decoder, &begin()).unwrap();
    let other = Message::Insert { relation_id: 1, tuple: tuple(&["1"]) };
    assert_eq!(send(&mut decoder, &other), Ok(None));
    send(&mut decoder, &relation(&["id", "value"])).unwrap();
    send(&mut decoder, &insert(&["1", "2"])).unwrap();
    send(&mut decoder, &relation(&["value", "new", "id"])).unwrap();
    send(&mut decoder, &insert(&["4", "?", "3"])).unwrap();
    let error = send(&mut decoder, &relation(&["id"])).unwrap_err();
    assert_eq!(error, StreamError::NoColumn { table: "public.t".into(), column: "value".into() });
    let commit = send(&mut decoder, &commit(100)).unwrap().expect("the end");
    assert_eq!(changed(&commit), (vec![], vec![vec![1, 2], vec![3, 4]]));
}

#[test]
fn a_transaction_that_is_too_large_is_refused() {
    let mut decoder = decoder(InputMode::Set, OnBad::Stop);
    send(&mut decoder, &begin()).unwrap();
    send(&mut decoder, &relation(&["id", "value"])).unwrap();
    let error = (0..1 << 20)
        .find_map(|number| send(&mut decoder, &insert(&[&number.to_string(), "1"])).err())
        .expect("there is a bound");
    assert_eq!(error, StreamError::TooLarge { limit: 1 << 20 });
}

#[test]
fn bytes_that_are_no_message_are_refused() {
    let mut decoder = decoder(InputMode::Set, OnBad::Stop);
    let message = encode_message_to_bytes(&relation(&["id", "value"]), 1);
    for end in 0..message.len() {
        // Cut anywhere; some beginnings may be messages themselves, none may be a panic.
        let _ = decoder.message(&message[..end]);
    }
    assert!(matches!(decoder.message(b"\xff\xff"), Err(StreamError::Malformed(_))));
    assert!(matches!(decoder.message(b""), Err(StreamError::Malformed(_))));
}
