//! The head of an HTTP request, the WebSocket upgrade, and responses.

use bytes::BytesMut;
use tungstenite::handshake::derive_accept_key;

use crate::http::{HttpRequest, HttpResponse};
use crate::limits::Limits;

/// What a request asks for.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Wish {
    /// A plain response.
    Response,
    /// A WebSocket; with the value of `Sec-WebSocket-Accept`.
    WebSocket(String),
}

/// Takes a request's head off the input, if it is whole.
///
/// # Errors
///
/// The response to a request that cannot be served; the connection closes after it.
pub(crate) fn next(
    input: &mut BytesMut,
    limits: &Limits,
) -> Result<Option<(HttpRequest, Wish)>, HttpResponse> {
    let mut fields = vec![httparse::EMPTY_HEADER; limits.max_http_headers];
    let mut parsed = httparse::Request::new(&mut fields);
    let length = match parsed.parse(input) {
        Ok(httparse::Status::Complete(length)) => length,
        Ok(httparse::Status::Partial) if input.len() <= limits.max_http_head_bytes => return Ok(None),
        Ok(httparse::Status::Partial) | Err(httparse::Error::TooManyHeaders) => {
            return Err(HttpResponse::text(431, "the request's head is too large\n"));
        }
        Err(error) => return Err(HttpResponse::text(400, format!("malformed request: {error}\n"))),
    };
    if length > limits.max_http_head_bytes {
        return Err(HttpResponse::text(431, "the request's head is too large\n"));
    }
    let request = understand(&parsed)?;
    let wish = wish(&request, parsed.version == Some(1))?;
    drop(input.split_to(length));
    Ok(Some((request, wish)))
}

fn understand(parsed: &httparse::Request<'_, '_>) -> Result<HttpRequest, HttpResponse> {
    let head = match parsed.method {
        Some("GET") => false,
        Some("HEAD") => true,
        _ => {
            let mut response = HttpResponse::text(405, "only GET and HEAD are served\n");
            response.headers.push(("Allow", "GET, HEAD".to_owned()));
            return Err(response);
        }
    };
    let headers: Vec<(String, String)> = parsed
        .headers
        .iter()
        .map(|field| {
            (field.name.to_ascii_lowercase(), String::from_utf8_lossy(field.value).trim().to_owned())
        })
        .collect();
    let target = parsed.path.unwrap_or("/");
    let (path, query) = match target.split_once('?') {
        Some((path, query)) => (path, Some(query.to_owned())),
        None => (target, None),
    };
    let mut request = HttpRequest { head, path: path.to_owned(), query, headers, keep_alive: false };
    let newest = parsed.version == Some(1);
    let hosts = request.headers.iter().filter(|(name, _)| name == "host").count();
    if hosts > 1 || newest && hosts == 0 {
        return Err(HttpResponse::text(400, "one Host field is needed\n"));
    }
    // What follows a head with a body is no request: such a connection isn't kept.
    let body = request.header("transfer-encoding").is_some()
        || request.header("content-length").is_some_and(|length| length != "0");
    request.keep_alive = newest && !body && !lists(&request, "connection", "close");
    Ok(request)
}

/// Whether a field of comma-separated words has one, in any case.
fn lists(request: &HttpRequest, name: &str, word: &str) -> bool {
    let fields = request.headers.iter().filter(|(field, _)| field == name);
    fields.flat_map(|(_, value)| value.split(',')).any(|listed| listed.trim().eq_ignore_ascii_case(word))
}

fn wish(request: &HttpRequest, newest: bool) -> Result<Wish, HttpResponse> {
    if !lists(request, "upgrade", "websocket") {
        return Ok(Wish::Response);
    }
    if request.header("sec-websocket-version") != Some("13") {
        let mut response = HttpResponse::text(426, "version 13 of the WebSocket protocol is needed\n");
        response.headers.push(("Sec-WebSocket-Version", "13".to_owned()));
        response.headers.push(("Upgrade", "websocket".to_owned()));
        return Err(response);
    }
    let key = request.header("sec-websocket-key").unwrap_or_default();
    // 16 bytes in base64.
    let letter = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/');
    let plausible =
        key.strip_suffix("==").is_some_and(|body| body.len() == 22 && body.as_bytes().iter().all(letter));
    let connection = lists(request, "connection", "upgrade");
    if request.head || !newest || !plausible || !connection {
        return Err(HttpResponse::text(400, "malformed WebSocket upgrade\n"));
    }
    Ok(Wish::WebSocket(derive_accept_key(key.as_bytes())))
}

