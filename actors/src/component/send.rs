//! What a component sends: the names it may send from, and the way to the addressee.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::time::Duration;

use rookery_cluster::mesh::peer::Outcome;
use rookery_proto::xmpp::error::Condition;
use rookery_proto::xmpp::stanza::Stanza;
use tokio::sync::Notify;
use tokio::time::Instant;

use super::connection::{ComponentLink, Conn};
use crate::connection::ledger::Receipt;
use crate::connection::reply::Reply;
use crate::host::Host;
use crate::runtime::origin::{Origin, OriginName};

/// Stanzas of one connection that are on their way; beyond, its socket is not read.
const WINDOW: usize = 256;
/// A stanza that was lost on its way inside the server goes again after this …
const AGAIN: Duration = Duration::from_millis(200);
/// … for so long.
const PATIENCE: Duration = Duration::from_secs(30);

/// A stanza that ends the component's stream (RFC 6120 section 4.9.3).
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Refused {
    /// There is no `from`, or it is not at the component's name.
    #[error("the sender is not at the component's name")]
    From,
    /// There is no `to`.
    #[error("the stanza has no recipient")]
    To,
}

/// What of a connection's stanzas is on its way.
pub(super) struct Sent {
    name: OriginName,
    number: AtomicU32,
    open: AtomicUsize,
    free: Notify,
}

impl Sent {
    pub(super) fn new(host: &Host) -> Self {
        Self {
            name: OriginName(host.seams().bytes()),
            number: AtomicU32::new(0),
            open: AtomicUsize::new(0),
            free: Notify::new(),
        }
    }

    /// The origin of the next stanza: by it a stanza is known that goes again.
    pub(super) fn origin(&self) -> Origin {
        Origin::new(self.name, self.number.fetch_add(1, Ordering::Relaxed).wrapping_add(1))
    }

    pub(super) async fn room(&self) {
        loop {
            let freed = self.free.notified();
            if self.open.load(Ordering::Acquire) < WINDOW {
                return;
            }
            freed.await;
        }
    }
}

impl ComponentLink {
    /// Takes a stanza that the component has sent.
    ///
    /// # Errors
    /// [`Refused`]: the stream ends with that error.
    pub fn up(&self, stanza: Stanza) -> Result<(), Refused> {
        let conn = &self.0;
        conn.heard();
        let from = stanza.from.as_ref().filter(|from| from.domain() == conn.component.as_str());
        if from.is_none() {
            return Err(Refused::From);
        }
        if stanza.to.is_none() {
            return Err(Refused::To);
        }
        if conn.answers_ping(&stanza) || conn.answers_server(&stanza) {
            return Ok(());
        }
        let name = conn.component.as_str().to_owned();
        metrics::counter!("rookery_component_stanzas_total", "component" => name, "direction" => "from")
            .increment(1);
        match super::privilege::resolve(conn, stanza) {
            Ok(stanza) => {
                conn.host.note_shown(&conn.component, &stanza);
                conn.send_on(stanza, conn.sent.origin());
            }
            Err((stanza, error)) => self.answer(stanza.error_reply(&error)),
        }
        Ok(())
    }

    /// Answers a stanza that broke a rule: the error goes back to the component.
    pub fn answer(&self, reply: Option<Stanza>) {
        self.0.heard();
        let Some(reply) = reply else { return };
        let from = reply.from.clone().or_else(|| self.0.host.first_domain());
        let Some(from) = from else { return };
        let stanza = reply.from(from).to(self.0.component.clone());
        self.0.answer(Arc::new(stanza));
    }
}

impl Conn {
    /// Sends a stanza on, which counts among those under way until it is kept, or answered.
    pub(super) fn send_on(self: &Arc<Self>, stanza: Arc<Stanza>, origin: Origin) {
        self.sent.open.fetch_add(1, Ordering::AcqRel);
        self.try_on(stanza, origin, Instant::now() + PATIENCE);
    }

    fn try_on(self: &Arc<Self>, stanza: Arc<Stanza>, origin: Origin, deadline: Instant) {
        let (conn, again) = (self.clone(), stanza.clone());
        let told = move |outcome| match outcome {
            Outcome::Taken(refused) => {
                conn.settled();
                // What refuses a stanza comes with the receipt: to the component with it.
                if let Some(error) = crate::routing::stored::stanza(&refused) {
                    conn.host.route(error, Receipt::none(), None);
                }
            }
            _ if Instant::now() >= deadline => {
                conn.settled();
                conn.host.bounce(&again, Receipt::none(), Condition::ResourceConstraint);
            }
            _ => {
                let host = conn.host.clone();
                host.spawn(async move {
                    tokio::time::sleep(AGAIN).await;
                    conn.try_on(again, origin, deadline);
                });
            }
        };
        self.host.route_from(stanza, Receipt::owed(Reply::here(told), true), Some(origin));
    }

    fn settled(&self) {
        self.sent.open.fetch_sub(1, Ordering::AcqRel);
        self.sent.free.notify_one();
    }
}
