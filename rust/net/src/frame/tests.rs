//! Conversations in memory: every dialect, split anywhere, over its limits, and garbage.

use std::io::{self, Read, Write};

use dataflow_protocol::error::ErrorCode;
use proptest::prelude::*;
use tungstenite::protocol::frame::Frame;
use tungstenite::protocol::frame::coding::{CloseCode, Data, OpCode};
use tungstenite::protocol::{CloseFrame, Role};
use tungstenite::{Message as WsMessage, WebSocket};

use super::*;
use crate::http::{OpenDoor, Peer};

pub(super) const UPGRADE: &[u8] =
    b"GET /x HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
    Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";

pub(super) fn small() -> Limits {
    Limits { max_message_bytes: 64, max_fragments: 8, max_control_frames_per_second: 20, ..Limits::default() }
}

/// What a conversation came to.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Outcome {
    pub(super) kind: Option<Kind>,
    pub(super) messages: Vec<(Encoding, Vec<u8>)>,
    pub(super) requests: Vec<String>,
    pub(super) violation: Option<Violation>,
    pub(super) over: bool,
    pub(super) output: Vec<u8>,
}

fn peer() -> Peer<'static> {
    Peer { address: ([127, 0, 0, 1], 1).into(), encrypted: false, server_name: None }
}

/// Plays the parts into a conversation, closing it after a violation as an owner does.
pub(super) fn play<'a>(limits: Limits, parts: impl IntoIterator<Item = &'a [u8]>, end: bool) -> Outcome {
    let now = Instant::now();
    let mut framing = Framing::new(Arc::new(limits));
    let mut outcome = Outcome::default();
    for part in parts {
        framing.push(part, now);
        match framing.identify(&OpenDoor, &peer(), now) {
            Ok(_) => advance(&mut framing, &mut outcome),
            Err(violation) => fail(&mut framing, &mut outcome, violation),
        }
    }
    if end {
        framing.end_input();
        advance(&mut framing, &mut outcome);
    }
    outcome.kind = framing.kind();
    outcome.over = framing.is_over();
    framing.outbox().write_to(&mut outcome.output).unwrap();
    outcome
}

fn advance(framing: &mut Framing, outcome: &mut Outcome) {
    while let Some(next) = framing.next() {
        match next {
            Ok(Incoming::Message(message)) => {
                outcome.messages.push((message.encoding, message.bytes.to_vec()))
            }
            Ok(Incoming::Http(request)) => {
                outcome.requests.push(request.path.clone());
                framing.respond(&HttpResponse::text(200, request.path));
            }
            Err(violation) => fail(framing, outcome, violation),
        }
    }
}

fn fail(framing: &mut Framing, outcome: &mut Outcome, violation: Violation) {
    assert_eq!(outcome.violation, None, "a conversation breaks once");
    framing.close(violation.close());
    outcome.violation = Some(violation);
}

fn error_code(line: &[u8]) -> String {
    let value: serde_json::Value = serde_json::from_slice(line).unwrap();
    assert_eq!(value["id"], serde_json::Value::Null);
    value["error"]["code"].as_str().unwrap().to_owned()
}

/// A client's end of a WebSocket, in memory.
#[derive(Default)]
struct Memory {
    input: Vec<u8>,
    output: Vec<u8>,
}

impl Read for Memory {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.input.is_empty() {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let count = buffer.len().min(self.input.len());
        buffer[..count].copy_from_slice(&self.input[..count]);
        self.input.drain(..count);
        Ok(count)
    }
}

