//! Whatever the bytes, decoding answers: it never panics, and both encodings agree on what a message means.

mod common;

use common::{BOTH, catalog, encoded};
use dataflow_protocol::encoding::Encoding;
use dataflow_protocol::request::{RequestId, decode};
use dataflow_protocol::response::reply;
use proptest::prelude::*;

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

/// Decodes, and answers with the id as a server would; the answer must be well-formed where the request was.
fn exercise(bytes: &[u8], encoding: Encoding) -> bool {
    let (id, accepted) = match decode(bytes, encoding, &catalog()) {
        Ok(decoded) => (decoded.id, true),
        Err(rejected) => {
            assert!(!rejected.error.message.is_empty() && rejected.error.message.len() < 500);
            (rejected.id, false)
        }
    };
    let answer = reply::ok(encoding, &id, &true);
    match encoding {
        Encoding::Json => drop(serde_json::from_slice::<&serde_json::value::RawValue>(&answer).unwrap()),
        Encoding::MessagePack => drop(rmp_serde::from_slice::<serde::de::IgnoredAny>(&answer).unwrap()),
    }
    accepted
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn random_bytes_are_answered(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        for encoding in BOTH {
            exercise(&bytes, encoding);
        }
    }

    #[test]
    fn damaged_messages_are_answered(
        seed in 0..SEEDS.len(),
        damage in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>(), 0..4u8), 1..6),
    ) {
        for encoding in BOTH {
            let mut bytes = encoded(SEEDS[seed], encoding);
            for &(index, byte, kind) in &damage {
                if bytes.is_empty() {
                    break;
                }
                let at = index.index(bytes.len());
                match kind {
                    0 => bytes[at] = byte,
                    1 => drop(bytes.remove(at)),
                    2 => bytes.insert(at, byte),
                    _ => bytes.truncate(at),
                }
            }
            exercise(&bytes, encoding);
        }
    }

    #[test]
    fn shuffled_json_tokens_are_answered(tokens in proptest::collection::vec(0..TOKENS.len(), 0..40)) {
        let text: String = tokens.into_iter().map(|token| TOKENS[token]).collect();
        exercise(text.as_bytes(), Encoding::Json);
        exercise(format!("{{{text}").as_bytes(), Encoding::Json);
    }
}

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

#[test]
fn undamaged_messages_mean_the_same_in_both_encodings() {
    for seed in SEEDS {
        let [json, packed] =
            BOTH.map(|encoding| decode(&encoded(seed, encoding), encoding, &catalog()).unwrap());
        assert_eq!(json.request, packed.request, "{seed}");
        assert_eq!(json.id == RequestId::NULL, packed.id == RequestId::NULL);
        assert!(BOTH.iter().all(|&encoding| exercise(&encoded(seed, encoding), encoding)));
    }
}
