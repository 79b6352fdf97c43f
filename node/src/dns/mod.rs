//! Finding the servers of other domains: SRV records (RFC 6120 section 3.2, XEP-0368 version 1.1.0), addresses, and whether
//! DNSSEC has validated them.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use hickory_resolver::net::NetError;
use hickory_resolver::proto::rr::{RData, RecordType};
use rookery_cluster::seams::Seams;
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::config::{Dns, Proxy};

mod cache;
mod connect;
pub(crate) mod names;
mod resolver;
mod socks;
mod srv;
mod target;

pub use connect::{Connected, Unreachable};
pub use target::{Begin, NotFound, Target, Targets, Tlsa};

use cache::Cache;
use resolver::{Reply, Resolver};
use srv::Ranked;

/// The port without SRV records (RFC 6120 section 3.2.2).
pub const PORT: u16 = 5269;
/// How long one domain may take.
const LIMIT: Duration = Duration::from_secs(20);
/// Of how many SRV records the hosts are looked up, and how many addresses of each kind a host may have.
const TARGETS: usize = 16;
const ADDRESSES: usize = 4;
/// How many TLSA records of a target are looked at.
const RECORDS: usize = 16;
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

/// Where DNS says a service is.
#[derive(Clone, Debug)]
struct Service {
    begin: Begin,
    priority: u16,
    weight: u16,
    host: String,
    port: u16,
    secure: bool,
}

