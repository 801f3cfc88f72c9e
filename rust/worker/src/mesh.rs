//! The links between the processes of a cluster, made before timely gets them.
//!
//! timely trusts whoever connects, and waits for everybody without saying for whom. So the processes connect here:
//! each to those with a smaller index, each end proves that it knows the secret, both compare what must be equal,
//! and a stranger costs nobody anything. Only then do the sockets go to timely.
//!
//! The conversation: the connecting end sends [`Greeting`]; the accepting end answers with its verdict, the history
//! and a proof over the greeting; the connecting end sends its own proof over that answer; a last byte says welcome.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, ToSocketAddrs};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use socket2::{SockRef, TcpKeepalive};

use crate::config::Config;
use crate::process::Process;

const MAGIC: &[u8; 8] = b"DFmesh\x00\x01";
const GREETING: usize = 8 + 8 + 4 * 4 + 16;
const ANSWER: usize = 8 + 1 + 8 + 16 + 32;
const WELCOME: u8 = 0x2a;

/// How long the other end has for the whole conversation.
const PATIENCE: Duration = Duration::from_secs(2);
/// Between two attempts to reach a process, and between two looks at the listener.
const RETRY: Duration = Duration::from_millis(100);
/// How often the log says who is missing.
const REMINDER: Duration = Duration::from_secs(5);
/// Unanswered for this long, a process counts as gone.
const SILENCE: Duration = Duration::from_secs(5);
/// Conversations with those who connected, at once.
const MAX_GUESTS: usize = 16;

/// All links of this process, by the other process's index, and the history that process 0 decided on.
pub(crate) struct Links {
    pub(crate) sockets: Vec<Option<TcpStream>>,
    pub(crate) history: u64,
}

/// What a connecting process says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Greeting {
    generation: u64,
    from: u32,
    to: u32,
    processes: u32,
    threads: u32,
    nonce: [u8; 16],
}

/// Why a link isn't made.
#[derive(Debug, thiserror::Error)]
enum Refusal {
    #[error("it does not speak the mesh protocol of this version")]
    Stranger,
    #[error("it does not know the cluster's secret")]
    Secret,
    #[error("it is of generation {theirs}, this process of {ours}")]
    Generation { ours: u64, theirs: u64 },
    #[error("it expects {0} here")]
    Shape(String),
    #[error("it refused this process (reason {0}); its log says why")]
    Refused(u8),
    #[error("it could not be talked to")]
    Io(#[from] io::Error),
}

impl Refusal {
    fn code(&self) -> u8 {
        match self {
            Refusal::Stranger => 1,
            Refusal::Secret => 2,
            Refusal::Generation { .. } => 3,
            Refusal::Shape(_) => 4,
            Refusal::Refused(_) | Refusal::Io(_) => 5,
        }
    }
}

impl Greeting {
    fn encode(&self) -> [u8; GREETING] {
        let mut out = [0; GREETING];
        out[..8].copy_from_slice(MAGIC);
        out[8..16].copy_from_slice(&self.generation.to_be_bytes());
        for (index, word) in [self.from, self.to, self.processes, self.threads].into_iter().enumerate() {
            out[16 + 4 * index..20 + 4 * index].copy_from_slice(&word.to_be_bytes());
        }
        out[32..].copy_from_slice(&self.nonce);
        out
    }

    fn decode(bytes: &[u8; GREETING]) -> Result<Self, Refusal> {
        if &bytes[..8] != MAGIC {
            return Err(Refusal::Stranger);
        }
        let word = |at: usize| u32::from_be_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
        let mut generation = [0; 8];
        generation.copy_from_slice(&bytes[8..16]);
        let mut nonce = [0; 16];
        nonce.copy_from_slice(&bytes[32..]);
        Ok(Greeting {
            generation: u64::from_be_bytes(generation),
            from: word(16),
            to: word(20),
            processes: word(24),
            threads: word(28),
            nonce,
        })
    }

    /// Whether this process, so configured, is the one that the greeting means, and may be linked with.
    fn check(&self, config: &Config) -> Result<(), Refusal> {
        if self.generation != config.generation {
            return Err(Refusal::Generation { ours: config.generation, theirs: self.generation });
        }
        let same = self.to as usize == config.process
            && self.processes as usize == config.processes
            && self.threads as usize == config.threads;
        if !same || self.from <= self.to || self.from >= self.processes {
            let theirs = format!(
                "process {} of {} with {} threads each, and calls itself {}",
                self.to, self.processes, self.threads, self.from
            );
            return Err(Refusal::Shape(theirs));
        }
        Ok(())
    }
}

fn random<const N: usize>() -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).map_err(io::Error::other)?;
    Ok(bytes)
}

/// A number that no other start of a cluster has.
pub(crate) fn new_history() -> io::Result<u64> {
    Ok(u64::from_be_bytes(random()?))
}

