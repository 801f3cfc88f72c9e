//! How two processes find out that they belong together, before either takes anything else from the other.
//!
//! The connecting end sends a [`Greeting`]; the accepting end answers with a nonce; the connecting end proves over
//! both that it knows the cluster's secret; the accepting end gives its verdict, with a proof of its own. Nobody who
//! doesn't know the secret is told anything, a recorded conversation is worth nothing against another nonce, and the
//! whole of it has one deadline.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

use crate::config::Config;
use crate::mesh::agreement::Attempt;

const MAGIC: &[u8; 8] = b"DFmesh\x00\x02";
const NONCE: usize = 16;
const WORDS: usize = 6;
const GREETING: usize = MAGIC.len() + 1 + 4 * WORDS + 2 * 8 + NONCE;
const CHALLENGE: usize = MAGIC.len() + NONCE;
const PROOF: usize = 32;
const WELCOME: u8 = 0;

/// What a link is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// Heartbeats and agreement, for as long as both processes live.
    Control,
    /// The workers' messages in one generation.
    Data(Attempt),
}

/// Why a link isn't made.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Refusal {
    #[error("it does not speak the mesh protocol of this version")]
    Stranger,
    #[error("it does not know the cluster's secret")]
    Secret,
    #[error("it is set up for {0}")]
    Shape(String),
    #[error("it is not set up for the same cluster; its log says what differs")]
    Mismatched,
    #[error("it has not answered in time")]
    Late,
    #[error("it could not be talked to")]
    Io(#[from] io::Error),
}

/// What a connecting process says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Greeting {
    purpose: Purpose,
    from: u32,
    to: u32,
    processes: u32,
    threads: u32,
    heartbeat_millis: u32,
    suspect_millis: u32,
    nonce: [u8; NONCE],
}

impl Greeting {
    fn new(config: &Config, to: usize, purpose: Purpose) -> io::Result<Self> {
        Ok(Greeting {
            purpose,
            from: config.process as u32,
            to: to as u32,
            processes: config.processes as u32,
            threads: config.threads as u32,
            heartbeat_millis: config.heartbeat_millis,
            suspect_millis: config.suspect_millis,
            nonce: nonce()?,
        })
    }

    fn encode(&self) -> [u8; GREETING] {
        let (kind, attempt) = match self.purpose {
            Purpose::Control => (1, Attempt { generation: 0, history: 0 }),
            Purpose::Data(attempt) => (2, attempt),
        };
        let words =
            [self.from, self.to, self.processes, self.threads, self.heartbeat_millis, self.suspect_millis];
        let mut out = Vec::with_capacity(GREETING);
        out.extend_from_slice(MAGIC);
        out.push(kind);
        words.iter().for_each(|word| out.extend_from_slice(&word.to_be_bytes()));
        out.extend_from_slice(&attempt.generation.to_be_bytes());
        out.extend_from_slice(&attempt.history.to_be_bytes());
        out.extend_from_slice(&self.nonce);
        let mut bytes = [0; GREETING];
        bytes.copy_from_slice(&out);
        bytes
    }

    fn decode(bytes: &[u8; GREETING]) -> Result<Self, Refusal> {
        let mut rest = &bytes[MAGIC.len() + 1..];
        let word = |rest: &mut &[u8]| u32::from_be_bytes(take(rest));
        let words: [u32; WORDS] = std::array::from_fn(|_| word(&mut rest));
        let generation = u64::from_be_bytes(take(&mut rest));
        let history = u64::from_be_bytes(take(&mut rest));
        let purpose = match bytes[MAGIC.len()] {
            1 => Purpose::Control,
            2 => Purpose::Data(Attempt { generation, history }),
            _ => return Err(Refusal::Stranger),
        };
        let [from, to, processes, threads, heartbeat_millis, suspect_millis] = words;
        let nonce = take(&mut rest);
        Ok(Greeting { purpose, from, to, processes, threads, heartbeat_millis, suspect_millis, nonce })
    }

    /// Whether this process, so configured, is the one that the greeting means, and may be linked with.
    fn check(&self, config: &Config) -> Result<(), Refusal> {
        let same = self.to as usize == config.process
            && self.processes as usize == config.processes
            && self.threads as usize == config.threads
            && self.heartbeat_millis == config.heartbeat_millis
            && self.suspect_millis == config.suspect_millis;
        if same && self.from > self.to && self.from < self.processes {
            return Ok(());
        }
        Err(Refusal::Shape(format!(
            "process {} here, of {} with {} threads each, and calls itself process {}; heartbeat_millis={}, suspect_millis={}",
            self.to, self.processes, self.threads, self.from, self.heartbeat_millis, self.suspect_millis
        )))
    }
}

/// The next bytes of what has a fixed length; zeros where that wasn't so.
fn take<const N: usize>(rest: &mut &[u8]) -> [u8; N] {
    let mut bytes = [0; N];
    if let Some((head, tail)) = rest.split_at_checked(N) {
        bytes.copy_from_slice(head);
        *rest = tail;
    }
    bytes
}

