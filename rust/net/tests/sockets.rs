//! Real sockets through the poller's thread: dealing, waking, half-closing, deadlines, limits.
//!
//! Nothing here sleeps: a test's worker parks until the poller wakes it, and clients block on their sockets.

use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, OnceLock};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use bytes::Bytes;
use dataflow_net::connection::{Connection, Incoming, Kind};
use dataflow_net::error::Close;
use dataflow_net::http::{Doorkeeper, HttpRequest, HttpResponse, OpenDoor};
use dataflow_net::limits::Limits;
use dataflow_net::poller::{Mailbox, Poller, WorkerWaker};

/// Longer than anything here takes; reached only by a test that fails.
const PATIENCE: Duration = Duration::from_secs(30);

/// What a worker saw.
#[derive(Debug, PartialEq, Eq)]
enum Seen {
    Opened(usize, Kind),
    Message(Vec<u8>),
    Broken,
    Gone,
}

/// A poller, workers that answer every message with itself, and what they saw.
struct Server {
    poller: Option<Poller>,
    workers: Vec<JoinHandle<()>>,
    wakers: Vec<WorkerWaker>,
    seen: Receiver<Seen>,
    stop: Arc<OnceLock<()>>,
}

impl Server {
    fn start(workers: usize, limits: Limits, doorkeeper: Arc<dyn Doorkeeper>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let (poller, mailboxes) = Poller::start(listener, workers, Arc::new(limits), doorkeeper).unwrap();
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

    fn plain(workers: usize) -> Self {
        Server::start(workers, Limits::default(), Arc::new(OpenDoor))
    }

    fn address(&self) -> SocketAddr {
        self.poller.as_ref().unwrap().local_addr()
    }

    fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.address()).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream
    }

    fn see(&self) -> Seen {
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
            self.connections.retain(|_, connection| {
                if connection.is_finished() {
                    let _ = report.send(Seen::Gone);
                }
                !connection.is_finished()
            });
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

fn line(stream: &mut TcpStream) -> String {
    let (mut line, mut byte) = (Vec::new(), [0]);
    while stream.read(&mut byte).unwrap() == 1 && byte[0] != b'\n' {
        line.push(byte[0]);
    }
    String::from_utf8(line).unwrap()
}

fn rest(stream: &mut TcpStream) -> Vec<u8> {
    let mut rest = Vec::new();
    stream.read_to_end(&mut rest).unwrap();
    rest
}

#[test]
fn connections_are_dealt_in_turn_and_plain_http_does_not_count() {
    let server = Server::plain(2);
    let mut owners = Vec::new();
    let mut open = Vec::new();
    for _ in 0..4 {
        let mut stream = server.connect();
        stream.write_all(b"{}\n").unwrap();
        let Seen::Opened(owner, Kind::Lines) = server.see() else { panic!() };
        assert_eq!((server.see(), line(&mut stream).as_str()), (Seen::Message(b"{}".to_vec()), "{}"));
        owners.push(owner);
        open.push(stream);
        let mut http = server.connect();
        http.write_all(b"GET /x HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n").unwrap();
        assert!(rest(&mut http).ends_with(b"\r\n\r\n/x"));
        drop(http);
        assert!(matches!(server.see(), Seen::Opened(_, Kind::Http)));
        assert_eq!(server.see(), Seen::Gone);
    }
    assert_eq!(owners, [0, 1, 0, 1]);
}

#[test]
fn messages_cross_in_pieces_of_any_size() {
    let server = Server::plain(1);
    let mut stream = server.connect();
    let messages: Vec<Vec<u8>> =
        (0..200u32).map(|size| vec![size as u8; (size * size) as usize * 5]).collect();
    let mut writer = stream.try_clone().unwrap();
    let sent = messages.clone();
    let sender = std::thread::spawn(move || {
        writer.write_all(b"\xdfFL\x01").unwrap();
        for message in sent {
            writer.write_all(&(message.len() as u32).to_be_bytes()).unwrap();
            writer.write_all(&message).unwrap();
        }
    });
    for message in messages {
        let mut length = [0; 4];
        stream.read_exact(&mut length).unwrap();
        let mut bytes = vec![0; u32::from_be_bytes(length) as usize];
        stream.read_exact(&mut bytes).unwrap();
        assert!(bytes == message);
    }
    sender.join().unwrap();
}

#[test]
fn a_client_that_shuts_down_its_sending_side_still_gets_its_replies() {
    let server = Server::plain(1);
    let mut stream = server.connect();
    stream.write_all(&b"{\"a\":1}\n".repeat(10_000)).unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    assert!(rest(&mut stream) == b"{\"a\":1}\n".repeat(10_000));
}

#[test]
fn an_error_reaches_a_client_that_is_still_sending() {
    let server =
        Server::start(1, Limits { max_message_bytes: 1000, ..Limits::default() }, Arc::new(OpenDoor));
    let mut stream = server.connect();
    stream.write_all(b"\xdfFL\x01\x7f\xff\xff\xff").unwrap();
    // More than the socket's buffers hold would block; this much is on its way when the server refuses.
    stream.write_all(&[0; 100_000]).unwrap();
    let told = rest(&mut stream);
    assert!(told.windows(9).any(|window| window == b"too-large"), "{told:?}");
    drop(stream);
    assert_eq!(
        [server.see(), server.see(), server.see()],
        [Seen::Opened(0, Kind::Binary), Seen::Broken, Seen::Gone]
    );
}

#[test]
fn unknown_first_bytes_get_one_line_and_no_worker() {
    let server = Server::plain(1);
    for first in [&b"hello\n"[..], b"\x16\x03\x01\x00"] {
        let mut stream = server.connect();
        stream.write_all(first).unwrap();
        assert!(line(&mut stream).contains("\"code\":\"incorrect\""));
        assert!(rest(&mut stream).is_empty());
    }
    assert!(server.seen.try_recv().is_err());
}

#[test]
fn silent_and_trickling_clients_are_closed_in_time() {
    let brief = Duration::from_millis(50);
    let limits =
        Limits { handshake: brief, partial_message: brief, close_linger: brief, ..Limits::default() };
    let server = Server::start(1, limits, Arc::new(OpenDoor));
    let mut silent = server.connect();
    assert!(line(&mut silent).contains("did not say what it is in time"));
    let mut halfway = server.connect();
    halfway.write_all(b"GET / HTTP/1.1\r\nHo").unwrap();
    assert!(rest(&mut halfway).starts_with(b"HTTP/1.1 408 "));
    let mut trickling = server.connect();
    trickling.write_all(b"{\"op\":\"pi").unwrap();
    assert!(line(&mut trickling).contains("not completed in time"));
    assert!(rest(&mut trickling).is_empty());
    assert_eq!([server.see(), server.see()], [Seen::Opened(0, Kind::Lines), Seen::Broken]);
    // One that is between messages may stay so.
    let mut idle = server.connect();
    idle.write_all(b"{}\n").unwrap();
    assert_eq!(line(&mut idle), "{}");
    idle.set_read_timeout(Some(brief * 4)).unwrap();
    assert!(idle.read(&mut [0]).is_err(), "nothing comes, not even an end");
}

#[test]
fn a_connection_too_many_is_told_and_others_go_on() {
    let limits = Limits { max_connections: 2, ..Limits::default() };
    let server = Server::start(1, limits, Arc::new(OpenDoor));
    let mut open: Vec<TcpStream> = (0..2).map(|_| server.connect()).collect();
    for stream in &mut open {
        stream.write_all(b"{}\n").unwrap();
        assert_eq!(line(stream), "{}");
    }
    let mut refused = server.connect();
    refused.write_all(b"{}\n").unwrap();
    assert!(line(&mut refused).contains("\"code\":\"busy\""));
    let mut refused = server.connect();
    refused.write_all(b"\xdfFL\x01").unwrap();
    assert!(rest(&mut refused).windows(4).any(|window| window == b"busy"));
    open[0].write_all(b"{}\n").unwrap();
    assert_eq!(line(&mut open[0]), "{}");
    // A place that is left is a place for the next.
    drop(open.remove(1));
    while server.see() != Seen::Gone {}
    let mut next = server.connect();
    next.write_all(b"{}\n").unwrap();
    assert_eq!(line(&mut next), "{}");
}

#[test]
fn a_doorkeeper_may_refuse_an_upgrade() {
    struct Closed;
    impl Doorkeeper for Closed {
        fn admit(&self, request: &HttpRequest, _: SocketAddr) -> Result<(), HttpResponse> {
            if request.token().as_deref() == Some("secret") {
                Ok(())
            } else {
                Err(HttpResponse::text(401, "no\n"))
            }
        }
    }
    let server = Server::start(1, Limits::default(), Arc::new(Closed));
    let upgrade = "GET / HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
        Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
    let mut stream = server.connect();
    stream.write_all(format!("{upgrade}\r\n").as_bytes()).unwrap();
    assert!(rest(&mut stream).starts_with(b"HTTP/1.1 401 "));
    let mut stream = server.connect();
    stream.write_all(format!("{upgrade}Authorization: bearer secret\r\n\r\n").as_bytes()).unwrap();
    assert_eq!(line(&mut stream), "HTTP/1.1 101 Switching Protocols\r");
    assert_eq!(server.see(), Seen::Opened(0, Kind::WebSocket));
}

/// A connection whose owner the test is itself, so that it says what time it is. The first message is taken already.
fn owned(limits: Limits) -> (Poller, Mailbox, TcpStream, Connection) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let (poller, mut mailboxes) = Poller::start(listener, 1, Arc::new(limits), Arc::new(OpenDoor)).unwrap();
    let mailbox = mailboxes.swap_remove(0);
    mailbox.attach();
    let mut client = TcpStream::connect(poller.local_addr()).unwrap();
    client.write_all(b"{}\n").unwrap();
    let mut opened = Vec::new();
    while opened.is_empty() {
        std::thread::park();
        mailbox.take_opened(&mut opened);
    }
    let mut connection = opened.swap_remove(0);
    assert!(matches!(connection.next(Instant::now()), Some(Ok(_))));
    (poller, mailbox, client, connection)
}

