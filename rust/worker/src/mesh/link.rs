//! A data link as timely sees it: a stream that never fails.
//!
//! timely's answer to a connection that breaks is a panic in its network threads, which then poisons the workers'
//! queues, so that they panic in the middle of a step and can't be taken apart any more. Here a link that breaks ends
//! the generation instead ([`Broken`]), by the way that every other failure takes: workers leave between two steps
//! and drop what they have. Until they have left, reading waits; afterwards timely is given the end of a stream that
//! it regards as orderly, for nobody looks at what it reads any more.

use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};

use timely::communication::allocator::zero_copy::stream::Stream;

/// Bytes of a header of timely's; one of zeros says that nothing follows.
const HEADER: usize = 6 * 8;

/// Called, perhaps more than once, with the reason when a link breaks; must not block.
pub(crate) type Broken = Arc<dyn Fn(String) + Send + Sync>;

/// One end of a data link.
pub(crate) struct Link {
    socket: TcpStream,
    shared: Arc<Shared>,
    frames: Frames,
    /// The workers have left: what is read from now on is made up.
    over: bool,
}

struct Shared {
    broken: AtomicBool,
    report: Broken,
    released: Mutex<bool>,
    release: Condvar,
}

/// What the generation keeps of a link.
pub(crate) struct LinkHandle {
    socket: TcpStream,
    shared: Arc<Shared>,
}

impl Link {
    /// # Errors
    ///
    /// The system has no descriptors left.
    pub(crate) fn new(socket: TcpStream, report: Broken) -> io::Result<(Link, LinkHandle)> {
        let shared = Arc::new(Shared {
            broken: AtomicBool::new(false),
            report,
            released: Mutex::new(false),
            release: Condvar::new(),
        });
        let handle = LinkHandle { socket: socket.try_clone()?, shared: Arc::clone(&shared) };
        Ok((Link { socket, shared, frames: Frames::default(), over: false }, handle))
    }
}

impl LinkHandle {
    /// Nothing goes over the link any more; what waits for it goes on.
    pub(crate) fn cut(&self) {
        self.shared.broken.store(true, Ordering::SeqCst);
        let _ = self.socket.shutdown(Shutdown::Both);
    }

    /// The workers have left: timely's threads may end.
    pub(crate) fn release(&self) {
        self.cut();
        *self.shared.released.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.shared.release.notify_all();
    }
}

impl Shared {
    fn broke(&self, why: &str) {
        if !self.broken.swap(true, Ordering::SeqCst) {
            (self.report)(why.to_owned());
        }
    }

    fn wait_released(&self) {
        let released = self.released.lock().unwrap_or_else(PoisonError::into_inner);
        drop(self.release.wait_while(released, |released| !*released));
    }
}

impl Read for Link {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while !self.over {
            let why = match self.socket.read(buffer) {
                Ok(0) if self.frames.ended || buffer.is_empty() => return Ok(0),
                Ok(0) => "it was closed".to_owned(),
                Ok(count) => {
                    self.frames.follow(&buffer[..count]);
                    return Ok(count);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => error.to_string(),
            };
            self.shared.broke(&why);
            self.shared.wait_released();
            self.over = true;
        }
        Ok(self.frames.finish(buffer))
    }
}

impl Write for Link {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        while !self.shared.broken.load(Ordering::SeqCst) {
            match self.socket.write(bytes) {
                Ok(count) if count > 0 => return Ok(count),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Ok(_) => self.shared.broke("it takes nothing any more"),
                Err(error) => self.shared.broke(&error.to_string()),
            }
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Stream for Link {
    fn try_clone(&self) -> io::Result<Self> {
        Ok(Link {
            socket: self.socket.try_clone()?,
            shared: Arc::clone(&self.shared),
            frames: Frames::default(),
            over: false,
        })
    }

    fn set_nonblocking(&self, nonblocking: bool) -> io::Result<()> {
        self.socket.set_nonblocking(nonblocking)
    }

    fn shutdown(&self, how: Shutdown) -> io::Result<()> {
        let _ = self.socket.shutdown(how);
        Ok(())
    }
}

/// Where in timely's messages a stream is.
#[derive(Default)]
struct Frames {
    header: Vec<u8>,
    /// Bytes left of the present message.
    body: usize,
    /// The message that says that nothing follows has been seen.
    ended: bool,
}

impl Frames {
    fn follow(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() && !self.ended {
            let inside = self.body.min(bytes.len());
            self.body -= inside;
            bytes = &bytes[inside..];
            let wanted = (HEADER - self.header.len()).min(bytes.len());
            if self.body > 0 || wanted == 0 {
                continue;
            }
            self.header.extend_from_slice(&bytes[..wanted]);
            bytes = &bytes[wanted..];
            if self.header.len() == HEADER {
                self.body = length(&self.header);
                self.ended = self.body == 0;
                self.header.clear();
            }
        }
    }

