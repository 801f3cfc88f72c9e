//! TLS on the one port: what goes through it, who isn't let in, how certificates are replaced.

mod common;

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use common::{Seen, Server, line, rest};
use dataflow_net::connection::Kind;
use dataflow_net::http::{Doorkeeper, HttpRequest, HttpResponse, OpenDoor, Peer};
use dataflow_net::limits::Limits;
use dataflow_net::tls::{Files, Identity, TlsError};
use dataflow_protocol::error::{ErrorBody, ErrorCode};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned, SupportedProtocolVersion};

/// An authority, and a directory for its certificates, removed at the end.
struct Authority {
    certificate: CertificateDer<'static>,
    issuer: Issuer<'static, KeyPair>,
    directory: PathBuf,
}

impl Authority {
    fn new(name: &str) -> Self {
        let directory = std::env::temp_dir().join(format!("dataflow-net-tls-{}-{name}", std::process::id()));
        std::fs::create_dir_all(&directory).unwrap();
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let certificate = params.self_signed(&key).unwrap();
        std::fs::write(directory.join("ca.pem"), certificate.pem()).unwrap();
        Authority { certificate: certificate.der().clone(), issuer: Issuer::new(params, key), directory }
    }

    /// A certificate for `host`, in files that begin with `name`.
    fn issue(&self, host: &str, name: &str) -> Files {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec![host.to_owned()]).unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        let path = |end: &str| self.directory.join(format!("{name}-{end}.pem"));
        std::fs::write(path("certificate"), certificate.pem()).unwrap();
        std::fs::write(path("key"), key.serialize_pem()).unwrap();
        Files { certificate: path("certificate"), key: path("key"), client_ca: None }
    }

    fn client(&self) -> ClientConfig {
        self.client_with(&[&rustls::version::TLS13, &rustls::version::TLS12]).with_no_client_auth()
    }

    fn client_with(
        &self,
        versions: &[&'static SupportedProtocolVersion],
    ) -> rustls::ConfigBuilder<ClientConfig, rustls::client::WantsClientCert> {
        let mut roots = RootCertStore::empty();
        roots.add(self.certificate.clone()).unwrap();
        ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_protocol_versions(versions)
            .unwrap()
            .with_root_certificates(roots)
    }
}

impl Drop for Authority {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.directory);
    }
}

type Client = StreamOwned<ClientConnection, TcpStream>;

fn dial(server: &Server, config: ClientConfig) -> Client {
    let name = ServerName::try_from("db.example").unwrap();
    StreamOwned::new(ClientConnection::new(Arc::new(config), name).unwrap(), server.connect())
}

fn serving(files: &Files, limits: Limits, door: Arc<dyn Doorkeeper>) -> (Server, Arc<Identity>) {
    let identity = Arc::new(Identity::default());
    identity.replace(Some(files)).unwrap();
    (Server::with_identity(1, limits, door, Arc::clone(&identity)), identity)
}

#[test]
fn every_dialect_goes_through_tls_and_beside_it() {
    let authority = Authority::new("dialects");
    let (server, _) = serving(&authority.issue("db.example", "a"), Limits::default(), Arc::new(OpenDoor));
    for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
        let mut client = dial(&server, authority.client_with(&[version]).with_no_client_auth());
        client.write_all(b"{\"a\": 1}\n").unwrap();
        assert_eq!(line(&mut client), "{\"a\": 1}");
        assert_eq!(server.see(), Seen::Opened(0, Kind::Lines));
        assert_eq!(server.see(), Seen::Message(b"{\"a\": 1}".to_vec()));
        client.conn.send_close_notify();
        client.flush().unwrap();
        assert_eq!(rest(&mut client), b"", "the server closes in its turn, by TLS's own rules");
        assert_eq!(server.see(), Seen::Gone);
    }
    let mut client = dial(&server, authority.client());
    client.write_all(b"GET /x HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n").unwrap();
    assert!(rest(&mut client).ends_with(b"\r\n\r\n/x"));
    let mut plain = server.connect();
    plain.write_all(b"{}\n").unwrap();
    assert_eq!(line(&mut plain), "{}");
}

#[test]
fn large_messages_go_both_ways_whatever_the_sockets_take() {
    let authority = Authority::new("large");
    let (server, _) = serving(&authority.issue("db.example", "a"), Limits::default(), Arc::new(OpenDoor));
    let mut client = dial(&server, authority.client());
    client.write_all(b"\xdfFL\x01").unwrap();
    for size in [0u32, 1, 100, 16_384, 65_536, 1_000_000, 10_000_000] {
        let message: Vec<u8> = (0..size).map(|index| (index % 251) as u8).collect();
        client.write_all(&size.to_be_bytes()).unwrap();
        client.write_all(&message).unwrap();
        let mut length = [0; 4];
        client.read_exact(&mut length).unwrap();
        assert_eq!(u32::from_be_bytes(length), size);
        let mut back = vec![0; size as usize];
        client.read_exact(&mut back).unwrap();
        assert!(back == message);
    }
}

