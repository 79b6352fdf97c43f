//! Streams between servers (RFC 6120): from others, which end on any node, and to others, which are opened on the home node of the
//! link that sends on them. A stream decides nothing about stanzas: what others send goes to the [`Host`] once its domain is
//! proved, and what is sent comes from a link ([`LinkEnd`](rookery_actors::link::stream::LinkEnd)).
//!
//! - `arrived`, `incoming`: from an accepted socket to a stream on which domains may be proved.
//! - `outgoing`: from a link's wish to a stream that is authenticated; `open` is the part that verification shares.
//! - `running`: the loop of every stream, in both directions, with `input`, `stanzas` and `ending`.
//! - `dialback` and `verify`: the four roles of server dialback (XEP-0220 version 1.1.1).
//! - `proof`: what a certificate proves, by its authority, DANE or `posh` (RFC 7711).
//! - `claims`: how many streams a remote domain may have.
//! - `resume`: stream management with resumption (XEP-0198 version 1.6.3).
//! - [`table`]: all streams of this node, for the operator and for links that can use a stream in both directions (XEP-0288
//!   version 1.0.1).

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use rookery_actors::Host;
use rookery_actors::link::stream::{Dialer, LinkEnd, Pair, Resumable};
use rookery_cluster::seams::Seams;
use rookery_proto::xmpp::ns;
use tokio::sync::watch;

use super::rate::Rates;
use crate::dns::Finder;
use crate::net::places::Places;
use crate::net::{Gate, Origin};
use crate::tls::Tls;
use crate::tls::remote::Judge;

mod arrived;
mod bidi;
mod claims;
mod conn;
mod dialback;
mod ending;
mod incoming;
mod input;
mod io;
mod open;
mod outgoing;
mod posh;
mod proof;
mod resume;
mod running;
mod sasl;
mod settings;
mod stanzas;
pub mod table;
#[cfg(test)]
mod tests;
mod verify;
mod wire;

pub use arrived::{Arrived, serve};
pub use settings::Settings;
pub use table::{Direction, Table};

/// The namespace of what servers send each other (RFC 6120 section 4.8.2).
const CONTENT: &str = ns::SERVER;

/// How long another server may keep others from being called, or from having their keys verified.
const FAIR: Duration = Duration::from_secs(5);

/// What all streams between servers share.
pub struct Federation {
    /// Users, links and whatever else has an address.
    pub host: Host,
    /// Our certificates.
    pub tls: Arc<Tls>,
    /// Finds other servers.
    pub finder: Arc<Finder>,
    /// Judges their certificates; replaced by a reload.
    pub judge: ArcSwap<Judge>,
    /// The count of streams from others.
    pub gate: Gate,
    /// All streams.
    pub table: Table,
    /// Limits and switches; replaced by a reload.
    pub settings: ArcSwap<Settings>,
    /// Clock and randomness.
    seams: Seams,
    /// What was sent, by domain and address.
    rates: Rates,
    /// New streams, by address.
    arrivals: Rates,
    /// On how many streams others have proved themselves.
    claims: claims::Claims,
    /// Streams that can be resumed.
    resumable: resume::Registry,
    /// Keys that are being verified, by the address that they came from.
    verifying: Arc<Places<Option<Origin>>>,
    /// Streams that are being opened, by the other server's zone.
    opening: Arc<Places<String>>,
    /// Servers that do without resumption.
    one_way: bidi::Knowledge,
    /// Fingerprints of other servers' certificates.
    posh: Arc<posh::Posh>,
    /// Turns true when the node stops.
    stop: watch::Receiver<bool>,
    meters: Meters,
}

/// Counters held ready: looking one up by name costs more than counting.
struct Meters {
    received: metrics::Counter,
    sent: metrics::Counter,
}

impl Federation {
    /// Nothing is connected yet. `stop` turns true when the node stops.
    pub fn new(
        settings: Settings,
        host: Host,
        tls: Arc<Tls>,
        finder: Arc<Finder>,
        judge: Judge,
        seams: Seams,
        stop: watch::Receiver<bool>,
    ) -> Arc<Self> {
        Arc::new(Self {
            host,
            tls,
            finder,
            judge: ArcSwap::from_pointee(judge),
            gate: Gate::for_servers(&settings.federation.limits),
            table: Table::default(),
            settings: ArcSwap::from_pointee(settings),
            seams,
            rates: Rates::new(),
            arrivals: Rates::new(),
            claims: claims::Claims::default(),
            resumable: resume::Registry::default(),
            verifying: Places::new("federation.verifications", FAIR),
            opening: Places::new("opening_streams", FAIR),
            one_way: bidi::Knowledge::default(),
            posh: posh::Posh::new(),
            stop,
            meters: Meters {
                received: metrics::counter!("rookery_received_bytes_total", "kind" => "s2s"),
                sent: metrics::counter!("rookery_sent_bytes_total", "kind" => "s2s"),
            },
        })
    }

    /// Takes over other limits and switches (SIGHUP).
    pub fn reload(&self, settings: Settings) {
        self.gate.set_stream_limits(&settings.federation.limits);
        // What is not wanted any more ends now, and what was proved by less than is wanted now.
        let refused = |pair: &Pair, by: &str| !settings.federation.takes(pair.remote().domain(), by);
        self.settings.store(Arc::new(settings.clone()));
        self.posh.clear();
        let closed = self.table.close_if(|info| info.pairs.iter().any(|(pair, by)| refused(pair, by)));
        if closed > 0 {
            tracing::info!(
                streams = closed,
                "streams with other servers are closed: the configuration does not allow them any more"
            );
        }
    }

    /// The node cannot settle anything: no stream is taken, until the gate is opened again, and those that are there are closed.
    pub fn park(&self) {
        self.gate.shut();
        self.table.close(table::Which::Incoming);
    }

    /// Opens streams for links; see [`Dialer`].
    pub fn dialer(self: &Arc<Self>) -> Arc<dyn Dialer> {
        Arc::new(Dials(self.clone()))
    }

    /// The id of a stream: nobody can guess it, which dialback relies on (XEP-0220 section 3).
    fn stream_id(&self) -> String {
        self.host.random_id()
    }
}

/// The dialer of this node.
struct Dials(Arc<Federation>);

impl Dialer for Dials {
    fn dial(&self, pair: &Pair, resume: Option<Resumable>, end: LinkEnd) {
        let Some(end) = bidi::lend(&self.0, pair, resume.is_some(), end) else { return };
        tokio::spawn(outgoing::run(self.0.clone(), pair.clone(), resume, end));
    }
}
