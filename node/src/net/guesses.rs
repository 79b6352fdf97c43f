//! Guesses of passwords: how many there were for an account from an address, and from the address in all, and how long the
//! next one waits because of them.
//!
//! An attempt is reserved before the password is looked at, and takes its place behind those that were reserved before: many
//! at once are as slow as one after the other. A user who shares an address with an attacker is not slowed by guesses for others'
//! accounts where the account has logged in from there lately.

use std::collections::HashMap;
use std::hash::{BuildHasher as _, Hash, RandomState};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

use super::Origin;
use super::origin::Network;

/// How many entries of each kind are remembered; beyond, those that are quiet longest are forgotten first.
const ENTRIES: usize = 16_384;
/// How many accounts are known at their addresses.
const KNOWN: usize = 65_536;
/// How long an account is known at an address after it has logged in from there.
const LATELY: Duration = Duration::from_secs(30 * 86_400);

/// How many times as many wrong passwords it may take there: one of its devices may have the old one.
const AT_HOME: u32 = 4;

/// What is allowed.
#[derive(Clone, Copy, Debug)]
pub struct Policy {
    /// Wrong passwords for one account from one address before the next attempt is delayed.
    pub per_account: u32,
    /// Wrong passwords from one address.
    pub per_address: u32,
    /// The longest delay. An attempt that would have to wait longer is refused.
    pub longest: Duration,
}

/// The name of the option whose limit was reached.
type Limit = &'static str;
const ACCOUNT: Limit = "login_failures_per_account";
const ADDRESS: Limit = "login_failures_per_address";

#[derive(Clone, Copy)]
struct Entry {
    /// Attempts that were wrong, or are under way.
    count: u32,
    /// When the first of them was.
    since: Instant,
    /// When the last of them has waited long enough.
    last: Instant,
}

impl Entry {
    fn new(now: Instant) -> Self {
        Self { count: 0, since: now, last: now }
    }

    /// When one more attempt may be made: a second later for each beyond `free`, behind the last.
    fn next(&self, now: Instant, free: u32, longest: Duration) -> Instant {
        if self.count < free {
            return now;
        }
        let over = self.count.saturating_sub(free).saturating_add(1);
        self.last.max(now) + Duration::from_secs(over.into()).min(longest)
    }
}

/// A table of entries within a window of time. Bounded.
struct Table<K>(HashMap<K, Entry>);

impl<K: Eq + Hash + Copy> Table<K> {
    fn get(&self, key: K, now: Instant, window: Duration) -> Entry {
        let found = self.0.get(&key).copied();
        found.filter(|e| now.duration_since(e.since) < window).unwrap_or_else(|| Entry::new(now))
    }

    fn put(&mut self, key: K, entry: Entry, now: Instant, window: Duration) {
        if self.0.len() >= ENTRIES && !self.0.contains_key(&key) {
            self.0.retain(|_, e| now.duration_since(e.since) < window);
            thin(&mut self.0, ENTRIES, |e| e.last);
        }
        self.0.insert(key, entry);
    }

    fn take_back(&mut self, key: K) {
        if let Some(entry) = self.0.get_mut(&key) {
            entry.count = entry.count.saturating_sub(1);
            if entry.count == 0 {
                self.0.remove(&key);
            }
        }
    }
}

/// Forgets the oldest eighth if there are `most`: one by one each would cost a look at all.
fn thin<K: Eq + Hash, V>(all: &mut HashMap<K, V>, most: usize, age: impl Fn(&V) -> Instant) {
    if all.len() < most {
        return;
    }
    let mut ages: Vec<Instant> = all.values().map(&age).collect();
    let (_, limit, _) = ages.select_nth_unstable(most / 8);
    let limit = *limit;
    all.retain(|_, v| age(v) > limit);
}

struct Inner {
    /// By account and network, hashed with a secret of the process: names of any length take no room.
    pairs: Table<u64>,
    addresses: Table<Network>,
    known: HashMap<u64, Instant>,
}

/// See the module.
pub struct Guesses {
    window: Duration,
    secret: RandomState,
    inner: Mutex<Inner>,
}

/// One attempt, reserved. Dropped without a verdict it was none.
pub struct Attempt {
    guesses: Arc<Guesses>,
    pairs: Vec<u64>,
    networks: Vec<Network>,
    /// How long to wait, and the limit that says so.
    pub wait: Option<(Duration, Limit)>,
    open: bool,
}

