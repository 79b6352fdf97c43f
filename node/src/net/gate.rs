//! How many connections there may be: in all, from one origin, and before login.
//!
//! Those that have not authenticated keep nobody out: where there is no room, the oldest of them goes.

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;
use tokio::sync::{Notify, watch};

use super::Origin;
use super::origin::Network;
use crate::config::{Limits, StreamLimits};

/// Which limit refused a connection; the name is that of the option and of the metric's label.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Refusal {
    /// `limits.connections`.
    Total,
    /// `limits.connections_per_address`.
    PerAddress,
    /// `limits.connections_before_login`.
    BeforeLogin,
    /// `limits.connections_before_login_per_address`.
    BeforeLoginPerAddress,
    /// None: the node takes nobody now.
    Shut,
}

impl Refusal {
    /// The option's name.
    pub fn limit(self) -> &'static str {
        self.of(Whom::Clients)
    }

    fn of(self, whom: Whom) -> &'static str {
        match (self, whom) {
            (Self::Total, Whom::Clients) => "connections",
            (Self::PerAddress, Whom::Clients) => "connections_per_address",
            (Self::BeforeLogin, Whom::Clients) => "connections_before_login",
            (Self::BeforeLoginPerAddress, Whom::Clients) => "connections_before_login_per_address",
            (Self::Total, Whom::Servers) => "federation.streams",
            (Self::PerAddress, Whom::Servers) => "federation.streams_per_address",
            (Self::BeforeLogin, Whom::Servers) => "federation.streams_unproved",
            (Self::BeforeLoginPerAddress, Whom::Servers) => "federation.streams_unproved_per_address",
            (Self::Shut, _) => "shut",
        }
    }
}

/// The kinds of peers at a gate. Each kind has options of its own.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Whom {
    Clients,
    Servers,
}

#[derive(Clone, Copy, Default)]
struct Count {
    all: usize,
    before_login: usize,
}

/// The bounds in force.
#[derive(Clone, Copy, Debug)]
struct Bounds {
    connections: usize,
    per_address: usize,
    before_login: usize,
    before_login_per_address: usize,
}

impl From<&Limits> for Bounds {
    fn from(limits: &Limits) -> Self {
        Self {
            connections: limits.connections,
            per_address: limits.connections_per_address,
            before_login: limits.connections_before_login,
            before_login_per_address: limits.connections_before_login_per_address,
        }
    }
}

impl From<&StreamLimits> for Bounds {
    fn from(limits: &StreamLimits) -> Self {
        Self {
            connections: limits.streams,
            per_address: limits.streams_per_address,
            before_login: limits.streams_unproved,
            before_login_per_address: limits.streams_unproved_per_address,
        }
    }
}

/// A connection that has not authenticated.
struct Stranger {
    origin: Option<Origin>,
    away: Arc<Away>,
}

/// Tells a connection that it must make room.
#[derive(Default)]
struct Away {
    /// The connection was told, and is not counted any more.
    sent: AtomicBool,
    wake: Notify,
}

struct Inner {
    whom: Whom,
    bounds: Bounds,
    total: Count,
    by_network: HashMap<Network, Count>,
    /// Oldest first.
    strangers: BTreeMap<u64, Stranger>,
    next: u64,
}

impl Inner {
    /// Sends away the oldest connection without login for which `fits` is true; whether there was one.
    fn make_room(&mut self, limit: Refusal, fits: impl Fn(Option<Origin>) -> bool) -> bool {
        let Some(number) = self.strangers.iter().find(|(_, s)| fits(s.origin)).map(|(number, _)| *number)
        else {
            return false;
        };
        if let Some(Stranger { origin, away }) = self.strangers.remove(&number) {
            away.sent.store(true, Ordering::Release);
            away.wake.notify_one();
            self.uncount(origin, true);
            metrics::counter!("rookery_limits_hit_total", "limit" => limit.of(self.whom)).increment(1);
        }
        true
    }