fn proof(secret: &str, role: &str, parts: &[&[u8]]) -> Result<Hmac<Sha256>, Refusal> {
    let mut mac = Hmac::<Sha256>::new_from_slice(secret.as_bytes()).map_err(|_| Refusal::Secret)?;
    mac.update(role.as_bytes());
    parts.iter().for_each(|part| mac.update(part));
    Ok(mac)
}

fn secret(config: &Config) -> &str {
    config.secret.as_deref().unwrap_or("")
}

/// The connecting end's part. Returns the history, which counts if the other end is process 0.
fn introduce(socket: &mut TcpStream, config: &Config, to: usize) -> Result<u64, Refusal> {
    let greeting = Greeting {
        generation: config.generation,
        from: config.process as u32,
        to: to as u32,
        processes: config.processes as u32,
        threads: config.threads as u32,
        nonce: random()?,
    }
    .encode();
    socket.write_all(&greeting)?;
    let mut answer = [0; ANSWER];
    socket.read_exact(&mut answer)?;
    let (said, theirs) = answer.split_at(ANSWER - 32);
    if &said[..8] != MAGIC {
        return Err(Refusal::Stranger);
    }
    if said[8] != 0 {
        return Err(Refusal::Refused(said[8]));
    }
    proof(secret(config), "accept", &[&greeting, said])?.verify_slice(theirs).map_err(|_| Refusal::Secret)?;
    let own = proof(secret(config), "connect", &[&greeting, said])?.finalize().into_bytes();
    socket.write_all(&own)?;
    let mut welcome = [0];
    socket.read_exact(&mut welcome)?;
    if welcome[0] != WELCOME {
        return Err(Refusal::Stranger);
    }
    let mut history = [0; 8];
    history.copy_from_slice(&said[9..17]);
    Ok(u64::from_be_bytes(history))
}

/// The accepting end's part. Returns the other process's index.
fn receive(socket: &mut TcpStream, config: &Config, history: u64) -> Result<usize, Refusal> {
    let mut greeting = [0; GREETING];
    socket.read_exact(&mut greeting)?;
    let from = Greeting::decode(&greeting)?;
    let mut answer = [0; ANSWER];
    answer[..8].copy_from_slice(MAGIC);
    if let Err(refusal) = from.check(config) {
        answer[8] = refusal.code();
        socket.write_all(&answer)?;
        return Err(refusal);
    }
    answer[9..17].copy_from_slice(&history.to_be_bytes());
    answer[17..33].copy_from_slice(&random::<16>()?);
    let (said, own) = answer.split_at_mut(ANSWER - 32);
    own.copy_from_slice(&proof(secret(config), "accept", &[&greeting, said])?.finalize().into_bytes());
    socket.write_all(&answer)?;
    let mut theirs = [0; 32];
    socket.read_exact(&mut theirs)?;
    let said = &answer[..ANSWER - 32];
    proof(secret(config), "connect", &[&greeting, said])?
        .verify_slice(&theirs)
        .map_err(|_| Refusal::Secret)?;
    socket.write_all(&[WELCOME])?;
    Ok(from.from as usize)
}

/// Timeouts for the conversation only; what the mesh needs for good is set as well.
fn prepare(socket: &TcpStream) -> io::Result<()> {
    socket.set_nonblocking(false)?;
    socket.set_nodelay(true)?;
    socket.set_read_timeout(Some(PATIENCE))?;
    socket.set_write_timeout(Some(PATIENCE))?;
    let second = Duration::from_secs(1);
    let beat = TcpKeepalive::new().with_time(second).with_interval(second).with_retries(4);
    let socket = SockRef::from(socket);
    socket.set_tcp_keepalive(&beat)?;
    socket.set_tcp_user_timeout(Some(SILENCE))
}

fn release(socket: &TcpStream) -> io::Result<()> {
    socket.set_read_timeout(None)?;
    socket.set_write_timeout(None)
}

fn resolve(address: &str) -> io::Result<SocketAddr> {
    let missing = || io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    address.to_socket_addrs()?.next().ok_or_else(missing)
}

fn reach(config: &Config, to: usize) -> Result<(TcpStream, u64), Refusal> {
    let mut socket = TcpStream::connect_timeout(&resolve(&config.mesh[to])?, PATIENCE)?;
    prepare(&socket)?;
    let history = introduce(&mut socket, config, to)?;
    release(&socket)?;
    Ok((socket, history))
}