impl Guesses {
    /// Attempts count for `window` after the first.
    pub fn new(window: Duration) -> Arc<Self> {
        let tables = (Table(HashMap::new()), Table(HashMap::new()), HashMap::new());
        let (pairs, addresses, known) = tables;
        let inner = Mutex::new(Inner { pairs, addresses, known });
        Arc::new(Self { window, secret: RandomState::new(), inner })
    }

    fn pair(&self, account: &str, network: Network) -> u64 {
        self.secret.hash_one((account, network))
    }

    /// Reserves an attempt to log in to `account` from `origin`.
    ///
    /// # Errors
    /// The limit's name, if it would have to wait longer than is sensible.
    pub fn reserve(
        self: &Arc<Self>,
        account: &str,
        origin: Origin,
        policy: &Policy,
    ) -> Result<Attempt, Limit> {
        let (now, window, longest) = (Instant::now(), self.window, policy.longest);
        let networks: Vec<(Network, u32)> = origin.networks().collect();
        let mut inner = self.inner.lock();
        let at_home = inner
            .known
            .get(&self.pair(account, origin.network()))
            .is_some_and(|at| now.duration_since(*at) < LATELY);
        let (mut due, mut limit) = (now, None);
        let (mut pairs, mut addresses) = (Vec::new(), Vec::new());
        for (network, share) in &networks {
            let key = self.pair(account, *network);
            let entry = inner.pairs.get(key, now, window);
            let share_of_account = if at_home { share.saturating_mul(AT_HOME) } else { *share };
            let next = entry.next(now, policy.per_account.saturating_mul(share_of_account), longest);
            if next > due {
                (due, limit) = (next, Some(ACCOUNT));
            }
            pairs.push((key, Entry { count: entry.count.saturating_add(1), last: next, ..entry }));
            let entry = inner.addresses.get(*network, now, window);
            let mut next = entry.next(now, policy.per_address.saturating_mul(*share), longest);
            if at_home {
                next = entry.last; // it takes nobody's turn
            } else if next > due {
                (due, limit) = (next, Some(ADDRESS));
            }
            addresses.push((*network, Entry { count: entry.count.saturating_add(1), last: next, ..entry }));
        }
        if let Some(limit) = limit
            && due - now > longest
        {
            return Err(limit);
        }
        for (key, entry) in &pairs {
            inner.pairs.put(*key, *entry, now, window);
        }
        for (network, entry) in &addresses {
            inner.addresses.put(*network, *entry, now, window);
        }
        drop(inner);
        Ok(Attempt {
            guesses: self.clone(),
            pairs: pairs.into_iter().map(|(key, _)| key).collect(),
            networks: addresses.into_iter().map(|(network, _)| network).collect(),
            wait: limit.map(|limit| (due - now, limit)),
            open: true,
        })
    }

    /// How many wrong passwords came from `origin` within the window, and attempts that are under way.
    pub fn count(&self, origin: Origin) -> u32 {
        self.inner.lock().addresses.get(origin.network(), Instant::now(), self.window).count
    }
}

impl Attempt {
    /// The password was right: the account is known at this address from now on.
    pub fn right(self) {
        let mut inner = self.guesses.inner.lock();
        let now = Instant::now();
        thin(&mut inner.known, KNOWN, |at| *at);
        if let Some(key) = self.pairs.first() {
            inner.known.insert(*key, now);
        }
    }

    /// The password was wrong. Returns how many wrong ones came from the address within the window.
    pub fn wrong(mut self) -> u32 {
        self.open = false;
        let network = self.networks.first().copied();
        let inner = self.guesses.inner.lock();
        network.map_or(0, |network| inner.addresses.get(network, Instant::now(), self.guesses.window).count)
    }
}

