//! A value written as text: the same forms as in the files that `dataflow load` reads, and PostgreSQL's.

use crate::dictionary::Entry;
use crate::request::Context;
use crate::spelling;
use crate::value::{self, Type, Word};

/// Longest value quoted in a message, in bytes.
const LONGEST_VALUE: usize = 80;

/// The word of a value, or what is wrong with the text.
#[inline]
pub(super) fn from_text(ty: Type, text: &str, context: &mut Context<'_>) -> Result<Word, String> {
    let word = match ty {
        Type::Symbol => {
            return known(Entry::Text(text), context);
        }
        Type::Number => text.parse::<i64>().ok().or_else(|| prefixed(text)).map(value::from_number),
        Type::Unsigned => text.parse::<u64>().ok().or_else(|| prefixed(text)),
        Type::Float => text.trim().parse::<f64>().ok().map(value::from_float),
        Type::Bool => match text {
            "true" | "t" | "1" => Some(value::from_bool(true)),
            "false" | "f" | "0" => Some(value::from_bool(false)),
            _ => None,
        },
        Type::Instant => instant(text).map(value::from_number),
        Type::Uuid => match spelling::parse_uuid(text.trim()) {
            Some(bytes) => return known(Entry::Bytes(&bytes), context),
            None => None,
        },
        Type::Bytes => match bytes(text) {
            Some(bytes) => return known(Entry::Bytes(&bytes), context),
            None => None,
        },
        Type::Composite(_) => return Err("records and algebraic types can't be read from text".to_owned()),
    };
    word.ok_or_else(|| format!("{} is not {}", quoted(text), a(ty)))
}

fn known(entry: Entry<'_>, context: &mut Context<'_>) -> Result<Word, String> {
    context.word::<serde::de::value::Error>(entry, false).map_err(|error| error.to_string())
}

/// RFC 3339, or as PostgreSQL writes it: a blank in place of the `T`, offsets in hours.
fn instant(text: &str) -> Option<i64> {
    let text = text.trim();
    spelling::parse_instant(text).or_else(|| {
        let (date, time) = text.split_once(' ')?;
        let sign = time.rfind(['+', '-']);
        let offset = match sign.map(|at| time.len() - at) {
            None => "Z",
            Some(3) => ":00",
            Some(_) => "",
        };
        spelling::parse_instant(&format!("{date}T{time}{offset}"))
    })
}

/// Standard base64, or PostgreSQL's hexadecimal form.
fn bytes(text: &str) -> Option<Vec<u8>> {
    let Some(digits) = text.strip_prefix("\\x") else { return spelling::parse_bytes(text) };
    let pairs = digits.as_bytes().chunks(2);
    pairs
        .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok().filter(|_| pair.len() == 2))
        .collect()
}

/// An integer with blanks around it or a prefix: not the usual case.
#[cold]
fn prefixed<T: TryFrom<i128>>(text: &str) -> Option<T> {
    let text = text.trim();
    let (negative, digits) = match text.strip_prefix('-') {
        Some(digits) => (true, digits),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    let lower = digits.to_ascii_lowercase();
    let (digits, radix) = match (lower.strip_prefix("0x"), lower.strip_prefix("0b")) {
        (Some(hexadecimal), _) => (hexadecimal, 16),
        (_, Some(binary)) => (binary, 2),
        _ => (&*lower, 10),
    };
    if !digits.starts_with(|first: char| first.is_ascii_hexdigit()) {
        return None;
    }
    let number = i128::from_str_radix(digits, radix).ok()?;
    T::try_from(if negative { -number } else { number }).ok()
}

fn a(ty: Type) -> &'static str {
    match ty {
        Type::Number => "a number (64 bits, signed)",
        Type::Unsigned => "an unsigned number (64 bits)",
        Type::Float => "a float",
        Type::Symbol => "a symbol",
        Type::Bool => "true or false",
        Type::Instant => "an instant (RFC 3339, to the microsecond)",
        Type::Uuid => "a uuid",
        Type::Bytes => "bytes (base64)",
        Type::Composite(_) => "a value of its type",
    }
}

