//! Stream management (XEP-0198 version 1.6.3) on streams that other servers have opened: what is kept of a lost one, so that its
//! next connection goes on where it was. A lost stream is kept on this node only. On other nodes, and after that time, a request to
//! resume is answered by `<item-not-found/>`.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use rookery_actors::link::stream::Pair;
use rookery_actors::{Ledger, OriginName};
use rookery_proto::xmpp::jid::BareJid;
use tokio::sync::{Notify, mpsc};
use tokio::time::{Instant, timeout};

use super::table::Order;

/// How long a stream that is still there may take to give up what it has, and stanzas under way to be settled.
const GIVE_UP: Duration = Duration::from_secs(2);
/// How many lost streams are kept. Where there are more, the oldest goes of the domain that has most.
const PARKED: usize = 4_096;
/// How many of one remote domain: more than it may have streams to a few of ours.
const OF_ONE: usize = 256;
/// The pause between two looks at whether the stanzas are settled.
const LOOK: Duration = Duration::from_millis(10);

/// What both sides count on.
pub(super) struct Managed {
    /// What of the other server's stanzas is settled.
    pub(super) ledger: Arc<Ledger>,
    /// The name under which the stream's stanzas are numbered. Name and number together tell a stanza that comes again.
    pub(super) name: OriginName,
    /// The id for resumption, if there is one.
    pub(super) id: Option<String>,
}

/// What is kept of a lost stream.
pub(super) struct State {
    pub(super) ledger: Arc<Ledger>,
    pub(super) name: OriginName,
    /// What was proved on it, and how.
    pub(super) proved: Vec<(Pair, &'static str)>,
}

enum Slot {
    /// With the remote domains that were proved on it.
    Live(Vec<BareJid>, mpsc::Sender<Order>),
    Parked(Box<State>, Instant),
}

impl State {
    /// The domain in whose share of the kept streams it is.
    fn remote(&self) -> Option<&BareJid> {
        self.proved.first().map(|(pair, _)| pair.remote())
    }
}

/// The oldest of the domain that has most of what is kept.
fn most_kept(slots: &HashMap<String, Slot>) -> Option<String> {
    let mut counts: HashMap<&BareJid, usize> = HashMap::new();
    for (_, state, _) in parked(slots) {
        *counts.entry(state.remote()?).or_default() += 1;
    }
    let (heaviest, _) = counts.into_iter().max_by_key(|(_, count)| *count)?;
    oldest(slots, heaviest)
}

/// The oldest of what is kept of a domain.
fn oldest(slots: &HashMap<String, Slot>, remote: &BareJid) -> Option<String> {
    let own = parked(slots).filter(|(_, state, _)| state.remote() == Some(remote));
    own.min_by_key(|(_, _, until)| *until).map(|(id, ..)| id.clone())
}

fn parked(slots: &HashMap<String, Slot>) -> impl Iterator<Item = (&String, &State, Instant)> {
    slots.iter().filter_map(|(id, slot)| match slot {
        Slot::Parked(state, until) => Some((id, &**state, *until)),
        Slot::Live(..) => None,
    })
}

/// The streams that can be resumed, by their ids.
#[derive(Default)]
pub(super) struct Registry {
    slots: Mutex<HashMap<String, Slot>>,
    changed: Notify,
}

impl Registry {
    /// A stream that is there, on which `remotes` have proved themselves, and that can be resumed should it be lost.
    pub(super) fn enter(&self, id: String, remotes: Vec<BareJid>, orders: mpsc::Sender<Order>) {
        self.slots.lock().insert(id, Slot::Live(remotes, orders));
    }

    /// The stream is over.
    pub(super) fn leave(&self, id: &str) {
        self.slots.lock().remove(id);
        self.changed.notify_waiters();
    }

    /// The stream was lost, and is kept for so long.
    pub(super) fn park(&self, id: String, state: State, time: Duration) {
        let now = Instant::now();
        let mut slots = self.slots.lock();
        slots.retain(|_, slot| {
            matches!(slot, Slot::Live(..)) || matches!(slot, Slot::Parked(_, until) if *until > now)
        });
        let own =
            |remote: &BareJid| parked(&slots).filter(|(_, own, _)| own.remote() == Some(remote)).count();
        let displaced = match state.remote() {
            Some(remote) if own(remote) >= OF_ONE => oldest(&slots, remote),
            _ if parked(&slots).count() >= PARKED => most_kept(&slots),
            _ => None,
        };
        if let Some(displaced) = displaced {
            metrics::counter!("rookery_limits_hit_total", "limit" => "parked_streams").increment(1);
            slots.remove(&displaced);
        }
        slots.insert(id, Slot::Parked(Box::new(state), now + time));
        drop(slots);
        self.changed.notify_waiters();
    }

    /// What was kept of a stream on which `remote` had proved itself. If the stream is still there, it gives up: its other
    /// connection was lost, and it does not know yet.
    pub(super) async fn take(&self, id: &str, remote: &str) -> Option<State> {
        timeout(GIVE_UP, self.wait(id, remote)).await.ok().flatten()
    }

