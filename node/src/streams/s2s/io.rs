//! Bytes of a running stream: what is written and what was read, without a buffer while nothing happens.

use std::cell::Cell;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead as _, AsyncWrite as _, ReadBuf};
use tokio::time::Instant;

use super::wire::Wire;

/// What one read takes at most: a TLS record.
const SCRATCH: usize = 16 * 1024;

thread_local! {
    /// The read buffer of all streams on this thread. Taken while in use.
    static BUFFER: Cell<Option<Box<[u8]>>> = const { Cell::new(None) };
}

/// What was done.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Did {
    /// Everything in `out` is with the kernel.
    Wrote,
    /// So many bytes were read, into `tail`.
    Read(usize),
    /// The other side has ended its side of the socket.
    Ended,
}

/// See the module.
pub(super) struct Io {
    pub(super) wire: Wire,
    /// What was read and not used yet.
    pub(super) tail: Vec<u8>,
    /// What is to be written; whole elements are put in when it is empty.
    pub(super) out: Vec<u8>,
    written: usize,
    flushing: bool,
    /// Since when the socket takes nothing.
    pub(super) stalled: Option<Instant>,
}

impl Io {
    pub(super) fn new(wire: Wire, tail: Vec<u8>, out: Vec<u8>) -> Self {
        Self { wire, tail, out, written: 0, flushing: false, stalled: None }
    }

    /// Whether more may be put into `out`.
    pub(super) fn is_idle(&self) -> bool {
        self.out.is_empty() && !self.flushing
    }

    /// Takes what is not written yet.
    pub(super) fn rest(&mut self) -> Vec<u8> {
        let mut out = std::mem::take(&mut self.out);
        out.drain(..std::mem::take(&mut self.written).min(out.len()));
        out
    }

    /// Writes what there is, then reads once, if it may.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>, may_read: bool) -> Poll<io::Result<Did>> {
        if self.poll_out(cx)? {
            return Poll::Ready(Ok(Did::Wrote));
        }
        if !may_read {
            return Poll::Pending;
        }
        let mut buffer = BUFFER.take().unwrap_or_else(|| vec![0; SCRATCH].into_boxed_slice());
        let mut filled = ReadBuf::new(&mut buffer);
        let read = Pin::new(&mut self.wire).poll_read(cx, &mut filled);
        let bytes = filled.filled();
        let did = if bytes.is_empty() { Did::Ended } else { Did::Read(bytes.len()) };
        self.tail.extend_from_slice(bytes);
        BUFFER.set(Some(buffer));
        read.map_ok(|()| did)
    }

    /// Whether something was written and nothing is left.
    fn poll_out(&mut self, cx: &mut Context<'_>) -> io::Result<bool> {
        let had = !self.is_idle();
        while let Some(rest) = self.out.get(self.written..).filter(|rest| !rest.is_empty()) {
            match Pin::new(&mut self.wire).poll_write(cx, rest)? {
                Poll::Ready(0) => return Err(io::ErrorKind::WriteZero.into()),
                Poll::Ready(n) => {
                    self.written += n;
                    self.stalled = None;
                }
                Poll::Pending => {
                    self.stalled.get_or_insert_with(Instant::now);
                    return Ok(false);
                }
            }
            self.flushing = true;
        }
        (self.out, self.written) = (Vec::new(), 0);
        if self.flushing {
            match Pin::new(&mut self.wire).poll_flush(cx)? {
                Poll::Ready(()) => (self.flushing, self.stalled) = (false, None),
                Poll::Pending => {
                    self.stalled.get_or_insert_with(Instant::now);
                    return Ok(false);
                }
            }
        }
        Ok(had)
    }
}
