//! Users move: to another node, when their shard does, and from one that died.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use rookery_cluster::store::Writes;
use rookery_cluster::tables::archive;
use rookery_cluster::tables::sessions;
use rookery_proto::xmpp::jid::{BareJid, Jid};
use rookery_proto::xmpp::stanza::Stanza;
use tokio::sync::oneshot;

use super::deliver::Ops;
use super::{Msg, User, UserSession as Session};
use crate::connection::ledger::Receipt;
use crate::features::contract::{Direction, Verdict};
use crate::host::Host;
use crate::placement::LostShards;
use crate::placement::lifecycle::Lifecycle;
use crate::routing::wire;
use crate::runtime::origin::OriginName;
use crate::session::event::{Event, Reattached};
use crate::session::reader::Reader;
use crate::session::{self, Attach, ClientState, SessionId, WAIT};

/// How a session's stanzas are counted (see [`Session::origin_name`]): before `<enable/>`, and after one without resumption.
pub(super) const UNMANAGED: u8 = 0xff;
pub(super) const MANAGED: u8 = 0x0f;

/// The user is about to move.
pub(super) struct Leaving {
    /// Sessions that have not said yet that all has come which their clients sent.
    open: usize,
    told: Option<oneshot::Sender<()>>,
}

impl Session {
    /// Whether its client confirms what it gets (XEP-0198).
    pub(super) fn is_managed(&self) -> bool {
        self.resumable || self.counted == MANAGED
    }

    /// By which name the session's stanzas are known when they come again; none if they can't.
    pub(super) fn origin_name(&self, host: &Host) -> Option<OriginName> {
        match (self.resumable, host.homes_change()) {
            (true, _) => Some(self.sid.into()),
            // Numbers begin anew with `<enable/>`: what was counted before has another name.
            (false, true) => Some(OriginName(self.sid.0.map(|byte| byte ^ self.counted))),
            (false, false) => None,
        }
    }
}

impl Host {
    /// A connection looks for its session at this home; false: the user can take nothing more now.
    pub(crate) fn attach_session(&self, user: &BareJid, attach: Attach) -> bool {
        self.cast_user(user, Msg::Attach(Box::new(attach))).is_ok()
    }
}

impl User {
    /// A session of this node goes on with a connection that knew it on another.
    pub(super) fn reattach(&mut self, mut attach: Attach) {
        tracing::trace!(user = %self.jid, leaving = self.leaving.is_some(), "a connection comes");
        let capsule = attach.attach.capsule.clone().unwrap_or_default();
        let (Some(sid), Some(record)) = (SessionId::from_slice(&capsule.sid), wire::record(&capsule)) else {
            return drop(attach.reply.send(None));
        };
        if self.leaving.is_some() {
            return; // dropped, the reply says: elsewhere
        }
        if self.session(sid).is_none() {
            // The session was ended here, or by a new password at a home that died before it could say so.
            if self.behind.has_ended(sid) || record.created_at < self.password_at {
                return drop(attach.reply.send(None));
            }
            let (reader, since) =
                (Reader::read(&record, wire::id_of(&attach.attach.acked)), record.created_at);
            let others = self.sessions.iter().filter(|session| session.jid.resource() == record.resource);
            let older = others
                .filter(|other| other.is_older(&reader, since))
                .map(|other| other.sid)
                .collect::<Vec<_>>();
            older.into_iter().for_each(|sid| self.end_as_replaced(sid));
            // A newer session has its resource, or there is no room.
            let taken = self.sessions.iter().any(|session| session.jid.resource() == record.resource);
            if taken || self.sessions.len() >= self.host.options().limits.sessions_per_user {
                return drop(attach.reply.send(None));
            }
            let cursor = sessions::Cursor {
                up_handled: 0, // there is no record that says more
                down_acked: attach.attach.h,
                acked: wire::id_of(&attach.attach.acked),
                ..sessions::Cursor::default()
            };
            let user = self.entity.clone();
            self.restore(sessions::Stored { user, sid: sid.0, record: record.clone(), cursor });
            // The session may have been here, and have ended while its connection looked for it: others were told that it is gone.
            attach.attach.moved = false;
        }
        let Some(session) = self.session_mut(sid) else { return drop(attach.reply.send(None)) };
        // A session that goes on already knows better than a connection that it had before.
        let goes_on =
            session.shared.connected.load(Ordering::Relaxed) || session.sequence.numbering.is_some();
        if !goes_on {
            // What a capsule says is newer than the record in the store, or what is newer there comes again: it was not settled for
            // the connection.
            let acked = wire::id_of(&attach.attach.acked);
            session.client = ClientState::read(&record, &session.jid, acked).known_to_user();
            session.since = record.created_at;
            // What comes from now on is read from the archive behind what its client has; live, it would come twice.
            session.draining = true;
        }
        let left = attach.attach.left_behind.iter().filter_map(|id| wire::id_of(id));
        left.for_each(|id| session.left_behind.note(id));
        let handle = session.handle.clone();
        let mut ops = Ops::new();
        for id in attach.attach.unqueue.iter().filter_map(|id| wire::id_of(id)) {
            archive::remove(&mut ops, archive::Collection::Queue, &self.entity, id);
        }
        self.submit(ops);
        let _ = handle.cast_always(session::Msg::Attach(Box::new(attach)));
        self.catch_up();
    }

