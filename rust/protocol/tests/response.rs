//! Replies and pushed messages: what their bytes say, in both encodings.

mod common;

use common::{BOTH, columns, json};
use dataflow_protocol::dictionary::announced;
use dataflow_protocol::encoding::Encoding;
use dataflow_protocol::error::{ErrorBody, ErrorCode};
use dataflow_protocol::request::RequestId;
use dataflow_protocol::response::push::{self, Step, Tail};
use dataflow_protocol::response::read::{self, Contents};
use dataflow_protocol::response::reply;
use dataflow_protocol::rows::RowBuf;
use dataflow_protocol::value::{Column, Type, Word, from_bool, from_float, from_number};
use proptest::prelude::*;
use serde_json::{Value, json};

fn message(tail: &Tail, sub: u64) -> Vec<u8> {
    let head = tail.head(sub);
    assert!(head.len() <= push::MAX_HEAD_BYTES && !head.spilled());
    [&head[..], tail.bytes()].concat()
}

fn every_type() -> Vec<Column> {
    columns(&[
        ("n", Type::Number),
        ("u", Type::Unsigned),
        ("f", Type::Float),
        ("s", Type::Symbol),
        ("b", Type::Bool),
    ])
}

fn buffer(width: usize, rows: &[Vec<Word>]) -> RowBuf {
    let mut buffer = RowBuf::new(width);
    rows.iter().for_each(|row| buffer.push(row));
    buffer
}

fn row(n: i64, u: u64, f: f64, s: &str, b: bool) -> Vec<Word> {
    vec![from_number(n), u, from_float(f), announced(s).unwrap(), from_bool(b)]
}