fn nonce() -> io::Result<[u8; NONCE]> {
    let mut bytes = [0; NONCE];
    getrandom::fill(&mut bytes).map_err(io::Error::other)?;
    Ok(bytes)
}

fn proof(config: &Config, role: &str, parts: &[&[u8]]) -> Result<Hmac<Sha256>, Refusal> {
    let secret = config.secret.as_deref().unwrap_or("");
    let mut mac = Hmac::<Sha256>::new_from_slice(secret.as_bytes()).map_err(|_| Refusal::Secret)?;
    mac.update(role.as_bytes());
    parts.iter().for_each(|part| mac.update(part));
    Ok(mac)
}

/// A socket during the conversation, which ends by its deadline whatever the other end does.
struct Talk<'a> {
    socket: &'a TcpStream,
    until: Instant,
}

impl Talk<'_> {
    fn left(&self) -> io::Result<Duration> {
        let left = self.until.saturating_duration_since(Instant::now());
        if left.is_zero() { Err(io::ErrorKind::TimedOut.into()) } else { Ok(left) }
    }

    fn receive<const N: usize>(&mut self) -> Result<[u8; N], Refusal> {
        let mut bytes = [0; N];
        self.read_exact(&mut bytes).map_err(lateness)?;
        Ok(bytes)
    }

    fn send(&mut self, bytes: &[u8]) -> Result<(), Refusal> {
        self.write_all(bytes).map_err(lateness)
    }
}

fn lateness(error: io::Error) -> Refusal {
    match error.kind() {
        io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock => Refusal::Late,
        _ => Refusal::Io(error),
    }
}

impl Read for Talk<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.socket.set_read_timeout(Some(self.left()?))?;
        self.socket.read(buffer)
    }
}

impl Write for Talk<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.socket.set_write_timeout(Some(self.left()?))?;
        self.socket.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The connecting end's part, with process `to`.
///
/// # Errors
///
/// The other end isn't what it should be, or says that this one isn't, or takes longer than until `until`.
pub(crate) fn introduce(
    socket: &TcpStream,
    config: &Config,
    to: usize,
    purpose: Purpose,
    until: Instant,
) -> Result<(), Refusal> {
    let mut talk = Talk { socket, until };
    let greeting = Greeting::new(config, to, purpose)?.encode();
    talk.send(&greeting)?;
    let challenge: [u8; CHALLENGE] = talk.receive()?;
    if &challenge[..MAGIC.len()] != MAGIC {
        return Err(Refusal::Stranger);
    }
    let own = proof(config, "connect", &[&greeting, &challenge])?.finalize().into_bytes();
    talk.send(&own)?;
    let verdict: [u8; 1] = talk.receive()?;
    let theirs: [u8; PROOF] = talk.receive()?;
    proof(config, "accept", &[&greeting, &challenge, &verdict])?
        .verify_slice(&theirs)
        .map_err(|_| Refusal::Secret)?;
    if verdict[0] == WELCOME { Ok(()) } else { Err(Refusal::Mismatched) }
}