/// The answer that turns a connection into a WebSocket.
pub(crate) fn switching(accept: &str) -> String {
    format!(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Accept: {accept}\r\n\r\n"
    )
}

/// The head of a response.
pub(crate) fn head(response: &HttpResponse, keep_alive: bool) -> String {
    use std::fmt::Write;
    let (status, reason) = (response.status, reason(response.status));
    let (content_type, length) = (response.content_type, response.body.len());
    let connection = if keep_alive { "keep-alive" } else { "close" };
    let mut head = format!(
        "HTTP/1.1 {status} {reason}\r\nContent-Type: {content_type}\r\nContent-Length: {length}\r\n\
         Connection: {connection}\r\n"
    );
    for (name, value) in &response.headers {
        // Writing to a string cannot fail.
        let _ = write!(head, "{name}: {value}\r\n");
    }
    head.push_str("\r\n");
    head
}

fn reason(status: u16) -> &'static str {
    match status {
        200 => "OK",
        204 => "No Content",
        301 => "Moved Permanently",
        302 => "Found",
        304 => "Not Modified",
        400 => "Bad Request",
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        408 => "Request Timeout",
        426 => "Upgrade Required",
        429 => "Too Many Requests",
        431 => "Request Header Fields Too Large",
        500 => "Internal Server Error",
        503 => "Service Unavailable",
        _ => "Status",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const UPGRADE: &str = "GET /any?x=1 HTTP/1.1\r\nHost: h\r\nConnection: keep-alive, Upgrade\r\n\
        Upgrade: WebSocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";

    fn parse(text: &str) -> Result<Option<(HttpRequest, Wish)>, u16> {
        let mut input = BytesMut::from(text);
        next(&mut input, &Limits::default()).map_err(|response| response.status)
    }

    #[test]
    fn a_head_is_taken_when_it_is_whole() {
        for end in 0..UPGRADE.len() {
            assert_eq!(parse(&UPGRADE[..end]), Ok(None));
        }
        let mut input = BytesMut::from(format!("{UPGRADE}rest").as_str());
        let (request, wish) = next(&mut input, &Limits::default()).unwrap().unwrap();
        assert_eq!((request.path.as_str(), request.query.as_deref()), ("/any", Some("x=1")));
        // The example of RFC 6455.
        assert_eq!(wish, Wish::WebSocket("s3pPLMBiTxaQ9kYGzzhZRbK+xOo=".to_owned()));
        assert_eq!(&input[..], b"rest");
    }

    #[test]
    fn requests_that_cannot_be_served_say_why() {
        assert_eq!(parse("POST / HTTP/1.1\r\nHost: h\r\n\r\n"), Err(405));
        assert_eq!(parse("GET / HTTP/1.1\r\n\r\n"), Err(400));
        assert_eq!(parse("GET / HTTP/9\r\n\r\n"), Err(400));
        assert_eq!(parse("GET / HTTP/1.1\r\nHost: h\r\nbad header\r\n\r\n"), Err(400));
        assert_eq!(parse(&format!("GET /{} HTTP/1.1\r\n", "x".repeat(20_000))), Err(431));
        assert_eq!(parse(&format!("GET / HTTP/1.1\r\n{}\r\n", "a: b\r\n".repeat(100))), Err(431));
        for (wrong, status) in [
            (UPGRADE.replace("Version: 13", "Version: 8"), 426),
            (UPGRADE.replace("Sec-WebSocket-Version: 13\r\n", ""), 426),
            (UPGRADE.replace("dGhlIHNhbXBsZSBub25jZQ==", "short"), 400),
            (UPGRADE.replace("keep-alive, Upgrade", "keep-alive"), 400),
            (UPGRADE.replace("GET", "HEAD"), 400),
            (UPGRADE.replace("HTTP/1.1", "HTTP/1.0"), 400),
        ] {
            assert_eq!(parse(&wrong), Err(status), "{wrong}");
        }
    }

    #[test]
    fn connections_are_kept_as_the_request_says() {
        let kept = |text| parse(text).unwrap().unwrap().0.keep_alive;
        assert!(kept("GET / HTTP/1.1\r\nHost: h\r\n\r\n"));
        assert!(!kept("GET / HTTP/1.1\r\nHost: h\r\nConnection: Close\r\n\r\n"));
        assert!(!kept("GET / HTTP/1.0\r\n\r\n"));
        assert!(!kept("GET / HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\nhello"));
    }
}
