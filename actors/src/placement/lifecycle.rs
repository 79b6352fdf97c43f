//! The life of a placed actor: it reads the store before it takes anything, and takes nothing any more once it has moved.

use std::collections::VecDeque;
use std::time::Duration;

use crate::runtime::actor::{Actor, Handle};
use crate::runtime::wheel::Wheel;

/// How many messages wait for an actor that reads the store.
const LOADING: usize = 512;

/// How long an actor that was woken waits before it asks a store again that did not answer.
const AGAIN: Duration = Duration::from_secs(3);

/// Where an actor is in its life.
pub(crate) enum Lifecycle<M> {
    /// The store has not answered; what came meanwhile waits.
    Loading(VecDeque<M>),
    /// The store knows nothing of that name.
    Nobody,
    /// At work.
    Ready,
    /// The entity lives on another node.
    Moved,
}

impl<M> Default for Lifecycle<M> {
    fn default() -> Self {
        Self::Loading(VecDeque::new())
    }
}

/// What becomes of a message that comes while the actor is loading.
pub(crate) enum WhileLoading<M> {
    /// The message waits, in order, for the store's answer.
    Wait(M),
    /// The same, however many wait: it comes from few, which wait for the answer.
    WaitAlways(M),
    /// The message does not wait: it is the store's answer, or ends the life of the actor.
    Now(M),
}

/// An actor with a home, by stages of its life. [`step`] runs one message.
pub(crate) trait Living: Actor {
    /// The stage.
    fn lifecycle(&mut self) -> &mut Lifecycle<Self::Msg>;
    /// Called with the first message: begins to read the store, which ends with a message that is taken at once.
    fn begin(&mut self, me: &Handle<Self>);
    /// Whether a message waits while the actor reads the store.
    fn while_loading(msg: Self::Msg) -> WhileLoading<Self::Msg>;
    /// Takes a message that does not wait.
    fn loading(&mut self, msg: Self::Msg);
    /// Refuses a message because too many wait.
    fn turn_away(&mut self, msg: Self::Msg);
    /// Takes a message.
    fn ready(&mut self, msg: Self::Msg);
    /// Takes a message for a name that the store does not know.
    fn nobody(&mut self, msg: Self::Msg);
    /// Takes a message for an entity that has moved.
    fn moved(&mut self, msg: Self::Msg);
    /// Called after each message.
    fn after(&mut self) {}
}

/// Runs one message.
pub(crate) fn step<A: Living>(actor: &mut A, msg: A::Msg, me: &Handle<A>) {
    actor.begin(me);
    match actor.lifecycle() {
        Lifecycle::Ready => actor.ready(msg),
        Lifecycle::Nobody => actor.nobody(msg),
        Lifecycle::Moved => actor.moved(msg),
        Lifecycle::Loading(waiting) => match A::while_loading(msg) {
            WhileLoading::Now(msg) => actor.loading(msg),
            WhileLoading::WaitAlways(msg) => waiting.push_back(msg),
            WhileLoading::Wait(msg) if waiting.len() < LOADING => waiting.push_back(msg),
            WhileLoading::Wait(msg) => {
                metrics::counter!("rookery_limits_hit_total", "limit" => "loading").increment(1);
                actor.turn_away(msg);
            }
        },
    }
    actor.after();
}

/// The store has answered: the actor is at work, or the name is nobody's. What waited is taken.
pub(crate) fn loaded<A: Living>(actor: &mut A, exists: bool, take: impl FnOnce(&mut A)) {
    let stage = if exists { Lifecycle::Ready } else { Lifecycle::Nobody };
    if !matches!(actor.lifecycle(), Lifecycle::Loading(_)) {
        return;
    }
    let Lifecycle::Loading(waiting) = std::mem::replace(actor.lifecycle(), stage) else { return };
    take(actor);
    for msg in waiting {
        match actor.lifecycle() {
            Lifecycle::Ready => actor.ready(msg),
            Lifecycle::Nobody => actor.nobody(msg),
            Lifecycle::Moved => actor.moved(msg),
            // One of those before has asked the store again.
            Lifecycle::Loading(waiting) => waiting.push_back(msg),
        }
    }
}

/// The store did not answer: what waited is given back, to be refused. The next message asks the store again, if
/// [`Living::begin`] does.
pub(crate) fn not_loaded<A: Living>(actor: &mut A) -> VecDeque<A::Msg> {
    match std::mem::take(actor.lifecycle()) {
        Lifecycle::Loading(waiting) => waiting,
        other => {
            *actor.lifecycle() = other;
            VecDeque::new()
        }
    }
}

/// Wakes an actor again that was woken, and whose store did not answer: what waits in the store may be such that nobody else wakes it.
pub(crate) fn wake_again<A: Actor>(wheel: &Wheel, me: Option<Handle<A>>, wake: A::Msg) {
    let Some(me) = me.map(|me| me.downgrade()) else { return };
    wheel.after(AGAIN, move || {
        if let Some(me) = me.upgrade() {
            let _ = me.cast_always(wake);
        }
    });
}

/// The entity lives on another node, and was never at work here: what waited goes there.
pub(crate) fn moved_unloaded<A: Living>(actor: &mut A) {
    match std::mem::replace(actor.lifecycle(), Lifecycle::Moved) {
        Lifecycle::Loading(waiting) => waiting.into_iter().for_each(|msg| actor.moved(msg)),
        other => *actor.lifecycle() = other,
    }
}
