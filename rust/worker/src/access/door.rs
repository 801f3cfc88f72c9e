//! What is judged of HTTP: the names and pages that WebSockets may be opened by, and tokens in headers.
//!
//! A browser opens a WebSocket to anywhere on behalf of any page, and sends what credentials it has; so pages of other
//! origins are refused. A page's own name may be made to mean this machine (DNS rebinding), which makes it the same
//! origin as far as the browser can tell; so are names that aren't this server's.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Instant;

use dataflow_net::connection::Kind;
use dataflow_net::http::{Doorkeeper, HttpRequest, HttpResponse, Peer, TurnedAway};
use dataflow_protocol::error::{ErrorBody, ErrorCode};

use super::refusals::Reason;
use super::rules::{Plaintext, Rules};
use super::{Gate, Grant, Refusal};

const REALM: &str = "dataflow-serve";

impl Doorkeeper for Gate {
    fn welcome(&self, _: Kind, peer: &Peer<'_>) -> Result<(), ErrorBody> {
        if may_be_plain(&self.rules(), peer) {
            return Ok(());
        }
        self.turn_away(Reason::Plaintext);
        Err(ErrorBody::new(ErrorCode::Forbidden, "this server wants TLS")
            .with_hint("Connect with dfs://, wss:// or https://.".to_owned()))
    }

    fn turned_away(&self, why: TurnedAway) {
        self.turn_away(Reason::Transport(why));
    }

    fn admit(&self, request: &HttpRequest, peer: &Peer<'_>) -> Result<(), HttpResponse> {
        let rules = self.rules();
        if !may_be_plain(&rules, peer) {
            self.turn_away(Reason::Plaintext);
            return Err(HttpResponse::text(403, "this server wants TLS: connect with wss://\n"));
        }
        check_host(&rules, request, peer.server_name).inspect_err(|_| self.turn_away(Reason::Host))?;
        check_origin(&rules, request).inspect_err(|_| self.turn_away(Reason::Origin))?;
        if request.header("authorization").is_some() {
            self.http_grant(request, peer.address)?;
        }
        Ok(())
    }
}

fn may_be_plain(rules: &Rules, peer: &Peer<'_>) -> bool {
    match rules.plaintext {
        _ if peer.encrypted => true,
        Plaintext::Never => false,
        Plaintext::Loopback => peer.address.ip().to_canonical().is_loopback(),
        Plaintext::Always => true,
    }
}

impl Gate {
    /// What somebody may do who asks by plain HTTP, or opens a WebSocket with a token in its headers.
    ///
    /// # Errors
    ///
    /// A token is needed and none that is known was given, or the address has to wait.
    pub(crate) fn http_grant(
        &self,
        request: &HttpRequest,
        peer: SocketAddr,
    ) -> Result<Arc<Grant>, HttpResponse> {
        if let Some(grant) = self.unasked() {
            return Ok(grant);
        }
        let Some(token) = request.token() else {
            self.turn_away(Reason::NoToken);
            return Err(unauthorized("a token is needed"));
        };
        self.judge(&token, peer.ip(), Instant::now()).map_err(|refusal| match refusal {
            Refusal::Wrong => unauthorized("this server doesn't know that token"),
            Refusal::TooMany(wait) => {
                let mut response = HttpResponse::text(429, format!("{}\n", refusal.body().message));
                response.headers.push(("Retry-After", (wait.as_secs() + 1).to_string()));
                response
            }
        })
    }

    /// What a connection may do from its first message on: as much as everybody, or what the token is good for that
    /// came with its upgrade.
    pub(crate) fn first_grant(&self, upgrade: Option<&HttpRequest>, peer: SocketAddr) -> Option<Arc<Grant>> {
        self.unasked().or_else(|| {
            let upgrade = upgrade.filter(|request| request.header("authorization").is_some())?;
            self.http_grant(upgrade, peer).ok()
        })
    }

    /// Whether the page that describes the cluster may be shown under the name it was asked for by.
    ///
    /// # Errors
    ///
    /// The name isn't this server's.
    pub(crate) fn own_name(
        &self,
        request: &HttpRequest,
        server_name: Option<&str>,
    ) -> Result<(), HttpResponse> {
        check_host(&self.rules(), request, server_name).inspect_err(|_| self.turn_away(Reason::Host))
    }
}

