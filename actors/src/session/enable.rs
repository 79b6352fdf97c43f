//! A client enables stream management (XEP-0198 section 3, version 1.6.2).

use std::sync::Arc;
use std::time::Duration;

use rookery_proto::xml::write;
use rookery_proto::xmpp::ns;

use super::roster::Has;
use super::sm::{Sm, resumption_id};
use super::{Event, Session};
use crate::connection::ledger::Ledger;
use crate::connection::pipe::Down;
use crate::runtime::actor::Handle;

impl Session {
    /// Both sides count from here on. A client that may resume is told so when the session's record is in the store: a promise that
    /// this node alone knows of would be broken by its death. What the client is sent until then is counted, and follows.
    pub(super) fn enable(&mut self, resume: bool, max: Option<u32>, ledger: Arc<Ledger>, me: &Handle<Self>) {
        let limit = self.host.options().resume;
        let max = max.map_or(limit, |max| Duration::from_secs(max.into()).min(limit));
        let key: [u8; 16] = self.host.seams().bytes();
        let resume = resume && max > Duration::ZERO;
        let numbering = u64::from_le_bytes(self.host.seams().bytes());
        if resume {
            ledger.keep(me.downgrade());
        }
        self.ledger = ledger;
        self.recent.count_anew();
        let now = self.host.seams().clock.now_micros();
        let mut sm = Sm::new(max, resume.then_some(&key), now, numbering);
        sm.has = Has::all(self.client.roster);
        self.sm = Some(Box::new(sm));
        let out = write::bytes(|w| {
            w.start("enabled", ns::SM);
            if resume {
                w.attr("id", &resumption_id(self.sid, &key))
                    .attr("resume", "true")
                    .attr_display("max", max.as_secs());
                w.attr_opt("location", self.host.options().location.as_deref());
            }
            w.end();
        });
        self.enabling = Some(out.into());
        if resume {
            self.tell(Event::Enabled(self.numbering()));
            self.write_record();
            self.want_tick();
        } else {
            self.tell(Event::Managed);
            self.enabled();
        }
    }

    /// The record is in the store, or need not be: the client is told, and gets what came meanwhile.
    pub(super) fn enabled(&mut self) {
        let Some(out) = self.enabling.take() else { return };
        if let (Some(pipe), Some(sm)) = (&self.pipe, &self.sm) {
            let _ = pipe.push(Down::Enabled(out));
            pipe.refill(sm.unacked());
        }
        if self.sm.as_ref().is_some_and(|sm| sm.wants_ack()) {
            self.request_ack();
        }
    }
}
