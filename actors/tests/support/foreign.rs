//! A foreign server in memory: the other end of links, without sockets.
#![allow(
    dead_code,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    missing_docs,
    unreachable_pub
)]

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rookery_actors::link::stream::{Dialer, Failure, LinkEnd, Managed, Next, Pair, Ready, Resumable};
use rookery_actors::{Host, Receipt};
use rookery_proto::xml::{Limits, Scope};
use rookery_proto::xmpp::error::Condition;
use rookery_proto::xmpp::jid::BareJid;
use rookery_proto::xmpp::stanza::{Stanza, Type};
use tokio::sync::watch;

/// Only how long a failing test hangs.
const PATIENCE: Duration = Duration::from_secs(60);

/// What the foreign server does.
#[derive(Clone, Debug)]
pub struct Ways {
    /// Why it cannot be reached, if it cannot.
    pub away: Option<Failure>,
    /// It counts (XEP-0198), and keeps streams.
    pub managed: bool,
    pub resumable: bool,
    /// It reads from the socket; what it reads is not lost; it says what it has.
    pub reads: bool,
    pub takes: bool,
    pub confirms: bool,
    /// It answers pings.
    pub answers: bool,
    pub max_bytes: Option<usize>,
}

impl Default for Ways {
    fn default() -> Self {
        Self {
            away: None,
            managed: true,
            resumable: true,
            reads: true,
            takes: true,
            confirms: true,
            answers: true,
            max_bytes: None,
        }
    }
}

pub fn not_there() -> Failure {
    Failure { condition: Condition::RemoteServerNotFound, permanent: true, text: "no such name".into() }
}

pub fn unreachable() -> Failure {
    Failure { condition: Condition::RemoteServerTimeout, permanent: false, text: "nobody answers".into() }
}

#[derive(Default)]
struct State {
    /// What it has got, in order.
    got: Vec<String>,
    /// How many stanzas it has got on each stream that it keeps.
    streams: HashMap<String, u32>,
    names: u32,
    dials: usize,
    resumed: usize,
    open: usize,
    closed: usize,
    /// Bytes read from sockets.
    read: usize,
}

pub struct Foreign {
    state: Mutex<State>,
    ways: watch::Sender<Ways>,
    /// Grows when all streams are cut.
    cuts: watch::Sender<u32>,
    changed: watch::Sender<u64>,
    /// To whom it answers.
    host: Mutex<Option<Host>>,
}

/// Hosts hold the foreign server through this.
pub struct Way(pub Arc<Foreign>);

impl Dialer for Way {
    fn dial(&self, pair: &Pair, resume: Option<Resumable>, end: LinkEnd) {
        let (foreign, pair) = (self.0.clone(), pair.clone());
        foreign.state.lock().unwrap().dials += 1;
        foreign.tell();
        tokio::spawn(foreign.serve(pair, resume, end));
    }
}

impl Foreign {
    pub fn new(ways: Ways) -> Arc<Self> {
        Arc::new(Self {
            state: Mutex::default(),
            ways: watch::Sender::new(ways),
            cuts: watch::Sender::new(0),
            changed: watch::Sender::new(0),
            host: Mutex::new(None),
        })
    }

    pub fn dialer(self: &Arc<Self>) -> Arc<dyn Dialer> {
        Arc::new(Way(self.clone()))
    }

    /// The host is told by this server what is pinged, and its links lead here.
    pub fn serves(self: &Arc<Self>, host: &Host) {
        *self.host.lock().unwrap() = Some(host.clone());
        host.set_dialer(self.dialer());
    }

    pub fn change(&self, change: impl FnOnce(&mut Ways)) {
        self.ways.send_modify(change);
    }

    /// All streams are lost.
    pub fn cut(&self) {
        self.cuts.send_modify(|cuts| *cuts += 1);
    }

    /// It forgets all streams: none can be resumed.
    pub fn forget(&self) {
        self.state.lock().unwrap().streams.clear();
    }

    /// It believes that it has got so many more on each stream.
    pub fn miscount(&self, by: u32) {
        self.state.lock().unwrap().streams.values_mut().for_each(|count| *count += by);
    }

    fn tell(&self) {
        self.changed.send_modify(|changed| *changed += 1);
    }

    fn look<T>(&self, look: impl FnOnce(&State) -> T) -> T {
        look(&self.state.lock().unwrap())
    }

    async fn until(&self, what: &str, mut done: impl FnMut(&State) -> bool) {
        let mut changed = self.changed.subscribe();
        let wait = async {
            while !self.look(&mut done) {
                changed.changed().await.unwrap();
            }
        };
        if tokio::time::timeout(PATIENCE, wait).await.is_err() {
            panic!("{what}; got {:#?}", self.look(|state| state.got.clone()));
        }
    }

    /// Everything that it has got, as soon as this is there.
    pub async fn got(&self, part: &str) -> Vec<String> {
        self.until(part, |state| state.got.iter().any(|got| got.contains(part))).await;
        self.look(|state| state.got.clone())
    }

    pub fn all(&self) -> Vec<String> {
        self.look(|state| state.got.clone())
    }

    pub fn dials(&self) -> usize {
        self.look(|state| state.dials)
    }

    pub fn resumed(&self) -> usize {
        self.look(|state| state.resumed)
    }

    pub async fn dialed(&self, times: usize) {
        self.until("not dialed", |state| state.dials >= times).await;
    }

    pub async fn opened(&self) {
        self.until("not opened", |state| state.open > 0).await;
    }

    pub async fn closed(&self, times: usize) {
        self.until("not closed", |state| state.closed >= times).await;
    }

