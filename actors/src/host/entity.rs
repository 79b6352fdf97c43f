//! The usual placed actor: it is read from the store, takes stanzas, commits what it decides, and acts when the commit is there, in
//! order. A kind writes a [`Logic`]; loading, hand-over, loss and the queue of commits are here.

use std::sync::Arc;

use rookery_cluster::entity::{Entity as Name, Shard};
use rookery_cluster::store::{self, Fut, Ops};
use rookery_proto::xmpp::error::Condition;
use rookery_proto::xmpp::jid::BareJid;
use tokio::sync::oneshot;

use super::Host;
use super::kind::{Inbound, PlacedActor};
use crate::connection::ledger::Receipt;
use crate::connection::reply::Reply;
use crate::placement::LostShards;
use crate::placement::lifecycle::{self, Lifecycle, Living, WhileLoading};
use crate::runtime::actor::{Actor, Handle, Idle};
use crate::runtime::commit_queue::{CommitQueue, Committed, Limit, Outcome};

/// What a kind decides.
pub(crate) trait Logic: Send + Sized + 'static {
    /// See [`PlacedActor::KIND`].
    const KIND: &'static str;
    /// How many commits of one entity may be under way.
    const LIMIT: &'static Limit;
    /// What is to be done when a commit is there. Dropped, its receipts say that it is lost, and its stanza comes again.
    type Step: Send + 'static;

    /// What the store knows of the entity; `None`: there is none of that name.
    fn load<'a>(host: &'a Host, name: &'a Name) -> Fut<'a, store::Result<Option<Self>>>;
    /// The entity was read from the store, and takes what has waited after this. What its last home had still to send, it sends again.
    fn begun(&mut self, _: &mut Me<Self>) {}
    /// Takes a stanza.
    fn take(&mut self, me: &mut Me<Self>, inbound: Inbound);
    /// A commit was answered; those before it were too.
    fn settled(&mut self, me: &mut Me<Self>, step: Self::Step, outcome: Outcome);
    /// A receipt of [`Me::reports`] is settled: the recipients have what they were sent.
    fn reported(&mut self, _: &mut Me<Self>, _tag: u32) {}
    /// See [`PlacedActor::wakes_for_presence`].
    fn wakes_for_presence(_: &Host, _: &BareJid) -> bool {
        false
    }
    /// See [`PlacedActor::restore`].
    fn restore<'a>(_: &'a Host, _: Shard, _: &'a (dyn Fn() -> bool + Sync)) -> Fut<'a, store::Result<u64>> {
        Box::pin(async { Ok(0) })
    }
}

/// What an actor knows of itself.
pub(crate) struct Me<L: Logic> {
    /// The server.
    pub(crate) host: Host,
    /// The address.
    pub(crate) jid: BareJid,
    /// The name in the store.
    pub(crate) name: Name,
    handle: Option<Handle<Entity<L>>>,
    commits: CommitQueue<L::Step>,
}

impl<L: Logic> Me<L> {
    /// Commits `ops`; then, and after all that was committed before, the step is handed to [`Logic::settled`].
    ///
    /// # Errors
    /// Too much is under way: the step comes back.
    pub(crate) fn commit(&mut self, ops: Ops, step: L::Step) -> Result<(), L::Step> {
        match &self.handle {
            Some(handle) => self.commits.commit(handle, ops, step),
            None => Err(step),
        }
    }
}

impl<L: Logic> Me<L> {
    /// A receipt that settles `receipt` with itself, and has [`Logic::reported`] called then, if the actor is still there.
    pub(crate) fn reports(&self, receipt: Receipt, tag: u32) -> Receipt {
        let handle = self.handle.clone();
        let reply = Reply::heard(move |taken| {
            if taken {
                receipt.done();
                handle.map(|handle| handle.cast_always(Msg::Reported(tag)));
            } // else the receipt is lost with what it was for
        });
        Receipt::owed(reply, false)
    }
}

