//! Sessions come and go.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use rookery_cluster::tables::sessions;
use rookery_proto::xmpp::error::{Condition, StanzaError, StreamCondition};
use rookery_proto::xmpp::jid::Jid;
use rookery_proto::xmpp::stanza::{IqType, Stanza, Type};
use tokio::sync::oneshot;

use super::deliver::Ops;
use super::foreign::is_bounce;
use super::share::Owed;
use super::steps::Step;
use super::worth::worth_keeping;
use super::{Sequence, User, UserSession};
use crate::connection::left_behind::LeftBehind;
use crate::connection::pipe::{Kept, Outgoing, Pipe};
use crate::connection::shared_delivery::Gone;
use crate::host::NotResumed;
use crate::runtime::actor::Handle;
use crate::session::event::Ended;
use crate::session::handle::{ConnInfo, SessionHandle};
use crate::session::{self, ClientState, Identity, Resume, Session, SessionId, Unacked};

/// A connection wants a session (RFC 6120 section 7).
pub(crate) struct Bind {
    pub(crate) resource: Option<String>,
    pub(crate) conn: ConnInfo,
    pub(crate) pipe: Arc<Pipe>,
    pub(crate) reply: oneshot::Sender<Result<SessionHandle, StanzaError>>,
}

impl User {
    pub(super) fn bind(&mut self, bind: Bind) {
        if self.leaving.is_some() {
            return; // dropped, the reply says: elsewhere
        }
        let Bind { resource, conn, pipe, reply } = bind;
        let resource = resource.unwrap_or_else(|| self.host.random_id());
        let Ok(jid) = self.jid.with_resource(&resource) else {
            let _ = reply.send(Err(StanzaError::new(Condition::BadRequest)));
            return;
        };
        if let Some(old) = self.sessions.iter().find(|session| session.jid == jid).map(|session| session.sid)
        {
            // RFC 6120 section 7.7.2.2: the newer session wins.
            self.end_session(
                old,
                StreamCondition::Conflict,
                "replaced by a new session with the same resource",
            );
        }
        let most = self.host.options().limits.sessions_per_user;
        if self.sessions.len() >= most
            && let Some(oldest) = self.oldest_asleep()
        {
            let text = "replaced by a new session: there are too many";
            self.end_session(oldest, StreamCondition::PolicyViolation, text);
        }
        if self.sessions.len() >= most {
            metrics::counter!("rookery_limits_hit_total", "limit" => "sessions_per_user").increment(1);
            let _ = reply.send(Err(StanzaError::new(Condition::ResourceConstraint)));
            return;
        }
        let Some(me) = self.me.clone() else { return };
        let sid = SessionId::random(self.host.seams());
        let acked = self.stored; // another home reads on from there: the last id may never be stored
        let moves = self.host.homes_change() && !pipe.is_far();
        let shared = session::Shared::new(true, &self.budget());
        let who = Identity { sid, jid: jid.clone(), address: conn.address.clone(), shared };
        let session = Session::new(self.host.clone(), Box::new(me), who.clone(), pipe, acked);
        let ledger = session.ledger();
        let handle = self.host.sessions().handle(session);
        self.attach(who, handle.clone(), ClientState::bound(self.ids.last));
        metrics::counter!("rookery_sessions_opened_total").increment(1);
        tracing::info!(jid = %jid, address = %conn.address, "session opened");
        let link = SessionHandle::new(handle.clone(), jid, ledger, 0, moves);
        let _ = handle.cast_always(session::Msg::Route(link.route()));
        if let Err(Ok(link)) = reply.send(Ok(link)) {
            link.closed(false); // the connection went while it waited
        }
    }

    /// The oldest of the sessions without a connection: it makes room for one that has its client.
    fn oldest_asleep(&self) -> Option<SessionId> {
        let asleep = |session: &&UserSession| !session.shared.connected.load(Ordering::Relaxed);
        Some(self.sessions.iter().filter(asleep).min_by_key(|session| session.since)?.sid)
    }

    fn attach(&mut self, who: Identity, handle: Handle<Session>, client: ClientState) {
        let Identity { sid, jid, address, shared } = who;
        self.host.sessions().insert(sid, handle.clone());
        metrics::gauge!("rookery_sessions").increment(1.0);
        self.sessions.reserve_exact(1); // most users have one, and it is large
        self.sessions.push(UserSession {
            sid,
            jid,
            client,
            since: self.host.seams().clock.now_micros(),
            address,
            resumable: false,
            counted: super::handoff::UNMANAGED,
            draining: false,
            left_behind: LeftBehind::default(),
            sequence: Sequence::default(),
            shared,
            handle,
        });
    }

    pub(super) fn resume(&mut self, resume: Resume) {
        match self.session(resume.sid) {
            _ if self.leaving.is_some() => {} // the same
            Some(session) => {
                if let Err(
                    crate::runtime::actor::Refused::Full(session::Msg::Resume(resume))
                    | crate::runtime::actor::Refused::Gone(session::Msg::Resume(resume)),
                ) = session.handle.cast_always(session::Msg::Resume(Box::new(resume)))
                {
                    let _ = resume.reply.send(Err(NotResumed::NotFound));
                }
            }
            None => drop(resume.reply.send(Err(NotResumed::NotFound))),
        }
    }

