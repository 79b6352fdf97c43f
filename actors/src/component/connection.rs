//! A component's connection on the node that has its socket: what is to be written, what was written and is not confirmed, and the users that
//! the connection serves. What the socket brings goes to [`send`](super::send).

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::Mutex;
use rookery_proto::xml::write;
use rookery_proto::xmpp::error::Condition;
use rookery_proto::xmpp::jid::BareJid;
use rookery_proto::xmpp::ns;
use rookery_proto::xmpp::stanza::{IqType, Stanza, Type};
use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until, timeout_at};

use super::balance::{USERS, UserKey};
use super::send::Sent;
use crate::connection::reply::Reply;
use crate::features::xep_0355_delegation::is_servers_own;
use crate::host::Host;
use crate::runtime::origin::{Origin, OriginName};

/// What one turn of [`ComponentLink::next`] writes at most, bytes, but for the last stanza.
const BATCH: usize = 64 << 10;
/// A ping is written when so many stanzas are not confirmed …
const UNCONFIRMED: usize = 32;
/// … or this long after the ping before.
const PACE: Duration = Duration::from_millis(100);
/// A component that says other things for so long, and does not answer a ping, answers none.
const DEAF: Duration = Duration::from_secs(5);
/// How long a component has to answer the server.
const ANSWER: Duration = Duration::from_secs(30);
/// With so many stanzas that wait to be written, what breaks rules is not answered.
const ANSWERS: usize = 1_024;
/// Stanzas that are known should they come again, after a home has died.
const SEEN: usize = 2_048;

/// How long a silent component is waited for.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// After this silence the component is asked whether it is there.
    pub idle: Duration,
    /// So long it has to answer.
    pub answer: Duration,
}

/// Why a component's stream ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum End {
    /// The component is not configured any more, or its secret is another.
    NotAuthorized,
    /// The component did not answer in time.
    Silent,
}

struct Item {
    /// `None`: it was written before.
    stanza: Option<Arc<Stanza>>,
    reply: Reply,
}

/// A request of the server itself, which the component is to answer.
struct Question {
    request: Arc<Stanza>,
    until: Instant,
    reply: Reply,
}

#[derive(Default)]
struct State {
    outbox: VecDeque<Item>,
    /// Written, in order; the first are covered by the ping that is under way.
    unconfirmed: VecDeque<Reply>,
    /// Requests of the server itself that were written, by id.
    questions: HashMap<String, Question>,
    /// The id of the ping under way, how many it covers, when it was written.
    ping: Option<(String, usize, Instant)>,
    pings: u64,
    last_ping: Option<Instant>,
    /// The component does not answer pings.
    deaf: bool,
    users: HashSet<UserKey>,
    seen: HashSet<(OriginName, u32)>,
    seen_order: VecDeque<(OriginName, u32)>,
    heard: Option<Instant>,
    end: Option<End>,
    closed: bool,
}

impl State {
    /// Whether the stanza came before; it is known from now on.
    fn came_before(&mut self, origin: Option<Origin>) -> bool {
        let Some(key) = origin.map(|origin| (origin.name, origin.number)) else { return false };
        if !self.seen.insert(key) {
            return true;
        }
        self.seen_order.push_back(key);
        if self.seen_order.len() > SEEN
            && let Some(oldest) = self.seen_order.pop_front()
        {
            self.seen.remove(&oldest);
        }
        false
    }
}

/// A connection of a component.
pub(crate) struct Conn {
    pub(super) host: Host,
    pub(super) component: BareJid,
    pub(super) number: u64,
    pub(super) address: Arc<str>,
    pub(super) since: u64,
    pub(super) secured: bool,
    /// From where pings come: a domain of users.
    server: BareJid,
    patience: Patience,
    state: Mutex<State>,
    wake: Notify,
    pub(super) sent: Sent,
    /// The home that knows this connection.
    pub(super) serving: Mutex<u64>,
    pub(super) over: AtomicBool,
    pub(super) over_now: Notify,
}

impl Conn {
    pub(super) fn new(
        host: &Host,
        component: &BareJid,
        number: u64,
        address: Arc<str>,
        secured: bool,
        patience: Patience,
    ) -> Arc<Self> {
        let options = host.options();
        let own = options.component(component.as_str()).and_then(|own| own.domains.first().cloned());
        let first = own.or_else(|| options.domains.first().map(|domain| domain.name.clone()));
        let server = first.and_then(|name| BareJid::parse(&name).ok()).unwrap_or_else(|| component.clone());
        Arc::new(Self {
            host: host.clone(),
            component: component.clone(),
            number,
            address,
            since: host.seams().clock.now_micros(),
            secured,
            server,
            patience,
            state: Mutex::new(State { heard: Some(Instant::now()), ..State::default() }),
            wake: Notify::new(),
            sent: Sent::new(host),
            serving: Mutex::new(0),
            over: AtomicBool::new(false),
            over_now: Notify::new(),
        })
    }

