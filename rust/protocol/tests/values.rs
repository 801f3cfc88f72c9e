//! Values in requests: which words they become, which are refused and how that is told, in both encodings.

mod common;

use common::{BOTH, accepted, buffer, catalog, encoded, msgpack, refused, symbol};
use dataflow_protocol::dictionary::{self, Content};
use dataflow_protocol::encoding::Encoding;
use dataflow_protocol::error::ErrorBody;
use dataflow_protocol::request::{Request, RequestId, Wait, decode};
use dataflow_protocol::value::{Word, from_bool, from_float, from_number};

#[test]
fn rows_become_words_wherever_the_relation_stands() {
    let expected = buffer(
        5,
        &[
            &[from_number(-1), u64::MAX, from_float(1.5), symbol("ü\n"), from_bool(true)],
            &[
                from_number(i64::MIN),
                0,
                from_float(3.0),
                symbol("a longer symbol than fits a word"),
                from_bool(false),
            ],
        ],
    );
    let list = r#"[[-1,18446744073709551615,1.5,"ü\n",true],
                   [-9223372036854775808,0,3,"a longer symbol than fits a word",false]]"#;
    for encoding in BOTH {
        for json in [
            format!(r#"{{"op":"transact","changes":[{{"relation":"all","insert":{list}}}]}}"#),
            format!(r#"{{"op":"transact","changes":[{{"insert":{list},"relation":"all"}}]}}"#),
            format!(r#"{{"changes":[{{"insert":{list},"delete":null,"relation":"all"}}],"op":"transact"}}"#),
        ] {
            let Request::Transact { changes, key, wait } = accepted(&json, encoding).request else {
                panic!()
            };
            assert_eq!((changes.len(), key, wait), (1, None, Wait::Sequenced));
            assert_eq!(changes[0].insert, expected);
            assert!(changes[0].delete.is_empty() && changes[0].delete.width() == 5);
        }
    }
}

#[test]
fn floats_may_be_integers_and_in_json_names() {
    let json = r#"{"op":"transact","changes":[{"relation":"all","insert":
        [[0,0,"NaN","",true],[0,0,"inf","",true],[0,0,"-inf","",true],[0,0,-0.0,"",true],[0,0,18446744073709551615,"",true]]}]}"#;
    let Request::Transact { changes, .. } = accepted(json, Encoding::Json).request else { panic!() };
    let floats: Vec<Word> = changes[0].insert.iter().map(|row| row[2]).collect();
    let expected = [f64::NAN, f64::INFINITY, f64::NEG_INFINITY, 0.0, 18446744073709551615.0].map(from_float);
    assert_eq!(floats, expected);
    // The same names are texts in MessagePack, which has all floats.
    let error = refused(&msgpack(json), Encoding::MessagePack).error;
    assert!(error.message.contains(r#""NaN" does not fit column `f` (float)"#), "{error}");
}

/// A row of `all`, and what is said of it.
const MISFITS: &[(&str, &str)] = &[
    (r#"[1.0,0,0,"",true]"#, "1.0 does not fit column `n` (number)"),
    (r#"[9223372036854775808,0,0,"",true]"#, "9223372036854775808 does not fit column `n` (number)"),
    (r#"["1",0,0,"",true]"#, r#""1" does not fit column `n` (number)"#),
    (r#"[null,0,0,"",true]"#, "null does not fit column `n` (number)"),
    (r#"[0,-1,0,"",true]"#, "-1 does not fit column `u` (unsigned)"),
    (r#"[0,0.5,0,"",true]"#, "0.5 does not fit column `u` (unsigned)"),
    (r#"[0,0,"nan","",true]"#, r#""nan" does not fit column `f` (float)"#),
    (r#"[0,0,true,"",true]"#, "true does not fit column `f` (float)"),
    (r#"[0,0,0,5,true]"#, "5 does not fit column `s` (symbol)"),
    (r#"[0,0,0,"",1]"#, "1 does not fit column `b` (bool)"),
    (r#"[0,0,0,""]"#, "it has 4 values, the relation 5 columns"),
    (r#"[]"#, "it has 0 values, the relation 5 columns"),
    (r#"[0,0,0,"",true,[],{}]"#, "it has 7 values, the relation 5 columns"),
    (r#"7"#, "7 is not an array"),
];

#[test]
fn a_value_that_does_not_fit_is_named() {
    for encoding in BOTH {
        for (row, why) in MISFITS {
            let good = r#"[0,0,0,"",true]"#;
            for (list, verb) in [("insert", "insert into"), ("delete", "delete from")] {
                for (before, after) in [(r#""relation":"all","#, ""), ("", r#","relation":"all""#)] {
                    let change = format!(r#"{{{before}"{list}":[{good},{good},{row}]{after}}}"#);
                    let json =
                        format!(r#"{{"id":1,"op":"transact","changes":[{{"relation":"flag"}},{change}]}}"#);
                    let rejected = refused(&encoded(&json, encoding), encoding);
                    let expected = format!("cannot {verb} relation `all`, row 2: {why}");
                    assert_eq!(rejected.error, ErrorBody::incorrect(expected));
                    assert_eq!(
                        rejected.id,
                        RequestId::from_raw(&[if encoding == Encoding::Json { b'1' } else { 1 }])
                    );
                }
            }
        }
    }
}

#[test]
fn numbers_beyond_64_bits_are_quoted_as_written() {
    for (value, column) in [("18446744073709551616", "n"), ("-9223372036854775809", "n")] {
        let json = format!(
            r#"{{"op":"transact","changes":[{{"relation":"all","insert":[[{value},0,0,"",true]]}}]}}"#
        );
        let error = refused(json.as_bytes(), Encoding::Json).error;
        assert!(error.message.contains(&format!("{value} does not fit column `{column}`")), "{error}");
    }
    let json = r#"{"op":"transact","changes":[{"relation":"all","insert":[[0,0,1e999,"",true]]}]}"#;
    let error = refused(json.as_bytes(), Encoding::Json).error;
    assert!(error.message.contains("1e999 does not fit column `f` (float)"), "{error}");
}

#[test]
fn messagepack_binary_and_extensions_are_no_numbers() {
    for value in [&[0xc4u8, 1, 0][..], &[0xd6, 0xff, 0, 0, 0, 0]] {
        let head = msgpack(r#"{"op":"transact","changes":[{"relation":"price","insert":[["tea",5]]}]}"#);
        let message = [&head[..head.len() - 1], value].concat();
        let error = refused(&message, Encoding::MessagePack).error;
        assert!(error.message.contains("of binary does not fit column `cents` (number)"), "{error}");
    }
}

/// A value of `stamped` in MessagePack, in hexadecimal, and its word.
fn stamped(row: &str) -> Result<Vec<Word>, String> {
    let json = format!(r#"{{"op":"transact","changes":[{{"relation":"stamped","insert":[[{row}]]}}]}}"#);
    match decode(&msgpack(&json), Encoding::MessagePack, &catalog()) {
        Ok(decoded) => match decoded.request {
            Request::Transact { changes, .. } => Ok(changes[0].insert.row(0).to_vec()),
            other => panic!("{other:?}"),
        },
        Err(rejected) => Err(rejected.error.message),
    }
}

const ID: &str = "raw:c41000112233445566778899aabbccddeeff";

#[test]
fn timestamps_are_read_in_all_three_sizes_and_no_finer_than_microseconds() {
    for (timestamp, micros) in [
        ("d6ff00000000", 0),
        ("d6ffffffffff", 4_294_967_295_000_000),
        ("d7ff0000000100000000", 4_294_967_296_000_000),
        ("d7ff00000fa000000000", 1),
        ("c70cff000003e80000000000000000", 1),
        ("c70cff3b9ac618ffffffffffffffff", -1),
        ("c70cff00000000fffffff1886e0900", -62_135_596_800_000_000),
    ] {
        let row = stamped(&format!(r#""raw:{timestamp}","{ID}","raw:c400""#)).unwrap();
        assert_eq!(row[0], from_number(micros), "{timestamp}");
    }
    for refused in [
        "d7ff0000000400000000",           // a nanosecond
        "d6fe00000000",                   // another extension
        "d5ff0000",                       // a size that timestamps don't have
        "c70cff3b9aca000000000000000000", // a whole second of nanoseconds
        "c70cff00000000fffffff1886e08ff", // before year 1
        "c70cff000000000000003afff44180", // after year 9999
        "05",
        "c0",
        "a0",
    ] {
        let message = stamped(&format!(r#""raw:{refused}","{ID}","raw:c400""#)).unwrap_err();
        assert!(message.ends_with("does not fit column `at` (instant)"), "{refused}: {message}");
    }
}

#[test]
fn uuids_and_bytes_are_binary_in_messagepack() {
    let row = stamped(&format!(r#""raw:d6ff00000000","{ID}","raw:c409000102030405060708""#)).unwrap();
    let bytes = |word| dictionary::with_bytes(word, <[u8]>::to_vec).unwrap();
    assert_eq!(bytes(row[1])[..4], [0, 0x11, 0x22, 0x33]);
    assert_eq!(bytes(row[2]), [0, 1, 2, 3, 4, 5, 6, 7, 8]);
    for (id, data, column) in [
        ("raw:c40f000000000000000000000000000000", "raw:c400", "`id` (uuid)"),
        ("00112233-4455-6677-8899-aabbccddeeff", "raw:c400", "`id` (uuid)"),
        ("raw:d8ff00112233445566778899aabbccddeeff", "raw:c400", "`id` (uuid)"),
        (ID, "AAE=", "`data` (bytes)"),
        (ID, "raw:d6ff00000000", "`data` (bytes)"),
        (ID, "raw:c0", "`data` (bytes)"),
    ] {
        let message = stamped(&format!(r#""raw:d6ff00000000","{id}","{data}""#)).unwrap_err();
        assert!(message.starts_with("cannot insert into relation `stamped`, row 0: "), "{message}");
        assert!(message.ends_with(&format!("does not fit column {column}")), "{message}");
    }
}

#[test]
fn records_that_do_not_fit_are_named() {
    let deep = |depth: usize| format!("{}null{}", r#"["a","#.repeat(depth), "]".repeat(depth));
    let large = format!(r#"["{}",null]"#, "x".repeat((1 << 20) + 1));
    for (list, tree, column) in [
        (r#"["a"]"#, r#"{"$Empty":[]}"#, "`list` (List)"),
        (r#"["a",null,null]"#, r#"{"$Empty":[]}"#, "`list` (List)"),
        (r#"[5,null]"#, r#"{"$Empty":[]}"#, "`list` (List)"),
        (r#"{"$Leaf":[1]}"#, r#"{"$Empty":[]}"#, "`list` (List)"),
        (r#""nil""#, r#"{"$Empty":[]}"#, "`list` (List)"),
        (&deep(101), r#"{"$Empty":[]}"#, "`list` (List)"),
        (&large, r#"{"$Empty":[]}"#, "`list` (List)"),
        ("null", "null", "`tree` (Tree)"),
        ("null", "[]", "`tree` (Tree)"),
        ("null", "{}", "`tree` (Tree)"),
        ("null", r#"{"Empty":[]}"#, "`tree` (Tree)"),
        ("null", r#"{"$Twig":[]}"#, "`tree` (Tree)"),
        ("null", r#"{"$Leaf":[]}"#, "`tree` (Tree)"),
        ("null", r#"{"$Leaf":5}"#, "`tree` (Tree)"),
        ("null", r#"{"$Leaf":[1.0]}"#, "`tree` (Tree)"),
        ("null", r#"{"$Empty":[],"$Leaf":[1]}"#, "`tree` (Tree)"),
        ("null", r#"{"$Node":[{"$Empty":[]},null]}"#, "`tree` (Tree)"),
    ] {
        let json =
            format!(r#"{{"op":"transact","changes":[{{"relation":"nested","insert":[[{list},{tree}]]}}]}}"#);
        for encoding in BOTH {
            let message = refused(&encoded(&json, encoding), encoding).error.message;
            assert!(message.starts_with("cannot insert into relation `nested`, row 0: "), "{message}");
            assert!(message.ends_with(&format!("does not fit column {column}")), "{list} {tree}: {message}");
        }
    }
    let json = format!(
        r#"{{"op":"transact","changes":[{{"relation":"nested","insert":[[{},{{"$Empty":[]}}]]}}]}}"#,
        deep(100)
    );
    for encoding in BOTH {
        decode(&encoded(&json, encoding), encoding, &catalog()).unwrap();
    }
}

#[test]
fn a_record_is_announced_after_what_stands_in_it() {
    let json = r#"{"op":"transact","changes":[{"relation":"nested","insert":[[["told of for the first time",null],{"$Leaf":[7]}]]}]}"#;
    let contents = accepted(json, Encoding::Json).contents;
    assert_eq!(contents[0], Content::Text("told of for the first time".into()));
    assert!(matches!(contents[1..], [Content::Record(_), Content::Record(_)]), "{contents:?}");
    let json = r#"{"op":"read","relation":"nested","where":{"list":["nobody ever made this",null]}}"#;
    assert!(accepted(json, Encoding::Json).contents.is_empty());
}
