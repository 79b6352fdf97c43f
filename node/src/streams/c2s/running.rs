//! The running loop: a connection with a session. One small task; everything happens in its `poll`.
//!
//! The order of a turn: what waits in the pipe is written with one write and one flush; then what the socket has is
//! read, framed and handed up, until it has no more; then the only timer is looked at, which is re-armed as rarely as
//! possible: not for each message, but when it fires and finds that its time has moved.

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};

use rookery_actors::{Charged, Pipe, SessionHandle};
use rookery_proto::xml::{Scope, Text};
use rookery_proto::xmpp::error::{StreamCondition, StreamError};
use tokio::time::{Instant, Sleep, sleep_until};

use super::negotiate::Bound;
use super::{End, Settings, Shared, closing};
use crate::net::Pass;
use crate::streams::acks::Acks;
use crate::streams::rate::Meter;
use crate::transport::{Carrier, Frames as _};

/// How many stanzas of one client may be on their way to being settled; then its socket is not read.
pub(super) const WINDOW: usize = 256;

/// Where stream management (XEP-0198) stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Sm {
    Off,
    /// Asked for; `early`: an `<r/>` came before `<enabled/>` went out.
    Asked {
        early: bool,
    },
    On,
}

/// A connection at work.
pub(super) struct Running<W: Carrier> {
    pub(super) wire: W,
    pub(super) shared: Arc<Shared>,
    pub(super) settings: Arc<Settings>,
    pub(super) link: SessionHandle,
    pub(super) pipe: Arc<Pipe>,
    pub(super) sm: Sm,
    pub(super) acks: Acks,
    // What comes in.
    pub(super) framer: W::Frames,
    pub(super) scope: Scope,
    pub(super) lang: Option<Text>,
    pub(super) tail: Vec<u8>,
    /// Whether the tail may hold complete frames that had to wait.
    pub(super) held: bool,
    pub(super) meter: Arc<Meter>,
    pub(super) paused: Option<Instant>,
    /// When the client was last heard of.
    pub(super) heard: Instant,
    /// When it was asked whether it is there.
    probed: Option<Instant>,
    // What goes out.
    pub(super) pending: Vec<u8>,
    pub(super) written: usize,
    /// What of that is charged to the session.
    pub(super) charged: Vec<Charged>,
    pub(super) flushing: bool,
    /// Since when the socket takes nothing.
    pub(super) stalled: Option<Instant>,
    /// What the connection itself has to say.
    pub(super) own: Vec<u8>,
    /// Whether the pipe may hold something.
    pub(super) look: bool,
    /// The last [`Down::Mark`] that is not reported yet.
    pub(super) mark: Option<u64>,
    /// How it ends, once everything before is written.
    pub(super) end: Option<End>,
    /// The client has closed its stream, or the session has ended it: by when it is over, whatever is not written then.
    pub(super) closing: Option<Instant>,
    /// The client has closed its stream, and all that it asked is settled: the session was told so.
    pub(super) finished: bool,
}

/// What a connection may have to say itself while its client does not read; then the client is not listened to either.
const OWN: usize = 4 * 1024;

/// Runs a bound connection to its end. Everything large is boxed and moved once: a future keeps a place for each move of
/// a value across its awaits, and this one's size is what an idle connection costs.
pub(super) fn run<W: Carrier>(bound: Bound<W>) -> impl Future<Output = ()> + Send {
    let place = bound.shared.clients.enter(&bound.pipe);
    let (running, pass) = Running::new(bound);
    let running = Box::new(running);
    async move {
        running.run().await;
        drop((place, pass));
    }
}

impl<W: Carrier> Running<W> {
    fn new(bound: Bound<W>) -> (Self, Pass) {
        let Bound { shared, settings, wire, link, pipe, resumed, framer, tail, scope, lang, pass } = bound;
        let now = Instant::now();
        let acks = Acks::new(link.ledger().received());
        let meter = shared.rates.account(&link.jid().to_bare());
        let running = Self {
            wire,
            shared,
            settings,
            link,
            pipe,
            sm: if resumed { Sm::On } else { Sm::Off },
            acks,
            framer,
            scope,
            lang,
            held: !tail.is_empty(),
            tail,
            meter,
            paused: None,
            heard: now,
            probed: None,
            pending: Vec::new(),
            written: 0,
            charged: Vec::new(),
            flushing: false,
            stalled: None,
            own: Vec::new(),
            look: true,
            mark: None,
            end: None,
            closing: None,
            finished: false,
        };
        (running, pass)
    }

    async fn run(mut self: Box<Self>) {
        let end = self.work().await;
        let (clean, why) = match &end {
            End::Closed => (true, "closed by the client"),
            End::Lost => (false, "lost"),
            End::Error { error, resumable } => (!resumable, error.condition.name()),
            // The session has closed it, and knows what it is itself.
            End::Clean => (false, "closed by the session"),
            End::Abandon => (false, "the session is elsewhere"),
        };
        tracing::debug!(jid = %self.link.jid(), why, "connection ended");
        Box::pin(self.finish(end, clean)).await;
    }

