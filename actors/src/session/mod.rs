//! The session actor: a bound resource. It numbers what goes to its client, keeps it until the client has it
//! (XEP-0198), holds back what need not wake a phone (XEP-0352), and outlives its connection.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};
use std::time::Duration;

use rookery_cluster::mesh::peer::NodeId;
use rookery_cluster::tables::archive::ArchiveId;
use rookery_cluster::tables::roster::RosterVersion;
use rookery_cluster::tables::sessions;
use rookery_proto::xmpp::error::StreamCondition;
use rookery_proto::xmpp::jid::{FullJid, Jid};
use rookery_proto::xmpp::stanza::Stanza;

use crate::connection::ledger::{Ledger, Receipt};
use crate::connection::pipe::{Close, Down, Kept, Outgoing, Pipe};
use crate::connection::recent::{Asks, Recent};
use crate::features::xep_0191_blocking::Blocks;
use crate::features::xep_0352_csi as csi;
use crate::host::{Host, NotResumed};
use crate::runtime::actor::{Actor, Handle, Idle};
use crate::runtime::directory::Directory;
use crate::session::handle::{Route, RouteHold};
use crate::user::{self, Available, Numbering, User};

mod claim;
mod end;
pub mod handle;
mod handoff;
mod id;
mod inactive;
mod recent;
mod record;
pub(crate) mod remote;
mod resume;
mod roster;
mod safe;
mod shared;
mod sm;
mod traffic;

pub(crate) use claim::Claim;
pub use id::SessionId;
pub(crate) use shared::Shared;
use sm::Sm;
pub(crate) use sm::Unacked;
pub(crate) use sm::parse_resumption_id;

/// A stanza for the session's client.
pub(crate) struct Delivery {
    pub(crate) outgoing: Outgoing,
    /// Where it is durable.
    pub(crate) kept: Kept,
    pub(crate) receipt: Receipt,
}

/// What of a session survives in its record.
#[derive(Clone, Default)]
pub(crate) struct Flags {
    pub(crate) carbons: bool,
    pub(crate) interested: bool,
    pub(crate) roster: RosterVersion,
    pub(crate) blocks_push: bool,
    pub(crate) presence: Option<Available>,
    /// Whom it sent directed presence to.
    pub(crate) directed: Vec<Jid>,
    /// Which messages are for it.
    pub(crate) reader: user::Reader,
}

