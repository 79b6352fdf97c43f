//! A store server that can be killed: it runs on a runtime of its own.
#![allow(clippy::disallowed_methods, clippy::unwrap_used, dead_code)] // a test

use std::sync::Arc;
use std::time::Duration;

use rookery_cluster::store::dev::{Remote, serve};
use rookery_cluster::store::{Database, Error};
use tokio::net::TcpListener;
use tokio::runtime::{Builder, Runtime};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio_stream::StreamExt as _;
use tokio_stream::wrappers::TcpListenerStream;

/// One run of a server.
pub(crate) struct Server {
    /// Where it listens.
    pub(crate) port: u16,
    runtime: Option<Runtime>,
    stop: Option<oneshot::Sender<()>>,
    task: JoinHandle<Result<(), Error>>,
}

impl Server {
    /// Serves `db` on that port of loopback; 0 takes any free one.
    pub(crate) fn start(db: Arc<dyn Database>, port: u16) -> Self {
        let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let listener = std::net::TcpListener::bind(("127.0.0.1", port)).unwrap();
        listener.set_nonblocking(true).unwrap();
        let port = listener.local_addr().unwrap().port();
        let (stop, stopping) = oneshot::channel::<()>();
        let task = runtime.spawn(async move {
            let incoming = TcpListenerStream::new(TcpListener::from_std(listener).unwrap());
            let incoming = incoming.map(|socket| socket.and_then(|s| s.set_nodelay(true).map(|()| s)));
            serve(db, incoming, async { drop(stopping.await) }).await
        });
        Self { port, runtime: Some(runtime), stop: Some(stop), task }
    }

    /// A client of it.
    pub(crate) fn client(&self) -> Remote {
        Remote::new(&format!("127.0.0.1:{}", self.port)).unwrap()
    }

    /// Ends it as kill -9 would: nothing is answered any more.
    pub(crate) fn kill(mut self) {
        let runtime = self.runtime.take().unwrap();
        // A runtime cannot be waited for within another.
        let gone = std::thread::spawn(move || runtime.shutdown_timeout(Duration::from_secs(5)));
        gone.join().unwrap();
    }

    /// Ends it as Ctrl-C would.
    pub(crate) async fn stop(mut self) -> Result<(), Error> {
        self.stop.take().unwrap().send(()).unwrap();
        let outcome = (&mut self.task).await.unwrap();
        self.runtime.take().unwrap().shutdown_background();
        outcome
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}
