//! Streams to the other server come and go.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use rookery_cluster::store::Ops;
use rookery_cluster::tables::links;
use tokio::time::Instant;

use super::sending::{Asked, Unacked, covers};
use super::stream::{Failure, LinkEnd, Managed, Next, Outbox, Pair, Ready, Resumable, Word};
use super::take::Step;
use super::{Link, Msg};

/// How long a dialer may take.
const DIAL: Duration = Duration::from_secs(120);

/// The stream.
pub(super) enum Stream {
    Down,
    Dialing(Dialing),
    Up(Box<Up>),
}

impl Stream {
    /// Lets the stream go without closing it: it may be resumed.
    pub(super) fn abandon(&mut self) {
        match std::mem::replace(self, Self::Down) {
            Self::Down => {}
            Self::Dialing(dialing) => dialing.outbox.end(Next::Abandon),
            Self::Up(up) => up.outbox.end(Next::Abandon),
        }
    }
}

/// A stream that is being opened.
pub(super) struct Dialing {
    attempt: u64,
    outbox: Arc<Outbox>,
    since: Instant,
    /// The numbering of the stream that is to be resumed.
    resumes: Option<u64>,
    /// The stream is open, and the record of how to resume it is being written.
    opened: bool,
}

/// A stream whose record is being written.
pub(super) struct Opening {
    ready: Ready,
    lost: Lost,
}

/// A stream that is open.
pub(super) struct Up {
    pub(super) attempt: u64,
    pub(super) outbox: Arc<Outbox>,
    /// The other server counts what it gets (XEP-0198).
    pub(super) managed: bool,
    /// The name of the numbers, if the stream can be resumed.
    pub(super) numbering: Option<u64>,
    /// How many stanzas were sent on it.
    pub(super) sent: u32,
    pub(super) unacked: VecDeque<Unacked>,
    pub(super) unacked_bytes: usize,
    pub(super) asked: Option<Asked>,
    /// Since that, something was sent whose sender waits until it is confirmed.
    pub(super) owed: bool,
    /// Numbers are being written down; nothing is sent meanwhile.
    pub(super) numbering_now: bool,
    /// They could not be: the next second tries again.
    pub(super) held: bool,
    pub(super) max_bytes: Option<usize>,
    pub(super) used: Instant,
    since: Instant,
    _counted: Counted,
}

/// Counts streams.
struct Counted;

impl Counted {
    fn new() -> Self {
        metrics::gauge!("rookery_link_streams").increment(1.0);
        Self
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        metrics::gauge!("rookery_link_streams").decrement(1.0);
    }
}

/// A stream that was lost, and that the other server may resume.
#[derive(Clone)]
pub(super) struct Lost {
    pub(super) resumable: Resumable,
    pub(super) numbering: u64,
    /// How many stanzas were sent on it, if it was this process that sent them.
    sent: Option<u32>,
}

impl Lost {
    /// What the record says; `None` if there was no such stream.
    pub(super) fn of_record(record: links::Record) -> Option<Self> {
        let location = Some(record.location).filter(|location| !location.is_empty());
        let resumable = Resumable { id: record.id, h: 0, location };
        (!resumable.id.is_empty()).then_some(Self { resumable, numbering: record.numbering, sent: None })
    }

    pub(super) fn record(&self) -> links::Record {
        let Resumable { id, location, .. } = self.resumable.clone();
        links::Record { id, location: location.unwrap_or_default(), numbering: self.numbering }
    }
}

impl Link {
    /// The largest stanza that the other server takes, if it has said so.
    pub(super) fn max_bytes(&self) -> Option<usize> {
        match &self.stream {
            Stream::Up(up) => up.max_bytes,
            _ => None,
        }
    }

    /// Whether this deployment still speaks with the other domain, and for its own: a reload can make the other its own, or take its own away.
    fn is_spoken_with(&self) -> bool {
        let speaks = |pair: &Pair| {
            self.host.federates(pair.remote().domain()) && self.host.answers(pair.local().domain())
        };
        self.pair.as_ref().is_some_and(speaks)
    }