/// What a session actor is sent.
pub(crate) enum Msg {
    /// A stanza from the client.
    Up {
        stanza: Box<Stanza>,
        receipt: Receipt,
    },
    /// The connection's own answer to a stanza that was none.
    Answer {
        reply: Option<Box<Stanza>>,
        receipt: Receipt,
    },
    /// A stanza for the client.
    Deliver(Box<Delivery>),
    DownAck(u32),
    Enable {
        resume: bool,
        max: Option<u32>,
        ledger: Arc<Ledger>,
    },
    Resume(Box<user::Resume>),
    Csi(bool),
    /// Whom the user has blocked now: what is held back of theirs is dropped.
    Blocked(Arc<Blocks>),
    Flags(Box<Flags>),
    /// Tell the user, with this number, when the client has everything sent so far.
    Mark(u64),
    /// The connection has written everything before that mark.
    Written(u64),
    /// Its client sends nothing more, and all that it sent is settled.
    Finish {
        generation: u32,
    },
    Closed {
        clean: bool,
        generation: u32,
    },
    Kick(StreamCondition, std::borrow::Cow<'static, str>),
    /// The process stops: the stream ends, a resumable session stays on record.
    Suspend(tokio::sync::oneshot::Sender<()>),
    /// A second has passed since something asked for it.
    Tick,
    /// The time to resume is over, if there was no connection since.
    Expire {
        generation: u32,
    },
    /// What was changed before so many of the client's stanzas were settled has come: the record may say so.
    Record {
        settled: u32,
    },
    /// The record is written, and says that the client's stanzas are settled up to here; or it could not be written.
    Recorded {
        settled: Option<u32>,
    },
    /// Somebody waits for the record to say what is settled.
    Settle,
    /// What its client has, now that it is written down; or the store refused.
    Claimed(Result<Box<Claim>, NotResumed>),
    /// The way of its connection here, which leads elsewhere when it moves.
    Route(Weak<Route>),
    /// Its connection, which is elsewhere, knew it on another node.
    Attach(Box<user::Attach>),
    /// It is about to move: nothing more comes from its connection.
    Hold,
    /// What came before that is through.
    Holding,
    /// It moves now.
    Leave(tokio::sync::oneshot::Sender<()>),
    /// It lives on another node already.
    Lose,
    /// A stanza of the client is settled: what it was told because of that is in front of this.
    Done(Receipt),
    /// Its queue is full.
    TooSlow,
    /// A stanza that waits for its ack is on its way into the offline queue, under this id.
    Kept {
        number: u32,
        id: ArchiveId,
    },
    /// The store has refused that.
    NotKept {
        number: u32,
        receipt: Receipt,
    },
}

/// A session.
pub(crate) struct Session {
    host: Host,
    user: Handle<User>,
    sid: SessionId,
    jid: FullJid,
    pipe: Option<Arc<Pipe>>,
    /// The connection that it has, or had last, if that is on another node.
    peer: Option<(NodeId, u64)>,
    route: RouteHold,
    ledger: Arc<Ledger>,
    generation: u32,
    sm: Option<Box<Sm>>,
    csi: Option<Box<csi::Held>>,
    flags: Box<Flags>,
    address: Arc<str>,
    /// What the client has confirmed of the archive.
    acked: Option<ArchiveId>,
    /// The record that it was restored from, until it is resumed.
    restored: Option<Box<sessions::Stored>>,
    ended: bool,
    /// It lives on another node.
    left: bool,
    /// A client that wants to go on, and must wait until all that the last connection brought is settled.
    resuming: Option<Box<user::Resume>>,
    /// The mark that the connection of a client without XEP-0198 has not written out yet.
    unwritten: Option<u64>,
    /// What its user sees of it.
    shared: Arc<Shared>,
    /// How many stanzas it was handed.
    handed: u32,
    /// Somebody waits for the record to say what is settled, and it may not: the client has to confirm an answer first.
    settle_waits: bool,
    /// The requests and answers that its client was sent last.
    recent: Recent,
}

impl Session {
    #[allow(clippy::too_many_arguments)] // a constructor with one caller
    pub(crate) fn new(
        host: Host,
        user: Handle<User>,
        sid: SessionId,
        jid: FullJid,
        pipe: Arc<Pipe>,
        ledger: Arc<Ledger>,
        acked: Option<ArchiveId>,
        address: Arc<str>,
        shared: Arc<Shared>,
    ) -> Self {
        Self {
            shared,
            handed: 0,
            settle_waits: false,
            recent: Recent::default(),
            host,
            user,
            sid,
            jid,
            peer: pipe.peer().cloned(),
            pipe: Some(pipe),
            route: RouteHold::default(),
            ledger,
            generation: 0,
            sm: None,
            csi: None,
            flags: Box::default(),
            address,
            acked,
            restored: None,
            ended: false,
            left: false,
            resuming: None,
            unwritten: None,
        }
    }

    /// A hibernating session from its record; its time to be resumed begins anew.
    pub(crate) fn restore(
        host: Host,
        user: Handle<User>,
        jid: FullJid,
        stored: sessions::Stored,
        presence: Option<Available>,
        shared: Arc<Shared>,
    ) -> Handle<Self> {
        let record = &stored.record;
        let flag = |bit| record.flags & bit != 0;
        let max = Duration::from_secs(record.max_resume_s.into());
        let flags = Flags {
            carbons: flag(sessions::flags::CARBONS),
            interested: flag(sessions::flags::ROSTER),
            roster: sessions::roster(record),
            blocks_push: flag(sessions::flags::BLOCKLIST),
            presence,
            directed: record.directed.iter().filter_map(|jid| Jid::parse(jid).ok()).collect(),
            reader: user::Reader::read(record, stored.cursor.acked),
        };
        let resumable = flag(sessions::flags::RESUMABLE);
        let ledger = Ledger::new(stored.cursor.up_handled);
        let handle = host.sessions().handle(Self {
            host: host.clone(),
            user,
            sid: SessionId(stored.sid),
            jid,
            pipe: None,
            peer: None,
            route: RouteHold::default(),
            ledger: ledger.clone(),
            generation: 0,
            shared,
            handed: 0,
            settle_waits: false,
            recent: Recent::read(&stored.cursor.recent).covered_by(stored.cursor.down_acked),
            csi: flag(sessions::flags::INACTIVE).then(Box::default),
            flags: Box::new(flags),
            address: record.address.as_str().into(),
            acked: stored.cursor.acked,
            ended: false,
            left: false,
            resuming: None,
            unwritten: None,
            sm: Some(Box::new(Sm::restored(max, &stored))),
            restored: Some(Box::new(stored)),
        });
        if resumable {
            ledger.keep(handle.downgrade());
        }
        // SharedDelivery other nodes it may have its connection still, which looks for it.
        let looked_for = host.placement().map_or(Duration::ZERO, |_| Duration::from_secs(user::WAIT.into()));
        end::expire_later(&host, &handle, max.max(looked_for), 0);
        handle
    }