    pub async fn read(&self, bytes: usize) {
        self.until("not read", |state| state.read >= bytes).await;
    }

    pub fn bytes_read(&self) -> usize {
        self.look(|state| state.read)
    }

    /// The bodies of what it has got: each message as often as it came.
    pub fn bodies(&self) -> Vec<String> {
        let body = |got: &String| Some(got.split("<body>").nth(1)?.split("</body>").next()?.to_owned());
        self.look(|state| state.got.iter().filter_map(body).collect())
    }

    async fn serve(self: Arc<Self>, pair: Pair, resume: Option<Resumable>, end: LinkEnd) {
        let mut ways = self.ways.subscribe();
        let mut cuts = self.cuts.subscribe();
        let first = ways.borrow_and_update().clone();
        cuts.borrow_and_update();
        if let Some(failure) = first.away {
            return end.failed(failure);
        }
        let (id, managed) = {
            let mut state = self.state.lock().unwrap();
            let known = resume.as_ref().and_then(|resume| {
                let h = *state.streams.get(&resume.id)?;
                Some((resume.id.clone(), h))
            });
            match known {
                Some((id, h)) if first.managed => {
                    state.resumed += 1;
                    (id, Managed::Resumed { h })
                }
                _ => {
                    state.names += 1;
                    let id = format!("stream{}", state.names);
                    state.streams.insert(id.clone(), 0);
                    let kept = first.resumable.then(|| id.clone());
                    let enabled = Managed::Enabled { id: kept, max: None, location: None, last: None };
                    (id, if first.managed { enabled } else { Managed::No })
                }
            }
        };
        self.state.lock().unwrap().open += 1;
        end.ready(Ready {
            managed,
            proof: "certificate",
            address: "192.0.2.7".into(),
            tls: "1.3",
            max_bytes: first.max_bytes,
        });
        self.tell();
        tokio::select! {
            closed = self.converse(&pair, &id, &end, &mut ways) => {
                let mut state = self.state.lock().unwrap();
                state.closed += usize::from(closed);
                if closed {
                    state.streams.remove(&id); // a stream that was closed in order is not kept
                }
            }
            _ = cuts.changed() => {}
        }
        self.state.lock().unwrap().open -= 1;
        drop(end);
        self.tell();
    }

    async fn converse(&self, pair: &Pair, id: &str, end: &LinkEnd, ways: &mut watch::Receiver<Ways>) -> bool {
        let mut out = Vec::new();
        loop {
            drop(ways.wait_for(|ways| ways.reads).await.unwrap());
            out.clear();
            match end.next(&mut out).await {
                Next::Write => {}
                Next::Close => return true,
                Next::Abandon => return false,
            }
            let now = ways.borrow_and_update().clone();
            self.state.lock().unwrap().read += out.len();
            self.tell();
            if !now.takes {
                continue; // lost on its way
            }
            for element in elements(std::str::from_utf8(&out).unwrap()) {
                if element.starts_with("<r ") {
                    let h = self.look(|state| state.streams.get(id).copied());
                    if let Some(h) = h.filter(|_| now.confirms) {
                        end.confirmed(h);
                    }
                    continue;
                }
                {
                    let mut state = self.state.lock().unwrap();
                    if let Some(h) = state.streams.get_mut(id) {
                        *h += 1;
                    }
                    if !element.contains("urn:xmpp:ping") {
                        state.got.push(element.clone());
                    }
                }
                if element.contains("urn:xmpp:ping") && now.answers {
                    self.pong(pair, &element);
                }
            }
            self.tell();
        }
    }

    fn pong(&self, pair: &Pair, ping: &str) {
        let ping = Stanza::parse(ping.as_bytes(), &Scope::CLIENT, &Limits::CLIENT).unwrap();
        let host = self.host.lock().unwrap().clone();
        if let Some(host) = host {
            host.from_remote(pair.remote(), ping.result(Vec::new()), Receipt::none(), None).unwrap();
        }
    }

    /// Sends a stanza to the host.
    pub fn send(&self, host: &Host, xml: &str) {
        let stanza = Stanza::parse(xml.as_bytes(), &Scope::CLIENT, &Limits::CLIENT).expect(xml);
        let domain = stanza.from.as_ref().unwrap().to_bare().to_domain();
        host.from_remote(&domain, stanza, Receipt::none(), None).unwrap();
    }
}

/// The elements of a stream, one after the other.
fn elements(text: &str) -> Vec<String> {
    let (mut all, mut depth, mut start, mut at) = (Vec::new(), 0i32, 0, 0);
    while let Some(open) = text[at..].find('<') {
        let open = at + open;
        let close = open + text[open..].find('>').unwrap();
        let tag = &text[open..=close];
        if depth == 0 {
            start = open;
        }
        if tag.starts_with("</") {
            depth -= 1;
        } else if !tag.ends_with("/>") {
            depth += 1;
        }
        at = close + 1;
        if depth == 0 {
            all.push(text[start..at].to_owned());
        }
    }
    assert_eq!(depth, 0, "elements are handed over whole: {text}");
    all
}

/// Whether a stanza is an error with this condition.
pub fn is_error(stanza: &str, condition: &str) -> bool {
    stanza.contains("type='error'") && stanza.contains(condition)
}

pub fn domain() -> BareJid {
    BareJid::parse("foreign.example").unwrap()
}

pub fn kind(stanza: &Stanza) -> &'static str {
    match stanza.type_ {
        Type::Message(_) => "message",
        Type::Presence(_) => "presence",
        Type::Iq(_) => "iq",
    }
}
