//! A bare broadcast on mio: no protocol, no order, no slow readers; one thread, one write a subscriber and turn.

use std::io::{ErrorKind, Read, Write};

use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Token};

const LISTENER: Token = Token(usize::MAX);

struct Peer {
    stream: TcpStream,
    /// What its socket hasn't taken.
    out: Vec<u8>,
}

/// Sends what comes from any connection to all others, until it is killed. Prints its port first.
pub(crate) fn serve() {
    let mut listener = TcpListener::bind("127.0.0.1:0".parse().unwrap()).unwrap();
    println!("{}", listener.local_addr().unwrap().port());
    let mut poll = Poll::new().unwrap();
    poll.registry().register(&mut listener, LISTENER, Interest::READABLE).unwrap();
    let mut events = Events::with_capacity(4096);
    let mut peers: Vec<Option<Peer>> = Vec::new();
    let mut chunk = vec![0; 256 << 10];
    loop {
        poll.poll(&mut events, None).unwrap();
        let mut turn = Vec::new();
        for event in &events {
            match event.token() {
                LISTENER => accept(&listener, &poll, &mut peers),
                Token(index) => {
                    if event.is_readable() && !read(&mut peers[index], &mut chunk, &mut turn) {
                        peers[index] = None;
                    }
                    if event.is_writable()
                        && let Some(peer) = &mut peers[index]
                    {
                        write(peer);
                    }
                }
            }
        }
        if !turn.is_empty() {
            for peer in peers.iter_mut().skip(1).flatten() {
                peer.out.extend_from_slice(&turn);
                write(peer);
            }
        }
    }
}

fn accept(listener: &TcpListener, poll: &Poll, peers: &mut Vec<Option<Peer>>) {
    while let Ok((mut stream, _)) = listener.accept() {
        stream.set_nodelay(true).unwrap();
        let interest = Interest::READABLE | Interest::WRITABLE;
        poll.registry().register(&mut stream, Token(peers.len()), interest).unwrap();
        peers.push(Some(Peer { stream, out: Vec::new() }));
    }
}

/// Adds what came to `into`; `false` if the peer is gone. The first connection is the publisher.
fn read(peer: &mut Option<Peer>, chunk: &mut [u8], into: &mut Vec<u8>) -> bool {
    let Some(peer) = peer else { return true };
    loop {
        match peer.stream.read(chunk) {
            Ok(0) => return false,
            Ok(count) => into.extend_from_slice(&chunk[..count]),
            Err(error) => return error.kind() == ErrorKind::WouldBlock,
        }
    }
}

fn write(peer: &mut Peer) {
    while !peer.out.is_empty() {
        match peer.stream.write(&peer.out) {
            Ok(count) => drop(peer.out.drain(..count)),
            Err(_) => return,
        }
    }
}
