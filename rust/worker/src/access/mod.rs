//! Who may do what.
//!
//! * [`rules`]: what is configured: tokens by their digests, their roles and relations, hosts and origins.
//! * `grant`: what one client may do, asked while its requests are decoded.
//! * `door`: what is judged before a WebSocket opens, and of plain HTTP.
//! * `backoff`: wrong tokens, counted by address; `refusals`: all who were turned away, counted by reason.
//!
//! Rules are pushed down, at the start and again whenever they change; the [`Gate`] holds those in force, for the
//! poller's thread, which opens WebSockets, and for the workers, which judge `hello` and every request.

mod backoff;
mod door;
mod grant;
pub mod refusals;
pub mod rules;

use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::{Duration, Instant};

use dataflow_protocol::error::{ErrorBody, ErrorCode};

use backoff::Backoff;
pub(crate) use grant::{Grant, View};
use refusals::{Reason, Refusals};
use rules::Rules;

/// Why a token isn't taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// Nobody has it.
    Wrong,
    /// It wasn't looked at: too many wrong ones came from the same address.
    TooMany(Duration),
}

impl Refusal {
    /// What the client is told.
    pub(crate) fn body(self) -> ErrorBody {
        match self {
            Refusal::Wrong => ErrorBody::new(ErrorCode::Forbidden, "this server doesn't know that token")
                .with_hint("Ask whoever runs the server for a token.".to_owned()),
            Refusal::TooMany(wait) => {
                let seconds = wait.as_secs() + 1;
                ErrorBody::new(ErrorCode::Busy, "too many wrong tokens came from this address")
                    .with_hint(format!("Wait {seconds} s and give a valid token."))
            }
        }
    }
}

/// What a client is told that says something before it has given a token.
pub(crate) fn token_needed() -> ErrorBody {
    ErrorBody::new(ErrorCode::Forbidden, "this server wants a token")
        .with_hint("Begin with `hello` and your `token`.".to_owned())
}

/// The rules in force.
pub struct Gate {
    rules: RwLock<Arc<Rules>>,
    /// Counts the rules' changes; workers compare it with the one they know.
    version: AtomicU64,
    wrong: Mutex<Backoff>,
    refusals: Refusals,
}

impl Gate {
    /// Enforces rules, and counts who was turned away.
    pub fn new(rules: Rules, refusals: Refusals) -> Self {
        let rules = RwLock::new(Arc::new(rules));
        Gate { rules, version: AtomicU64::new(1), wrong: Mutex::default(), refusals }
    }

    /// Somebody is turned away.
    pub(crate) fn turn_away(&self, reason: Reason) {
        self.refusals.count(reason);
    }

    /// From now on other rules are in force; workers close, within a moment, connections that these wouldn't let in.
    pub fn replace(&self, rules: Rules) {
        *self.rules.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(rules);
        self.version.fetch_add(1, Ordering::Release);
    }

    /// Changes whenever the rules do.
    pub(crate) fn version(&self) -> u64 {
        self.version.load(Ordering::Acquire)
    }