fn unauthorized(why: &str) -> HttpResponse {
    let text = format!("{why}: send `Authorization: Bearer` with it, or give it as a password\n");
    let mut response = HttpResponse::text(401, text);
    response.headers.push(("WWW-Authenticate", format!("Bearer realm=\"{REALM}\"")));
    // What browsers know how to ask their user for.
    response.headers.push(("WWW-Authenticate", format!("Basic realm=\"{REALM}\"")));
    response
}

/// A name that the client has found in this server's certificate is its own.
fn check_host(rules: &Rules, request: &HttpRequest, server_name: Option<&str>) -> Result<(), HttpResponse> {
    let certified = |host| server_name.is_some_and(|name| name.eq_ignore_ascii_case(without_port(host)));
    let foreign = request.header("host").is_some_and(|host| !certified(host) && !is_own(rules, host));
    if foreign {
        let text = "this server doesn't go by that name: the setting `hosts` lists those it has\n";
        return Err(HttpResponse::text(403, text));
    }
    Ok(())
}

/// An address can't be rebound, and `localhost` is nobody else's.
fn is_own(rules: &Rules, host: &str) -> bool {
    let name = without_port(host).trim_end_matches('.');
    let literal = name.trim_start_matches('[').trim_end_matches(']');
    let local = name.eq_ignore_ascii_case("localhost") || name.to_ascii_lowercase().ends_with(".localhost");
    local
        || literal.parse::<IpAddr>().is_ok()
        || rules.hosts.iter().any(|own| own == "*" || own.eq_ignore_ascii_case(name))
}

fn without_port(authority: &str) -> &str {
    match authority.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => authority,
    }
}

fn check_origin(rules: &Rules, request: &HttpRequest) -> Result<(), HttpResponse> {
    let Some(origin) = request.header("origin") else { return Ok(()) };
    let listed = rules.origins.iter().any(|known| known == "*" || known.eq_ignore_ascii_case(origin));
    if listed || request.header("host").is_some_and(|host| is_same(origin, host)) {
        return Ok(());
    }
    let text =
        "pages of that origin may not open WebSockets here: the setting `origins` lists those that may\n";
    Err(HttpResponse::text(403, text))
}

