//! All streams of this node to and from other servers: what the operator sees of them, and the way to tell them something.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use rookery_actors::link::stream::{LinkEnd, Pair};
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::verify::Verdict;

/// The side that opened a stream.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Direction {
    /// Another server.
    Incoming,
    /// This node.
    Outgoing,
}

/// What a stream is told.
pub(super) enum Order {
    /// The operator ends it.
    Close,
    /// A link sends on it from now on (XEP-0288).
    Lend(Pair, LinkEnd),
    /// What became of a key (XEP-0220 section 2.1.2), and what has proved the domain.
    Verified(Pair, Verdict, &'static str),
    /// Another connection resumes the stream: this one gives up what it has.
    GiveUp,
    /// A stanza is lost inside the server.
    #[cfg(test)]
    Forget,
}

/// How many orders may wait for a stream.
const ORDERS: usize = 64;

/// What is known of a stream.
#[derive(Clone, Debug)]
pub struct Info {
    /// Its number on this node.
    pub number: u64,
    /// The side that opened the stream.
    pub direction: Direction,
    /// The pairs of domains that were proved on it, and how: `certificate`, `dane`, `posh` or `dialback`. On a stream that this node has opened
    /// the first is the one that it was opened for.
    pub pairs: Vec<(Pair, &'static str)>,
    /// The other server's address.
    pub address: String,
    /// TLS's version.
    pub tls: &'static str,
    /// Whether both sides send on it (XEP-0288).
    pub bidi: bool,
    /// Whether stanzas are counted (XEP-0198), and whether it can be resumed.
    pub managed: Option<bool>,
    /// When the stream began.
    pub since: Instant,
}

struct Known {
    info: Info,
    orders: mpsc::Sender<Order>,
    /// Whether a link may be lent the stream.
    free: bool,
}

#[derive(Default)]
struct Inner {
    next: u64,
    streams: HashMap<u64, Known>,
}

/// See the module. Cheap to clone.
#[derive(Clone, Default)]
pub struct Table(Arc<Mutex<Inner>>);

/// A stream's place; it goes with the drop.
pub(super) struct Place {
    table: Table,
    number: u64,
    orders: mpsc::Sender<Order>,
}

impl Table {
    /// Enters a stream. The orders for it come to the receiver.
    pub(super) fn enter(
        &self,
        direction: Direction,
        address: String,
        tls: &'static str,
    ) -> (Place, mpsc::Receiver<Order>) {
        let (orders, receiver) = mpsc::channel(ORDERS);
        let mut inner = self.0.lock();
        let number = inner.next;
        inner.next += 1;
        let info = Info {
            number,
            direction,
            pairs: Vec::new(),
            address,
            tls,
            bidi: false,
            managed: None,
            since: Instant::now(),
        };
        inner.streams.insert(number, Known { info, orders: orders.clone(), free: false });
        drop(inner);
        gauge(direction).increment(1.0);
        (Place { table: self.clone(), number, orders }, receiver)
    }

    /// All streams, by number. With `remote`, only the streams on which that domain was proved.
    pub fn list(&self, remote: Option<&str>) -> Vec<Info> {
        let inner = self.0.lock();
        let fits = |info: &Info| {
            remote.is_none_or(|remote| info.pairs.iter().any(|(pair, _)| pair.remote().domain() == remote))
        };
        let mut all: Vec<Info> =
            inner.streams.values().map(|known| &known.info).filter(|info| fits(info)).cloned().collect();
        drop(inner);
        all.sort_unstable_by_key(|info| info.number);
        all
    }

    /// Cuts a connection as a network does.
    #[cfg(test)]
    pub(super) fn cut(&self, number: u64) {
        if let Some(known) = self.0.lock().streams.get(&number) {
            let _ = known.orders.try_send(Order::GiveUp);
        }
    }

    /// A stanza of a stream is lost inside the server.
    #[cfg(test)]
    pub(super) fn forget(&self, number: u64) {
        if let Some(known) = self.0.lock().streams.get(&number) {
            let _ = known.orders.try_send(Order::Forget);
        }
    }

    /// Waits until no stream is left. Polls, since only the end of the process waits here.
    pub async fn emptied(&self) {
        while !self.0.lock().streams.is_empty() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Closes streams in order. How many there were.
    pub fn close(&self, which: Which<'_>) -> usize {
        self.close_if(|info| match which {
            Which::Incoming => info.direction == Direction::Incoming,
            Which::Number(number) => info.number == number,
            Which::Remote(remote) => info.pairs.iter().any(|(pair, _)| pair.remote().domain() == remote),
        })
    }

    /// Closes in order the streams for which `fits` is true. How many there were.
    pub(super) fn close_if(&self, fits: impl Fn(&Info) -> bool) -> usize {
        let inner = self.0.lock();
        let told = inner.streams.values().filter(|known| fits(&known.info));
        told.filter(|known| known.orders.try_send(Order::Close).is_ok()).count()
    }

    /// Lends a stream that goes both ways and serves `pair` to a link; it comes back if there is none.
    pub(super) fn lend(&self, pair: &Pair, end: LinkEnd) -> Option<LinkEnd> {
        let mut inner = self.0.lock();
        let fits = |known: &Known| known.free && known.info.pairs.iter().any(|(proved, _)| proved == pair);
        let Some(known) = inner.streams.values_mut().find(|known| fits(known)) else { return Some(end) };
        match known.orders.try_send(Order::Lend(pair.clone(), end)) {
            Ok(()) => {
                known.free = false;
                None
            }
            Err(error) => match error.into_inner() {
                Order::Lend(_, end) => Some(end),
                _ => None,
            },
        }
    }
}

/// Which streams are meant.
#[derive(Clone, Copy, Debug)]
pub enum Which<'a> {
    /// All that other servers have opened.
    Incoming,
    /// The one of this number.
    Number(u64),
    /// All of a domain.
    Remote(&'a str),
}

fn gauge(direction: Direction) -> metrics::Gauge {
    match direction {
        Direction::Incoming => metrics::gauge!("rookery_streams", "direction" => "in"),
        Direction::Outgoing => metrics::gauge!("rookery_streams", "direction" => "out"),
    }
}

impl Place {
    /// The way to tell the stream something.
    pub(super) fn orders(&self) -> &mpsc::Sender<Order> {
        &self.orders
    }

    /// Changes what is known of the stream.
    pub(super) fn change(&self, change: impl FnOnce(&mut Info)) {
        if let Some(known) = self.table.0.lock().streams.get_mut(&self.number) {
            change(&mut known.info);
        }
    }

    /// From now on a link may be lent the stream, or may not.
    pub(super) fn set_free(&self, free: bool) {
        if let Some(known) = self.table.0.lock().streams.get_mut(&self.number) {
            known.free = free;
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut inner = self.table.0.lock();
        if let Some(known) = inner.streams.remove(&self.number) {
            gauge(known.info.direction).decrement(1.0);
        }
        if inner.streams.capacity() > 4 * inner.streams.len() + 1_024 {
            inner.streams.shrink_to_fit();
        }
    }
}