    fn uncount(&mut self, origin: Option<Origin>, before_login: bool) {
        let waiting = usize::from(before_login);
        self.total.all = self.total.all.saturating_sub(1);
        self.total.before_login = self.total.before_login.saturating_sub(waiting);
        for (network, _) in origin.into_iter().flat_map(Origin::networks) {
            if let Entry::Occupied(mut entry) = self.by_network.entry(network) {
                let count = entry.get_mut();
                count.all = count.all.saturating_sub(1);
                count.before_login = count.before_login.saturating_sub(waiting);
                if count.all == 0 {
                    entry.remove();
                }
            }
        }
    }
}

struct Shared {
    inner: Mutex<Inner>,
    empty: Notify,
    shut: watch::Sender<bool>,
}

/// Counts connections. Cheap to clone.
#[derive(Clone)]
pub struct Gate(Arc<Shared>);

/// One counted connection; dropping it takes it off the count.
pub struct Pass {
    gate: Gate,
    number: u64,
    away: Arc<Away>,
    origin: Option<Origin>,
    before_login: bool,
}

/// What a connection must know of its pass while it has not authenticated.
#[derive(Clone)]
pub struct Standing {
    gate: Gate,
    number: u64,
    away: Arc<Away>,
}

impl Gate {
    /// A gate for clients with these limits.
    pub fn new(limits: &Limits) -> Self {
        Self::make(Whom::Clients, limits.into())
    }

    /// A gate for other servers with these limits.
    pub fn for_servers(limits: &StreamLimits) -> Self {
        Self::make(Whom::Servers, limits.into())
    }

    fn make(whom: Whom, bounds: Bounds) -> Self {
        let inner = Inner {
            whom,
            bounds,
            total: Count::default(),
            by_network: HashMap::new(),
            strangers: BTreeMap::new(),
            next: 0,
        };
        let shut = watch::Sender::new(false);
        Self(Arc::new(Shared { inner: Mutex::new(inner), empty: Notify::new(), shut }))
    }

    /// Takes no connection from now on; connections on the way to a session are sent away.
    pub fn shut(&self) {
        self.0.shut.send_replace(true);
    }

    /// Takes connections again. Whether it was shut.
    pub fn open(&self) -> bool {
        self.0.shut.send_replace(false)
    }

    /// Waits until it is shut.
    pub async fn is_shut(&self) {
        let _ = self.0.shut.subscribe().wait_for(|shut| *shut).await;
    }

    /// Other limits, for connections to come.
    pub fn set_limits(&self, limits: &Limits) {
        self.0.inner.lock().bounds = limits.into();
    }

    /// The same for a gate for other servers.
    pub fn set_stream_limits(&self, limits: &StreamLimits) {
        self.0.inner.lock().bounds = limits.into();
    }

    /// The name of the option that refuses.
    pub fn limit(&self, refusal: Refusal) -> &'static str {
        refusal.of(self.0.inner.lock().whom)
    }

    /// Counts a connection that was accepted, before it is known where it really comes from.
    pub fn enter(&self) -> Result<Pass, Refusal> {
        if *self.0.shut.borrow() {
            return Err(Refusal::Shut);
        }
        let mut inner = self.0.inner.lock();
        let bounds = inner.bounds;
        let anybody = |_| true;
        if inner.total.before_login >= bounds.before_login && !inner.make_room(Refusal::BeforeLogin, anybody)
        {
            return Err(Refusal::BeforeLogin);
        }
        if inner.total.all >= bounds.connections && !inner.make_room(Refusal::Total, anybody) {
            return Err(Refusal::Total);
        }
        inner.total.all += 1;
        inner.total.before_login += 1;
        let (number, away) = (inner.next, Arc::<Away>::default());
        inner.next += 1;
        inner.strangers.insert(number, Stranger { origin: None, away: away.clone() });
        Ok(Pass { gate: self.clone(), number, away, origin: None, before_login: true })
    }

    /// Waits until the last connection has ended.
    pub async fn emptied(&self) {
        loop {
            let mut empty = std::pin::pin!(self.0.empty.notified());
            empty.as_mut().enable();
            if self.counts().0 == 0 {
                return;
            }
            empty.await;
        }
    }

    /// Connections now: all, and those before login.
    pub fn counts(&self) -> (usize, usize) {
        let total = self.0.inner.lock().total;
        (total.all, total.before_login)
    }
}

