//! The home of a component: the one actor that all stanzas for the component come to. The home hands each stanza to a connection, in order for
//! each user, and keeps the stanza until the component has it.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use rookery_cluster::entity::Shard;
use rookery_cluster::mesh::peer::Outcome;
use rookery_cluster::store::{self, Fut};
use rookery_proto::xmpp::error::Condition;
use rookery_proto::xmpp::jid::BareJid;
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::absence::{self, Absence};
use super::balance::{Balance, UserKey, sender};
use super::messages::{ConnId, Msg, Offer};
use crate::host::Host;
use crate::host::kind::{Inbound, PlacedActor};
use crate::placement::LostShards;
use crate::routing::untold::Untold;
use crate::runtime::actor::{Actor, Handle, Idle};
use crate::runtime::shares::{Amount, Full, Shares};

/// Stanzas that one connection has been handed and whose outcome is not known.
const WINDOW: usize = 256;
/// The same, bytes.
const WINDOW_BYTES: usize = 1 << 20;
/// A connection that has said nothing for so long is gone: it speaks up every [`super::serve::KEEP`].
const SILENCE: Duration = Duration::from_secs(20);
/// How often the home looks at its connections and at what waits.
const TICK: Duration = Duration::from_secs(1);
/// A new home among others waits so long for the other connections to come, since each knows its users.
const SETTLE: Duration = Duration::from_millis(500);

mod moving;

/// A stanza that waits for the component, or is on its way to it.
struct Waiting {
    inbound: Box<Inbound>,
    size: usize,
    sender: BareJid,
    since: Instant,
}

struct Conn {
    id: ConnId,
    heard: Instant,
    /// Handed to the connection; the numbers grow.
    flying: VecDeque<(u64, Waiting)>,
    flying_bytes: usize,
    /// Behind that.
    queue: VecDeque<Waiting>,
}

/// See the module.
pub(crate) struct Component {
    host: Host,
    name: BareJid,
    me: Option<Handle<Self>>,
    /// Drawn anew for each home.
    serving: u64,
    conns: Vec<Conn>,
    /// How many stanzas were handed to connections: the number of the last.
    handed: u64,
    balance: Balance,
    /// For which there is no connection.
    homeless: VecDeque<Waiting>,
    /// What waits, or is on its way.
    shares: Shares,
    /// Presence for which there was no room.
    untold: Untold,
    /// Since when there is no connection.
    absence: Absence,
    /// Until when nothing is handed out.
    settling: Option<Instant>,
    ticking: bool,
    leaving: Option<(oneshot::Sender<()>, Instant)>,
    moved: bool,
}

impl Component {
    /// Takes a stanza for the component.
    fn take(&mut self, inbound: Box<Inbound>) {
        let options = self.host.options();
        let limits = &options.limits;
        if options.component(self.name.as_str()).is_none() {
            return self.host.bounce(&inbound.stanza, inbound.receipt, Condition::ItemNotFound);
        }
        let (size, sender) = (inbound.stanza.size(), sender(&self.host, &self.name, &inbound.stanza));
        let limit = Amount { stanzas: limits.component_stanzas, bytes: limits.component_bytes };
        if let Err(full) = self.shares.fits(&sender, size, limit, Amount::default()) {
            let limit = if full == Full::All { "component_queue" } else { "component_sender" };
            metrics::counter!("rookery_limits_hit_total", "limit" => limit).increment(1);
            if self.untold.remember(&self.host, &inbound.stanza) {
                return inbound.receipt.done(); // its sender is asked for what holds when there is room
            }
            return self.host.bounce(&inbound.stanza, inbound.receipt, Condition::ResourceConstraint);
        }
        if self.conns.is_empty() && self.absence.lasts() >= limits.component_wait {
            return self.host.bounce(&inbound.stanza, inbound.receipt, Condition::ServiceUnavailable);
        }
        self.shares.came(&sender, size);
        self.place(Waiting { inbound, size, sender, since: Instant::now() });
        self.go_on();
    }

    /// Behind what waits for the same connection.
    fn place(&mut self, waiting: Waiting) {
        let ids: Vec<u64> = self.conns.iter().map(|conn| conn.id.key()).collect();
        let user = waiting.inbound.stanza.from.as_ref().map_or(UserKey(0), UserKey::of);
        let key = if self.settling.is_some() { None } else { self.balance.of(user, &ids) };
        match self.conns.iter_mut().find(|conn| Some(conn.id.key()) == key) {
            Some(conn) => conn.queue.push_back(waiting),
            None => self.homeless.push_back(waiting),
        }
    }

