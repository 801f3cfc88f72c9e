//! What a browser, a probe and a Prometheus find on the clients' port.

use std::fmt::Write;

use dataflow_net::http::{HttpRequest, HttpResponse, Peer};
use dataflow_protocol::request::Op;

use crate::member::Member;
use crate::process::Process;

const METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
const PAGE: &str = include_str!("console.html");

/// Answers a plain request. What says something of the cluster is for whoever may ask for its status; whether a process
/// is alive is for everybody.
pub(crate) fn respond(
    request: &HttpRequest,
    peer: &Peer<'_>,
    process: &Process,
    member: Option<&Member>,
) -> HttpResponse {
    match request.path.as_str() {
        "/" => guarded(request, peer, process, || {
            process.gate.own_name(request, peer.server_name)?;
            Ok(HttpResponse::body("text/html; charset=utf-8", page(process, member)))
        }),
        "/metrics" => {
            guarded(request, peer, process, || Ok(HttpResponse::body(METRICS, process.metrics.encode())))
        }
        "/health/live" => HttpResponse::text(200, "live\n"),
        "/health/ready" if process.shutdown_requested() => {
            HttpResponse::text(503, "the server is shutting down\n")
        }
        "/health/ready" if process.is_formed() => HttpResponse::text(200, "ready\n"),
        "/health/ready" => HttpResponse::text(503, format!("{}\n", unformed(process))),
        path => HttpResponse::text(404, format!("nothing at {path}\n")),
    }
}

/// The response, or what somebody gets who may not have it.
fn guarded(
    request: &HttpRequest,
    peer: &Peer<'_>,
    process: &Process,
    response: impl FnOnce() -> Result<HttpResponse, HttpResponse>,
) -> HttpResponse {
    let granted = process.gate.http_grant(request, peer.address).and_then(|grant| {
        grant.for_everything(Op::Status).map_err(|error| HttpResponse::text(403, error.message + "\n"))
    });
    granted.and_then(|()| response()).unwrap_or_else(|refusal| refusal)
}

/// That the cluster isn't formed, and what is known to be in the way.
pub(crate) fn unformed(process: &Process) -> String {
    match process.obstacle() {
        obstacle if obstacle.is_empty() => "the cluster is not formed yet".to_owned(),
        obstacle => format!("the cluster is not formed yet: {obstacle}"),
    }
}

/// The console: a self-contained page that then keeps itself up to date through a WebSocket.
fn page(process: &Process, member: Option<&Member>) -> String {
    let mut rows = String::new();
    for relation in member.iter().flat_map(|member| member.engine.relations()) {
        let kind = if relation.input.is_some() { "input" } else { "derived" };
        let columns: Vec<String> =
            relation.columns.iter().map(|column| format!("{}:{}", column.name, column.type_name())).collect();
        // Writing to a string cannot fail.
        let _ = write!(
            rows,
            "<tr><td>{}</td><td>{kind}</td><td>{}</td><td>{}</td></tr>",
            escaped(&relation.name),
            escaped(&columns.join(", ")),
            escaped(&relation.module)
        );
    }
    let config = &process.config;
    let state = if member.is_some() { "serving" } else { "waiting for the cluster to form" };
    PAGE.replace("{{relations}}", &rows)
        .replace("{{state}}", state)
        .replace("{{workers}}", &(config.threads * config.processes).to_string())
        .replace("{{processes}}", &config.processes.to_string())
        .replace("{{server}}", crate::requests::SERVER)
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}
