//! Random conversations: whatever comes, in whatever portions, it means the same, and nothing panics.
//!
//! `FUZZ_SECONDS` is how long each property is tried.

#[path = "../../../protocol/tests/common/fuzzing.rs"]
mod fuzzing;

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::{Index, select};

use super::tests::{Outcome, UPGRADE, comparable, conversations, play, small};
use super::*;

const HERE: &str = env!("CARGO_MANIFEST_DIR");

/// Cuts bytes into portions; the last one is as long as need be.
fn portions<'a>(bytes: &'a [u8], lengths: &[usize]) -> Vec<&'a [u8]> {
    let mut rest = bytes;
    let mut parts = Vec::new();
    for &length in lengths.iter().cycle().take(bytes.len()) {
        let (part, others) = rest.split_at(length.min(rest.len()));
        parts.push(part);
        rest = others;
    }
    parts
}

/// Plays the bytes at once and in portions, with the same result.
fn same_in_portions(bytes: &[u8], lengths: &[usize]) -> Result<Outcome, TestCaseError> {
    let limits = || Limits { max_http_head_bytes: 600, max_http_headers: 16, ..small() };
    let whole = comparable(play(limits(), [bytes], true));
    let parts = comparable(play(limits(), portions(bytes, lengths), true));
    prop_assert_eq!(&whole.messages, &parts.messages);
    prop_assert_eq!(&whole.requests, &parts.requests);
    prop_assert_eq!((whole.kind, whole.over), (parts.kind, parts.over));
    prop_assert_eq!(whole.violation.as_ref().map(Violation::close), parts.violation.map(|v| v.close()));
    Ok(whole)
}

fn lengths() -> impl Strategy<Value = Vec<usize>> {
    vec(prop_oneof![3 => 1..4usize, 2 => 1..40usize, 1 => 1..400usize], 1..6)
}

#[test]
fn damaged_conversations_mean_the_same_in_portions() {
    let damage = vec((any::<Index>(), any::<u8>(), 0..5u8, any::<Index>()), 0..6);
    let strategy = (0..conversations().len(), damage, vec(any::<u8>(), 0..60), lengths());
    fuzzing::fuzz(HERE, "conversations", &strategy, |(which, damages, tail, lengths)| {
        let (_, mut bytes) = conversations().swap_remove(which);
        for (at, byte, kind, other) in damages {
            if bytes.is_empty() {
                break;
            }
            let (at, other) = (at.index(bytes.len()), other.index(bytes.len()));
            match kind {
                0 => bytes[at] = byte,
                1 => bytes[at] ^= 1 << (byte % 8),
                2 => drop(bytes.remove(at)),
                3 => bytes.insert(at, byte),
                _ => {
                    let again = bytes[at.min(other)..at.max(other)].to_vec();
                    bytes.splice(at..at, again);
                }
            }
        }
        bytes.extend(tail);
        same_in_portions(&bytes, &lengths).map(drop)
    });
}

/// A frame that need not be one that RFC 6455 allows.
fn frame() -> impl Strategy<Value = Vec<u8>> {
    let opcode = prop_oneof![6 => 0..3u8, 3 => 8..11u8, 1 => 0..16u8];
    let reserved = prop_oneof![12 => Just(0u8), 1 => 0..8u8];
    let payload = prop_oneof![
        select(vec![
            &b"{}"[..],
            b"\xc3\xbc",
            b"\xc3",
            b"\xbc",
            b"\x03\xe8bye",
            b"\x03\xec",
            b"\xff\xff",
            b"\x03"
        ])
        .prop_map(<[u8]>::to_vec),
        vec(any::<u8>(), 0..40),
        vec(Just(b'x'), 60..140),
    ];
    let width = prop_oneof![10 => Just(0u8), 1 => Just(2u8), 1 => Just(8u8)];
    let lie = prop_oneof![20 => Just(0i64), 1 => -3..4i64, 1 => any::<i64>()];
    (
        prop::bool::weighted(0.7),
        reserved,
        opcode,
        prop::bool::weighted(0.95),
        width,
        payload,
        lie,
        any::<[u8; 4]>(),
    )
        .prop_map(|(last, reserved, opcode, masked, width, payload, lie, mask)| {
            let length = (payload.len() as u64).wrapping_add_signed(lie);
            let mask_bit = u8::from(masked) << 7;
            let mut bytes = vec![u8::from(last) << 7 | reserved << 4 | opcode];
            match (width, length) {
                (0, 0..126) => bytes.push(mask_bit | length as u8),
                (0 | 2, 0..=0xffff) => {
                    bytes.push(mask_bit | 126);
                    bytes.extend((length as u16).to_be_bytes());
                }
                _ => {
                    bytes.push(mask_bit | 127);
                    bytes.extend(length.to_be_bytes());
                }
            }
            if masked {
                bytes.extend(mask);
            }
            bytes.extend(
                payload.iter().enumerate().map(|(at, byte)| byte ^ if masked { mask[at % 4] } else { 0 }),
            );
            bytes
        })
}

