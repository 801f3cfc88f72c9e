//! Whatever the bytes, decoding answers: it never panics, and both encodings agree on what a message means.
//!
//! `FUZZ_SECONDS` is how long each property is tried.

mod common;
#[path = "common/fuzzing.rs"]
mod fuzzing;

use common::{BOTH, catalog, encoded, json};
use dataflow_protocol::encoding::Encoding;
use dataflow_protocol::request::{Decoded, Rejected, RequestId, decode};
use dataflow_protocol::response::reply;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::{Index, select};

const HERE: &str = env!("CARGO_MANIFEST_DIR");
/// The longest message of an error; clients get it whole.
const MAX_MESSAGE: usize = 500;

/// Messages to begin with: those below, and what the golden files have.
fn seeds() -> Vec<String> {
    let golden = ["requests", "refusals"].into_iter().flat_map(|name| {
        let path = format!("{HERE}/../../tests/golden/{name}.json");
        let cases: Vec<serde_json::Value> =
            serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
        cases.into_iter().map(|case| case["json"].as_str().unwrap().to_owned())
    });
    // Some refusals are of JSON that isn't even that.
    let sound = |text: &String| serde_json::from_str::<serde::de::IgnoredAny>(text).is_ok();
    SEEDS.iter().map(|&seed| seed.to_owned()).chain(golden.filter(sound)).collect()
}

const SEEDS: &[&str] = &[
    r#"{"id":1,"op":"ping"}"#,
    r#"{"id":"x","op":"hello","version":1,"token":"secret"}"#,
    r#"{"id":[null,{"a":1.5}],"op":"register","program":".decl a(x:number)","name":"m"}"#,
    r#"{"op":"transact","id":2,"key":"k","wait":"visible","changes":[{"relation":"likes","insert":[["ann","tea"],
        ["bob","a text of more than seven bytes"]],"delete":[["cid","jam"]]},{"relation":"flag","insert":[[]]}]}"#,
    r#"{"op":"transact","changes":[{"insert":[[-5,7,0.5,"s",true],[0,18446744073709551615,3,"",false]],"relation":"all"}]}"#,
    r#"{"where":{"cents":-3,"what":"tea"},"relation":"price","op":"subscribe","since":4,"history":"h","progress":true}"#,
    r#"{"op":"read","relation":"popular","limit":10,"where":{"n":1}}"#,
    r#"{"op":"tune","a":1,"b":"x","c":true,"d":-0.5}"#,
];

type Answer = Result<Decoded, Box<Rejected>>;

/// Decodes, and answers with the id as a server would; the answer must be well-formed where the request was.
fn exercise(bytes: &[u8], encoding: Encoding) -> Answer {
    let answer = decode(bytes, encoding, &catalog());
    if let Err(rejected) = &answer {
        assert!(!rejected.error.message.is_empty() && rejected.error.message.len() < MAX_MESSAGE);
    }
    let reply = reply::ok(encoding, id(&answer), &true);
    let sound = match encoding {
        Encoding::Json => serde_json::from_slice::<serde::de::IgnoredAny>(&reply).is_ok(),
        Encoding::MessagePack => rmp_serde::from_slice::<serde::de::IgnoredAny>(&reply).is_ok(),
    };
    assert!(sound, "a reply that can't be read: {reply:?}");
    answer
}

fn id(answer: &Answer) -> &RequestId {
    match answer {
        Ok(decoded) => &decoded.id,
        Err(rejected) => &rejected.id,
    }
}

// --- bytes -----------------------------------------------------------------------------------------------------------

/// What may happen to a message on its way.
#[derive(Clone, Debug)]
enum Damage {
    Replace(Index, u8),
    Flip(Index, u8),
    Remove(Index, usize),
    Insert(Index, Vec<u8>),
    Truncate(Index),
    /// A part of the message, once more somewhere else.
    Copy(Index, usize, Index),
    /// A part of another message.
    Splice(Index, usize, Index, Index),
}

fn damage() -> impl Strategy<Value = Damage> {
    // Bytes that mean something in one of the encodings.
    let telling = select(
        &b"\"\\{}[],:0-9eE+.tfn\x00\x7f\x80\x90\xa0\xc0\xc1\xc4\xc7\xca\xcb\xcf\xd3\xd9\xdb\xdc\xdf\xff"[..],
    );
    prop_oneof![
        (any::<Index>(), telling.clone()).prop_map(|(at, byte)| Damage::Replace(at, byte)),
        (any::<Index>(), any::<u8>()).prop_map(|(at, byte)| Damage::Replace(at, byte)),
        (any::<Index>(), 0..8u8).prop_map(|(at, bit)| Damage::Flip(at, bit)),
        (any::<Index>(), 1..9usize).prop_map(|(at, length)| Damage::Remove(at, length)),
        (any::<Index>(), vec(prop_oneof![telling, any::<u8>()], 1..6))
            .prop_map(|(at, bytes)| Damage::Insert(at, bytes)),
        any::<Index>().prop_map(Damage::Truncate),
        (any::<Index>(), 1..40usize, any::<Index>())
            .prop_map(|(from, length, to)| Damage::Copy(from, length, to)),
        (any::<Index>(), 1..40usize, any::<Index>(), any::<Index>())
            .prop_map(|(other, length, from, to)| Damage::Splice(other, length, from, to)),
    ]
}

