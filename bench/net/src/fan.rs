//! Subscribers, and a publisher that waits for them: one thread for all, the same for every dialect.
//!
//! First each message is sent when all subscribers have the one before: the latency of every delivery. Then as many are
//! under way as [`WINDOW`] says: deliveries a second. A message is a row of two numbers, or as many bytes.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream as Blocking;
use std::time::Instant;

use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token};

use crate::percentile;

/// Messages under way at once, while the rate is measured.
const WINDOW: usize = 64;
/// Bytes of a message where there are no rows: what a step of one row has.
const PAYLOAD: usize = 40;

/// What the two ends of a dialect look like.
struct Dialect {
    name: String,
    next: u64,
}

struct Subscriber {
    stream: TcpStream,
    buffer: Vec<u8>,
    received: usize,
}

/// Prints, as JSON, what was measured.
pub(crate) fn measure(dialect: &str, address: &str, subscribers: usize, messages: usize) {
    let mut dialect = Dialect { name: dialect.into(), next: 0 };
    let mut publisher = dialect.publisher(address);
    let started = Instant::now();
    let mut poll = Poll::new().unwrap();
    let mut all: Vec<Subscriber> =
        (0..subscribers).map(|index| dialect.subscriber(address, &poll, index)).collect();
    let set_up = started.elapsed().as_secs_f64();
    // The first messages find buffers and caches cold.
    let warm = messages / 10 + 1;
    let mut latencies = Vec::with_capacity(messages * subscribers);
    for round in 0..warm + messages {
        let sent = Instant::now();
        publisher.write_all(&dialect.message()).unwrap();
        receive(&mut poll, &dialect, &mut all, round + 1, |_| {
            if round >= warm {
                latencies.push(sent.elapsed().as_secs_f64());
            }
        });
        dialect.drain(&mut publisher, 1);
    }
    let (mut done, total) = (warm + messages, 4 * messages);
    let (first, mut sent) = (done, done);
    let started = Instant::now();
    while done < first + total {
        let burst: Vec<u8> =
            (sent..(done + WINDOW).min(first + total)).flat_map(|_| dialect.message()).collect();
        let count = (done + WINDOW).min(first + total) - sent;
        publisher.write_all(&burst).unwrap();
        sent += count;
        done = (sent - WINDOW / 2).max(done + 1).min(sent);
        receive(&mut poll, &dialect, &mut all, done, |_| {});
        dialect.drain(&mut publisher, count);
    }
    let rate = (total * subscribers) as f64 / started.elapsed().as_secs_f64();
    println!(
        "{{\"p50\": {}, \"p99\": {}, \"rate\": {rate}, \"set_up\": {}}}",
        percentile(&mut latencies, 0.5),
        percentile(&mut latencies, 0.99),
        subscribers as f64 / set_up,
    );
}

/// Reads until every subscriber has received as many messages; `each` is called when one has.
fn receive(
    poll: &mut Poll,
    dialect: &Dialect,
    all: &mut [Subscriber],
    until: usize,
    mut each: impl FnMut(usize),
) {
    let mut events = Events::with_capacity(4096);
    let mut missing = all.iter().filter(|subscriber| subscriber.received < until).count();
    let mut chunk = vec![0; 256 << 10];
    while missing > 0 {
        poll.poll(&mut events, None).unwrap();
        for event in &events {
            let subscriber = &mut all[event.token().0];
            let before = subscriber.received;
            loop {
                match subscriber.stream.read(&mut chunk) {
                    Ok(0) => panic!("the server has closed a connection"),
                    Ok(count) => subscriber.buffer.extend_from_slice(&chunk[..count]),
                    Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                    Err(error) => panic!("{error}"),
                }
            }
            subscriber.received += dialect.count(&mut subscriber.buffer);
            if before < until && subscriber.received >= until {
                missing -= 1;
                each(event.token().0);
            }
        }
    }
}

impl Dialect {
    fn is_server(&self) -> bool {
        self.name == "dataflow"
    }

    fn is_redis(&self) -> bool {
        self.name == "redis"
    }

    fn publisher(&mut self, address: &str) -> Blocking {
        let mut stream = Blocking::connect(address).unwrap();
        stream.set_nodelay(true).unwrap();
        if self.is_server() {
            stream.write_all(b"\xdfFL\x01").unwrap();
            let program = ".decl tick(n: number, m: number) raw\n.input tick\n";
            stream
                .write_all(&framed(&[text("op"), text("register"), text("program"), text(program)]))
                .unwrap();
            reply(&mut stream);
        }
        stream
    }

