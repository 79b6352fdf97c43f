//! An actor: a state machine with a mailbox. A ractor actor runs it while there is work. Without work the actor is *passive*:
//! its state is plain memory. A ractor actor costs 6.8 kB; a passive state costs a few hundred bytes.
//!
//! A [`Handle`] stays valid through both: a message to a passive actor activates it. Mailboxes of ractor are unbounded, so the
//! handle counts what is queued and refuses at [`Actor::QUEUE`].

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU32, Ordering};

use parking_lot::Mutex;
use ractor::{ActorProcessingErr, ActorRef};
use rookery_cluster::invariant;

/// A state machine that owns something: a user, a session.
pub(crate) trait Actor: Send + Sized + 'static {
    /// What it is sent.
    type Msg: Send + 'static;
    /// How many messages may wait for it.
    const QUEUE: u32;

    /// Takes one message. Never blocks and never waits: what takes time is spawned and comes back as a message.
    fn handle(&mut self, msg: Self::Msg, me: &Handle<Self>);

    /// What to do when nothing has come for a while.
    fn idle(&self) -> Idle;

    /// Called with the slot locked when the actor becomes passive: the actor frees what only work needs.
    fn passivate(&mut self) {}

    /// Called with the slot locked when the actor goes for good.
    fn gone(&mut self) {}
}

/// What an actor without work does.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Idle {
    /// Work is under way; keep the actor.
    Stay,
    /// Keep the state, end the ractor actor.
    Passivate,
    /// Nothing would be lost: forget it.
    Leave,
}

enum Mail<M> {
    Msg(M),
    /// Nothing has come for a while.
    Idle,
}

enum Life<R: Actor> {
    Passive(Box<R>),
    Active(ActorRef<Mail<R::Msg>>),
    Gone,
}

/// The actors of one kind that are active: only they need looking after.
pub(crate) struct Active<R: Actor>(Mutex<Vec<Handle<R>>>);

impl<R: Actor> Active<R> {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self(Mutex::new(Vec::new())))
    }

    /// Called regularly: an actor without a message for `passivate_after` calls is asked to become passive. Returns how many messages wait.
    pub(crate) fn sweep(&self, passivate_after: u8) -> u32 {
        let active = std::mem::take(&mut *self.0.lock());
        let still: Vec<_> = active.into_iter().filter(|handle| handle.sweep(passivate_after)).collect();
        let waiting = still.iter().map(|handle| handle.0.queued.load(Ordering::Relaxed)).sum();
        self.0.lock().extend(still);
        waiting
    }

    /// How many there are.
    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.0.lock().iter().filter(|handle| matches!(*handle.0.life.lock(), Life::Active(_))).count()
    }
}

/// The place of one actor; it outlives the ractor actor in it.
pub(crate) struct Slot<R: Actor> {
    active: Arc<Active<R>>,
    life: Mutex<Life<R>>,
    queued: AtomicU32,
    /// Sweeps since the last message.
    quiet: AtomicU8,
}

/// The way to an actor. Cheap to clone.
pub(crate) struct Handle<R: Actor>(Arc<Slot<R>>);

impl<R: Actor> Clone for Handle<R> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

/// A message that was not taken, and why.
#[derive(Debug)]
pub(crate) enum Refused<M> {
    /// Too many wait already.
    Full(M),
    /// The actor is no more.
    Gone(M),
}

impl<R: Actor> Handle<R> {
    /// A new actor, passive until its first message.
    pub(crate) fn new(state: R, active: &Arc<Active<R>>) -> Self {
        Self(Arc::new(Slot {
            active: active.clone(),
            life: Mutex::new(Life::Passive(Box::new(state))),
            queued: AtomicU32::new(0),
            quiet: AtomicU8::new(0),
        }))
    }

    /// Sends `msg` unless too many wait.
    pub(crate) fn cast(&self, msg: R::Msg) -> Result<(), Refused<R::Msg>> {
        if self.0.queued.load(Ordering::Relaxed) >= R::QUEUE {
            return Err(Refused::Full(msg));
        }
        self.cast_always(msg)
    }

    /// Sends `msg` however many wait: for answers to what the actor itself began, which it bounds.
    pub(crate) fn cast_always(&self, msg: R::Msg) -> Result<(), Refused<R::Msg>> {
        let mut life = self.0.life.lock();
        self.0.quiet.store(0, Ordering::Relaxed);
        let actor = match &mut *life {
            Life::Active(actor) => actor,
            Life::Gone => return Err(Refused::Gone(msg)),
            passive @ Life::Passive(_) => {
                let Life::Passive(state) = std::mem::replace(passive, Life::Gone) else {
                    return Err(Refused::Gone(msg));
                };
                match ractor::ActorRuntime::spawn_instant(None, Runner(self.clone()), state) {
                    Ok((actor, _)) => {
                        *passive = Life::Active(actor);
                        self.0.active.0.lock().push(self.clone());
                    }
                    Err(error) => {
                        tracing::error!(%error, "an actor could not be started; its state in memory is lost");
                        return Err(Refused::Gone(msg));
                    }
                }
                match passive {
                    Life::Active(actor) => actor,
                    _ => return Err(Refused::Gone(msg)),
                }
            }
        };
        self.0.queued.fetch_add(1, Ordering::Relaxed);
        match actor.cast(Mail::Msg(msg)) {
            Ok(()) => Ok(()),
            Err(ractor::MessagingErr::SendErr(Mail::Msg(msg))) => {
                *life = Life::Gone;
                Err(Refused::Gone(msg))
            }
            // The type is ours, so nothing else can come back; and without the message nobody can be told.
            Err(_) => Ok(()),
        }
    }