    /// Opens a stream if one is wanted, and if it is time.
    pub(super) fn dial(&mut self) {
        let wanted = self.waiting.has_some() && self.waiting.refused.is_none() && self.leaving.is_none();
        let may = self.host.has_lease() && !self.host.is_stopping();
        // A domain that is not spoken with any more is not waited for.
        let due = self.retry.is_due() || !self.is_spoken_with();
        if !wanted || !may || !matches!(self.stream, Stream::Down) || !due {
            return;
        }
        // The program gives its dialer before it serves; what was restored before waits for that.
        let Some(dialer) = self.host.dialer() else { return };
        let (Some(me), Some(pair)) = (self.me.clone(), self.pair.clone()) else { return };
        self.attempts += 1;
        let (attempt, outbox) = (self.attempts, Arc::new(Outbox::default()));
        let resumes = self.lost.as_ref().map(|lost| lost.numbering);
        self.stream = Stream::Dialing(Dialing {
            attempt,
            outbox: outbox.clone(),
            since: Instant::now(),
            resumes,
            opened: false,
        });
        if !self.is_spoken_with() {
            return self.failed(&Failure::permanent("this server does not federate with that domain"));
        }
        let me = me.downgrade();
        let end = LinkEnd::new(outbox, move |word| {
            if let Some(me) = me.upgrade() {
                let _ = me.cast_always(Msg::Word(attempt, word));
            }
        });
        tracing::debug!(link = %self.name, attempt, resume = resumes.is_some(), "a stream to another server is opened");
        dialer.dial(&pair, self.lost.as_ref().map(|lost| lost.resumable.clone()), end);
    }

    /// A stream says something.
    pub(super) fn heard(&mut self, attempt: u64, word: Word) {
        let now = match &self.stream {
            Stream::Down => return,
            Stream::Dialing(dialing) => dialing.attempt,
            Stream::Up(up) => up.attempt,
        };
        if attempt != now {
            return; // one that is not wanted any more
        }
        match word {
            Word::Ready(ready) => self.ready_to_send(ready),
            Word::Confirmed => self.stream_confirmed(),
            Word::Room => {} // there is more to send
            Word::Handled => self.goes_both_ways(),
            Word::Failed(failure) => self.failed(&failure),
            Word::Lost => self.failed(&Failure::passing("the stream was lost")),
        }
    }

    /// A stream is open. If it can be resumed, that is written down before anything is sent.
    fn ready_to_send(&mut self, ready: Ready) {
        let Stream::Dialing(dialing) = &mut self.stream else { return };
        if std::mem::replace(&mut dialing.opened, true) {
            return;
        }
        let (attempt, resumes) = (dialing.attempt, dialing.resumes);
        let sent = self.lost.as_ref().and_then(|lost| lost.sent);
        let too_high = |h: u32| sent.is_some_and(|sent| !covers(sent, h));
        match ready.managed.clone() {
            Managed::Resumed { h } if too_high(h) => {
                tracing::info!(link = %self.name, h, sent, "another server resumes a stream with stanzas that it was never sent; a new stream is opened");
                self.failed(&Failure::passing("the other server's count is too high"));
                self.lost = None;
            }
            Managed::Resumed { h } => {
                let Some(numbering) = resumes else {
                    return self.failed(&Failure::passing("a stream was resumed that was not to be"));
                };
                metrics::counter!("rookery_link_resumptions_total", "outcome" => "resumed").increment(1);
                self.waiting.confirm((numbering, h));
                self.up(&ready, true, Some(numbering), h);
            }
            Managed::Enabled { id, location, last, .. } => {
                if let Some(numbering) = resumes {
                    metrics::counter!("rookery_link_resumptions_total", "outcome" => "failed").increment(1);
                    if let Some(last) = last.filter(|last| !too_high(*last)) {
                        self.waiting.confirm((numbering, last));
                    }
                }
                let Some(id) = id.filter(|id| !id.is_empty()) else {
                    self.lost = None;
                    return self.up(&ready, true, None, 0);
                };
                let numbering = u64::from_le_bytes(self.host.seams().bytes()).max(1);
                let lost = Lost { resumable: Resumable { id, h: 0, location }, numbering, sent: None };
                let mut ops = Ops::new();
                if links::put(&mut ops, &self.name, &lost.record()).is_err() {
                    self.lost = None; // an id of megabytes
                    return self.up(&ready, true, None, 0);
                }
                let opening = Box::new(Opening { ready, lost });
                if let Err(Step::Opened { attempt, opening }) =
                    self.submit(ops, Step::Opened { attempt, opening })
                {
                    self.opened(attempt, *opening, false);
                }
            }
            Managed::No => {
                self.lost = None;
                self.up(&ready, false, None, 0);
            }
        }
    }

    /// The record of how to resume the stream is written (`stored`); or the store does not answer, and the stream cannot be resumed.
    pub(super) fn opened(&mut self, attempt: u64, opening: Opening, stored: bool) {
        if stored {
            self.recorded = true;
        }
        if !matches!(&self.stream, Stream::Dialing(dialing) if dialing.attempt == attempt) {
            return;
        }
        let Opening { ready, lost } = opening;
        let numbering = stored.then_some(lost.numbering);
        self.lost = stored.then_some(lost);
        self.up(&ready, true, numbering, 0);
    }

