//! A component that is away for a while: users of other servers are told that its contacts are gone.
//!
//! Only the other servers know which of a component's contacts their users have. What this node knows is what the component's
//! connections here have said: which of its addresses it has shown to whom, and has not taken back. Of that the last
//! [`MOST`] are remembered, on each node for each component, and forgotten when they are told. What connections on a node that died had said
//! is not known any more: those contacts stay until their users' servers ask again.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use parking_lot::Mutex;
use rookery_proto::xmpp::jid::{BareJid, Jid};
use rookery_proto::xmpp::stanza::{PresenceType, Stanza, Type};

use crate::connection::ledger::Receipt;
use crate::host::Host;
use crate::host::components::Said;

/// How many pairs of a component's address and somebody elsewhere are remembered. Of more the oldest are forgotten.
const MOST: usize = 10_000;
/// Pairs that are told before others get a turn, and how long that is: each is a stanza in a link's queue.
const AT_ONCE: usize = 64;
const TURN: Duration = Duration::from_millis(100);

/// An address of a component, and the user of another server that was shown its presence.
type Pair = (Jid, Jid);

/// What one component has shown.
#[derive(Default)]
struct Shown {
    last: u64,
    /// In the order in which it was said last.
    order: BTreeMap<u64, Pair>,
    places: HashMap<Pair, u64>,
    /// The component is gone: what was said up to here is being taken back.
    telling: Option<u64>,
}

impl Shown {
    fn forget(&mut self, pair: &Pair) {
        if let Some(place) = self.places.remove(pair) {
            self.order.remove(&place);
        }
    }

    fn note(&mut self, pair: Pair) {
        self.forget(&pair);
        if self.places.len() >= MOST
            && let Some((_, oldest)) = self.order.pop_first()
        {
            metrics::counter!("rookery_limits_hit_total", "limit" => "component_shown").increment(1);
            self.places.remove(&oldest);
        }
        self.last += 1;
        self.order.insert(self.last, pair.clone());
        self.places.insert(pair, self.last);
    }

    /// The next pair that is to be told; nothing when all are, or the component is there again.
    fn take(&mut self, upto: u64) -> Option<Pair> {
        let place =
            self.order.first_entry().filter(|first| self.telling == Some(upto) && *first.key() <= upto)?;
        let pair = place.remove();
        self.places.remove(&pair);
        Some(pair)
    }
}

/// What the components of this node's connections have shown, by their names.
#[derive(Default)]
pub(super) struct Abroad(Mutex<HashMap<BareJid, Shown>>);

impl Abroad {
    fn begin(&self, component: &BareJid, gone: bool) -> Option<u64> {
        let mut all = self.0.lock();
        let shown = all.get_mut(component)?;
        shown.telling = gone.then_some(shown.last);
        shown.telling
    }

    fn take(&self, component: &BareJid, upto: u64) -> Option<Pair> {
        self.0.lock().get_mut(component)?.take(upto)
    }
}

impl Host {
    /// A component sends this from a connection of this node.
    pub(super) fn note_shown(&self, component: &BareJid, stanza: &Stanza) {
        let available = match stanza.type_ {
            Type::Presence(PresenceType::Available) => true,
            Type::Presence(PresenceType::Unavailable) => false,
            _ => return,
        };
        let (Some(from), Some(to)) = (&stanza.from, &stanza.to) else { return };
        if !self.federates(to.domain()) {
            return; // users here are told by their homes
        }
        let (pair, abroad) = ((from.clone(), to.clone()), self.state::<Abroad>());
        let mut all = abroad.0.lock();
        if available {
            all.entry(component.clone()).or_default().note(pair);
        } else if let Some(shown) = all.get_mut(component) {
            shown.forget(&pair);
        }
    }

    /// Users of other servers hear in the background that a component is gone. Nobody tells them that a component is there again.
    pub(super) fn tell_abroad_of(&self, component: &BareJid, said: Said) {
        let abroad = self.state::<Abroad>();
        let Some(upto) = abroad.begin(component, said == Said::Gone) else { return };
        let (host, component) = (self.clone(), component.clone());
        self.spawn(async move {
            let mut told = 0;
            while let Some((from, to)) = abroad.take(&component, upto) {
                let gone = Stanza::new(Type::Presence(PresenceType::Unavailable)).from(from).to(to);
                host.route(gone, Receipt::none(), None);
                told += 1;
                if told % AT_ONCE == 0 {
                    tokio::time::sleep(TURN).await;
                }
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair(from: usize, to: &str) -> Pair {
        (Jid::parse(&format!("c{from}@gate.example")).unwrap(), Jid::parse(to).unwrap())
    }

    #[test]
    fn the_last_are_remembered_until_they_are_told() {
        let mut shown = Shown::default();
        (0..=MOST).for_each(|n| shown.note(pair(n, "romeo@far.example")));
        shown.note(pair(5, "romeo@far.example"));
        shown.forget(&pair(3, "romeo@far.example"));
        assert_eq!((shown.order.len(), shown.places.len()), (MOST - 1, MOST - 1));
        let upto = shown.last;
        assert_eq!(shown.take(upto), None);
        shown.telling = Some(upto);
        assert_eq!(shown.take(upto), Some(pair(1, "romeo@far.example")));
        // What is said while that is told is no part of it.
        shown.note(pair(2, "romeo@far.example"));
        assert_eq!(shown.take(upto), Some(pair(4, "romeo@far.example")));
        let rest = std::iter::from_fn(|| shown.take(upto)).last();
        assert_eq!(rest, Some(pair(5, "romeo@far.example")));
        assert_eq!((shown.order.len(), shown.places.len()), (1, 1));
    }
}
