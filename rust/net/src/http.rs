//! What little HTTP there is: requests without a body, responses, the WebSocket upgrade.

use std::net::SocketAddr;

use bytes::Bytes;
use data_encoding::BASE64;
use dataflow_protocol::error::ErrorBody;

use crate::connection::Kind;

/// An HTTP request's head.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpRequest {
    /// `true` for `HEAD`, `false` for `GET`; other methods are answered with 405 before anybody sees them.
    pub head: bool,
    /// The path, without the query.
    pub path: String,
    /// What follows `?`.
    pub query: Option<String>,
    /// Header fields in order, names in lower case.
    pub headers: Vec<(String, String)>,
    /// The connection stays open for another request.
    pub keep_alive: bool,
}

impl HttpRequest {
    /// The first header field of that name (in lower case).
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n == name).map(|(_, value)| value.as_str())
    }

    /// The token of `Authorization`: `Bearer` has it as it is; in `Basic`, which browsers ask their user for, it is
    /// the password.
    pub fn token(&self) -> Option<String> {
        let (scheme, value) = self.header("authorization")?.split_once(' ')?;
        if scheme.eq_ignore_ascii_case("bearer") {
            return Some(value.trim().to_owned());
        }
        let value = scheme.eq_ignore_ascii_case("basic").then(|| BASE64.decode(value.trim().as_bytes()))?;
        let text = String::from_utf8(value.ok()?).ok()?;
        text.split_once(':').map(|(_, password)| password.to_owned())
    }
}

/// An answer to an HTTP request. `Content-Length` and `Connection` are added when it is written; the body isn't
/// written in answer to a `HEAD`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpResponse {
    /// Status code.
    pub status: u16,
    /// `Content-Type`.
    pub content_type: &'static str,
    /// Further header fields.
    pub headers: Vec<(&'static str, String)>,
    /// Body.
    pub body: Bytes,
}

impl HttpResponse {
    /// A short plain text.
    pub fn text(status: u16, text: impl Into<String>) -> Self {
        HttpResponse {
            status,
            content_type: "text/plain; charset=utf-8",
            headers: Vec::new(),
            body: Bytes::from(text.into()),
        }
    }

    /// A body of a given type, with status 200.
    pub fn body(content_type: &'static str, body: impl Into<Bytes>) -> Self {
        HttpResponse { status: 200, content_type, headers: Vec::new(), body: body.into() }
    }
}

/// Who is at the other end, as far as that is known before the first message.
#[derive(Clone, Copy, Debug)]
pub struct Peer<'a> {
    /// Its address.
    pub address: SocketAddr,
    /// What it sends comes through TLS.
    pub encrypted: bool,
    /// The name under which it reached this server through TLS, and which its certificate has therefore to have.
    pub server_name: Option<&'a str>,
}

/// Why a connection is closed without having been served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TurnedAway {
    /// As many are open as may be.
    TooMany,
    /// The same of its address.
    TooManyOfAddress,
    /// The process, or the system, has no descriptors or no memory left.
    NoDescriptors,
    /// It didn't say in time what it is.
    SlowHandshake,
    /// TLS that isn't configured, is broken, or doesn't let the client in.
    Tls,
    /// Its first bytes are no protocol that is served, or a broken request for a WebSocket.
    Protocol,
}

/// Who may come in: tokens, origins and hosts are for others to judge.
pub trait Doorkeeper: Send + Sync {
    /// A connection was turned away for a reason that isn't the doorkeeper's own; called on the poller's thread and on
    /// those that read sockets.
    fn turned_away(&self, _why: TurnedAway) {}

    /// Judges a connection whose kind is known, before anything of it is acted upon; called on the poller's thread,
    /// so it must not block. A WebSocket has been judged by [`Self::admit`] before.
    ///
    /// # Errors
    ///
    /// What the peer is told before the connection closes.
    fn welcome(&self, _kind: Kind, _peer: &Peer<'_>) -> Result<(), ErrorBody> {
        Ok(())
    }

    /// Judges an upgrade that is otherwise in order, before it is answered; called on the poller's thread, so it
    /// must not block.
    ///
    /// # Errors
    ///
    /// The response to refuse it with (401, 403).
    fn admit(&self, request: &HttpRequest, peer: &Peer<'_>) -> Result<(), HttpResponse>;
}

/// Lets everybody in.
#[derive(Clone, Copy, Debug, Default)]
pub struct OpenDoor;

impl Doorkeeper for OpenDoor {
    fn admit(&self, _: &HttpRequest, _: &Peer<'_>) -> Result<(), HttpResponse> {
        Ok(())
    }
}
