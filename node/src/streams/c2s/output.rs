//! What goes out: whatever waits in the pipe becomes one write and one flush.

use std::cell::Cell;
use std::pin::Pin;
use std::task::{Context, Poll};

use rookery_actors::{Charged, Close, Down, ELSEWHERE};
use rookery_proto::xml::Writer;
use rookery_proto::xmpp::error::{StreamCondition, StreamError};
use rookery_proto::xmpp::ns;
use tokio::time::Instant;

use super::End;
use super::running::{Running, Sm};
use crate::transport::{Carrier, Frames as _};

/// How many items of the pipe make one write at most.
const ITEMS: usize = 64;
/// From this size on a batch is written although more waits.
const BATCH: usize = 64 * 1024;
/// A buffer that has grown beyond this is not kept.
const KEEP: usize = 256 * 1024;

/// What it takes to write a batch.
struct Buffers {
    items: Vec<Down>,
    /// What of it is charged to the session.
    charged: Vec<Charged>,
    out: Vec<u8>,
}

impl Buffers {
    const NONE: Self = Self { items: Vec::new(), charged: Vec::new(), out: Vec::new() };
}

impl Default for Buffers {
    fn default() -> Self {
        Self::NONE
    }
}

thread_local! {
    /// The write buffers of all connections on this thread. Taken while in use.
    static BUFFERS: Cell<Buffers> = const { Cell::new(Buffers::NONE) };
}

impl<W: Carrier> Running<W> {
    /// Writes until nothing is left or the socket takes no more.
    pub(super) fn pump(&mut self, cx: &mut Context<'_>, now: Instant) -> Result<(), End> {
        loop {
            if !self.written_out(cx)? {
                self.stalled.get_or_insert(now);
                if self.closing.is_none() && self.pipe.ends() {
                    // The session has no use for this connection: its client need not take the rest.
                    self.closing = Some(now + self.settings.limits.close);
                }
                return Ok(());
            }
            self.stalled = None;
            if let Some(number) = self.mark.take() {
                self.link.marked(number);
            }
            if let Some(end) = self.end.take() {
                return Err(end);
            }
            if self.look && self.pipe.nudged() {
                self.nudged(now)?;
            }
            if !self.look && self.own.is_empty() {
                if self.closing.is_some() {
                    self.finish_if_settled(now);
                }
                if self.own.is_empty() {
                    return Ok(());
                }
            }
            let mut buffers = BUFFERS.take();
            let result = self.batch(cx, &mut buffers);
            if !self.pending.is_empty() {
                // The session has it in its account until the socket has taken it.
                self.charged.append(&mut buffers.charged);
            }
            buffers.items.clear();
            buffers.charged.clear();
            buffers.out.clear();
            if buffers.out.capacity() <= KEEP {
                BUFFERS.set(buffers);
            }
            result?;
        }
    }

    /// Whether everything written before is with the kernel.
    fn written_out(&mut self, cx: &mut Context<'_>) -> Result<bool, End> {
        while let Some(rest) = self.pending.get(self.written..).filter(|rest| !rest.is_empty()) {
            match Pin::new(&mut self.wire).poll_write(cx, rest)? {
                Poll::Ready(0) => return Err(End::Lost),
                Poll::Ready(n) => self.written += n,
                Poll::Pending => return Ok(false),
            }
            self.flushing = true;
        }
        if !self.pending.is_empty() {
            (self.pending, self.written, self.charged) = (Vec::new(), 0, Vec::new());
        }
        if self.flushing {
            match Pin::new(&mut self.wire).poll_flush(cx)? {
                Poll::Ready(()) => self.flushing = false,
                Poll::Pending => return Ok(false),
            }
        }
        Ok(true)
    }