/// Waits for input and reads all that is there.
fn receive(mailbox: &Mailbox, connection: &mut Connection, now: Instant) -> usize {
    let (mut ready, mut count) = (Vec::new(), 0);
    while count == 0 {
        assert!(connection.next(now).is_none());
        while connection.wants_read() {
            count += connection.read(1 << 20, now);
            if connection.next(now).is_some() {
                return count;
            }
        }
        if count == 0 {
            std::thread::park();
            mailbox.take_ready(&mut ready);
            ready.drain(..).for_each(|(_, readiness)| connection.ready(readiness));
        }
    }
    count
}

#[test]
fn a_large_message_on_a_slow_line_is_no_trickle() {
    let limits = Limits { partial_progress_bytes: 1000, ..Limits::default() };
    let patience = limits.partial_message;
    let (_poller, mailbox, mut client, mut connection) = owned(limits);
    let start = Instant::now();
    assert_eq!(connection.deadline(), None);
    client.write_all(&[b'x'; 500]).unwrap();
    assert_eq!(receive(&mailbox, &mut connection, start), 500);
    assert_eq!(connection.deadline(), Some(start + patience));
    // Half of what must come by then: the deadline stays.
    let later = start + patience / 2;
    client.write_all(&[b'x'; 500]).unwrap();
    assert_eq!(receive(&mailbox, &mut connection, later), 500);
    assert_eq!(connection.deadline(), Some(start + patience));
    // Enough: it moves.
    client.write_all(&[b'x'; 500]).unwrap();
    assert_eq!(receive(&mailbox, &mut connection, later), 500);
    assert_eq!(connection.deadline(), Some(later + patience));
    // Nobody is late who isn't listened to.
    connection.pause(true);
    assert_eq!((connection.deadline(), connection.wants_read()), (None, false));
    connection.pause(false);
    assert_eq!(connection.next(later), None);
    assert_eq!(connection.expire(later + patience).unwrap().close(), Close::Policy);
}

