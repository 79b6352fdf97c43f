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
    /// Counts the connection for its origin; only the first call counts.
    pub fn from(&mut self, origin: Origin) -> Result<(), Refusal> {
        if self.origin.is_some() {
            return Ok(());
        }
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
mod tests;