#[test]
fn websocket_frames_mean_the_same_in_portions() {
    fuzzing::fuzz(HERE, "websocket_frames", &(vec(frame(), 0..8), lengths()), |(frames, lengths)| {
        let bytes = [UPGRADE, &frames.concat()].concat();
        let outcome = same_in_portions(&bytes, &lengths)?;
        for (encoding, message) in &outcome.messages {
            prop_assert!(message.len() <= small().max_message_bytes);
            prop_assert!(*encoding != Encoding::Json || std::str::from_utf8(message).is_ok());
        }
        Ok(())
    });
}

/// The head of a request that may be an upgrade.
fn head() -> impl Strategy<Value = Vec<u8>> {
    let start = select(vec![
        "GET / HTTP/1.1",
        "GET /x HTTP/1.1",
        "HEAD /metrics HTTP/1.1",
        "GET * HTTP/1.0",
        "POST / HTTP/1.1",
        "GET /\u{fc} HTTP/1.1",
        "OPTIONS * HTTP/1.1",
        "GET / HTTP/2.0",
        "GET  /  HTTP/1.1",
        "GET http://h/ HTTP/1.1",
    ]);
    let field = select(vec![
        "Host: h",
        "Host:",
        "Connection: Upgrade",
        "Connection: keep-alive, Upgrade",
        "Connection: close",
        "Upgrade: websocket",
        "Upgrade: WebSocket, h2c",
        "Sec-WebSocket-Version: 13",
        "Sec-WebSocket-Version: 8",
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
        "Sec-WebSocket-Key: short",
        "Content-Length: 3",
        "Transfer-Encoding: chunked",
        "Origin: http://h",
        "Sec-WebSocket-Protocol: a, b",
        "bad field",
        ": x",
        "X: \u{e9}",
        "X:\t\t y \t",
        " folded",
        "Sec-WebSocket-Extensions: permessage-deflate",
        "X: 0123456789012345678901234567890123456789012345678901234567890123456789012345678901234567890123456789",
    ]);
    // Most heads are upgrades, with a field more, less, or twice.
    let whole = vec![
        "Host: h",
        "Connection: Upgrade",
        "Upgrade: websocket",
        "Sec-WebSocket-Version: 13",
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
    ];
    let fields = prop_oneof![
        3 => (proptest::sample::subsequence(whole, 3..=5), vec(field.clone(), 0..3)).prop_map(|(mut whole, more)| {
            whole.extend(more);
            whole
        }).prop_shuffle(),
        1 => vec(field, 0..20),
    ];
    let end = prop_oneof![12 => Just("\r\n"), 1 => Just("\n"), 1 => Just("\r"), 1 => Just("")];
    (start, fields, end).prop_map(|(start, fields, end)| {
        let mut text = format!("{start}\r\n");
        fields.iter().for_each(|field| text.extend([field, "\r\n"]));
        text.push_str(end);
        text.into_bytes()
    })
}

#[test]
fn handshakes_are_answered_and_only_upgrades_are_upgraded() {
    let strategy = (vec(head(), 1..4), vec((any::<Index>(), any::<u8>()), 0..2), lengths());
    fuzzing::fuzz(HERE, "handshakes", &strategy, |(heads, damages, lengths)| {
        let mut bytes = heads.concat();
        for (at, byte) in damages {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        let outcome = same_in_portions(&bytes, &lengths)?;
        if outcome.kind == Some(Kind::WebSocket) {
            let text = String::from_utf8_lossy(&bytes).to_ascii_lowercase();
            let first = text.split("\r\n\r\n").next().unwrap_or_default();
            for needed in
                ["get ", "host:", "connection:", "upgrade", "sec-websocket-version:", "sec-websocket-key:"]
            {
                prop_assert!(first.contains(needed), "upgraded without {needed}: {text}");
            }
            prop_assert!(outcome.output.starts_with(b"HTTP/1.1 101 "));
        }
        // A request is answered by status lines and nothing else.
        if matches!(outcome.kind, Some(Kind::Http | Kind::WebSocket)) {
            prop_assert!(outcome.output.is_empty() || outcome.output.starts_with(b"HTTP/1.1 "));
        }
        Ok(())
    });
}