#[test]
fn a_rest_that_waits_for_its_owner_is_not_late() {
    let (_poller, mailbox, mut client, mut connection) = owned(Limits::default());
    let start = Instant::now();
    client.write_all(b"{\"a\":").unwrap();
    receive(&mailbox, &mut connection, start);
    let deadline = connection.deadline().unwrap();
    client.write_all(b"1}\n").unwrap();
    let mut ready = Vec::new();
    while connection.read(100, start) == 0 {
        std::thread::park();
        mailbox.take_ready(&mut ready);
        ready.drain(..).for_each(|(_, readiness)| connection.ready(readiness));
    }
    assert_eq!((connection.expire(deadline), connection.deadline()), (None, None));
    assert!(matches!(connection.next(deadline), Some(Ok(_))));
}

#[test]
fn no_wake_up_is_lost_among_many_clients() {
    let server = Server::plain(3);
    let address = server.address();
    let client = move |number: usize| {
        let mut stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_nodelay(true).unwrap();
        for round in 0..100 {
            let message = format!("{{\"client\":{number},\"round\":{round}}}");
            stream.write_all(format!("{message}\n").as_bytes()).unwrap();
            assert_eq!(line(&mut stream), message);
        }
    };
    let clients: Vec<_> = (0..12).map(|number| std::thread::spawn(move || client(number))).collect();
    clients.into_iter().for_each(|client| client.join().unwrap());
}

