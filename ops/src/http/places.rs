//! The connections that are open. A client that holds many keeps no other out: the oldest idle connection makes room.

use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::Notify;

use super::Limits;

/// A connection's place.
#[derive(Clone)]
pub(super) struct Place {
    /// Its number.
    pub(super) number: u64,
    /// Whether a request of it is being answered.
    pub(super) busy: Arc<AtomicBool>,
    /// Notified when it must make room.
    pub(super) away: Arc<Notify>,
}

struct Open {
    place: Place,
    address: Option<IpAddr>,
}

/// The connections that are open, oldest first.
#[derive(Default)]
pub(super) struct Places {
    open: BTreeMap<u64, Open>,
    by_address: HashMap<IpAddr, usize>,
    next: u64,
}

impl Places {
    /// Takes a place, if need be that of the oldest connection that is not being answered, else that of the oldest.
    /// `address`: `None` if it is not counted.
    pub(super) fn take(&mut self, address: Option<IpAddr>, limits: &Limits) -> Place {
        let address = address.map(origin);
        if let Some(address) = address
            && self.by_address.get(&address).is_some_and(|count| *count >= limits.connections_per_address)
        {
            self.make_room("http_connections_per_address", |open| open.address == Some(address));
        }
        if self.open.len() >= limits.connections {
            self.make_room("http_connections", |_| true);
        }
        let place = Place { number: self.next, busy: Arc::default(), away: Arc::default() };
        self.next += 1;
        if let Some(address) = address {
            *self.by_address.entry(address).or_default() += 1;
        }
        self.open.insert(place.number, Open { place: place.clone(), address });
        place
    }

    fn make_room(&mut self, limit: &'static str, of: impl Fn(&Open) -> bool) {
        let all = || self.open.values().filter(|open| of(open));
        let idle = all().find(|open| !open.place.busy.load(Ordering::Acquire));
        let Some(place) = idle.or_else(|| all().next()).map(|open| open.place.clone()) else { return };
        place.away.notify_one();
        self.leave(place.number);
        ::metrics::counter!("rookery_limits_hit_total", "limit" => limit).increment(1);
    }

    /// The connection has ended.
    pub(super) fn leave(&mut self, number: u64) {
        let Some(address) = self.open.remove(&number).and_then(|open| open.address) else { return };
        if let Some(count) = self.by_address.get_mut(&address) {
            *count -= 1;
            if *count == 0 {
                self.by_address.remove(&address);
            }
        }
    }
}

/// One IPv4 address, or the IPv6 /64 network of one.
fn origin(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) => {
            let [a, b, c, d, ..] = v6.segments();
            IpAddr::V6(Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0))
        }
        v4 => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_oldest_idle_one_of_the_address_goes() {
        let limits = Limits { connections: 5, connections_per_address: 2, ..Limits::default() };
        let mut places = Places::default();
        let address = |text: &str| Some(text.parse::<IpAddr>().unwrap());
        let other = places.take(address("192.0.2.9"), &limits);
        let [first, second] = [1, 2].map(|_| places.take(address("2001:db8::1"), &limits));
        first.busy.store(true, Ordering::Release);
        let third = places.take(address("2001:db8::ffff"), &limits);
        second.away.notified().await;
        assert_eq!(
            places.open.keys().copied().collect::<Vec<_>>(),
            [other.number, first.number, third.number]
        );
        // Proxies are counted in all only.
        for _ in 0..3 {
            places.take(None, &limits);
        }
        other.away.notified().await;
        for number in 0..20 {
            places.leave(number);
        }
        assert!(places.open.is_empty() && places.by_address.is_empty());
    }
}
