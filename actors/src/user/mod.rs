//! The user actor: the one place where things about a bare JID are decided, in order. The actor is a state machine: every
//! [`Msg`] is one step that never waits; what takes time is spawned and comes back as a message.
//!
//! - `attach`: sessions come and go. `session_queue`, `outgoing`: what the user's sessions send. `incoming`: what is sent to the user.
//! - `steps`: commit, then deliver, in order. `deliver`: what is archived, and which sessions get it. `queue`: what no archive
//!   keeps. `offline`, `cursor`: what waits for a device. `leftovers`: what ended sessions left.
//! - `presence`, `audience`, `subscription`, `roster`: RFC 6121. `foreign`: the same with people on other servers. `iq`, `strangers`: requests, for [`crate::features`].

use std::sync::Arc;

use rookery_cluster::entity::Entity;
use rookery_cluster::tables::archive::{self, ArchiveId};
use rookery_cluster::tables::mam_prefs;
use rookery_proto::xmpp::error::{Condition, StanzaError};
use rookery_proto::xmpp::jid::BareJid;
use rookery_proto::xmpp::stanza::Stanza;

use crate::connection::ledger::Receipt;
use crate::connection::pipe::Outgoing;
use crate::features::contract::Then;
use crate::features::xep_0191_blocking::Blocks;
use crate::host::kind::Inbound;
use crate::host::{Host, NotResumed};
use crate::placement::lifecycle::{self, Lifecycle};
use crate::runtime::actor::{Actor, Handle, Idle};
use crate::runtime::commit_queue::Committed;
use crate::session::event::Event;
use crate::session::{self, SessionId};

mod absent;
mod attach;
mod audience;
mod backpressure;
mod behalf;
mod cursor;
mod deliver;
mod drains;
mod foreign;
mod handoff;
mod incoming;
mod iq;
mod kind;
mod leftovers;
mod load;
mod numbers;
mod offline;
mod outgoing;
mod presence;
mod propagation;
mod queue;
mod replaced;
pub mod roster;
mod roster_iq;
mod seen;
mod sent;
mod session_events;
mod session_queue;
mod share;
mod steps;
mod strangers;
mod subscribe;
mod subscription;
mod user_session;

pub(crate) use attach::Bind;
pub(crate) use load::Loaded;
pub(crate) use numbers::Sequence;
pub use roster_iq::ROSTER;
pub(crate) use roster_iq::remove as remove_contact;
pub(crate) use share::waits_for_any;
pub(crate) use subscribe::requests;
pub use user_session::UserSession;

pub(crate) use crate::session::worth::{self, worth_keeping};
pub(crate) use crate::session::{Attach, Resume, event::Ended};
pub use crate::session::{Available, ClientState};

/// What a user actor is sent.
pub(crate) enum Msg {
    /// What the store knows of this user.
    Loaded(Result<Box<Loaded>, Box<StanzaError>>),
    Bind(Box<Bind>),
    Resume(Box<Resume>),
    /// From one of the user's own sessions.
    Session {
        sid: SessionId,
        event: Event,
    },
    /// To this user.
    In(Box<Inbound>),
    /// A commit is done, or was refused.
    Committed(Committed),
    /// A step that something spawned asks for.
    Then(Then),
    /// A connection elsewhere whose session has lost its home.
    Attach(Box<Attach>),
    /// The user moves to another node: everything is settled, then this is answered.
    Leave(tokio::sync::oneshot::Sender<()>),
    /// The user lives on another node already.
    Lose(Arc<crate::placement::LostShards>),
}