    /// A stanza for the component, from its home.
    pub(super) fn take(&self, stanza: Arc<Stanza>, origin: Option<Origin>, reply: Reply) {
        let mut state = self.state.lock();
        if state.closed {
            drop(state);
            return reply.not_here(0, None);
        }
        if let Some(from) = stanza.from.as_ref().filter(|_| state.users.len() < USERS) {
            state.users.insert(UserKey::of(from));
        }
        let stanza = (!state.came_before(origin)).then_some(stanza);
        state.outbox.push_back(Item { stanza, reply });
        drop(state);
        self.wake.notify_one();
    }

    /// An answer to something that the component has sent against the rules. One that does not read gets no more of them.
    pub(super) fn answer(&self, stanza: Arc<Stanza>) {
        let full = self.state.lock().outbox.len() >= ANSWERS;
        if full {
            metrics::counter!("rookery_limits_hit_total", "limit" => "component_answers").increment(1);
        } else {
            self.take(stanza, None, Reply::here(drop));
        }
    }

    /// Those users whose stanzas came.
    pub(super) fn users(&self) -> Vec<u64> {
        self.state.lock().users.iter().map(|user| user.0).collect()
    }

    /// Ends the stream.
    pub(super) fn end(&self, end: End) {
        self.state.lock().end.get_or_insert(end);
        self.wake.notify_one();
    }

    /// The socket is gone: what the component has not confirmed goes elsewhere.
    fn close(&self) {
        let (outbox, unconfirmed, questions) = {
            let mut state = self.state.lock();
            state.closed = true;
            let State { outbox, unconfirmed, questions, .. } = &mut *state;
            (std::mem::take(outbox), std::mem::take(unconfirmed), std::mem::take(questions))
        };
        self.over.store(true, Ordering::Release);
        self.over_now.notify_one();
        let questions = questions.into_values().map(|question| question.reply);
        let replies = questions.chain(unconfirmed).chain(outbox.into_iter().map(|item| item.reply));
        replies.for_each(|reply| reply.not_here(0, None));
    }

    /// Whether it is the answer to the ping under way; if so, what the ping covers is confirmed.
    pub(super) fn answers_ping(&self, stanza: &Stanza) -> bool {
        if !matches!(stanza.type_, Type::Iq(IqType::Result | IqType::Error)) {
            return false;
        }
        let to = stanza.to.as_ref().is_some_and(|to| to.as_str() == self.server.as_str());
        let mut state = self.state.lock();
        let covered = match (&state.ping, &stanza.id) {
            (Some((id, covered, _)), Some(own)) if to && id.as_str() == own.as_str() => *covered,
            _ => return false,
        };
        state.ping = None;
        state.deaf = false;
        let confirmed: Vec<Reply> = drain(&mut state.unconfirmed, covered);
        let more = !state.unconfirmed.is_empty();
        drop(state);
        confirmed.into_iter().for_each(Reply::taken);
        if more {
            self.wake.notify_one();
        }
        true
    }

    /// Whether it is the answer to a request of the server itself, which gets it.
    pub(super) fn answers_server(&self, stanza: &Stanza) -> bool {
        let Type::Iq(IqType::Result | IqType::Error) = stanza.type_ else { return false };
        let Some(id) = stanza.id.as_deref() else { return false };
        let mut state = self.state.lock();
        if state.questions.get(id).is_none_or(|question| question.request.from != stanza.to) {
            return false;
        }
        let question = state.questions.remove(id);
        drop(state);
        if let Some(question) = question {
            question.reply.answer(stanza.to_bytes().into());
        }
        true
    }

    /// The component has said something.
    pub(super) fn heard(&self) {
        self.state.lock().heard = Some(Instant::now());
    }

