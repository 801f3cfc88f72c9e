//! What a connection is, by its first bytes.

/// The four bytes that open a binary connection.
pub(crate) const PREAMBLE: [u8; 4] = [0xdf, b'F', b'L', 0x01];

const METHODS: [&[u8]; 9] =
    [b"GET ", b"HEAD ", b"POST ", b"PUT ", b"DELETE ", b"OPTIONS ", b"PATCH ", b"CONNECT ", b"TRACE "];

/// The record type and version that open a TLS client hello.
const TLS: u8 = 0x16;

/// A verdict on first bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sniffed {
    /// Too few to tell.
    Undecided,
    /// An HTTP method.
    Http,
    /// The beginning of a JSON object.
    Lines,
    /// The preamble, which is to be taken off.
    Binary,
    /// A TLS client hello.
    Tls,
    /// Nothing known.
    Unknown,
}

/// Judges the bytes that a connection begins with.
pub(crate) fn sniff(bytes: &[u8]) -> Sniffed {
    match bytes.first() {
        None => Sniffed::Undecided,
        Some(b'{') => Sniffed::Lines,
        Some(&TLS) => Sniffed::Tls,
        Some(_) if bytes.starts_with(&PREAMBLE) => Sniffed::Binary,
        Some(_) if METHODS.iter().any(|method| bytes.starts_with(method)) => Sniffed::Http,
        Some(_) if PREAMBLE.starts_with(bytes) || METHODS.iter().any(|method| method.starts_with(bytes)) => {
            Sniffed::Undecided
        }
        Some(_) => Sniffed::Unknown,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn first_bytes_tell_as_soon_as_they_can() {
        let cases: [(&[u8], usize, Sniffed); 7] = [
            (b"{\"op\"", 1, Sniffed::Lines),
            (b"GET / HTTP/1.1", 4, Sniffed::Http),
            (b"POST /", 5, Sniffed::Http),
            (b"\xdfFL\x01more", 4, Sniffed::Binary),
            (b"\xdfFL\x02", 4, Sniffed::Unknown),
            (b"\x16\x03\x01", 1, Sniffed::Tls),
            (b"GETX", 4, Sniffed::Unknown),
        ];
        for (bytes, decided, verdict) in cases {
            for end in 0..=bytes.len() {
                let expected = if end < decided { Sniffed::Undecided } else { verdict };
                assert_eq!(sniff(&bytes[..end]), expected, "{:?}", &bytes[..end]);
            }
        }
        assert_eq!(sniff(b"\n"), Sniffed::Unknown);
    }
}