    fn up(&mut self, mut stanza: Stanza, receipt: Receipt) {
        // RFC 6120 section 8.1.2.1: the server says who it is from.
        stanza.from = Some(Jid::from(self.jid.clone()));
        if self.left {
            return receipt.leave(); // its connection sends it again to the next home
        }
        traffic::count(stanza.kind(), traffic::Way::In);
        let acked = self.sm.as_ref().map_or(0, |sm| sm.acked);
        if self.recent.asks(&stanza, receipt.number(), acked) == Asks::Again {
            return receipt.done(); // its client has had the answer
        }
        self.note_answer(&stanza);
        let msg = user::Msg::Out { sid: self.sid, stanza: Box::new(stanza), receipt };
        match self.user.cast(msg) {
            Ok(()) => {}
            Err(crate::runtime::actor::Refused::Full(user::Msg::Out { stanza, receipt, .. })) => {
                metrics::counter!("rookery_limits_hit_total", "limit" => "user_queue").increment(1);
                if !stanza.type_.is_answerable() {
                    // Nobody would hear that it was not taken. A connection's window bounds how much that can be.
                    let _ = self.user.cast_always(user::Msg::Out { sid: self.sid, stanza, receipt });
                    return;
                }
                let error = rookery_proto::xmpp::error::StanzaError::new(
                    rookery_proto::xmpp::error::Condition::ResourceConstraint,
                );
                self.answer(stanza.error_reply(&error), receipt);
            }
            Err(_) => self.close(Close::Error(
                StreamCondition::InternalServerError,
                "this account had to be restarted; please reconnect".into(),
            )),
        }
    }

    /// Sends an answer that is the session's own. It goes by way of the user, who counts what the session is handed.
    fn answer(&self, reply: Option<Stanza>, receipt: Receipt) {
        if self.left {
            return receipt.leave();
        }
        let sid = self.sid;
        let answer = move |user: &mut User| {
            if let Some(reply) = reply {
                user.send(sid, Outgoing::new(reply));
            }
            receipt.done();
        };
        let _ = self.user.cast_always(user::Msg::Then(Box::new(answer)));
    }

    /// How it counts, from now on.
    fn numbering(&self) -> Numbering {
        let (name, sent) = self.sm.as_ref().map_or((0, 0), |sm| (sm.numbering, sm.sent()));
        let held = self.csi.as_ref().map_or(0, |held| held.len());
        let dropped = self.shared.dropped.load(Ordering::Relaxed);
        let base = self.handed.wrapping_sub(sent).wrapping_sub(held).wrapping_sub(dropped);
        Numbering { name, base }
    }

    fn deliver(&mut self, delivery: Delivery) {
        self.handed = self.handed.wrapping_add(1);
        if delivery.kept.again() || self.recent.has(delivery.kept.key()) {
            self.shared.dropped.fetch_add(1, Ordering::Relaxed);
            return self.has_had(delivery);
        }
        if self.ended {
            return self.hand_back(delivery);
        }
        if let Some(held) = &mut self.csi {
            let before = held.len();
            let Some(delivery) = held.hold(delivery) else {
                if held.len() == before {
                    self.shared.dropped.fetch_add(1, Ordering::Relaxed);
                }
                return;
            };
            self.flush_held();
            return self.send(delivery);
        }
        self.send(delivery);
    }

    /// Numbers a stanza, keeps it if the client confirms what it gets, and puts it into the pipe.
    fn send(&mut self, delivery: Delivery) {
        let Delivery { outgoing, kept, receipt } = delivery;
        traffic::count(outgoing.stanza.kind(), traffic::Way::Out);
        let push = |down| self.pipe.as_ref().map_or(Ok(()), |pipe| pipe.push(down));
        let pushed = match &mut self.sm {
            Some(sm) => {
                let pushed = push(Down::Stanza(outgoing.clone(), kept.clone()));
                let limits = &self.host.options().limits;
                let moves = self.host.placement().is_some();
                if kept.key() != 0 && self.restored.is_none() {
                    self.recent.note(kept.key(), sm.sent().wrapping_add(1), self.ledger.received());
                    sm.need_cursor();
                }
                if !sm.keep(Unacked::new(outgoing, kept, receipt), limits, moves) {
                    metrics::counter!("rookery_limits_hit_total", "limit" => "unacked").increment(1);
                    return self.too_slow();
                }
                if sm.wants_ack() {
                    self.request_ack();
                }
                self.want_tick();
                pushed
            }
            None => {
                self.recent.note(kept.key(), 0, self.ledger.received());
                let queued: Vec<_> = outgoing.among.came().into_iter().collect();
                let pushed = push(Down::Stanza(outgoing, kept));
                self.unqueue(&queued);
                receipt.done();
                pushed
            }
        };
        if pushed == Err(crate::connection::pipe::Refused::Full) {
            metrics::counter!("rookery_limits_hit_total", "limit" => "pipe").increment(1);
            self.too_slow();
        }
    }
}

impl Actor for Session {
    type Msg = Msg;
    const QUEUE: u32 = 4_096;

