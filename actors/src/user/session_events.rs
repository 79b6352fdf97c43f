//! What the user's sessions tell.

use super::{User, handoff};
use crate::connection::pipe::Outgoing;
use crate::session::SessionId;
use crate::session::event::{Event, Resumed, Unsafe};

impl User {
    /// One of the sessions tells something.
    pub(super) fn session_tells(&mut self, sid: SessionId, event: Event) {
        match event {
            Event::Sent { stanza, receipt } => self.sent_by(sid, stanza, receipt),
            Event::Answer { reply, receipt } => {
                if let Some(reply) = reply {
                    self.send(sid, Outgoing::new(*reply));
                }
                receipt.done();
            }
            Event::Ended(ended) => self.session_ended(ended),
            Event::Marked(number) => self.marked(sid, number),
            Event::Enabled(numbering) => {
                if let Some(session) = self.session_mut(sid) {
                    session.resumable = true;
                    session.sequence.numbering = Some(numbering);
                }
                self.changed(sid);
            }
            Event::Managed => {
                if let Some(session) = self.session_mut(sid) {
                    session.counted = handoff::MANAGED;
                }
            }
            Event::Resumed(resumed) => self.resumed(sid, &resumed),
            Event::Reattached(reattached) => self.reattached(sid, *reattached),
            Event::Held => self.held(),
            Event::Unsafe(item) => {
                let Unsafe { number, stanza, origin, receipt } = *item;
                self.keep_for_session(sid, number, stanza, origin, receipt);
            }
            Event::QueuedAgain { stanza, receipt } => self.settle_kept(stanza, receipt),
            Event::Unqueue(ids) => self.unqueue(sid, &ids),
            Event::DrainAnew => self.drain_anew(sid),
            Event::Suspended(told) => drop(told.send(())),
        }
    }

    /// The same when the account was removed: the sessions that are still there end.
    pub(super) fn session_of_nobody_tells(&mut self, sid: SessionId, event: Event) {
        match event {
            Event::Sent { receipt, .. } => receipt.leave(), // its stream has ended
            Event::Ended(ended) => self.forget(ended.sid, ended.recorded),
            Event::Marked(_)
            | Event::Enabled(_)
            | Event::Managed
            | Event::Resumed(_)
            | Event::Reattached(_) => {}
            Event::Answer { .. }
            | Event::Held
            | Event::Unsafe(_)
            | Event::QueuedAgain { .. }
            | Event::Unqueue(_)
            | Event::DrainAnew
            | Event::Suspended(_) => self.session_tells(sid, event),
        }
    }

    fn resumed(&mut self, sid: SessionId, resumed: &Resumed) {
        let Resumed { acked, numbering, claim } = resumed;
        if let Some(session) = self.session_mut(sid) {
            session.sequence.numbering = Some(*numbering);
        }
        if let (Some(cursor), Some(upto)) = (self.offline, claim.offline) {
            self.offline = Some(cursor.given(upto)); // as the claim has written
        }
        self.refresh_presence(sid);
        self.catch_up();
        if self.host.homes_change() {
            self.announce(sid);
        }
        self.start_replay(sid, *acked, (claim.before, claim.h));
    }
}
