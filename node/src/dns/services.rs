//! What DNS says of one domain's services: their SRV records, the addresses of their hosts, and TLSA records.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use hickory_resolver::proto::rr::{RData, RecordType};

use super::reach::Reach;
use super::resolver::{Reply, Resolver};
use super::srv::Ranked;
use super::{Begin, Candidate, FAILS, HOLDS, MISSES, Target, Timed, Tlsa, names};

/// How many addresses of each kind a host may have.
const ADDRESSES: usize = 4;
/// How many TLSA records of a target are looked at.
const RECORDS: usize = 16;

/// Where DNS says a service is.
#[derive(Clone, Debug)]
pub(super) struct Service {
    pub(super) begin: Begin,
    pub(super) priority: u16,
    pub(super) weight: u16,
    pub(super) host: String,
    pub(super) port: u16,
    /// Whether DNSSEC has validated this.
    pub(super) secure: bool,
}

impl Ranked for Service {
    fn priority(&self) -> u16 {
        self.priority
    }
    fn weight(&self) -> u16 {
        self.weight
    }
}

/// Why there are no services.
pub(super) enum Without {
    /// The domain says that there is none.
    Service,
    /// DNS gave no answer.
    Answer(String),
}

/// The services of both kinds. `None` if there is no SRV record at all.
pub(super) async fn both(
    resolver: &Resolver,
    name: &str,
) -> Result<Option<Timed<Vec<Service>>>, Timed<Without>> {
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
pub(super) enum Addressed {
    Found(Candidate, Duration),
    Nothing(Duration),
    /// The host has addresses, and none that this server may connect to.
    Refused(Duration),
    Failed(String),
}

/// The addresses of a service's host, and its TLSA records if the way there is secure.
pub(super) async fn resolve(resolver: Resolver, service: Service, reach: Arc<Reach>) -> Addressed {
    let Service { begin, priority, weight, host, port, secure } = service;
    let candidate = |addresses, secure, tlsa| Candidate {
        priority,
        weight,
        target: Target { begin, host: host.clone(), port, addresses, secure, tlsa, proxied: false },
    };
    let Some(name) = names::absolute("", &host) else { return Addressed::Nothing(MISSES.1) };
    let (v6, v4) = tokio::join!(resolver.ask(&name, RecordType::AAAA), resolver.ask(&name, RecordType::A));
    let (mut secure, mut ttl, mut misses, mut failed, mut any) = (secure, HOLDS.1, MISSES.1, None, false);
    let mut kinds = [Vec::new(), Vec::new()];
    for (kind, reply) in kinds.iter_mut().zip([v6, v4]) {
        match reply {
            Reply::Found(found) => {
                any = true;
                let addresses = found.records.iter().filter_map(RData::ip_addr);
                kind.extend(addresses.filter(|address| reach.permits(*address)).take(ADDRESSES));
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
        (true, None) if any => return Addressed::Refused(ttl),
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
pub(super) fn alternate(v6: Vec<IpAddr>, v4: Vec<IpAddr>) -> Vec<IpAddr> {
    let (mut v6, mut v4, mut all) = (v6.into_iter(), v4.into_iter(), Vec::new());
    loop {
        let pair = (v6.next(), v4.next());
        if pair == (None, None) {
            return all;
        }
        all.extend(pair.0.into_iter().chain(pair.1));
    }
}