impl Write for Memory {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.output.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Frames as a client sends them, the upgrade first.
fn client(messages: Vec<WsMessage>) -> Vec<u8> {
    let mut socket = WebSocket::from_raw_socket(Memory::default(), Role::Client, None);
    for message in messages {
        socket.send(message).unwrap();
    }
    [UPGRADE, &socket.get_ref().output].concat()
}

fn fragment(data: Data, payload: &[u8], last: bool) -> WsMessage {
    WsMessage::Frame(Frame::message(payload.to_vec(), OpCode::Data(data), last))
}

/// What a client makes of what the server wrote behind the upgrade.
fn received(output: &[u8]) -> Vec<WsMessage> {
    let end = output.windows(4).position(|window| window == b"\r\n\r\n").unwrap() + 4;
    assert!(output.starts_with(b"HTTP/1.1 101 "), "{}", String::from_utf8_lossy(output));
    let memory = Memory { input: output[end..].to_vec(), output: Vec::new() };
    let mut socket = WebSocket::from_raw_socket(memory, Role::Client, None);
    std::iter::from_fn(|| socket.read().ok()).collect()
}

fn close_code(output: &[u8]) -> Option<u16> {
    received(output).iter().find_map(|message| match message {
        WsMessage::Close(frame) => frame.as_ref().map(|frame| frame.code.into()),
        _ => None,
    })
}

/// A conversation of each dialect, and what comes of it.
pub(super) fn conversations() -> Vec<(&'static str, Vec<u8>)> {
    let binary = [&b"\xdfFL\x01"[..], &[0, 0, 0, 1], b"\xc0", &[0, 0, 0, 3], b"abc"].concat();
    let socket = client(vec![
        WsMessage::text("{\"op\":1}"),
        WsMessage::Ping(vec![1, 2].into()),
        WsMessage::binary(vec![7; 60]),
        fragment(Data::Text, b"{\"\xc3", false),
        WsMessage::Pong(vec![].into()),
        fragment(Data::Continue, b"\xbc\"}", true),
        WsMessage::Close(Some(CloseFrame { code: CloseCode::Normal, reason: "bye".into() })),
    ]);
    vec![
        ("lines", b"{\"op\":1}\r\n\n{\"op\":2}\n{\"x\":\"\xc3\xbc\"}\n".to_vec()),
        ("lines broken off", b"{\"op\":1}\n{\"op\":".to_vec()),
        ("binary", binary),
        ("websocket", socket),
        (
            "http",
            b"GET /a HTTP/1.1\r\nHost: h\r\n\r\nHEAD /b?q HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n"
                .to_vec(),
        ),
        ("unknown", b"hello\n".to_vec()),
        ("tls", b"\x16\x03\x01\x02\x00".to_vec()),
        ("too large line", [&b"{\"a\"}\n{"[..], &[b'x'; 100], b"}\n"].concat()),
        ("too large declared", [&b"\xdfFL\x01"[..], &[0, 0, 0, 1], b"\xc0", &[0, 0, 0, 65]].concat()),
        ("bad request", b"GET / HTTP/1.1\r\n\r\n".to_vec()),
    ]
}

#[test]
fn splitting_the_input_anywhere_changes_nothing() {
    for (name, bytes) in conversations() {
        let whole = play(small(), [&bytes[..]], true);
        for split in 0..=bytes.len() {
            let parts = [&bytes[..split], &bytes[split..]];
            assert_eq!(comparable(play(small(), parts, true)), comparable_ref(&whole), "{name} at {split}");
        }
        assert_eq!(
            comparable(play(small(), bytes.chunks(1), true)),
            comparable_ref(&whole),
            "{name} byte by byte"
        );
    }
}

/// The declared size of a line over the limit depends on how much had come; nothing else does.
pub(super) fn comparable(mut outcome: Outcome) -> Outcome {
    if let (Some(Kind::Lines), Some(Violation::TooLarge { bytes, .. })) =
        (outcome.kind, &mut outcome.violation)
    {
        *bytes = 0;
        outcome.output.clear();
    }
    outcome
}

fn comparable_ref(outcome: &Outcome) -> Outcome {
    let Outcome { kind, messages, requests, violation, over, output } = outcome;
    comparable(Outcome {
        kind: *kind,
        messages: messages.clone(),
        requests: requests.clone(),
        violation: violation.clone(),
        over: *over,
        output: output.clone(),
    })
}

#[test]
fn each_dialect_hands_out_its_messages() {
    let outcomes: Vec<(&str, Outcome)> =
        conversations().into_iter().map(|(name, bytes)| (name, play(small(), [&bytes[..]], true))).collect();
    let outcome = |name: &str| &outcomes.iter().find(|(known, _)| *known == name).unwrap().1;
    let json = |text: &str| (Encoding::Json, text.as_bytes().to_vec());

    let lines = outcome("lines");
    assert_eq!((lines.kind, &lines.violation), (Some(Kind::Lines), &None));
    assert_eq!(lines.messages, [json("{\"op\":1}"), json("{\"op\":2}"), json("{\"x\":\"ü\"}")]);

    let binary = outcome("binary");
    assert_eq!((binary.kind, &binary.violation), (Some(Kind::Binary), &None));
    assert_eq!(
        binary.messages,
        [(Encoding::MessagePack, vec![0xc0]), (Encoding::MessagePack, b"abc".to_vec())]
    );

    let socket = outcome("websocket");
    assert_eq!((socket.kind, &socket.violation, socket.over), (Some(Kind::WebSocket), &None, true));
    assert_eq!(socket.messages, [json("{\"op\":1}"), (Encoding::MessagePack, vec![7; 60]), json("{\"ü\"}")]);
    let replies = received(&socket.output);
    assert_eq!(replies[0], WsMessage::Pong(vec![1, 2].into()));
    assert_eq!(close_code(&socket.output), Some(1000));

    let http = outcome("http");
    assert_eq!((http.kind, http.over), (Some(Kind::Http), true));
    assert_eq!(http.requests, ["/a", "/b"]);
    let text = String::from_utf8(http.output.clone()).unwrap();
    assert!(text.contains("Connection: keep-alive\r\n\r\n/aHTTP/1.1 200 OK"), "{text}");
    assert!(text.ends_with("Content-Length: 2\r\nConnection: close\r\n\r\n"), "{text}");
}

#[test]
fn requests_that_came_before_the_end_are_all_answered() {
    let now = Instant::now();
    let mut framing = Framing::new(Arc::new(small()));
    framing.push(b"GET /a HTTP/1.1\r\nHost: h\r\n\r\nGET /b HTTP/1.1\r\nHost: h\r\n\r\n", now);
    framing.end_input();
    framing.identify(&OpenDoor, &peer(), now).unwrap();
    let mut outcome = Outcome::default();
    advance(&mut framing, &mut outcome);
    framing.outbox().write_to(&mut outcome.output).unwrap();
    assert_eq!((outcome.requests, framing.is_over()), (vec!["/a".to_owned(), "/b".to_owned()], true));
    let text = String::from_utf8(outcome.output).unwrap();
    assert!(text.contains("Connection: keep-alive\r\n\r\n/aHTTP/1.1 200 OK"), "{text}");
    assert!(text.ends_with("Connection: close\r\n\r\n/b"), "{text}");
}

#[test]
fn what_breaks_the_protocol_is_told_and_ends_it() {
    for (name, violation, code) in [
        ("lines broken off", Violation::Truncated, "incorrect"),
        ("unknown", Violation::UnknownProtocol, "incorrect"),
        ("tls", Violation::NoTls, "incorrect"),
        ("too large line", Violation::TooLarge { bytes: 102, limit: 64 }, "too-large"),
    ] {
        let bytes = conversations().into_iter().find(|(known, _)| *known == name).unwrap().1;
        let outcome = play(small(), [&bytes[..]], true);
        assert_eq!((outcome.violation, outcome.over), (Some(violation), true), "{name}");
        assert_eq!(error_code(outcome.output.strip_suffix(b"\n").unwrap()), code, "{name}");
    }
    let declared = [&b"\xdfFL\x01"[..], &[0, 0, 0, 1], b"\xc0", &[0, 0, 0, 65]].concat();
    let outcome = play(small(), [&declared[..]], false);
    assert_eq!(outcome.violation, Some(Violation::TooLarge { bytes: 65, limit: 64 }));
    assert_eq!(outcome.messages.len(), 1);
    assert_eq!(
        u32::from_be_bytes(outcome.output[..4].try_into().unwrap()) as usize,
        outcome.output.len() - 4
    );
    assert!(outcome.output.windows(9).any(|window| window == b"too-large"));
}

#[test]
fn websockets_close_with_the_code_for_what_was_wrong() {
    let pings = (0..21).map(|_| WsMessage::Ping(vec![].into())).collect();
    let fragments =
        (0..9).map(|index| fragment(if index == 0 { Data::Text } else { Data::Continue }, b"", false));
    let mut unmasked = UPGRADE.to_vec();
    unmasked.extend([0x81, 0x01, b'x']);
    let mut reserved = client(vec![WsMessage::text("x")]);
    reserved[UPGRADE.len()] |= 0x40;
    let invalid = WsMessage::Frame(Frame::message(vec![0xff], OpCode::Data(Data::Text), true));
    for (name, bytes, code) in [
        ("one frame over the limit", client(vec![WsMessage::binary(vec![0; 65])]), 1009),
        (
            "fragments over the limit",
            client(vec![
                fragment(Data::Text, &[b'x'; 40], false),
                fragment(Data::Continue, &[b'x'; 40], true),
            ]),
            1009,
        ),
        ("flood of pings", client(pings), 1008),
        ("flood of fragments", client(fragments.collect()), 1008),
        ("unmasked", unmasked, 1002),
        ("reserved bit", reserved, 1002),
        ("not UTF-8", client(vec![invalid]), 1007),
        ("continuation of nothing", client(vec![fragment(Data::Continue, b"x", true)]), 1002),
    ] {
        for parts in [vec![&bytes[..]], bytes.chunks(1).collect(), bytes.chunks(7).collect()] {
            let outcome = play(small(), parts, false);
            assert_eq!(close_code(&outcome.output), Some(code), "{name}: {:?}", outcome.violation);
            assert!(outcome.over && outcome.violation.is_some(), "{name}");
            let told = received(&outcome.output)
                .iter()
                .any(|message| matches!(message, WsMessage::Text(_) | WsMessage::Binary(_)));
            assert_eq!(told, code == 1009, "{name}");
        }
    }
}

#[test]
fn a_declared_size_is_judged_behind_the_messages_before_it() {
    let mut bytes = client(vec![WsMessage::text("one"), WsMessage::text("two")]);
    // A masked text frame of 2^40 bytes: its header only.
    bytes.extend([0x81, 0xff, 0, 0, 1, 0, 0, 0, 0, 0, 1, 2, 3, 4]);
    for size in [1, 5, bytes.len()] {
        let outcome = play(small(), bytes.chunks(size), false);
        assert_eq!(outcome.messages.len(), 2);
        assert_eq!(outcome.violation, Some(Violation::TooLarge { bytes: 1 << 40, limit: 64 }));
    }
}

#[test]
fn an_echo_answers_by_itself_and_only_where_it_is_enabled() {
    let text = client(vec![WsMessage::text("ab"), WsMessage::binary(vec![1])]);
    let bytes = String::from_utf8_lossy(UPGRADE).replace("/x", "/echo").into_bytes();
    let bytes = [&bytes[..], &text[UPGRADE.len()..]].concat();
    let outcome = play(Limits { enable_echo: true, ..small() }, [&bytes[..]], false);
    assert_eq!((outcome.kind, outcome.messages.len()), (Some(Kind::Echo), 0));
    assert_eq!(received(&outcome.output), [WsMessage::text("ab"), WsMessage::binary(vec![1])]);
    let outcome = play(small(), [&bytes[..]], false);
    assert_eq!((outcome.kind, outcome.messages.len()), (Some(Kind::WebSocket), 2));
}

#[test]
fn messages_go_out_in_the_dialect_and_large_ones_are_shared() {
    let large = Bytes::from(vec![b'y'; 100_000]);
    for (first, expected) in [
        (&b"{}\n"[..], [b"xyz\nx".to_vec(), large.to_vec(), b"\n".to_vec()].concat()),
        (b"\xdfFL\x01", [&[0, 0, 0, 3][..], b"xyz", &100_001u32.to_be_bytes(), b"x", &large].concat()),
    ] {
        let now = Instant::now();
        let mut framing = Framing::new(Arc::new(Limits::default()));
        framing.push(first, now);
        framing.identify(&OpenDoor, &peer(), now).unwrap();
        framing.queue(Encoding::Json, b"x", Bytes::from_static(b"yz"));
        framing.queue(Encoding::Json, b"x", large.clone());
        assert!(!large.is_unique(), "the tail is shared");
        assert_eq!(framing.outbox_bytes(), expected.len());
        let mut out = Vec::new();
        framing.outbox().write_to(&mut out).unwrap();
        assert!(out == expected);
    }
    let mut framing = Framing::new(Arc::new(Limits::default()));
    let now = Instant::now();
    framing.push(UPGRADE, now);
    framing.identify(&OpenDoor, &peer(), now).unwrap();
    framing.queue(Encoding::Json, b"{\"a\":", Bytes::from_static(b"1}"));
    framing.queue(Encoding::MessagePack, b"x", large.clone());
    let mut out = Vec::new();
    framing.outbox().write_to(&mut out).unwrap();
    let messages = received(&out);
    assert_eq!(messages[0], WsMessage::text("{\"a\":1}"));
    assert_eq!(messages[1].len(), 100_001);
}

#[test]
fn one_too_many_is_refused_in_its_own_dialect() {
    let busy = ErrorBody::new(ErrorCode::Busy, "too many connections");
    let refuse = |first: &[u8]| {
        let now = Instant::now();
        let mut framing = Framing::new(Arc::new(Limits::default()));
        framing.push(first, now);
        let kind = framing.identify(&OpenDoor, &peer(), now).unwrap().unwrap();
        let encoding = if kind == Kind::Binary { Encoding::MessagePack } else { Encoding::Json };
        framing.tell(encoding, &busy);
        framing.close(Close::TryAgain);
        let mut out = Vec::new();
        framing.outbox().write_to(&mut out).unwrap();
        out
    };
    assert_eq!(error_code(refuse(b"{").strip_suffix(b"\n").unwrap()), "busy");
    assert!(refuse(b"\xdfFL\x01")[4..].windows(4).any(|window| window == b"busy"));
    assert_eq!(close_code(&refuse(UPGRADE)), Some(1013));
    assert!(refuse(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n").starts_with(b"HTTP/1.1 503 "));
}

proptest! {
    #[test]
    fn garbage_breaks_a_conversation_at_most(
        which in 0..conversations().len(),
        keep in 0..200usize,
        noise in proptest::collection::vec(any::<u8>(), 0..300),
        size in 1..50usize,
    ) {
        let (_, mut bytes) = conversations().swap_remove(which);
        bytes.truncate(keep);
        bytes.extend_from_slice(&noise);
        let whole = play(small(), [&bytes[..]], true);
        let parts = play(small(), bytes.chunks(size), true);
        prop_assert_eq!(&whole.messages, &parts.messages);
        prop_assert_eq!(whole.kind, parts.kind);
        prop_assert_eq!(whole.violation.is_some(), parts.violation.is_some());
    }
}