/// Whether an origin is that of a page which was served under `host`. The scheme isn't compared: in front of a proxy
/// it may be another one.
fn is_same(origin: &str, host: &str) -> bool {
    let Some((scheme, authority)) = origin.split_once("://") else { return false };
    let default = match scheme {
        "http" => ":80",
        "https" => ":443",
        _ => return false,
    };
    let bare = |authority: &str| authority.strip_suffix(default).unwrap_or(authority).to_ascii_lowercase();
    bare(authority) == bare(host)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::access::rules::{Digest, Role, Token};

    fn request(headers: &[(&str, &str)]) -> HttpRequest {
        let headers = headers.iter().map(|&(name, value)| (name.to_owned(), value.to_owned())).collect();
        HttpRequest { head: false, path: "/".into(), query: None, headers, keep_alive: true }
    }

    fn peer(encrypted: bool, server_name: Option<&str>) -> Peer<'_> {
        Peer { address: SocketAddr::from(([10, 0, 0, 1], 1000)), encrypted, server_name }
    }

    fn gate(rules: Rules) -> Gate {
        Gate::new(rules, super::super::refusals::Refusals::default())
    }

    fn admitted(rules: Rules, headers: &[(&str, &str)]) -> Result<(), u16> {
        gate(rules).admit(&request(headers), &peer(false, None)).map_err(|response| response.status)
    }

    #[test]
    fn only_own_names_are_served() {
        let rules = || Rules { hosts: vec!["db.example".into()], ..Rules::default() };
        for (host, verdict) in [
            ("127.0.0.1:6262", Ok(())),
            ("[::1]:6262", Ok(())),
            ("10.0.0.1", Ok(())),
            ("localhost:6262", Ok(())),
            ("LOCALHOST", Ok(())),
            ("db.example:6262", Ok(())),
            ("DB.example.", Ok(())),
            ("evil.example:6262", Err(403)),
            ("db.example.evil", Err(403)),
            ("notlocalhost", Err(403)),
            ("", Err(403)),
        ] {
            assert_eq!(admitted(rules(), &[("host", host)]), verdict, "{host}");
        }
        let any = Rules { hosts: vec!["*".into()], ..Rules::default() };
        assert_eq!(admitted(any, &[("host", "whatever.example")]), Ok(()));
    }

    #[test]
    fn only_own_pages_and_listed_ones_open_websockets() {
        let rules = || Rules { origins: vec!["https://app.example".into()], ..Rules::default() };
        for (origin, verdict) in [
            ("http://localhost:6262", Ok(())),
            ("https://localhost:6262", Ok(())),
            ("https://app.example", Ok(())),
            ("http://app.example", Err(403)),
            ("http://localhost", Err(403)),
            ("http://localhost:3000", Err(403)),
            ("http://evil.example", Err(403)),
            ("http://localhost:6262.evil.example", Err(403)),
            ("null", Err(403)),
            ("file://localhost:6262", Err(403)),
        ] {
            let headers = [("host", "localhost:6262"), ("origin", origin)];
            assert_eq!(admitted(rules(), &headers), verdict, "{origin}");
        }
        assert_eq!(admitted(rules(), &[("host", "localhost"), ("origin", "http://localhost:80")]), Ok(()));
        assert_eq!(admitted(rules(), &[("host", "localhost:443"), ("origin", "https://localhost")]), Ok(()));
        let any = Rules { origins: vec!["*".into()], ..Rules::default() };
        assert_eq!(admitted(any, &[("host", "localhost"), ("origin", "null")]), Ok(()));
    }

    #[test]
    fn the_name_in_the_certificate_is_an_own_one() {
        let gate = gate(Rules::default());
        let request = request(&[("host", "db.example:6262")]);
        assert!(gate.admit(&request, &peer(true, Some("db.example"))).is_ok());
        assert!(gate.admit(&request, &peer(true, Some("other.example"))).is_err());
        assert!(gate.admit(&request, &peer(true, None)).is_err());
    }

    #[test]
    fn plaintext_is_taken_from_where_the_rules_say() {
        let plain = |address: &str| Peer {
            address: SocketAddr::new(address.parse().unwrap(), 1),
            encrypted: false,
            server_name: None,
        };
        for (plaintext, near, far) in [
            (Plaintext::Never, false, false),
            (Plaintext::Loopback, true, false),
            (Plaintext::Always, true, true),
        ] {
            let gate = gate(Rules { plaintext, ..Rules::default() });
            let welcome = |peer: &Peer<'_>| {
                let welcome = gate.welcome(Kind::Lines, peer).is_ok();
                assert_eq!(gate.admit(&request(&[("host", "localhost")]), peer).is_ok(), welcome);
                welcome
            };
            for address in ["127.0.0.1", "::1", "::ffff:127.0.0.1"] {
                assert_eq!(welcome(&plain(address)), near, "{plaintext:?} {address}");
            }
            assert_eq!(welcome(&plain("10.0.0.1")), far, "{plaintext:?}");
            // Each was asked twice.
            let refused = 2 * (3 * u64::from(!near) + u64::from(!far));
            assert_eq!(gate.refusals.counted(Reason::Plaintext), refused, "{plaintext:?}");
            assert!(welcome(&peer(true, None)));
        }
    }

    #[test]
    fn a_token_in_the_headers_must_be_right_and_may_be_missing() {
        let token = Token { name: "t".into(), hash: Digest::of("abc"), role: Role::Reader, relations: None };
        let rules = || Rules { tokens: vec![token.clone()], ..Rules::default() };
        // `x:abc` in base64.
        for (authorization, verdict) in [
            ("Bearer abc", Ok(())),
            ("bearer abc", Ok(())),
            ("Basic eDphYmM=", Ok(())),
            ("Bearer abd", Err(401)),
            ("Bearer", Err(401)),
            ("Basic ****", Err(401)),
            ("Negotiate abc", Err(401)),
        ] {
            let headers = [("host", "localhost"), ("authorization", authorization)];
            assert_eq!(admitted(rules(), &headers), verdict, "{authorization}");
            assert_eq!(admitted(Rules::default(), &headers), Ok(()), "no token is needed");
        }
        assert_eq!(admitted(rules(), &[("host", "localhost")]), Ok(()));
    }
}