/// A user.
pub struct User {
    host: Host,
    jid: BareJid,
    entity: Entity,
    /// That of the shard: the user is here for no longer.
    epoch: u32,
    me: Option<Handle<User>>,
    lifecycle: Lifecycle<Msg>,
    sessions: Vec<UserSession>,
    roster: roster::Roster,
    /// The JIDs that this user has blocked (XEP-0191).
    pub blocks: Blocks,
    /// The user's archiving preferences (XEP-0441), if any are set.
    pub prefs: Option<mam_prefs::Preferences>,
    ids: archive::Clock,
    /// The newest entry of the archive that is known to be stored.
    stored: Option<archive::ArchiveId>,
    /// The day of the last archive entry.
    day: Option<u32>,
    /// The same of the offline queue.
    queue_day: Option<u32>,
    /// Everything incoming after this entry was delivered to no device.
    offline: Option<rookery_cluster::tables::offline::Cursor>,
    /// When the password was changed, if that was before the user was read: older sessions hold no more.
    password_at: u64,
    /// How many messages wait in the offline queue, about.
    queued: usize,
    /// What lies in the offline queue on behalf of a session that will still confirm it.
    kept: Vec<(SessionId, ArchiveId)>,
    drains: drains::Drains,
    /// What ended sessions leave to other devices.
    behind: leftovers::Behind,
    /// What was taken from each sender whose stanzas may come again.
    seen: crate::runtime::seen::Senders,
    pending: steps::Pending,
    ops: iq::Operations,
    leaving: Option<handoff::Leaving>,
    /// What components have asked others in the user's name.
    asked: Vec<behalf::Asked>,
    /// How much is tried again soon.
    retries: u16,
    /// What is under way to and from foreign contacts.
    foreign: foreign::Foreign,
}

impl User {
    /// A user that will ask the store when its first message comes.
    pub(crate) fn new(host: Host, jid: BareJid) -> Self {
        let (entity, drains) = (Entity::new(jid.as_str()), drains::Drains::new(&host));
        let pending = steps::Pending::new(&host, &entity);
        Self {
            epoch: host.epoch(&entity),
            host,
            jid,
            entity,
            me: None,
            lifecycle: Lifecycle::default(),
            sessions: Vec::new(),
            roster: roster::Roster::default(),
            blocks: Blocks::default(),
            prefs: None,
            ids: archive::Clock::default(),
            stored: None,
            day: None,
            queue_day: None,
            offline: None,
            password_at: 0,
            queued: 0,
            kept: Vec::new(),
            drains,
            behind: leftovers::Behind::default(),
            seen: crate::runtime::seen::Senders::default(),
            pending,
            ops: iq::Operations::new(&iq::LIMITS),
            leaving: None,
            asked: Vec::new(),
            retries: 0,
            foreign: foreign::Foreign::default(),
        }
    }

    /// The server this user is on.
    pub fn host(&self) -> &Host {
        &self.host
    }

    /// The user's bare JID.
    pub fn jid(&self) -> &BareJid {
        &self.jid
    }

    /// The user's name in the store.
    pub fn entity(&self) -> &Entity {
        &self.entity
    }

    /// The sessions, hibernating ones included.
    pub fn sessions(&self) -> &[UserSession] {
        &self.sessions
    }

    /// One of the sessions.
    pub fn session(&self, sid: SessionId) -> Option<&UserSession> {
        self.sessions.iter().find(|session| session.sid == sid)
    }

    /// The same, to change its flags; call [`User::changed`] afterwards if they must survive a restart.
    pub fn session_mut(&mut self, sid: SessionId) -> Option<&mut UserSession> {
        self.sessions.iter_mut().find(|session| session.sid == sid)
    }

    /// All of them, to change their flags.
    pub fn sessions_mut(&mut self) -> impl Iterator<Item = &mut UserSession> {
        self.sessions.iter_mut()
    }

    /// The contacts.
    pub fn roster(&self) -> &roster::Roster {
        &self.roster
    }

    /// Sends a stanza to one of the user's sessions.
    pub fn send(&self, sid: SessionId, outgoing: Outgoing) {
        if let Some(session) = self.session(sid) {
            session.deliver(outgoing, None, Receipt::none());
        }
    }

    /// Ends all sessions with this stream error, as when the account is removed.
    pub fn end_all(&mut self, condition: rookery_proto::xmpp::error::StreamCondition, text: &'static str) {
        for session in &self.sessions {
            let _ = session.handle.cast_always(session::Msg::Kick(condition, text.into()));
        }
    }

    /// The account was removed: nothing of it is written any more.
    pub fn removed(&mut self) {
        self.lifecycle = Lifecycle::Nobody;
        self.pending.commits.refuse_held();
    }

    fn is_nobody(&self) -> bool {
        matches!(self.lifecycle, Lifecycle::Nobody)
    }

    /// An account of this name was made: what the actor knows is read again.
    pub fn created(&mut self) {
        if matches!(self.lifecycle, Lifecycle::Nobody) {
            let fresh = Self::new(self.host.clone(), self.jid.clone());
            let old = std::mem::replace(self, fresh);
            (self.me, self.sessions, self.pending, self.ops) = (old.me, old.sessions, old.pending, old.ops);
            self.load();
        }
    }

