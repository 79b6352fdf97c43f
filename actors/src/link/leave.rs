//! A link goes: to another node in order, with the end of the process, or because another node has taken it.

use std::time::Duration;

use rookery_proto::xmpp::stanza::{PresenceType, Type};
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::Link;
use super::dialing::Stream;
use super::item::Item;
use super::take::Step;
use crate::host::Host;
use crate::host::kind::Inbound;
use crate::placement::lifecycle::Lifecycle;

/// How long the other server may take to confirm what it was sent before the link goes.
const FLUSH: Duration = Duration::from_secs(2);

/// The link is about to go.
pub(super) struct Leaving {
    told: oneshot::Sender<()>,
    since: Instant,
}

impl Link {
    /// What is under way is sent and confirmed, if that does not take long. Then the link goes.
    pub(super) fn leave(&mut self, told: oneshot::Sender<()>) {
        self.leaving = Some(Leaving { told, since: Instant::now() });
        self.keep_all(); // in its place, with the number under which it was sent
        self.remove_confirmed(true);
    }

    /// Looks whether the link may go.
    pub(super) fn go_on_leaving(&mut self) {
        let Some(leaving) = &self.leaving else { return };
        let late = leaving.since.elapsed() >= FLUSH;
        let sent = match &self.stream {
            Stream::Up(up) => up.unacked.is_empty() && !self.waiting.has_some(),
            _ => true,
        };
        if !sent && !late {
            return;
        }
        self.remove_confirmed(true);
        if !self.commits.is_empty() {
            return;
        }
        let Some(leaving) = self.leaving.take() else { return };
        if matches!(&self.stream, Stream::Up(up) if up.unacked.is_empty()) {
            self.close();
        }
        let unstored = self.take_unstored();
        self.stream.abandon(); // the next home resumes it
        self.lifecycle = Lifecycle::Moved;
        self.send_on(unstored);
        self.untold.tell_all(&self.host);
        let _ = leaving.told.send(());
    }

    /// The shard is another node's: nothing is written, nobody is told.
    pub(super) fn lose(&mut self) {
        self.lifecycle = Lifecycle::Moved;
        self.leaving = None;
        let mut items = self.take_unstored();
        self.stream.abandon();
        for step in self.commits.take_all() {
            match step {
                // If it is stored after all, the next home knows it by its origin.
                Step::Stanza(item) => items.push(*item),
                Step::Again(inbound) => self.host.forward::<Self>(&self.jid, *inbound),
                _ => {}
            }
        }
        self.send_on(items);
    }

    /// To where the link lives now.
    fn send_on(&self, items: Vec<Item>) {
        for item in items {
            // Nobody waits for it, and it would come behind what was said since.
            if !item.is_owed() && matches!(item.stanza.type_, Type::Presence(PresenceType::Available)) {
                continue;
            }
            let Item { stanza, receipt, again, origin, .. } = item;
            for receipt in std::iter::once(receipt).chain(again) {
                let stanza = stanza.clone();
                self.host.forward::<Self>(&self.jid, Inbound { stanza, receipt, origin, change: None });
            }
        }
    }
}

impl Host {
    /// Has all links send what they can and close their streams, at the end of the process.
    pub(crate) async fn close_links(&self) {
        if let Some(links) = self.links() {
            links.leave_all().await;
        }
    }
}
