//! Finding the servers of other domains: SRV records (RFC 6120 section 3.2, XEP-0368 version 1.1.0), addresses, and whether
//! DNSSEC has validated them.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use hickory_resolver::net::NetError;
use rookery_cluster::seams::Seams;
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::config::{Dns, Proxy};

mod cache;
mod connect;
pub(crate) mod names;
mod reach;
mod resolver;
mod services;
mod socks;
mod srv;
mod target;

pub(crate) use connect::connect_to;
pub use connect::{Connected, Unreachable};
pub use target::{Begin, NotFound, Target, Targets, Tlsa};

use cache::Cache;
use reach::Reach;
use resolver::Resolver;
use services::{Addressed, Service, Without};
use srv::Ranked;

/// The port without SRV records (RFC 6120 section 3.2.2).
pub const PORT: u16 = 5269;
/// How long one domain may take.
const LIMIT: Duration = Duration::from_secs(20);
/// Of how many SRV records the hosts are looked up.
const TARGETS: usize = 16;
/// What was found holds for its TTL, within these bounds; what is not there, and what failed.
const HOLDS: (Duration, Duration) = (Duration::from_secs(30), Duration::from_secs(3_600));
const MISSES: (Duration, Duration) = (Duration::from_secs(30), Duration::from_secs(300));
const FAILS: Duration = Duration::from_secs(5);

/// Finds the servers of other domains. Shared by all streams of a node; its caches are within.
pub struct Finder {
    current: ArcSwap<Current>,
    cache: Cache<Result<Vec<Candidate>, NotFound>>,
    seams: Seams,
    loopback: bool,
}

/// What the configuration says.
struct Current {
    resolver: Resolver,
    proxy: Option<Proxy>,
    reach: Arc<Reach>,
}

/// A target with its rank among others.
#[derive(Clone, Debug)]
struct Candidate {
    priority: u16,
    weight: u16,
    target: Target,
}

impl Ranked for Candidate {
    fn priority(&self) -> u16 {
        self.priority
    }
    fn weight(&self) -> u16 {
        self.weight
    }
}

/// What was found, and for how long it holds.
type Timed<T> = (T, Duration);

impl Finder {
    /// By the configuration. The error says why its trust anchor cannot be used, or the resolver cannot start.
    pub fn new(config: &Dns, seams: Seams) -> Result<Self, NetError> {
        let current = ArcSwap::from_pointee(Current::new(config, false)?);
        Ok(Self { current, cache: Cache::new(), seams, loopback: false })
    }

    /// The same, but only addresses of this very machine count (127.0.0.0/8, ::1): for a server that is tried out.
    pub fn on_loopback(mut self) -> Self {
        let now = self.current.load_full();
        let reach = Arc::new(Reach { loopback: true, refused: now.reach.refused.clone() });
        let (resolver, proxy) = (now.resolver.clone(), now.proxy.clone());
        self.current.store(Arc::new(Current { resolver, proxy, reach }));
        self.loopback = true;
        self
    }

    /// Takes a changed configuration, or changed DNS servers of the system, and forgets what was found. On an error all stays.
    pub fn reload(&self, config: &Dns) -> Result<(), NetError> {
        self.current.store(Arc::new(Current::new(config, self.loopback)?));
        self.cache.clear();
        Ok(())
    }

    /// The targets of `domain` (as in a JID; in U-labels or A-labels), in the order of attempts. Takes 20 s at most.
    pub async fn find(&self, domain: &str) -> Result<Targets, NotFound> {
        let known = match self.cache.get(domain) {
            Some(known) => known,
            None => {
                let none =
                    NotFound::NoAnswer(domain.to_owned(), format!("no answer in {} s", LIMIT.as_secs()));
                let (found, ttl) = match timeout(LIMIT, self.look_up(domain)).await {
                    Ok(Ok((found, ttl))) => (Ok(found), ttl.clamp(HOLDS.0, HOLDS.1)),
                    Ok(Err((error, ttl))) if error.permanent() => (Err(error), ttl.clamp(MISSES.0, MISSES.1)),
                    Ok(Err((error, _))) => (Err(error), FAILS),
                    Err(_) => (Err(none), FAILS),
                };
                self.cache.put(domain, found.clone(), ttl);
                found
            }
        };
        // Drawn anew each time: the weights share the load.
        let list = srv::order(known?, &self.seams).into_iter().map(|one| one.target).collect();
        Ok(Targets { list })
    }

    /// Remembers where a domain is, for a test without DNS.
    #[cfg(test)]
    pub(crate) fn know(&self, domain: &str, at: &[(std::net::SocketAddr, Begin)]) {
        let candidate = |(n, (at, begin)): (usize, &(std::net::SocketAddr, Begin))| Candidate {
            priority: u16::try_from(n).unwrap(),
            weight: 0,
            target: Target {
                begin: *begin,
                host: at.ip().to_string(),
                port: at.port(),
                addresses: vec![at.ip()],
                secure: false,
                tlsa: Vec::new(),
                proxied: false,
            },
        };
        self.cache.put(domain, Ok(at.iter().enumerate().map(candidate).collect()), HOLDS.1);
    }

    /// A web server: one host and a port, where `dns.refuse_networks` permits. Takes 20 s at most.
    pub async fn web(&self, host: &str, port: u16) -> Result<Target, NotFound> {
        let reach = self.current.load().reach.clone();
        #[cfg(test)]
        if let Some(known) = self.cache.get(&format!("https://{host}:{port}")) {
            let mut target = known?.remove(0).target;
            target.addresses.retain(|address| reach.permits(*address));
            return if target.addresses.is_empty() {
                Err(NotFound::Refused(host.to_owned()))
            } else {
                Ok(target)
            };
        }
        self.look_up_one(host, port, Begin::Direct, reach).await
    }

