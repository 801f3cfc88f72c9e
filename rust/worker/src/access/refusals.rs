//! Who was turned away, counted by reason.

use dataflow_net::http::TurnedAway;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;

/// Why somebody wasn't served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// The transport's reasons.
    Transport(TurnedAway),
    /// Without TLS, where it is wanted.
    Plaintext,
    /// By a name that isn't this server's.
    Host,
    /// By a page of another origin.
    Origin,
    /// Without a token, where one is needed.
    NoToken,
    /// With a token that nobody has.
    WrongToken,
    /// From an address that has to wait after wrong tokens.
    Backoff,
}

impl Reason {
    const ALL: [Reason; 12] = [
        Reason::Transport(TurnedAway::TooMany),
        Reason::Transport(TurnedAway::TooManyOfAddress),
        Reason::Transport(TurnedAway::NoDescriptors),
        Reason::Transport(TurnedAway::SlowHandshake),
        Reason::Transport(TurnedAway::Tls),
        Reason::Transport(TurnedAway::Protocol),
        Reason::Plaintext,
        Reason::Host,
        Reason::Origin,
        Reason::NoToken,
        Reason::WrongToken,
        Reason::Backoff,
    ];

    /// As the label has it.
    fn name(self) -> &'static str {
        match self {
            Reason::Transport(TurnedAway::TooMany) => "too_many",
            Reason::Transport(TurnedAway::TooManyOfAddress) => "too_many_of_address",
            Reason::Transport(TurnedAway::NoDescriptors) => "no_descriptors",
            Reason::Transport(TurnedAway::SlowHandshake) => "slow_handshake",
            Reason::Transport(TurnedAway::Tls) => "tls",
            Reason::Transport(TurnedAway::Protocol) => "protocol",
            Reason::Plaintext => "plaintext",
            Reason::Host => "host",
            Reason::Origin => "origin",
            Reason::NoToken => "no_token",
            Reason::WrongToken => "wrong_token",
            Reason::Backoff => "backoff",
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ReasonLabel {
    reason: &'static str,
}

/// The counters. Clones count the same.
#[derive(Clone, Debug)]
pub struct Refusals(Family<ReasonLabel, Counter>);

impl Default for Refusals {
    /// With a zero for each reason: what has never happened is to be seen as such.
    fn default() -> Self {
        let family = Family::<ReasonLabel, Counter>::default();
        for reason in Reason::ALL {
            drop(family.get_or_create(&ReasonLabel { reason: reason.name() }));
        }
        Refusals(family)
    }
}

impl Refusals {
    /// Counts one.
    pub fn count(&self, reason: Reason) {
        self.0.get_or_create(&ReasonLabel { reason: reason.name() }).inc();
    }

    /// How many were counted.
    pub fn counted(&self, reason: Reason) -> u64 {
        self.0.get_or_create(&ReasonLabel { reason: reason.name() }).get()
    }

    /// For the registry.
    pub(crate) fn family(&self) -> impl prometheus_client::registry::Metric {
        self.0.clone()
    }
}
