//! Messages after a big-endian length of four bytes.

use bytes::{Buf, Bytes, BytesMut};

use crate::error::Violation;

/// Bytes of a length.
pub(crate) const PREFIX: usize = 4;

/// Takes the next message off the input.
///
/// # Errors
///
/// Its declared length is over `limit`; judged before any of it has come.
pub(crate) fn next(input: &mut BytesMut, limit: usize) -> Result<Option<Bytes>, Violation> {
    let Some(prefix) = input.first_chunk::<PREFIX>() else { return Ok(None) };
    let length = u32::from_be_bytes(*prefix) as usize;
    if length > limit {
        return Err(Violation::TooLarge { bytes: length as u64, limit });
    }
    if input.len() < PREFIX + length {
        return Ok(None);
    }
    input.advance(PREFIX);
    Ok(Some(input.split_to(length).freeze()))
}

/// Whether the input is the beginning of a message and not all of it.
pub(crate) fn is_partial(input: &[u8]) -> bool {
    match input.split_first_chunk::<PREFIX>() {
        None => !input.is_empty(),
        Some((prefix, rest)) => rest.len() < u32::from_be_bytes(*prefix) as usize,
    }
}

/// The length to put before a message. One of 4 GiB or more cannot be told, and isn't made: `batch_bytes` and
/// `max_message_bytes` bound what the server writes.
pub(crate) fn prefix(length: usize) -> [u8; PREFIX] {
    debug_assert!(u32::try_from(length).is_ok());
    (length as u32).to_be_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_come_out_whole_wherever_the_input_is_split() {
        let bytes = [&prefix(3)[..], b"abc", &prefix(0), &prefix(5), b"fghij", &prefix(9)].concat();
        for split in 0..=bytes.len() {
            let (mut input, mut messages) = (BytesMut::new(), Vec::new());
            for part in [&bytes[..split], &bytes[split..]] {
                input.extend_from_slice(part);
                while let Some(message) = next(&mut input, 9).unwrap() {
                    messages.push(message.to_vec());
                }
            }
            assert_eq!(messages, [b"abc".to_vec(), b"".to_vec(), b"fghij".to_vec()]);
        }
    }

    #[test]
    fn a_declared_length_over_the_limit_is_refused_at_once() {
        let mut input = BytesMut::from(&prefix(10)[..]);
        assert_eq!(next(&mut input, 9), Err(Violation::TooLarge { bytes: 10, limit: 9 }));
        let mut input = BytesMut::from(&[0xff; 4][..]);
        assert_eq!(next(&mut input, 9), Err(Violation::TooLarge { bytes: u64::from(u32::MAX), limit: 9 }));
    }
}
