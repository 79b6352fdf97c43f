//! The actors of a node by name. Which node an actor is on is a question of [`crate::placement`].

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::runtime::actor::{Active, Actor, Handle, Refused};

/// How many locks the names are spread over.
const STRIPES: usize = 256;

/// How many sweeps it takes to visit every actor once.
pub(crate) const SWEEPS: usize = 16;

/// The actors of one kind on this node, by name.
pub(crate) struct Directory<K, R: Actor> {
    stripes: Vec<Mutex<HashMap<K, Handle<R>>>>,
    active: Arc<Active<R>>,
    place: fn(&K) -> usize,
}

impl<K: Hash + Eq + Clone, R: Actor> Directory<K, R> {
    /// `place` spreads the names evenly; [`Directory::at`] finds those of one place.
    pub(crate) fn new(place: fn(&K) -> usize) -> Self {
        Self {
            place,
            active: Active::new(),
            stripes: (0..STRIPES).map(|_| Mutex::new(HashMap::new())).collect(),
        }
    }

    #[allow(clippy::indexing_slicing)] // taken modulo the length
    fn stripe(&self, name: &K) -> &Mutex<HashMap<K, Handle<R>>> {
        &self.stripes[(self.place)(name) % STRIPES]
    }

    /// The actor of that name if it is here.
    pub(crate) fn find(&self, name: &K) -> Option<Handle<R>> {
        self.stripe(name).lock().get(name).cloned()
    }

    /// Sends to the actor of that name, which `make` makes if it is not here.
    pub(crate) fn cast(&self, name: &K, msg: R::Msg, make: impl Fn() -> R) -> Result<(), Refused<R::Msg>> {
        let mut msg = msg;
        // An actor that has just left is replaced once; a second one can't leave before its first message.
        for _ in 0..3 {
            let handle = {
                let mut stripe = self.stripe(name).lock();
                stripe.entry(name.clone()).or_insert_with(|| Handle::new(make(), &self.active)).clone()
            };
            match handle.cast(msg) {
                Err(Refused::Gone(back)) => {
                    msg = back;
                    self.remove(name, &handle);
                }
                other => return other,
            }
        }
        Err(Refused::Gone(msg))
    }

    /// Enters an actor under its name; the one that was there is returned.
    pub(crate) fn insert(&self, name: K, handle: Handle<R>) -> Option<Handle<R>> {
        self.stripe(&name).lock().insert(name, handle)
    }

    /// Forgets this very actor.
    pub(crate) fn remove(&self, name: &K, handle: &Handle<R>) {
        let mut stripe = self.stripe(name).lock();
        if stripe.get(name).is_some_and(|known| known.same(handle)) {
            stripe.remove(name);
        }
    }

    /// Everybody's names and handles; a copy, made stripe by stripe.
    pub(crate) fn all(&self) -> Vec<(K, Handle<R>)> {
        let mut all = Vec::new();
        for stripe in &self.stripes {
            all.extend(stripe.lock().iter().map(|(name, handle)| (name.clone(), handle.clone())));
        }
        all
    }

    /// The names and handles of one place.
    pub(crate) fn at(&self, place: usize) -> Vec<(K, Handle<R>)> {
        let Some(stripe) = self.stripes.get(place % STRIPES) else { return Vec::new() };
        let stripe = stripe.lock();
        let there = stripe.iter().filter(|(name, _)| (self.place)(name) == place);
        there.map(|(name, handle)| (name.clone(), handle.clone())).collect()
    }

    /// How many do not rest.
    #[cfg(test)]
    pub(crate) fn active(&self) -> usize {
        self.active.len()
    }

    /// How many actors are known.
    pub(crate) fn len(&self) -> usize {
        self.stripes.iter().map(|stripe| stripe.lock().len()).sum()
    }

    /// A handle of a new actor of this kind, not entered yet.
    pub(crate) fn handle(&self, state: R) -> Handle<R> {
        Handle::new(state, &self.active)
    }

    /// Once a second: actors without a message for two to three seconds are asked to rest, and in a sixteenth of the
    /// stripes the actors that have gone are forgotten. Returns how many messages wait for all of them.
    pub(crate) fn sweep(&self, turn: usize) -> u32 {
        let waiting = self.active.sweep(3);
        for stripe in self.stripes.iter().skip(turn % SWEEPS).step_by(SWEEPS) {
            stripe.lock().retain(|_, handle| !handle.is_gone());
        }
        waiting
    }
}