    async fn finish(self: Box<Self>, end: End, clean: bool) {
        let Self { mut wire, link, pipe, mut pending, written, own, settings, .. } = *self;
        pipe.close();
        link.closed(clean);
        pending.drain(..written.min(pending.len()));
        pending.extend_from_slice(&own);
        closing::close(&mut wire, pending, end, true, settings.limits.close).await;
    }

    async fn work(&mut self) -> End {
        let pipe = self.pipe.clone();
        let mut timer = pin!(sleep_until(self.deadline()));
        loop {
            let mut ready = pin!(pipe.ready());
            let turn = poll_fn(|cx| self.poll(cx, ready.as_mut(), timer.as_mut()));
            if let Some(end) = turn.await {
                return end;
            }
        }
    }

    /// One turn; `None` when the pipe was woken.
    fn poll(
        &mut self,
        cx: &mut Context<'_>,
        mut ready: Pin<&mut impl Future<Output = ()>>,
        mut timer: Pin<&mut Sleep>,
    ) -> Poll<Option<End>> {
        let mut now = Instant::now();
        loop {
            if let Err(end) = self.pump(cx, now) {
                return Poll::Ready(Some(end));
            }
            if ready.as_mut().poll(cx).is_ready() {
                self.look = true;
                return Poll::Ready(None);
            }
            if self.may_read(now) {
                match self.poll_in(cx, now) {
                    Poll::Ready(Ok(())) => {
                        now = Instant::now();
                        continue;
                    }
                    Poll::Ready(Err(end)) => return Poll::Ready(Some(end)),
                    Poll::Pending => {}
                }
            }
            let deadline = self.deadline();
            if deadline < timer.deadline() || timer.is_elapsed() {
                timer.as_mut().reset(deadline);
            }
            if timer.as_mut().poll(cx).is_pending() {
                return Poll::Pending;
            }
            now = Instant::now();
            if let Err(end) = self.time(now) {
                return Poll::Ready(Some(end));
            }
        }
    }

    /// Whether the client may send more now.
    fn may_read(&mut self, now: Instant) -> bool {
        if self.end.is_some() || self.closing.is_some() || self.own.len() > OWN {
            return false;
        }
        if self.paused.is_some_and(|until| until > now) {
            return false;
        }
        // What another connection of the account has sent counts as well.
        self.paused = self.meter.due(now, &self.settings.rates);
        if self.paused.is_some() {
            return false;
        }
        let ledger = self.link.ledger();
        if ledger.open() < WINDOW {
            return true;
        }
        // Looked at twice, since what was settled in between wakes nobody.
        ledger.wait(&self.pipe);
        let free = ledger.open() < WINDOW;
        if !free {
            self.heard = now; // it is we who do not listen
        }
        free
    }

    /// When something is due next.
    fn deadline(&self) -> Instant {
        let limits = &self.settings.limits;
        let life = match self.probed {
            Some(probed) => probed + limits.answer,
            None => self.heard + limits.idle,
        };
        let stalled = self.stalled.map(|since| since + limits.answer);
        let all = [Some(life), stalled, self.paused, self.closing, self.acks.deadline()];
        all.into_iter().flatten().min().unwrap_or(life)
    }

    /// The timer has fired: whatever is due is done.
    fn time(&mut self, now: Instant) -> Result<(), End> {
        // Limits of a reload reach running connections here.
        self.settings = self.shared.settings.load_full();
        self.framer.set_limits(self.settings.after);
        let limits = self.settings.limits;
        if self.stalled.is_some_and(|since| now >= since + limits.answer) {
            metrics::counter!("rookery_limits_hit_total", "limit" => "answer_seconds").increment(1);
            tracing::info!(jid = %self.link.jid(), "connection closed: the client does not read");
            return Err(End::Lost);
        }
        self.answer_acks(now);
        if self.closing.is_some_and(|deadline| now >= deadline) {
            if self.stalled.is_some() {
                return Err(End::Lost);
            }
            self.last_ack();
            return Err(End::Closed);
        }
        match self.probed {
            Some(probed) if self.heard >= probed => self.probed = None,
            Some(probed) if now >= probed + limits.answer => {
                metrics::counter!("rookery_limits_hit_total", "limit" => "idle_seconds").increment(1);
                let error = StreamError::from(StreamCondition::ConnectionTimeout)
                    .text("you were silent for too long");
                return Err(End::Error { error: Box::new(error), resumable: true });
            }
            Some(_) => {}
            None if now >= self.heard + limits.idle => self.probe(now),
            None => {}
        }
        Ok(())
    }

    /// Asks a silent client whether it is there: by XEP-0198, else by a ping (XEP-0199), which it must answer or refuse.
    fn probe(&mut self, now: Instant) {
        self.probed = Some(now);
        if self.sm == Sm::On {
            W::Frames::element(&mut self.own, |out| out.extend_from_slice(b"<r xmlns='urn:xmpp:sm:3'/>"));
        } else {
            let domain = self.link.jid().domain();
            W::Frames::element(&mut self.own, |out| {
                for part in
                    ["<iq type='get' id='alive' from='", domain, "'><ping xmlns='urn:xmpp:ping'/></iq>"]
                {
                    out.extend_from_slice(part.as_bytes());
                }
            });
        }
    }
}
