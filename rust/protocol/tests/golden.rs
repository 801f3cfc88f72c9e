//! The wire files of `tests/golden/`, which Python's tests read too: requests mean the same in both encodings, and what
//! the server writes is what the files say, byte for byte.

mod common;

use std::fmt::Write;
use std::path::PathBuf;

use common::{BOTH, buffer, catalog, columns, encoded, msgpack, symbol};
use dataflow_protocol::dictionary::{Entry, announced};
use dataflow_protocol::encoding::Encoding;
use dataflow_protocol::error::{ErrorBody, ErrorCode};
use dataflow_protocol::request::{RequestId, Schemas, decode};
use dataflow_protocol::response::push::{self, Step, Tail};
use dataflow_protocol::response::read::{self, Contents};
use dataflow_protocol::response::reply;
use dataflow_protocol::rows::RowBuf;
use dataflow_protocol::value::{NIL, Type, Word, from_bool, from_float, from_number};
use serde_json::{Value, json};

/// Compares a file with what it should be, or writes it where that was asked for.
fn check(file: &str, cases: &[Value]) {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden").join(file);
    let lines: Vec<String> = cases.iter().map(line).collect();
    let text = format!("[\n{}\n]\n", lines.join(",\n"));
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(&path, &text).unwrap();
    }
    let golden = std::fs::read_to_string(&path).unwrap();
    for (golden, line) in golden.lines().zip(text.lines()) {
        assert_eq!(golden, line, "{file}");
    }
    assert_eq!(golden.lines().count(), text.lines().count(), "{file}");
}

/// A case as a line, its name first.
fn line(case: &Value) -> String {
    let mut case = case.clone();
    let name = case.as_object_mut().unwrap().remove("name").unwrap();
    format!("  {{\"name\":{name},{}", &case.to_string()[1..])
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").unwrap();
        text
    })
}

/// A case of a message in both encodings.
fn case(name: &str, write: impl Fn(Encoding) -> Vec<u8>) -> Value {
    let json = String::from_utf8(write(Encoding::Json)).unwrap();
    json!({"name": name, "json": json, "messagepack": hex(&write(Encoding::MessagePack))})
}

fn id(encoding: Encoding) -> RequestId {
    RequestId::from_raw(if encoding == Encoding::Json { b"7" } else { &[7] })
}

