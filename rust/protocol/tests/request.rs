//! Requests: what is understood, what is refused and in which words, in both encodings; of values see `values.rs`.

mod common;

use std::sync::Arc;

use common::{BOTH, Catalog, accepted, catalog, encoded, msgpack, refused, symbol};
use dataflow_protocol::dictionary::{self, Content};
use dataflow_protocol::encoding::Encoding;
use dataflow_protocol::error::{ErrorBody, ErrorCode};
use dataflow_protocol::order::{By, Ranking};
use dataflow_protocol::request::{
    Op, QueryLimits, Request, RequestId, Schema, Schemas, Setting, Since, Slow, Wait, decode,
};
use dataflow_protocol::value::from_number;

#[test]
fn every_op_is_read_with_its_fields() {
    for encoding in BOTH {
        let request = |json| accepted(json, encoding).request;
        assert_eq!(
            request(r#"{"id":1,"op":"hello","version":1,"token":"s"}"#),
            Request::Hello { version: 1, token: Some("s".into()) }
        );
        assert_eq!(
            request(r#"{"id":1,"op":"register","program":".decl","name":null}"#),
            Request::Register { program: ".decl".into(), name: None, limits: None }
        );
        assert_eq!(
            request(r#"{"op":"register","program":"","limits":{"iterations":9,"rows":0,"bytes":null}}"#),
            Request::Register {
                program: String::new(),
                name: None,
                limits: Some(QueryLimits { iterations: Some(9), rows: Some(0), ..QueryLimits::default() })
            }
        );
        assert_eq!(request(r#"{"name":"m","op":"cancel"}"#), Request::Cancel { name: "m".into() });
        assert_eq!(request(r#"{"op":"unregister","name":"m"}"#), Request::Unregister { name: "m".into() });
        assert_eq!(request(r#"{"sub":7,"op":"unsubscribe"}"#), Request::Unsubscribe { sub: 7 });
        assert_eq!(request(r#"{"op":"status"}"#), Request::Status);
        assert_eq!(request(r#"{"op":"ping"}"#), Request::Ping);
        assert_eq!(request(r#"{"op":"shutdown"}"#), Request::Shutdown);
        assert_eq!(
            request(r#"{"op":"tune","park_us":50,"spin":true,"share":0.5}"#),
            Request::Tune {
                settings: vec![
                    ("park_us".into(), Setting::Integer(50)),
                    ("spin".into(), Setting::Bool(true)),
                    ("share".into(), Setting::Float(0.5)),
                ]
            }
        );
    }
}

#[test]
fn subscribe_and_read_find_their_relation_and_columns_in_any_order() {
    for encoding in BOTH {
        for json in [
            r#"{"op":"subscribe","relation":"price","where":{"cents":5},"since":9,"history":"h"}"#,
            r#"{"where":{"cents":5},"since":9,"relation":"price","history":"h","op":"subscribe"}"#,
            r#"{"op":"subscribe","where":{"cents":5},"relation":"price","since":9,"history":"h","progress":false}"#,
        ] {
            let Request::Subscribe(subscribe) = accepted(json, encoding).request else { panic!("{json}") };
            assert_eq!(subscribe.relation.name, "price");
            assert_eq!(subscribe.filter, [(1, from_number(5))]);
            assert_eq!(subscribe.since, Some(Since { time: 9, history: "h".into() }));
            assert!(subscribe.snapshot && !subscribe.progress);
            assert_eq!((subscribe.slow, subscribe.backlog), (Slow::Coalesce, None));
        }
        let json = r#"{"op":"read","relation":"popular","limit":3,"where":{"what":"tea"}}"#;
        let Request::Read { relation, filter, order, limit } = accepted(json, encoding).request else {
            panic!()
        };
        assert_eq!((relation.name.as_str(), order, limit), ("popular", None, Some(3)));
        assert_eq!(filter, [(0, symbol("tea"))]);
    }
}

#[test]
fn an_order_is_columns_and_which_way_they_go() {
    let by = |column, descending| By { column, descending };
    for encoding in BOTH {
        let json = r#"{"op":"read","order":["-n","what"],"relation":"popular"}"#;
        let Request::Read { order, limit, .. } = accepted(json, encoding).request else { panic!() };
        assert_eq!((order, limit), (Some(vec![by(1, true), by(0, false)]), None));
        let json =
            r#"{"op":"subscribe","limit":3,"relation":"popular","order":["n"],"where":{"n":5,"what":"tea"}}"#;
        let Request::Subscribe(subscribe) = accepted(json, encoding).request else { panic!() };
        let filter = vec![(0, symbol("tea")), (1, from_number(5))];
        let ranking = Ranking { filter, order: vec![by(1, false)], limit: 3 };
        assert_eq!((subscribe.filter, subscribe.ranking), (vec![], Some(ranking)));
        let json = r#"{"op":"subscribe","limit":0,"relation":"popular"}"#;
        let Request::Subscribe(subscribe) = accepted(json, encoding).request else { panic!() };
        assert_eq!(subscribe.ranking, Some(Ranking { filter: vec![], order: vec![], limit: 0 }));
    }
}

#[test]
fn several_changes_keep_their_order_and_nullary_rows_are_counted() {
    for encoding in BOTH {
        let json = r#"{"op":"transact","key":"k","wait":"visible","changes":[
            {"relation":"flag","insert":[[],[]],"delete":[[]]},{"relation":"price","insert":[["tea",5]]},
            {"relation":"flag"}]}"#;
        let Request::Transact { changes, key, wait } = accepted(json, encoding).request else { panic!() };
        assert_eq!((key.as_deref(), wait), (Some("k"), Wait::Visible));
        let sizes: Vec<_> =
            changes.iter().map(|c| (c.relation.name.as_str(), c.insert.len(), c.delete.len())).collect();
        assert_eq!(sizes, [("flag", 2, 1), ("price", 1, 0), ("flag", 0, 0)]);
        let empty = accepted(r#"{"op":"transact","changes":[]}"#, encoding).request;
        assert_eq!(empty, Request::Transact { changes: vec![], key: None, wait: Wait::Sequenced });
    }
}

#[test]
fn the_id_is_echoed_as_written() {
    for id in [r#"7"#, r#""x\u0041""#, r#"[1, {"a": 1.50}]"#, "null", "-0.0", "1e400", r#"{"id":{"id":3}}"#] {
        let json = format!(r#"{{"op":"ping","id": {id} }}"#);
        let decoded = decode(json.as_bytes(), Encoding::Json, &catalog()).unwrap();
        assert_eq!(decoded.id.raw(Encoding::Json), id.as_bytes());
        let wrong = format!(r#"{{"op":"dance","id": {id} }}"#);
        assert_eq!(refused(wrong.as_bytes(), Encoding::Json).id.raw(Encoding::Json), id.as_bytes());
    }
    assert_eq!(accepted(r#"{"op":"ping"}"#, Encoding::Json).id, RequestId::NULL);
    // A MessagePack id that is an extension, with a length of more bytes than it needs.
    let id = [0xc8, 0, 1, 5, 9];
    let message = [&[0x82, 0xa2, b'i', b'd'][..], &id, &[0xa2, b'o', b'p', 0xa4], b"ping"].concat();
    let decoded = decode(&message, Encoding::MessagePack, &catalog()).unwrap();
    assert_eq!(decoded.id.raw(Encoding::MessagePack), id);
}

#[test]
fn ids_and_skipped_values_may_nest_without_end() {
    let depth = 200_000;
    let deep = "[".repeat(depth) + &"]".repeat(depth);
    let json = format!(r#"{{"id":{deep},"op":"dance","x":{deep}}}"#);
    assert_eq!(refused(json.as_bytes(), Encoding::Json).id.raw(Encoding::Json), deep.as_bytes());
    let packed = [&[0x91].repeat(depth)[..], &[0xc0]].concat();
    let message = [&[0x82, 0xa2, b'i', b'd'][..], &packed, &[0xa1, b'x'], &packed].concat();
    let rejected = refused(&message, Encoding::MessagePack);
    assert_eq!(rejected.id.raw(Encoding::MessagePack), packed);
    let row = format!(r#"{{"op":"transact","changes":[{{"relation":"price","insert":[{deep}]}}]}}"#);
    assert_eq!(refused(row.as_bytes(), Encoding::Json).error.code, ErrorCode::Incorrect);
}

/// Request, code, a part of the message, a part of the hint.
const MISTAKES: &[(&str, ErrorCode, &str, &str)] = &[
    (r#"{"op":"dance"}"#, ErrorCode::Incorrect, "unknown op `dance`", ""),
    (r#"{"op":"pong"}"#, ErrorCode::Incorrect, "unknown op `pong`", "`ping`"),
    (r#"{"op":5}"#, ErrorCode::Incorrect, "field `op`: invalid type: integer `5`, expected a string", ""),
    (r#"{}"#, ErrorCode::Incorrect, "missing field `op`", ""),
    (r#"[1]"#, ErrorCode::Incorrect, "expected a request: an object", ""),
    (r#""text""#, ErrorCode::Incorrect, "expected a request: an object", ""),
    (r#"{"op":"ping","loud":true}"#, ErrorCode::Incorrect, "unknown field `loud` of op `ping`", ""),
    (r#"{"loud":true,"op":"ping"}"#, ErrorCode::Incorrect, "unknown field `loud` of op `ping`", ""),
    (r#"{"op":"read","realtion":"likes"}"#, ErrorCode::Incorrect, "unknown field `realtion`", "`relation`"),
    (r#"{"op":"ping","op":"ping"}"#, ErrorCode::Incorrect, "duplicate field `op`", ""),
    (r#"{"op":"ping","id":1,"id":2}"#, ErrorCode::Incorrect, "duplicate field `id`", ""),
    (r#"{"op":"unsubscribe","sub":1,"sub":2}"#, ErrorCode::Incorrect, "duplicate field `sub`", ""),
    (r#"{"op":"tune","a":1,"a":2}"#, ErrorCode::Incorrect, "duplicate field `a`", ""),
    (r#"{"op":"tune","a":[]}"#, ErrorCode::Incorrect, "field `a`: invalid type: sequence", ""),
    (r#"{"op":"hello"}"#, ErrorCode::Incorrect, "missing field `version` of op `hello`", ""),
    (r#"{"op":"hello","version":2}"#, ErrorCode::Unsupported, "version 2 of the protocol", "version 1"),
    (r#"{"op":"hello","version":"1"}"#, ErrorCode::Incorrect, "field `version`: invalid type: string", ""),
    (
        r#"{"op":"register","program":7}"#,
        ErrorCode::Incorrect,
        "field `program`: invalid type: integer `7`",
        "",
    ),
    (r#"{"op":"register"}"#, ErrorCode::Incorrect, "missing field `program`", ""),
    (r#"{"op":"read","relation":"liks"}"#, ErrorCode::NotFound, "unknown relation `liks`", "`likes`"),
    (r#"{"op":"explain","relation":"nope"}"#, ErrorCode::NotFound, "unknown relation `nope`", ""),
    (
        r#"{"op":"read","relation":"likes","limit":-1}"#,
        ErrorCode::Incorrect,
        "field `limit`: invalid value",
        "",
    ),
    (
        r#"{"op":"read","relation":"likes","limit":1e999}"#,
        ErrorCode::Incorrect,
        "field `limit`: number out of range",
        "",
    ),
    (r#"{"op":"read"}"#, ErrorCode::Incorrect, "missing field `relation`", ""),
    (
        r#"{"op":"read","relation":"likes","where":{"hwo":"x"}}"#,
        ErrorCode::Incorrect,
        "unknown column `hwo`",
        "`who`",
    ),
    (
        r#"{"op":"read","relation":"likes","order":["-hwo"]}"#,
        ErrorCode::Incorrect,
        "unknown column `hwo` of relation `likes` in `order`",
        "`who`",
    ),
    (
        r#"{"op":"subscribe","limit":2,"order":["who","-who"],"relation":"likes"}"#,
        ErrorCode::Incorrect,
        "duplicate column `who` in `order`",
        "",
    ),
    (
        r#"{"op":"subscribe","order":["who"],"relation":"likes"}"#,
        ErrorCode::Incorrect,
        "cannot subscribe to relation `likes` in an order without `limit`",
        "Give `limit`",
    ),
    (
        r#"{"op":"read","order":["list"],"relation":"nested"}"#,
        ErrorCode::Unsupported,
        "cannot order relation `nested` by column `list`: values of List have no order",
        "",
    ),
    (r#"{"op":"read","order":"who","relation":"likes"}"#, ErrorCode::Incorrect, "field `order`: ", ""),
    (
        r#"{"op":"read","relation":"price","where":{"cents":"five"}}"#,
        ErrorCode::Incorrect,
        r#"in `where`, "five" does not fit column `cents` (number) of relation `price`"#,
        "",
    ),
    (
        r#"{"op":"read","where":{"cents":1,"cents":1},"relation":"price"}"#,
        ErrorCode::Incorrect,
        "duplicate column `cents`",
        "",
    ),
    (
        r#"{"op":"subscribe","relation":"likes","since":1}"#,
        ErrorCode::Incorrect,
        "missing field `history`",
        "",
    ),
    (r#"{"op":"transact"}"#, ErrorCode::Incorrect, "missing field `changes`", ""),
    (r#"{"op":"transact","changes":{}}"#, ErrorCode::Incorrect, "field `changes`: invalid type: map", ""),
    (r#"{"op":"transact","changes":[5]}"#, ErrorCode::Incorrect, "expected change 0 to be an object", ""),
    (
        r#"{"op":"transact","changes":[],"wait":"soon"}"#,
        ErrorCode::Incorrect,
        "unknown value `soon`",
        "`visible`",
    ),
    (
        r#"{"op":"transact","changes":[{"insert":[]}]}"#,
        ErrorCode::Incorrect,
        "change 0 has no `relation`",
        "",
    ),
    (
        r#"{"op":"transact","changes":[{"relation":"flag"},{"relation":"pric"}]}"#,
        ErrorCode::NotFound,
        "unknown relation `pric`",
        "`price`",
    ),
    (
        r#"{"op":"transact","changes":[{"relation":"flag","upsert":[]}]}"#,
        ErrorCode::Incorrect,
        "unknown field `upsert` in change 0",
        "",
    ),
    (
        r#"{"op":"transact","changes":[{"relation":"flag","insert":[],"insert":[]}]}"#,
        ErrorCode::Incorrect,
        "duplicate field `insert` in change 0",
        "",
    ),
    (
        r#"{"op":"transact","changes":[{"relation":"popular","insert":[["tea",1]]}]}"#,
        ErrorCode::Incorrect,
        "cannot transact into relation `popular`: it is derived",
        "",
    ),
    (
        r#"{"op":"transact","changes":[{"relation":"price","insert":5}]}"#,
        ErrorCode::Incorrect,
        "expected `insert` of change 0 to be an array of rows",
        "",
    ),
];

#[test]
fn mistakes_are_told_in_words() {
    for encoding in BOTH {
        for &(json, code, message, hint) in MISTAKES {
            // MessagePack has no way to write a number beyond all floats.
            if encoding == Encoding::MessagePack && json.contains("1e999") {
                continue;
            }
            let error = refused(&encoded(json, encoding), encoding).error;
            assert_eq!(error.code, code, "{json}: {error}");
            assert!(error.message.contains(message), "{json}: {error}");
            assert!(error.hint.unwrap_or_default().contains(hint), "{json}: {}", error.message);
        }
    }
}

#[test]
fn malformed_messages_have_no_id() {
    let texts = [
        "",
        "{",
        "}",
        r#"{"id":1"#,
        r#"{"id":1,"op":"ping"}}"#,
        r#"{"id":1,"op":ping}"#,
        r#"{"id":1,,}"#,
        "\u{feff}{}",
        r#"{"id":1,"op":"transact","changes":[{"relation":"price","insert":[["tea",5]"#,
        r#"{id:1}"#,
        "nul",
    ];
    for text in texts {
        let rejected = refused(text.as_bytes(), Encoding::Json);
        assert_eq!((rejected.id, rejected.error.code), (RequestId::NULL, ErrorCode::Incorrect), "{text}");
        assert!(rejected.error.message.starts_with("malformed JSON: "), "{}", rejected.error);
    }
    assert!(refused(b"{\"id\":1,\"op\":\"\xff\"}", Encoding::Json).error.message.contains("not UTF-8"));
    let whole = msgpack(r#"{"id":1,"op":"transact","changes":[{"relation":"price","insert":[["tea",5]]}]}"#);
    let mut bad: Vec<Vec<u8>> = (0..whole.len()).map(|end| whole[..end].to_vec()).collect();
    bad.extend([[&whole[..], &[0]].concat(), vec![0xc1], vec![0xdf, 255, 255, 255, 255], vec![0xa1, 0xff]]);
    for bytes in bad {
        let rejected = refused(&bytes, Encoding::MessagePack);
        assert_eq!((rejected.id, rejected.error.code), (RequestId::NULL, ErrorCode::Incorrect), "{bytes:x?}");
        assert!(rejected.error.message.starts_with("malformed MessagePack: "), "{}", rejected.error);
    }
}

#[test]
fn messages_about_long_values_stay_short() {
    let long = "x".repeat(100_000);
    for json in [
        format!(r#"{{"op":"{long}"}}"#),
        format!(r#"{{"op":"ping","{long}":1}}"#),
        format!(r#"{{"op":"read","relation":"{long}"}}"#),
        format!(r#"{{"op":"hello","version":"{long}"}}"#),
        format!(r#"{{"op":"transact","changes":[{{"relation":"price","insert":[["t","{long}"]]}}]}}"#),
    ] {
        for encoding in BOTH {
            assert!(refused(&encoded(&json, encoding), encoding).error.message.len() < 500);
        }
    }
}

#[test]
fn new_contents_are_handed_out_until_they_are_announced() {
    let text = "this symbol was never seen before by anybody";
    let json = format!(
        r#"{{"op":"transact","changes":[{{"relation":"price","insert":[["{text}",5],["{text}","oops"]]}}]}}"#
    );
    assert_eq!(refused(json.as_bytes(), Encoding::Json).contents, [Content::Text(text.into())]);
    let json = json.replace(r#""oops""#, "5");
    // Another worker may be about to announce it, but this request's rows may be sequenced before that.
    assert_eq!(accepted(&json, Encoding::Json).contents, [Content::Text(text.into())]);
    dictionary::announced(text).unwrap();
    assert!(accepted(&json, Encoding::Json).contents.is_empty());
}

/// A client that may read, and that of some relations.
struct Reader(Catalog);

impl Schemas for Reader {
    fn schema(&self, relation: &str) -> Option<Arc<Schema>> {
        assert_eq!(relation, "likes", "what isn't permitted isn't looked up");
        self.0.schema(relation)
    }

    fn nearest(&self, relation: &str) -> Option<String> {
        self.0.nearest(relation)
    }

    fn permit(&self, op: Op) -> Result<(), ErrorBody> {
        let permitted = matches!(op, Op::Read | Op::Ping);
        permitted
            .then_some(())
            .ok_or_else(|| ErrorBody::new(ErrorCode::Forbidden, format!("no {}", op.name())))
    }

    fn permit_relation(&self, op: Op, relation: &str) -> Result<(), ErrorBody> {
        let message = format!("no {} of {relation}", op.name());
        (relation == "likes").then_some(()).ok_or_else(|| ErrorBody::new(ErrorCode::Forbidden, message))
    }
}

/// A catalog under which transactions are short.
struct Short(Catalog);

impl Schemas for Short {
    fn schema(&self, relation: &str) -> Option<Arc<Schema>> {
        self.0.schema(relation)
    }

    fn nearest(&self, relation: &str) -> Option<String> {
        self.0.nearest(relation)
    }

    fn transaction_rows(&self) -> usize {
        3
    }
}

#[test]
fn a_transaction_has_so_many_rows_whichever_lists_they_are_in() {
    let transact = |changes: &str| format!(r#"{{"id": 1, "op": "transact", "changes": [{changes}]}}"#);
    let three = r#"{"relation": "flag", "insert": [[], []]}, {"relation": "flag", "delete": [[]]}"#;
    let four =
        r#"{"insert": [[], []], "relation": "flag", "delete": [[]]}, {"relation": "flag", "insert": [[]]}"#;
    for encoding in BOTH {
        assert!(decode(&encoded(&transact(three), encoding), encoding, &Short(catalog())).is_ok());
        let rejected = decode(&encoded(&transact(four), encoding), encoding, &Short(catalog())).unwrap_err();
        assert_eq!(rejected.error.code, ErrorCode::TooLarge);
        assert_eq!(rejected.error.message, "a transaction may have 3 rows");
    }
}

#[test]
fn what_a_client_may_not_ask_is_refused_before_its_fields_are_acted_upon() {
    for (json, message) in [
        (r#"{"id": 1, "op": "read", "relation": "likes"}"#, None),
        (r#"{"id": 1, "op": "ping"}"#, None),
        (r#"{"id": 1, "op": "read", "relation": "price"}"#, Some("no read of price")),
        (r#"{"id": 1, "relation": "missing", "op": "read"}"#, Some("no read of missing")),
        (r#"{"id": 1, "op": "shutdown"}"#, Some("no shutdown")),
        (r#"{"op": "register", "program": 7, "id": 1}"#, Some("no register")),
        (
            r#"{"changes": [{"relation": "likes", "insert": [["a forbidden text", "x"]]}], "op": "transact", "id": 1}"#,
            Some("no transact"),
        ),
        (
            r#"{"op": "transact", "changes": [{"relation": "likes", "insert": [["a forbidden text", "x"]]}], "id": 1}"#,
            Some("no transact"),
        ),
    ] {
        for encoding in BOTH {
            match (decode(&encoded(json, encoding), encoding, &Reader(catalog())), message) {
                (Ok(_), None) => {}
                (Err(rejected), Some(message)) => {
                    assert_eq!(rejected.error, ErrorBody::new(ErrorCode::Forbidden, message), "{json}");
                    assert_ne!(rejected.id, RequestId::NULL);
                    assert_eq!(rejected.contents, []);
                }
                (result, _) => panic!("{json}: {result:?}"),
            }
        }
    }
}

#[test]
fn a_filter_brings_no_new_contents() {
    let json = r#"{"op":"read","relation":"price","where":{"what":"nobody has ever transacted this"}}"#;
    assert!(accepted(json, Encoding::Json).contents.is_empty());
    let word = dictionary::word_of("nobody has ever transacted this").unwrap();
    assert_eq!(dictionary::with_text(word, str::to_owned), None);
}