    /// This session's flags have changed: they go into its record.
    pub fn changed(&mut self, sid: SessionId) {
        self.changed_then(sid, Receipt::none());
    }

    /// The same; then the receipt is settled.
    fn changed_then(&mut self, sid: SessionId, receipt: Receipt) {
        let last = self.ids.last;
        if let Some(session) = self.session_mut(sid) {
            session.client.follow(last);
            session.tell_client_state();
        }
        match self.session(sid) {
            Some(session) => self.record(session, receipt),
            None => receipt.done(),
        }
    }

    /// Whether a session is available with a priority that takes messages to the bare JID.
    fn takes_messages(&self) -> bool {
        self.sessions.iter().any(UserSession::takes_messages)
    }

    /// Runs `work` apart from the actor and takes the step it returns.
    fn spawn(&self, work: impl Future<Output = Then> + Send + 'static) {
        let Some(me) = self.me.clone() else { return };
        self.host.spawn(async move {
            let then = work.await;
            let _ = me.cast_always(Msg::Then(then));
        });
    }

    fn take_ready(&mut self, msg: Msg) {
        match msg {
            Msg::Loaded(_) => {}
            Msg::Bind(bind) => self.bind(*bind),
            Msg::Resume(resume) => self.resume(*resume),
            Msg::Session { sid, event } => self.session_tells(sid, event),
            Msg::In(inbound) => self.incoming(*inbound),
            Msg::Committed(committed) => self.committed(committed),
            Msg::Then(then) => then(self),
            Msg::Attach(attach) => self.reattach(*attach),
            Msg::Leave(left) => self.leave(left),
            Msg::Lose(loss) => self.lose(&loss),
        }
    }

    /// What happens to messages when there is no such account.
    fn take_as_nobody(&mut self, msg: Msg) {
        match msg {
            Msg::Bind(bind) => drop(bind.reply.send(Err(StanzaError::new(Condition::NotAllowed)))),
            Msg::Resume(resume) => drop(resume.reply.send(Err(NotResumed::NotFound))),
            Msg::Session { sid, event } => self.session_of_nobody_tells(sid, event),
            Msg::In(inbound) => self.not_here(*inbound),
            Msg::Then(then) => then(self),
            // The account was removed while this was under way: senders that wait for it are told.
            Msg::Committed(committed) => self.committed(committed.refused()),
            Msg::Attach(attach) => drop(attach.reply.send(None)),
            Msg::Leave(left) => {
                self.lifecycle = Lifecycle::Moved;
                let _ = left.send(());
            }
            Msg::Lose(_) => self.lifecycle = Lifecycle::Moved,
            Msg::Loaded(_) => {}
        }
    }

    /// Answers a stanza with an error, if it may be answered, and settles it.
    fn refuse(&self, stanza: &Stanza, receipt: Receipt, error: &StanzaError) {
        if let Some(reply) = stanza.error_reply(error) {
            metrics::counter!("rookery_stanza_errors_total", "condition" => error.condition.name())
                .increment(1);
            return self.host.refuse(reply, receipt);
        }
        receipt.done();
    }
}

impl Actor for User {
    type Msg = Msg;
    const QUEUE: u32 = 4_096;

    fn handle(&mut self, msg: Msg, me: &Handle<Self>) {
        lifecycle::step(self, msg, me);
    }

    fn idle(&self) -> Idle {
        match &self.lifecycle {
            Lifecycle::Loading(_) => Idle::Stay,
            Lifecycle::Moved => Idle::Leave,
            _ if self.leaving.is_some() || !self.asked.is_empty() => Idle::Stay,
            Lifecycle::Nobody if self.sessions.is_empty() => Idle::Leave,
            _ if !self.pending.commits.is_empty() || self.ops.busy() || !self.drains.is_empty() => Idle::Stay,
            _ if self.behind.is_busy() => Idle::Stay,
            Lifecycle::Ready if self.sessions.is_empty() && !self.foreign.is_busy() => Idle::Leave,
            _ => Idle::Passivate,
        }
    }

    fn passivate(&mut self) {
        self.sessions.shrink_to_fit();
        self.kept.shrink_to_fit();
        self.seen.shrink();
        self.pending.commits.shrink();
        self.ops.shrink();
    }

    fn gone(&mut self) {
        self.me = None;
    }
}
