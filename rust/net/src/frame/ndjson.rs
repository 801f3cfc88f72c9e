//! One message a line.

use bytes::{Buf, Bytes, BytesMut};

use crate::error::Violation;

/// Splits input into lines.
#[derive(Debug, Default)]
pub(crate) struct Lines {
    /// Bytes at the front of the input that hold no line end.
    scanned: usize,
}

impl Lines {
    /// Takes the next line that isn't empty off the input, without its end (`\n` or `\r\n`).
    ///
    /// # Errors
    ///
    /// The line, whole or not, is longer than `limit`.
    pub(crate) fn next(&mut self, input: &mut BytesMut, limit: usize) -> Result<Option<Bytes>, Violation> {
        while let Some(found) = memchr::memchr(b'\n', &input[self.scanned..]) {
            let mut line = input.split_to(self.scanned + found);
            input.advance(1);
            self.scanned = 0;
            if line.last() == Some(&b'\r') {
                line.truncate(line.len() - 1);
            }
            if line.len() > limit {
                return Err(Violation::TooLarge { bytes: line.len() as u64, limit });
            }
            if !line.is_empty() {
                return Ok(Some(line.freeze()));
            }
        }
        self.scanned = input.len();
        // One byte more than the limit may still be the `\r` of a line that is just as long as it may be.
        if input.len() > limit + 1 {
            return Err(Violation::TooLarge { bytes: input.len() as u64, limit });
        }
        Ok(None)
    }

    /// Whether the input is the beginning of a line and not all of it.
    pub(crate) fn is_partial(&self, input: &[u8]) -> bool {
        !input.is_empty() && memchr::memchr(b'\n', &input[self.scanned..]).is_none()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: usize = 8;

    fn lines(parts: &[&[u8]]) -> Result<Vec<Vec<u8>>, Violation> {
        let (mut splitter, mut input, mut lines) = (Lines::default(), BytesMut::new(), Vec::new());
        for part in parts {
            input.extend_from_slice(part);
            while let Some(line) = splitter.next(&mut input, LIMIT)? {
                lines.push(line.to_vec());
            }
        }
        Ok(lines)
    }

    #[test]
    fn lines_come_out_whole_wherever_the_input_is_split() {
        let text = b"{\"a\"}\r\n\n\r\n12345678\r\n{}\nrest";
        let expected = Ok(vec![b"{\"a\"}".to_vec(), b"12345678".to_vec(), b"{}".to_vec()]);
        for first in 0..=text.len() {
            for second in first..=text.len() {
                assert_eq!(lines(&[&text[..first], &text[first..second], &text[second..]]), expected);
            }
        }
    }

    #[test]
    fn a_line_over_the_limit_is_refused_before_its_end() {
        assert_eq!(lines(&[b"12345678", b"\n"]).unwrap().len(), 1);
        assert_eq!(lines(&[b"123456789\n"]), Err(Violation::TooLarge { bytes: 9, limit: 8 }));
        assert_eq!(lines(&[b"1234", b"567890"]), Err(Violation::TooLarge { bytes: 10, limit: 8 }));
    }
}
