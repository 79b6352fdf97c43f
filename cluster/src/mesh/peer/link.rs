//! The way to one node: connects when there is something to send, sends what waits, tells outcomes, connects again.
//!
//! Length: connecting, sending and hearing outcomes are one loop over one outbox.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use parking_lot::Mutex;
use rookery_rpc::mesh::v1 as wire;
use rookery_rpc::mesh::v1::mesh_client::MeshClient;
use rookery_rpc::mesh::v1::refusal::Reason;
use tokio::sync::{Notify, oneshot, watch};
use tokio::time::{Instant, timeout};
use tokio_stream::Stream;

use super::connect::{Error, connect};
use super::envelope::{Envelope, MESSAGE_MAX, Outcome, Refused, Why};
use super::hello::{self, No};
use super::meters::ToPeer;
use super::node::NodeId;
use super::options::Limit;
use super::outbox::{Level, Next, Outbox, Settled};
use super::shared::Shared;

/// See the module.
pub(super) struct Link {
    pub(super) node: NodeId,
    numbering: u64,
    shared: Arc<Shared>,
    outbox: Mutex<Outbox>,
    meters: ToPeer,
    /// Whether a stream is up and greeted, counted so that a new one is seen as a change.
    up: watch::Sender<Option<u64>>,
    /// A connection is wanted.
    wanted: Notify,
    /// … and now, whatever happened before.
    hurry: Notify,
    /// The stream has to end.
    kick: Notify,
    /// Room in the outbox.
    room: Notify,
    stop: watch::Sender<bool>,
    questions: Mutex<BTreeMap<u64, oneshot::Sender<bool>>>,
    question: AtomicU64,
    trouble: Mutex<Option<String>>,
}

impl Link {
    pub(super) fn start(node: NodeId, numbering: u64, shared: Arc<Shared>) -> Arc<Self> {
        let link = Arc::new(Self {
            meters: ToPeer::new(&node),
            node,
            numbering,
            outbox: Mutex::new(Outbox::new(&shared.options)),
            shared,
            up: watch::Sender::new(None),
            wanted: Notify::new(),
            hurry: Notify::new(),
            kick: Notify::new(),
            room: Notify::new(),
            stop: watch::Sender::new(false),
            questions: Mutex::new(BTreeMap::new()),
            question: AtomicU64::new(1),
            trouble: Mutex::new(None),
        });
        tokio::spawn(Arc::clone(&link).run());
        link
    }

    pub(super) fn send<F>(&self, envelope: Envelope, on_outcome: F) -> Result<(), Refused<F>>
    where
        F: FnOnce(Outcome) + Send + 'static,
    {
        let mut outbox = self.outbox.lock();
        let accepted = outbox.push(envelope, on_outcome);
        let level = outbox.level();
        drop(outbox);
        match accepted {
            Ok(Some(waker)) => waker.wake(),
            Ok(None) if level.waiting == 1 && self.up.borrow().is_none() => self.wanted.notify_one(),
            Ok(None) => {}
            Err(refused) => {
                if refused.why == Why::Full {
                    self.meters.full();
                    self.meters.level(level);
                }
                return Err(refused);
            }
        }
        Ok(())
    }

    /// Waits until an envelope of that size would be accepted, or the link is closed.
    pub(super) async fn room(&self, size: usize) {
        loop {
            let mut notified = std::pin::pin!(self.room.notified());
            notified.as_mut().enable();
            {
                let mut outbox = self.outbox.lock();
                if *self.stop.borrow() || outbox.has_room(size) {
                    return;
                }
                outbox.was_full = true;
            }
            notified.await;
        }
    }

    pub(super) fn level(&self) -> Level {
        self.outbox.lock().level()
    }

    pub(super) fn generation(&self) -> Option<u64> {
        self.outbox.lock().generation
    }

    pub(super) fn is_up(&self) -> bool {
        self.up.borrow().is_some()
    }

    pub(super) fn trouble(&self) -> Option<String> {
        self.trouble.lock().clone()
    }

    /// A generation is dead: what it had is lost, and nothing is sent to it.
    pub(super) fn bury(&self, generation: u64) {
        let mut outbox = self.outbox.lock();
        if outbox.generation.is_some_and(|known| known > generation) {
            return;
        }
        let settled = outbox.bury();
        drop(outbox);
        self.kick.notify_one();
        self.tell(settled);
    }

    /// Everything that waits is lost, nothing more is accepted, the stream ends.
    pub(super) fn close(&self) {
        let settled = self.outbox.lock().close();
        self.stop.send_replace(true);
        self.room.notify_waiters();
        self.tell(settled);
    }

    /// What the node answers, on this very channel: whether it is well. Waits for as long as it takes.
    pub(super) async fn ping(&self) -> bool {
        self.ask(|outbox, number| outbox.ping(number)).await
    }

