//! Control links: heartbeats, and what processes agree on.

use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::{Duration, Instant};

use crate::mesh::agreement::Message;

/// The longest message; a cluster of a thousand processes stays well below.
const MAX_MESSAGE: usize = 64 << 10;
/// A process that takes so long to make room for a heartbeat has not read for many of them.
const WRITE_PATIENCE: Duration = Duration::from_millis(100);

/// The sending half of a control link. Dropping it closes the link.
pub(crate) struct Control {
    socket: TcpStream,
    /// Tells this link from one with the same process before or after.
    pub(crate) serial: u64,
}

impl Control {
    /// Takes a socket, and starts a thread that hands each message to `heard`, which says whether to go on,
    /// then the end of the link to `lost`: also when nothing has come for as long as `silence`.
    ///
    /// # Errors
    ///
    /// The system has no threads or descriptors left.
    pub(crate) fn start(
        socket: TcpStream,
        serial: u64,
        silence: Duration,
        mut heard: impl FnMut(Message) -> bool + Send + 'static,
        lost: impl FnOnce(String) + Send + 'static,
    ) -> io::Result<Control> {
        socket.set_write_timeout(Some(WRITE_PATIENCE))?;
        let mut reader = Reader { socket: socket.try_clone()?, silence, until: Instant::now() };
        std::thread::Builder::new().name("dataflow:mesh-control".into()).spawn(move || {
            loop {
                match reader.next().map(&mut heard) {
                    Ok(true) => {}
                    Ok(false) => return,
                    Err(error) => return lost(describe(&error, silence)),
                }
            }
        })?;
        Ok(Control { socket, serial })
    }

    /// # Errors
    ///
    /// The other process doesn't take it. The link is of no use any more.
    pub(crate) fn send(&mut self, message: &Message) -> io::Result<()> {
        let body = serde_json::to_vec(message)?;
        let length = u32::try_from(body.len()).map_err(io::Error::other)?;
        self.socket.write_all(&[&length.to_be_bytes()[..], &body].concat())
    }
}

impl Drop for Control {
    fn drop(&mut self) {
        let _ = self.socket.shutdown(Shutdown::Both);
    }
}

fn describe(error: &io::Error, silence: Duration) -> String {
    match error.kind() {
        io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock => {
            format!("has not been heard of for {} s", silence.as_secs_f64())
        }
        io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe => {
            "is gone: its connection was closed".to_owned()
        }
        io::ErrorKind::InvalidData => format!("is not understood: {error}"),
        _ => format!("is gone: {error}"),
    }
}

struct Reader {
    socket: TcpStream,
    silence: Duration,
    /// When the other process has been silent for too long.
    until: Instant,
}

impl Reader {
    fn next(&mut self) -> io::Result<Message> {
        self.until = Instant::now() + self.silence;
        let mut length = [0; 4];
        self.read_exact(&mut length)?;
        let length = u32::from_be_bytes(length) as usize;
        if length > MAX_MESSAGE {
            return Err(io::Error::new(io::ErrorKind::InvalidData, format!("a message of {length} bytes")));
        }
        let mut body = vec![0; length];
        self.read_exact(&mut body)?;
        serde_json::from_slice(&body).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
    }
}

impl Read for Reader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = self.until.saturating_duration_since(Instant::now());
        // A process that was stopped itself finds here what the others have sent meanwhile.
        self.socket.set_read_timeout(Some(left.max(Duration::from_millis(1))))?;
        self.socket.read(buffer)
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::sync::mpsc;

    use super::*;

    #[derive(Debug, PartialEq)]
    enum Seen {
        Heard(Message),
        Lost(String),
    }

    fn link(silence: Duration) -> (TcpStream, Control, mpsc::Receiver<Seen>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let other = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (seen, look) = mpsc::channel();
        let told = seen.clone();
        let heard = move |message| seen.send(Seen::Heard(message)).is_ok();
        let lost = move |why| drop(told.send(Seen::Lost(why)));
        let control = Control::start(listener.accept().unwrap().0, 1, silence, heard, lost).unwrap();
        (other, control, look)
    }

    #[test]
    fn messages_arrive_in_order_and_silence_is_noticed() {
        let (other, _control, look) = link(Duration::from_millis(300));
        let mut other = Control { socket: other, serial: 2 };
        for message in [Message::Beat, Message::Leaving] {
            other.send(&message).unwrap();
            assert_eq!(look.recv().unwrap(), Seen::Heard(message));
        }
        assert_eq!(look.recv().unwrap(), Seen::Lost("has not been heard of for 0.3 s".into()));
    }

    #[test]
    fn the_end_of_a_link_and_nonsense_on_it_are_noticed_at_once() {
        let long = Duration::from_secs(60);
        let (other, _control, look) = link(long);
        drop(other);
        assert_eq!(look.recv().unwrap(), Seen::Lost("is gone: its connection was closed".into()));
        for nonsense in [&[0xff; 8][..], &[0, 0, 0, 2, b'{', b'}']] {
            let (mut other, _control, look) = link(long);
            other.write_all(nonsense).unwrap();
            let Seen::Lost(why) = look.recv().unwrap() else { panic!("it was understood") };
            assert!(why.starts_with("is not understood"), "{why}");
        }
    }
}
