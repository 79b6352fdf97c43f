//! All connections of this node that have a session, wherever it lives: so that their streams can be closed.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::Mutex;
use rookery_actors::{Close, Down, Pipe};
use rookery_proto::xmpp::error::StreamCondition;
use tokio::time::{Instant, sleep_until};

#[derive(Default)]
struct Inner {
    next: u64,
    pipes: HashMap<u64, Weak<Pipe>>,
}

/// See the module. Cheap to clone.
#[derive(Clone, Default)]
pub struct Clients(Arc<Mutex<Inner>>);

/// A connection's place; it goes with the drop.
pub(super) struct Place {
    clients: Clients,
    number: u64,
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut inner = self.clients.0.lock();
        inner.pipes.remove(&self.number);
        // After a rush of clients the room is given back.
        if inner.pipes.capacity() > 4 * inner.pipes.len() + 1_024 {
            inner.pipes.shrink_to_fit();
        }
    }
}

impl Clients {
    pub(super) fn enter(&self, pipe: &Arc<Pipe>) -> Place {
        let mut inner = self.0.lock();
        let number = inner.next;
        inner.next += 1;
        inner.pipes.insert(number, Arc::downgrade(pipe));
        Place { clients: self.clone(), number }
    }

    /// Closes the streams that are open now with `<system-shutdown/>` (RFC 6120 section 4.9.3.20), spread evenly over
    /// `time`, so that not all clients come back at once. Their sessions can be resumed. How many there were.
    pub async fn close(&self, time: Duration, text: &'static str) -> usize {
        // In no order: so is that of the map.
        let pipes: Vec<Weak<Pipe>> = self.0.lock().pipes.values().cloned().collect();
        let (begun, all) = (Instant::now(), u32::try_from(pipes.len()).unwrap_or(u32::MAX).max(1));
        for (number, pipe) in (0..).zip(&pipes) {
            if let Some(pipe) = pipe.upgrade() {
                let close = Close::Error(StreamCondition::SystemShutdown, Cow::Borrowed(text));
                let _ = pipe.push(Down::Close(close));
            }
            // A millisecond is the timer's grain.
            let due = begun + time.mul_f64(f64::from(number) / f64::from(all));
            if due > Instant::now() + Duration::from_millis(1) {
                sleep_until(due).await;
            }
        }
        pipes.len()
    }
}
