//! The session actor: a bound resource. A session numbers what goes to its client, keeps that until the client has it
//! (XEP-0198), holds back what need not wake a phone (XEP-0352), and outlives its connection. A session knows its user only as
//! [`event::Owner`]. How it moves from node to node is drawn in [`remote`].
//!
//! Length: the state and the dispatch of all messages; what they do is in the other files.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use rookery_cluster::mesh::peer::NodeId;
use rookery_cluster::tables::archive::ArchiveId;
use rookery_cluster::tables::sessions;
use rookery_proto::xmpp::error::StreamCondition;
use rookery_proto::xmpp::jid::{FullJid, Jid};
use rookery_proto::xmpp::stanza::{MessageType, Stanza, Type};

use crate::connection::ledger::{Ledger, Receipt};
use crate::connection::pipe::{Close, Down, Pipe};
use crate::connection::recent::Recent;
use crate::host::Host;
use crate::runtime::actor::{Actor, Handle, Idle, Refused};
use crate::runtime::directory::Directory;
use crate::session::route::RouteHold;
use event::Owner;
use inactive::Held;

mod claim;
mod client_state;
mod enable;
mod end;
pub(crate) mod event;
pub mod handle;
mod handoff;
mod id;
mod inactive;
mod msg;
pub(crate) mod owed;
pub(crate) mod reader;
mod recent;
mod record;
pub(crate) mod remote;
mod resume;
mod roster;
mod route;
mod safe;
mod shared;
mod sm;
pub(crate) mod timers;
mod traffic;
pub(crate) mod worth;

pub(crate) use claim::Claim;
pub use client_state::{Available, ClientState};
pub(crate) use event::{Event, Numbering};
pub(crate) use handoff::{Attach, WAIT};
pub use id::SessionId;
pub(crate) use msg::{Delivery, Msg};
pub(crate) use resume::Resume;
pub(crate) use shared::Shared;
use sm::Sm;
pub(crate) use sm::Unacked;
pub(crate) use sm::parse_resumption_id;
use timers::Timer;

/// Which session it is: what the session and its user both know of it from its beginning to its end.
#[derive(Clone)]
pub(crate) struct Identity {
    /// Its name.
    pub(crate) sid: SessionId,
    /// Its full JID.
    pub(crate) jid: FullJid,
    /// The address of its client when it was bound, for people.
    pub(crate) address: Arc<str>,
    /// What its user sees of it.
    pub(crate) shared: Arc<Shared>,
}

/// Whether the session goes on here.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Life {
    /// The session has a connection, or waits for one.
    Live,
    /// The session is over.
    Ended,
    /// The session lives on another node.
    Left,
}

/// A session.
pub(crate) struct Session {
    host: Host,
    user: Box<dyn Owner>,
    sid: SessionId,
    jid: FullJid,
    pipe: Option<Arc<Pipe>>,
    /// The connection that it has, or had last, if that is on another node.
    peer: Option<(NodeId, u64)>,
    route: RouteHold,
    ledger: Arc<Ledger>,
    generation: u32,
    sm: Option<Box<Sm>>,
    /// `<enabled/>`, until the record is in the store.
    enabling: Option<Bytes>,
    /// What is held back while nobody looks at the client.
    held: Option<Box<Held>>,
    client: Box<ClientState>,
    address: Arc<str>,
    /// What the client has confirmed of the archive.
    acked: Option<ArchiveId>,
    /// The record that it was restored from, until it is resumed.
    restored: Option<Box<sessions::Stored>>,
    life: Life,
    /// A client that wants to go on, and must wait until all that the last connection brought is settled.
    resuming: Option<Box<Resume>>,
    /// The mark that the connection of a client without XEP-0198 has not written out yet.
    unwritten: Option<u64>,
    /// What its user sees of it.
    shared: Arc<Shared>,
    /// How many stanzas it was handed.
    handed: u32,
    /// Somebody waits for the record to say what is settled, and it may not: the client has to confirm an answer first.
    settle_waits: bool,
    /// The requests, answers and messages of rooms that its client was sent last.
    recent: Recent,
}

impl Session {
    /// A session that is bound now, with its connection; `acked` is what its client has of the archive.
    pub(crate) fn new(
        host: Host,
        user: Box<dyn Owner>,
        who: Identity,
        pipe: Arc<Pipe>,
        acked: Option<ArchiveId>,
    ) -> Self {
        let peer = pipe.peer().cloned();
        Self { peer, pipe: Some(pipe), acked, ..Self::make(host, user, who, Ledger::new(0)) }
    }

