//! Messages of a subscription: a small head for each subscriber, a tail that all of them share.
//!
//! A relation's step is encoded once an encoding and a filter, however many subscribe: everything but the number of
//! the subscription stands in the [`Tail`], and head and tail, one after the other, are one message.

use bytes::Bytes;
use smallvec::SmallVec;

use super::write;
use crate::encoding::Encoding;
use crate::error::ErrorBody;
use crate::ids::Time;
use crate::rows::RowBuf;
use crate::value::{Column, Word};

/// The part of a pushed message that is the same for all subscribers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tail {
    encoding: Encoding,
    /// Fields in it: MessagePack tells their number, the head's included, at the beginning.
    fields: u8,
    bytes: Bytes,
}

/// The part of a pushed message that names the subscription.
pub type Head = SmallVec<[u8; MAX_HEAD_BYTES]>;

/// The most bytes a [`Head`] has.
pub const MAX_HEAD_BYTES: usize = 28;

/// What is said of a step as a whole.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Step {
    /// The step's time.
    pub time: Time,
    /// It is (a part of) the contents at that time.
    pub snapshot: bool,
    /// The subscriber asked to go on from a time that is no longer known; said by the first message only.
    pub resync: bool,
    /// More parts of this step follow in a later call.
    pub more: bool,
}

impl Tail {
    /// The encoded bytes, shared.
    pub fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// The encoding.
    pub fn encoding(&self) -> Encoding {
        self.encoding
    }

    /// The head that makes this tail a message of `sub`.
    pub fn head(&self, sub: u64) -> Head {
        match self.encoding {
            Encoding::Json => {
                let mut head = Head::from_slice(b"{\"sub\":");
                head.extend_from_slice(itoa::Buffer::new().format(sub).as_bytes());
                head
            }
            Encoding::MessagePack => {
                // A map of few entries, a text of three bytes, then the number in any of its widths.
                let mut head = Head::from_slice(&[0x80 | (1 + self.fields), 0xa3, b's', b'u', b'b']);
                match (u8::try_from(sub), u32::try_from(sub)) {
                    (Ok(byte @ 0..0x80), _) => head.push(byte),
                    (_, Ok(word)) => {
                        head.push(0xce);
                        head.extend_from_slice(&word.to_be_bytes());
                    }
                    _ => {
                        head.push(0xcf);
                        head.extend_from_slice(&sub.to_be_bytes());
                    }
                }
                head
            }
        }
    }
}

/// Writes the fields of a tail.
struct Writer {
    encoding: Encoding,
    fields: u8,
    out: Vec<u8>,
}

impl Writer {
    fn new(encoding: Encoding, capacity: usize) -> Self {
        Writer { encoding, fields: 0, out: Vec::with_capacity(capacity) }
    }

    fn field(&mut self, name: &str) {
        self.fields += 1;
        if self.encoding == Encoding::Json {
            self.out.push(b',');
        }
        write::text(&mut self.out, self.encoding, name);
        if self.encoding == Encoding::Json {
            self.out.push(b':');
        }
    }

    fn flag(&mut self, name: &str, set: bool) {
        if set {
            self.field(name);
            write::any(&mut self.out, self.encoding, &true);
        }
    }

    fn end(mut self) -> Tail {
        if self.encoding == Encoding::Json {
            self.out.push(b'}');
        }
        Tail { encoding: self.encoding, fields: self.fields, bytes: Bytes::from(self.out) }
    }
}

/// The tails of a step's messages, at least one: a step without rows makes one without changes.
///
/// A message, its head included, has no more than `batch_bytes` unless a single row takes more. `diffs` has as many
/// elements as `rows` has rows.
pub fn changes(
    encoding: Encoding,
    columns: &[Column],
    step: Step,
    rows: &RowBuf,
    diffs: &[i64],
    batch_bytes: usize,
) -> Vec<Tail> {
    let limit = batch_bytes.saturating_sub(MAX_HEAD_BYTES + MAX_END_BYTES);
    let mut tails = Vec::new();
    let mut part = Part::open(encoding, step, rows.len());
    for (index, (row, &diff)) in rows.iter().zip(diffs).enumerate() {
        let start = part.push(columns, row, diff);
        if part.writer.out.len() > limit && part.count > 1 {
            let mut next = Part::open(encoding, Step { resync: false, ..step }, rows.len() - index);
            next.take_last(&mut part, start);
            tails.push(part.end(true));
            part = next;
        }
    }
    tails.push(part.end(step.more));
    tails
}

/// Room for what follows the changes: `],"more":true}`.
const MAX_END_BYTES: usize = 16;

/// One message's part of a step, under way.
struct Part {
    writer: Writer,
    /// Where the length of the array of changes stands, in MessagePack, and its width in bytes.
    length: std::ops::Range<usize>,
    count: usize,
}

impl Part {
    /// Everything up to the first change; `at_most` is how many may come, to choose the length's width by.
    fn open(encoding: Encoding, step: Step, at_most: usize) -> Self {
        let mut writer = Writer::new(encoding, 256);
        writer.field("time");
        write::unsigned(&mut writer.out, encoding, step.time);
        writer.flag("snapshot", step.snapshot);
        writer.flag("resync", step.resync);
        writer.field("changes");
        let start = writer.out.len();
        write::array(&mut writer.out, encoding, at_most);
        let length = start..writer.out.len();
        Part { writer, length, count: 0 }
    }

    /// Adds a change and returns where it begins.
    fn push(&mut self, columns: &[Column], row: &[Word], diff: i64) -> usize {
        let Writer { encoding, out, .. } = &mut self.writer;
        write::separate(out, *encoding, self.count);
        let start = out.len();
        write::array(out, *encoding, 2);
        write::row(out, *encoding, columns, row);
        write::separate(out, *encoding, 1);
        write::number(out, *encoding, diff);
        write::close(out, *encoding);
        self.count += 1;
        start
    }

    /// Takes the last change, which begins at `start`, from the part before this one.
    fn take_last(&mut self, before: &mut Part, start: usize) {
        self.writer.out.extend_from_slice(&before.writer.out[start..]);
        self.count = 1;
        let separator = usize::from(before.writer.encoding == Encoding::Json);
        before.writer.out.truncate(start - separator);
        before.count -= 1;
    }

    fn end(mut self, more: bool) -> Tail {
        let encoding = self.writer.encoding;
        if encoding == Encoding::MessagePack {
            write::patch_array(&mut self.writer.out[self.length], self.count);
        }
        write::close(&mut self.writer.out, encoding);
        self.writer.flag("more", more);
        self.writer.end()
    }
}

/// The tail of `{"sub": n, "progress": time}`.
pub fn progress(encoding: Encoding, time: Time) -> Tail {
    let mut writer = Writer::new(encoding, 32);
    writer.field("progress");
    write::unsigned(&mut writer.out, encoding, time);
    writer.end()
}

/// The tail of `{"sub": n, "error": {…}, "time"?}`, a subscription's last message.
pub fn ended(encoding: Encoding, error: &ErrorBody) -> Tail {
    let mut writer = Writer::new(encoding, 128);
    writer.field("error");
    write::any(&mut writer.out, encoding, error);
    if let Some(time) = error.time {
        writer.field("time");
        write::unsigned(&mut writer.out, encoding, time);
    }
    writer.end()
}