    /// The ledger has moved.
    fn nudged(&mut self, now: Instant) -> Result<(), End> {
        if self.link.ledger().broken() {
            // The client sends again what was lost inside, after it has resumed; on another node, if its session lives there now.
            let error = if self.shared.host.is_home(&self.link.jid().to_bare()) {
                StreamError::from(StreamCondition::InternalServerError)
            } else {
                StreamError::from(StreamCondition::SystemShutdown).text(ELSEWHERE)
            };
            return Err(End::Error { error: Box::new(error), resumable: true });
        }
        self.answer_acks(now);
        Ok(())
    }

    /// One batch from the pipe to the socket.
    fn batch(&mut self, cx: &mut Context<'_>, buffers: &mut Buffers) -> Result<(), End> {
        let Buffers { items, charged, out } = buffers;
        out.append(&mut self.own);
        self.own = Vec::new();
        self.look = self.pipe.drain_bytes(items, ITEMS, BATCH);
        for item in items.drain(..) {
            match item {
                Down::Stanza(outgoing, _) => {
                    W::Frames::element(out, |out| outgoing.write(out));
                    charged.push(outgoing.charged);
                }
                Down::Written(bytes, charge) => {
                    W::Frames::element(out, |out| out.extend_from_slice(&bytes));
                    charged.push(charge);
                }
                Down::Moved => {}
                Down::Nonza(bytes) => W::Frames::element(out, |out| out.extend_from_slice(&bytes)),
                Down::Enabled(bytes) => {
                    W::Frames::element(out, |out| out.extend_from_slice(&bytes));
                    self.enabled();
                }
                Down::Mark(number) => self.mark = Some(number),
                Down::Close(close) => {
                    self.end = Some(if self.finished { End::Closed } else { end(close) });
                    self.look = false;
                    break;
                }
            }
            if out.len() >= BATCH {
                self.write(cx, out)?;
            }
        }
        self.write(cx, out)
    }

    /// `<enabled/>` goes out: what was asked before is answered behind it.
    fn enabled(&mut self) {
        let early = self.sm == Sm::Asked { early: true };
        self.sm = Sm::On;
        if early {
            let now = Instant::now();
            // Answered by the next look at the ledger, which is this turn's.
            if let Some(h) = self.acks.request(now, self.link.ledger().settled()) {
                self.write_ack(h);
            } else {
                self.answer_acks(now);
            }
        }
    }

    /// Writes as much as the socket takes now, and keeps the rest.
    fn write(&mut self, cx: &mut Context<'_>, out: &mut Vec<u8>) -> Result<(), End> {
        self.shared.meters.sent.increment(out.len() as u64);
        let mut at = 0;
        while self.pending.is_empty()
            && let Some(rest) = out.get(at..).filter(|rest| !rest.is_empty())
        {
            match Pin::new(&mut self.wire).poll_write(cx, rest)? {
                Poll::Ready(0) => return Err(End::Lost),
                Poll::Ready(n) => at += n,
                Poll::Pending => break,
            }
            self.flushing = true;
        }
        self.pending.extend_from_slice(out.get(at..).unwrap_or_default());
        out.clear();
        Ok(())
    }
}

/// How a session's wish to close ends the stream.
fn end(close: Close) -> End {
    match close {
        Close::Clean => End::Clean,
        Close::Abandon => End::Abandon,
        // Whether the session may be resumed is its own affair: it has closed, and knows why.
        Close::Error(condition, text) => {
            End::Error { error: Box::new(StreamError::from(condition).text(text)), resumable: true }
        }
        Close::HandledTooHigh { h, sent } => {
            let mut app = Vec::new();
            let mut w = Writer::new(&mut app);
            w.start("handled-count-too-high", ns::SM)
                .attr_display("h", h)
                .attr_display("send-count", sent)
                .end();
            drop(w);
            let text = format!("You acknowledged {h} stanzas, but I only sent you {sent} so far.");
            let error = StreamError::from(StreamCondition::UndefinedCondition).text(text).app(app);
            End::Error { error: Box::new(error), resumable: true }
        }
    }
}
