//! The one reply of a request.

use serde::Serialize;

use super::write;
use crate::encoding::Encoding;
use crate::error::{ErrorBody, ErrorCode};
use crate::request::RequestId;

/// `{"id": …, "ok": body}`. A body that the encoding cannot express, which is the server's mistake, becomes a `fault`.
pub fn ok(encoding: Encoding, id: &RequestId, body: &(impl Serialize + ?Sized)) -> Vec<u8> {
    let mut out = Vec::with_capacity(128);
    open(&mut out, encoding, id, "ok");
    if !write::any(&mut out, encoding, body) {
        return error(encoding, id, &ErrorBody::new(ErrorCode::Fault, "the reply could not be encoded"));
    }
    end(&mut out, encoding);
    out
}

/// `{"id": …, "error": {…}}`.
pub fn error(encoding: Encoding, id: &RequestId, error: &ErrorBody) -> Vec<u8> {
    let mut out = Vec::with_capacity(128);
    open(&mut out, encoding, id, "error");
    write::any(&mut out, encoding, error);
    end(&mut out, encoding);
    out
}

/// Writes a reply up to the value of its second field.
pub(super) fn open(out: &mut Vec<u8>, encoding: Encoding, id: &RequestId, field: &str) {
    match encoding {
        Encoding::Json => {
            out.extend_from_slice(b"{\"id\":");
            out.extend_from_slice(id.raw(encoding));
            out.push(b',');
            write::text(out, encoding, field);
            out.push(b':');
        }
        Encoding::MessagePack => {
            drop(rmp::encode::write_map_len(out, 2));
            write::text(out, encoding, "id");
            out.extend_from_slice(id.raw(encoding));
            write::text(out, encoding, field);
        }
    }
}

/// Writes what follows that value.
pub(super) fn end(out: &mut Vec<u8>, encoding: Encoding) {
    if encoding == Encoding::Json {
        out.push(b'}');
    }
}
