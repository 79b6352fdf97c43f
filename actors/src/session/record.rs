//! A resumable session's record in the store: what it takes to come back after its home died. Written in the
//! background, in batches with everything else; no login waits for it.

use bytes::Bytes;
use rookery_cluster::entity::Entity;
use rookery_cluster::store::{Ops, Writes};
use rookery_cluster::tables::sessions;

use super::sm::Sm;
use super::{Life, Msg, Session, WAIT};
use crate::connection::ledger::Keeper;
use crate::runtime::actor::{Handle, WeakHandle};

impl Keeper for WeakHandle<Session> {
    fn ask(&self) {
        if let Some(session) = self.upgrade() {
            let _ = session.cast_always(Msg::Settle);
        }
    }
}

impl Session {
    /// The record has changed; it is written after this step, at most one write at a time.
    pub(super) fn write_record(&mut self) {
        if let Some(sm) = &mut self.sm {
            *sm.changed() = true;
        }
        self.push_capsule();
        self.write_cursor();
    }

    /// The same where only counts have changed.
    pub(super) fn write_cursor(&mut self) {
        if let Some(sm) = &mut self.sm
            && sm.resumable()
            && self.life == Life::Live
        {
            sm.need_record();
        }
    }

    /// Somebody waits for the record to say what is settled.
    pub(super) fn settle(&mut self, me: &Handle<Self>) {
        let (settled, recorded) = (self.ledger.processed(), self.ledger.is_recorded());
        let waits =
            |sm: &Sm| self.ledger.at_least_recorded(sm.tellable(settled)) == recorded && recorded != settled;
        if self.sm.as_deref().is_some_and(waits) {
            self.settle_waits = true;
            if self.pipe.is_some() {
                self.request_ack();
            } else {
                self.keep_open_messages();
            }
        } else {
            self.write_cursor();
        }
        self.go_on(me);
    }

    pub(super) fn recorded(&mut self, settled: Option<u32>, me: &Handle<Self>) {
        if let Some(sm) = &mut self.sm {
            sm.written();
            *sm.changed() |= settled.is_none();
        }
        self.ledger.recorded(settled);
        if settled.is_some() {
            self.enabled();
        }
        self.go_on(me);
    }

    fn go_on(&mut self, me: &Handle<Self>) {
        // A restored session's record is written by the claim that its client waits for.
        if self.restored.is_none()
            && let Some(resume) = self.resuming.take()
        {
            self.resume(resume, me, None);
        }
    }

    /// What is to be written, if the session can be resumed.
    pub(super) fn record(&self) -> Option<(sessions::Record, sessions::Cursor)> {
        let (down_acked, _, hash) = self.sm.as_ref()?.counts();
        hash?;
        let up_handled = self.sm.as_ref()?.tellable(self.ledger.processed());
        let up_handled = self.ledger.at_least_recorded(up_handled);
        let (acked, mut cursor) = (self.acked, sessions::Cursor::default());
        match &self.restored {
            Some(restored) => {
                (cursor.recent, cursor.rooms) =
                    (restored.cursor.recent.clone(), restored.cursor.rooms.clone());
            }
            None => self.recent.write(&mut cursor),
        }
        Some((self.whole_record(), sessions::Cursor { up_handled, down_acked, acked, ..cursor }))
    }

    /// What it takes to bring the session back.
    pub(super) fn whole_record(&self) -> sessions::Record {
        let counts = self.sm.as_ref().map(|sm| sm.counts());
        let hash = counts.and_then(|(_, _, hash)| hash);
        let max = self.sm.as_ref().filter(|_| hash.is_some()).map(|sm| sm.max.as_secs());
        let mut record = sessions::Record {
            resource: self.jid.resource().to_owned(),
            token_hash: hash.map(|hash| Bytes::copy_from_slice(&hash)).unwrap_or_default(),
            created_at: counts.map_or_else(|| self.host.seams().clock.now_micros(), |(_, at, _)| at),
            max_resume_s: max.map_or(WAIT, |max| u32::try_from(max).unwrap_or(u32::MAX)),
            flags: if hash.is_some() { sessions::flags::RESUMABLE } else { 0 },
            address: self.address.to_string(),
            numbering: self.sm.as_ref().map_or(0, |sm| sm.numbering),
            ..sessions::Record::default()
        };
        self.client.write(&mut record);
        if let Some(sm) = &self.sm {
            record.roster = Bytes::copy_from_slice(&sm.roster()); // what the client has confirmed
        }
        record
    }

    /// Tells a connection on another node what it takes to bring the session back.
    pub(super) fn push_capsule(&self) {
        if let Some(pipe) = self.pipe.as_ref().filter(|pipe| pipe.is_far()) {
            pipe.set_capsule(self.capsule());
        }
    }

    /// Writes the record; `settled` is how many of the client's stanzas it may say are settled.
    pub(super) fn submit_record(&mut self, settled: u32, me: &Handle<Self>) {
        if self.life != Life::Live {
            return; // its user removes the record, or another home writes it
        }
        let Some((record, mut cursor)) = self.record() else { return };
        let Some(sm) = &mut self.sm else { return };
        let settled = self.ledger.at_least_recorded(sm.tellable(settled));
        cursor.up_handled = settled;
        let mut ops = Ops::new();
        let user = Entity::new(self.jid.bare_str());
        if std::mem::take(sm.changed()) {
            sessions::put(&mut ops, &user, &self.sid.0, &record).ok();
        }
        sessions::put_cursor(&mut ops, &user, &self.sid.0, &cursor);
        let weak = me.downgrade();
        let submitted = self.host.batcher().submit(Writes::new(&user, ops), move |result| {
            if let Some(session) = weak.upgrade() {
                let settled = result.is_ok().then_some(settled);
                let _ = session.cast_always(Msg::Recorded { settled });
            }
        });
        if submitted.is_err() {
            sm.written();
            *sm.changed() = true;
            self.ledger.recorded(None);
        }
    }

    /// The record is written in the background and reports back here.
    pub(super) fn set_me(&mut self, me: &Handle<Self>) {
        if self.life == Life::Live
            && let Some(sm) = self.sm.as_mut().filter(|sm| sm.record_due())
        {
            sm.writing();
            // What a settled stanza has changed is on its way here, or was here: it is in front of this.
            let settled = self.ledger.processed();
            let _ = me.cast_always(Msg::Record { settled });
        }
    }
}