    /// Hands out what may go now.
    fn go_on(&mut self) {
        if self.settling.is_some_and(|until| Instant::now() >= until) {
            self.settling = None;
        }
        if self.settling.is_none() && !self.conns.is_empty() {
            for waiting in std::mem::take(&mut self.homeless) {
                self.place(waiting);
            }
        }
        let ids: Vec<ConnId> = self.conns.iter().map(|conn| conn.id.clone()).collect();
        ids.iter().for_each(|id| self.hand_out(id));
        self.tick_soon();
    }

    fn hand_out(&mut self, id: &ConnId) {
        let Some(me) = self.me.clone().filter(|_| self.leaving.is_none()) else { return };
        let Some(conn) = self.conns.iter_mut().find(|conn| conn.id == *id) else { return };
        while conn.flying.len() < WINDOW
            && conn.flying_bytes < WINDOW_BYTES
            && let Some(waiting) = conn.queue.pop_front()
        {
            self.handed += 1;
            let number = self.handed;
            let (stanza, origin) = (waiting.inbound.stanza.clone(), waiting.inbound.origin);
            conn.flying_bytes += waiting.size;
            conn.flying.push_back((number, waiting));
            let (me, told) = (me.clone(), id.clone());
            let told = move |outcome| {
                let taken = match outcome {
                    Outcome::Taken(answer) => Some(answer),
                    Outcome::NotOwner { .. } | Outcome::Lost => None,
                };
                let _ = me.cast_always(Msg::Outcome { conn: told, number, taken });
            };
            if !self.host.hand_to_connection(id, stanza, origin, told) {
                // Too much waits for that node: what is under way comes first.
                if let Some((_, waiting)) = conn.flying.pop_back() {
                    conn.flying_bytes -= waiting.size;
                    conn.queue.push_front(waiting);
                }
                return;
            }
        }
    }

    fn outcome(&mut self, id: &ConnId, number: u64, taken: Option<Bytes>) {
        let Some(conn) = self.conns.iter_mut().find(|conn| conn.id == *id) else { return };
        // Not one of those that it was handed before it was thought to be gone.
        let Some(at) = conn.flying.iter().position(|(own, _)| *own == number) else { return };
        let Some(answer) = taken else { return self.gone(id) };
        if let Some((_, waiting)) = conn.flying.remove(at) {
            conn.flying_bytes = conn.flying_bytes.saturating_sub(waiting.size);
            self.settled(&waiting);
            match crate::routing::stored::stanza(&answer) {
                Some(answer) => self.host.refuse(answer, waiting.inbound.receipt), // goes back the same way
                None => waiting.inbound.receipt.done(),                            // the component has it
            }
        }
        self.hand_out(id);
    }

    /// The stanza does not wait any more.
    fn settled(&mut self, waiting: &Waiting) {
        self.shares.went(&waiting.sender, waiting.size);
    }

    /// A connection is no more: what it was handed and has not confirmed goes to others, in order.
    fn gone(&mut self, id: &ConnId) {
        let Some(at) = self.conns.iter().position(|conn| conn.id == *id) else { return };
        let conn = self.conns.remove(at);
        self.balance.forget(conn.id.key());
        tracing::debug!(component = %self.name, waiting = conn.flying.len() + conn.queue.len(), "a component's connection has gone");
        if self.conns.is_empty() {
            self.absence = Absence::begin();
        }
        let mut again: VecDeque<Waiting> = conn.flying.into_iter().map(|(_, waiting)| waiting).collect();
        again.extend(conn.queue);
        if self.conns.is_empty() {
            // Their time begins now: until now they were on their way.
            again.iter_mut().for_each(|waiting| waiting.since = Instant::now());
            again.append(&mut self.homeless);
            self.homeless = again;
        } else {
            again.into_iter().for_each(|waiting| self.place(waiting));
        }
        self.go_on();
    }

    fn offered(&mut self, offer: Offer) {
        let Offer { conn: id, serving, users, gone, reply } = offer;
        if self.host.options().component(self.name.as_str()).is_none() {
            let _ = reply.send(0);
            return self.gone(&id);
        }
        let _ = reply.send(self.serving);
        if gone {
            return self.gone(&id);
        }
        let now = Instant::now();
        if let Some(conn) = self.conns.iter_mut().find(|conn| conn.id == id) {
            conn.heard = now;
        } else if serving == self.serving && !self.moved && self.leaving.is_none() {
            // The connection knows this home, so it has said which users it serves.
            self.balance.learn(id.key(), users.into_iter().map(UserKey));
            if self.conns.is_empty() && self.host.homes_change() && self.settling.is_none() {
                self.settling = Some(now + SETTLE);
                self.tick_in(SETTLE);
            }
            if self.conns.is_empty() {
                self.absence.end(&self.host, &self.name);
            }
            let (flying, queue) = (VecDeque::new(), VecDeque::new());
            self.conns.push(Conn { id, heard: now, flying, flying_bytes: 0, queue });
        }
        self.go_on();
    }

