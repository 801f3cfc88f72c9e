//! The links between the processes of a cluster, made before timely gets them.
//!
//! timely trusts whoever connects, waits for everybody without saying for whom, and doesn't notice those who fall
//! silent. So processes find each other here, prove that they know the secret, watch each other, and agree on what
//! they form together; timely is given sockets between processes that have.
//!
//! * `entrance`: the port; `dialer`: reaching those with a smaller index; `handshake`: what is said before anything else.
//! * `control`: heartbeats and messages between two processes; `agreement`: what they come to.
//! * `link`: a data link as timely sees it.

pub(crate) mod agreement;
pub(crate) mod control;
pub(crate) mod dialer;
pub(crate) mod entrance;

pub(crate) mod handshake;
pub(crate) mod link;

use std::io;
use std::net::TcpStream;
use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};

use crate::config::Config;

/// How long a conversation may take before there is a link; strangers are gone then.
pub(crate) const PATIENCE: Duration = Duration::from_millis(1500);
/// Between two attempts to reach a process.
pub(crate) const RETRY: Duration = Duration::from_millis(100);

/// Sets what a link needs for good: what isn't answered for as long as a process may be silent breaks it.
fn prepare(socket: &TcpStream, config: &Config) -> io::Result<()> {
    socket.set_nonblocking(false)?;
    socket.set_nodelay(true)?;
    let second = Duration::from_secs(1);
    let retries = (config.suspect_millis / 1000).max(2) - 1;
    let beat = TcpKeepalive::new().with_time(second).with_interval(second).with_retries(retries);
    let socket = SockRef::from(socket);
    socket.set_tcp_keepalive(&beat)?;
    socket.set_tcp_user_timeout(Some(config.suspect()))
}

/// Takes back what was set for the conversation only.
fn settle(socket: &TcpStream) -> io::Result<()> {
    socket.set_read_timeout(None)?;
    socket.set_write_timeout(None)
}

/// An error with its causes, as a person reads it.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}