    fn subscriber(&self, address: &str, poll: &Poll, index: usize) -> Subscriber {
        let mut stream = Blocking::connect(address).unwrap();
        stream.set_nodelay(true).unwrap();
        match self.name.as_str() {
            "dataflow" => {
                stream.write_all(b"\xdfFL\x01").unwrap();
                let fields = [
                    text("op"),
                    text("subscribe"),
                    text("relation"),
                    text("tick"),
                    text("snapshot"),
                    vec![0xc2],
                ];
                stream.write_all(&framed(&fields)).unwrap();
                reply(&mut stream);
            }
            "redis" => {
                stream.write_all(b"*2\r\n$9\r\nSUBSCRIBE\r\n$1\r\nc\r\n").unwrap();
                let mut expected = vec![0; b"*3\r\n$9\r\nsubscribe\r\n$1\r\nc\r\n:1\r\n".len()];
                stream.read_exact(&mut expected).unwrap();
            }
            _ => {}
        }
        stream.set_nonblocking(true).unwrap();
        let mut stream = TcpStream::from_std(stream);
        poll.registry().register(&mut stream, Token(index), Interest::READABLE).unwrap();
        Subscriber { stream, buffer: Vec::new(), received: 0 }
    }

    /// What the publisher sends for the next message.
    fn message(&mut self) -> Vec<u8> {
        self.next += 1;
        if self.is_server() {
            let row = [vec![0x92], word(self.next), word(!self.next)].concat();
            let change =
                [vec![0x82], text("relation"), text("tick"), text("insert"), vec![0x91], row].concat();
            return framed(&[text("op"), text("transact"), text("changes"), [vec![0x91], change].concat()]);
        }
        let payload = vec![b'x'; PAYLOAD];
        if self.is_redis() {
            let head = format!("*3\r\n$7\r\nPUBLISH\r\n$1\r\nc\r\n${PAYLOAD}\r\n");
            return [head.as_bytes(), &payload, b"\r\n"].concat();
        }
        payload
    }

    /// Reads what the publisher is answered.
    fn drain(&self, publisher: &mut Blocking, messages: usize) {
        for _ in 0..messages {
            match self.name.as_str() {
                "dataflow" => drop(reply(publisher)),
                "redis" => {
                    let mut byte = [0];
                    while byte[0] != b'\n' {
                        publisher.read_exact(&mut byte).unwrap();
                    }
                }
                _ => {}
            }
        }
    }

    /// Messages in a subscriber's buffer, which are taken from it. Of a server they are rows: several transactions may
    /// have one time, and then come as one step.
    fn count(&self, buffer: &mut Vec<u8>) -> usize {
        if !self.is_server() {
            let head = if self.is_redis() {
                format!("*3\r\n$7\r\nmessage\r\n$1\r\nc\r\n${PAYLOAD}\r\n").len() + 2
            } else {
                0
            };
            let count = buffer.len() / (head + PAYLOAD);
            buffer.drain(..count * (head + PAYLOAD));
            return count;
        }
        let (mut at, mut rows) = (0, 0);
        while let Some(length) = buffer.get(at..at + 4) {
            let length = u32::from_be_bytes(length.try_into().unwrap()) as usize;
            let Some(frame) = buffer.get(at + 4..at + 4 + length) else { break };
            let name = b"\xa7changes";
            let changes = frame.windows(name.len()).position(|window| window == name).expect("a step");
            rows += match &frame[changes + name.len()..] {
                [0xdc, high, low, ..] => usize::from(u16::from_be_bytes([*high, *low])),
                [short, ..] => usize::from(short & 0x0f),
                [] => 0,
            };
            at += 4 + length;
        }
        buffer.drain(..at);
        rows
    }
}

/// A MessagePack map of names and values, framed.
fn framed(fields: &[Vec<u8>]) -> Vec<u8> {
    let body = [vec![0x80 | (fields.len() / 2) as u8], fields.concat()].concat();
    [&(body.len() as u32).to_be_bytes()[..], &body].concat()
}

fn text(text: &str) -> Vec<u8> {
    [&[0xd9, text.len() as u8], text.as_bytes()].concat()
}

fn word(word: u64) -> Vec<u8> {
    [&[0xd3], &word.to_be_bytes()[..]].concat()
}

/// The next message, which must be no error.
fn reply(stream: &mut Blocking) -> Vec<u8> {
    let mut length = [0; 4];
    stream.read_exact(&mut length).unwrap();
    let mut body = vec![0; u32::from_be_bytes(length) as usize];
    stream.read_exact(&mut body).unwrap();
    assert!(!body.windows(5).any(|window| window == b"error"), "{}", String::from_utf8_lossy(&body));
    body
}
