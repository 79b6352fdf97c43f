//! Between the node and the reader of its log: a bounded queue and a thread that does the writing.

use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::time::{Duration, Instant};

use tracing_subscriber::fmt::MakeWriter;

/// The most lines that wait, and the most bytes of them.
const MAX_LINES: usize = 8192;
const MAX_BYTES: usize = 8 * 1024 * 1024;

/// How long a flush may take in all.
const FLUSH: Duration = Duration::from_secs(2);

enum Item {
    Line(Vec<u8>),
    Flush(SyncSender<()>),
}

/// The writer that tracing writes to. Each event comes as one `write`.
#[derive(Clone)]
pub(super) struct Queue {
    items: SyncSender<Item>,
    bytes: Arc<AtomicUsize>,
}

impl Queue {
    /// Starts the thread, which ends when the last clone of the queue is gone.
    pub(super) fn start(out: impl Write + Send + 'static) -> io::Result<Self> {
        let (items, receiver) = sync_channel(MAX_LINES);
        let bytes = Arc::new(AtomicUsize::new(0));
        let waiting = Arc::clone(&bytes);
        std::thread::Builder::new().name("log".into()).spawn(move || write_out(&receiver, out, &waiting))?;
        Ok(Self { items, bytes })
    }

    pub(super) fn flush(&self) {
        let deadline = Instant::now() + FLUSH;
        let (done, finished) = sync_channel(1);
        while let Err(TrySendError::Full(_)) = self.items.try_send(Item::Flush(done.clone())) {
            if Instant::now() > deadline {
                return;
            }
            // Full: the thread is writing. There is nothing to be woken by.
            std::thread::park_timeout(Duration::from_millis(5));
        }
        let _ = finished.recv_timeout(deadline.saturating_duration_since(Instant::now()));
    }
}

fn write_out(items: &Receiver<Item>, mut out: impl Write, waiting: &AtomicUsize) {
    for item in items {
        // A log that cannot be written (closed pipe, full disk) has nowhere to complain to.
        match item {
            Item::Line(line) => {
                let _ = out.write_all(&line);
                waiting.fetch_sub(line.len(), Ordering::Relaxed);
            }
            Item::Flush(done) => {
                let _ = out.flush();
                let _ = done.try_send(());
            }
        }
    }
}

impl Write for Queue {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let before = self.bytes.fetch_add(line.len(), Ordering::Relaxed);
        let lost = before.saturating_add(line.len()) > MAX_BYTES
            || self.items.try_send(Item::Line(line.to_vec())).is_err();
        if lost {
            self.bytes.fetch_sub(line.len(), Ordering::Relaxed);
            metrics::counter!("rookery_log_lines_lost_total").increment(1);
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Queue {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Condvar, Mutex};

    use super::*;

    /// A reader that reads nothing until it is told to.
    #[derive(Clone, Default)]
    struct Stuck(Arc<(Mutex<(bool, usize)>, Condvar)>);

    impl Write for Stuck {
        fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
            let (state, open) = &*self.0;
            let mut state = open.wait_while(state.lock().unwrap(), |state| !state.0).unwrap();
            state.1 += buf.len();
            Ok(buf.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_stuck_reader_costs_lines_but_no_time_and_no_memory() {
        let out = Stuck::default();
        let mut queue = Queue::start(out.clone()).unwrap();
        let line = [b'x'; 4096];
        for _ in 0..MAX_LINES {
            queue.write_all(&line).unwrap();
        }
        let kept = queue.bytes.load(Ordering::Relaxed);
        assert!(kept <= MAX_BYTES && kept > MAX_BYTES / 2, "{kept}");
        out.0.0.lock().unwrap().0 = true;
        out.0.1.notify_all();
        Queue::flush(&queue);
        assert_eq!(out.0.0.lock().unwrap().1, kept);
        assert_eq!(queue.bytes.load(Ordering::Relaxed), 0);
    }
}