    /// Whether the node says that it reaches `node`.
    pub(super) async fn probe(&self, node: &NodeId, within: Duration) -> bool {
        let timeout_millis = u32::try_from(within.as_millis()).unwrap_or(u32::MAX);
        let node = node.as_str();
        self.ask(|outbox, number| outbox.probe(wire::Probe { number, node: node.to_owned(), timeout_millis }))
            .await
    }

    /// Asks, on each new stream again, until there is an answer.
    async fn ask(&self, mut ask: impl FnMut(&mut Outbox, u64) -> (bool, Option<std::task::Waker>)) -> bool {
        let mut up = self.up.subscribe();
        loop {
            if up.borrow().is_none() {
                self.wanted.notify_one();
                self.hurry.notify_one();
            }
            if up.wait_for(Option::is_some).await.is_err() {
                return false;
            }
            let number = self.question.fetch_add(1, Ordering::Relaxed);
            let (answer, answered) = oneshot::channel();
            self.questions.lock().insert(number, answer);
            let _forget = Forget(self, number);
            let (sent, waker) = ask(&mut self.outbox.lock(), number);
            if let Some(waker) = waker {
                waker.wake();
            }
            if sent && let Ok(answer) = answered.await {
                return answer;
            }
            tokio::task::yield_now().await; // the stream broke; `up` is about to say so
        }
    }

    fn tell(&self, settled: Settled) {
        for (on_outcome, outcome) in settled {
            self.meters.settled(&outcome);
            on_outcome(outcome);
        }
        let mut outbox = self.outbox.lock();
        let level = outbox.level();
        let was_full = std::mem::take(&mut outbox.was_full);
        drop(outbox);
        self.meters.level(level);
        if was_full {
            self.room.notify_waiters();
        }
    }

    async fn run(self: Arc<Self>) {
        let mut stop = self.stop.subscribe();
        tokio::select! {
            _ = stop.wait_for(|stop| *stop) => {}
            () = self.connect_for_ever() => {}
        }
        self.down();
    }

    async fn connect_for_ever(&self) {
        let options = &self.shared.options;
        let mut wait = options.backoff;
        let mut down_since = None;
        loop {
            if !self.outbox.lock().has_work() {
                self.wanted.notified().await;
            }
            let Err(error) = self.connect_once(&mut wait, &mut down_since).await;
            self.down();
            let refused = matches!(error, Error::Refused(_) | Error::Dead(_));
            self.meters.failed(refused || matches!(error, Error::Over(_)));
            let text = error.to_string();
            let news = self.trouble.lock().replace(text.clone()).as_ref() != Some(&text);
            if refused && news {
                tracing::warn!(peer = %self.node, error = text, "mesh: no connection to the node");
            } else {
                tracing::debug!(peer = %self.node, error = text, "mesh: no connection to the node");
            }
            let since = *down_since.get_or_insert_with(Instant::now);
            if since.elapsed() >= options.patience {
                let settled = self.outbox.lock().lose();
                self.tell(settled);
            }
            tokio::select! {
                () = tokio::time::sleep(self.jittered(wait)) => {}
                () = self.hurry.notified() => {}
            }
            wait = (wait * 2).min(options.backoff_max);
        }
    }

    /// Between the half and the whole of it, so that nodes do not come all at once.
    fn jittered(&self, wait: Duration) -> Duration {
        let [a, b] = self.shared.seams.bytes::<2>();
        wait / 2 + (wait / 2).mul_f64(f64::from(u16::from_le_bytes([a, b])) / f64::from(u16::MAX))
    }

    fn down(&self) {
        let waker = self.outbox.lock().detach();
        if let Some(waker) = waker {
            waker.wake();
        }
        self.up.send_replace(None);
        self.questions.lock().clear();
        self.meters.disconnected();
    }