    async fn wait(&self, id: &str, remote: &str) -> Option<State> {
        loop {
            let mut changed = std::pin::pin!(self.changed.notified());
            changed.as_mut().enable();
            let orders = {
                let mut slots = self.slots.lock();
                match slots.get(id)? {
                    Slot::Parked(state, until) => {
                        let ours = state.proved.iter().any(|(pair, _)| pair.remote().domain() == remote);
                        if !ours || *until <= Instant::now() {
                            return None;
                        }
                        let Some(Slot::Parked(state, _)) = slots.remove(id) else { return None };
                        return Some(*state);
                    }
                    Slot::Live(remotes, orders) => {
                        // A server that has come by the id cannot end another's stream with the id.
                        if !remotes.iter().any(|proved| proved.domain() == remote) {
                            return None;
                        }
                        orders.clone()
                    }
                }
            };
            // A stream that takes no orders any more is about to be kept, or to leave.
            let _ = orders.send(Order::GiveUp).await;
            changed.await;
        }
    }
}

/// Waits, not for long, until everything that was received is settled. If something is not, or was lost inside, a new ledger goes
/// on from there: the other server sends it again, and its number tells that it comes again.
pub(super) async fn settled(ledger: Arc<Ledger>) -> Arc<Ledger> {
    let begun = Instant::now();
    while ledger.open() > 0 && !ledger.broken() && begun.elapsed() < GIVE_UP {
        tokio::time::sleep(LOOK).await;
    }
    if ledger.open() > 0 || ledger.broken() { Ledger::new(ledger.settled()) } else { ledger }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state(remote: &str) -> State {
        let jid = |text: &str| BareJid::parse(text).unwrap();
        let pair = Pair::new(&jid("ours.example"), &jid(remote)).unwrap();
        State { ledger: Ledger::new(3), name: OriginName::new([1; 16]), proved: vec![(pair, "certificate")] }
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_kept_is_kept_for_its_domain_and_for_a_time() {
        let registry = Registry::default();
        assert!(registry.take("a", "theirs.example").await.is_none());
        registry.park("a".into(), state("theirs.example"), Duration::from_secs(60));
        assert!(registry.take("a", "other.example").await.is_none());
        assert_eq!(registry.take("a", "theirs.example").await.unwrap().ledger.settled(), 3);
        assert!(registry.take("a", "theirs.example").await.is_none());
        registry.park("b".into(), state("theirs.example"), Duration::from_secs(60));
        tokio::time::advance(Duration::from_secs(61)).await;
        assert!(registry.take("b", "theirs.example").await.is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn one_domain_leaves_room_for_others() {
        let registry = Registry::default();
        let minute = Duration::from_secs(60);
        registry.park("other".into(), state("other.example"), minute);
        for n in 0..2 * OF_ONE {
            tokio::time::advance(Duration::from_millis(1)).await;
            registry.park(n.to_string(), state("theirs.example"), minute);
        }
        assert_eq!(registry.slots.lock().len(), OF_ONE + 1);
        assert!(registry.take("other", "other.example").await.is_some());
        // Its latest are kept.
        assert!(registry.take(&(OF_ONE - 1).to_string(), "theirs.example").await.is_none());
        assert!(registry.take(&OF_ONE.to_string(), "theirs.example").await.is_some());
        // Of very many domains, those make room that have most.
        for n in 0..PARKED {
            registry.park(format!("m{n}"), state(&format!("n{}.example", n / 4)), minute);
        }
        registry.park("last".into(), state("last.example"), minute);
        assert_eq!(registry.slots.lock().len(), PARKED);
        assert!(registry.take("last", "last.example").await.is_some());
    }

    /// A stream that has ended, and is not kept yet, is waited for.
    #[tokio::test(start_paused = true)]
    async fn a_stream_that_is_about_to_be_kept_is_waited_for() {
        let registry = Arc::new(Registry::default());
        let (orders, ended) = mpsc::channel(1);
        registry.enter("a".into(), vec![BareJid::parse("theirs.example").unwrap()], orders);
        drop(ended);
        let taking = tokio::spawn({
            let registry = registry.clone();
            async move { registry.take("a", "theirs.example").await }
        });
        tokio::task::yield_now().await;
        registry.park("a".into(), state("theirs.example"), Duration::from_secs(60));
        assert!(taking.await.unwrap().is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn a_stream_that_is_there_gives_up() {
        let registry = Arc::new(Registry::default());
        let (orders, mut told) = mpsc::channel(1);
        let theirs = || vec![BareJid::parse("theirs.example").unwrap()];
        registry.enter("a".into(), theirs(), orders);
        // Not for somebody else.
        assert!(registry.take("a", "other.example").await.is_none() && told.try_recv().is_err());
        let taking = tokio::spawn({
            let registry = registry.clone();
            async move { registry.take("a", "theirs.example").await }
        });
        assert!(matches!(told.recv().await, Some(Order::GiveUp)));
        registry.park("a".into(), state("theirs.example"), Duration::from_secs(60));
        assert!(taking.await.unwrap().is_some());
        // And one that does not answer is not waited for.
        let (orders, _told) = mpsc::channel(1);
        registry.enter("b".into(), theirs(), orders);
        assert!(registry.take("b", "theirs.example").await.is_none());
        let ledger = Ledger::new(0);
        let receipt = ledger.enter();
        assert!(!Arc::ptr_eq(&settled(ledger.clone()).await, &ledger));
        receipt.done();
        assert!(Arc::ptr_eq(&settled(ledger.clone()).await, &ledger));
    }
}
