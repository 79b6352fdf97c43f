//! The way of a commit to the engine: in place, or to the commit thread.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::time::{Duration, Instant as Stopwatch};

use metrics::gauge;
use tokio::sync::oneshot;

use super::backend::Backend;
use super::commit::Request;
use super::{CLOSED, Engine};
use crate::store::{Class, Error, Result};

/// Commits that may wait for the thread; those beyond are refused and come again later.
const QUEUE: usize = 4096;
/// A group is closed at that many commits …
const GROUP_COMMITS: usize = 1000;
/// … or bytes.
const GROUP_BYTES: usize = 4_000_000;
/// How often the engine is tended.
const TEND: Duration = Duration::from_secs(1);

enum Message {
    Commit(Box<Request>),
    Close(oneshot::Sender<Result<()>>),
}

/// Where commits go.
pub(crate) struct Lane<B> {
    thread: Option<SyncSender<Message>>,
    waiting: Arc<AtomicUsize>,
    closed: AtomicBool,
    engine: std::marker::PhantomData<fn(B)>,
}

impl<B: Backend> Lane<B> {
    pub(crate) fn in_place() -> Self {
        Self {
            thread: None,
            waiting: Arc::default(),
            closed: AtomicBool::new(false),
            engine: std::marker::PhantomData,
        }
    }

    /// Starts the thread, which ends at [`Lane::close`] or when the lane is dropped.
    pub(crate) fn threaded(engine: Arc<Engine<B>>) -> Result<Self> {
        let (sender, receiver) = sync_channel(QUEUE);
        let lane = Self { thread: Some(sender), ..Self::in_place() };
        let waiting = Arc::clone(&lane.waiting);
        std::thread::Builder::new()
            .name("store-commit".into())
            .spawn(move || run(&engine, &receiver, &waiting))
            .map_err(|e| Error::new(Class::Unavailable, "the commit thread did not start").with(e))?;
        Ok(lane)
    }

    /// Hands a request over. Its answer comes through the request; so do refusals.
    pub(crate) fn send(&self, engine: &Engine<B>, request: Request) {
        if self.closed.load(Ordering::Acquire) {
            let _ = request.done.send(Err(CLOSED));
            return;
        }
        let Some(thread) = &self.thread else {
            return engine.commit(vec![request]);
        };
        self.waiting.fetch_add(1, Ordering::Relaxed);
        let (message, error) = match thread.try_send(Message::Commit(Box::new(request))) {
            Ok(()) => return,
            Err(TrySendError::Full(message)) => {
                (message, Error::new(Class::Retry, "too many commits wait for the disk"))
            }
            Err(TrySendError::Disconnected(message)) => (message, CLOSED),
        };
        self.waiting.fetch_sub(1, Ordering::Relaxed);
        if let Message::Commit(request) = message {
            let _ = request.done.send(Err(error));
        }
    }

    /// Lets the commits sent before finish, then closes the engine. A second call does nothing.
    pub(crate) async fn close(&self, engine: &Engine<B>) -> Result<()> {
        if self.closed.swap(true, Ordering::AcqRel) {
            return Ok(());
        }
        let Some(thread) = self.thread.clone() else {
            return engine.shut();
        };
        let (done, answer) = oneshot::channel();
        let mut message = Message::Close(done);
        // The queue is bounded, and waiting for room would block: the thread makes room all the time.
        while let Err(TrySendError::Full(again)) = thread.try_send(message) {
            message = again;
            tokio::task::yield_now().await;
        }
        answer.await.unwrap_or(Err(CLOSED))
    }
}

/// The thread: takes what has gathered while the group before was written.
fn run<B: Backend>(engine: &Engine<B>, receiver: &Receiver<Message>, waiting: &AtomicUsize) {
    let mut tended = Stopwatch::now();
    loop {
        if tended.elapsed() >= TEND {
            engine.tend();
            tended = Stopwatch::now();
        }
        let first = match receiver.recv_timeout(TEND) {
            Ok(first) => first,
            Err(RecvTimeoutError::Timeout) => continue,
            Err(RecvTimeoutError::Disconnected) => break,
        };
        let mut group = Vec::new();
        let mut bytes = 0;
        let mut next = Some(first);
        let mut close = None;
        while let Some(message) = next {
            match message {
                Message::Commit(request) => {
                    bytes += request.pending.size();
                    group.push(*request);
                }
                Message::Close(done) => {
                    close = Some(done);
                    break;
                }
            }
            let room = group.len() < GROUP_COMMITS && bytes < GROUP_BYTES;
            next = if room { receiver.try_recv().ok() } else { None };
        }
        let left = waiting.fetch_sub(group.len(), Ordering::Relaxed) - group.len();
        gauge!("rookery_store_queue_length", "queue" => "commits")
            .set(u32::try_from(left).unwrap_or(u32::MAX));
        engine.commit(group);
        if let Some(done) = close {
            let _ = done.send(engine.shut());
            return;
        }
    }
    if let Err(error) = engine.shut() {
        tracing::error!(error = %error, detail = ?error.detail, "the store could not be closed cleanly");
    }
}