    async fn connect_once(
        &self,
        wait: &mut Duration,
        down_since: &mut Option<Instant>,
    ) -> Result<std::convert::Infallible, Error> {
        let options = &self.shared.options;
        let address = self.shared.addresses.address(&self.node).ok_or(Error::NoAddress)?;
        let broken = |status: tonic::Status| match hello::refused(&status) {
            Some(No(Reason::Generation, text)) => Error::Over(text),
            Some(No(_, text)) => Error::Refused(text),
            None => Error::Broken(status.message().to_owned()),
        };
        let channel = connect(&self.shared, &self.node, &address).await?;
        let mut client = MeshClient::new(channel)
            .max_decoding_message_size(MESSAGE_MAX)
            .max_encoding_message_size(MESSAGE_MAX);
        let (stream, seen) = {
            let mut outbox = self.outbox.lock();
            (outbox.attach(), outbox.seen())
        };
        let forth = Outgoing {
            link: self.shared.link(&self.node),
            stream,
            hello: Some(self.shared.me.call(&self.node, self.numbering, seen)),
            waited: false,
            stalled: false,
        };
        let greeted = timeout(options.connect, async {
            let mut back = client.carry(forth).await.map_err(broken)?.into_inner();
            let first = back.message().await.map_err(broken)?;
            Ok::<_, Error>((first, back))
        });
        let (first, mut back) = greeted.await.map_err(|_| Error::Late("the greeting"))??;
        let hello = first.and_then(|first| first.hello).ok_or(Error::Rules("no greeting"))?;
        self.greeted(&hello)?;
        *wait = options.backoff;
        *down_since = None;
        *self.trouble.lock() = None;
        self.meters.connected();
        self.up.send_replace(Some(stream));
        loop {
            let message = tokio::select! {
                message = back.message() => message,
                () = self.kick.notified() => match self.generation() {
                    None => return Err(Error::Broken("the node is dead".into())),
                    // Meant for a generation before.
                    Some(_) => continue,
                },
            };
            match message {
                Ok(Some(back)) => self.settle(back)?,
                Ok(None) => return Err(Error::Broken("closed by the peer".into())),
                Err(status) => return Err(broken(status)),
            }
        }
    }

    fn greeted(&self, hello: &wire::Hello) -> Result<(), Error> {
        let other = hello::from_called(&self.shared.me, &self.node, hello)
            .map_err(|No(_, text)| Error::Refused(text))?;
        if self.shared.is_dead(&self.node, other.generation) {
            return Err(Error::Dead(other.generation));
        }
        let window = Limit {
            envelopes: usize::try_from(hello.window_envelopes).unwrap_or(usize::MAX),
            bytes: usize::try_from(hello.window_bytes).unwrap_or(usize::MAX),
        };
        let mut outbox = self.outbox.lock();
        if outbox.generation.is_some_and(|known| known > other.generation) {
            return Err(Error::Dead(other.generation));
        }
        let (settled, waker) =
            outbox.greet(other.generation, hello.resumed, hello.taken_to, window).map_err(Error::Rules)?;
        drop(outbox);
        tracing::info!(
            peer = %self.node, generation = other.generation, software = other.software,
            resumed = hello.resumed, "mesh: connected"
        );
        if let Some(waker) = waker {
            waker.wake();
        }
        self.tell(settled);
        Ok(())
    }

    fn settle(&self, mut back: wire::Back) -> Result<(), Error> {
        let answers = back.pongs.drain(..).map(|number| (number, true));
        let answers = answers.chain(back.unwell.drain(..).map(|number| (number, false)));
        let answers: Vec<_> =
            answers.chain(back.probed.drain(..).map(|probed| (probed.number, probed.reached))).collect();
        if !answers.is_empty() {
            let mut questions = self.questions.lock();
            for (number, answer) in answers {
                if let Some(asked) = questions.remove(&number) {
                    let _ = asked.send(answer);
                }
            }
        }
        let (settled, waker) = self.outbox.lock().settle(back).map_err(Error::Rules)?;
        if let Some(waker) = waker {
            waker.wake();
        }
        self.tell(settled);
        Ok(())
    }
}

/// Takes a question back when nobody waits for its answer.
struct Forget<'a>(&'a Link, u64);

impl Drop for Forget<'_> {
    fn drop(&mut self) {
        self.0.questions.lock().remove(&self.1);
    }
}

/// What goes to the peer: made when HTTP/2 has room for it, from what waits then.
struct Outgoing {
    link: Option<Arc<Link>>,
    stream: u64,
    hello: Option<wire::Hello>,
    waited: bool,
    stalled: bool,
}

impl Stream for Outgoing {
    type Item = wire::Forth;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<wire::Forth>> {
        let this = &mut *self;
        if let Some(hello) = this.hello.take() {
            return Poll::Ready(Some(wire::Forth { hello: Some(hello), ..wire::Forth::default() }));
        }
        let Some(link) = &this.link else { return Poll::Ready(None) };
        // The code that woke this task may have more: let it go on before the message is made.
        if !std::mem::replace(&mut this.waited, true) {
            context.waker().wake_by_ref();
            return Poll::Pending;
        }
        let mut outbox = link.outbox.lock();
        let next = outbox.next(this.stream, context.waker());
        let (level, stalled) = (outbox.level(), outbox.is_stalled());
        drop(outbox);
        if stalled && !this.stalled {
            link.meters.stalled();
        }
        this.stalled = stalled;
        match next {
            Next::Message((forth, load)) => {
                link.meters.sent(load);
                link.meters.level(level);
                Poll::Ready(Some(forth))
            }
            Next::Nothing | Next::Later => {
                this.waited = false;
                Poll::Pending
            }
            Next::Over => Poll::Ready(None),
        }
    }
}
