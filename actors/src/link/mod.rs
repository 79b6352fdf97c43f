//! Links to other servers.
//!
//! A link is the placed actor of a pair of domains. The link decides what is sent to the other server, and in what order. What comes from
//! other servers needs no link.
//!
//! ```text
//!  stanzas ──► take: what must not be lost is committed ──► waiting ──► outbox ──► stream
//!                          │ settled in order                 ▲  │                   │
//!                          ▼                                  │  └──► back, at the deadline
//!                        store ── pages, where memory is full ┘    unacked ◄── confirmed
//! ```
//!
//! - [`stream`]: the seam between a link and the program, which opens streams and knows sockets, TLS and DNS.
//! - [`incoming`]: stanzas of other servers on their way in.
//! - [`dialback`]: keys of server dialback (XEP-0220, XEP-0185).
//! - `take`: what comes, and the store's answers. `late`: what is stored because its sender waits. `waiting`: what waits. `returning`: what
//!   goes back to its sender. `sending`: what is written, and how it is known to have arrived. `dialing`, `retry`: streams come and go.
//!   `load`: what the store knows, and which links must exist without being asked for. `leave`: links go.
//!
//! **In order.** Each stanza gets an id when it comes, whether or not it is stored. That is the order in which stanzas are sent.
//!
//! **Once.** A stored stanza has its number on the stream (XEP-0198) in its row before it is sent. So whatever process holds the link next can
//! resume the stream, and knows by the other server's count what has arrived. A number that is too high makes a stanza come twice, one too low would
//! lose it: what is sent has exactly the number of its row.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use rookery_cluster::entity::{Entity, Shard};
use rookery_cluster::store::{self, Fut};
use rookery_cluster::tables::archive::{ArchiveId, Clock};
use rookery_proto::xmpp::error::Condition;
use rookery_proto::xmpp::jid::BareJid;
use tokio::sync::oneshot;
use tokio::time::Instant;

use crate::host::Host;
use crate::host::kind::{Inbound, LINK, PlacedActor};
use crate::host::options::Federation;
use crate::host::pair::Pair;
use crate::placement::LostShards;
use crate::placement::lifecycle::{self, Lifecycle, Living, WhileLoading};
use crate::routing::untold::Untold;
use crate::runtime::actor::{Actor, Handle, Idle};
use crate::runtime::commit_queue::{CommitQueue, Committed, Limit};
use crate::runtime::seen::Senders;
use dialing::{Lost, Stream};
use load::{Loaded, Page};
use retry::Retry;
use stream::Word;
use take::Step;
use waiting::Waiting;

pub mod dialback;
mod dialing;
pub mod incoming;
mod item;
mod late;
mod leave;
mod load;
mod retry;
mod returning;
mod sending;
pub mod stream;
mod take;
mod waiting;

/// What a link is sent.
pub(crate) enum Msg {
    Loaded(store::Result<Box<Loaded>>),
    In(Box<Inbound>),
    Committed(Committed),
    /// The stream of that attempt says something.
    Word(u64, Word),
    /// A page of what waits in the store.
    Page(u64, store::Result<Page>),
    /// The error that takes a stanza back to its sender is safe, or it is not known to be.
    Returned(ArchiveId, bool),
    /// A second has passed, or as many as were asked for: the timer of that number.
    Tick(u64),
    Leave(oneshot::Sender<()>),
    Lose,
    Wake,
}

impl From<Committed> for Msg {
    fn from(committed: Committed) -> Self {
        Self::Committed(committed)
    }
}

const LIMIT: Limit = Limit { name: "link_commits", steps: 4_096 };

/// The actor of a pair of domains. See the module.
pub(crate) struct Link {
    host: Host,
    jid: BareJid,
    /// `None` for a name that is no pair: nobody calls it.
    pair: Option<Pair>,
    name: Entity,
    me: Option<Handle<Self>>,
    lifecycle: Lifecycle<Msg>,
    commits: CommitQueue<Step>,
    /// Stanzas among the steps that wait for their commit.
    settling: u32,
    clock: Clock,
    seen: Senders,
    /// The record is in the store, or is being written.
    recorded: bool,
    waiting: Waiting,
    /// Presence for which there was no room.
    untold: Untold,
    stream: Stream,
    /// A stream that was lost and may be resumed.
    lost: Option<Lost>,
    retry: Retry,
    /// Some stream has been open: the other server may have what was sent.
    was_up: bool,
    attempts: u64,
    timer: Timer,
    leaving: Option<leave::Leaving>,
    /// Since when the link is here.
    since: Instant,
    /// When the other server has confirmed something last.
    reached: Option<Instant>,
    /// When senders were forgotten last.
    pruned: Instant,
    count: Counted,
}

/// How many links this node has.
#[derive(Default)]
struct Count(AtomicUsize);

/// One of them.
struct Counted(Arc<Count>);

impl Counted {
    fn new(host: &Host) -> Self {
        let count: Arc<Count> = host.state();
        count.0.fetch_add(1, Ordering::Relaxed);
        metrics::gauge!("rookery_links").increment(1.0);
        Self(count)
    }

    /// How many there are.
    fn all(&self) -> usize {
        self.0.0.load(Ordering::Relaxed)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.0.fetch_sub(1, Ordering::Relaxed);
        metrics::gauge!("rookery_links").decrement(1.0);
    }
}

/// The next tick.
#[derive(Default)]
struct Timer {
    number: u64,
    due: Option<Instant>,
}

impl Link {
    /// The options; the defaults where there is no federation any more, so that what is left goes back.
    fn options(&self) -> Federation {
        self.host.options().federation.clone().unwrap_or_default()
    }

