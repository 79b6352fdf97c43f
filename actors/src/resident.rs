//! A resident is an actor that may rest: a state machine with a mailbox, run by a ractor actor while there is work
//! and kept as plain memory while there is none. A ractor actor costs 6.8 kB; a resting state a few hundred bytes.
//!
//! A [`Handle`] is valid through all of that: sending to a resting resident wakes it. Mailboxes of ractor are
//! unbounded, so the handle counts what is queued and refuses at [`Resident::QUEUE`].

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU32, Ordering};

use parking_lot::Mutex;
use ractor::{Actor, ActorProcessingErr, ActorRef};

/// A state machine that owns something: a user, a session.
pub(crate) trait Resident: Send + Sized + 'static {
    /// What it is sent.
    type Msg: Send + 'static;
    /// How many messages may wait for it.
    const QUEUE: u32;

    /// Takes one message. Never blocks and never waits: what takes time is spawned and comes back as a message.
    fn handle(&mut self, msg: Self::Msg, me: &Handle<Self>);

    /// What to do when nothing has come for a while.
    fn idle(&self) -> Idle;

    /// Called with the slot locked when the resident comes to rest: it gives back what it has only for work.
    fn rest(&mut self) {}

    /// Called with the slot locked when the resident goes for good.
    fn gone(&mut self) {}
}

/// What a resident without work does.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Idle {
    /// Work is under way; keep the actor.
    Stay,
    /// Keep the state, end the actor.
    Rest,
    /// Nothing would be lost: forget it.
    Leave,
}

enum Mail<M> {
    Msg(M),
    /// Nothing has come for a while.
    Idle,
}

enum Life<R: Resident> {
    Resting(Box<R>),
    Active(ActorRef<Mail<R::Msg>>),
    Gone,
}

/// The residents of one kind that have an actor now: only they need looking after.
pub(crate) struct Awake<R: Resident>(Mutex<Vec<Handle<R>>>);

impl<R: Resident> Awake<R> {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self(Mutex::new(Vec::new())))
    }

    /// Called regularly: who has had no message for `rest_after` calls is asked to rest. Returns how many messages wait.
    pub(crate) fn sweep(&self, rest_after: u8) -> u32 {
        let awake = std::mem::take(&mut *self.0.lock());
        let still: Vec<_> = awake.into_iter().filter(|handle| handle.sweep(rest_after)).collect();
        let waiting = still.iter().map(|handle| handle.0.queued.load(Ordering::Relaxed)).sum();
        self.0.lock().extend(still);
        waiting
    }
}

/// The place of one resident; it outlives the ractor actor in it.
pub(crate) struct Slot<R: Resident> {
    awake: Arc<Awake<R>>,
    life: Mutex<Life<R>>,
    queued: AtomicU32,
    /// Sweeps since the last message.
    quiet: AtomicU8,
}

/// The way to a resident. Cheap to clone.
pub(crate) struct Handle<R: Resident>(Arc<Slot<R>>);

impl<R: Resident> Clone for Handle<R> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

/// A message that was not taken, and why.
#[derive(Debug)]
pub(crate) enum Refused<M> {
    /// Too many wait already.
    Full(M),
    /// The resident is no more.
    Gone(M),
}