/// A socket whose bytes reach the other side one by one.
struct Trickle(TcpStream);

impl Read for Trickle {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let length = buffer.len().min(1);
        self.0.read(&mut buffer[..length])
    }
}

impl Write for Trickle {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.write(&bytes[..bytes.len().min(1)])
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.0.flush()
    }
}

#[test]
fn a_handshake_and_messages_may_come_byte_by_byte() {
    let authority = Authority::new("trickle");
    let (server, _) = serving(&authority.issue("db.example", "a"), Limits::default(), Arc::new(OpenDoor));
    let stream = server.connect();
    stream.set_nodelay(true).unwrap();
    let name = ServerName::try_from("db.example").unwrap();
    let connection = ClientConnection::new(Arc::new(authority.client()), name).unwrap();
    let mut client = StreamOwned::new(connection, Trickle(stream));
    for _ in 0..3 {
        client.write_all(b"{\"op\": \"ping\"}\n").unwrap();
        assert_eq!(line(&mut client), "{\"op\": \"ping\"}");
    }
}

#[test]
fn without_a_certificate_a_client_hello_is_told_so() {
    let server = Server::plain(1);
    let mut stream = server.connect();
    stream.write_all(b"\x16\x03\x01\x02\x00\x01").unwrap();
    assert!(line(&mut stream).contains("TLS is not configured"));
    assert_eq!(rest(&mut stream), b"");
}

#[test]
fn broken_tls_gets_an_alert_and_the_door() {
    let authority = Authority::new("broken");
    let (server, _) = serving(&authority.issue("db.example", "a"), Limits::default(), Arc::new(OpenDoor));
    for garbage in [&b"\x16garbage that is no client hello at all"[..], b"\x16\x03\x01\x00\x02\xff\xff"] {
        let mut stream = server.connect();
        stream.write_all(garbage).unwrap();
        let answer = rest(&mut stream);
        // The record type of alerts: an error where TLS has one for it, else a goodbye.
        assert_eq!((answer.first(), answer.len() % 7), (Some(&0x15), 0), "{answer:?}");
    }
    // In the middle of a conversation, past the poller: what came before is answered.
    let mut client = dial(&server, authority.client());
    client.write_all(b"{}\n").unwrap();
    assert_eq!(line(&mut client), "{}");
    client.sock.write_all(b"\x17\x03\x03\x00\x20 this was never encrypted by any").unwrap();
    assert!(client.read(&mut [0; 100]).is_err());
    let seen: Vec<Seen> = (0..4).map(|_| server.see()).collect();
    assert_eq!(seen[2..], [Seen::Broken, Seen::Gone]);
}

#[test]
fn inside_tls_there_is_no_other_tls() {
    let authority = Authority::new("nested");
    let (server, _) = serving(&authority.issue("db.example", "a"), Limits::default(), Arc::new(OpenDoor));
    let mut client = dial(&server, authority.client());
    client.write_all(b"\x16\x03\x01").unwrap();
    assert!(line(&mut client).contains("the first bytes are neither"));
}

#[test]
fn a_handshake_that_does_not_get_on_is_closed() {
    let authority = Authority::new("slow");
    let brief = Duration::from_millis(50);
    let limits = Limits { handshake: brief, close_linger: brief, ..Limits::default() };
    let (server, _) = serving(&authority.issue("db.example", "a"), limits, Arc::new(OpenDoor));
    let mut stream = server.connect();
    stream.write_all(b"\x16\x03\x01").unwrap();
    rest(&mut stream);
    // The handshake is done, and nothing is said inside.
    let mut client = dial(&server, authority.client());
    client.conn.complete_io(&mut client.sock).unwrap();
    let _ = client.read_to_end(&mut Vec::new());
}

#[test]
fn versions_before_1_2_are_refused() {
    let authority = Authority::new("old");
    let (server, _) = serving(&authority.issue("db.example", "a"), Limits::default(), Arc::new(OpenDoor));
    let mut stream = server.connect();
    // A client hello of TLS 1.1 as it is on the wire: version, random, session, one suite, no compression.
    let mut hello = vec![0x03, 0x02];
    hello.extend([7; 32]);
    hello.extend([0, 0, 2, 0xc0, 0x13, 1, 0]);
    let mut handshake = vec![1, 0, 0, hello.len() as u8];
    handshake.extend(hello);
    let mut record = vec![0x16, 0x03, 0x01, 0, handshake.len() as u8];
    record.extend(handshake);
    stream.write_all(&record).unwrap();
    let answer = rest(&mut stream);
    assert_eq!(answer.first(), Some(&0x15), "{answer:?}");
}

#[test]
fn a_new_certificate_is_for_new_connections() {
    let (old, new) = (Authority::new("old-one"), Authority::new("new-one"));
    let (server, identity) = serving(&old.issue("db.example", "a"), Limits::default(), Arc::new(OpenDoor));
    let mut before = dial(&server, old.client());
    before.write_all(b"{}\n").unwrap();
    assert_eq!(line(&mut before), "{}");
    identity.replace(Some(&new.issue("db.example", "a"))).unwrap();
    let mut after = dial(&server, new.client());
    after.write_all(b"{}\n").unwrap();
    assert_eq!(line(&mut after), "{}");
    assert!(dial(&server, old.client()).write_all(b"{}\n").is_err());
    before.write_all(b"{}\n").unwrap();
    assert_eq!(line(&mut before), "{}");
}