/// What an [`Entity`] is sent.
pub(crate) enum Msg<L> {
    Reported(u32),
    Loaded(store::Result<Option<L>>),
    In(Box<Inbound>),
    Committed(Committed),
    Leave(oneshot::Sender<()>),
    Lose,
    Wake,
}

impl<L> From<Committed> for Msg<L> {
    fn from(committed: Committed) -> Self {
        Self::Committed(committed)
    }
}

/// The actor that runs a [`Logic`].
pub(crate) struct Entity<L: Logic> {
    me: Me<L>,
    logic: Option<L>,
    lifecycle: Lifecycle<Msg<L>>,
    leaving: Option<oneshot::Sender<()>>,
}

impl<L: Logic> Entity<L> {
    fn committed(&mut self, committed: Committed) {
        self.me.commits.answered(committed);
        while let Some(settled) = self.me.commits.next() {
            if settled.outcome != Outcome::Stored && matches!(self.lifecycle, Lifecycle::Ready) {
                // What was decided is not what is stored: from here on stanzas wait, and the store is asked again.
                self.lifecycle = Lifecycle::default();
            }
            if let Some(logic) = &mut self.logic {
                logic.settled(&mut self.me, settled.step, settled.outcome);
            }
        }
        if self.me.commits.is_empty()
            && self.logic.is_some()
            && matches!(self.lifecycle, Lifecycle::Loading(_))
        {
            self.logic = None;
            self.load();
        }
    }

    fn load(&self) {
        let Some(handle) = self.me.handle.clone() else { return };
        let (host, name) = (self.me.host.clone(), self.me.name.clone());
        self.me.host.spawn(async move {
            let loaded = L::load(&host, &name).await;
            if let Err(error) = &loaded {
                tracing::warn!(entity = %name, kind = L::KIND, %error, "an entity could not be loaded from the store; requests to the entity fail until the store answers");
            }
            let _ = handle.cast_always(Msg::Loaded(loaded));
        });
    }

    fn refuse(&self, msg: Msg<L>, condition: Condition) {
        if let Msg::In(inbound) = msg {
            match inbound.change {
                Some(_) => inbound.receipt.leave(), // its sender tries again
                None => self.me.host.bounce(&inbound.stanza, inbound.receipt, condition),
            }
        }
    }
}

impl<L: Logic> Living for Entity<L> {
    fn lifecycle(&mut self) -> &mut Lifecycle<Msg<L>> {
        &mut self.lifecycle
    }

    fn begin(&mut self, handle: &Handle<Self>) {
        if self.me.handle.is_some() {
            return;
        }
        self.me.handle = Some(handle.clone());
        self.load();
    }

    fn while_loading(msg: Msg<L>) -> WhileLoading<Msg<L>> {
        match msg {
            Msg::In(_) => WhileLoading::Wait(msg),
            Msg::Wake => WhileLoading::WaitAlways(msg),
            // Of what was before the store is asked again.
            Msg::Loaded(_) | Msg::Committed(_) | Msg::Leave(_) | Msg::Lose | Msg::Reported(_) => {
                WhileLoading::Now(msg)
            }
        }
    }

    fn loading(&mut self, msg: Msg<L>) {
        match msg {
            Msg::Loaded(Ok(logic)) => {
                lifecycle::loaded(self, logic.is_some(), |entity| {
                    entity.logic = logic;
                    if let Some(logic) = &mut entity.logic {
                        logic.begun(&mut entity.me);
                    }
                });
            }
            Msg::Loaded(Err(_)) => {
                let (me, mut woken) = (self.me.handle.take(), false);
                for msg in lifecycle::not_loaded(self) {
                    woken |= matches!(msg, Msg::Wake);
                    self.refuse(msg, Condition::ResourceConstraint);
                }
                if woken {
                    lifecycle::wake_again(self.me.host.wheel(), me, Msg::Wake);
                }
            }
            Msg::Committed(committed) => self.committed(committed),
            Msg::Reported(_) => {}
            // What was committed before the store is asked again has no outcome yet.
            Msg::Leave(left) if !self.me.commits.is_empty() => self.leaving = Some(left),
            Msg::Leave(left) => {
                lifecycle::moved_unloaded(self);
                let _ = left.send(());
            }
            _ => {
                drop(self.me.commits.take_all());
                lifecycle::moved_unloaded(self);
            }
        }
    }

