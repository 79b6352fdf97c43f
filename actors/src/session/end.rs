//! How a session ends: its connection is lost, its client is too slow or has gone for good, or the process stops.

use std::sync::atomic::Ordering;
use std::time::Duration;

use rookery_cluster::tables::archive::ArchiveId;
use rookery_proto::xmpp::error::StreamCondition;

use super::event::{Ended, Event};
use super::{Delivery, Life, Msg, Session, Unacked};
use crate::connection::pipe::{Close, Down};
use crate::host::Host;
use crate::runtime::actor::Handle;

impl Session {
    /// The client does not keep up. What is durable waits in the archive; the connection ends.
    pub(super) fn too_slow(&mut self) {
        tracing::info!(jid = %self.jid, reason = "too-slow", "session closed");
        self.close(Close::Error(
            StreamCondition::PolicyViolation,
            "you do not take what you are sent".into(),
        ));
        self.end("too-slow");
    }

    /// What reaches a session that has ended is treated as what it had not confirmed.
    pub(super) fn hand_back(&self, delivery: Delivery) {
        let Delivery { outgoing, kept, receipt } = delivery;
        let unacked = vec![Unacked::new(outgoing, kept, receipt)];
        let ended = Ended { sid: self.sid, unacked, replay_after: None, recorded: false };
        self.tell(Event::Ended(Box::new(ended)));
    }

    pub(super) fn close(&mut self, close: Close) {
        self.route.cut();
        if let Some(pipe) = self.pipe.take() {
            let _ = pipe.push(Down::Close(close));
        }
    }

    /// The session is over for good.
    pub(super) fn end(&mut self, reason: &'static str) {
        if self.life != Life::Live {
            return;
        }
        metrics::counter!("rookery_sessions_closed_total", "reason" => reason).increment(1);
        self.life = Life::Ended;
        let unacked = self.sm.as_mut().map(|sm| sm.take_unacked()).unwrap_or_default();
        let resumable = self.sm.as_ref().is_some_and(|sm| sm.resumable());
        // Among other nodes every session that shows itself has a record.
        let recorded = resumable || self.host.homes_change();
        // A session that was bound to an empty archive has confirmed nothing: everything is to come.
        let replay_after =
            (resumable && self.restored.is_some()).then(|| self.acked.unwrap_or(ArchiveId::first_at(0)));
        let ended = Ended { sid: self.sid, unacked, replay_after, recorded };
        self.tell(Event::Ended(Box::new(ended)));
    }

    /// The client has sent its last, and all of it is answered: the answers are in the pipe by now.
    pub(super) fn finish(&self, generation: u32) {
        if generation == self.generation
            && let Some(pipe) = &self.pipe
        {
            let _ = pipe.push(Down::Close(Close::Clean));
        }
    }

    pub(super) fn closed(&mut self, clean: bool, generation: u32, me: &Handle<Self>) {
        if generation != self.generation || self.life != Life::Live {
            return;
        }
        self.pipe = None;
        self.shared.connected.store(false, Ordering::Relaxed);
        let max = self.sm.as_ref().filter(|sm| sm.resumable()).map(|sm| sm.max);
        match max {
            Some(max) if !clean => {
                tracing::info!(jid = %self.jid, seconds = max.as_secs(), "connection lost; the session is waiting for resumption");
                self.generation = self.generation.wrapping_add(1);
                expire_later(&self.host, me, max, self.generation);
                self.keep_open_messages();
                self.write_record();
            }
            _ => {
                let reason = if clean { "closed" } else { "lost" };
                tracing::info!(jid = %self.jid, reason, "session closed");
                self.end(reason);
            }
        }
    }

    /// The process stops. Resumable sessions stay on record; the others end as if their clients had closed them.
    pub(super) fn suspend(&mut self, me: &Handle<Self>) {
        self.close(Close::Error(
            StreamCondition::SystemShutdown,
            "the server restarts; please come back".into(),
        ));
        if self.sm.as_ref().is_some_and(|sm| sm.resumable()) {
            self.keep_open_messages();
            self.generation = self.generation.wrapping_add(1);
            // Even if another write of it is under way: nothing comes after this one.
            self.submit_record(self.ledger.processed(), me);
        } else {
            self.end("shutdown");
        }
    }

    pub(super) fn expire(&mut self, generation: u32, me: &Handle<Self>) {
        if generation != self.generation || self.pipe.is_some() || self.life != Life::Live {
            return;
        }
        if self.resuming.as_ref().is_some_and(|resume| self.restored.is_some() || !resume.reply.is_closed()) {
            // Its client came in time and waits; or it has gone, but what it came for is being written.
            return expire_later(&self.host, me, CLAIM, generation);
        }
        tracing::info!(jid = %self.jid, reason = "expired", "session closed");
        self.end("expired");
    }
}

/// How much longer a session lives whose client is being answered.
const CLAIM: Duration = Duration::from_secs(10);

/// Ends the session after `max`, if nobody has resumed it then.
pub(super) fn expire_later(host: &Host, handle: &Handle<Session>, max: Duration, generation: u32) {
    let weak = handle.downgrade();
    host.wheel().after(max, move || {
        if let Some(session) = weak.upgrade() {
            let _ = session.cast_always(Msg::Expire { generation });
        }
    });
}
