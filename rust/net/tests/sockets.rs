//! Real sockets through the poller's thread: dealing, waking, half-closing, deadlines, limits.
//!
//! Nothing here sleeps: a test's worker parks until the poller wakes it, and clients block on their sockets.

mod common;

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use common::{PATIENCE, Seen, Server, line, rest};
use dataflow_net::connection::{Connection, Kind};
use dataflow_net::error::{Close, Violation};
use dataflow_net::http::{Doorkeeper, HttpRequest, HttpResponse, OpenDoor, Peer};
use dataflow_net::limits::Limits;
use dataflow_net::poller::{Mailbox, Poller};

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
fn io_threads_get_connections_by_number_and_workers_own_them_in_turn() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let (poller, mailboxes) =
        Poller::start(listener, 2, 3, Arc::new(Limits::default()), Arc::new(OpenDoor), Arc::default())
            .unwrap();
    assert_eq!(mailboxes.len(), 5);
    mailboxes.iter().for_each(Mailbox::attach);
    let mut open = Vec::new();
    for number in 1..=6 {
        let mut client = TcpStream::connect(poller.local_addr()).unwrap();
        client.write_all(b"{}\n").unwrap();
        let mut opened = Vec::new();
        let slot = loop {
            let taken = mailboxes.iter().position(|mailbox| {
                mailbox.take_opened(&mut opened);
                !opened.is_empty()
            });
            match taken {
                Some(slot) => break slot,
                None => std::thread::park(),
            }
        };
        assert_eq!(opened[0].id().0, number);
        assert_eq!((slot, opened[0].owner()), (2 + number as usize % 3, (number as usize - 1) % 2));
        open.push((client, opened));
    }
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
fn one_address_may_have_so_many_connections_and_others_more() {
    let limits = Limits { max_connections_per_address: 2, limit_loopback: true, ..Limits::default() };
    let server = Server::start(1, limits, Arc::new(OpenDoor));
    let mut open: Vec<TcpStream> = (0..2).map(|_| server.connect()).collect();
    for stream in &mut open {
        stream.write_all(b"{}\n").unwrap();
        assert_eq!(line(stream), "{}");
    }
    let mut refused = server.connect();
    refused.write_all(b"{}\n").unwrap();
    assert!(line(&mut refused).contains("too many connections from this address"));
    let other = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    other.bind(&std::net::SocketAddr::from(([127, 0, 0, 2], 0)).into()).unwrap();
    other.connect(&server.address().into()).unwrap();
    let mut other = TcpStream::from(other);
    other.write_all(b"{}\n").unwrap();
    assert_eq!(line(&mut other), "{}");
}

#[test]
fn a_doorkeeper_may_refuse_an_upgrade() {
    struct Closed;
    impl Doorkeeper for Closed {
        fn admit(&self, request: &HttpRequest, _: &Peer<'_>) -> Result<(), HttpResponse> {
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
    let (poller, mailbox, client, mut connection) = opened(limits, b"{}\n");
    assert!(matches!(connection.next(Instant::now()), Some(Ok(_))));
    (poller, mailbox, client, connection)
}

/// A connection in this thread's hands that was begun with `first`.
fn opened(limits: Limits, first: &[u8]) -> (Poller, Mailbox, TcpStream, Connection) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let (poller, mut mailboxes) =
        Poller::start(listener, 1, 0, Arc::new(limits), Arc::new(OpenDoor), Arc::default()).unwrap();
    let mailbox = mailboxes.swap_remove(0);
    mailbox.attach();
    let mut client = TcpStream::connect(poller.local_addr()).unwrap();
    client.write_all(first).unwrap();
    let mut opened = Vec::new();
    while opened.is_empty() {
        std::thread::park();
        mailbox.take_opened(&mut opened);
    }
    (poller, mailbox, client, opened.swap_remove(0))
}

#[test]
fn a_silent_websocket_is_pinged_and_given_up_within_one_interval() {
    let upgrade = b"GET / HTTP/1.1\r\nHost: h\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
        Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
    let limits = Limits::default();
    let half = limits.idle_ping / 2;
    let (_poller, mailbox, mut client, mut connection) = opened(limits, upgrade);
    let mut now = Instant::now();
    assert!(connection.next(now).is_none());
    connection.flush(now);
    let mut answer = Vec::new();
    while !answer.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        client.read_exact(&mut byte).unwrap();
        answer.extend(byte);
    }
    assert!(connection.deadline().unwrap() <= now + half);
    let ping = |connection: &mut Connection, client: &mut TcpStream, now| {
        assert_eq!(connection.expire(now), None);
        connection.flush(now);
        let mut frame = [0; 2];
        client.read_exact(&mut frame).unwrap();
        assert_eq!(frame, [0x89, 0]);
    };
    now += half;
    ping(&mut connection, &mut client, now);
    // The answer buys another interval, also where nobody looks until it is nearly over.
    client.write_all(b"\x8a\x80\0\0\0\0").unwrap();
    receive(&mailbox, &mut connection, now);
    assert!(connection.next(now).is_none());
    now += half;
    ping(&mut connection, &mut client, now);
    // While it isn't read it can't show that it is there; afterwards it is asked anew.
    connection.pause(true);
    assert_eq!(connection.deadline(), None);
    now += 10 * half;
    connection.pause(false);
    ping(&mut connection, &mut client, now);
    now += half;
    assert_eq!(connection.expire(now), Some(Violation::Silent));
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
