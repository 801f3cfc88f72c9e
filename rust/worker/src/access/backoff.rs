//! Wrong tokens, counted by address: whoever guesses waits, longer each time.

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use dataflow_net::places::network;

/// Wrong tokens of an address that are answered at once.
pub(super) const FREE: u32 = 5;
/// The first wait; each further wrong token doubles it.
const FIRST: Duration = Duration::from_secs(1);
/// The longest wait.
const LONGEST: Duration = Duration::from_secs(60);
/// An address that gave no wrong token for so long has a clean slate.
const MEMORY: Duration = Duration::from_secs(600);
/// Addresses remembered. With more, those whose wait is over longest are forgotten.
const ADDRESSES: usize = 4096;

#[derive(Debug)]
struct Failures {
    count: u32,
    /// When the last one came.
    last: Instant,
    /// No token is looked at before this.
    until: Instant,
}

/// Addresses that have given wrong tokens.
#[derive(Debug, Default)]
pub(super) struct Backoff {
    addresses: HashMap<IpAddr, Failures>,
}

impl Backoff {
    /// How long an address still has to wait.
    pub(super) fn wait(&self, address: IpAddr, now: Instant) -> Option<Duration> {
        let failures = self.addresses.get(&network(address))?;
        Some(failures.until.saturating_duration_since(now)).filter(|wait| !wait.is_zero())
    }

    /// Takes note of a wrong token.
    pub(super) fn note(&mut self, address: IpAddr, now: Instant) {
        let address = network(address);
        if self.addresses.len() >= ADDRESSES && !self.addresses.contains_key(&address) {
            self.make_room(now);
        }
        let failures = self.addresses.entry(address).or_insert(Failures { count: 0, last: now, until: now });
        if now.saturating_duration_since(failures.last) > MEMORY {
            failures.count = 0;
        }
        failures.count = failures.count.saturating_add(1);
        failures.last = now;
        if failures.count >= FREE {
            let doublings = (failures.count - FREE).min(16);
            failures.until = now + (FIRST * (1 << doublings)).min(LONGEST);
        }
    }

    /// A right token came from there.
    pub(super) fn forget(&mut self, address: IpAddr) {
        self.addresses.remove(&network(address));
    }

    fn make_room(&mut self, now: Instant) {
        self.addresses.retain(|_, failures| now.saturating_duration_since(failures.last) <= MEMORY);
        if self.addresses.len() >= ADDRESSES
            && let Some(&oldest) =
                self.addresses.iter().min_by_key(|(_, failures)| failures.until).map(|(address, _)| address)
        {
            self.addresses.remove(&oldest);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_a_minute_and_are_forgotten() {
        let (mut backoff, start) = (Backoff::default(), Instant::now());
        let address = IpAddr::from([10, 0, 0, 1]);
        let (mut now, mut waits) = (start, Vec::new());
        for _ in 0..FREE + 8 {
            backoff.note(address, now);
            let wait = backoff.wait(address, now).unwrap_or_default();
            waits.push(wait.as_secs());
            now += wait;
            assert_eq!(backoff.wait(address, now), None);
        }
        assert_eq!(waits, [0, 0, 0, 0, 1, 2, 4, 8, 16, 32, 60, 60, 60]);
        now += MEMORY + Duration::from_secs(1);
        backoff.note(address, now);
        assert_eq!(backoff.wait(address, now), None);
    }

    #[test]
    fn a_network_of_ipv6_counts_as_one() {
        let (mut backoff, now) = (Backoff::default(), Instant::now());
        let at = |text: &str| text.parse::<IpAddr>().unwrap();
        for host in 0..FREE {
            backoff.note(at(&format!("2001:db8::{host}")), now);
        }
        assert!(backoff.wait(at("2001:db8::ffff"), now).is_some());
        assert!(backoff.wait(at("2001:db8:0:1::1"), now).is_none());
        // The same host, whether it came by one family or mapped into the other.
        for _ in 0..FREE {
            backoff.note(at("::ffff:10.0.0.1"), now);
        }
        assert!(backoff.wait(at("10.0.0.1"), now).is_some());
        assert!(backoff.wait(at("10.0.0.2"), now).is_none());
    }

    #[test]
    fn the_table_is_bounded_and_keeps_those_that_wait_longest() {
        let (mut backoff, now) = (Backoff::default(), Instant::now());
        let guesser = IpAddr::from([10, 0, 0, 1]);
        (0..FREE).for_each(|_| backoff.note(guesser, now));
        for host in 0..2 * ADDRESSES as u32 {
            backoff.note(IpAddr::from((0x0b00_0000 + host).to_be_bytes()), now);
        }
        assert_eq!(backoff.addresses.len(), ADDRESSES);
        assert!(backoff.wait(guesser, now).is_some());
    }
}
