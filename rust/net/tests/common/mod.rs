//! A poller, workers that answer every message with itself, and what they saw.

#![allow(dead_code)]

use std::collections::HashMap;
use std::io::Read;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, OnceLock};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use dataflow_net::connection::{Connection, Incoming, Kind};
use dataflow_net::error::Close;
use dataflow_net::http::{Doorkeeper, HttpResponse, OpenDoor};
use dataflow_net::limits::Limits;
use dataflow_net::poller::{Mailbox, Poller, WorkerWaker};
use dataflow_net::tls::Identity;

/// Longer than anything here takes; reached only by a test that fails.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// What a worker saw.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Seen {
    Opened(usize, Kind),
    Message(Vec<u8>),
    Broken,
    Gone,
}

/// A poller, workers that answer every message with itself, and what they saw.
pub(crate) struct Server {
    pub(crate) poller: Option<Poller>,
    workers: Vec<JoinHandle<()>>,
    wakers: Vec<WorkerWaker>,
    pub(crate) seen: Receiver<Seen>,
    stop: Arc<OnceLock<()>>,
}

impl Server {
    pub(crate) fn start(workers: usize, limits: Limits, doorkeeper: Arc<dyn Doorkeeper>) -> Self {
        Server::with_identity(workers, limits, doorkeeper, Arc::default())
    }

    pub(crate) fn with_identity(
        workers: usize,
        limits: Limits,
        doorkeeper: Arc<dyn Doorkeeper>,
        identity: Arc<Identity>,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let (poller, mailboxes) =
            Poller::start(listener, workers, 0, Arc::new(limits), doorkeeper, identity).unwrap();
        let (report, seen) = channel();
        let stop = Arc::new(OnceLock::new());
        let run = |(index, mailbox)| {
            let (report, stop) = (report.clone(), Arc::clone(&stop));
            std::thread::spawn(move || Worker::new(index, mailbox, report).run(&stop))
        };
        let threads = mailboxes.into_iter().enumerate().map(run).collect();
        let wakers = (0..workers).map(|worker| poller.waker(worker)).collect();
        Server { poller: Some(poller), workers: threads, wakers, seen, stop }
    }

    pub(crate) fn plain(workers: usize) -> Self {
        Server::start(workers, Limits::default(), Arc::new(OpenDoor))
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.poller.as_ref().unwrap().local_addr()
    }

    pub(crate) fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.address()).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream
    }

    pub(crate) fn see(&self) -> Seen {
        self.seen.recv_timeout(PATIENCE).unwrap()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.set(()).unwrap();
        self.wakers.iter().for_each(WorkerWaker::wake);
        self.workers.drain(..).for_each(|worker| worker.join().unwrap());
        drop(self.poller.take());
    }
}

/// The worker's turn as the documentation of `connection` has it.
struct Worker {
    index: usize,
    mailbox: Mailbox,
    report: Sender<Seen>,
    connections: HashMap<u64, Connection>,
}

impl Worker {
    fn new(index: usize, mailbox: Mailbox, report: Sender<Seen>) -> Self {
        Worker { index, mailbox, report, connections: HashMap::new() }
    }

    fn run(mut self, stop: &OnceLock<()>) {
        self.mailbox.attach();
        let (mut opened, mut ready) = (Vec::new(), Vec::new());
        while stop.get().is_none() {
            let now = Instant::now();
            self.mailbox.take_opened(&mut opened);
            self.mailbox.take_ready(&mut ready);
            for connection in opened.drain(..) {
                let _ = self.report.send(Seen::Opened(self.index, connection.kind().unwrap()));
                self.connections.insert(connection.id().0, connection);
            }
            for (id, readiness) in ready.drain(..) {
                if let Some(connection) = self.connections.get_mut(&id.0) {
                    connection.ready(readiness);
                }
            }
            let report = self.report.clone();
            let busy = self.connections.values_mut().map(|connection| turn(connection, now, &report)).max();
            // Told once their places are free.
            let gone = self.connections.extract_if(|_, connection| connection.is_finished()).count();
            (0..gone).for_each(|_| drop(report.send(Seen::Gone)));
            let next = self.connections.values().filter_map(Connection::deadline).min();
            match next {
                _ if busy == Some(true) => {}
                Some(deadline) => {
                    std::thread::park_timeout(deadline.saturating_duration_since(Instant::now()))
                }
                None => std::thread::park(),
            }
        }
    }
}

fn turn(connection: &mut Connection, now: Instant, report: &Sender<Seen>) -> bool {
    if let Some(violation) = connection.expire(now) {
        let _ = report.send(Seen::Broken);
        connection.close(violation.close(), now);
    }
    while let Some(incoming) = connection.next(now) {
        match incoming {
            Ok(Incoming::Message(message)) => {
                let _ = report.send(Seen::Message(message.bytes.to_vec()));
                connection.queue(message.encoding, b"", message.bytes);
            }
            Ok(Incoming::Http(request)) => connection.respond(HttpResponse::text(200, request.path)),
            Err(violation) => {
                let _ = report.send(Seen::Broken);
                connection.close(violation.close(), now);
            }
        }
    }
    connection.flush(now);
    if connection.wants_read() {
        connection.read(10_000, now);
        return true;
    }
    if connection.input_ended() && connection.outbox_bytes() == 0 {
        connection.close(Close::Normal, now);
        connection.flush(now);
    }
    false
}

pub(crate) fn line(stream: &mut impl Read) -> String {
    let (mut line, mut byte) = (Vec::new(), [0]);
    while stream.read(&mut byte).unwrap() == 1 && byte[0] != b'\n' {
        line.push(byte[0]);
    }
    String::from_utf8(line).unwrap()
}

pub(crate) fn rest(stream: &mut impl Read) -> Vec<u8> {
    let mut rest = Vec::new();
    stream.read_to_end(&mut rest).unwrap();
    rest
}