    fn make(host: Host, user: Box<dyn Owner>, who: Identity, ledger: Arc<Ledger>) -> Self {
        let Identity { sid, jid, address, shared } = who;
        Self {
            host,
            user,
            sid,
            jid,
            pipe: None,
            peer: None,
            route: RouteHold::default(),
            ledger,
            generation: 0,
            sm: None,
            enabling: None,
            held: None,
            client: Box::default(),
            address,
            acked: None,
            restored: None,
            life: Life::Live,
            resuming: None,
            unwritten: None,
            shared,
            handed: 0,
            settle_waits: false,
            recent: Recent::default(),
        }
    }

    /// A hibernating session from its record; its time to be resumed begins anew. `client` is what the record says of its client.
    pub(crate) fn restore(
        host: Host,
        user: Box<dyn Owner>,
        who: Identity,
        stored: sessions::Stored,
        client: ClientState,
    ) -> Handle<Self> {
        let record = &stored.record;
        let max = Duration::from_secs(record.max_resume_s.into());
        let resumable = record.flags & sessions::flags::RESUMABLE != 0;
        let ledger = Ledger::new(stored.cursor.up_handled);
        let handle = host.sessions().handle(Self {
            recent: Recent::read(&stored.cursor).covered_by(stored.cursor.down_acked),
            held: client.inactive.then(Box::default),
            client: Box::new(client),
            acked: stored.cursor.acked,
            sm: Some(Box::new(Sm::restored(max, &stored))),
            restored: Some(Box::new(stored)),
            ..Self::make(host.clone(), user, who, ledger.clone())
        });
        if resumable {
            ledger.keep(handle.downgrade());
        }
        // Among other nodes it may have its connection still, which looks for it.
        let looked_for = if host.homes_change() { Duration::from_secs(WAIT.into()) } else { Duration::ZERO };
        end::expire_later(&host, &handle, max.max(looked_for), 0);
        handle
    }

    /// Which stanzas of its client are settled.
    pub(crate) fn ledger(&self) -> Arc<Ledger> {
        self.ledger.clone()
    }

