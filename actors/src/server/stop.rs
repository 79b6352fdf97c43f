//! The stop of a server in order.

use std::time::Duration;

use tokio::sync::oneshot;

use crate::host::Host;
use crate::session;

/// How long the last writes may take when the process stops.
const FLUSH: Duration = Duration::from_secs(10);

impl Host {
    /// Ends all streams with `<system-shutdown/>`, keeps every resumable session for the next process, and waits until
    /// everything is committed.
    pub async fn shutdown(&self) {
        self.set_stopping();
        if tokio::time::timeout(FLUSH, self.close_links()).await.is_err() {
            tracing::debug!("streams to other servers were not flushed in time");
        }
        // What sleeping sessions hold is written down first, and settles what others have sent; then the records say so.
        for _ in 0..2 {
            let written = async {
                self.suspend().await;
                self.batcher().flush().await
            };
            match tokio::time::timeout(FLUSH, written).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => tracing::error!(%error, "the last writes may not be on disk"),
                Err(_) => {
                    tracing::error!(
                        "the store does not answer: the last writes may be missing; none of them was acknowledged"
                    );
                    return;
                }
            }
        }
    }

    async fn suspend(&self) {
        let mut suspended = Vec::new();
        for (_, session) in self.sessions().all() {
            let (done, answer) = oneshot::channel();
            if session.cast_always(session::Msg::Suspend(done)).is_ok() {
                suspended.push(answer);
            }
        }
        for answer in suspended {
            let _ = answer.await;
        }
    }
}