    fn tick_in(&self, delay: Duration) {
        let Some(me) = self.me.as_ref().map(Handle::downgrade) else { return };
        self.host.spawn(async move {
            tokio::time::sleep(delay).await;
            if let Some(me) = me.upgrade() {
                let _ = me.cast_always(Msg::Tick);
            }
        });
    }

    fn tick_soon(&mut self) {
        let waits = self.leaving.is_some() || self.absence.is_untold() || !self.untold.is_empty();
        let idle = self.conns.is_empty() && self.homeless.is_empty() && !waits;
        if self.moved || idle || std::mem::replace(&mut self.ticking, true) {
            return;
        }
        let Some(me) = self.me.as_ref().map(Handle::downgrade) else { return };
        self.host.wheel().after(TICK, move || {
            if let Some(me) = me.upgrade() {
                let _ = me.cast_always(Msg::Tick);
            }
        });
    }

    fn tick(&mut self) {
        self.ticking = false;
        let now = Instant::now();
        let gone =
            |conn: &&Conn| now.duration_since(conn.heard) > SILENCE || !self.host.has_node_of(&conn.id);
        let silent = self.conns.iter().filter(gone);
        let silent: Vec<ConnId> = silent.map(|conn| conn.id.clone()).collect();
        silent.iter().for_each(|id| self.gone(id));
        if self.conns.is_empty() {
            let wait = self.host.options().limits.component_wait;
            while self.homeless.front().is_some_and(|waiting| now.duration_since(waiting.since) >= wait)
                && let Some(waiting) = self.homeless.pop_front()
            {
                self.settled(&waiting);
                let Inbound { stanza, receipt, .. } = *waiting.inbound;
                self.host.bounce(&stanza, receipt, Condition::RemoteServerTimeout);
            }
            if !self.moved && self.leaving.is_none() {
                self.absence.look(&self.host, &self.name);
            }
        }
        let few = self.shares.all().stanzas <= self.host.options().limits.component_stanzas / 4;
        if few && !self.moved && !self.conns.is_empty() {
            self.untold.tell_some(&self.host);
        }
        self.go_on();
        self.leave_now();
    }
}

impl Actor for Component {
    type Msg = Msg;
    const QUEUE: u32 = 16_384;

    fn handle(&mut self, msg: Msg, me: &Handle<Self>) {
        if self.me.is_none() {
            self.me = Some(me.clone());
        }
        match msg {
            Msg::In(inbound) if self.moved => self.host.forward::<Self>(&self.name, *inbound),
            Msg::In(inbound) => self.take(inbound),
            Msg::Offer(offer) => self.offered(*offer),
            Msg::Outcome { conn, number, taken } => {
                self.outcome(&conn, number, taken);
                self.leave_now();
            }
            Msg::Tick => self.tick(),
            Msg::Leave(left) if self.moved => drop(left.send(())),
            Msg::Leave(left) => {
                self.leaving = Some((left, Instant::now()));
                self.leave_now();
                self.tick_soon();
            }
            Msg::Lose => self.give_up(),
            Msg::Nothing => self.tick_soon(),
        }
    }

    fn idle(&self) -> Idle {
        if self.moved {
            Idle::Leave
        } else if self.conns.is_empty() && self.homeless.is_empty() && self.leaving.is_none() {
            Idle::Passivate
        } else {
            Idle::Stay
        }
    }

    fn gone(&mut self) {
        self.me = None;
    }
}

impl PlacedActor for Component {
    const KIND: &'static str = super::KIND;
    const EVERY_PRESENCE: bool = true;

    fn new(host: &Host, name: &BareJid) -> Self {
        Self {
            host: host.clone(),
            name: name.clone(),
            me: None,
            serving: u64::from_le_bytes(host.seams().bytes()).max(1),
            conns: Vec::new(),
            handed: 0,
            balance: Balance::default(),
            homeless: VecDeque::new(),
            shares: Shares::default(),
            untold: Untold::default(),
            absence: Absence::begin(),
            settling: None,
            ticking: false,
            leaving: None,
            moved: false,
        }
    }

    fn inbound(inbound: Box<Inbound>) -> Msg {
        Msg::In(inbound)
    }

    fn outbound(msg: Msg) -> Option<Box<Inbound>> {
        if let Msg::In(inbound) = msg { Some(inbound) } else { None }
    }

    fn leave(left: oneshot::Sender<()>) -> Msg {
        Msg::Leave(left)
    }

    fn lose(_: Arc<LostShards>) -> Msg {
        Msg::Lose
    }

    fn wake() -> Msg {
        Msg::Nothing
    }

    fn wakes_for_presence(_: &Host, _: &BareJid) -> bool {
        true
    }

    fn restore<'a>(
        host: &'a Host,
        shard: Shard,
        _: &'a (dyn Fn() -> bool + Sync),
    ) -> Fut<'a, store::Result<u64>> {
        absence::restore(host, shard)
    }
}
