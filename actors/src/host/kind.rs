//! Kinds of placed actors: whatever has a home. A user is one kind; a room, a link to another server and a component are others.
//! Each is declared once, by [`PlacedActor`]; giving a shard up, losing one, taking one over and delivery iterate the kinds.

use std::any::Any;
use std::sync::Arc;

use rookery_cluster::entity::Shard;
use rookery_cluster::store::{self, Fut};
use rookery_proto::xmpp::jid::BareJid;
use rookery_proto::xmpp::stanza::Stanza;
use tokio::sync::oneshot;

use super::Host;
use crate::connection::ledger::Receipt;
use crate::placement::LostShards;
use crate::runtime::actor::{Actor, Handle, Refused};
use crate::runtime::directory::Directory;
use crate::runtime::origin::Origin;

/// Which kind: its place in the list of kinds of this process. Between nodes a kind goes by its name.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct KindId(pub(crate) u8);

/// Users are the first kind.
pub(crate) const USER: KindId = KindId(0);

/// The name of the kind of links to other servers.
pub(crate) const LINK: &str = "link";

/// A stanza on its way to an actor.
pub(crate) struct Inbound {
    pub(crate) stanza: Arc<Stanza>,
    pub(crate) receipt: Receipt,
    /// By which the stanza is known if it comes again.
    pub(crate) origin: Option<Origin>,
    /// What else its sender has done to the entity: the kind's own, as it goes between nodes.
    pub(crate) change: Option<Box<rookery_rpc::payload::v1::Change>>,
}

/// A placed actor: what its kind declares.
pub(crate) trait PlacedActor: Actor {
    /// The name of the kind between nodes and in metrics. Never changes.
    const KIND: &'static str;
    /// Presence is brought like any other stanza, in order and with its receipt. Otherwise only those are told that are there, or
    /// want it.
    const EVERY_PRESENCE: bool = false;

    /// An actor that reads the store when its first message comes.
    fn new(host: &Host, name: &BareJid) -> Self;
    /// The message that brings a stanza.
    fn inbound(inbound: Box<Inbound>) -> Self::Msg;
    /// The stanza of a message that was not taken.
    fn outbound(msg: Self::Msg) -> Option<Box<Inbound>>;
    /// The message that asks the actor to settle everything and go; it answers when that is done.
    fn leave(left: oneshot::Sender<()>) -> Self::Msg;
    /// The message that says that the shard is another node's already.
    fn lose(lost: Arc<LostShards>) -> Self::Msg;
    /// A message without effect, but that the actor is there then.
    fn wake() -> Self::Msg;
    /// Whether presence wakes an actor that is not there.
    fn wakes_for_presence(host: &Host, name: &BareJid) -> bool;
    /// Wakes the actors of a shard that must exist without being asked for, as long as the shard is `still` this node's; returns how
    /// many there were. By default none must.
    ///
    /// # Errors
    /// If the store can't be read.
    fn restore<'a>(
        _host: &'a Host,
        _shard: Shard,
        _still: &'a (dyn Fn() -> bool + Sync),
    ) -> Fut<'a, store::Result<u64>> {
        Box::pin(async { Ok(0) })
    }
}

/// A kind as routing and placement see it.
pub(crate) trait Kind: Any + Send + Sync {
    /// See [`PlacedActor::KIND`].
    fn name(&self) -> &'static str;
    /// See [`PlacedActor::EVERY_PRESENCE`].
    fn takes_every_presence(&self) -> bool;
    /// A stanza for an entity whose home is this node. If the actor does not take it, it comes back.
    fn deliver(&self, host: &Host, entity: &BareJid, inbound: Box<Inbound>) -> Result<(), Box<Inbound>>;
    /// A presence for an entity whose home is this node, if the entity is there or wants it.
    fn presence(&self, host: &Host, entity: &BareJid, stanza: &Arc<Stanza>);
    /// Has everything of a shard settled and stored; returns how many actors went.
    fn give_up<'a>(&'a self, shard: Shard) -> Fut<'a, usize>;
    /// How many actors there are of these shards.
    fn count(&self, shards: &[Shard]) -> usize;
    /// These shards are another node's: what is left of their actors does nothing more.
    fn lose(&self, shards: &[Shard], lost: &Arc<LostShards>);
    /// See [`PlacedActor::restore`].
    fn restore<'a>(
        &'a self,
        host: &'a Host,
        shard: Shard,
        still: &'a (dyn Fn() -> bool + Sync),
    ) -> Fut<'a, store::Result<u64>>;
    /// Once a second: lets those become passive that have nothing to do; returns how many messages wait.
    fn sweep(&self, turn: usize) -> u32;
    /// How many actors are known.
    fn len(&self) -> usize;
    /// For [`Kinds::of`].
    fn any(&self) -> &dyn Any;
}

/// The actors of one kind on this node.
pub(crate) struct Actors<A: PlacedActor>(Directory<BareJid, A>);

impl<A: PlacedActor> Actors<A> {
    pub(crate) fn new() -> Self {
        // By shard: giving one up looks at no others.
        Self(Directory::new(|name| Shard::of(name.as_str()).0.into()))
    }

    /// Sends to the actor of that name, which is made if it is not there.
    pub(crate) fn cast(&self, host: &Host, name: &BareJid, msg: A::Msg) -> Result<(), Refused<A::Msg>> {
        self.0.cast(name, msg, || A::new(host, name))
    }