    fn up(&mut self, mut stanza: Arc<Stanza>, receipt: Receipt) {
        // RFC 6120 section 8.1.2.1: the server names the sender.
        Arc::make_mut(&mut stanza).from = Some(Jid::from(self.jid.clone()));
        if self.life == Life::Left {
            return receipt.leave(); // its connection sends it again to the next home
        }
        traffic::count(stanza.kind(), traffic::Way::In);
        let Some(receipt) = self.unless_answered(&stanza, receipt) else { return };
        self.note_answer(&stanza);
        match self.user.tell(self.sid, Event::Sent { stanza, receipt }) {
            Ok(()) => {}
            Err(Refused::Full(Event::Sent { stanza, receipt })) => {
                metrics::counter!("rookery_limits_hit_total", "limit" => "user_queue").increment(1);
                if !stanza.type_.is_answerable() {
                    // Nobody would hear that it was not taken. A connection's window bounds how much that can be.
                    return self.tell(Event::Sent { stanza, receipt });
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

    /// Tells its user, which may be gone.
    fn tell(&self, event: Event) {
        let _ = self.user.tell_always(self.sid, event);
    }

    /// Sends an answer that is the session's own, by way of the user, which counts what the session is handed.
    fn answer(&self, reply: Option<Stanza>, receipt: Receipt) {
        if self.life == Life::Left {
            return receipt.leave();
        }
        self.tell(Event::Answer { reply: reply.map(Box::new), receipt });
    }

    /// How it counts, from now on.
    fn numbering(&self) -> Numbering {
        let (name, sent) = self.sm.as_ref().map_or((0, 0), |sm| (sm.numbering, sm.sent()));
        let held = self.held.as_ref().map_or(0, |held| held.len());
        let dropped = self.shared.dropped.load(Ordering::Relaxed);
        let base = self.handed.wrapping_sub(sent).wrapping_sub(held).wrapping_sub(dropped);
        Numbering { name, base }
    }

    fn deliver(&mut self, mut delivery: Box<Delivery>) {
        self.handed = self.handed.wrapping_add(1);
        if delivery.outgoing.stanza.type_ == Type::Message(MessageType::Error) {
            let key = recent::key(&delivery.outgoing.stanza);
            delivery.kept = delivery.kept.keyed(key);
        }
        if delivery.kept.again() || self.recent.has_kept(&delivery.kept) {
            self.shared.dropped.fetch_add(1, Ordering::Relaxed);
            return self.has_had(*delivery);
        }
        if self.life != Life::Live {
            return self.hand_back(*delivery);
        }
        if let Some(held) = &mut self.held {
            let before = held.len();
            let Some(delivery) = held.hold(*delivery) else {
                if held.len() == before {
                    self.shared.dropped.fetch_add(1, Ordering::Relaxed);
                }
                return;
            };
            self.flush_held();
            return self.send(Box::new(delivery));
        }
        self.send(delivery);
    }

    /// Numbers a stanza, keeps it if the client confirms what it gets, and puts it into the pipe.
    #[allow(clippy::boxed_local, reason = "its parts are moved once, from the box into the pipe")]
    fn send(&mut self, delivery: Box<Delivery>) {
        let Delivery { outgoing, kept, receipt } = *delivery;
        traffic::count(outgoing.stanza.kind(), traffic::Way::Out);
        let pipe = self.pipe.as_ref().filter(|_| self.enabling.is_none());
        let push = |down| pipe.map_or(Ok(()), |pipe| pipe.push(down));
        let pushed = match &mut self.sm {
            Some(sm) => {
                let pushed = push(Down::Stanza(outgoing.clone(), kept.clone()));
                let limits = &self.host.options().limits;
                let moves = self.host.homes_change();
                if kept.key() != 0 && self.restored.is_none() {
                    let number = Some(sm.sent().wrapping_add(1));
                    self.recent.note_kept(&kept, number, self.ledger.received());
                    sm.need_cursor();
                }
                let pressing = receipt.is_pressing();
                if !sm.keep(Unacked::new(outgoing, kept, receipt), limits, moves) {
                    metrics::counter!("rookery_limits_hit_total", "limit" => "unacked").increment(1);
                    return self.too_slow();
                }
                if sm.wants_ack() {
                    self.request_ack();
                }
                if let Some(sm) = &mut self.sm {
                    sm.want_tick(pressing);
                }
                pushed
            }
            None => {
                if kept.key() != 0 {
                    self.recent.note_kept(&kept, None, self.ledger.received());
                }
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
            Msg::Up { stanza, receipt } => self.up(stanza, receipt),
            Msg::Answer { reply, receipt } => self.answer(reply.map(|reply| *reply), receipt),
            Msg::Deliver(delivery) => self.deliver(delivery),
            Msg::DownAck(h) => self.down_ack(h),
            Msg::Enable { resume, max, ledger } => self.enable(resume, max, ledger, me),
            Msg::Resume(resume) => self.resume(resume, me, None),
            Msg::Csi(active) => self.csi(active),
            Msg::Withdraw(from) => self.withdraw(|jid| from(jid)),
            Msg::Remember(state) => self.remember(state),
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
                // By way of the user, which writes down what the session holds.
                self.tell(Event::Suspended(done));
            }
            Msg::Timer(Timer::Tick) => self.tick(),
            Msg::Timer(Timer::Hurry) => self.hurry(),
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
            Msg::Holding => self.tell(Event::Held),
            Msg::Leave(left) => {
                self.leave(me);
                let _ = left.send(());
            }
            Msg::Lose => self.lose(),
            Msg::Done(receipt) => self.settle_told(receipt),
            Msg::TooSlow if self.life != Life::Live => {}
            Msg::TooSlow => self.too_slow(),
            Msg::Kept { number, id } => self.kept(number, id),
            Msg::NotKept { number, receipt } => self.not_kept(number, receipt),
        }
        // Timers that were asked for are set here, where the way back is known.
        while let Some(timer) = self.sm.as_mut().and_then(|sm| sm.timers.order()) {
            let weak = me.downgrade();
            timer.set(self.host.wheel(), move || {
                if let Some(session) = weak.upgrade() {
                    let _ = session.cast_always(Msg::Timer(timer));
                }
            });
        }
        self.set_me(me);
    }

    fn idle(&self) -> Idle {
        if self.life != Life::Live { Idle::Leave } else { Idle::Passivate }
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