    /// How many bytes may wait in memory, and how many may be sent and not confirmed.
    fn memory(&self) -> usize {
        self.options().memory_bytes / 2
    }

    fn now_micros(&self) -> u64 {
        self.host.seams().clock.now_micros()
    }

    /// Nothing is under way.
    fn is_at_rest(&self) -> bool {
        self.commits.is_empty() && !self.is_busy() && matches!(self.stream, Stream::Down)
    }

    /// Something waits, or is on its way back.
    fn is_busy(&self) -> bool {
        !self.waiting.is_empty() || !self.untold.is_empty()
    }

    /// Does what can be done now. Called after each message.
    fn go_on(&mut self) {
        self.dial();
        self.give_back();
        self.pump();
        self.read_on();
        self.remove_confirmed(false);
        self.forget_record();
        self.want_tick();
    }

    fn refuse(&self, msg: Msg, condition: Condition) {
        if let Msg::In(inbound) = msg {
            match inbound.change {
                Some(_) => inbound.receipt.leave(), // its sender tries again
                None => self.host.bounce(&inbound.stanza, inbound.receipt, condition),
            }
        }
    }
}

impl Living for Link {
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
            Msg::In(_) => WhileLoading::Wait(msg),
            Msg::Wake => WhileLoading::WaitAlways(msg),
            msg => WhileLoading::Now(msg),
        }
    }

    fn loading(&mut self, msg: Msg) {
        match msg {
            Msg::Loaded(Ok(loaded)) => lifecycle::loaded(self, true, |link| link.loaded(*loaded)),
            Msg::Loaded(Err(_)) => {
                let (me, mut woken) = (self.me.take(), false);
                for msg in lifecycle::not_loaded(self) {
                    woken |= matches!(msg, Msg::Wake);
                    self.refuse(msg, Condition::ResourceConstraint);
                }
                if woken {
                    lifecycle::wake_again(self.host.wheel(), me, Msg::Wake);
                }
            }
            Msg::Leave(left) => {
                lifecycle::moved_unloaded(self);
                let _ = left.send(());
            }
            Msg::Lose => lifecycle::moved_unloaded(self),
            _ => {} // of a time before the store was asked
        }
    }

    fn turn_away(&mut self, msg: Msg) {
        self.refuse(msg, Condition::ResourceConstraint);
    }

    fn ready(&mut self, msg: Msg) {
        match msg {
            Msg::In(inbound) => self.take(*inbound),
            Msg::Committed(committed) => self.committed(committed),
            Msg::Word(attempt, word) => self.heard(attempt, word),
            Msg::Page(turn, page) => self.page_read(turn, page),
            Msg::Returned(id, safe) => self.returned(id, safe),
            Msg::Tick(number) => self.tick(number),
            Msg::Leave(left) => self.leave(left),
            Msg::Lose => self.lose(),
            Msg::Loaded(_) | Msg::Wake => {}
        }
    }

    fn nobody(&mut self, msg: Msg) {
        self.refuse(msg, Condition::RemoteServerNotFound);
    }

    fn moved(&mut self, msg: Msg) {
        match msg {
            Msg::In(inbound) => self.host.forward::<Self>(&self.jid, *inbound),
            Msg::Leave(left) => drop(left.send(())),
            _ => {}
        }
    }

    fn after(&mut self) {
        if matches!(self.lifecycle, Lifecycle::Ready) {
            self.go_on();
            self.go_on_leaving();
        }
    }
}

impl Actor for Link {
    type Msg = Msg;
    const QUEUE: u32 = 4_096;

    fn handle(&mut self, msg: Msg, me: &Handle<Self>) {
        lifecycle::step(self, msg, me);
    }

    fn idle(&self) -> Idle {
        match &self.lifecycle {
            Lifecycle::Loading(_) => Idle::Stay,
            Lifecycle::Ready if self.leaving.is_some() || !self.commits.is_empty() => Idle::Stay,
            Lifecycle::Ready if !self.is_at_rest() => Idle::Passivate,
            _ => Idle::Leave,
        }
    }

    fn passivate(&mut self) {
        self.commits.shrink();
        self.waiting.shrink();
    }

    fn gone(&mut self) {
        self.me = None;
    }
}

impl PlacedActor for Link {
    const KIND: &'static str = LINK;
    const EVERY_PRESENCE: bool = true;

    fn new(host: &Host, jid: &BareJid) -> Self {
        let name = Entity::new(jid.as_str());
        let commits = CommitQueue::new(name.clone(), host.batcher().clone(), host.wheel().clone(), &LIMIT);
        Self {
            host: host.clone(),
            jid: jid.clone(),
            pair: Pair::of_entity(jid),
            name,
            me: None,
            lifecycle: Lifecycle::default(),
            commits,
            settling: 0,
            clock: Clock::default(),
            seen: Senders::default(),
            recorded: false,
            waiting: Waiting::default(),
            untold: Untold::default(),
            stream: Stream::Down,
            lost: None,
            retry: Retry::default(),
            was_up: false,
            attempts: 0,
            timer: Timer::default(),
            leaving: None,
            since: Instant::now(),
            reached: None,
            pruned: Instant::now(),
            count: Counted::new(host),
        }
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

    fn lose(_: Arc<LostShards>) -> Msg {
        Msg::Lose
    }

    fn wake() -> Msg {
        Msg::Wake
    }

    fn wakes_for_presence(_: &Host, _: &BareJid) -> bool {
        true
    }

    fn restore<'a>(
        host: &'a Host,
        shard: Shard,
        still: &'a (dyn Fn() -> bool + Sync),
    ) -> Fut<'a, store::Result<u64>> {
        load::restore(host, shard, still)
    }
}
