//! Watches: waiters for a key to change.

use std::collections::HashMap;

use bytes::Bytes;
use tokio::sync::oneshot;

use super::backend::Backend;
use super::{CLOSED, Engine};
use crate::store::{Class, Error, Result, limits};

/// One watch of one transaction.
pub(crate) struct Watch {
    /// What is watched.
    pub(crate) key: Bytes,
    /// What the transaction saw there.
    pub(crate) expected: Option<Bytes>,
    /// The transaction wrote the key itself: it expects its own value.
    pub(crate) written: bool,
    /// The waiter.
    pub(crate) wake: oneshot::Sender<Result<()>>,
}

/// The watches of committed transactions.
#[derive(Default)]
pub(crate) struct Watches {
    by_key: HashMap<Bytes, Vec<Watch>>,
    count: usize,
    closed: bool,
}

impl Watches {
    /// Ends all watches.
    pub(crate) fn close(&mut self) {
        self.closed = true;
        for watch in self.by_key.drain().flat_map(|(_, watches)| watches) {
            let _ = watch.wake.send(Err(CLOSED));
        }
        self.count = 0;
    }

    /// Ends all watches as if what they wait for had come: nobody knows whether it has.
    pub(crate) fn wake(&mut self) {
        for watch in self.by_key.drain().flat_map(|(_, watches)| watches) {
            let _ = watch.wake.send(Ok(()));
        }
        self.count = 0;
    }

    /// Drops those whose waiters have gone.
    fn sweep(&mut self) {
        self.by_key.retain(|_, watches| {
            watches.retain(|watch| !watch.wake.is_closed());
            !watches.is_empty()
        });
        self.count = self.by_key.values().map(Vec::len).sum();
    }
}

impl<B: Backend> Engine<B> {
    /// Sets watches; those whose key has another value by now end at once.
    pub(crate) fn arm(&self, watches: Vec<Watch>) {
        for watch in watches {
            let mut all = self.watches.lock();
            // Read under the lock: a commit publishes first and fires then, so no change falls between.
            let value = self.latest().and_then(|snapshot| self.backend.get(&snapshot.view, &watch.key));
            if all.closed {
                let _ = watch.wake.send(Err(CLOSED));
                continue;
            }
            match value {
                Err(error) => drop(watch.wake.send(Err(error))),
                Ok(value) if value != watch.expected => drop(watch.wake.send(Ok(()))),
                Ok(_) => {
                    if all.count >= limits::WATCHES {
                        all.sweep();
                    }
                    if all.count >= limits::WATCHES {
                        let error = Error::new(Class::TooLarge, "too many watches");
                        let _ = watch.wake.send(Err(error));
                        continue;
                    }
                    all.count += 1;
                    all.by_key.entry(watch.key.clone()).or_default().push(watch);
                }
            }
        }
    }

    /// Ends the watches of these keys whose value is another now.
    pub(crate) fn fire(&self, keys: &[Bytes]) {
        let mut all = self.watches.lock();
        if all.count == 0 {
            return;
        }
        let Ok(latest) = self.latest() else {
            return;
        };
        for key in keys {
            let Some(watches) = all.by_key.remove(key) else {
                continue;
            };
            let before = watches.len();
            let value = self.backend.get(&latest.view, key);
            let mut waiting = Vec::new();
            for watch in watches {
                match &value {
                    Ok(value) if *value == watch.expected => waiting.push(watch),
                    _ => drop(watch.wake.send(Ok(()))),
                }
            }
            all.count -= before - waiting.len();
            if !waiting.is_empty() {
                all.by_key.insert(key.clone(), waiting);
            }
        }
    }
}