fn part(bytes: &[u8], from: Index, length: usize) -> Vec<u8> {
    let from = from.index(bytes.len() + 1);
    bytes[from..bytes.len().min(from + length)].to_vec()
}

impl Damage {
    fn apply(&self, bytes: &mut Vec<u8>, messages: &[Vec<u8>]) {
        let insert = |bytes: &mut Vec<u8>, to: Index, new: Vec<u8>| {
            let to = to.index(bytes.len() + 1);
            bytes.splice(to..to, new);
        };
        match self {
            Damage::Insert(to, new) => insert(bytes, *to, new.clone()),
            Damage::Copy(from, length, to) => {
                let new = part(bytes, *from, *length);
                insert(bytes, *to, new);
            }
            Damage::Splice(other, length, from, to) => {
                insert(bytes, *to, part(&messages[other.index(messages.len())], *from, *length));
            }
            _ if bytes.is_empty() => {}
            Damage::Replace(at, byte) => {
                let at = at.index(bytes.len());
                bytes[at] = *byte;
            }
            Damage::Flip(at, bit) => {
                let at = at.index(bytes.len());
                bytes[at] ^= 1 << bit;
            }
            Damage::Remove(at, length) => {
                let at = at.index(bytes.len());
                drop(bytes.drain(at..bytes.len().min(at + length)));
            }
            Damage::Truncate(at) => bytes.truncate(at.index(bytes.len())),
        }
    }
}

/// Pieces of JSON.
const TOKENS: &[&str] = &[
    "{",
    "}",
    "[",
    "]",
    ",",
    ":",
    "\"op\"",
    "\"id\"",
    "\"transact\"",
    "\"changes\"",
    "\"relation\"",
    "\"all\"",
    "\"insert\"",
    "\"where\"",
    "\"read\"",
    "1",
    "-1",
    "1.5",
    "1e999",
    "null",
    "true",
    "\"\\ud800\"",
    "\"ü\"",
    " ",
    "18446744073709551616",
];

