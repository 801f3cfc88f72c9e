//! Values and rows in either encoding.
//!
//! Writing to a `Vec` cannot fail; the `Result`s of the libraries underneath are dropped for that reason.

use serde::Serialize;

use crate::encoding::Encoding;
use crate::symbols;
use crate::value::{self, Column, Type, Word};

/// Writes an unsigned integer.
pub(super) fn unsigned(out: &mut Vec<u8>, encoding: Encoding, value: u64) {
    match encoding {
        Encoding::Json => plain(out, &value),
        Encoding::MessagePack => drop(rmp::encode::write_uint(out, value)),
    }
}

/// Writes a signed integer.
pub(super) fn number(out: &mut Vec<u8>, encoding: Encoding, value: i64) {
    match encoding {
        Encoding::Json => plain(out, &value),
        Encoding::MessagePack => drop(rmp::encode::write_sint(out, value)),
    }
}

/// Writes a text.
pub(super) fn text(out: &mut Vec<u8>, encoding: Encoding, value: &str) {
    match encoding {
        Encoding::Json => plain(out, value),
        Encoding::MessagePack => drop(rmp::encode::write_str(out, value)),
    }
}

fn float(out: &mut Vec<u8>, encoding: Encoding, value: f64) {
    match encoding {
        Encoding::Json if value.is_nan() => out.extend_from_slice(b"\"NaN\""),
        Encoding::Json if value == f64::INFINITY => out.extend_from_slice(b"\"inf\""),
        Encoding::Json if value == f64::NEG_INFINITY => out.extend_from_slice(b"\"-inf\""),
        Encoding::Json => plain(out, &value),
        Encoding::MessagePack => drop(rmp::encode::write_f64(out, value)),
    }
}

fn boolean(out: &mut Vec<u8>, encoding: Encoding, value: bool) {
    match encoding {
        Encoding::Json => plain(out, &value),
        Encoding::MessagePack => drop(rmp::encode::write_bool(out, value)),
    }
}

fn plain(out: &mut Vec<u8>, value: &(impl Serialize + ?Sized)) {
    drop(serde_json::to_writer(out, value));
}

/// Writes a row as an array in column order.
pub(super) fn row(out: &mut Vec<u8>, encoding: Encoding, columns: &[Column], row: &[Word]) {
    array(out, encoding, columns.len());
    for (index, (column, &word)) in columns.iter().zip(row).enumerate() {
        separate(out, encoding, index);
        match column.ty {
            Type::Number => number(out, encoding, value::to_number(word)),
            Type::Unsigned => unsigned(out, encoding, word),
            Type::Float => float(out, encoding, value::to_float(word)),
            Type::Bool => boolean(out, encoding, word != 0),
            Type::Symbol => symbol(out, encoding, word),
        }
    }
    close(out, encoding);
}

fn symbol(out: &mut Vec<u8>, encoding: Encoding, word: Word) {
    if symbols::with_text(word, |known| text(out, encoding, known)).is_none() {
        // A word travels with or after its text, so this is the server's fault; the client sees which word it is.
        debug_assert!(false, "no text for symbol {word:#x}");
        text(out, encoding, &format!("unknown symbol {word:#018x}"));
    }
}

/// Opens an array of `length` elements. A length beyond 32 bits cannot be told in MessagePack: callers cut first.
pub(super) fn array(out: &mut Vec<u8>, encoding: Encoding, length: usize) {
    match encoding {
        Encoding::Json => out.push(b'['),
        Encoding::MessagePack => {
            drop(rmp::encode::write_array_len(out, u32::try_from(length).unwrap_or(u32::MAX)));
        }
    }
}

/// Writes another length, no greater one, over the head of a MessagePack array.
pub(super) fn patch_array(head: &mut [u8], length: usize) {
    match head {
        [marker] => *marker = 0x90 | (length as u8 & 0x0f),
        [_, tail @ ..] => {
            let bytes = (length as u32).to_be_bytes();
            tail.copy_from_slice(&bytes[bytes.len() - tail.len()..]);
        }
        [] => {}
    }
}

/// Stands before the element at `index` of an array.
pub(super) fn separate(out: &mut Vec<u8>, encoding: Encoding, index: usize) {
    if encoding == Encoding::Json && index > 0 {
        out.push(b',');
    }
}

/// Closes an array.
pub(super) fn close(out: &mut Vec<u8>, encoding: Encoding) {
    if encoding == Encoding::Json {
        out.push(b']');
    }
}

/// Writes any value that serde knows; `false`, and `out` as it was, if the encoding has no way to write it.
pub(super) fn any(out: &mut Vec<u8>, encoding: Encoding, value: &(impl Serialize + ?Sized)) -> bool {
    let start = out.len();
    let written = match encoding {
        Encoding::Json => serde_json::to_writer(&mut *out, value).is_ok(),
        Encoding::MessagePack => {
            let mut serializer = rmp_serde::Serializer::new(&mut *out).with_struct_map();
            value.serialize(&mut serializer).is_ok()
        }
    };
    if !written {
        out.truncate(start);
    }
    written
}