    /// One host that is known by other means, as a static route is: in any network. Takes 20 s at most; nothing is remembered but
    /// what the resolver does.
    pub async fn host(&self, host: &str, port: u16, begin: Begin) -> Result<Target, NotFound> {
        let reach = Arc::new(Reach { loopback: self.loopback, refused: Vec::new() });
        self.look_up_one(host, port, begin, reach).await
    }

    async fn look_up_one(
        &self,
        host: &str,
        port: u16,
        begin: Begin,
        reach: Arc<Reach>,
    ) -> Result<Target, NotFound> {
        let none = NotFound::NoAnswer(host.to_owned(), format!("no answer in {} s", LIMIT.as_secs()));
        let found = timeout(LIMIT, self.look_up_host(host, port, begin, reach)).await.map_err(|_| none)?;
        found.map(|(target, _)| target).map_err(|(error, _)| error)
    }

    /// Connects to the first of `targets` that can be reached. If its TLS fails, call it again with the targets behind it.
    /// Takes 30 s at most.
    pub async fn connect(&self, targets: &[Target]) -> Result<Connected, Unreachable> {
        connect::connect(targets, self.current.load().proxy.clone()).await
    }

    async fn look_up_host(
        &self,
        host: &str,
        port: u16,
        begin: Begin,
        reach: Arc<Reach>,
    ) -> Result<Timed<Target>, Timed<NotFound>> {
        let current = self.current.load_full();
        let target = |host: String, addresses, proxied| Target {
            begin,
            host,
            port,
            addresses,
            secure: false,
            tlsa: Vec::new(),
            proxied,
        };
        if let Some(address) = names::address(host) {
            return match reach.permits(address) {
                true => Ok((target(address.to_string(), vec![address], false), HOLDS.1)),
                false => Err((NotFound::Refused(host.to_owned()), HOLDS.1)),
            };
        }
        let name = names::ascii(host).ok_or((NotFound::NotAName(host.to_owned()), MISSES.1))?;
        match &current.proxy {
            Some(proxy) if proxy.is_for(&name) => return Ok((target(name, Vec::new(), true), HOLDS.1)),
            _ if names::is_onion(&name) => return Err((NotFound::NoProxy(host.to_owned()), MISSES.0)),
            _ => {}
        }
        let (priority, weight) = (0, 0);
        // What is known without DNS is as sure as a record that was validated.
        let service = Service { begin, priority, weight, host: name, port, secure: true };
        match services::resolve(current.resolver.clone(), service, reach).await {
            Addressed::Found(candidate, ttl) => Ok((candidate.target, ttl)),
            Addressed::Nothing(ttl) => Err((NotFound::NoName(host.to_owned()), ttl)),
            Addressed::Refused(ttl) => Err((NotFound::Refused(host.to_owned()), ttl)),
            Addressed::Failed(why) => Err((NotFound::NoAnswer(host.to_owned(), why), FAILS)),
        }
    }

    async fn look_up(&self, domain: &str) -> Result<Timed<Vec<Candidate>>, Timed<NotFound>> {
        let candidate = |(target, ttl)| (vec![Candidate { priority: 0, weight: 0, target }], ttl);
        let current = self.current.load_full();
        let alone = || self.look_up_host(domain, PORT, Begin::Starttls, current.reach.clone());
        let name = match names::ascii(domain) {
            Some(name)
                if names::address(domain).is_none()
                    && !names::is_onion(&name)
                    && !current.proxy.as_ref().is_some_and(|proxy| proxy.is_for(&name)) =>
            {
                name
            }
            // No SRV records: an address, a name that the proxy knows, or none at all.
            _ => return alone().await.map(candidate),
        };
        let (services, ttl) = match services::both(&current.resolver, &name).await {
            Ok(Some(found)) => found,
            Ok(None) => return alone().await.map(candidate),
            Err((Without::Service, ttl)) => return Err((NotFound::NoService(domain.to_owned()), ttl)),
            Err((Without::Answer(why), ttl)) => {
                return Err((NotFound::NoAnswer(domain.to_owned(), why), ttl));
            }
        };
        let mut tasks = JoinSet::new();
        for service in srv::order(services, &self.seams).into_iter().take(TARGETS) {
            tasks.spawn(services::resolve(current.resolver.clone(), service, current.reach.clone()));
        }
        let (mut found, mut failed, mut refused, mut holds, mut misses) = (Vec::new(), None, false, ttl, ttl);
        while let Some(addressed) = tasks.join_next().await {
            match addressed {
                Ok(Addressed::Found(candidate, ttl)) => {
                    holds = holds.min(ttl);
                    found.push(candidate);
                }
                Ok(Addressed::Nothing(ttl)) => misses = misses.min(ttl),
                Ok(Addressed::Refused(ttl)) => (refused, misses) = (true, misses.min(ttl)),
                Ok(Addressed::Failed(why)) => failed = Some(why),
                Err(_) => failed = Some("the resolver has a fault".to_owned()),
            }
        }
        match (found.is_empty(), failed) {
            // Others may answer soon.
            (false, Some(_)) => Ok((found, HOLDS.0)),
            (false, None) => Ok((found, holds)),
            (true, Some(why)) => Err((NotFound::NoAnswer(domain.to_owned(), why), FAILS)),
            (true, None) if refused => Err((NotFound::Refused(domain.to_owned()), misses)),
            (true, None) => Err((NotFound::NoAddress(domain.to_owned()), misses)),
        }
    }
}

impl Current {
    fn new(config: &Dns, loopback: bool) -> Result<Self, NetError> {
        let reach = Arc::new(Reach { loopback, refused: config.refused.clone() });
        Ok(Self { resolver: Resolver::new(config)?, proxy: config.proxy.clone(), reach })
    }
}