#[test]
fn a_reader_that_takes_nothing_holds_back_its_own_requests_only() {
    let brief = Duration::from_millis(50);
    let limits = Limits { write_stall: brief, close_linger: brief, ..Limits::default() };
    let (poller, _mailbox, _client, mut connection) = owned(limits);
    let now = Instant::now();
    // More than the buffers of both sockets hold.
    let large = Bytes::from(vec![b'x'; 64 << 20]);
    connection.queue(dataflow_protocol::encoding::Encoding::Json, b"", large.clone());
    assert!(connection.flush(now));
    assert!(connection.next(now).is_none() && !connection.wants_read(), "a full outbox holds back reading");
    assert_eq!(connection.deadline(), None, "a slow reader is its owner's to judge");
    assert_eq!(connection.stalled_for(now + brief), brief);
    connection.limit_stall(now);
    assert_eq!(connection.deadline(), Some(now + brief));
    let violation = connection.expire(now + brief).unwrap();
    assert_eq!(violation.close().code(), 1013);
    connection.close(violation.close(), now + brief);
    assert_eq!(connection.deadline(), Some(now + brief * 2));
    assert_eq!(connection.expire(now + brief * 2), None);
    assert!(connection.is_finished());
    assert_eq!(poller.connections(), 1);
    drop(connection);
    assert_eq!(poller.connections(), 0);
}

#[test]
fn after_the_listener_is_closed_open_connections_stay() {
    let server = Server::plain(1);
    let mut stream = server.connect();
    stream.write_all(b"{}\n").unwrap();
    assert_eq!(line(&mut stream), "{}");
    let address = server.address();
    server.poller.as_ref().unwrap().stop_listening();
    while TcpStream::connect(address).is_ok() {
        std::thread::yield_now();
    }
    stream.write_all(b"{}\n").unwrap();
    assert_eq!(line(&mut stream), "{}");
}