impl Pass {
    /// Counts the connection for its origin.
    pub fn from(&mut self, origin: Origin) -> Result<(), Refusal> {
        let mut inner = self.gate.0.inner.lock();
        if !inner.strangers.contains_key(&self.number) {
            return Ok(()); // it goes already
        }
        let bounds = inner.bounds;
        let now = |inner: &Inner, network| inner.by_network.get(&network).copied().unwrap_or_default();
        let lies_in = |network: Network| {
            move |other: Option<Origin>| other.is_some_and(|o| o.networks().any(|(n, _)| n == network))
        };
        if now(&inner, origin.network()).all >= bounds.per_address
            && !inner.make_room(Refusal::PerAddress, lies_in(origin.network()))
        {
            return Err(Refusal::PerAddress);
        }
        for (network, share) in origin.networks() {
            let most = bounds.before_login_per_address.saturating_mul(share as usize);
            if now(&inner, network).before_login >= most
                && !inner.make_room(Refusal::BeforeLoginPerAddress, lies_in(network))
            {
                return Err(Refusal::BeforeLoginPerAddress);
            }
        }
        for (network, _) in origin.networks() {
            let count = inner.by_network.entry(network).or_default();
            count.all += 1;
            count.before_login += 1;
        }
        if let Some(stranger) = inner.strangers.get_mut(&self.number) {
            stranger.origin = Some(origin);
        }
        self.origin = Some(origin);
        Ok(())
    }

    /// What the connection has to know until it has authenticated.
    pub fn standing(&self) -> Standing {
        Standing { gate: self.gate.clone(), number: self.number, away: self.away.clone() }
    }

    /// The connection is logged in.
    pub fn logged_in(&mut self) {
        if !std::mem::replace(&mut self.before_login, false) {
            return;
        }
        let mut inner = self.gate.0.inner.lock();
        inner.strangers.remove(&self.number);
        if self.away.sent.load(Ordering::Acquire) {
            return;
        }
        inner.total.before_login = inner.total.before_login.saturating_sub(1);
        for (network, _) in self.origin.into_iter().flat_map(Origin::networks) {
            if let Some(count) = inner.by_network.get_mut(&network) {
                count.before_login = count.before_login.saturating_sub(1);
            }
        }
    }
}

impl Standing {
    /// The client has proved who it is: it makes room for nobody from now on.
    pub fn proved(&self) {
        self.gate.0.inner.lock().strangers.remove(&self.number);
    }

    /// Waits until it must make room.
    pub async fn sent_away(&self) {
        self.away.wake.notified().await;
    }
}