/// The accepting end's part. Returns the other process's index, and what the link is for.
///
/// # Errors
///
/// The other end isn't of this cluster, or takes longer than until `until`.
pub(crate) fn receive(
    socket: &TcpStream,
    config: &Config,
    until: Instant,
) -> Result<(usize, Purpose), Refusal> {
    let mut talk = Talk { socket, until };
    let mut greeting = [0; GREETING];
    let (magic, rest) = greeting.split_at_mut(MAGIC.len());
    talk.read_exact(magic).map_err(lateness)?;
    if magic != MAGIC {
        return Err(Refusal::Stranger);
    }
    talk.read_exact(rest).map_err(lateness)?;
    let from = Greeting::decode(&greeting)?;
    let mut challenge = [0; CHALLENGE];
    challenge[..MAGIC.len()].copy_from_slice(MAGIC);
    challenge[MAGIC.len()..].copy_from_slice(&nonce()?);
    talk.send(&challenge)?;
    let theirs: [u8; PROOF] = talk.receive()?;
    let known = proof(config, "connect", &[&greeting, &challenge])?.verify_slice(&theirs).is_ok();
    if !known {
        // Nothing is proved to somebody who has proved nothing.
        talk.send(&[WELCOME + 1; 1 + PROOF])?;
        return Err(Refusal::Secret);
    }
    let judged = from.check(config);
    let verdict = [if judged.is_ok() { WELCOME } else { WELCOME + 1 }];
    let own = proof(config, "accept", &[&greeting, &challenge, &verdict])?.finalize().into_bytes();
    talk.send(&verdict)?;
    talk.send(&own)?;
    judged.map(|()| (from.from as usize, from.purpose))
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    const LONG: Duration = Duration::from_secs(60);

    fn config(process: usize) -> Config {
        Config { processes: 3, process, threads: 2, secret: Some("s".into()), ..Config::default() }
    }

    fn pair() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let one = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        (one, listener.accept().unwrap().0)
    }

    /// Lets process 2, as `guest` has it, talk to process 1, as `host` has it.
    fn meet(host: Config, guest: Config) -> (Result<(usize, Purpose), Refusal>, Result<(), Refusal>) {
        let (connecting, accepting) = pair();
        let purpose = Purpose::Data(Attempt { generation: 3, history: 77 });
        let talk =
            std::thread::spawn(move || introduce(&connecting, &guest, 1, purpose, Instant::now() + LONG));
        let received = receive(&accepting, &host, Instant::now() + LONG);
        drop(accepting);
        (received, talk.join().unwrap())
    }

    #[test]
    fn processes_of_one_cluster_are_linked() {
        let (host, guest) = meet(config(1), config(2));
        guest.unwrap();
        assert_eq!(host.unwrap(), (2, Purpose::Data(Attempt { generation: 3, history: 77 })));
    }

    #[test]
    fn another_secret_or_shape_is_refused() {
        for other in [None, Some("t".to_owned())] {
            let (host, guest) = meet(config(1), Config { secret: other, ..config(2) });
            assert!(matches!((host, guest), (Err(Refusal::Secret), Err(Refusal::Secret))));
        }
        let different = [
            Config { threads: 3, ..config(2) },
            Config { processes: 4, ..config(2) },
            Config { suspect_millis: 9_000, ..config(2) },
            config(0),
        ];
        for other in different {
            let (host, guest) = meet(config(1), other);
            assert!(matches!((host, guest), (Err(Refusal::Shape(_)), Err(Refusal::Mismatched))));
        }
    }

    /// What a stranger hears who sends `bytes` and then nothing; the refusal.
    fn knock(bytes: &[u8], patience: Duration) -> (Vec<u8>, Refusal) {
        let (mut stranger, host) = pair();
        stranger.write_all(bytes).unwrap();
        let refusal = receive(&host, &config(1), Instant::now() + patience).unwrap_err();
        drop(host);
        let mut heard = Vec::new();
        // Bytes that nobody has read make it a reset.
        let _ = stranger.read_to_end(&mut heard);
        (heard, refusal)
    }

    #[test]
    fn a_stranger_is_told_nothing_and_not_waited_for() {
        for garbage in [&[0xff; 8][..], &[0xff; 64], b"GET / HTTP/1.1\r\n\r\n", b"DFmesh\x00\x01"] {
            let (heard, refusal) = knock(garbage, LONG);
            assert!(heard.is_empty() && matches!(refusal, Refusal::Stranger), "{refusal:?}");
        }
    }

    #[test]
    fn a_conversation_ends_by_its_deadline() {
        let greeting = Greeting::new(&config(2), 1, Purpose::Control).unwrap().encode();
        for (sent, heard_bytes) in [(0, 0), (5, 0), (MAGIC.len(), 0), (40, 0), (GREETING, CHALLENGE)] {
            let (heard, refusal) = knock(&greeting[..sent], Duration::from_millis(50));
            assert_eq!(heard.len(), heard_bytes, "after {sent} bytes");
            assert!(matches!(refusal, Refusal::Late), "after {sent} bytes: {refusal:?}");
        }
    }

    #[test]
    fn a_trickle_does_not_extend_the_deadline() {
        let (mut stranger, host) = pair();
        let trickle = std::thread::spawn(move || {
            let greeting = Greeting::new(&config(2), 1, Purpose::Control).unwrap().encode();
            // Ends when the other end is closed.
            for byte in greeting.iter().cycle() {
                if stranger.write_all(&[*byte]).is_err() {
                    return;
                }
                std::thread::park_timeout(Duration::from_millis(20));
            }
        });
        let until = Instant::now() + Duration::from_millis(200);
        let refusal = receive(&host, &config(1), until).unwrap_err();
        drop(host);
        assert!(matches!(refusal, Refusal::Late), "{refusal:?}");
        trickle.join().unwrap();
    }

    #[test]
    fn a_recorded_conversation_opens_no_door() {
        // What the connecting end says to a real host, kept by somebody in between.
        let (client, relay_in) = pair();
        let (relay_out, host) = pair();
        let talking = std::thread::spawn(move || {
            introduce(&client, &config(2), 1, Purpose::Control, Instant::now() + LONG)
        });
        let hosting = std::thread::spawn(move || receive(&host, &config(1), Instant::now() + LONG));
        let (mut greeting, mut challenge) = ([0; GREETING], [0; CHALLENGE]);
        let mut own = [0; PROOF];
        (&relay_in).read_exact(&mut greeting).unwrap();
        (&relay_out).write_all(&greeting).unwrap();
        (&relay_out).read_exact(&mut challenge).unwrap();
        (&relay_in).write_all(&challenge).unwrap();
        (&relay_in).read_exact(&mut own).unwrap();
        (&relay_out).write_all(&own).unwrap();
        hosting.join().unwrap().unwrap();
        drop((relay_in, relay_out));
        let _ = talking.join().unwrap();

        let recorded: Vec<u8> = [&greeting[..], &own].concat();
        let (heard, refusal) = knock(&recorded, LONG);
        assert!(matches!(refusal, Refusal::Secret), "{refusal:?}");
        assert_eq!(heard.len(), CHALLENGE + 1 + PROOF);
        assert!(
            heard[CHALLENGE..].iter().all(|byte| *byte == WELCOME + 1),
            "no proof for somebody without one"
        );
    }
}