    /// The actor of that name, if it is there.
    pub(crate) fn find(&self, name: &BareJid) -> Option<Handle<A>> {
        self.0.find(name)
    }

    /// All of them.
    pub(crate) fn all(&self) -> Vec<(BareJid, Handle<A>)> {
        self.0.all()
    }

    /// Has all of them settle everything and go.
    pub(crate) async fn leave_all(&self) -> usize {
        self.send_off(self.all()).await
    }

    async fn send_off(&self, actors: Vec<(BareJid, Handle<A>)>) -> usize {
        let mut leaving = Vec::new();
        for (name, handle) in actors {
            let (left, answer) = oneshot::channel();
            if handle.cast_always(A::leave(left)).is_ok() {
                leaving.push((name, handle, answer));
            }
        }
        let count = leaving.len();
        for (name, handle, answer) in leaving {
            let _ = answer.await;
            self.0.remove(&name, &handle);
        }
        count
    }

    fn at(&self, shard: Shard) -> Vec<(BareJid, Handle<A>)> {
        self.0.at(shard.0.into())
    }
}

impl<A: PlacedActor> Kind for Actors<A> {
    fn name(&self) -> &'static str {
        A::KIND
    }

    fn takes_every_presence(&self) -> bool {
        A::EVERY_PRESENCE
    }

    fn deliver(&self, host: &Host, entity: &BareJid, inbound: Box<Inbound>) -> Result<(), Box<Inbound>> {
        match self.cast(host, entity, A::inbound(inbound)) {
            Ok(()) => Ok(()),
            Err(Refused::Full(msg) | Refused::Gone(msg)) => {
                metrics::counter!("rookery_limits_hit_total", "limit" => "user_queue").increment(1);
                A::outbound(msg).map_or(Ok(()), Err)
            }
        }
    }

    fn presence(&self, host: &Host, entity: &BareJid, stanza: &Arc<Stanza>) {
        let msg = || {
            let (receipt, origin, change) = (Receipt::none(), None, None);
            A::inbound(Box::new(Inbound { stanza: stanza.clone(), receipt, origin, change }))
        };
        if let Some(handle) = self.find(entity) {
            let _ = handle.cast(msg());
        } else if A::wakes_for_presence(host, entity) {
            let _ = self.cast(host, entity, msg());
        }
    }

    fn give_up<'a>(&'a self, shard: Shard) -> Fut<'a, usize> {
        Box::pin(self.send_off(self.at(shard)))
    }

    fn count(&self, shards: &[Shard]) -> usize {
        shards.iter().map(|shard| self.at(*shard).len()).sum()
    }

    fn lose(&self, shards: &[Shard], lost: &Arc<LostShards>) {
        for (name, handle) in shards.iter().flat_map(|shard| self.at(*shard)) {
            let _ = handle.cast_always(A::lose(lost.clone()));
            self.0.remove(&name, &handle);
        }
    }

    fn restore<'a>(
        &'a self,
        host: &'a Host,
        shard: Shard,
        still: &'a (dyn Fn() -> bool + Sync),
    ) -> Fut<'a, store::Result<u64>> {
        A::restore(host, shard, still)
    }

    fn sweep(&self, turn: usize) -> u32 {
        self.0.sweep(turn)
    }

    fn len(&self) -> usize {
        self.0.len()
    }

    fn any(&self) -> &dyn Any {
        self
    }
}

/// Answers what is addressed to the server itself, or refuses it.
pub(crate) type AskHost = fn(&Host, &Arc<Stanza>, Receipt);

/// The kinds of this process, users first, and what answers for the server itself. Fixed at its start.
#[derive(Clone)]
pub(crate) struct Kinds {
    kinds: Arc<[Arc<dyn Kind>]>,
    ask_host: AskHost,
}

impl Kinds {
    /// `kinds`: users first.
    pub(crate) fn new(kinds: Vec<Arc<dyn Kind>>, ask_host: AskHost) -> Self {
        Self { kinds: kinds.into(), ask_host }
    }

    /// Has what is addressed to the server itself answered.
    pub(crate) fn ask_host(&self, host: &Host, stanza: &Arc<Stanza>, receipt: Receipt) {
        (self.ask_host)(host, stanza, receipt);
    }

    /// A kind.
    pub(crate) fn get(&self, id: KindId) -> Option<&Arc<dyn Kind>> {
        self.kinds.get(usize::from(id.0))
    }

    /// The kind of that name; empty is what older nodes say of users.
    pub(crate) fn named(&self, name: &str) -> Option<KindId> {
        let at = self.kinds.iter().position(|kind| kind.name() == name);
        let at = if name.is_empty() { Some(0) } else { at };
        at.and_then(|at| u8::try_from(at).ok()).map(KindId)
    }

    /// Which kind it is.
    pub(crate) fn id<A: PlacedActor>(&self) -> KindId {
        self.named(A::KIND).unwrap_or(USER)
    }

    /// The actors of a kind.
    pub(crate) fn of<A: PlacedActor>(&self) -> Option<&Actors<A>> {
        self.kinds.iter().find_map(|kind| kind.any().downcast_ref())
    }

    /// All of them.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Arc<dyn Kind>> {
        self.kinds.iter()
    }
}