/// Makes all links of this process; `None` if it was told to stop meanwhile.
///
/// # Errors
///
/// The listener fails. What others do wrong is logged, and waited for.
pub(crate) fn connect(listener: &TcpListener, process: &Process) -> io::Result<Option<Links>> {
    let config = &process.config;
    let mut history = if config.process == 0 { new_history()? } else { 0 };
    let mut sockets: Vec<Option<TcpStream>> = (0..config.processes).map(|_| None).collect();
    let guests = Guests::new(config.clone(), history);
    listener.set_nonblocking(true)?;
    let (mut reminded, mut complaints) = (Instant::now(), vec![String::new(); config.processes]);
    loop {
        for to in (0..config.process).filter(|to| sockets[*to].is_none()).collect::<Vec<_>>() {
            match reach(config, to) {
                Ok((socket, theirs)) => {
                    sockets[to] = Some(socket);
                    history = if to == 0 { theirs } else { history };
                }
                Err(refusal) => complaints[to] = chain(&refusal),
            }
        }
        guests.admit(listener)?;
        while let Ok((from, socket)) = guests.arrived.try_recv() {
            sockets[from] = Some(socket);
        }
        let missing = (0..config.processes).filter(|i| *i != config.process && sockets[*i].is_none());
        let missing: Vec<String> = missing.map(|i| describe(i, config, &complaints[i])).collect();
        if missing.is_empty() {
            return Ok(Some(Links { sockets, history }));
        }
        if process.shutdown_requested() || process.abandoned() {
            return Ok(None);
        }
        if reminded.elapsed() >= REMINDER {
            reminded = Instant::now();
            tracing::warn!(missing = %missing.join("; "), "waiting for the cluster to form");
        }
        std::thread::park_timeout(RETRY);
    }
}

fn describe(index: usize, config: &Config, complaint: &str) -> String {
    let why = if complaint.is_empty() { String::new() } else { format!(": {complaint}") };
    format!("process {index} at {}{why}", config.mesh[index])
}

fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}

/// Conversations with those who connect here, each in a thread of its own that ends by its deadline.
struct Guests {
    config: Config,
    history: u64,
    talking: Arc<AtomicUsize>,
    report: mpsc::Sender<(usize, TcpStream)>,
    arrived: mpsc::Receiver<(usize, TcpStream)>,
}

impl Guests {
    fn new(config: Config, history: u64) -> Self {
        let (report, arrived) = mpsc::channel();
        Guests { config, history, talking: Arc::default(), report, arrived }
    }

    fn admit(&self, listener: &TcpListener) -> io::Result<()> {
        while self.talking.load(Ordering::SeqCst) < MAX_GUESTS {
            let (mut socket, peer) = match listener.accept() {
                Ok(accepted) => accepted,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => continue,
                Err(error) => return Err(error),
            };
            self.talking.fetch_add(1, Ordering::SeqCst);
            let (config, history) = (self.config.clone(), self.history);
            let (report, talking) = (self.report.clone(), Arc::clone(&self.talking));
            std::thread::Builder::new().name("dataflow:mesh-guest".into()).spawn(move || {
                let met = prepare(&socket)
                    .map_err(Refusal::from)
                    .and_then(|()| receive(&mut socket, &config, history))
                    .and_then(|from| Ok(release(&socket).map(|()| from)?));
                match met {
                    Ok(from) => drop(report.send((from, socket))),
                    Err(refusal) => {
                        tracing::warn!(%peer, why = %chain(&refusal), "refused a mesh connection")
                    }
                }
                talking.fetch_sub(1, Ordering::SeqCst);
            })?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(process: usize) -> Config {
        Config { processes: 3, process, threads: 2, secret: Some("s".into()), ..Config::default() }
    }

    /// Lets process 2, as `guest` has it, talk to process 1, as `host` has it.
    fn meet(host: Config, guest: Config) -> (Result<usize, Refusal>, Result<u64, Refusal>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let talk = std::thread::spawn(move || {
            let mut socket = TcpStream::connect(address).unwrap();
            introduce(&mut socket, &guest, 1)
        });
        let (mut socket, _) = listener.accept().unwrap();
        prepare(&socket).unwrap();
        let received = receive(&mut socket, &host, 77);
        drop(socket);
        (received, talk.join().unwrap())
    }

    #[test]
    fn processes_of_one_cluster_are_linked() {
        let (host, guest) = meet(config(1), config(2));
        assert_eq!((host.unwrap(), guest.unwrap()), (2, 77));
    }

    #[test]
    fn another_secret_generation_or_shape_is_refused() {
        let (host, guest) = meet(config(1), Config { secret: None, ..config(2) });
        assert!(matches!(guest, Err(Refusal::Secret)) && host.is_err());
        let (host, guest) = meet(config(1), Config { generation: 4, ..config(2) });
        assert!(matches!(host, Err(Refusal::Generation { ours: 0, theirs: 4 })));
        assert!(matches!(guest, Err(Refusal::Refused(3))));
        let (host, guest) = meet(config(1), Config { threads: 3, ..config(2) });
        assert!(matches!((host, guest), (Err(Refusal::Shape(_)), Err(Refusal::Refused(4)))));
        let (host, _) = meet(config(1), config(0));
        assert!(matches!(host, Err(Refusal::Shape(_))), "only greater indices connect");
    }

    #[test]
    fn a_stranger_is_told_nothing() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut stranger = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        stranger.write_all(&[0xff; 64]).unwrap();
        let (mut socket, _) = listener.accept().unwrap();
        prepare(&socket).unwrap();
        assert!(matches!(receive(&mut socket, &config(1), 77), Err(Refusal::Stranger)));
        drop(socket);
        let mut heard = Vec::new();
        let _ = stranger.read_to_end(&mut heard);
        assert!(heard.is_empty());
    }
}
