//! One question to DNS: what it answers, and whether DNSSEC has validated that.
//!
//! Each question is asked twice at once: with validation and without. The validated answer is taken if there is one. All else
//! (a broken signature, a proof that the validator does not understand, time that ran out) makes the answer "not secure" and
//! nothing worse: the plain answer is taken. The resolver runs in a task of its own, so that a fault in it is one failed question.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use hickory_resolver::TokioResolver;
use hickory_resolver::config::{ConnectionConfig, NameServerConfig, ResolveHosts, ResolverConfig};
use hickory_resolver::lookup::Lookup;
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::net::{DnsError, NetError};
use hickory_resolver::proto::dnssec::TrustAnchors;
use hickory_resolver::proto::op::ResponseCode;
use hickory_resolver::proto::rr::{Name, RData, Record, RecordType};
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};

use super::names;
use crate::config::{Anchor, Dns};
use crate::net::places::Places;

/// How long a validated answer is waited for, and a plain one.
const VALIDATED: Duration = Duration::from_secs(4);
const PLAIN: Duration = Duration::from_secs(6);
/// How long one name server is waited for, and how often it is asked again.
const SERVER: Duration = Duration::from_secs(2);
const ATTEMPTS: usize = 2;
/// Questions at once; others wait.
const AT_ONCE: usize = 512;
/// While others wait, a question has so long: those that nobody answers would keep all names from being found. What was slow for once is
/// known to the name server when it is asked for again.
const FAIR: Duration = Duration::from_millis(500);
/// The longest chain of aliases.
const ALIASES: usize = 8;
/// How long a denial without a time of its own is believed.
const DENIAL: Duration = Duration::from_secs(60);

/// What came of a question.
#[derive(Clone, Debug)]
pub(super) enum Reply {
    /// At least one record.
    Found(Found),
    /// DNS says that there is none; it may be asked again after this time.
    Nothing(Duration),
    /// No usable answer, and why.
    Failed(String),
}

/// The records that answer a question.
#[derive(Clone, Debug)]
pub(super) struct Found {
    /// All of the type that was asked for.
    pub(super) records: Vec<RData>,
    /// Whether DNSSEC has validated all of them, and the aliases that led to them.
    pub(super) secure: bool,
    /// How long they hold.
    pub(super) ttl: Duration,
}

/// Asks DNS. Cheap to clone.
#[derive(Clone)]
pub(super) struct Resolver {
    plain: TokioResolver,
    validating: Option<TokioResolver>,
    /// By the zone of the name.
    slots: Arc<Places<String>>,
}

impl Resolver {
    /// By the configuration: the servers it names, else those of the system.
    pub(super) fn new(config: &Dns) -> Result<Self, NetError> {
        let servers = if config.servers.is_empty() { system() } else { named(config) };
        let build = |anchors: Option<Arc<TrustAnchors>>| {
            let mut builder =
                TokioResolver::builder_with_config(servers.clone(), TokioRuntimeProvider::default());
            let options = builder.options_mut();
            options.timeout = SERVER;
            options.attempts = ATTEMPTS;
            options.use_hosts_file = ResolveHosts::Always;
            options.try_tcp_on_error = true;
            // At its limit the resolver asks itself again without a pause, so the limit must never be reached: slots are less.
            options.max_active_requests = 16 * AT_ONCE;
            options.positive_max_ttl = Some(Duration::from_secs(3_600));
            options.negative_max_ttl = Some(Duration::from_secs(300));
            match anchors {
                Some(anchors) => builder.with_trust_anchor(anchors).build(),
                None => builder.build(),
            }
        };
        let anchors = match &config.trust_anchor {
            Anchor::Root => Some(Arc::new(TrustAnchors::default())),
            Anchor::Keys(text) => Some(Arc::new(text.parse().map_err(|e| NetError::Msg(format!("{e}")))?)),
            Anchor::None => None,
        };
        let validating = anchors.map(|anchors| build(Some(anchors))).transpose()?;
        Ok(Self { plain: build(None)?, validating, slots: Places::new("dns_questions", FAIR) })
    }

    /// Asks for the records of `kind` at `name`. Takes 6 s at most, beside the wait for a slot.
    pub(super) async fn ask(&self, name: &Name, kind: RecordType) -> Reply {
        self.measured(name, async {
            let plain = guarded(PLAIN, once(self.plain.clone(), name.clone(), kind));
            let validated = match self.validated(name, kind) {
                Some(validated) => validated.await,
                None => Reply::Failed(String::new()),
            };
            match validated {
                // What is not waited for ends here.
                Reply::Found(_) => validated,
                _ => match (validated, plain.await) {
                    (denial @ Reply::Nothing(_), Reply::Failed(_)) => denial,
                    (_, plain) => plain,
                },
            }
        })
        .await
    }

    /// The same, but what is not validated counts for nothing. Takes 4 s at most, beside the wait for a slot.
    pub(super) async fn ask_secure(&self, name: &Name, kind: RecordType) -> Reply {
        // Asked when there is a slot: from then on its time runs.
        let question = async {
            match self.validated(name, kind) {
                Some(validated) => validated.await,
                None => Reply::Nothing(DENIAL),
            }
        };
        match self.measured(name, question).await {
            Reply::Found(found) if !found.secure => Reply::Failed("not validated".to_owned()),
            reply => reply,
        }
    }

