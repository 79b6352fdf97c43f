//! A request's body within limits of size and time.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::http::StatusCode;
use hyper::body::{Frame, SizeHint};
use tokio::time::{Instant, Sleep, sleep};

/// Why a body was not read to its end.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub(super) enum Broken {
    #[error("the body is too large")]
    TooLarge = 1,
    #[error("the body stood still for too long")]
    TooSlow = 2,
}

impl Broken {
    /// The limit's name in the metric.
    pub(super) fn limit(self) -> &'static str {
        match self {
            Self::TooLarge => "http_body_bytes",
            Self::TooSlow => "http_body_seconds",
        }
    }

    /// What the client is answered.
    pub(super) fn status(self) -> StatusCode {
        match self {
            Self::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::TooSlow => StatusCode::REQUEST_TIMEOUT,
        }
    }
}

/// What became of a body; shared with the body itself.
#[derive(Clone, Default)]
pub(super) struct Fate(Arc<AtomicU8>);

impl Fate {
    /// Why it was not read to its end, if a limit was passed.
    pub(super) fn broken(&self) -> Option<Broken> {
        let number = self.0.load(Ordering::Acquire);
        [Broken::TooLarge, Broken::TooSlow].into_iter().find(|broken| *broken as u8 == number)
    }
}

/// See the module.
pub(super) struct Bounded {
    inner: Body,
    left: usize,
    patience: Duration,
    timer: Pin<Box<Sleep>>,
    fate: Fate,
}

impl Bounded {
    /// So many bytes, and so long between two parts.
    pub(super) fn new(inner: Body, most: usize, patience: Duration, fate: Fate) -> Self {
        Self { inner, left: most, patience, timer: Box::pin(sleep(patience)), fate }
    }

    fn fail(&self, broken: Broken) -> axum::Error {
        self.fate.0.store(broken as u8, Ordering::Release);
        axum::Error::new(broken)
    }
}

impl hyper::body::Body for Bounded {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let this = self.get_mut();
        let Poll::Ready(frame) = Pin::new(&mut this.inner).poll_frame(cx) else {
            ready!(this.timer.as_mut().poll(cx));
            return Poll::Ready(Some(Err(this.fail(Broken::TooSlow))));
        };
        this.timer.as_mut().reset(Instant::now() + this.patience);
        if let Some(Ok(frame)) = &frame {
            let len = frame.data_ref().map_or(0, Bytes::len);
            match this.left.checked_sub(len) {
                Some(left) => this.left = left,
                None => return Poll::Ready(Some(Err(this.fail(Broken::TooLarge)))),
            }
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}