/// What a message is made of before it is damaged.
#[derive(Clone, Debug)]
enum Origin {
    Seed(Index),
    Bytes(Vec<u8>),
    Tokens(Vec<&'static str>),
}

fn origin() -> impl Strategy<Value = Origin> {
    prop_oneof![
        6 => any::<Index>().prop_map(Origin::Seed),
        1 => vec(any::<u8>(), 0..200).prop_map(Origin::Bytes),
        1 => vec(select(TOKENS), 0..40).prop_map(Origin::Tokens),
    ]
}

fn damaged_messages_are_answered(encoding: Encoding, name: &str) {
    let messages: Vec<Vec<u8>> = seeds().iter().map(|seed| encoded(seed, encoding)).collect();
    fuzzing::fuzz(HERE, name, &(origin(), vec(damage(), 0..8)), |(origin, damages)| {
        let mut bytes = match origin {
            Origin::Seed(seed) => seed.get(&messages).clone(),
            Origin::Bytes(bytes) => bytes,
            Origin::Tokens(tokens) => format!("{{{}", tokens.concat()).into_bytes(),
        };
        damages.iter().for_each(|damage| damage.apply(&mut bytes, &messages));
        drop(exercise(&bytes, encoding));
        Ok(())
    });
}

#[test]
fn damaged_json_is_answered() {
    damaged_messages_are_answered(Encoding::Json, "damaged_json");
}

#[test]
fn damaged_messagepack_is_answered() {
    damaged_messages_are_answered(Encoding::MessagePack, "damaged_messagepack");
}

// --- values ----------------------------------------------------------------------------------------------------------

/// Any JSON value, as text. The few texts are short or known, since the dictionary of texts only grows.
fn value() -> impl Strategy<Value = String> {
    let number = prop_oneof![
        any::<i64>().prop_map(|number| number.to_string()),
        any::<u64>().prop_map(|number| number.to_string()),
        select(vec![
            "0",
            "-0",
            "-1",
            "1.0",
            "-0.0",
            "9223372036854775807",
            "9223372036854775808",
            "-9223372036854775808",
            "18446744073709551615",
            "18446744073709551616",
            "-9223372036854775809",
            "1e300",
            "2.5e-9",
        ])
        .prop_map(str::to_owned),
    ];
    let text = select(vec![
        "",
        "ann",
        "tea",
        "seven b",
        "eight by",
        "a text of more than seven bytes",
        "ü",
        "\\u0000",
        "\\ud83d\\ude00",
        "\\\"",
        "likes",
        "visible",
    ])
    .prop_map(|text| format!("\"{text}\""));
    let leaf = prop_oneof![Just("null".to_owned()), any::<bool>().prop_map(|b| b.to_string()), number, text];
    leaf.prop_recursive(3, 24, 5, |inner| {
        prop_oneof![
            vec(inner.clone(), 0..5).prop_map(|elements| format!("[{}]", elements.join(","))),
            vec((select(vec!["a", "x", "op"]), inner), 0..4).prop_map(map),
        ]
    })
}

fn map(entries: Vec<(&'static str, String)>) -> String {
    let entries: Vec<String> =
        entries.into_iter().map(|(name, value)| format!("\"{name}\":{value}")).collect();
    format!("{{{}}}", entries.join(","))
}

/// A row that may fit one of the relations.
fn row() -> impl Strategy<Value = String> {
    let texts = select(vec!["\"ann\"", "\"tea\"", "\"a text of more than seven bytes\"", "\"\""])
        .prop_map(str::to_owned);
    prop_oneof![
        4 => vec(texts.clone(), 2).prop_map(|columns| format!("[{}]", columns.join(","))),
        4 => (texts.clone(), any::<i64>()).prop_map(|(text, number)| format!("[{text},{number}]")),
        1 => Just("[]".to_owned()),
        4 => (any::<i64>(), any::<u64>(), -1e9..1e9f64, texts, any::<bool>())
            .prop_map(|(n, u, f, s, b)| format!("[{n},{u},{f:?},{s},{b}]")),
        1 => vec(value(), 0..6).prop_map(|columns| format!("[{}]", columns.join(","))),
        1 => value(),
    ]
}

/// A field of some request, mostly as it should be.
fn field() -> impl Strategy<Value = (&'static str, String)> {
    let relation =
        || select(vec!["\"likes\"", "\"price\"", "\"flag\"", "\"all\"", "\"popular\"", "\"lkes\""]);
    let rows = || vec(row(), 0..4).prop_map(|rows| format!("[{}]", rows.join(",")));
    let change = vec(
        prop_oneof![
            relation().prop_map(|name| ("relation", name.to_owned())),
            rows().prop_map(|rows| ("insert", rows)),
            rows().prop_map(|rows| ("delete", rows)),
        ],
        0..4,
    )
    .prop_map(map);
    let conditions =
        vec((select(vec!["who", "what", "cents", "n", "u", "f", "s", "b", "zz"]), value()), 0..3)
            .prop_map(map);
    let ops = [
        "hello",
        "register",
        "unregister",
        "transact",
        "subscribe",
        "unsubscribe",
        "read",
        "explain",
        "status",
        "tune",
        "ping",
        "shutdown",
        "dance",
    ];
    let names = vec![
        "op",
        "id",
        "version",
        "token",
        "program",
        "name",
        "changes",
        "key",
        "wait",
        "relation",
        "snapshot",
        "progress",
        "where",
        "since",
        "history",
        "sub",
        "limit",
        "more",
        "emit_rows",
    ];
    prop_oneof![
        6 => select(ops.to_vec()).prop_map(|op| ("op", format!("\"{op}\""))),
        4 => relation().prop_map(|name| ("relation", name.to_owned())),
        4 => vec(change, 0..4).prop_map(|changes| ("changes", format!("[{}]", changes.join(",")))),
        2 => conditions.prop_map(|conditions| ("where", conditions)),
        2 => value().prop_map(|id| ("id", id)),
        1 => select(vec!["\"visible\"", "\"sequenced\"", "null"]).prop_map(|wait| ("wait", wait.to_owned())),
        1 => any::<bool>().prop_map(|b| ("snapshot", b.to_string())),
        1 => (0..20u64).prop_map(|limit| ("limit", limit.to_string())),
        2 => (select(names), value()),
    ]
}

#[test]
fn both_encodings_mean_the_same() {
    fuzzing::fuzz(HERE, "both_encodings", &vec(field(), 0..6), |fields| {
        let text = map(fields);
        let [as_json, as_messagepack] = BOTH.map(|encoding| exercise(&encoded(&text, encoding), encoding));
        prop_assert_eq!(
            json(id(&as_json).raw(Encoding::Json), Encoding::Json),
            json(id(&as_messagepack).raw(Encoding::MessagePack), Encoding::MessagePack)
        );
        match (as_json, as_messagepack) {
            (Ok(one), Ok(other)) => prop_assert_eq!(one.request, other.request),
            // The words for a value may differ: JSON can show it as it was sent.
            (Err(one), Err(other)) => prop_assert_eq!(
                (one.error.code, one.error.retry, one.error.hint, one.error.at),
                (other.error.code, other.error.retry, other.error.hint, other.error.at)
            ),
            (one, other) => prop_assert!(false, "{text}: {one:?} as JSON, {other:?} as MessagePack"),
        }
        Ok(())
    });
}

#[test]
fn undamaged_messages_mean_the_same_in_both_encodings() {
    for seed in SEEDS {
        let [json, packed] = BOTH.map(|encoding| exercise(&encoded(seed, encoding), encoding).unwrap());
        assert_eq!(json.request, packed.request, "{seed}");
        assert_eq!(json.id == RequestId::NULL, packed.id == RequestId::NULL);
    }
}