    /// Fills `buffer` with zeros up to where an orderly stream would end; how many there are.
    fn finish(&mut self, buffer: &mut [u8]) -> usize {
        let mut count = 0;
        while count < buffer.len() && !self.ended {
            let left = if self.body > 0 { self.body } else { HEADER - self.header.len() };
            let next = left.min(buffer.len() - count);
            buffer[count..count + next].fill(0);
            self.follow(&buffer[count..count + next]);
            count += next;
        }
        count
    }
}

/// What a header of timely's says of the length of its message.
fn length(header: &[u8]) -> usize {
    let mut word = [0; 8];
    word.copy_from_slice(&header[4 * 8..5 * 8]);
    u64::from_be_bytes(word) as usize
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::sync::mpsc;

    use timely::communication::networking::MessageHeader;

    use super::*;

    fn message(length: usize) -> Vec<u8> {
        let header =
            MessageHeader { channel: 1, source: 2, target_lower: 0, target_upper: 1, length, seqno: 5 };
        let mut bytes = Vec::new();
        header.write_to(&mut bytes).unwrap();
        bytes.resize(bytes.len() + length, 7);
        bytes
    }

    /// The lengths of timely's messages in `bytes`, read as timely does.
    fn lengths(mut bytes: &[u8]) -> Vec<usize> {
        let mut found = Vec::new();
        while let Some(header) = MessageHeader::try_read(bytes) {
            found.push(header.length);
            bytes = &bytes[header.required_bytes()..];
        }
        assert!(bytes.is_empty(), "{} bytes are left", bytes.len());
        found
    }

    #[test]
    fn a_stream_cut_anywhere_is_given_an_orderly_end() {
        let stream = [message(3), message(100), message(1)].concat();
        for cut in 0..=stream.len() {
            for chunk in [1, 7, 4096] {
                let mut frames = Frames::default();
                let mut read = stream[..cut].to_vec();
                read.chunks(chunk).for_each(|part| frames.follow(part));
                let mut buffer = vec![9; chunk];
                loop {
                    let count = frames.finish(&mut buffer);
                    read.extend_from_slice(&buffer[..count]);
                    if count == 0 {
                        break;
                    }
                }
                let lengths = lengths(&read);
                let (last, rest) = lengths.split_last().unwrap();
                assert!(*last == 0 && rest.iter().all(|length| *length > 0), "cut at {cut}: {lengths:?}");
            }
        }
    }

    #[test]
    fn a_broken_link_is_reported_once_and_ends_when_released() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let other = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (report, reported) = mpsc::channel();
        let report: Broken = Arc::new(move |why| drop(report.send(why)));
        let (mut link, handle) = Link::new(listener.accept().unwrap().0, report).unwrap();
        let mut writer = link.try_clone().unwrap();
        (&other).write_all(&message(10)[..20]).unwrap();
        drop(other);
        let reader = std::thread::spawn(move || {
            let mut read = Vec::new();
            link.read_to_end(&mut read).map(|_| read)
        });
        assert_eq!(reported.recv().unwrap(), "it was closed");
        assert!(!reader.is_finished(), "it waits until the workers have left");
        writer.write_all(&[0; 1 << 20]).unwrap();
        handle.release();
        let read = reader.join().unwrap().unwrap();
        assert_eq!(lengths(&read), [0]);
        assert!(reported.try_recv().is_err());
    }
}