    fn up(&mut self, ready: &Ready, managed: bool, numbering: Option<u64>, sent: u32) {
        let Stream::Dialing(dialing) = std::mem::replace(&mut self.stream, Stream::Down) else { return };
        metrics::counter!("rookery_link_dials_total", "outcome" => "ok").increment(1);
        tracing::info!(
            link = %self.name, address = ready.address, proof = ready.proof, tls = ready.tls, managed,
            resumed = matches!(ready.managed, Managed::Resumed { .. }), waiting = self.waiting.queue.len(),
            "a stream to another server is open"
        );
        self.retry.opened();
        self.was_up = true;
        self.waiting.refused = None;
        let now = Instant::now();
        self.stream = Stream::Up(Box::new(Up {
            attempt: dialing.attempt,
            outbox: dialing.outbox,
            managed,
            numbering,
            sent,
            unacked: VecDeque::new(),
            unacked_bytes: 0,
            asked: None,
            owed: false,
            numbering_now: false,
            held: false,
            max_bytes: ready.max_bytes,
            used: now,
            since: now,
            _counted: Counted::new(),
        }));
    }

    /// The other server sends on the stream too, and is told what was handled: only this process knows how much that is.
    fn goes_both_ways(&mut self) {
        let Stream::Up(_) = &self.stream else { return };
        if self.recorded && self.lost.is_some() {
            let mut ops = Ops::new();
            if links::put(&mut ops, &self.name, &links::Record::default()).is_ok() {
                let _ = self.submit(ops, Step::Pruned);
            }
        }
    }

    /// There is no stream any more; `why` is for the log, and for what waits.
    pub(super) fn failed(&mut self, why: &Failure) {
        match std::mem::replace(&mut self.stream, Stream::Down) {
            Stream::Down => {}
            Stream::Dialing(dialing) => {
                dialing.outbox.end(Next::Abandon);
                metrics::counter!("rookery_link_dials_total", "outcome" => "failed").increment(1);
                let first = self.retry.is_new();
                self.retry.failed(why, u64::from_le_bytes(self.host.seams().bytes()));
                if first {
                    tracing::info!(link = %self.name, reason = why.text, permanent = why.permanent, "another server cannot be reached; what waits for it is tried again, or goes back to its senders");
                } else {
                    tracing::debug!(link = %self.name, reason = why.text, "another server cannot be reached");
                }
                if why.permanent {
                    self.waiting.refused = Some(why.condition);
                }
            }
            Stream::Up(up) => {
                up.outbox.end(Next::Abandon);
                tracing::info!(link = %self.name, reason = why.text, unconfirmed = up.unacked.len(), "a stream to another server has ended");
                let random = u64::from_le_bytes(self.host.seams().bytes());
                let confirmed = self.reached.is_some_and(|reached| reached > up.since);
                self.retry.lost(up.since.elapsed(), confirmed, why, random);
                self.unsend(*up);
            }
        }
    }

    /// What was sent and not confirmed waits again, before all others.
    fn unsend(&mut self, up: Up) {
        match &mut self.lost {
            Some(lost) if up.numbering.is_some() => {
                (lost.resumable.h, lost.sent) = (up.outbox.handled(), Some(up.sent));
            }
            lost => *lost = None,
        }
        let first = up.unacked.iter().find_map(|unacked| unacked.item.stanza.id.as_deref());
        tracing::debug!(link = %self.name, stanzas = up.unacked.len(), first, "what was sent and not confirmed waits again");
        for Unacked { item, .. } in up.unacked.into_iter().rev() {
            self.waiting.back(item);
        }
    }

    /// The stream is closed in order: nothing is on its way.
    pub(super) fn close(&mut self) {
        if let Stream::Up(up) = std::mem::replace(&mut self.stream, Stream::Down) {
            up.outbox.end(Next::Close);
            self.lost = None;
            tracing::info!(link = %self.name, "a stream to another server is closed in order");
        }
    }

    /// Looks whether a dialer takes too long, and whether this node may still have streams: without a lease another node may be about to
    /// resume them, and a reload may have changed with whom this deployment speaks.
    pub(super) fn look_at_dialer(&mut self) {
        if matches!(self.stream, Stream::Up(_)) && !self.is_spoken_with() {
            return self.failed(&Failure::passing("this server does not federate with that domain any more"));
        }
        if !self.host.has_lease() && matches!(self.stream, Stream::Up(_)) {
            let text = "this node cannot reach the store, and another may speak for its domains";
            return self.failed(&Failure::passing(text));
        }
        if matches!(&self.stream, Stream::Dialing(dialing) if dialing.since.elapsed() >= DIAL && !dialing.opened)
        {
            self.failed(&Failure::passing("no stream could be opened in time"));
        }
    }
}
