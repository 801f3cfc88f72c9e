//! Who has how many of the process's connections.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use crate::limits::Limits;

/// Somebody with one address of IPv6 has its whole network of 64 bits; an address of IPv4 is that, however it is written.
pub fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() >> 64 << 64)),
        address @ IpAddr::V4(_) => address,
    }
}

/// Connections that are open, counted up by the poller's thread and down by whoever drops one.
#[derive(Debug, Default)]
pub(crate) struct Places {
    all: AtomicUsize,
    /// Of networks that have some, for as long as they have.
    networks: Mutex<HashMap<IpAddr, usize>>,
}

impl Places {
    /// Connections open.
    pub(crate) fn taken(&self) -> usize {
        self.all.load(Ordering::Relaxed)
    }

    /// Takes a place, and says whether that is more than the limits give one address.
    pub(crate) fn take(self: &Arc<Self>, address: IpAddr, limits: &Limits) -> (Place, bool) {
        self.all.fetch_add(1, Ordering::Relaxed);
        let counted = limits.limit_loopback || !address.to_canonical().is_loopback();
        let network = counted.then(|| network(address));
        let mut many = false;
        if let Some(network) = network {
            let mut networks = self.networks.lock().unwrap_or_else(PoisonError::into_inner);
            let count = networks.entry(network).or_default();
            *count += 1;
            many = *count > limits.max_connections_per_address;
        }
        (Place { places: Arc::clone(self), network }, many)
    }
}

/// A place among the process's connections, free again when dropped.
#[derive(Debug)]
pub(crate) struct Place {
    places: Arc<Places>,
    network: Option<IpAddr>,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.places.all.fetch_sub(1, Ordering::Relaxed);
        let Some(network) = self.network else { return };
        let mut networks = self.places.networks.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = networks.get_mut(&network) {
            *count -= 1;
            if *count == 0 {
                networks.remove(&network);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_has_so_many_and_gets_back_what_it_leaves() {
        let places = Arc::new(Places::default());
        let limits = Limits { max_connections_per_address: 2, ..Limits::default() };
        let take = |address: &str| places.take(address.parse().unwrap(), &limits);
        let (first, many) = take("10.0.0.1");
        assert!(!many && !take("10.0.0.2").1);
        let (second, many) = take("::ffff:10.0.0.1");
        assert!(!many && take("10.0.0.1").1);
        drop(first);
        assert!(!take("10.0.0.1").1);
        assert!(take("2001:db8::1").0.network == take("2001:db8::2").0.network);
        drop(second);
        assert_eq!((places.taken(), places.networks.lock().unwrap().len()), (0, 0));
    }

    #[test]
    fn the_loopback_is_counted_on_request_only() {
        let places = Arc::new(Places::default());
        let limits = Limits { max_connections_per_address: 1, ..Limits::default() };
        let home = IpAddr::from([127, 0, 0, 1]);
        let held: Vec<_> = (0..3).map(|_| places.take(home, &limits)).collect();
        assert!(held.iter().all(|(_, many)| !many) && places.taken() == 3);
        let limits = Limits { limit_loopback: true, ..limits };
        let held = [places.take(home, &limits), places.take(home, &limits)];
        assert_eq!((held[0].1, held[1].1), (false, true));
    }
}
