//! A session moves to another node, or comes from one that died.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use rookery_cluster::entity::Entity;
use rookery_cluster::mesh::peer::NodeId;
use rookery_cluster::store::{Ops, Writes};
use rookery_cluster::tables::archive::ArchiveId;
use rookery_cluster::tables::sessions;
use rookery_proto::xmpp::error::StreamCondition;
use tokio::sync::oneshot;

use super::event::{Event, Reattached};
use super::{Life, Msg, Session, Unacked, recent};
use crate::connection::budget::Charged;
use crate::connection::ledger::{Ledger, Receipt};
use crate::connection::pipe::{self, Close, Down, Outgoing, Pipe};
use crate::connection::recent::Recent;
use crate::routing::wire;
use crate::runtime::actor::Handle;
use crate::session::handle::{RouteHold, SessionHandle};
use crate::session::remote::{Carried, SessionProxy};
use crate::session::roster::Has;
use crate::session::sm::Sm;

/// How long a session that can't be resumed waits for its connection, which looks for it, seconds.
pub(crate) const WAIT: u32 = 20;

/// A connection elsewhere whose session has lost its home.
pub(crate) struct Attach {
    pub(crate) attach: wire::Attach,
    /// The node that has the connection, and its name there.
    pub(crate) peer: (NodeId, u64),
    pub(crate) pipe: Arc<Pipe>,
    /// What has stood for the session, if its connection is on this node.
    pub(crate) here: Option<Arc<SessionProxy>>,
    /// Nothing: there is no such session. Dropped: it is not here, or what stood for it knows already.
    pub(crate) reply: oneshot::Sender<Option<SessionHandle>>,
}

/// The receiver of the news that the session has its connection: a proxy of this node with its attempt, or the asker.
type Answer = (Option<Arc<SessionProxy>>, u32, oneshot::Sender<Option<SessionHandle>>);

impl Session {
    /// The edge *attach*: the connection knew the session on another node. What its client was sent there, and has not confirmed,
    /// is what this session has sent. Nothing was sent by it before.
    pub(super) fn attach(&mut self, attach: Attach, me: &Handle<Self>) {
        let waits = self.life == Life::Live && self.resuming.is_none();
        if self.peer.as_ref() == Some(&attach.peer) && self.restored.is_none() && waits {
            return self.reattach(attach, me);
        }
        let Attach { attach, peer, pipe, here, reply } = attach;
        let Some(restored) = self.restored.take_if(|_| waits) else {
            return drop(reply.send(None)); // its client has come back by another connection
        };
        self.peer = Some(peer);
        self.generation = self.generation.wrapping_add(1);
        self.acked = self.acked.max(wire::id_of(&attach.acked));
        // What the record says, and no more, may be told: until it is written anew, that is what the last home wrote.
        self.ledger = Ledger::behind(attach.settled, restored.cursor.up_handled);
        let record = attach.capsule.as_ref().and_then(wire::record);
        if let Some(record) = &record {
            self.address = record.address.as_str().into();
        }
        let record = record.unwrap_or_default();
        self.flush_held();
        let came = self.came_meanwhile();
        let (waited, tail) = (came.len(), self.tail_of(&attach));
        let got = attach.h.wrapping_add(u32::try_from(tail.len()).unwrap_or(0));
        // What the connection knows, and what the record says that it has brought its client before.
        self.recent = recent::from_wire(&attach);
        self.recent.add(&Recent::read(&restored.cursor).covered_by(got));
        let came = self.settle_had(came);
        pipe.refill(came.iter().map(Unacked::down));
        let reattached = Reattached {
            numbering: None, // not before the connection is there
            last: self.acked.max(wire::id_of(&attach.last)),
            drained: wire::id_of(&attach.drained),
            has: Some((record.numbering, got)).filter(|_| attach.managed && record.numbering != 0),
            queued: tail.iter().filter_map(|item| item.kept.queued()).collect(),
            moved: attach.moved && self.follows(attach.capsule.as_ref()),
        };
        let tail_ids: Vec<_> = tail.iter().map(|item| item.kept.id()).collect();
        if attach.managed {
            let numbering = u64::from_le_bytes(self.host.seams().bytes());
            let sm =
                self.sm.get_or_insert_with(|| Box::new(Sm::restored(self.host.options().resume, &restored)));
            sm.has = Has::all(sessions::roster(&record));
            sm.attached(attach.h, numbering, tail.into_iter().chain(came));
            sm.drained = reattached.drained;
            attach.left_behind.iter().filter_map(|id| wire::id_of(id)).for_each(|id| sm.left_behind.note(id));
            sm.note_had(&mut self.recent, self.ledger.received());
        } else {
            came.into_iter().for_each(|item| item.receipt.done());
            self.sm = None;
        }
        self.set_inactive(attach.inactive);
        let resumable = self.sm.as_ref().is_some_and(|sm| sm.resumable());
        if resumable {
            self.ledger.keep(me.downgrade());
        }
        self.connected(pipe, me, (here, wire::attempt(&attach), reply));
        tracing::info!(jid = %self.jid, address = %self.address, waited, "session reattached to its connection");
        let numbering = resumable.then(|| self.numbering());
        self.tell(Event::Reattached(Box::new(Reattached { numbering, ..reattached })));
        if resumable {
            self.write_attached(&tail_ids, me);
        }
        if self.sm.as_ref().is_some_and(|sm| sm.has_unacked()) {
            self.request_ack();
            self.want_tick();
        }
    }

