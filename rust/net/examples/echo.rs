//! A server that only echoes WebSocket messages on `/echo`, through the real accept, parse and write code, for
//! conformance suites: `cargo run -p dataflow-net --example echo -- 127.0.0.1:9001`.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use dataflow_net::connection::Connection;
use dataflow_net::error::Close;
use dataflow_net::http::{HttpResponse, OpenDoor};
use dataflow_net::limits::Limits;
use dataflow_net::poller::Poller;

/// Bytes read of a connection in a turn.
const BUDGET: usize = 256 << 10;

fn main() -> std::io::Result<()> {
    let address = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:9001".to_owned());
    let limits = Limits { enable_echo: true, ..Limits::default() };
    let listener = std::net::TcpListener::bind(address)?;
    let (_poller, mailboxes) =
        Poller::start(listener, 1, 0, Arc::new(limits), Arc::new(OpenDoor), Arc::default())?;
    let mailbox = &mailboxes[0];
    mailbox.attach();
    let (mut opened, mut ready, mut connections) = (Vec::new(), Vec::new(), HashMap::new());
    loop {
        let now = Instant::now();
        mailbox.take_opened(&mut opened);
        mailbox.take_ready(&mut ready);
        connections.extend(opened.drain(..).map(|connection| (connection.id(), connection)));
        for (id, readiness) in ready.drain(..) {
            if let Some(connection) = connections.get_mut(&id) {
                connection.ready(readiness);
            }
        }
        let mut busy = false;
        for connection in connections.values_mut() {
            busy |= turn(connection, now);
        }
        connections.retain(|_, connection| !connection.is_finished());
        if !busy {
            std::thread::park_timeout(Duration::from_millis(500));
        }
    }
}

/// Serves a connection; whether it could go on at once.
fn turn(connection: &mut Connection, now: Instant) -> bool {
    if let Some(violation) = connection.expire(now) {
        connection.close(violation.close(), now);
    }
    while let Some(incoming) = connection.next(now) {
        match incoming {
            // The echo itself is the connection's own doing; a plain request, or a message of the protocol, gets 404.
            Ok(_) => connection.respond(HttpResponse::text(404, "this server only echoes on /echo\n")),
            Err(violation) => connection.close(violation.close(), now),
        }
    }
    if connection.wants_read() {
        connection.read(BUDGET, now);
        return true;
    }
    if connection.input_ended() && connection.outbox_bytes() == 0 {
        connection.close(Close::Normal, now);
    }
    connection.flush(now);
    false
}
