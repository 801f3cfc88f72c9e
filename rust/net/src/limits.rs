//! Every limit of a connection, by name, with its default.

use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Limits, the same for all connections of a process. In settings, durations are numbers of seconds.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// Longest message accepted, in bytes without framing. A longer one gets `too-large`, judged by its declared
    /// length before anything is allocated for it, and the connection closes.
    pub max_message_bytes: usize,
    /// Connections open at once, those not yet identified included. One more is told `busy` in its own dialect and
    /// closed.
    pub max_connections: usize,
    /// Connections open at once from one address (in IPv6: from one network of 64 bits). One more is told `busy` and
    /// closed.
    pub max_connections_per_address: usize,
    /// Whether that holds for the loopback's addresses as well, where a proxy may speak for many.
    pub limit_loopback: bool,
    /// Refused connections that are still being told so. Beyond, they are closed after one `busy` line.
    pub max_refusals: usize,
    /// Bytes of outgoing messages above which nothing more is read from a connection until some are taken.
    pub outbox_high_bytes: usize,
    /// Longest head of an HTTP request. A longer one gets 431 and the connection closes.
    pub max_http_head_bytes: usize,
    /// Most header fields of an HTTP request; more get 431.
    pub max_http_headers: usize,
    /// Fragments of one WebSocket message; with more the connection closes (1008).
    pub max_fragments: usize,
    /// Pings, pongs and other control frames that a WebSocket may send in a second; with more it closes (1008).
    pub max_control_frames_per_second: u32,
    /// From accepting a connection until its first bytes (of a WebSocket: the whole upgrade) are here. Then it closes.
    #[serde(rename = "handshake_seconds", with = "seconds")]
    pub handshake: Duration,
    /// A message that was begun must progress by [`Self::partial_progress_bytes`], or be complete, in this time. Then
    /// the connection closes.
    #[serde(rename = "partial_message_seconds", with = "seconds")]
    pub partial_message: Duration,
    /// Progress that renews [`Self::partial_message`]: a large message on a slow line is not a trickle.
    pub partial_progress_bytes: usize,
    /// How long a kept-alive plain HTTP connection may wait for its next request.
    #[serde(rename = "http_idle_seconds", with = "seconds")]
    pub http_idle: Duration,
    /// How long a socket may take no byte once its owner calls it stalled. Then the connection closes (1013).
    #[serde(rename = "write_stall_seconds", with = "seconds")]
    pub write_stall: Duration,
    /// How long a closing connection has for its last messages to be taken and its peer to close as well.
    #[serde(rename = "close_linger_seconds", with = "seconds")]
    pub close_linger: Duration,
    /// After half of this silence a peer is asked whether it is still there, by a ping of the WebSocket's and by the
    /// system (TCP keepalive); after all of it, it is not, and the connection closes.
    #[serde(rename = "idle_ping_seconds", with = "seconds")]
    pub idle_ping: Duration,
    /// How long the peer's system may acknowledge nothing, or take nothing, of what was sent. Then the connection is
    /// given up.
    #[serde(rename = "unacknowledged_seconds", with = "seconds")]
    pub unacknowledged: Duration,
    /// Whether a WebSocket on `/echo` echoes messages, for conformance suites.
    #[serde(skip)]
    pub enable_echo: bool,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            max_message_bytes: 16 << 20,
            max_connections: 16_384,
            max_connections_per_address: 4096,
            limit_loopback: false,
            max_refusals: 64,
            outbox_high_bytes: 1 << 20,
            max_http_head_bytes: 16 << 10,
            max_http_headers: 64,
            max_fragments: 1 << 17,
            max_control_frames_per_second: 1_000,
            handshake: Duration::from_secs(5),
            partial_message: Duration::from_secs(10),
            partial_progress_bytes: 64 << 10,
            http_idle: Duration::from_secs(10),
            write_stall: Duration::from_secs(10),
            close_linger: Duration::from_secs(2),
            idle_ping: Duration::from_secs(30),
            unacknowledged: Duration::from_secs(120),
            enable_echo: false,
        }
    }
}

/// Durations as numbers of seconds.
mod seconds {
    use super::{Deserialize, Deserializer, Duration, Serialize, Serializer};

    pub(super) fn serialize<S: Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
        duration.as_secs_f64().serialize(serializer)
    }

    /// Up to a year, which is as good as for ever.
    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
        let seconds = f64::deserialize(deserializer)?;
        let duration = Duration::try_from_secs_f64(seconds).ok();
        duration.filter(|duration| duration.as_secs() <= 365 * 86_400).ok_or_else(|| {
            serde::de::Error::custom(format!("{seconds} is no number of seconds between 0 and a year"))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_set_by_name_and_durations_in_seconds() {
        let limits: Limits = serde_json::from_str(
            r#"{"max_connections": 7, "idle_ping_seconds": 0.5, "handshake_seconds": 2}"#,
        )
        .unwrap();
        assert_eq!((limits.max_connections, limits.idle_ping), (7, Duration::from_millis(500)));
        assert_eq!(limits.handshake, Duration::from_secs(2));
        assert_eq!(limits.max_message_bytes, Limits::default().max_message_bytes);
        for wrong in
            ["{\"max_conections\": 7}", "{\"handshake_seconds\": -1}", "{\"handshake_seconds\": 1e300}"]
        {
            assert!(serde_json::from_str::<Limits>(wrong).is_err(), "{wrong}");
        }
    }
}