impl Ranked for Service {
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
        let current = ArcSwap::from_pointee(Current::new(config)?);
        Ok(Self { current, cache: Cache::new(), seams, loopback: false })
    }

    /// The same, but only addresses of this very machine count (127.0.0.0/8, ::1): for a server that is tried out.
    pub fn on_loopback(mut self) -> Self {
        self.loopback = true;
        self
    }

    /// Takes a changed configuration, or changed DNS servers of the system, and forgets what was found. On an error all stays.
    pub fn reload(&self, config: &Dns) -> Result<(), NetError> {
        self.current.store(Arc::new(Current::new(config)?));
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

    /// One host that is known by other means, as a static route is. Takes 20 s at most; nothing is remembered but what DNS' own
    /// cache does.
    pub async fn host(&self, host: &str, port: u16, begin: Begin) -> Result<Target, NotFound> {
        let none = NotFound::NoAnswer(host.to_owned(), format!("no answer in {} s", LIMIT.as_secs()));
        let found = timeout(LIMIT, self.look_up_host(host, port, begin)).await.map_err(|_| none)?;
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
            let list = self.reachable(vec![address]);
            return match list.is_empty() {
                false => Ok((target(address.to_string(), list, false), HOLDS.1)),
                true => Err((NotFound::NoAddress(host.to_owned()), HOLDS.1)),
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
        match resolve(current.resolver.clone(), service, self.loopback).await {
            Addressed::Found(candidate, ttl) => Ok((candidate.target, ttl)),
            Addressed::Nothing(ttl) => Err((NotFound::NoName(host.to_owned()), ttl)),
            Addressed::Failed(why) => Err((NotFound::NoAnswer(host.to_owned(), why), FAILS)),
        }
    }

    async fn look_up(&self, domain: &str) -> Result<Timed<Vec<Candidate>>, Timed<NotFound>> {
        let candidate = |(target, ttl)| (vec![Candidate { priority: 0, weight: 0, target }], ttl);
        let current = self.current.load_full();
        let name = match names::ascii(domain) {
            Some(name)
                if names::address(domain).is_none()
                    && !names::is_onion(&name)
                    && !current.proxy.as_ref().is_some_and(|proxy| proxy.is_for(&name)) =>
            {
                name
            }
            // No SRV records: an address, a name that the proxy knows, or none at all.
            _ => return self.look_up_host(domain, PORT, Begin::Starttls).await.map(candidate),
        };
        let (services, ttl) = match services(&current.resolver, &name).await {
            Ok(Some(found)) => found,
            Ok(None) => return self.look_up_host(domain, PORT, Begin::Starttls).await.map(candidate),
            Err((what, ttl)) => return Err((what.of(domain), ttl)),
        };
        let mut tasks = JoinSet::new();
        for service in srv::order(services, &self.seams).into_iter().take(TARGETS) {
            tasks.spawn(resolve(current.resolver.clone(), service, self.loopback));
        }
        let (mut found, mut failed, mut holds, mut misses) = (Vec::new(), None, ttl, ttl);
        while let Some(addressed) = tasks.join_next().await {
            match addressed {
                Ok(Addressed::Found(candidate, ttl)) => {
                    holds = holds.min(ttl);
                    found.push(candidate);
                }
                Ok(Addressed::Nothing(ttl)) => misses = misses.min(ttl),
                Ok(Addressed::Failed(why)) => failed = Some(why),
                Err(_) => failed = Some("the resolver has a fault".to_owned()),
            }
        }
        match (found.is_empty(), failed) {
            // Others may answer soon.
            (false, Some(_)) => Ok((found, HOLDS.0)),
            (false, None) => Ok((found, holds)),
            (true, Some(why)) => Err((NotFound::NoAnswer(domain.to_owned(), why), FAILS)),
            (true, None) => Err((NotFound::NoAddress(domain.to_owned()), misses)),
        }
    }

    fn reachable(&self, addresses: Vec<IpAddr>) -> Vec<IpAddr> {
        addresses.into_iter().filter(|address| is_reachable(*address, self.loopback)).collect()
    }
}

impl Current {
    fn new(config: &Dns) -> Result<Self, NetError> {
        Ok(Self { resolver: Resolver::new(config)?, proxy: config.proxy.clone() })
    }
}

/// Why there are no services.
enum Without {
    Service,
    Answer(String),
}

impl Without {
    fn of(self, domain: &str) -> NotFound {
        match self {
            Self::Service => NotFound::NoService(domain.to_owned()),
            Self::Answer(why) => NotFound::NoAnswer(domain.to_owned(), why),
        }
    }
}

/// The services of both kinds. `None` if there is no SRV record at all.
async fn services(resolver: &Resolver, name: &str) -> Result<Option<Timed<Vec<Service>>>, Timed<Without>> {
    let ask = async |prefix: &str| match names::absolute(prefix, name) {
        Some(name) => resolver.ask(&name, RecordType::SRV).await,
        None => Reply::Nothing(MISSES.1),
    };
    let (starttls, direct) = tokio::join!(ask("_xmpp-server._tcp."), ask("_xmpps-server._tcp."));
    let (mut services, mut any, mut ttl, mut failed) = (Vec::new(), false, HOLDS.1, None);
    let starttls_failed = matches!(starttls, Reply::Failed(_));
    for (begin, reply) in [(Begin::Starttls, starttls), (Begin::Direct, direct)] {
        match reply {
            Reply::Found(found) => {
                any = true;
                ttl = ttl.min(found.ttl);
                services
                    .extend(found.records.iter().filter_map(|record| service(begin, record, found.secure)));
            }
            Reply::Nothing(_) => {}
            Reply::Failed(why) => failed = Some(why),
        }
    }
    match (services.is_empty(), any, failed) {
        // A lookup that failed does not stand in the way of what the other has found.
        (false, _, None) => Ok(Some((services, ttl))),
        (false, _, Some(_)) => Ok(Some((services, ttl.min(HOLDS.0)))),
        (true, true, None) => Err((Without::Service, ttl)),
        (true, true, Some(why)) => Err((Without::Answer(why), FAILS)),
        // Direct TLS is one more way: without an answer on it the usual one is still known.
        (true, false, Some(why)) if starttls_failed => Err((Without::Answer(why), FAILS)),
        (true, false, _) => Ok(None),
    }
}

/// A usable SRV record. One with the target `.` says that there is no service; one without a port or with a name that no host
/// has is passed over.
fn service(begin: Begin, record: &RData, secure: bool) -> Option<Service> {
    let RData::SRV(srv) = record else { return None };
    let host = names::target(&srv.target)?;
    (srv.port > 0).then_some(Service {
        begin,
        priority: srv.priority,
        weight: srv.weight,
        host,
        port: srv.port,
        secure,
    })
}

/// What came of the search for a host's addresses.
enum Addressed {
    Found(Candidate, Duration),
    Nothing(Duration),
    Failed(String),
}

/// The addresses of a service's host, and its TLSA records if the way there is secure.
async fn resolve(resolver: Resolver, service: Service, loopback: bool) -> Addressed {
    let Service { begin, priority, weight, host, port, secure } = service;
    let candidate = |addresses, secure, tlsa| Candidate {
        priority,
        weight,
        target: Target { begin, host: host.clone(), port, addresses, secure, tlsa, proxied: false },
    };
    let Some(name) = names::absolute("", &host) else { return Addressed::Nothing(MISSES.1) };
    let (v6, v4) = tokio::join!(resolver.ask(&name, RecordType::AAAA), resolver.ask(&name, RecordType::A));
    let (mut secure, mut ttl, mut misses, mut failed) = (secure, HOLDS.1, MISSES.1, None);
    let mut kinds = [Vec::new(), Vec::new()];
    for (kind, reply) in kinds.iter_mut().zip([v6, v4]) {
        match reply {
            Reply::Found(found) => {
                let addresses = found.records.iter().filter_map(RData::ip_addr);
                kind.extend(addresses.filter(|address| is_reachable(*address, loopback)).take(ADDRESSES));
                secure &= found.secure;
                ttl = ttl.min(found.ttl);
            }
            Reply::Nothing(ttl) => misses = misses.min(ttl),
            Reply::Failed(why) => failed = Some(why),
        }
    }
    let [v6, v4] = kinds;
    let addresses = alternate(v6, v4);
    match (addresses.is_empty(), failed) {
        (true, Some(why)) => return Addressed::Failed(why),
        (true, None) => return Addressed::Nothing(misses),
        (false, Some(_)) => ttl = ttl.min(HOLDS.0),
        (false, None) => {}
    }
    let mut tlsa = Vec::new();
    if secure && let Some(name) = names::absolute(&format!("_{port}._tcp."), &host) {
        match resolver.ask_secure(&name, RecordType::TLSA).await {
            Reply::Found(found) => {
                ttl = ttl.min(found.ttl);
                tlsa = found.records.iter().filter_map(record).take(RECORDS).collect();
            }
            // Not validated: as if there were none. To be asked again soon.
            Reply::Failed(_) => ttl = ttl.min(HOLDS.0),
            Reply::Nothing(_) => {}
        }
    }
    Addressed::Found(candidate(addresses, secure, tlsa), ttl)
}

fn record(record: &RData) -> Option<Tlsa> {
    let RData::TLSA(tlsa) = record else { return None };
    Some(Tlsa {
        usage: tlsa.cert_usage.into(),
        selector: tlsa.selector.into(),
        matching: tlsa.matching.into(),
        data: tlsa.cert_data.clone(),
    })
}

/// One of each in turn, IPv6 first (RFC 8305 section 4).
fn alternate(v6: Vec<IpAddr>, v4: Vec<IpAddr>) -> Vec<IpAddr> {
    let (mut v6, mut v4, mut all) = (v6.into_iter(), v4.into_iter(), Vec::new());
    loop {
        let pair = (v6.next(), v4.next());
        if pair == (None, None) {
            return all;
        }
        all.extend(pair.0.into_iter().chain(pair.1));
    }
}

/// Whether a server can have this address.
fn is_reachable(address: IpAddr, loopback: bool) -> bool {
    let address = address.to_canonical();
    let no = match address {
        IpAddr::V4(v4) => v4.is_unspecified() || v4.is_multicast() || v4.is_broadcast(),
        IpAddr::V6(v6) => v6.is_unspecified() || v6.is_multicast(),
    };
    !no && (!loopback || address.is_loopback())
}