    /// Ends one session with a stream error.
    pub(crate) fn end_session(
        &mut self,
        sid: SessionId,
        condition: StreamCondition,
        text: impl Into<std::borrow::Cow<'static, str>>,
    ) {
        if let Some(session) = self.session(sid) {
            let told = session.handle.cast_always(session::Msg::Kick(condition, text.into()));
            self.detach(sid);
            if told.is_err() {
                self.leave_behind(sid, (Vec::new(), Vec::new()), None, true); // nobody will say what it had sent
            }
        }
    }

    /// Takes a session out, and tells those concerned. What the session leaves is seen to when its stanzas have taken effect.
    fn detach(&mut self, sid: SessionId) {
        let Some(at) = self.sessions.iter().position(|session| session.sid == sid) else { return };
        let gone = self.sessions.swap_remove(at);
        metrics::gauge!("rookery_sessions").decrement(1.0);
        self.host.sessions().remove(&sid, &gone.handle);
        gone.hand_behind(u64::MAX); // it reports that as not delivered
        self.kept.retain(|(session, _)| *session != sid);
        let unread = self.give_up_drain(&gone);
        self.departed(&gone, unread);
        self.gone_unavailable(&gone);
    }

    /// A session is over: what its client has not got goes elsewhere.
    pub(super) fn ended(&mut self, ended: Ended) {
        let Ended { sid, unacked, replay_after, recorded } = ended;
        self.detach(sid);
        let (mut ids, mut rows) = (Vec::new(), Vec::new());
        for item in unacked {
            let Unacked { outgoing, kept, receipt, answered, .. } = item;
            let Outgoing { stanza, among, .. } = outgoing;
            let (stanza, own) = match among.copied(&stanza) {
                Some(message) => {
                    self.unqueue(sid, kept.queued().as_slice()); // the copy was for this session alone
                    (message, None)
                }
                None => (stanza, kept.queued()),
            };
            let bounce = is_bounce(&self.host, &stanza);
            let waits = bounce || worth_keeping(&stanza);
            let (receipt, queued) = match among.left(receipt, own) {
                Gone::Last(receipt, queued) => (receipt, queued),
                Gone::Elsewhere => {
                    rows.extend(own.filter(|_| bounce));
                    continue;
                }
                Gone::Recent(receipt, queued) => {
                    self.unqueue(sid, queued.as_slice());
                    receipt.done(); // another client has it
                    continue;
                }
            };
            let id = kept.id();
            match queued {
                Some(queued) if bounce => rows.push(queued),
                Some(queued) if !waits => self.unqueue(sid, &[queued]), // it was for this session alone
                _ => {}
            }
            match stanza.type_ {
                Type::Iq(IqType::Get | IqType::Set) if !answered => {
                    self.refuse(&stanza, receipt, &StanzaError::new(Condition::RecipientUnavailable))
                }
                Type::Message(_) if id.is_some() => {
                    ids.extend(id);
                    receipt.done(); // it is in the archive
                }
                Type::Message(_) if self.withholds(&stanza) => receipt.done(),
                Type::Message(_) if waits && queued.is_none() => {
                    if self.takes_messages() {
                        let to = Jid::from(self.jid.clone());
                        let (stanza, owed) = (Arc::new(Stanza::clone(&stanza).to(to)), Owed::LeftBehind);
                        let (kept, copies) = (Kept::default(), false);
                        self.in_order(Step::In { stanza, id: None, owed, copies, kept, receipt });
                    } else {
                        self.keep_for_later(stanza, receipt);
                    }
                }
                _ => receipt.done(),
            }
        }
        self.leave_behind(sid, (ids, rows), replay_after, recorded);
    }

    /// Removes an ended session's record.
    pub(super) fn forget(&self, sid: SessionId, recorded: bool) {
        if recorded {
            let mut ops = Ops::new();
            sessions::clear(&mut ops, &self.entity, &sid.0);
            self.submit(ops);
        }
    }

    /// A session that outlived its home: it waits, as before, to be resumed.
    pub(super) fn restore(&mut self, stored: sessions::Stored) {
        let record = stored.record.clone();
        let Ok(jid) = self.jid.with_resource(&record.resource) else { return };
        let Some(me) = self.me.clone() else { return };
        let sid = SessionId(stored.sid);
        let address: Arc<str> = record.address.as_str().into();
        let client = ClientState::read(&record, &jid, stored.cursor.acked);
        let shared = session::Shared::new(false, &self.budget());
        let host = self.host.clone();
        let who = Identity { sid, jid, address, shared };
        let handle = Session::restore(host, Box::new(me), who.clone(), stored, client.clone());
        self.attach(who, handle, client.known_to_user());
        if let Some(session) = self.session_mut(sid) {
            session.since = record.created_at;
            session.resumable = record.flags & sessions::flags::RESUMABLE != 0;
            session.draining = session.resumable;
        }
    }
}