    /// Whether there is an actor; after `passivate_after` calls without a message it is asked to become passive.
    fn sweep(&self, passivate_after: u8) -> bool {
        let quiet = self.0.quiet.load(Ordering::Relaxed).saturating_add(1);
        self.0.quiet.store(quiet, Ordering::Relaxed);
        let life = self.0.life.lock();
        let Life::Active(actor) = &*life else { return false };
        if quiet >= passivate_after {
            let _ = actor.cast(Mail::Idle);
        }
        true
    }

    /// Whether the actor is no more.
    pub(crate) fn is_gone(&self) -> bool {
        matches!(*self.0.life.lock(), Life::Gone)
    }

    /// Whether both are the way to the same actor.
    pub(crate) fn same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    /// A reference that does not keep the actor.
    pub(crate) fn downgrade(&self) -> WeakHandle<R> {
        WeakHandle(Arc::downgrade(&self.0))
    }
}

/// A handle that does not keep its actor.
pub(crate) struct WeakHandle<R: Actor>(std::sync::Weak<Slot<R>>);

impl<R: Actor> WeakHandle<R> {
    /// The handle, if the actor is still known to anybody.
    pub(crate) fn upgrade(&self) -> Option<Handle<R>> {
        self.0.upgrade().map(Handle)
    }
}

/// The ractor actor that runs an actor.
struct Runner<R: Actor>(Handle<R>);

impl<R: Actor> ractor::Actor for Runner<R> {
    type Msg = Mail<R::Msg>;
    type State = Option<Box<R>>;
    type Arguments = Box<R>;

    async fn pre_start(
        &self,
        _: ActorRef<Self::Msg>,
        state: Box<R>,
    ) -> Result<Self::State, ActorProcessingErr> {
        Ok(Some(state))
    }

    async fn handle(
        &self,
        myself: ActorRef<Self::Msg>,
        mail: Self::Msg,
        state: &mut Self::State,
    ) -> Result<(), ActorProcessingErr> {
        let Some(actor) = state else { return Ok(()) };
        match mail {
            Mail::Msg(msg) => {
                let queued = self.0.0.queued.fetch_sub(1, Ordering::Relaxed);
                invariant!("mailbox_counted", queued > 0);
                actor.handle(msg, &self.0);
            }
            Mail::Idle => {
                // With the slot locked nothing new can be queued; with nothing queued nothing can be lost.
                let mut life = self.0.0.life.lock();
                if self.0.0.queued.load(Ordering::Relaxed) > 0 {
                    return Ok(());
                }
                match (actor.idle(), state.take()) {
                    (Idle::Passivate, Some(mut actor)) => {
                        actor.passivate();
                        *life = Life::Passive(actor);
                    }
                    (Idle::Leave, Some(mut actor)) => {
                        actor.gone();
                        *life = Life::Gone;
                    }
                    (_, back) => {
                        *state = back;
                        return Ok(());
                    }
                }
                myself.stop(None);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::sync::oneshot;

    struct Sum(u64, Idle);

    #[derive(Debug)]
    enum Msg {
        Add(u64),
        Get(oneshot::Sender<u64>),
        Panic,
    }

    impl Actor for Sum {
        type Msg = Msg;
        const QUEUE: u32 = 8;
        fn handle(&mut self, msg: Msg, _: &Handle<Self>) {
            match msg {
                Msg::Add(n) => self.0 += n,
                Msg::Get(reply) => drop(reply.send(self.0)),
                Msg::Panic => panic!("on purpose"),
            }
        }
        fn idle(&self) -> Idle {
            self.1
        }
    }

    async fn get(handle: &Handle<Sum>) -> Option<u64> {
        let (tx, rx) = oneshot::channel();
        handle.cast(Msg::Get(tx)).ok()?;
        rx.await.ok()
    }

    async fn until(mut done: impl FnMut() -> bool) {
        while !done() {
            tokio::task::yield_now().await;
        }
    }

    #[tokio::test]
    async fn passivates_and_activates_with_its_state() {
        let handle = Handle::new(Sum(0, Idle::Passivate), &Active::new());
        for _ in 0..3 {
            handle.cast(Msg::Add(2)).unwrap();
            assert!(get(&handle).await.is_some());
            handle.sweep(1);
            until(|| matches!(*handle.0.life.lock(), Life::Passive(_))).await;
        }
        assert_eq!(get(&handle).await, Some(6));
    }

    #[tokio::test]
    async fn leaves_when_nothing_would_be_lost() {
        let handle = Handle::new(Sum(0, Idle::Leave), &Active::new());
        assert_eq!(get(&handle).await, Some(0));
        handle.sweep(1);
        until(|| handle.is_gone()).await;
        assert!(matches!(handle.cast(Msg::Add(1)), Err(Refused::Gone(Msg::Add(1)))));
    }

    #[tokio::test]
    async fn refuses_when_too_many_wait() {
        let handle = Handle::new(Sum(0, Idle::Passivate), &Active::new());
        // On this single thread the actor can't run before we wait.
        for _ in 0..8 {
            handle.cast(Msg::Add(1)).unwrap();
        }
        assert!(matches!(handle.cast(Msg::Add(1)), Err(Refused::Full(_))));
        handle.cast_always(Msg::Add(1)).unwrap();
        until(|| handle.0.queued.load(Ordering::Relaxed) == 0).await;
        assert_eq!(get(&handle).await, Some(9));
    }

    #[tokio::test]
    async fn a_panic_ends_this_actor_only() {
        let handle = Handle::new(Sum(0, Idle::Passivate), &Active::new());
        handle.cast(Msg::Panic).unwrap();
        until(|| handle.cast(Msg::Add(1)).is_err()).await;
        assert!(handle.is_gone());
    }
}
