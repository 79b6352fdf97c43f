//! A client comes back to its session (XEP-0198 section 5).

use std::sync::Arc;
use std::sync::atomic::Ordering;

use rookery_proto::xmpp::error::StreamCondition;
use tokio::sync::oneshot;

use super::claim::Claim;
use super::event::{Event, Resumed};
use super::{Life, Session, SessionId, sm};
use crate::connection::ledger::Ledger;
use crate::connection::pipe::{Close, Down, Pipe};
use crate::host::NotResumed;
use crate::runtime::actor::Handle;
use crate::session::handle::{ConnInfo, RouteHold, SessionHandle};

/// A connection wants to go on with a session (XEP-0198 section 5).
pub(crate) struct Resume {
    /// Which, and the secret that only its client has.
    pub(crate) sid: SessionId,
    pub(crate) key: [u8; 16],
    /// How many stanzas its client has.
    pub(crate) h: u32,
    /// The new connection.
    pub(crate) conn: ConnInfo,
    pub(crate) pipe: Arc<Pipe>,
    /// Dropped: the user lives elsewhere.
    pub(crate) reply: oneshot::Sender<Result<SessionHandle, NotResumed>>,
}

impl Session {
    pub(super) fn resume(&mut self, resume: Box<Resume>, me: &Handle<Self>, claim: Option<Claim>) {
        let (key, h) = (resume.key, resume.h);
        let restored = self.restored.is_some();
        // A claim comes here once, and goes through: what it has found must reach the user.
        let allowed =
            self.life == Life::Live && self.sm.as_ref().is_some_and(|sm| sm.may_resume(&key, h, restored));
        if !allowed {
            let _ = resume.reply.send(Err(NotResumed::NotFound));
            return;
        }
        if restored {
            if self.resuming.replace(resume).is_none() {
                self.claim(h, me);
            }
            return;
        }
        // XEP-0198 section 5: an old stream that is still open is told so. Its socket may not have noticed yet that it is dead.
        self.close(Close::Error(
            StreamCondition::Conflict,
            "your session was resumed by another stream".into(),
        ));
        if self.ledger.broken() {
            // Something was lost inside the server: the client sends again what comes after the last that was not.
            let told = self.ledger.settled();
            self.recent.comes_again(Some(self.ledger.received()));
            self.ledger = Ledger::new(told);
            self.ledger.keep(me.downgrade());
        } else if claim.is_none() && !self.ledger.at_rest() {
            // What the last connection brought is still under way: what is told now must be all of it.
            self.resuming = Some(resume);
            return;
        }
        let Resume { conn, pipe, reply, .. } = *resume;
        self.peer = pipe.peer().cloned();
        self.flush_held(); // numbered, as if they had been sent; below they are
        self.generation = self.generation.wrapping_add(1);
        self.address = conn.address;
        tracing::info!(jid = %self.jid, address = %self.address, restored = claim.is_some(), "session resumed");
        metrics::counter!("rookery_sm_resumed_total").increment(1);
        if let Some(claim) = claim {
            // Whether or not the connection is still there: from here on the session is as good as any other.
            let (acked, numbering) = (self.acked, self.numbering());
            self.tell(Event::Resumed(Box::new(Resumed { acked, numbering, claim })));
        }
        let link = SessionHandle::new(
            me.clone(),
            self.jid.clone(),
            self.ledger.clone(),
            self.generation,
            self.host.homes_change() && !pipe.is_far(),
        );
        self.route = RouteHold::of(link.route());
        if let Err(Ok(link)) = reply.send(Ok(link)) {
            link.closed(false);
            return;
        }
        let _ = pipe.push(Down::Nonza(sm::resumed(self.ledger.settled(), self.sid, &key)));
        if let Some(sm) = &mut self.sm {
            let (acked, queued) = sm.resume(h);
            self.recent.confirmed(h);
            pipe.refill(sm.unacked());
            self.acked = self.acked.max(acked);
            let marked = sm.mark_reached();
            self.unqueue(&queued);
            self.marked(marked);
        }
        self.pipe = Some(pipe);
        self.shared.connected.store(true, Ordering::Relaxed);
        self.set_inactive(false); // XEP-0352 section 5: active again until the client says otherwise
        if self.sm.as_ref().is_some_and(|sm| sm.has_unacked()) {
            self.request_ack();
            self.want_tick();
        }
        self.mark_again();
        self.write_record();
    }
}