    /// Writes what there is; until when to wait for more if there is nothing; or why it is over.
    fn write(&self, out: &mut Vec<u8>) -> Result<Instant, End> {
        let now = Instant::now();
        let mut done = Vec::new();
        let mut state = self.state.lock();
        if let Some(end) = state.end {
            return Err(end);
        }
        let mut count = 0u64;
        while out.len() < BATCH
            && let Some(item) = state.outbox.pop_front()
        {
            if let Some(stanza) = &item.stanza {
                stanza.write(out);
                count += 1;
            }
            if let Some(request) = item.stanza.filter(|stanza| is_servers_own(&self.host, stanza))
                && let Some(id) = request.id.as_deref().map(str::to_owned)
            {
                state.questions.insert(id, Question { request, until: now + ANSWER, reply: item.reply });
                continue;
            }
            if state.deaf { done.push(item.reply) } else { state.unconfirmed.push_back(item.reply) }
        }
        let speaks = |asked| state.heard.is_some_and(|heard| heard > asked);
        if let Some((_, _, asked)) = state.ping
            && now
                >= asked + if speaks(asked) { DEAF.min(self.patience.answer) } else { self.patience.answer }
        {
            if !speaks(asked) {
                return Err(End::Silent);
            }
            // The component is there, and answers no pings: what was written counts as taken.
            if !std::mem::replace(&mut state.deaf, true) {
                tracing::info!(component = %self.component, "the component does not answer pings (XEP-0199): stanzas that it was sent count as delivered when they are written");
            }
            state.ping = None;
            done.extend(state.unconfirmed.drain(..));
        }
        let late: Vec<String> =
            state.questions.iter().filter(|(_, q)| q.until <= now).map(|(id, _)| id.clone()).collect();
        let late: Vec<Question> = late.iter().filter_map(|id| state.questions.remove(id)).collect();
        let pace = state.last_ping.map_or(now, |last| last + PACE);
        let waiting = state.unconfirmed.len();
        let idle = state.heard.max(state.last_ping).unwrap_or(now) + self.patience.idle;
        let due = waiting > 0 && (waiting >= UNCONFIRMED || pace <= now) || (now >= idle && !state.deaf);
        if state.ping.is_none() && due {
            state.pings += 1;
            let id = format!("confirm-{}", state.pings);
            ping(&id, &self.server, &self.component).write(out);
            (state.ping, state.last_ping) = (Some((id, waiting, now)), Some(now));
        }
        let until = match &state.ping {
            // Looked at earlier than need be: meanwhile the component may have said something.
            Some((_, _, asked)) if now < *asked + DEAF => *asked + DEAF.min(self.patience.answer),
            Some((_, _, asked)) => (now + DEAF).min(*asked + self.patience.answer),
            None if waiting > 0 => pace,
            None if state.deaf => now + self.patience.idle,
            None => idle,
        };
        let until = state.questions.values().map(|question| question.until).fold(until, Instant::min);
        drop(state);
        for Question { request, reply, .. } in late {
            let error = request.error_reply(&Condition::RemoteServerTimeout.into());
            reply.answer(error.map(|error| error.to_bytes().into()).unwrap_or_default());
        }
        done.into_iter().for_each(Reply::taken);
        if count > 0 {
            let name = self.component.as_str().to_owned();
            metrics::counter!("rookery_component_stanzas_total", "component" => name, "direction" => "to")
                .increment(count);
        }
        Ok(until)
    }
}

fn drain(queue: &mut VecDeque<Reply>, count: usize) -> Vec<Reply> {
    let count = count.min(queue.len());
    queue.drain(..count).collect()
}

fn ping(id: &str, from: &BareJid, to: &BareJid) -> Stanza {
    let payload = write::bytes(|w| {
        w.empty("ping", ns::PING);
    });
    Stanza::new(Type::Iq(IqType::Get)).id(id).from(from).to(to).payload(payload)
}

/// What a connection holds of its component. When this is dropped, the connection has ended.
pub struct ComponentLink(pub(super) Arc<Conn>);

impl ComponentLink {
    /// The component's name.
    pub fn component(&self) -> &BareJid {
        &self.0.component
    }

    /// Appends whole stanzas to `out`, as they stand in a stream of `jabber:component:accept`: at most about 64 KiB. Waits until there
    /// is something. Cancel safe: nothing is taken until it is appended.
    ///
    /// # Errors
    /// Why the stream must end.
    pub async fn next(&self, out: &mut Vec<u8>) -> Result<(), End> {
        loop {
            let woken = self.0.wake.notified();
            let until = self.0.write(out)?;
            if !out.is_empty() {
                return Ok(());
            }
            let _ = timeout_at(until, woken).await;
        }
    }

    /// Waits until more may be read: what was read before is handed on.
    pub async fn room(&self) {
        self.0.sent.room().await;
    }
}

impl Drop for ComponentLink {
    fn drop(&mut self) {
        self.0.close();
        self.0.host.forget_component_connection(&self.0);
    }
}

/// Until `over`, or `until`.
pub(super) async fn pause(conn: &Weak<Conn>, until: Instant) {
    let Some(conn) = conn.upgrade() else { return };
    tokio::select! {
        () = conn.over_now.notified() => {}
        () = sleep_until(until) => {}
    }
}
