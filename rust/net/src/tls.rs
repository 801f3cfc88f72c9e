//! TLS over memory: rustls does it, this room feeds it and takes what comes out.
//!
//! [`Identity`] is what the server shows: its certificate, which may be replaced while it runs. A connection that opens
//! with a client hello gets a `Session` between its socket and its framing. What is read from the socket goes through
//! it at once and whole, so that nothing waits inside for which no event would come; what is to be sent is encrypted
//! only as far as the socket takes it, so that messages stay shared between connections until then.

use std::io::{self, BufRead, IoSlice, Write};
use std::path::PathBuf;
use std::sync::{Arc, PoisonError, RwLock};

use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{VerifierBuilderError, WebPkiClientVerifier};
use rustls::{RootCertStore, ServerConfig, ServerConnection};
use serde::{Deserialize, Serialize};

use crate::error::Violation;
use crate::frame::Outbox;

/// Where the certificate is, as PEM.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Files {
    /// The certificate, and those between it and the authority.
    pub certificate: PathBuf,
    /// Its private key.
    pub key: PathBuf,
    /// Authorities of the clients' certificates. With them, a client without a certificate isn't let in.
    #[serde(default)]
    pub client_ca: Option<PathBuf>,
}

/// A certificate that can't be used.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file can't be read, or isn't PEM.
    #[error("could not read the {what} in {path:?}")]
    Read {
        /// Which of the files.
        what: &'static str,
        /// Where.
        path: PathBuf,
        /// Why.
        #[source]
        source: pem::Error,
    },
    /// Certificate and key don't fit, or rustls doesn't take them.
    #[error("could not use the certificate in {path:?}")]
    Certificate {
        /// Where.
        path: PathBuf,
        /// Why.
        #[source]
        source: rustls::Error,
    },
    /// An authority isn't taken.
    #[error("could not use the clients' authorities in {path:?}")]
    ClientAuthority {
        /// Where.
        path: PathBuf,
        /// Why.
        #[source]
        source: VerifierBuilderError,
    },
}

/// The certificate in force, if there is one. Connections that are open keep the one they were opened with.
#[derive(Debug, Default)]
pub struct Identity {
    config: RwLock<Option<Arc<ServerConfig>>>,
}

impl Identity {
    /// Puts a certificate in force for new connections, or none.
    ///
    /// # Errors
    ///
    /// It can't be used. What was in force before still is.
    pub fn replace(&self, files: Option<&Files>) -> Result<(), TlsError> {
        let config = files.map(load).transpose()?;
        *self.config.write().unwrap_or_else(PoisonError::into_inner) = config;
        Ok(())
    }

    /// The configuration for a new connection.
    pub(crate) fn current(&self) -> Option<Arc<ServerConfig>> {
        self.config.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

fn load(files: &Files) -> Result<Arc<ServerConfig>, TlsError> {
    let chain = certificates("certificate", &files.certificate)?;
    let key = PrivateKeyDer::from_pem_file(&files.key).map_err(|source| TlsError::Read {
        what: "private key",
        path: files.key.clone(),
        source,
    })?;
    let unusable = |source| TlsError::Certificate { path: files.certificate.clone(), source };
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])
        .map_err(unusable)?;
    let builder = match &files.client_ca {
        None => builder.with_no_client_auth(),
        Some(path) => {
            let mut roots = RootCertStore::empty();
            for authority in certificates("clients' authority", path)? {
                roots
                    .add(authority)
                    .map_err(|source| TlsError::Certificate { path: path.clone(), source })?;
            }
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider)
                .build()
                .map_err(|source| TlsError::ClientAuthority { path: path.clone(), source })?;
            builder.with_client_cert_verifier(verifier)
        }
    };
    builder.with_single_cert(chain, key).map(Arc::new).map_err(unusable)
}

fn certificates(what: &'static str, path: &PathBuf) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let unreadable = |source| TlsError::Read { what, path: path.clone(), source };
    let chain: Vec<_> = CertificateDer::pem_file_iter(path)
        .and_then(Iterator::collect::<Result<_, _>>)
        .map_err(unreadable)?;
    if chain.is_empty() { Err(unreadable(pem::Error::NoItemsFound)) } else { Ok(chain) }
}

/// Whether more may come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Flow {
    Open,
    Ended,
}

/// One connection's TLS.
#[derive(Debug)]
pub(crate) struct Session {
    inner: ServerConnection,
    said_goodbye: bool,
}

impl Session {
    /// # Errors
    ///
    /// rustls doesn't take the configuration.
    pub(crate) fn new(config: Arc<ServerConfig>) -> Result<Self, Violation> {
        let inner = ServerConnection::new(config).map_err(|error| broken(&error))?;
        Ok(Session { inner, said_goodbye: false })
    }

    /// The name under which the client reached the server, once it has said so.
    pub(crate) fn server_name(&self) -> Option<&str> {
        self.inner.server_name()
    }

    /// Takes what came from the socket, and hands out what it says.
    ///
    /// # Errors
    ///
    /// The peer broke the protocol; the alert that says so is ready to be written.
    pub(crate) fn receive(
        &mut self,
        mut bytes: &[u8],
        mut take: impl FnMut(&[u8]),
    ) -> Result<Flow, Violation> {
        while !bytes.is_empty() {
            // Reading from memory fails only where the plaintext is full, and it is emptied below each time.
            let count = self.inner.read_tls(&mut bytes).map_err(|error| Violation::Tls(error.to_string()))?;
            self.inner.process_new_packets().map_err(|error| broken(&error))?;
            let mut reader = self.inner.reader();
            loop {
                match reader.fill_buf() {
                    Ok([]) => return Ok(Flow::Ended),
                    Ok(plain) => {
                        take(plain);
                        let length = plain.len();
                        reader.consume(length);
                    }
                    Err(_) => break,
                }
            }
            if count == 0 {
                return Ok(Flow::Ended);
            }
        }
        Ok(Flow::Open)
    }

    /// Whether something encrypted waits for the socket.
    pub(crate) fn has_output(&self) -> bool {
        self.inner.wants_write()
    }

    /// Writes what is ready, then of the outbox as much as the socket takes; returns the bytes written.
    ///
    /// # Errors
    ///
    /// Whatever the socket says but `WouldBlock` and `Interrupted`.
    pub(crate) fn write(&mut self, outbox: &mut Outbox, socket: &mut impl Write) -> io::Result<usize> {
        let mut total = 0;
        loop {
            while self.inner.wants_write() {
                match self.inner.write_tls(socket) {
                    Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                    Ok(written) => total += written,
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(total),
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    Err(error) => return Err(error),
                }
            }
            if outbox.bytes() == 0 || outbox.write_to(&mut Plain(&mut self.inner))? == 0 {
                return Ok(total);
            }
        }
    }

    /// Lets the peer know that nothing more comes; whether that is news.
    pub(crate) fn say_goodbye(&mut self) -> bool {
        let news = !std::mem::replace(&mut self.said_goodbye, true);
        if news {
            self.inner.send_close_notify();
        }
        news
    }
}

/// The side of a session that is to be encrypted. rustls takes only so much at once.
struct Plain<'a>(&'a mut ServerConnection);

impl Write for Plain<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.write_vectored(&[IoSlice::new(bytes)])
    }

    fn write_vectored(&mut self, pieces: &[IoSlice<'_>]) -> io::Result<usize> {
        match self.0.writer().write_vectored(pieces)? {
            0 => Err(io::ErrorKind::WouldBlock.into()),
            written => Ok(written),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn broken(error: &rustls::Error) -> Violation {
    Violation::Tls(error.to_string())
}