    pub(crate) fn rules(&self) -> Arc<Rules> {
        Arc::clone(&self.rules.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// What somebody may do who has given no token; nothing where one is needed.
    pub(crate) fn unasked(&self) -> Option<Arc<Grant>> {
        let rules = self.rules();
        rules.is_open().then(|| Arc::new(Grant::everything()))
    }

    /// What a grant has become under the rules now in force; `None` if they don't have it any more.
    pub(crate) fn renewed(&self, grant: &Grant) -> Option<Arc<Grant>> {
        match &grant.digest {
            Some(digest) => self.rules().grant(digest),
            None => self.unasked(),
        }
    }

    /// What the holder of a token may do. Where none is needed, whatever is given is as good as none.
    ///
    /// # Errors
    ///
    /// The token is wrong, which is held against the address, or the address has to wait.
    pub(crate) fn judge(&self, token: &str, peer: IpAddr, now: Instant) -> Result<Arc<Grant>, Refusal> {
        let rules = self.rules();
        if rules.is_open() {
            return Ok(Arc::new(Grant::everything()));
        }
        let mut wrong = self.wrong.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(wait) = wrong.wait(peer, now) {
            self.turn_away(Reason::Backoff);
            return Err(Refusal::TooMany(wait));
        }
        match rules.grant(&rules::Digest::of(token)) {
            Some(grant) => {
                wrong.forget(peer);
                Ok(grant)
            }
            None => {
                wrong.note(peer, now);
                self.turn_away(Reason::WrongToken);
                tracing::info!(address = %peer, "a wrong token");
                Err(Refusal::Wrong)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use dataflow_protocol::request::Op;
    use rules::{Digest, Role, Token};

    fn token(text: &str, role: Role, relations: Option<&[&str]>) -> Token {
        let relations = relations.map(|names| names.iter().map(|&name| name.to_owned()).collect());
        Token { name: text.to_owned(), hash: Digest::of(text), role, relations }
    }

    fn gate(tokens: Vec<Token>) -> Gate {
        Gate::new(Rules { tokens, ..Rules::default() }, Refusals::default())
    }

    const HOME: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

    #[test]
    fn each_token_has_its_role_and_no_other_is_taken() {
        let gate = gate(vec![token("r", Role::Reader, None), token("a", Role::Admin, None)]);
        let now = Instant::now();
        assert!(gate.unasked().is_none());
        assert!(gate.judge("r", HOME, now).unwrap().may(Op::Transact).is_err());
        assert!(gate.judge("a", HOME, now).unwrap().may(Op::Shutdown).is_ok());
        for wrong in ["", "R", "ra", "r "] {
            let refusal = gate.judge(wrong, HOME, now).err();
            assert_eq!(refusal, Some(Refusal::Wrong), "{wrong:?}");
        }
    }

    #[test]
    fn without_tokens_everybody_may_do_everything() {
        let gate = gate(Vec::new());
        assert!(gate.unasked().unwrap().may(Op::Shutdown).is_ok());
        assert!(gate.judge("whatever", HOME, Instant::now()).is_ok());
    }

    #[test]
    fn new_rules_change_grants_and_end_those_that_are_gone() {
        let gate = gate(vec![token("one", Role::Admin, None), token("two", Role::Reader, None)]);
        let now = Instant::now();
        let (one, two) = (gate.judge("one", HOME, now).unwrap(), gate.judge("two", HOME, now).unwrap());
        let before = gate.version();
        gate.replace(Rules { tokens: vec![token("one", Role::Reader, None)], ..Rules::default() });
        assert_ne!(gate.version(), before);
        assert!(gate.renewed(&one).unwrap().may(Op::Tune).is_err());
        assert!(gate.renewed(&two).is_none());
        gate.replace(Rules::default());
        let everything = gate.unasked().unwrap();
        gate.replace(Rules { tokens: vec![token("one", Role::Reader, None)], ..Rules::default() });
        assert!(gate.renewed(&everything).is_none());
    }

    #[test]
    fn an_address_with_wrong_tokens_waits_and_others_do_not() {
        let gate = gate(vec![token("right", Role::Reader, None)]);
        let (now, other) = (Instant::now(), IpAddr::from([10, 0, 0, 1]));
        for _ in 0..backoff::FREE {
            assert_eq!(gate.judge("wrong", HOME, now).err(), Some(Refusal::Wrong));
        }
        let Err(Refusal::TooMany(wait)) = gate.judge("right", HOME, now) else { panic!("not held back") };
        assert!(gate.judge("right", other, now).is_ok());
        assert!(gate.judge("right", HOME, now + wait).is_ok());
        assert!(gate.judge("right", HOME, now).is_ok(), "a right token clears the address");
    }
}