    /// What came while there was no connection, without what of it is archived: that will be read.
    fn came_meanwhile(&mut self) -> Vec<Unacked> {
        let came = self.sm.as_mut().map(|sm| sm.take_unacked()).unwrap_or_default();
        came.into_iter().filter(|item| item.kept.id().is_none()).collect()
    }

    /// What the client was sent by the last home and has not confirmed.
    fn tail_of(&self, attach: &wire::Attach) -> Vec<Unacked> {
        let unacked = |sent: &wire::Stanza| {
            let mut outgoing = Outgoing::new(crate::routing::stored::stanza(&sent.stanza)?);
            self.shared.waits.charge(&mut outgoing);
            Some(Unacked::new(outgoing, wire::kept(sent), Receipt::none()))
        };
        attach.tail.iter().filter_map(unacked).collect()
    }

    /// Settles what the client has had before, and returns the rest.
    fn settle_had(&self, came: Vec<Unacked>) -> Vec<Unacked> {
        let (twice, rest): (Vec<_>, Vec<_>) =
            came.into_iter().partition(|item| self.recent.has_kept(&item.kept));
        let queued: Vec<ArchiveId> = twice.iter().filter_map(|item| item.kept.queued()).collect();
        twice.into_iter().for_each(|item| item.receipt.done());
        self.unqueue(&queued);
        rest
    }

    /// The session has a connection, which is given its end.
    fn connected(&mut self, pipe: Arc<Pipe>, me: &Handle<Self>, (here, attempt, reply): Answer) {
        self.pipe = Some(pipe);
        let (jid, ledger) = (self.jid.clone(), self.ledger.clone());
        let link = SessionHandle::new(me.clone(), jid, ledger, self.generation, self.moves());
        self.shared.connected.store(true, Ordering::Relaxed);
        self.give(link, (here, attempt, reply));
        self.push_capsule();
    }

    /// What its connection brings along when it looks for the next home.
    pub(super) fn capsule(&self) -> wire::Capsule {
        wire::capsule(self.sid.0, &self.whole_record(), self.acked, self.epoch())
    }

    fn epoch(&self) -> u32 {
        self.host.epoch(&Entity::new(self.jid.bare_str()))
    }

    /// Whether this home is the very next after the one that gave the session up: a home in between took what came for the
    /// session, and lost that.
    fn follows(&self, capsule: Option<&wire::Capsule>) -> bool {
        let before = capsule.map_or(0, |capsule| capsule.epoch);
        before == 0 || before.checked_add(1) == Some(self.epoch())
    }

    /// Gives the connection its end.
    fn give(&mut self, link: SessionHandle, (here, attempt, reply): Answer) {
        self.route = RouteHold::of(link.route());
        if let Some(proxy) = here {
            self.route = RouteHold::of(self.host.attached_here(&proxy, attempt, link));
        } else if let Err(Some(link)) = reply.send(Some(link)) {
            link.closed(false);
        }
    }

    /// The very connection that the session has: something between the two was lost on its way.
    fn reattach(&mut self, attach: Attach, me: &Handle<Self>) {
        let Attach { attach, pipe, here, reply, .. } = attach;
        self.generation = self.generation.wrapping_add(1);
        self.pipe = None;
        let link = SessionHandle::new(
            me.clone(),
            self.jid.clone(),
            self.ledger.clone(),
            self.generation,
            !pipe.is_far(),
        );
        self.give(link, (here, wire::attempt(&attach), reply));
        if let Some(sm) = self.sm.as_mut().filter(|sm| sm.knows(attach.h)) {
            let got = attach.h.wrapping_add(u32::try_from(attach.tail.len()).unwrap_or(0));
            let (acked, queued) = sm.resume(attach.h);
            pipe.refill(sm.after(got));
            self.acked = self.acked.max(acked);
            self.unqueue(&queued);
        }
        self.pipe = Some(pipe);
        self.shared.connected.store(true, Ordering::Relaxed);
        self.push_capsule();
        if self.sm.as_ref().is_some_and(|sm| sm.has_unacked()) {
            self.request_ack();
        }
        self.mark_again();
    }

    /// A connection has written out what came before a mark.
    pub(super) fn written_out(&mut self, number: u64) {
        self.unwritten.take_if(|unwritten| *unwritten == number);
        self.marked(Some(number));
    }

    /// The last connection may not have written out what its mark was behind of, and nobody else will say so.
    pub(super) fn mark_again(&mut self) {
        if self.unwritten.take().is_some() {
            self.tell(Event::DrainAnew);
        }
    }