#[test]
fn a_certificate_that_cannot_be_used_changes_nothing() {
    let authority = Authority::new("unusable");
    let good = authority.issue("db.example", "a");
    let other = authority.issue("db.example", "b");
    let (server, identity) = serving(&good, Limits::default(), Arc::new(OpenDoor));
    let missing = PathBuf::from("/nowhere/at/all.pem");
    let empty = authority.directory.join("empty.pem");
    std::fs::write(&empty, "nothing").unwrap();
    let read = |files: Files| matches!(identity.replace(Some(&files)), Err(TlsError::Read { .. }));
    assert!(read(Files { certificate: missing.clone(), ..good.clone() }));
    assert!(read(Files { certificate: empty.clone(), ..good.clone() }));
    assert!(read(Files { key: missing, ..good.clone() }));
    assert!(read(Files { client_ca: Some(empty), ..good.clone() }));
    let mixed = Files { key: other.key, ..good };
    assert!(matches!(identity.replace(Some(&mixed)), Err(TlsError::Certificate { .. })));
    let mut client = dial(&server, authority.client());
    client.write_all(b"{}\n").unwrap();
    assert_eq!(line(&mut client), "{}");
}

#[test]
fn clients_need_a_certificate_where_an_authority_for_them_is_given() {
    let (authority, strangers) = (Authority::new("mutual"), Authority::new("strangers"));
    let files =
        Files { client_ca: Some(authority.directory.join("ca.pem")), ..authority.issue("db.example", "a") };
    let (server, _) = serving(&files, Limits::default(), Arc::new(OpenDoor));
    let with = |files: &Files| {
        let versions: &[_] = &[&rustls::version::TLS13, &rustls::version::TLS12];
        authority
            .client_with(versions)
            .with_client_auth_cert(chain(&files.certificate), key(&files.key))
            .unwrap()
    };
    let mut known = dial(&server, with(&authority.issue("a client", "client")));
    known.write_all(b"{}\n").unwrap();
    assert_eq!(line(&mut known), "{}");
    for config in [with(&strangers.issue("a client", "client")), authority.client()] {
        let mut unknown = dial(&server, config);
        // In TLS 1.3 a client is done before the server has seen its certificate.
        let outcome = unknown.write_all(b"{}\n").and_then(|()| unknown.read(&mut [0; 10]));
        assert!(outcome.is_err(), "{outcome:?}");
    }
}

fn chain(path: &Path) -> Vec<CertificateDer<'static>> {
    use rustls::pki_types::pem::PemObject;
    CertificateDer::pem_file_iter(path).unwrap().collect::<Result<_, _>>().unwrap()
}

fn key(path: &Path) -> PrivateKeyDer<'static> {
    use rustls::pki_types::pem::PemObject;
    PrivatePkcs8KeyDer::from_pem_file(path).unwrap().into()
}

/// Lets in what comes through TLS, to one name.
struct Encrypted;

impl Doorkeeper for Encrypted {
    fn welcome(&self, _: Kind, peer: &Peer<'_>) -> Result<(), ErrorBody> {
        let welcome = peer.encrypted && peer.server_name == Some("db.example");
        welcome.then_some(()).ok_or_else(|| ErrorBody::new(ErrorCode::Forbidden, "come through TLS"))
    }

    fn admit(&self, _: &HttpRequest, peer: &Peer<'_>) -> Result<(), HttpResponse> {
        if peer.encrypted { Ok(()) } else { Err(HttpResponse::text(403, "come through TLS\n")) }
    }
}

#[test]
fn a_doorkeeper_may_want_tls_of_everybody() {
    let authority = Authority::new("door");
    let files = authority.issue("db.example", "a");
    let (server, _) = serving(&files, Limits::default(), Arc::new(Encrypted));
    let upgrade = "GET / HTTP/1.1\r\nHost: h\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
        Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
    for (first, answer) in [
        (&b"{}\n"[..], "{\"id\":null,\"error\":{\"code\":\"forbidden\""),
        (b"\xdfFL\x01", "\0\0\0"),
        (b"GET / HTTP/1.1\r\nHost: h\r\n\r\n", "HTTP/1.1 403 "),
        (upgrade.as_bytes(), "HTTP/1.1 403 "),
    ] {
        let mut plain = server.connect();
        plain.write_all(first).unwrap();
        let told = rest(&mut plain);
        assert!(told.starts_with(answer.as_bytes()), "{}", String::from_utf8_lossy(&told));
        plain.shutdown(Shutdown::Both).ok();
        let mut encrypted = dial(&server, authority.client());
        encrypted.write_all(first).unwrap();
        assert!(matches!(server.see(), Seen::Opened(..)));
        drop(encrypted);
        while server.see() != Seen::Gone {}
    }
}
