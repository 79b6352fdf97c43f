//! The end of a running stream (RFC 6120 section 4.4): what was received is settled, the other side is told so, and then it is closed.
//! What can be resumed is kept.

use rookery_actors::link::stream::Failure;
use rookery_proto::xml::header::CLOSE;
use rookery_proto::xmpp::error::{StreamCondition, StreamError};
use tokio::time::Instant;

use super::conn::{self, End};
use super::resume::{Managed, State};
use super::running::{Running, Sm};

/// How far the end of a stream has come.
pub(super) struct Closing {
    /// When it is over, whatever is open.
    pub(super) by: Instant,
    /// What we say.
    error: Option<Box<StreamError>>,
    /// Whether our `</stream:stream>` is out.
    pub(super) said: bool,
}

impl Running {
    /// Begins the end, with an error or without. What was received is settled first, and the other side is told so.
    pub(super) fn close(&mut self, error: Option<Box<StreamError>>) {
        if self.closing.is_none() {
            let by = Instant::now() + self.settings.close;
            self.closing = Some(Closing { by, error, said: false });
            self.place.set_free(false);
        }
    }

    /// Takes what was read, answers what is settled, and goes on with the end if it has begun.
    pub(super) fn process(&mut self, now: Instant) -> Result<(), End> {
        if self.ledger.broken() {
            // What was lost inside comes again when the other server resumes the stream: then the rest is known by its numbers. On a new
            // stream all that was not acknowledged would come twice.
            let resumes = matches!(&self.sm, Sm::On(Managed { id: Some(_), .. }));
            return Err(if resumes { End::Lost } else { End::error(StreamCondition::InternalServerError) });
        }
        if self.held {
            self.frames(now)?;
        }
        self.answer_acks(now);
        if self.closing.is_none() && !self.peer_closed {
            return Ok(());
        }
        let rest = self.unsettled() == 0;
        if !rest {
            self.ledger.wait(&self.pipe);
        }
        let by = now + self.settings.close;
        let closing = self.closing.get_or_insert(Closing { by, error: None, said: false });
        if !closing.said && (rest || now >= closing.by) {
            (closing.said, closing.by) = (true, by);
            let error = closing.error.take();
            self.say_goodbye(error);
        }
        let over = |closing: &Closing| closing.said && now >= closing.by;
        let done = self.is_closing() && self.peer_closed && self.own.is_empty() && self.io.is_idle();
        if (done && self.unsettled() == 0) || self.closing.as_ref().is_some_and(over) {
            return Err(End::Closed);
        }
        Ok(())
    }

    /// Our end of the stream. In front of it stands the last word on what has arrived: nothing that was sent is in doubt.
    pub(super) fn say_goodbye(&mut self, error: Option<Box<StreamError>>) {
        if matches!(self.sm, Sm::On(_)) {
            self.write_ack(self.ledger.settled());
        }
        if let Some(error) = error {
            let condition = error.condition.name();
            metrics::counter!("rookery_stream_errors_total", "condition" => condition).increment(1);
            error.write(&mut self.own);
        }
        self.own.extend_from_slice(CLOSE);
    }

    /// How many stanzas were received and are neither durable nor answered.
    pub(super) fn unsettled(&self) -> usize {
        self.ledger.open() + self.earlier.as_ref().map_or(0, |earlier| earlier.open())
    }

    pub(super) async fn finish(self: Box<Self>, end: End) {
        let Self {
            federation, settings, place, link, sm, mut io, own, proved, closing, pass, unproved, ..
        } = *self;
        drop(place);
        // Not counted from here on: the other server may take its time, or stand before the door again already.
        let proved = proved.into_iter().map(|proved| (proved.pair, proved.by)).collect();
        let resume = settings.federation.limits.resume;
        if let Sm::On(Managed { ledger, name, id: Some(id) }) = sm
            && unproved.is_none()
        {
            match end {
                End::Lost if pass.is_some() && !resume.is_zero() => {
                    federation.resumable.park(id, State { ledger, name, proved }, resume);
                }
                _ => federation.resumable.leave(&id),
            }
        }
        if let (Some((_, link)), Some(text)) = (link, failure(&end)) {
            link.failed(Failure::passing(text));
        }
        let said = closing.is_some_and(|closing| closing.said);
        let end = if said { End::Abandon } else { end };
        let mut rest = io.rest();
        rest.extend_from_slice(&own);
        conn::close(&mut io.wire, rest, end, true, settings.close).await;
        drop((pass, unproved));
    }
}

/// What a link is told of an end that is more than the loss of a connection.
fn failure(end: &End) -> Option<String> {
    match end {
        End::Error(error) => Some(format!("the stream was ended with {}", error.condition.name())),
        End::Told(condition) => Some(format!("the other server ended the stream: {}", condition.name())),
        _ => None,
    }
}