    async fn measured(&self, name: &Name, question: impl Future<Output = Reply>) -> Reply {
        let _counted = Counted::new();
        let place = self.slots.take(AT_ONCE, &names::zone(&name.to_ascii())).await;
        let begun = Instant::now();
        let reply = tokio::select! {
            reply = question => reply,
            () = place.sent_away() => Reply::Failed("no answer yet, while others wait".to_owned()),
        };
        let outcome = match &reply {
            Reply::Found(found) if found.secure => "secure",
            Reply::Found(_) => "found",
            Reply::Nothing(_) => "nothing",
            Reply::Failed(_) => "failed",
        };
        metrics::counter!("rookery_dns_questions_total", "outcome" => outcome).increment(1);
        metrics::histogram!("rookery_dns_question_seconds").record(begun.elapsed().as_secs_f64());
        reply
    }

    /// Asks with validation, if there is any.
    fn validated(&self, name: &Name, kind: RecordType) -> Option<impl Future<Output = Reply> + use<>> {
        let (resolver, name) = (self.validating.clone()?, name.clone());
        Some(guarded(VALIDATED, async move {
            // Time that ran out below can look like a broken signature: once more.
            match once(resolver.clone(), name.clone(), kind).await {
                Reply::Failed(_) => once(resolver, name, kind).await,
                reply => reply,
            }
        }))
    }
}

/// A question that is under way or waits, as long as this lives.
struct Counted(metrics::Gauge);

impl Counted {
    fn new() -> Self {
        let gauge = metrics::gauge!("rookery_dns_questions");
        gauge.increment(1);
        Self(gauge)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.decrement(1);
    }
}

/// Runs `question` in a task of its own from now on, for a limited time.
fn guarded(
    limit: Duration,
    question: impl Future<Output = Reply> + Send + 'static,
) -> impl Future<Output = Reply> {
    let mut task = JoinSet::new();
    task.spawn(timeout(limit, question));
    async move {
        match task.join_next().await {
            Some(Ok(Ok(reply))) => reply,
            Some(Ok(Err(_))) => Reply::Failed(format!("no answer in {} s", limit.as_secs())),
            Some(Err(_)) | None => Reply::Failed("the resolver has a fault".to_owned()),
        }
    }
}

async fn once(resolver: TokioResolver, name: Name, kind: RecordType) -> Reply {
    match resolver.lookup(name.clone(), kind).await {
        Ok(lookup) => read(&lookup, &name, kind),
        Err(NetError::Dns(DnsError::NoRecordsFound(none))) => match none.response_code {
            ResponseCode::NXDomain | ResponseCode::NoError => {
                let ttl = none.negative_ttl.or(none.soa.map(|soa| soa.ttl.min(soa.data.minimum)));
                Reply::Nothing(ttl.map_or(DENIAL, |ttl| Duration::from_secs(u64::from(ttl))))
            }
            code => Reply::Failed(code.to_string()),
        },
        Err(error) => Reply::Failed(error.to_string()),
    }
}

/// The records at `name`, or where its aliases lead. Others that came along do not count, however well they are signed.
fn read(lookup: &Lookup, name: &Name, kind: RecordType) -> Reply {
    let (mut at, mut used): (&Name, Vec<&Record>) = (name, Vec::new());
    for _ in 0..ALIASES {
        let alias = lookup.answers().iter().find_map(|record| match &record.data {
            RData::CNAME(to) if record.name == *at => Some((record, &to.0)),
            _ => None,
        });
        let Some((record, to)) = alias else { break };
        used.push(record);
        at = to;
    }
    let answers = lookup.answers().iter().filter(|r| r.record_type() == kind && r.name == *at);
    let records: Vec<RData> = answers.clone().map(|record| record.data.clone()).collect();
    used.extend(answers);
    let ttl = used.iter().map(|record| record.ttl).min().unwrap_or_default();
    if records.is_empty() {
        return Reply::Nothing(DENIAL);
    }
    Reply::Found(Found {
        records,
        secure: used.iter().all(|record| record.proof.is_secure()),
        ttl: Duration::from_secs(u64::from(ttl)),
    })
}

fn named(config: &Dns) -> ResolverConfig {
    let server = |at: &std::net::SocketAddr| {
        let mut connections = vec![ConnectionConfig::udp(), ConnectionConfig::tcp()];
        connections.iter_mut().for_each(|connection| connection.port = at.port());
        NameServerConfig::new(at.ip(), true, connections)
    };
    ResolverConfig::from_parts(None, Vec::new(), config.servers.iter().map(server).collect())
}

/// The servers of the system; if it names none, one on this machine (as resolv.conf(5) has it).
fn system() -> ResolverConfig {
    let servers = match hickory_resolver::system_conf::read_system_conf() {
        Ok((config, _)) => config.name_servers().to_vec(),
        Err(error) => {
            tracing::warn!(%error, "the system's DNS servers are not known; set dns.servers if other domains cannot be reached");
            vec![NameServerConfig::udp_and_tcp(std::net::Ipv4Addr::LOCALHOST.into())]
        }
    };
    // Names are absolute: the system's search list is left out.
    ResolverConfig::from_parts(None, Vec::new(), servers)
}
