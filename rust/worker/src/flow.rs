//! What a connection's socket and its owner both know, on whichever threads they are.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use dataflow_net::http::Peer;

use crate::access::Grant;

/// Shared by a connection's socket and its owner.
#[derive(Debug)]
pub(crate) struct Flow {
    address: SocketAddr,
    encrypted: bool,
    /// The name under which the client reached this server through TLS.
    server_name: Option<String>,
    /// What the client may do; `None` until it has given a token, where one is needed. Written by the owner.
    grant: Mutex<Option<Arc<Grant>>>,
    /// Requests decoded and not taken. Counted up by an I/O thread, down by the owner.
    requests: AtomicUsize,
    /// Their bytes.
    bytes: AtomicUsize,
    /// Bytes sent and not yet queued. Counted up by the owner, down by an I/O thread.
    on_the_way: AtomicUsize,
    /// Bytes queued and not taken by the client. Written by an I/O thread.
    queued: AtomicUsize,
}

impl Flow {
    pub(crate) fn new(peer: &Peer<'_>, grant: Option<Arc<Grant>>) -> Self {
        let none = AtomicUsize::default;
        Flow {
            address: peer.address,
            encrypted: peer.encrypted,
            server_name: peer.server_name.map(str::to_owned),
            grant: Mutex::new(grant),
            requests: none(),
            bytes: none(),
            on_the_way: none(),
            queued: none(),
        }
    }

    /// Where the connection comes from.
    pub(crate) fn peer(&self) -> Peer<'_> {
        Peer { address: self.address, encrypted: self.encrypted, server_name: self.server_name.as_deref() }
    }

    /// What the client may do now.
    pub(crate) fn grant(&self) -> Option<Arc<Grant>> {
        self.lock().as_ref().map(Arc::clone)
    }

    /// From now on the client may do this.
    pub(crate) fn set_grant(&self, grant: Option<Arc<Grant>>) {
        *self.lock() = grant;
    }

    fn lock(&self) -> MutexGuard<'_, Option<Arc<Grant>>> {
        self.grant.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether as many requests wait for the owner as may, or more bytes of them.
    pub(crate) fn is_full(&self, requests: usize, bytes: usize) -> bool {
        self.requests.load(Ordering::Relaxed) >= requests || self.bytes.load(Ordering::Relaxed) > bytes
    }

    /// The owner sends about so many bytes.
    pub(crate) fn sent(&self, weight: usize) {
        self.on_the_way.fetch_add(weight, Ordering::Relaxed);
    }

    /// They have arrived at the socket.
    pub(crate) fn arrived(&self, weight: usize) {
        self.queued.fetch_add(weight, Ordering::Relaxed);
        self.on_the_way.fetch_sub(weight, Ordering::Relaxed);
    }

    /// So many bytes are queued.
    pub(crate) fn set_queued(&self, bytes: usize) {
        self.queued.store(bytes, Ordering::Relaxed);
    }

    /// Bytes that the client hasn't taken, wherever they are.
    pub(crate) fn outbox_bytes(&self) -> usize {
        self.on_the_way.load(Ordering::Relaxed) + self.queued.load(Ordering::Relaxed)
    }
}

/// A request's share of what waits for the owner; no longer when dropped.
#[derive(Debug)]
pub(crate) struct Ahead(Arc<Flow>, usize);

impl Ahead {
    pub(crate) fn new(flow: &Arc<Flow>, bytes: usize) -> Self {
        flow.requests.fetch_add(1, Ordering::Relaxed);
        flow.bytes.fetch_add(bytes, Ordering::Relaxed);
        Ahead(Arc::clone(flow), bytes)
    }

    /// Bytes of the request.
    pub(crate) fn bytes(&self) -> usize {
        self.1
    }
}

impl Drop for Ahead {
    fn drop(&mut self) {
        self.0.requests.fetch_sub(1, Ordering::Relaxed);
        self.0.bytes.fetch_sub(self.1, Ordering::Relaxed);
    }
}