    /// Writes down how the session counts now, and what its client was sent: should all be lost, it brings its count.
    fn write_attached(&mut self, tail: &[Option<ArchiveId>], me: &Handle<Self>) {
        let Some((record, cursor)) = self.record() else { return };
        let Some(sm) = &mut self.sm else { return };
        *sm.changed() = false;
        sm.writing();
        let mut ops = Ops::new();
        let user = Entity::new(self.jid.bare_str());
        let first = cursor.down_acked.wrapping_add(1);
        let page = sessions::Sending::tail(record.numbering, first, tail, cursor.acked);
        sessions::put(&mut ops, &user, &self.sid.0, &record).ok();
        sessions::put_cursor(&mut ops, &user, &self.sid.0, &cursor);
        sessions::put_sending(&mut ops, &user, &self.sid.0, &page).ok();
        let (weak, settled) = (me.downgrade(), cursor.up_handled);
        let submitted = self.host.batcher().submit(Writes::new(&user, ops), move |result| {
            if let Some(session) = weak.upgrade() {
                let _ = session.cast_always(Msg::Recorded { settled: result.is_ok().then_some(settled) });
            }
        });
        if submitted.is_err() {
            sm.written();
            *sm.changed() = true;
        }
    }

    /// Nothing more comes from the connection; what it sent before this is in the queue already.
    pub(super) fn hold(&mut self, me: &Handle<Self>) {
        if !self.is_far() {
            self.route.hold();
        }
        self.enabled(); // the record goes before the shard does
        self.flush_held();
        self.keep_open_messages();
        tracing::trace!(jid = %self.jid, "a session is held");
        let _ = me.cast_always(Msg::Holding);
    }

    /// Whether the session may move, with its connection here.
    pub(super) fn moves(&self) -> bool {
        self.host.homes_change() && !self.is_far()
    }

    fn is_far(&self) -> bool {
        self.pipe.as_ref().is_some_and(|pipe| pipe.is_far())
    }

    /// Everything is settled: the node that has the connection looks for the next home.
    pub(super) fn leave(&mut self, me: &Handle<Self>) {
        self.enabled();
        self.flush_held();
        if self.sm.as_ref().is_some_and(|sm| sm.resumable()) && self.restored.is_none() {
            // Even if another write of it is under way: nothing comes after this one.
            self.submit_record(self.ledger.processed(), me);
        }
        self.life = Life::Left;
        tracing::trace!(jid = %self.jid, connected = self.pipe.is_some(), far = self.is_far(), "a session leaves");
        self.resuming = None; // a connection that waits hears nothing, and asks the next home
        let Some(pipe) = self.pipe.take() else { return };
        if pipe.is_far() {
            pipe.set_capsule(self.capsule());
            pipe.refill(std::iter::once(Down::Moved));
            return;
        }
        let Some(route) = self.route.take() else { return };
        let capsule = self.capsule();
        let h = self.sm.as_ref().map_or(0, |sm| sm.counts().0);
        let managed = self.sm.is_some();
        let unacked = self.sm.as_mut().map(|sm| sm.take_unacked()).unwrap_or_default();
        let last = unacked.iter().filter_map(|item| item.kept.id()).max().max(self.acked);
        let drained = self.sm.as_ref().and_then(|sm| sm.drained);
        let left_behind = self.sm.as_mut().map(|sm| std::mem::take(&mut sm.left_behind)).unwrap_or_default();
        let sent = unacked.iter().map(|item| {
            let mut bytes = Vec::with_capacity(item.outgoing.stanza.size() + 64);
            item.outgoing.write(&mut bytes);
            wire::stanza(bytes.into(), &item.kept)
        });
        let carried = Carried {
            capsule: Some(capsule),
            managed,
            inactive: self.client.inactive,
            h,
            tail: sent.map(|sent| (sent, Charged::default())).collect(),
            acked: self.acked,
            last,
            drained,
            left_behind,
            recent: std::mem::take(&mut self.recent),
        };
        // Either is durable, or in the tail, which its client will confirm.
        unacked.into_iter().for_each(|item| item.receipt.done());
        let (host, jid, address) = (self.host.clone(), self.jid.to_bare(), self.address.clone());
        let before = pipe.clone();
        route.away(|left| {
            let proxy = SessionProxy::new(&host, &jid, &address, before)?;
            proxy.moved(carried, left);
            proxy.leads(Arc::downgrade(&route));
            Some(proxy)
        });
    }

    /// Another node has the session already. A client here comes back to it there; a connection elsewhere looks for it by itself.
    pub(super) fn lose(&mut self) {
        self.life = Life::Left;
        if self.is_far() {
            self.route.cut();
            self.pipe = None;
        } else {
            self.close(Close::Error(StreamCondition::SystemShutdown, pipe::ELSEWHERE.into()));
        }
        if let Some(sm) = &mut self.sm {
            drop(sm.take_unacked());
        }
        self.resuming = None;
    }
}