impl Drop for Pass {
    fn drop(&mut self) {
        let mut inner = self.gate.0.inner.lock();
        inner.strangers.remove(&self.number);
        if !self.away.sent.load(Ordering::Acquire) {
            inner.uncount(self.origin, self.before_login);
        }
        if inner.total.all == 0 {
            self.gate.0.empty.notify_waiters();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gate(connections: usize, per_address: usize, before: usize, before_per: usize) -> Gate {
        let mut limits = crate::config::Config::development().limits;
        limits.connections = connections;
        limits.connections_per_address = per_address;
        limits.connections_before_login = before;
        limits.connections_before_login_per_address = before_per;
        Gate::new(&limits)
    }

    fn origin(n: u8) -> Origin {
        std::net::IpAddr::from([192, 0, 2, n]).into()
    }

    fn sent(pass: &Pass) -> bool {
        pass.away.sent.load(Ordering::Acquire)
    }

    #[test]
    fn in_all_and_before_login() {
        let gate = gate(3, 9, 2, 9);
        let mut a = gate.enter().unwrap();
        let b = gate.enter().unwrap();
        a.standing().proved();
        b.standing().proved();
        assert_eq!(gate.enter().err(), Some(Refusal::BeforeLogin));
        a.logged_in();
        a.logged_in();
        let c = gate.enter().unwrap();
        c.standing().proved();
        drop(b);
        let mut d = gate.enter().unwrap();
        d.logged_in();
        assert_eq!(gate.enter().err(), Some(Refusal::Total));
        assert_eq!(gate.counts(), (3, 1));
        drop((a, c, d));
        assert_eq!(gate.counts(), (0, 0));
    }

    #[test]
    fn the_oldest_that_has_not_authenticated_makes_room() {
        let gate = gate(9, 9, 3, 2);
        let mut passes: Vec<_> = (0..3).map(|_| gate.enter().unwrap()).collect();
        passes[0].from(origin(1)).unwrap();
        passes[0].standing().proved();
        passes[1].from(origin(2)).unwrap();
        passes[2].from(origin(1)).unwrap();
        // In all: the oldest, which is not counted any more, though not gone yet.
        let mut d = gate.enter().unwrap();
        assert!(!sent(&passes[0]) && sent(&passes[1]) && !sent(&passes[2]));
        assert_eq!(gate.counts(), (3, 3));
        // From one address: the oldest from there.
        d.from(origin(1)).unwrap();
        assert!(sent(&passes[2]) && !sent(&d));
        assert_eq!(gate.counts(), (2, 2));
        passes.push(d);
        passes.iter_mut().for_each(Pass::logged_in);
        assert_eq!(gate.counts(), (2, 0));
        drop(passes);
        assert_eq!(gate.counts(), (0, 0));
        assert!(gate.0.inner.lock().by_network.is_empty());
    }

    #[test]
    fn the_networks_of_one_customer_count_together() {
        let gate = gate(9_999, 9_999, 9_999, 2);
        let from = |text: String| Origin::from(text.parse::<std::net::IpAddr>().unwrap());
        let enter = |origin| {
            let mut pass = gate.enter().unwrap();
            pass.from(origin).unwrap();
            pass
        };
        let one: Vec<_> = (0..256).map(|n| enter(from(format!("2001:db8:1:{n:x}::1")))).collect();
        assert_eq!(one.iter().filter(|p| !sent(p)).count(), 4, "of one /56");
        let more: Vec<_> = (1..256).map(|n| enter(from(format!("2001:db8:1:{n:x}00::1")))).collect();
        assert_eq!(one.iter().chain(&more).filter(|p| !sent(p)).count(), 8, "of one /48");
        let other = enter(from("2001:db8:2::1".to_owned()));
        assert_eq!(gate.counts(), (9, 9));
        drop((one, more, other));
        assert!(gate.0.inner.lock().by_network.is_empty());
    }

    #[test]
    fn from_one_origin() {
        let gate = gate(9, 2, 9, 1);
        let mut a = gate.enter().unwrap();
        a.from(origin(1)).unwrap();
        a.standing().proved();
        let mut b = gate.enter().unwrap();
        assert_eq!(b.from(origin(1)), Err(Refusal::BeforeLoginPerAddress));
        b.from(origin(2)).unwrap();
        a.logged_in();
        let mut c = gate.enter().unwrap();
        c.from(origin(1)).unwrap();
        c.logged_in();
        let mut d = gate.enter().unwrap();
        assert_eq!(d.from(origin(1)), Err(Refusal::PerAddress));
        drop((a, b, c, d));
        assert!(gate.0.inner.lock().by_network.is_empty());
    }

    #[test]
    fn new_limits_hold_for_the_next() {
        let small = gate(1, 1, 1, 1);
        let one = small.enter().unwrap();
        one.standing().proved();
        assert!(small.enter().is_err());
        small.set_limits(&crate::config::Config::development().limits);
        assert!(small.enter().is_ok());
    }

    #[tokio::test]
    async fn shut_and_open() {
        let gate = gate(9, 9, 9, 9);
        assert!(!gate.open());
        gate.shut();
        gate.is_shut().await;
        assert_eq!(gate.enter().err(), Some(Refusal::Shut));
        assert!(gate.open() && gate.enter().is_ok());
    }
}
