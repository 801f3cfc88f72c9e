//! How instants, uuids and bytes are written as text: on the wire in JSON, in programs, in conversions.

use std::fmt::Write;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// The first instant: the beginning of year 1, in µs since 1970.
pub const FIRST_INSTANT: i64 = -62_135_596_800_000_000;
/// The last instant: the end of year 9999. Every instant between them has a text.
pub const LAST_INSTANT: i64 = 253_402_300_799_999_999;

/// The instant of so many µs since 1970, if it is one.
pub fn instant(micros: i64) -> Option<i64> {
    (FIRST_INSTANT..=LAST_INSTANT).contains(&micros).then_some(micros)
}

/// The instant that seconds since 1970 and the nanoseconds after them make; none is finer than µs.
pub fn instant_of(seconds: i64, nanos: u32) -> Option<i64> {
    if nanos >= 1_000_000_000 || !nanos.is_multiple_of(1000) {
        return None;
    }
    instant(seconds.checked_mul(1_000_000)?.checked_add(i64::from(nanos / 1000))?)
}

/// Reads an instant as RFC 3339 writes it, with any offset and at most six digits of a second's fraction.
pub fn parse_instant(text: &str) -> Option<i64> {
    let fraction = text.split_once('.').map_or("", |(_, after)| after);
    if fraction.bytes().take_while(u8::is_ascii_digit).count() > 6 {
        return None;
    }
    let nanos = OffsetDateTime::parse(text, &Rfc3339).ok()?.unix_timestamp_nanos();
    // What remains below a µs here is a leap second, which has no place in this count.
    if nanos % 1000 != 0 {
        return None;
    }
    instant(i64::try_from(nanos / 1000).ok()?)
}

/// Appends `2026-11-23T21:00:00.000000Z`.
pub fn write_instant(micros: i64, out: &mut String) {
    let micros = micros.clamp(FIRST_INSTANT, LAST_INSTANT);
    if let Ok(t) = OffsetDateTime::from_unix_timestamp_nanos(i128::from(micros) * 1000) {
        let (year, month, day) = (t.year(), u8::from(t.month()), t.day());
        let (hour, minute, second, micro) = (t.hour(), t.minute(), t.second(), t.microsecond());
        // Writing to a `String` can't fail.
        let _ = write!(out, "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{micro:06}Z");
    }
}

/// Reads a uuid with its hyphens, in letters of either case.
pub fn parse_uuid(text: &str) -> Option<[u8; 16]> {
    if text.len() != uuid::fmt::Hyphenated::LENGTH {
        return None;
    }
    uuid::Uuid::try_parse(text).ok().map(uuid::Uuid::into_bytes)
}

/// Appends the sixteen bytes of a uuid in lower case with hyphens.
pub fn write_uuid(bytes: [u8; 16], out: &mut String) {
    let mut buffer = uuid::Uuid::encode_buffer();
    out.push_str(uuid::Uuid::from_bytes(bytes).as_hyphenated().encode_lower(&mut buffer));
}

/// Reads base64 of the standard alphabet, padded.
pub fn parse_bytes(text: &str) -> Option<Vec<u8>> {
    STANDARD.decode(text).ok()
}

/// Appends bytes as base64 of the standard alphabet, padded.
pub fn write_bytes(bytes: &[u8], out: &mut String) {
    STANDARD.encode_string(bytes, out);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(micros: i64) -> String {
        let mut text = String::new();
        write_instant(micros, &mut text);
        text
    }

    #[test]
    fn instants_are_read_with_any_offset_and_written_in_utc() {
        let cases = [
            ("1970-01-01T00:00:00Z", 0, "1970-01-01T00:00:00.000000Z"),
            ("2026-11-23T22:00:00+01:00", 1_795_467_600_000_000, "2026-11-23T21:00:00.000000Z"),
            ("2026-11-23T15:30:00.5-05:30", 1_795_467_600_500_000, "2026-11-23T21:00:00.500000Z"),
            ("1969-12-31T23:59:59.999999Z", -1, "1969-12-31T23:59:59.999999Z"),
            ("2024-02-29t12:00:00.123456z", 1_709_208_000_123_456, "2024-02-29T12:00:00.123456Z"),
            ("0001-01-01T00:00:00Z", FIRST_INSTANT, "0001-01-01T00:00:00.000000Z"),
            ("9999-12-31T23:59:59.999999Z", LAST_INSTANT, "9999-12-31T23:59:59.999999Z"),
        ];
        for (text, micros, canonical) in cases {
            assert_eq!(parse_instant(text), Some(micros), "{text}");
            assert_eq!(written(micros), canonical);
            assert_eq!(parse_instant(canonical), Some(micros));
        }
    }

    #[test]
    fn what_is_no_instant_is_refused() {
        for text in [
            "",
            "2026-11-23",
            "2026-11-23T21:00:00",
            "2026-11-23T21:00:00.1234567Z",
            "2026-11-23T21:00:00.0000000Z",
            "2026-02-29T00:00:00Z",
            "2026-11-23T24:00:00Z",
            "2016-12-31T23:59:60Z",
            "0000-12-31T23:59:59Z",
            "0001-01-01T00:00:00+00:01",
            "9999-12-31T23:59:59-00:01",
            " 2026-11-23T21:00:00Z",
            "2026-11-23T21:00:00Z ",
        ] {
            assert_eq!(parse_instant(text), None, "{text}");
        }
        assert_eq!(
            (instant_of(0, 1), instant_of(0, 1_000_000_000), instant_of(i64::MAX, 0)),
            (None, None, None)
        );
        assert_eq!(instant_of(-1, 999_999_000), Some(-1));
    }

    #[test]
    fn uuids_and_bytes_have_one_text_each() {
        let mut text = String::new();
        write_uuid(parse_uuid("00112233-4455-6677-8899-AABBCCDDEEFF").unwrap(), &mut text);
        assert_eq!(text, "00112233-4455-6677-8899-aabbccddeeff");
        for other in ["00112233445566778899aabbccddeeff", "{00112233-4455-6677-8899-aabbccddeeff}", ""] {
            assert_eq!(parse_uuid(other), None, "{other}");
        }
        let mut text = String::new();
        write_bytes(&[0xff, 0, 1, 2], &mut text);
        assert_eq!((text.as_str(), parse_bytes(&text)), ("/wABAg==", Some(vec![0xff, 0, 1, 2])));
        for other in ["/wABAg", "/wABAg=", "_wABAg==", "/wABAh==", "/wAB Ag=="] {
            assert_eq!(parse_bytes(other), None, "{other}");
        }
    }
}
