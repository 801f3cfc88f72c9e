//! The reply of a `read`, with its rows.

use super::{reply, write};
use crate::encoding::Encoding;
use crate::error::{ErrorBody, ErrorCode};
use crate::ids::Time;
use crate::request::RequestId;
use crate::rows::RowBuf;
use crate::shape::described;
use crate::value::Column;

/// A relation's contents at a finished time.
#[derive(Clone, Copy, Debug)]
pub struct Contents<'a> {
    /// The relation's columns.
    pub columns: &'a [Column],
    /// The rows, each once.
    pub rows: &'a RowBuf,
    /// How often each row is there, as many as rows: a row is sent once a copy, not at all for 0 and less.
    pub copies: &'a [i64],
    /// At most how many rows are sent.
    pub limit: Option<u64>,
    /// The time.
    pub time: Time,
}

/// `{"id": …, "ok": {"columns", "types"?, "rows", "time"}}`.
///
/// # Errors
///
/// `too-large` if the reply would be longer than `max_bytes`; found out while writing, so that little more than
/// that is ever held.
pub fn reply(
    encoding: Encoding,
    id: &RequestId,
    contents: &Contents<'_>,
    max_bytes: usize,
) -> Result<Vec<u8>, ErrorBody> {
    let wanted = contents.limit.unwrap_or(u64::MAX);
    let copies = contents.copies.iter().filter_map(|&copies| u64::try_from(copies).ok());
    let count = copies.fold(0u64, u64::saturating_add).min(wanted);
    // The shortest row takes a byte: this judges absurd numbers of copies before anything is written.
    if count > max_bytes as u64 || count > u64::from(u32::MAX) {
        return Err(too_large(max_bytes));
    }
    let mut out = Vec::with_capacity(128 + contents.rows.bytes());
    open(&mut out, encoding, id, contents);
    write::array(&mut out, encoding, count as usize);
    let mut sent = 0;
    for (row, &copies) in contents.rows.iter().zip(contents.copies) {
        for _ in 0..copies.max(0) {
            if sent == count {
                break;
            }
            write::separate(&mut out, encoding, sent as usize);
            write::row(&mut out, encoding, contents.columns, row);
            sent += 1;
            if out.len() > max_bytes {
                return Err(too_large(max_bytes));
            }
        }
    }
    write::close(&mut out, encoding);
    end(&mut out, encoding, contents.time);
    if out.len() > max_bytes { Err(too_large(max_bytes)) } else { Ok(out) }
}

fn too_large(max_bytes: usize) -> ErrorBody {
    ErrorBody::new(ErrorCode::TooLarge, format!("the reply is larger than {max_bytes} bytes"))
        .with_hint("Narrow it with `where` or `limit`, or subscribe: a snapshot is sent in parts.".to_owned())
}

fn open(out: &mut Vec<u8>, encoding: Encoding, id: &RequestId, contents: &Contents<'_>) {
    reply::open(out, encoding, id, "ok");
    let types = described(contents.columns);
    match encoding {
        Encoding::Json => {
            out.extend_from_slice(b"{\"columns\":");
            write::any(out, encoding, contents.columns);
            if !types.is_empty() {
                out.extend_from_slice(b",\"types\":");
                write::any(out, encoding, &types);
            }
            out.extend_from_slice(b",\"rows\":");
        }
        Encoding::MessagePack => {
            drop(rmp::encode::write_map_len(out, 3 + u32::from(!types.is_empty())));
            write::text(out, encoding, "columns");
            write::any(out, encoding, contents.columns);
            if !types.is_empty() {
                write::text(out, encoding, "types");
                write::any(out, encoding, &types);
            }
            write::text(out, encoding, "rows");
        }
    }
}

fn end(out: &mut Vec<u8>, encoding: Encoding, time: Time) {
    match encoding {
        Encoding::Json => {
            out.extend_from_slice(b",\"time\":");
            write::unsigned(out, encoding, time);
            out.push(b'}');
        }
        Encoding::MessagePack => {
            write::text(out, encoding, "time");
            write::unsigned(out, encoding, time);
        }
    }
    reply::end(out, encoding);
}