    fn turn_away(&mut self, msg: Msg<L>) {
        self.refuse(msg, Condition::ResourceConstraint);
    }

    fn ready(&mut self, msg: Msg<L>) {
        match msg {
            Msg::In(inbound) => {
                if let Some(logic) = &mut self.logic {
                    logic.take(&mut self.me, *inbound);
                }
            }
            Msg::Committed(committed) => self.committed(committed),
            Msg::Leave(left) => self.leaving = Some(left),
            Msg::Lose => {
                self.lifecycle = Lifecycle::Moved;
                drop(self.me.commits.take_all());
            }
            Msg::Reported(tag) => {
                if let Some(logic) = &mut self.logic {
                    logic.reported(&mut self.me, tag);
                }
            }
            Msg::Loaded(_) | Msg::Wake => {}
        }
    }

    fn nobody(&mut self, msg: Msg<L>) {
        match msg {
            Msg::Leave(left) => {
                self.lifecycle = Lifecycle::Moved;
                let _ = left.send(());
            }
            Msg::Lose => self.lifecycle = Lifecycle::Moved,
            msg => self.refuse(msg, Condition::ItemNotFound),
        }
    }

    fn moved(&mut self, msg: Msg<L>) {
        match msg {
            Msg::In(inbound) => self.me.host.forward::<Self>(&self.me.jid, *inbound),
            Msg::Leave(left) => {
                let _ = left.send(());
            }
            _ => {}
        }
    }

    fn after(&mut self) {
        if self.me.commits.is_empty()
            && let Some(left) = self.leaving.take()
        {
            lifecycle::moved_unloaded(self);
            self.lifecycle = Lifecycle::Moved;
            let _ = left.send(());
        }
    }
}

impl<L: Logic> Actor for Entity<L> {
    type Msg = Msg<L>;
    const QUEUE: u32 = 4_096;

    fn handle(&mut self, msg: Msg<L>, me: &Handle<Self>) {
        lifecycle::step(self, msg, me);
    }

    fn idle(&self) -> Idle {
        match &self.lifecycle {
            Lifecycle::Loading(_) => Idle::Stay,
            _ if self.me.commits.is_empty() && self.leaving.is_none() => Idle::Leave,
            _ => Idle::Stay,
        }
    }

    fn gone(&mut self) {
        self.me.handle = None;
    }
}

impl<L: Logic> PlacedActor for Entity<L> {
    const KIND: &'static str = L::KIND;

    fn new(host: &Host, jid: &BareJid) -> Self {
        let name = Name::new(jid.as_str());
        let commits = CommitQueue::new(name.clone(), host.batcher().clone(), host.wheel().clone(), L::LIMIT);
        let me = Me { host: host.clone(), jid: jid.clone(), name, handle: None, commits };
        Self { me, logic: None, lifecycle: Lifecycle::default(), leaving: None }
    }

    fn inbound(inbound: Box<Inbound>) -> Msg<L> {
        Msg::In(inbound)
    }

    fn outbound(msg: Msg<L>) -> Option<Box<Inbound>> {
        match msg {
            Msg::In(inbound) => Some(inbound),
            _ => None,
        }
    }

    fn leave(left: oneshot::Sender<()>) -> Msg<L> {
        Msg::Leave(left)
    }

    fn lose(_: Arc<LostShards>) -> Msg<L> {
        Msg::Lose
    }

    fn wake() -> Msg<L> {
        Msg::Wake
    }

    fn wakes_for_presence(host: &Host, jid: &BareJid) -> bool {
        L::wakes_for_presence(host, jid)
    }

    fn restore<'a>(
        host: &'a Host,
        shard: Shard,
        still: &'a (dyn Fn() -> bool + Sync),
    ) -> Fut<'a, store::Result<u64>> {
        L::restore(host, shard, still)
    }
}
