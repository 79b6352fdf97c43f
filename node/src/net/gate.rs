//! How many connections there may be: in all, from one origin, and before login.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::{Notify, watch};

use super::Origin;
use crate::config::Limits;

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
        match self {
            Self::Total => "connections",
            Self::PerAddress => "connections_per_address",
            Self::BeforeLogin => "connections_before_login",
            Self::BeforeLoginPerAddress => "connections_before_login_per_address",
            Self::Shut => "shut",
        }
    }
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

struct Inner {
    bounds: Bounds,
    total: Count,
    /// One entry for each origin with a connection: as bounded as the connections are.
    by_origin: HashMap<Origin, Count>,
}

/// Counts connections. Cheap to clone.
#[derive(Clone)]
pub struct Gate(Arc<Shared>);

struct Shared {
    inner: Mutex<Inner>,
    /// Somebody waits until there is no connection.
    empty: Notify,
    shut: watch::Sender<bool>,
}

/// One counted connection; dropping it takes it off the count.
pub struct Pass {
    gate: Gate,
    origin: Option<Origin>,
    before_login: bool,
}

impl Gate {
    /// A gate with these limits.
    pub fn new(limits: &Limits) -> Self {
        let inner = Inner { bounds: limits.into(), total: Count::default(), by_origin: HashMap::new() };
        let shut = watch::Sender::new(false);
        Self(Arc::new(Shared { inner: Mutex::new(inner), empty: Notify::new(), shut }))
    }

    /// Takes nobody from now on; who is on the way to a session is sent away.
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

    /// Counts a connection that was accepted, before it is known where it really comes from.
    pub fn enter(&self) -> Result<Pass, Refusal> {
        if *self.0.shut.borrow() {
            return Err(Refusal::Shut);
        }
        let mut inner = self.0.inner.lock();
        if inner.total.all >= inner.bounds.connections {
            return Err(Refusal::Total);
        }
        if inner.total.before_login >= inner.bounds.before_login {
            return Err(Refusal::BeforeLogin);
        }
        inner.total.all += 1;
        inner.total.before_login += 1;
        Ok(Pass { gate: self.clone(), origin: None, before_login: true })
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
        let bounds = inner.bounds;
        let count = inner.by_origin.entry(origin).or_default();
        let refusal = if count.all >= bounds.per_address {
            Some(Refusal::PerAddress)
        } else if count.before_login >= bounds.before_login_per_address {
            Some(Refusal::BeforeLoginPerAddress)
        } else {
            None
        };
        if let Some(refusal) = refusal {
            return Err(refusal);
        }
        count.all += 1;
        count.before_login += 1;
        self.origin = Some(origin);
        Ok(())
    }

    /// The connection is logged in.
    pub fn logged_in(&mut self) {
        if !std::mem::replace(&mut self.before_login, false) {
            return;
        }
        let mut inner = self.gate.0.inner.lock();
        inner.total.before_login = inner.total.before_login.saturating_sub(1);
        if let Some(count) = self.origin.and_then(|o| inner.by_origin.get_mut(&o)) {
            count.before_login = count.before_login.saturating_sub(1);
        }
    }
}

impl Drop for Pass {
    fn drop(&mut self) {
        let waiting = usize::from(self.before_login);
        let mut inner = self.gate.0.inner.lock();
        inner.total.all = inner.total.all.saturating_sub(1);
        inner.total.before_login = inner.total.before_login.saturating_sub(waiting);
        if inner.total.all == 0 {
            self.gate.0.empty.notify_waiters();
        }
        if let Some(Entry::Occupied(mut entry)) = self.origin.map(|o| inner.by_origin.entry(o)) {
            let count = entry.get_mut();
            count.all = count.all.saturating_sub(1);
            count.before_login = count.before_login.saturating_sub(waiting);
            if count.all == 0 {
                entry.remove();
            }
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

    #[test]
    fn in_all_and_before_login() {
        let gate = gate(3, 9, 2, 9);
        let mut a = gate.enter().unwrap();
        let b = gate.enter().unwrap();
        assert_eq!(gate.enter().err(), Some(Refusal::BeforeLogin));
        a.logged_in();
        a.logged_in();
        let c = gate.enter().unwrap();
        assert_eq!(gate.enter().err(), Some(Refusal::Total));
        assert_eq!(gate.counts(), (3, 2));
        drop((a, b, c));
        assert_eq!(gate.counts(), (0, 0));
    }

    #[test]
    fn from_one_origin() {
        let gate = gate(9, 2, 9, 1);
        let mut a = gate.enter().unwrap();
        a.from(origin(1)).unwrap();
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
        assert!(gate.0.inner.lock().by_origin.is_empty());
    }

    #[test]
    fn new_limits_hold_for_the_next() {
        let small = gate(1, 1, 1, 1);
        let _one = small.enter().unwrap();
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
