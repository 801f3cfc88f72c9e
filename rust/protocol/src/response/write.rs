//! Values and rows in either encoding.
//!
//! Writing to a `Vec` cannot fail; the `Result`s of the libraries underneath are dropped for that reason.

use serde::Serialize;

use crate::dictionary;
use crate::encoding::Encoding;
use crate::shape::{Composite, Shapes};
use crate::spelling;
use crate::value::{self, Column, NIL, Type, Word};

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
        value(out, encoding, column.ty, column.shapes.as_deref(), word);
    }
    close(out, encoding);
}

#[inline]
fn value(out: &mut Vec<u8>, encoding: Encoding, ty: Type, shapes: Option<&Shapes>, word: Word) {
    match ty {
        Type::Number => number(out, encoding, value::to_number(word)),
        Type::Unsigned => unsigned(out, encoding, word),
        Type::Float => float(out, encoding, value::to_float(word)),
        Type::Bool => boolean(out, encoding, word != 0),
        Type::Symbol => symbol(out, encoding, word),
        Type::Instant => instant(out, encoding, value::to_number(word)),
        Type::Uuid => uuid(out, encoding, word),
        Type::Bytes => bytes(out, encoding, word),
        Type::Composite(id) => match shapes.and_then(|shapes| Some((shapes, shapes.get(id)?))) {
            Some((shapes, composite)) => record(out, encoding, composite, shapes, word),
            None => unknown(out, encoding, ty, word),
        },
    }
}

/// Writes a record as an array, or a value of an algebraic type as a map of its branch. None is deeper than
/// [`crate::shape::MAX_DEPTH`], since no deeper one is made.
fn record(out: &mut Vec<u8>, encoding: Encoding, composite: &Composite, shapes: &Shapes, word: Word) {
    if word == NIL && composite.record().is_some() {
        match encoding {
            Encoding::Json => out.extend_from_slice(b"null"),
            Encoding::MessagePack => out.push(0xc0),
        }
        return;
    }
    let known = dictionary::record(word);
    let branch = known.as_deref().and_then(|words| composite.branches.get(*words.first()? as usize));
    let (Some(words), Some(branch)) = (known.as_deref(), branch) else {
        return unknown(out, encoding, Type::Composite(composite.id), word);
    };
    if let Some(name) = &branch.name {
        match encoding {
            Encoding::Json => out.push(b'{'),
            Encoding::MessagePack => out.push(0x81),
        }
        text(out, encoding, &format!("${name}"));
        if encoding == Encoding::Json {
            out.push(b':');
        }
    }
    array(out, encoding, branch.fields.len());
    for (index, (field, &word)) in branch.fields.iter().zip(&words[1..]).enumerate() {
        separate(out, encoding, index);
        value(out, encoding, field.ty, Some(shapes), word);
    }
    close(out, encoding);
    if branch.name.is_some() && encoding == Encoding::Json {
        out.push(b'}');
    }
}

fn symbol(out: &mut Vec<u8>, encoding: Encoding, word: Word) {
    if dictionary::with_text(word, |known| text(out, encoding, known)).is_none() {
        unknown(out, encoding, Type::Symbol, word);
    }
}

/// A word travels with or after its content, so this is the server's fault; the client sees which word it is.
fn unknown(out: &mut Vec<u8>, encoding: Encoding, ty: Type, word: Word) {
    debug_assert!(false, "no content for {} {word:#x}", ty.name());
    text(out, encoding, &format!("unknown {} {word:#018x}", ty.name()));
}

fn instant(out: &mut Vec<u8>, encoding: Encoding, micros: i64) {
    match encoding {
        Encoding::Json => quoted(out, |text| spelling::write_instant(micros, text)),
        Encoding::MessagePack => timestamp(out, micros),
    }
}

/// MessagePack's timestamp in the smallest of its three sizes.
fn timestamp(out: &mut Vec<u8>, micros: i64) {
    let (seconds, nanos) = (micros.div_euclid(1_000_000), micros.rem_euclid(1_000_000) as u32 * 1000);
    match (u32::try_from(seconds), u64::try_from(seconds)) {
        (Ok(seconds), _) if nanos == 0 => {
            out.extend_from_slice(&[0xd6, 0xff]);
            out.extend_from_slice(&seconds.to_be_bytes());
        }
        (_, Ok(seconds)) if seconds < 1 << 34 => {
            out.extend_from_slice(&[0xd7, 0xff]);
            out.extend_from_slice(&(u64::from(nanos) << 34 | seconds).to_be_bytes());
        }
        _ => {
            out.extend_from_slice(&[0xc7, 12, 0xff]);
            out.extend_from_slice(&nanos.to_be_bytes());
            out.extend_from_slice(&seconds.to_be_bytes());
        }
    }
}

fn uuid(out: &mut Vec<u8>, encoding: Encoding, word: Word) {
    let bytes = dictionary::with_bytes(word, |bytes| <[u8; 16]>::try_from(bytes).ok()).flatten();
    match (bytes, encoding) {
        (Some(bytes), Encoding::Json) => quoted(out, |text| spelling::write_uuid(bytes, text)),
        (Some(bytes), Encoding::MessagePack) => drop(rmp::encode::write_bin(out, &bytes)),
        (None, _) => unknown(out, encoding, Type::Uuid, word),
    }
}

fn bytes(out: &mut Vec<u8>, encoding: Encoding, word: Word) {
    let written = dictionary::with_bytes(word, |bytes| match encoding {
        Encoding::Json => quoted(out, |text| spelling::write_bytes(bytes, text)),
        Encoding::MessagePack => drop(rmp::encode::write_bin(out, bytes)),
    });
    if written.is_none() {
        unknown(out, encoding, Type::Bytes, word);
    }
}

/// A text in which nothing needs escaping, as JSON.
fn quoted(out: &mut Vec<u8>, spell: impl FnOnce(&mut String)) {
    let mut text = String::new();
    spell(&mut text);
    out.push(b'"');
    out.extend_from_slice(text.as_bytes());
    out.push(b'"');
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