const REQUESTS: &[(&str, &str)] = &[
    ("hello", r#"{"id":7,"op":"hello","version":1}"#),
    ("hello with a token", r#"{"id":7,"op":"hello","version":1,"token":"secret"}"#),
    ("register", r#"{"id":7,"op":"register","program":".decl a(x: number)\n.input a","name":"m"}"#),
    ("register without a name", r#"{"id":7,"op":"register","program":".decl a(x: number)\n.input a"}"#),
    ("unregister", r#"{"id":7,"op":"unregister","name":"m"}"#),
    (
        "register with limits",
        r#"{"id":7,"op":"register","program":".decl a(x: number)\n.input a","limits":{"iterations":1000,"rows":0,"bytes":1048576,"lag_millis":60000}}"#,
    ),
    ("cancel", r#"{"id":7,"op":"cancel","name":"m"}"#),
    ("transact nothing", r#"{"id":7,"op":"transact","changes":[]}"#),
    (
        "transact",
        r#"{"id":7,"op":"transact","changes":[{"relation":"likes","insert":[["ann","tea"],["bob","jam"]],"delete":[["cid","tea"]]},{"relation":"flag","insert":[[]]}],"key":"k","wait":"visible"}"#,
    ),
    (
        "transact every type",
        r#"{"id":7,"op":"transact","changes":[{"relation":"all","insert":[[-9223372036854775808,18446744073709551615,-0.5,"a \"quoted\" text\nof two lines: ü",true],[1,1,1.0,"",false]]}]}"#,
    ),
    (
        "transact records and branches",
        r#"{"id":7,"op":"transact","changes":[{"relation":"nested","insert":[[["a",["a good deal longer",null]],{"$Node":[{"$Leaf":[-1]},{"$Empty":[]}]}],[null,{"$Empty":[]}]]}]}"#,
    ),
    (
        "read where a record and a branch",
        r#"{"id":7,"op":"read","relation":"nested","where":{"list":["a",null],"tree":{"$Leaf":[5]}}}"#,
    ),
    ("subscribe", r#"{"id":7,"op":"subscribe","relation":"popular"}"#),
    (
        "subscribe with everything",
        r#"{"id":7,"op":"subscribe","relation":"price","snapshot":false,"progress":true,"where":{"cents":-5,"what":"tea"},"since":41,"history":"h"}"#,
    ),
    (
        "subscribe and rather end than have times merged",
        r#"{"id":7,"op":"subscribe","relation":"popular","slow":"end","backlog":1000}"#,
    ),
    (
        "subscribe to the first rows",
        r#"{"id":7,"op":"subscribe","relation":"price","where":{"what":"tea"},"order":["-cents"],"limit":10}"#,
    ),
    ("unsubscribe", r#"{"id":7,"op":"unsubscribe","sub":3}"#),
    ("read", r#"{"id":7,"op":"read","relation":"price"}"#),
    ("read some", r#"{"id":7,"op":"read","relation":"price","where":{"what":"tea"},"limit":10}"#),
    ("read in an order", r#"{"id":7,"op":"read","relation":"price","order":["-cents","what"]}"#),
    ("explain", r#"{"id":7,"op":"explain","relation":"popular"}"#),
    ("explain with figures", r#"{"id":7,"op":"explain","relation":"popular","analyze":true}"#),
    ("status", r#"{"id":7,"op":"status"}"#),
    (
        "attach",
        r#"{"id":7,"op":"attach","name":"log","source":{"kind":"files","path":"/var/log/*.csv","relation":"price","header":null,"more":[1,-2,1.5,true,{"a":"b"}]}}"#,
    ),
    ("detach", r#"{"id":7,"op":"detach","name":"log"}"#),
    ("tune", r#"{"id":7,"op":"tune","steps_per_turn":4,"time_budget_us":250.5}"#),
    ("ping", r#"{"id":7,"op":"ping"}"#),
    ("shutdown", r#"{"id":7,"op":"shutdown"}"#),
];

/// Requests with values that the encodings spell differently: the JSON, and the JSON of the MessagePack form.
const TYPED: &[(&str, &str, &str)] = &[
    (
        "transact instants, uuids and bytes",
        r#"{"id":7,"op":"transact","changes":[{"relation":"stamped","insert":[["2026-11-23T21:00:00.000000Z","00112233-4455-6677-8899-aabbccddeeff","/wABAgMEBQY="],["2026-11-23T21:00:00.500000Z","00112233-4455-6677-8899-aabbccddeeff",""],["1969-12-31T23:59:59.999999Z","ffffffff-ffff-ffff-ffff-ffffffffffff","AA=="]]}]}"#,
        r#"{"id":7,"op":"transact","changes":[{"relation":"stamped","insert":[["raw:d6ff6b04a950","raw:c41000112233445566778899aabbccddeeff","raw:c408ff00010203040506"],["raw:d7ff773594006b04a950","raw:c41000112233445566778899aabbccddeeff","raw:c400"],["raw:c70cff3b9ac618ffffffffffffffff","raw:c410ffffffffffffffffffffffffffffffff","raw:c40100"]]}]}"#,
    ),
    (
        "read where an instant, a uuid and bytes",
        r#"{"id":7,"op":"read","relation":"stamped","where":{"at":"2026-11-23T21:00:00.000000Z","id":"00112233-4455-6677-8899-aabbccddeeff","data":"AAE="}}"#,
        r#"{"id":7,"op":"read","relation":"stamped","where":{"at":"raw:d6ff6b04a950","id":"raw:c41000112233445566778899aabbccddeeff","data":"raw:c4020001"}}"#,
    ),
    (
        "advance",
        r#"{"id":7,"op":"advance","now":"2026-11-25T12:00:00.000000Z"}"#,
        r#"{"id":7,"op":"advance","now":"raw:d6ff6b06cdc0"}"#,
    ),
];

const REFUSALS: &[(&str, &str)] = &[
    ("unknown op", r#"{"id":7,"op":"dance"}"#),
    ("unknown field", r#"{"id":7,"op":"ping","loud":true}"#),
    ("missing field", r#"{"id":7,"op":"read"}"#),
    ("unknown relation", r#"{"id":7,"op":"read","relation":"liks"}"#),
    ("unknown version", r#"{"id":7,"op":"hello","version":2}"#),
    ("without an id", r#"{"op":"dance"}"#),
    ("a source that is no object", r#"{"id":7,"op":"attach","name":"log","source":["files"]}"#),
    (
        "a source that is nested too deep",
        r#"{"id":7,"op":"attach","name":"log","source":{"a":[[[[[[[[1]]]]]]]]}}"#,
    ),
    (
        "a value that does not fit",
        r#"{"id":7,"op":"transact","changes":[{"relation":"price","insert":[["tea",5],["jam",1.0]]}]}"#,
    ),
    (
        "an instant finer than microseconds",
        r#"{"id":7,"op":"read","relation":"stamped","where":{"at":"2026-11-23T21:00:00.0000001Z"}}"#,
    ),
    (
        "no uuid",
        r#"{"id":7,"op":"read","relation":"stamped","where":{"id":"00112233445566778899aabbccddeeff"}}"#,
    ),
    (
        "no base64",
        r#"{"id":7,"op":"transact","changes":[{"relation":"stamped","insert":[["2026-11-23T21:00:00Z","00112233-4455-6677-8899-aabbccddeeff","?"]]}]}"#,
    ),
    (
        "a record of too many fields",
        r#"{"id":7,"op":"transact","changes":[{"relation":"nested","insert":[[["a",null,5],{"$Empty":[]}]]}]}"#,
    ),
    ("no such branch", r#"{"id":7,"op":"read","relation":"nested","where":{"tree":{"$Twig":[]}}}"#),
    (
        "a row that is too short",
        r#"{"id":7,"op":"transact","changes":[{"relation":"price","delete":[["tea"]]}]}"#,
    ),
    (
        "a derived relation",
        r#"{"id":7,"op":"transact","changes":[{"relation":"popular","insert":[["tea",1]]}]}"#,
    ),
];

#[test]
fn requests_mean_the_same_in_both_encodings() {
    let alike = REQUESTS.iter().map(|&(name, json)| (name, json, json));
    let all: Vec<_> = alike.chain(TYPED.iter().copied()).collect();
    let form = |json: &str, packed: &str, encoding: Encoding| {
        encoded(if encoding == Encoding::Json { json } else { packed }, encoding)
    };
    for (name, json, packed) in &all {
        let [text, packed] =
            BOTH.map(|encoding| decode(&form(json, packed, encoding), encoding, &catalog()).unwrap());
        assert_eq!(text.request, packed.request, "{name}");
        assert_eq!((text.id, packed.id), (id(Encoding::Json), id(Encoding::MessagePack)), "{name}");
    }
    let cases: Vec<Value> =
        all.iter().map(|(name, json, packed)| case(name, |encoding| form(json, packed, encoding))).collect();
    check("requests.json", &cases);
}

#[test]
fn refusals_are_worded_as_written() {
    let refusal = |&(name, json): &(&str, &str)| {
        let reply = |encoding| {
            let rejected = decode(&encoded(json, encoding), encoding, &catalog()).unwrap_err();
            reply::error(encoding, &rejected.id, &rejected.error)
        };
        let text = String::from_utf8(reply(Encoding::Json)).unwrap();
        json!({
            "name": name, "json": json, "messagepack": hex(&msgpack(json)),
            "reply_json": text, "reply_messagepack": hex(&reply(Encoding::MessagePack)),
        })
    };
    let cases: Vec<Value> = REFUSALS.iter().map(refusal).collect();
    check("refusals.json", &cases);
}

#[test]
fn replies_are_written_as_before() {
    let ok = |name, body: Value| case(name, |encoding| reply::ok(encoding, &id(encoding), &body));
    let error = |name, body: ErrorBody| case(name, |encoding| reply::error(encoding, &id(encoding), &body));
    let all = catalog().schema("all").unwrap();
    let rows = buffer(
        5,
        &[
            &[
                from_number(i64::MIN),
                u64::MAX,
                from_float(1.0),
                symbol("a \"quoted\" text: ü\n"),
                from_bool(true),
            ],
            &[from_number(-1), 0, from_float(f64::NAN), symbol(""), from_bool(false)],
            &[from_number(127), 128, from_float(f64::INFINITY), symbol("x"), from_bool(false)],
            &[from_number(128), 65_536, from_float(f64::NEG_INFINITY), symbol("x"), from_bool(false)],
        ],
    );
    let read = |encoding| {
        let contents =
            Contents { columns: &all.columns, rows: &rows, copies: &[1, 2, 1, 1], limit: None, time: 42 };
        read::reply(encoding, &id(encoding), &contents, 10_000).unwrap()
    };
    let stamped = catalog().schema("stamped").unwrap();
    let id_word = announced(&[0xab; 16][..]).unwrap();
    let data = |bytes: &[u8]| announced(bytes).unwrap();
    let moment = |micros| from_number(micros);
    let stamps = buffer(
        3,
        &[
            &[moment(1_795_467_600_000_000), id_word, data(b"")],
            &[moment(1_795_467_600_000_001), id_word, data(&[0xff, 0xfe])],
            &[moment(-1), id_word, data(&[7; 20])],
            &[moment(20_000_000_000_000_000), id_word, data(b"\0")],
            &[moment(253_402_300_799_999_999), id_word, data(b"text")],
        ],
    );
    let read_stamped = |encoding| {
        let contents =
            Contents { columns: &stamped.columns, rows: &stamps, copies: &[1; 5], limit: None, time: 42 };
        read::reply(encoding, &id(encoding), &contents, 10_000).unwrap()
    };
    let nested = catalog().schema("nested").unwrap();
    let made = |words: &[Word]| announced(Entry::Record(words)).unwrap();
    let list = made(&[0, symbol("a"), made(&[0, symbol("a good deal longer"), NIL])]);
    let leaf = made(&[0, from_number(-1)]);
    let trees = buffer(2, &[&[list, made(&[1, leaf, made(&[2])])], &[NIL, leaf]]);
    let read_nested = |encoding| {
        let contents =
            Contents { columns: &nested.columns, rows: &trees, copies: &[1, 1], limit: None, time: 42 };
        read::reply(encoding, &id(encoding), &contents, 10_000).unwrap()
    };
    check(
        "replies.json",
        &[
            ok("a time", json!({"time": 42})),
            ok("nothing", json!({})),
            ok("deduplicated", json!({"deduplicated": true, "time": 42})),
            case("read", read),
            case("read instants, uuids and bytes", read_stamped),
            case("read records and branches", read_nested),
            error("an error", ErrorBody::new(ErrorCode::Conflict, "another program has the name `m`")),
            error(
                "an error with a hint",
                ErrorBody::not_found("unknown relation `liks`").with_hint("Did you mean `likes`?".to_owned()),
            ),
            error(
                "an error with a position",
                ErrorBody::incorrect("unknown relation `x`").with_position(3, 14),
            ),
            error("an error that may pass", ErrorBody::new(ErrorCode::Busy, "too many transactions wait")),
            case("an error without an id", |encoding| {
                reply::error(encoding, &RequestId::NULL, &ErrorBody::incorrect("malformed"))
            }),
        ],
    );
}

#[test]
fn pushed_messages_are_written_as_before() {
    let columns = columns(&[("what", Type::Symbol), ("n", Type::Number)]);
    let (tea, jam) = (symbol("tea"), symbol("jam and other things"));
    let rows = buffer(2, &[&[tea, from_number(2)], &[jam, from_number(-300)]]);
    let push = |name: &str, tail: &dyn Fn(Encoding) -> Tail| {
        case(name, |encoding| {
            let tail = tail(encoding);
            [&tail.head(3)[..], tail.bytes()].concat()
        })
    };
    let changes = |encoding, step: Step, rows: &RowBuf, diffs: &[i64]| {
        push::changes(encoding, &columns, step, rows, diffs, 1 << 18).swap_remove(0)
    };
    let step = Step { time: 42, ..Step::default() };
    let none = RowBuf::new(2);
    check(
        "pushes.json",
        &[
            push("a step", &|encoding| changes(encoding, step, &rows, &[1, -1])),
            push("a snapshot", &|encoding| {
                changes(encoding, Step { snapshot: true, ..step }, &rows, &[1, 1])
            }),
            push("an empty snapshot", &|encoding| {
                changes(encoding, Step { snapshot: true, ..step }, &none, &[])
            }),
            push("a part of a fresh snapshot", &|encoding| {
                changes(encoding, Step { snapshot: true, resync: true, more: true, ..step }, &rows, &[1, 3])
            }),
            push("progress", &|encoding| push::progress(encoding, 42)),
            push("the end", &|encoding| {
                push::ended(encoding, &ErrorBody::not_found("relation `popular` is gone"))
            }),
            push("the end of a slow subscriber", &|encoding| {
                push::ended(encoding, &ErrorBody::new(ErrorCode::Busy, "too slow").with_time(41))
            }),
        ],
    );
}

#[test]
fn the_catalog_is_the_one_of_the_files() {
    let relations = ["likes", "price", "flag", "all", "stamped", "nested", "popular"].map(|name| {
        let schema = catalog().schema(name).unwrap();
        let kind = if schema.input { "input" } else { "derived" };
        json!({"name": name, "kind": kind, "columns": schema.columns})
    });
    check("catalog.json", &relations);
}