    pub(super) fn reattached(&mut self, sid: SessionId, reattached: Reattached) {
        let Reattached { numbering, last, drained, has, queued, moved } = reattached;
        let Some(session) = self.session_mut(sid) else { return };
        session.resumable = numbering.is_some();
        session.sequence.numbering = numbering;
        self.kept.extend(queued.into_iter().map(|id| (sid, id)));
        self.changed(sid);
        if let (Some(cursor), Some(upto)) = (self.offline, drained)
            && cursor.after < upto
        {
            // Its client will confirm that, or it goes offline again.
            self.move_cursor(Some(cursor.given(upto)));
        }
        // What was archived and not sent: once the client has what it was sent before.
        self.replay_behind(sid, last, has);
        self.catch_up();
        if !moved {
            // What its last home was told and had not passed on, nobody would ever hear: presence is nowhere but on its way.
            self.refresh_presence(sid);
            self.announce(sid);
        }
    }

    /// Writes down that a session is there which can't be resumed: should its home die, it is looked for, and if it does
    /// not come, its contacts learn that it is gone. Then the receipt is settled.
    pub(super) fn record(&self, session: &Session, receipt: Receipt) {
        if session.resumable || !self.host.homes_change() {
            return receipt.done(); // its own record says so
        }
        let mut ops = Ops::new();
        sessions::put(&mut ops, &self.entity, &session.sid.0, &session.plain_record()).ok();
        // A record that could not be written is written with the next change.
        let submitted = self.host.batcher().submit(Writes::new(&self.entity, ops), |_| receipt.done());
        drop(submitted);
    }

    /// Everything that is under way is settled; then the sessions go.
    pub(super) fn leave(&mut self, told: oneshot::Sender<()>) {
        self.leaving = Some(Leaving { open: self.sessions.len(), told: Some(told) });
        self.drop_drains();
        self.leave_queues();
        for session in &self.sessions {
            if session.handle.cast_always(session::Msg::Hold).is_err()
                && let Some(leaving) = &mut self.leaving
            {
                leaving.open = leaving.open.saturating_sub(1);
            }
        }
    }

    pub(super) fn held(&mut self) {
        if let Some(leaving) = &mut self.leaving {
            leaving.open = leaving.open.saturating_sub(1);
        }
    }

