//! A value as files usually have it, to MessagePack.
//!
//! Whatever is taken here means the same to who is asked otherwise: this may be narrower, and never wider.

use dataflow_protocol::spelling;
use dataflow_protocol::value::Type;

/// Longest integer that is read here: more digits are zeros, if not too many.
const LONGEST_INTEGER: usize = 20;

/// Appends the value that a text is; false, with nothing appended, if it isn't written in the usual way.
#[inline]
pub(super) fn write(ty: Option<Type>, text: &str, out: &mut Vec<u8>) -> bool {
    // Writing to a `Vec` can't fail.
    match ty {
        Some(Type::Symbol) => rmp::encode::write_str(out, text).is_ok(),
        Some(Type::Number) => integer(text)
            .and_then(|text| text.parse().ok())
            .is_some_and(|value| rmp::encode::write_sint(out, value).is_ok()),
        Some(Type::Unsigned) => integer(text)
            .and_then(|text| text.parse().ok())
            .is_some_and(|value| rmp::encode::write_uint(out, value).is_ok()),
        Some(Type::Float) => text.parse().is_ok_and(|value| rmp::encode::write_f64(out, value).is_ok()),
        Some(Type::Bool) => match text {
            "true" | "1" => rmp::encode::write_bool(out, true).is_ok(),
            "false" | "0" => rmp::encode::write_bool(out, false).is_ok(),
            _ => false,
        },
        Some(Type::Instant) => instant(text).map(|micros| timestamp(out, micros)).is_some(),
        Some(Type::Uuid) => {
            spelling::parse_uuid(text).is_some_and(|bytes| rmp::encode::write_bin(out, &bytes).is_ok())
        }
        Some(Type::Bytes) => {
            spelling::parse_bytes(text).is_some_and(|bytes| rmp::encode::write_bin(out, &bytes).is_ok())
        }
        Some(Type::Composite(_)) | None => false,
    }
}

fn integer(text: &str) -> Option<&str> {
    (text.len() <= LONGEST_INTEGER).then_some(text)
}

/// MessagePack's timestamp in the largest of its three sizes, which has room for every instant.
fn timestamp(out: &mut Vec<u8>, micros: i64) {
    let (seconds, nanos) = (micros.div_euclid(1_000_000), micros.rem_euclid(1_000_000) as u32 * 1000);
    out.extend_from_slice(&[0xc7, 12, 0xff]);
    out.extend_from_slice(&nanos.to_be_bytes());
    out.extend_from_slice(&seconds.to_be_bytes());
}

/// With a `T` between date and time, a year from 1 on and an offset of less than a day: the library takes more.
fn instant(text: &str) -> Option<i64> {
    let usual = matches!(text.as_bytes().get(10), Some(b'T' | b't')) && !text.starts_with("0000");
    let offset =
        text.ends_with(['Z', 'z']) || text.len().checked_sub(5).and_then(|at| text.get(at..)) < Some("24");
    if usual && offset { spelling::parse_instant(text) } else { None }
}