#[test]
fn replies_carry_the_id_as_it_came() {
    let id = RequestId::from_raw(b"[1, {\"a\": 1.50}]");
    let body = json!({"time": 5});
    assert_eq!(reply::ok(Encoding::Json, &id, &body), br#"{"id":[1, {"a": 1.50}],"ok":{"time":5}}"#);
    let error = ErrorBody::not_found("unknown relation `x`").with_hint("Did you mean `y`?".to_owned());
    let expected = json!({"id": null, "error": {
        "code": "not-found", "message": "unknown relation `x`", "retry": false, "hint": "Did you mean `y`?"}});
    for encoding in BOTH {
        assert_eq!(json(&reply::error(encoding, &RequestId::NULL, &error), encoding), expected);
    }
    let error = ErrorBody::incorrect("m").with_position(3, 14).with_retry(true);
    let body =
        json(&reply::error(Encoding::MessagePack, &RequestId::from_raw(&[7]), &error), Encoding::MessagePack);
    assert_eq!(body["id"], 7);
    assert_eq!(body["error"]["at"], json!({"line": 3, "column": 14}));
}

#[test]
fn a_body_that_cannot_be_encoded_is_a_fault_and_well_formed() {
    let body = std::collections::BTreeMap::from([(vec![1u8, 2], "keys of JSON are texts")]);
    let reply = reply::ok(Encoding::Json, &RequestId::from_raw(b"1"), &body);
    assert_eq!(json(&reply, Encoding::Json)["error"]["code"], "fault");
}

#[test]
fn every_code_says_whether_to_try_again() {
    let retry: Vec<&str> =
        ErrorCode::ALL.into_iter().filter(|code| code.retry()).map(ErrorCode::name).collect();
    assert_eq!(retry, ["busy", "interrupted", "unavailable"]);
    for code in ErrorCode::ALL {
        assert_eq!(serde_json::to_value(code).unwrap(), code.name());
    }
}

#[test]
fn values_are_written_as_their_columns_say() {
    let columns = every_type();
    let rows = [
        row(-1, u64::MAX, 1.0, "a \"quoted\"\n\u{1}ü", true),
        row(i64::MIN, 0, f64::NAN, "", false),
        row(i64::MAX, 1, f64::INFINITY, "x", false),
        row(0, 1, f64::NEG_INFINITY, "x", false),
        row(0, 1, 1e300, "x", false),
        row(0, 1, 0.1, "x", false),
    ];
    let contents =
        Contents { columns: &columns, rows: &buffer(5, &rows), copies: &[1; 6], limit: None, time: 9 };
    let text = read::reply(Encoding::Json, &RequestId::from_raw(b"1"), &contents, 10_000).unwrap();
    let text = String::from_utf8(text).unwrap();
    let expected = concat!(
        r#"{"id":1,"ok":{"columns":[{"name":"n","type":"number"},{"name":"u","type":"unsigned"},"#,
        r#"{"name":"f","type":"float"},{"name":"s","type":"symbol"},{"name":"b","type":"bool"}],"rows":["#,
        r#"[-1,18446744073709551615,1.0,"a \"quoted\"\n\u0001ü",true],"#,
        r#"[-9223372036854775808,0,"NaN","",false],[9223372036854775807,1,"inf","x",false],"#,
        r#"[0,1,"-inf","x",false],[0,1,1e+300,"x",false],[0,1,0.1,"x",false]],"time":9}}"#
    );
    assert_eq!(text.replace("1e300", "1e+300"), expected);
    let bytes = read::reply(Encoding::MessagePack, &RequestId::from_raw(&[1]), &contents, 10_000).unwrap();
    // A float is always eight bytes, an unsigned never a signed one.
    let float = [&[0xcb][..], &1.0f64.to_be_bytes()].concat();
    assert!(bytes.windows(9).any(|window| window == float));
    assert!(bytes.windows(9).any(|window| window == [0xcf, 255, 255, 255, 255, 255, 255, 255, 255]));
}

#[test]
fn a_read_sends_a_row_once_a_copy_up_to_its_limit() {
    let columns = columns(&[("n", Type::Number)]);
    let rows = buffer(1, &[vec![from_number(1)], vec![from_number(2)], vec![from_number(3)]]);
    for encoding in BOTH {
        for (copies, limit, expected) in [
            ([2, 0, 1], None, json!([[1], [1], [3]])),
            ([2, -1, 1], Some(2), json!([[1], [1]])),
            ([1, 1, 1], Some(0), json!([])),
            ([1, 1 << 62, 1], Some(3), json!([[1], [2], [2]])),
        ] {
            let contents = Contents { columns: &columns, rows: &rows, copies: &copies, limit, time: 1 };
            let reply = read::reply(encoding, &RequestId::NULL, &contents, 1000).unwrap();
            assert_eq!(json(&reply, encoding)["ok"]["rows"], expected);
        }
    }
}

#[test]
fn a_read_over_the_limit_is_too_large() {
    let columns = columns(&[("n", Type::Number)]);
    let rows = buffer(1, &[vec![from_number(1)]]);
    for encoding in BOTH {
        let reply = |copies: i64, max_bytes| {
            let contents =
                Contents { columns: &columns, rows: &rows, copies: &[copies], limit: None, time: 1 };
            read::reply(encoding, &RequestId::NULL, &contents, max_bytes)
        };
        let whole = reply(50, 10_000).unwrap().len();
        assert!(reply(50, whole).is_ok());
        for error in [reply(50, whole - 1), reply(1 << 40, 1 << 30), reply(i64::MAX, usize::MAX)] {
            assert_eq!(error.unwrap_err().code, ErrorCode::TooLarge);
        }
    }
}

#[test]
fn flags_are_said_only_when_they_are_true() {
    let columns = columns(&[("n", Type::Number)]);
    let one = buffer(1, &[vec![from_number(5)]]);
    for encoding in BOTH {
        let written = |step, rows: &RowBuf, diffs: &[i64]| {
            let tails = push::changes(encoding, &columns, step, rows, diffs, 1000);
            assert_eq!(tails.len(), 1);
            json(&message(&tails[0], 3), encoding)
        };
        let step = Step { time: 7, ..Step::default() };
        assert_eq!(written(step, &one, &[-2]), json!({"sub": 3, "time": 7, "changes": [[[5], -2]]}));
        let step = Step { snapshot: true, resync: true, more: true, ..step };
        let expected =
            json!({"sub": 3, "time": 7, "snapshot": true, "resync": true, "changes": [], "more": true});
        assert_eq!(written(step, &buffer(1, &[]), &[]), expected);
        for sub in [0, 127, 128, u64::from(u32::MAX), u64::MAX] {
            let progress = json(&message(&push::progress(encoding, 9), sub), encoding);
            assert_eq!(progress, json!({"sub": sub, "progress": 9}));
        }
        let error = ErrorBody::new(ErrorCode::Busy, "too slow").with_time(6);
        let expected =
            json!({"sub": 1, "error": {"code": "busy", "message": "too slow", "retry": true}, "time": 6});
        assert_eq!(json(&message(&push::ended(encoding, &error), 1), encoding), expected);
    }
}

#[test]
fn a_row_larger_than_a_batch_is_sent_alone() {
    let columns = columns(&[("s", Type::Symbol)]);
    let long = announced("x".repeat(500).as_str()).unwrap();
    let rows = buffer(1, &[vec![long], vec![long], vec![long]]);
    for encoding in BOTH {
        let tails = push::changes(encoding, &columns, Step::default(), &rows, &[1; 3], 100);
        let sizes: Vec<usize> = tails
            .iter()
            .map(|tail| json(&message(tail, 1), encoding)["changes"].as_array().unwrap().len())
            .collect();
        assert_eq!(sizes, [1, 1, 1]);
    }
}

proptest! {
    #[test]
    fn a_cut_step_adds_up_to_the_whole(
        numbers in proptest::collection::vec((any::<i64>(), "[a-z\"\\\\]{0,12}", any::<i64>()), 0..60),
        batch_bytes in 60..2000usize,
        snapshot in any::<bool>(),
        more in any::<bool>(),
    ) {
        let columns = columns(&[("n", Type::Number), ("s", Type::Symbol)]);
        let words: Vec<Vec<Word>> = numbers
            .iter()
            .map(|(number, text, _)| vec![from_number(*number), announced(text.as_str()).unwrap()])
            .collect();
        let diffs: Vec<i64> = numbers.iter().map(|(.., diff)| *diff).collect();
        let expected: Vec<Value> = numbers.iter().map(|(number, text, diff)| json!([[number, text], diff])).collect();
        let step = Step { time: 4, snapshot, resync: snapshot, more };
        for encoding in BOTH {
            let tails = push::changes(encoding, &columns, step, &buffer(2, &words), &diffs, batch_bytes);
            let messages: Vec<Vec<u8>> = tails.iter().map(|tail| message(tail, u64::MAX)).collect();
            let mut changes = Vec::new();
            for (index, bytes) in messages.iter().enumerate() {
                let parsed = json(bytes, encoding);
                let part = parsed["changes"].as_array().unwrap().clone();
                prop_assert!(bytes.len() <= batch_bytes || part.len() <= 1);
                prop_assert_eq!(parsed.get("more").is_some(), more || index + 1 < messages.len());
                prop_assert_eq!(parsed.get("snapshot").is_some(), snapshot);
                prop_assert_eq!(parsed.get("resync").is_some(), snapshot && index == 0);
                prop_assert_eq!(&parsed["time"], 4);
                changes.extend(part);
            }
            prop_assert_eq!(&changes, &expected);
        }
    }
}
