//! Bytes on their way to a socket.

use std::collections::VecDeque;
use std::io::{self, IoSlice, Write};

use bytes::{Buf, Bytes, BytesMut};

/// Shorter pieces are copied together: a system call and a reference each would cost more than the copy.
const COPIED_BELOW: usize = 2 << 10;
/// Copied pieces are cut into chunks of about this size.
const CHUNK: usize = 32 << 10;
/// Chunks given to the system at once.
const GATHERED: usize = 32;

/// A queue of chunks; large ones are shared, never copied.
#[derive(Debug, Default)]
pub(crate) struct Outbox {
    chunks: VecDeque<Bytes>,
    /// Small pieces behind all chunks.
    small: BytesMut,
    bytes: usize,
}

impl Outbox {
    /// Bytes queued.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Adds a copy.
    pub(crate) fn copy(&mut self, piece: &[u8]) {
        self.small.extend_from_slice(piece);
        self.bytes += piece.len();
        if self.small.len() >= CHUNK {
            self.seal();
        }
    }

    /// Adds a piece without copying it where that pays.
    pub(crate) fn share(&mut self, piece: Bytes) {
        if piece.len() < COPIED_BELOW {
            return self.copy(&piece);
        }
        self.seal();
        self.bytes += piece.len();
        self.chunks.push_back(piece);
    }

    fn seal(&mut self) {
        if !self.small.is_empty() {
            self.chunks.push_back(self.small.split().freeze());
        }
    }

    /// Writes until everything is out or the writer takes no more; returns the bytes written.
    ///
    /// # Errors
    ///
    /// Whatever the writer says but `WouldBlock` and `Interrupted`.
    pub(crate) fn write_to(&mut self, writer: &mut impl Write) -> io::Result<usize> {
        self.seal();
        let mut total = 0;
        while !self.chunks.is_empty() {
            let mut slices = [IoSlice::new(&[]); GATHERED];
            let mut count = 0;
            for (slice, chunk) in slices.iter_mut().zip(&self.chunks) {
                *slice = IoSlice::new(chunk);
                count += 1;
            }
            match writer.write_vectored(&slices[..count]) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(written) => {
                    total += written;
                    self.advance(written);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        if self.bytes == 0 {
            // An idle connection holds no buffer.
            self.small = BytesMut::new();
        }
        Ok(total)
    }

    fn advance(&mut self, mut written: usize) {
        self.bytes -= written;
        while let Some(chunk) = self.chunks.front_mut().filter(|_| written > 0) {
            let step = written.min(chunk.len());
            chunk.advance(step);
            written -= step;
            if chunk.is_empty() {
                self.chunks.pop_front();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Takes a few bytes a call and blocks now and then.
    struct Trickle {
        taken: Vec<u8>,
        calls: usize,
    }

    impl Write for Trickle {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.calls += 1;
            if self.calls.is_multiple_of(3) {
                return Err(io::ErrorKind::WouldBlock.into());
            }
            let step = bytes.len().min(1 + self.calls % 1500);
            self.taken.extend_from_slice(&bytes[..step]);
            Ok(step)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn pieces_leave_in_order_whatever_their_size_and_the_writer() {
        let (mut outbox, mut expected) = (Outbox::default(), Vec::new());
        let mut writer = Trickle { taken: Vec::new(), calls: 0 };
        for round in 0..200usize {
            let piece = vec![round as u8; [1, 100, COPIED_BELOW, 5000][round % 4]];
            expected.extend_from_slice(&piece);
            if round % 3 == 0 {
                outbox.copy(&piece)
            } else {
                outbox.share(piece.into())
            }
            if round % 5 == 0 {
                outbox.write_to(&mut writer).unwrap();
            }
            assert_eq!(outbox.bytes(), expected.len() - writer.taken.len());
        }
        while outbox.bytes() > 0 {
            outbox.write_to(&mut writer).unwrap();
        }
        assert!(writer.taken == expected);
    }
}