    /// Looks whether the user may go.
    pub(super) fn go_on_leaving(&mut self) {
        let Some(leaving) = &mut self.leaving else { return };
        if leaving.open > 0 || !self.pending.commits.is_empty() || self.ops.busy() || self.behind.is_busy() {
            return;
        }
        let told = leaving.told.take();
        self.leaving = None;
        self.lifecycle = Lifecycle::Moved;
        self.send_strangers_on();
        let mut answers = Vec::new();
        for session in self.sessions.drain(..) {
            metrics::gauge!("rookery_sessions").decrement(1.0);
            let (left, answer) = oneshot::channel();
            if session.handle.cast_always(session::Msg::Leave(left)).is_ok() {
                answers.push((session.sid, session.handle, answer));
            }
        }
        let host = self.host.clone();
        self.host.spawn(async move {
            for (sid, handle, answer) in answers {
                let _ = answer.await;
                host.sessions().remove(&sid, &handle);
            }
            if let Some(told) = told {
                let _ = told.send(());
            }
        });
    }

    /// The shard is another node's: nothing is written, nobody is told.
    pub(super) fn lose(&mut self, loss: &LostShards) {
        loss.add(self.sessions.len(), self.pending.commits.len());
        self.lifecycle = Lifecycle::Moved;
        self.leaving = None;
        self.drop_drains();
        for session in self.sessions.drain(..) {
            metrics::gauge!("rookery_sessions").decrement(1.0);
            let _ = session.handle.cast_always(session::Msg::Lose);
            self.host.sessions().remove(&session.sid, &session.handle);
        }
        // A sender that waits for a commit hears that the commit is lost, and sends again to the next home.
        self.pending.commits.take_all().into_iter().for_each(|waiting| waiting.step.leave());
    }

    /// What comes for a user who lives elsewhere goes there.
    pub(super) fn take_moved(&mut self, msg: Msg) {
        match msg {
            Msg::In(inbound) => self.host.forward::<Self>(&self.jid, *inbound),
            Msg::Leave(left) => drop(left.send(())),
            // Its connection sends it again to the next home. The stream need not end for that.
            Msg::Session { event: Event::Sent { receipt, .. }, .. } => receipt.leave(),
            // A connection that asks for a session hears nothing, and asks the next home; the rest was settled, or comes again.
            _ => {}
        }
    }

    /// A presence did not reach these users: they are told what holds now.
    pub(crate) fn retell(&self, from: &Jid, users: &[BareJid]) {
        let session = self.sessions.iter().find(|session| session.jid.as_str() == from.as_str());
        let presence = session.and_then(|session| session.presence.as_ref()).map(|presence| &presence.stanza);
        let directed = |to: &Jid| session.is_some_and(|session| session.directed.contains(to));
        for user in users {
            // The sender may have been blocked or shut out meanwhile.
            let to = Jid::from(user.clone());
            let sees = |stanza: &&Arc<Stanza>| {
                (self.roster.sees_me(&to) || directed(&to))
                    && matches!(self.filter(Direction::Out, stanza, &to), Verdict::Pass)
            };
            self.host.retell_one(from, user, presence.filter(sees));
        }
    }
}

impl Host {
    /// Users who did not hear the presence of a session whose home this is.
    pub(crate) fn retell_here(&self, from: &Jid, users: Vec<BareJid>) {
        let sender = from.to_bare();
        if self.find_user(&sender).is_some() || self.may_have_sessions(&sender) {
            let from = from.clone();
            let retell = move |user: &mut User| user.retell(&from, &users);
            let _ = self.cast_user(&sender, Msg::Then(Box::new(retell)));
        } else {
            users.iter().for_each(|user| self.retell_one(from, user, None));
        }
    }
}

impl Session {
    /// The record of a session that can't be resumed.
    fn plain_record(&self) -> sessions::Record {
        let mut record = sessions::Record {
            resource: self.jid.resource().to_owned(),
            created_at: self.since,
            max_resume_s: WAIT,
            address: self.address.to_string(),
            ..sessions::Record::default()
        };
        self.client.write(&mut record);
        record
    }
}