/// A value as messages show it.
pub(super) fn quoted(text: &str) -> String {
    let end = (0..=text.len().min(LONGEST_VALUE)).rev().find(|&end| text.is_char_boundary(end)).unwrap_or(0);
    let more = if end < text.len() { "…" } else { "" };
    format!("{:?}{more}", &text[..end])
}

#[cfg(test)]
mod tests {
    use super::super::NoSchemas;
    use super::*;
    use crate::encoding::Encoding;

    fn read(ty: Type, text: &str) -> Result<Word, String> {
        from_text(ty, text, &mut Context::new(Encoding::Json, &NoSchemas))
    }

    #[test]
    fn numbers_may_have_signs_blanks_and_prefixes() {
        for (text, number) in [("7", 7), ("-7", -7), ("+7", 7), (" 7 ", 7), ("0x1F", 31), ("-0b11", -3)] {
            assert_eq!(read(Type::Number, text), Ok(value::from_number(number)), "{text}");
        }
        assert_eq!(read(Type::Number, "-9223372036854775808"), Ok(value::from_number(i64::MIN)));
        assert_eq!(read(Type::Unsigned, "18446744073709551615"), Ok(u64::MAX));
        for text in ["", " ", "seven", "9223372036854775808", "1.0", "1_000", "0x", "0x-1", "--1"] {
            let message = format!("{text:?} is not a number (64 bits, signed)");
            assert_eq!(read(Type::Number, text), Err(message));
        }
        assert_eq!(read(Type::Unsigned, "-1"), Err("\"-1\" is not an unsigned number (64 bits)".into()));
    }

    #[test]
    fn floats_and_truth_values_have_their_names() {
        for (text, float) in [("1e3", 1000.0), ("Infinity", f64::INFINITY), ("-inf", f64::NEG_INFINITY)] {
            assert_eq!(read(Type::Float, text), Ok(value::from_float(float)), "{text}");
        }
        assert_eq!(read(Type::Float, "NaN"), Ok(value::from_float(f64::NAN)));
        assert_eq!(read(Type::Float, "1,5"), Err("\"1,5\" is not a float".into()));
        assert_eq!((read(Type::Bool, "t"), read(Type::Bool, "false")), (Ok(1), Ok(0)));
        assert_eq!(read(Type::Bool, "yes"), Err("\"yes\" is not true or false".into()));
    }

    #[test]
    fn instants_uuids_and_bytes_have_their_texts() {
        let micros = 1_763_931_600_120_000;
        for text in [
            "2025-11-23T21:00:00.12Z",
            "2025-11-23 21:00:00.12",
            "2025-11-23 22:00:00.12+01",
            "2025-11-23 16:30:00.12-04:30",
        ] {
            assert_eq!(read(Type::Instant, text), Ok(value::from_number(micros)), "{text}");
        }
        assert!(
            read(Type::Instant, "yesterday")
                .unwrap_err()
                .ends_with("is not an instant (RFC 3339, to the microsecond)")
        );
        let uuid = "01234567-89ab-cdef-0123-456789abcdef";
        assert_eq!(read(Type::Uuid, uuid), read(Type::Bytes, "\\x0123456789abcdef0123456789abcdef"));
        assert_eq!(read(Type::Bytes, "AQI="), read(Type::Bytes, "\\x0102"));
        for (ty, text) in
            [(Type::Uuid, "0123"), (Type::Bytes, "\\x012"), (Type::Bytes, "\\xzz"), (Type::Bytes, "?")]
        {
            assert!(read(ty, text).is_err(), "{text}");
        }
    }

    #[test]
    fn long_values_are_cut_in_messages() {
        let message = read(Type::Number, &"ü".repeat(100)).unwrap_err();
        assert_eq!(message, format!("\"{}\"… is not a number (64 bits, signed)", "ü".repeat(40)));
    }
}