impl<R: Resident> Handle<R> {
    /// A new resident, at rest until its first message.
    pub(crate) fn new(state: R, awake: &Arc<Awake<R>>) -> Self {
        Self(Arc::new(Slot {
            awake: awake.clone(),
            life: Mutex::new(Life::Resting(Box::new(state))),
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

    /// Sends `msg` however many wait: for answers to what the resident itself began, which it bounds.
    pub(crate) fn cast_always(&self, msg: R::Msg) -> Result<(), Refused<R::Msg>> {
        let mut life = self.0.life.lock();
        self.0.quiet.store(0, Ordering::Relaxed);
        let actor = match &mut *life {
            Life::Active(actor) => actor,
            Life::Gone => return Err(Refused::Gone(msg)),
            resting @ Life::Resting(_) => {
                let Life::Resting(state) = std::mem::replace(resting, Life::Gone) else {
                    return Err(Refused::Gone(msg));
                };
                match ractor::ActorRuntime::spawn_instant(None, Runner(self.clone()), state) {
                    Ok((actor, _)) => {
                        *resting = Life::Active(actor);
                        self.0.awake.0.lock().push(self.clone());
                    }
                    Err(error) => {
                        tracing::error!(%error, "an actor could not be started; its state in memory is lost");
                        return Err(Refused::Gone(msg));
                    }
                }
                match resting {
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

    /// Whether there is an actor; after `rest_after` calls without a message it is asked to rest.
    fn sweep(&self, rest_after: u8) -> bool {
        let quiet = self.0.quiet.load(Ordering::Relaxed).saturating_add(1);
        self.0.quiet.store(quiet, Ordering::Relaxed);
        let life = self.0.life.lock();
        let Life::Active(actor) = &*life else { return false };
        if quiet >= rest_after {
            let _ = actor.cast(Mail::Idle);
        }
        true
    }

    /// Whether the resident is no more.
    pub(crate) fn is_gone(&self) -> bool {
        matches!(*self.0.life.lock(), Life::Gone)
    }

    /// Whether both are the way to the same resident.
    pub(crate) fn same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    /// A reference that does not keep the resident.
    pub(crate) fn downgrade(&self) -> WeakHandle<R> {
        WeakHandle(Arc::downgrade(&self.0))
    }
}

/// A handle that does not keep its resident.
pub(crate) struct WeakHandle<R: Resident>(std::sync::Weak<Slot<R>>);

impl<R: Resident> WeakHandle<R> {
    /// The handle, if the resident is still known to anybody.
    pub(crate) fn upgrade(&self) -> Option<Handle<R>> {
        self.0.upgrade().map(Handle)
    }
}

/// The ractor actor that runs a resident.
struct Runner<R: Resident>(Handle<R>);

impl<R: Resident> Actor for Runner<R> {
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
        let Some(resident) = state else { return Ok(()) };
        match mail {
            Mail::Msg(msg) => {
                self.0.0.queued.fetch_sub(1, Ordering::Relaxed);
                resident.handle(msg, &self.0);
            }
            Mail::Idle => {
                // With the slot locked nothing new can be queued; with nothing queued nothing can be lost.
                let mut life = self.0.0.life.lock();
                if self.0.0.queued.load(Ordering::Relaxed) > 0 {
                    return Ok(());
                }
                match (resident.idle(), state.take()) {
                    (Idle::Rest, Some(mut resident)) => {
                        resident.rest();
                        *life = Life::Resting(resident);
                    }
                    (Idle::Leave, Some(mut resident)) => {
                        resident.gone();
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

    impl Resident for Sum {
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
    async fn rests_and_wakes_with_its_state() {
        let handle = Handle::new(Sum(0, Idle::Rest), &Awake::new());
        for _ in 0..3 {
            handle.cast(Msg::Add(2)).unwrap();
            assert!(get(&handle).await.is_some());
            handle.sweep(1);
            until(|| matches!(*handle.0.life.lock(), Life::Resting(_))).await;
        }
        assert_eq!(get(&handle).await, Some(6));
    }

    #[tokio::test]
    async fn leaves_when_nothing_would_be_lost() {
        let handle = Handle::new(Sum(0, Idle::Leave), &Awake::new());
        assert_eq!(get(&handle).await, Some(0));
        handle.sweep(1);
        until(|| handle.is_gone()).await;
        assert!(matches!(handle.cast(Msg::Add(1)), Err(Refused::Gone(Msg::Add(1)))));
    }

    #[tokio::test]
    async fn refuses_when_too_many_wait() {
        let handle = Handle::new(Sum(0, Idle::Rest), &Awake::new());
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
    async fn a_panic_ends_this_resident_only() {
        let handle = Handle::new(Sum(0, Idle::Rest), &Awake::new());
        handle.cast(Msg::Panic).unwrap();
        until(|| handle.cast(Msg::Add(1)).is_err()).await;
        assert!(handle.is_gone());
    }
}
