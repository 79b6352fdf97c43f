//! Users as a kind of placed actors.

use std::sync::Arc;

use rookery_cluster::entity::{Entity, Shard};
use rookery_cluster::store::{self, Fut};
use rookery_cluster::tables::sessions;
use rookery_proto::xmpp::error::{Condition, StanzaError};
use rookery_proto::xmpp::jid::BareJid;
use tokio::sync::oneshot;

use super::{Msg, User};
use crate::host::Host;
use crate::host::kind::{Actors, Inbound, PlacedActor};
use crate::placement::LostShards;
use crate::placement::lifecycle::{self, Lifecycle, Living, WhileLoading};
use crate::runtime::actor::{Handle, Refused};

/// Sessions on record that one transaction reads.
const PAGE: usize = 200;

impl PlacedActor for User {
    const KIND: &'static str = "user";

    fn new(host: &Host, name: &BareJid) -> Self {
        Self::new(host.clone(), name.clone())
    }

    fn inbound(inbound: Box<Inbound>) -> Msg {
        Msg::In(inbound)
    }

    fn outbound(msg: Msg) -> Option<Box<Inbound>> {
        match msg {
            Msg::In(inbound) => Some(inbound),
            _ => None,
        }
    }

    fn leave(left: oneshot::Sender<()>) -> Msg {
        Msg::Leave(left)
    }

    fn lose(lost: Arc<LostShards>) -> Msg {
        Msg::Lose(lost)
    }

    fn wake() -> Msg {
        Msg::Then(Box::new(|_| {}))
    }

    /// Users care for presence while they have sessions, and those may not have been read yet.
    fn wakes_for_presence(host: &Host, name: &BareJid) -> bool {
        host.may_have_sessions(name)
    }

    /// Users with a session on record: its presence must be there, and its time run.
    fn restore<'a>(
        host: &'a Host,
        shard: Shard,
        still: &'a (dyn Fn() -> bool + Sync),
    ) -> Fut<'a, store::Result<u64>> {
        Box::pin(async move {
            let mut restored = 0u64;
            let mut after: Option<(Entity, [u8; 16])> = None;
            loop {
                let from = after.clone();
                let read = host.store().read(|tx| {
                    let from = from.clone();
                    Box::pin(async move {
                        sessions::page(&mut **tx, shard, from.as_ref().map(|(u, s)| (u, s)), PAGE).await
                    })
                });
                let page = read.await?;
                for stored in &page.rows {
                    if !still() {
                        return Ok(restored);
                    }
                    if let Ok(jid) = BareJid::parse(stored.user.as_str()) {
                        let _ = host.cast_user(&jid, Self::wake());
                        restored += 1;
                    }
                }
                match page.rows.last() {
                    Some(last) if page.more => after = Some((last.user.clone(), last.sid)),
                    _ => return Ok(restored),
                }
            }
        })
    }
}

impl Living for User {
    fn lifecycle(&mut self) -> &mut Lifecycle<Msg> {
        &mut self.lifecycle
    }

    fn begin(&mut self, me: &Handle<Self>) {
        if self.me.is_none() {
            self.me = Some(me.clone());
            self.load();
        }
    }

    fn while_loading(msg: Msg) -> WhileLoading<Msg> {
        match msg {
            Msg::Loaded(_) | Msg::Leave(_) | Msg::Lose(_) => WhileLoading::Now(msg),
            Msg::In(_) => WhileLoading::Wait(msg),
            // The user's own connections, which wait for the answer.
            _ => WhileLoading::WaitAlways(msg),
        }
    }

    fn loading(&mut self, msg: Msg) {
        match msg {
            Msg::Loaded(loaded) => self.loaded(loaded),
            Msg::Leave(left) => {
                lifecycle::moved_unloaded(self);
                let _ = left.send(());
            }
            _ => lifecycle::moved_unloaded(self),
        }
    }

    fn turn_away(&mut self, msg: Msg) {
        if let Msg::In(inbound) = msg {
            self.refuse_inbound(*inbound, &StanzaError::new(Condition::ResourceConstraint));
        }
    }

    fn ready(&mut self, msg: Msg) {
        self.take_ready(msg);
    }

    fn nobody(&mut self, msg: Msg) {
        self.take_as_nobody(msg);
    }

    fn moved(&mut self, msg: Msg) {
        self.take_moved(msg);
    }

    fn after(&mut self) {
        self.go_on_leaving();
    }
}

impl Host {
    /// The users whose home is this node. There is this kind always.
    pub(crate) fn users(&self) -> Option<&Actors<User>> {
        self.kinds().of()
    }

    /// The actor of a user, if there is one on this node.
    pub(crate) fn find_user(&self, jid: &BareJid) -> Option<Handle<User>> {
        self.users().and_then(|users| users.find(jid))
    }

    /// Sends to the actor of a user, which is made if there is none.
    pub(crate) fn cast_user(&self, jid: &BareJid, msg: Msg) -> Result<(), Refused<Msg>> {
        match self.users() {
            Some(users) => users.cast(self, jid, msg),
            None => Err(Refused::Gone(msg)),
        }
    }
}