    fn handle(&mut self, msg: Msg, me: &Handle<Self>) {
        match msg {
            Msg::Up { stanza, receipt } => self.up(*stanza, receipt),
            Msg::Answer { reply, receipt } => self.answer(reply.map(|reply| *reply), receipt),
            Msg::Deliver(delivery) => self.deliver(*delivery),
            Msg::DownAck(h) => self.down_ack(h),
            Msg::Enable { resume, max, ledger } => self.enable(resume, max, ledger, me),
            Msg::Resume(resume) => self.resume(resume, me, None),
            Msg::Csi(active) => self.csi(active),
            Msg::Blocked(blocked) => self.blocked(&blocked),
            Msg::Flags(flags) => self.set_flags(flags),
            Msg::Mark(number) => self.mark(number),
            Msg::Written(number) => self.written_out(number),
            Msg::Finish { generation } => self.finish(generation),
            Msg::Closed { clean, generation } => self.closed(clean, generation, me),
            Msg::Kick(condition, text) => {
                tracing::info!(jid = %self.jid, reason = condition.name(), %text, "session closed");
                self.close(Close::Error(condition, text));
                self.end(condition.name());
            }
            Msg::Suspend(done) => {
                self.suspend(me);
                // By way of the user, who writes down what the session holds.
                let told = move |_: &mut User| {
                    let _ = done.send(());
                };
                let _ = self.user.cast_always(user::Msg::Then(Box::new(told)));
            }
            Msg::Tick => self.tick(),
            Msg::Expire { generation } => self.expire(generation, me),
            Msg::Record { settled } => self.submit_record(settled, me),
            Msg::Recorded { settled } => self.recorded(settled, me),
            Msg::Settle => self.settle(me),
            Msg::Claimed(claim) => self.claimed(claim, me),
            Msg::Route(route) => {
                self.route = RouteHold::of(route);
                self.push_capsule();
            }
            Msg::Attach(attach) => self.attach(*attach, me),
            Msg::Hold => self.hold(me),
            Msg::Holding => drop(self.user.cast_always(user::Msg::Held)),
            Msg::Leave(left) => {
                self.leave(me);
                let _ = left.send(());
            }
            Msg::Lose => self.lose(),
            Msg::Done(receipt) => self.settle_told(receipt),
            Msg::TooSlow if self.ended => {}
            Msg::TooSlow => self.too_slow(),
            Msg::Kept { number, id } => self.kept(number, id),
            Msg::NotKept { number, receipt } => self.not_kept(number, receipt),
        }
        // A timer that was asked for is set here, where the way back is known.
        if let Some(sm) = &mut self.sm
            && sm.tick_wanted()
        {
            let weak = me.downgrade();
            self.host.wheel().after(Duration::from_secs(1), move || {
                if let Some(session) = weak.upgrade() {
                    let _ = session.cast_always(Msg::Tick);
                }
            });
        }
        self.set_me(me);
    }

    fn idle(&self) -> Idle {
        if self.ended { Idle::Leave } else { Idle::Passivate }
    }

    fn passivate(&mut self) {
        if let Some(sm) = &mut self.sm {
            sm.shrink();
        }
    }
}

/// The sessions of a node, by name.
pub(crate) struct Sessions(Directory<SessionId, Session>);

impl Default for Sessions {
    fn default() -> Self {
        Self(Directory::new(|SessionId([first, second, ..])| u16::from_le_bytes([*first, *second]).into()))
    }
}

impl std::ops::Deref for Sessions {
    type Target = Directory<SessionId, Session>;

    fn deref(&self) -> &Self::Target {
        &self.0
    }
}

impl Host {
    /// The sessions whose home is this node.
    pub(crate) fn sessions(&self) -> Arc<Sessions> {
        self.state()
    }
}
