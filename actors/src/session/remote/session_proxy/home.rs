//! What goes from a connection to its session's home, and what comes from there.

use std::sync::Arc;

use bytes::Bytes;
use prost::Message as _;
use rookery_cluster::mesh::peer::{Envelope, NodeId, Outcome};
use tokio::time::Instant;

use super::{At, SessionProxy, State};
use crate::connection::pipe::Down;
use crate::connection::reply::Reply;
use crate::host::Host;
use crate::routing::wire::{self, What, item, up};

impl SessionProxy {
    /// Sends to the session's home; between two homes, what matters is kept and goes to the next. With the lock held: what
    /// the connection sends must not be overtaken.
    pub(crate) fn pass(self: &Arc<Self>, state: &State, what: up::What) {
        let At::Home(node, _) = state.at() else { return };
        // A home that takes nothing more goes on sending what it has, for which it needs room.
        if state.refused && !matches!(what, up::What::Credit(_)) {
            return;
        }
        self.send(node, state.attempt, what);
    }

    /// The same to that node.
    pub(super) fn send(self: &Arc<Self>, node: &NodeId, attempt: u32, what: up::What) {
        let last = matches!(what, up::What::Closed(_));
        let Some(placement) = self.host.placement() else { return };
        let user = self.user.as_str().to_owned();
        let payload = wire::Up { user, conn: self.id, attempt, what: Some(what) };
        let envelope = Envelope::new(self.shard, 0, Bytes::new(), wire::encode(What::Up(payload)));
        let proxy = self.clone();
        if *node == *placement.cluster.mesh().node() {
            let reply = Reply::here(move |outcome| proxy.told(attempt, &outcome, last));
            let generation = placement.cluster.mesh().generation();
            return self.host.receive(node, generation, self.shard, &envelope.body, reply);
        }
        let sent = placement
            .cluster
            .peers()
            .peer(node)
            .send(envelope, move |outcome| proxy.told(attempt, &outcome, last));
        if let Err(refused) = sent {
            tracing::debug!(%node, why = %refused.why, "a connection looks for its session anew");
            self.clone().told(attempt, &Outcome::Lost, last);
        }
    }

    /// What became of something that was sent. May be called with the lock held.
    fn told(self: Arc<Self>, attempt: u32, outcome: &Outcome, last: bool) {
        let host = self.host.clone();
        match outcome {
            // The home has heard that the client is gone: nobody needs this any more.
            Outcome::Taken(_) if last => host.spawn(async move {
                self.forget();
            }),
            Outcome::Taken(_) => {}
            Outcome::NotOwner { .. } => host.spawn(async move { self.refused(attempt) }),
            Outcome::Lost => host.spawn(async move { self.lost(attempt) }),
        }
    }

    /// The home takes nothing more: it gives the shard up, and says when what it still has for the client is through.
    fn refused(&self, attempt: u32) {
        let mut state = self.state.lock();
        if state.attempt == attempt && matches!(state.at(), At::Home(..)) {
            state.refused = true;
            state.doubt.get_or_insert_with(Instant::now);
        }
        drop(state);
        self.host.look_soon();
    }

    /// The home did not take something.
    pub(crate) fn lost(&self, attempt: u32) {
        let mut state = self.state.lock();
        if state.attempt != attempt || !matches!(state.at(), At::Home(..)) {
            return;
        }
        state.look(false);
        drop(state);
        self.host.look_soon();
    }

    /// Something from a session, at that node.
    pub(crate) fn down(self: &Arc<Self>, from: &NodeId, down: wire::Down) {
        let mut state = self.state.lock();
        tracing::trace!(user = %self.user, attempt = state.attempt, at = ?state.at(), %from, sent = down.attempt, items = down.items.len(), "down");
        if state.attempt != down.attempt {
            return;
        }
        match state.at() {
            At::Asking => state.early.push((from.clone(), down)),
            // A home that had taken it, and gave it up before its answer came.
            At::Home(node, _) if node != from => {}
            At::Home(..) | At::Looking { .. } => {
                if self.take(&mut state, down) {
                    drop(state);
                    self.host.look_soon();
                }
            }
            At::Over => {}
        }
    }

    /// Takes it; returns whether the session looks for its next home from now on.
    pub(super) fn take(self: &Arc<Self>, state: &mut State, down: wire::Down) -> bool {
        let mut out = Vec::with_capacity(down.items.len());
        let mut moved = false;
        for item in down.items {
            match item.what {
                Some(item::What::Stanza(stanza)) => {
                    // The stanza came in a larger message: what is kept must not keep that.
                    let (bytes, kept) = (Bytes::copy_from_slice(&stanza.stanza), wire::kept(&stanza));
                    state.bytes += bytes.len();
                    state.note_answer(&bytes);
                    let id = wire::id_of(&stanza.id);
                    state.carried.last = state.carried.last.max(id);
                    state.carried.drained = state.carried.drained.max(id.filter(|_| stanza.offline));
                    kept.left().into_iter().for_each(|id| state.carried.left_behind.note(id));
                    let mut charged = self.waits.bytes(bytes.len());
                    if state.carried.managed {
                        let sent = wire::Stanza {
                            stanza: bytes.clone(),
                            id: Bytes::copy_from_slice(&stanza.id),
                            queued: Bytes::copy_from_slice(&stanza.queued),
                            origin: Bytes::copy_from_slice(&stanza.origin),
                            ..stanza
                        };
                        // The client confirms it after it was written.
                        state.carried.tail.push_back((sent, std::mem::take(&mut charged)));
                    }
                    state.note_had(&kept);
                    out.push(Down::Written(bytes, charged));
                }
                Some(item::What::Nonza(bytes)) => out.push(Down::Nonza(Bytes::copy_from_slice(&bytes))),
                Some(item::What::Enabled(bytes)) => {
                    state.carried.managed = true;
                    let marker = state.ups.iter().position(|item| !item.is_counted());
                    if let Some(marker) = marker {
                        state.ups.drain(..=marker);
                    }
                    out.push(Down::Enabled(Bytes::copy_from_slice(&bytes)));
                }
                Some(item::What::Mark(number)) => out.push(Down::Mark(number)),
                Some(item::What::Close(close)) => {
                    state.ending = true;
                    out.push(Down::Close(wire::close_of(close)));
                }
                Some(item::What::Capsule(capsule)) => {
                    state.carried.acked = state.carried.acked.max(wire::id_of(&capsule.acked));
                    state.carried.last = state.carried.last.max(state.carried.acked);
                    state.carried.capsule =
                        Some(wire::Capsule::decode(&*capsule.encode_to_vec()).unwrap_or_default());
                }
                Some(item::What::Moved(_)) => moved = true,
                None => {}
            }
        }
        if down.counted == state.counted {
            state.trim(down.settled);
            // What a home that is leaving has lost goes to the next.
            let broken = down.broken && !state.refused && !moved;
            state.ledger.told(down.settled, down.recorded, broken);
        }
        if moved && matches!(state.at(), At::Home(..)) {
            state.look(true);
        }
        // In order with what comes next, so under the lock; the connection drains it without.
        self.pipe.refill(out.into_iter());
        moved
    }
}

impl Host {
    /// Something for a connection, from that node; false if it is not here.
    pub(crate) fn take_down(&self, from: &NodeId, down: wire::Down) -> bool {
        let proxy = self.remote().session_proxies.lock().get(&down.conn).cloned();
        let found = proxy.is_some();
        if let Some(proxy) = proxy {
            proxy.down(from, down);
        }
        found
    }
}