impl Drop for Attempt {
    fn drop(&mut self) {
        if self.open {
            let mut inner = self.guesses.inner.lock();
            self.pairs.iter().for_each(|key| inner.pairs.take_back(*key));
            self.networks.iter().for_each(|network| inner.addresses.take_back(*network));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const POLICY: Policy = Policy { per_account: 2, per_address: 5, longest: Duration::from_secs(3) };

    fn origin(text: &str) -> Origin {
        text.parse::<std::net::IpAddr>().unwrap().into()
    }

    fn guesses() -> Arc<Guesses> {
        Guesses::new(Duration::from_secs(600))
    }

    /// Seconds that an attempt has to wait, or the limit that refuses it; it is wrong.
    fn wrong(guesses: &Arc<Guesses>, account: &str, from: &str) -> Result<u64, Limit> {
        let attempt = guesses.reserve(account, origin(from), &POLICY)?;
        let wait = attempt.wait.map_or(0, |(wait, _)| wait.as_secs());
        attempt.wrong();
        Ok(wait)
    }

    #[tokio::test(start_paused = true)]
    async fn one_after_the_other_they_get_slower() {
        let guesses = guesses();
        let mut waits = Vec::new();
        for _ in 0..7 {
            let wait = wrong(&guesses, "a", "192.0.2.1").unwrap();
            tokio::time::advance(Duration::from_secs(wait)).await;
            waits.push(wait);
        }
        assert_eq!(waits, [0, 0, 1, 2, 3, 3, 3]);
        tokio::time::advance(Duration::from_secs(600)).await;
        assert_eq!(wrong(&guesses, "a", "192.0.2.1"), Ok(0));
    }

    #[tokio::test(start_paused = true)]
    async fn many_at_once_are_as_slow_as_one_by_one() {
        let guesses = guesses();
        let attempts: Vec<_> =
            (0..100).filter_map(|_| guesses.reserve("a", origin("192.0.2.1"), &POLICY).ok()).collect();
        let waits: Vec<_> = attempts.iter().map(|a| a.wait.map_or(0, |(wait, _)| wait.as_secs())).collect();
        assert_eq!(waits, [0, 0, 1, 3]);
        assert_eq!(guesses.reserve("a", origin("192.0.2.1"), &POLICY).err(), Some(ACCOUNT));
        // What was no guess is taken back.
        drop(attempts);
        assert_eq!(guesses.count(origin("192.0.2.1")), 0);
        assert_eq!(wrong(&guesses, "a", "192.0.2.1"), Ok(0));
    }

    #[tokio::test(start_paused = true)]
    async fn others_at_the_address_are_slowed_later_and_who_is_known_there_is_not() {
        let guesses = guesses();
        guesses.reserve("known", origin("192.0.2.1"), &POLICY).unwrap().right();
        for _ in 0..3 {
            assert!(wrong(&guesses, "victim", "192.0.2.1").is_ok());
        }
        // The attacker waits, and nobody else does: another account here, and the victim elsewhere.
        assert!(wrong(&guesses, "victim", "192.0.2.1").is_ok_and(|wait| wait > 0));
        for (account, from) in [("stranger", "192.0.2.1"), ("victim", "192.0.2.2")] {
            assert!(
                guesses.reserve(account, origin(from), &POLICY).unwrap().wait.is_none(),
                "{account} {from}"
            );
        }
        // With guesses for many accounts the address is slow, but not for an account that has logged in from there.
        for n in 0..20 {
            let _ = wrong(&guesses, &format!("victim{n}"), "192.0.2.1");
        }
        assert!(guesses.reserve("stranger", origin("192.0.2.1"), &POLICY).is_err());
        assert!(guesses.reserve("known", origin("192.0.2.1"), &POLICY).unwrap().wait.is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn a_device_with_an_old_password_does_not_lock_the_others_out() {
        let guesses = guesses();
        guesses.reserve("a", origin("192.0.2.1"), &POLICY).unwrap().right();
        for _ in 0..8 {
            assert_eq!(wrong(&guesses, "a", "192.0.2.1"), Ok(0));
        }
        assert!(wrong(&guesses, "a", "192.0.2.1").is_ok_and(|wait| wait > 0));
    }

    #[tokio::test(start_paused = true)]
    async fn the_networks_of_one_customer_count_together() {
        let guesses = guesses();
        let mut taken = 0;
        for net in 0..200 {
            taken += u32::from(wrong(&guesses, "a", &format!("2001:db8:1:{net:x}::1")) == Ok(0));
        }
        assert_eq!(taken, 4, "as many as two /64 may");
    }

    #[tokio::test(start_paused = true)]
    async fn the_tables_are_bounded() {
        let guesses = guesses();
        wrong(&guesses, "a", "10.0.0.0").unwrap();
        tokio::time::advance(Duration::from_secs(1)).await;
        for n in 1..=u32::try_from(ENTRIES).unwrap() {
            let from: Origin = std::net::IpAddr::V4(n.into()).into();
            guesses.reserve(&n.to_string(), from, &POLICY).unwrap().wrong();
        }
        let inner = guesses.inner.lock();
        assert!(inner.pairs.0.len() <= ENTRIES && inner.addresses.0.len() <= ENTRIES);
        drop(inner);
        assert_eq!(guesses.count(origin("10.0.0.0")), 0);
    }
}
