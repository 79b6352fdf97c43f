//! The server: an engine behind gRPC.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use rookery_rpc::store::v1;
use rookery_rpc::store::v1::store_server::{Store, StoreServer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;
use tokio_stream::Stream;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Server;
use tonic::transport::server::Connected;
use tonic::{Request, Response, Status};

use super::{ALIVE, MESSAGE, STREAMS, WINDOW, wire};
use crate::store::{Class, Database, Error, Fut, Isolation, Result, Select, Transaction, Version};

/// How long calls that are under way at the stop may take to end.
const GRACE: Duration = Duration::from_secs(5);
/// Events of one stream that may wait to be sent.
const EVENTS: usize = 16;

/// Serves `db` to everybody who connects, until `stop` completes; then closes `db`, tells the waiters, and ends. The
/// sockets of `incoming` should have `TCP_NODELAY` set.
///
/// # Errors
/// [`Class::Unavailable`] if `incoming` ends with an error; those of [`Database::close`].
pub async fn serve<S>(
    db: Arc<dyn Database>,
    incoming: impl Stream<Item = io::Result<S>> + Send,
    stop: impl Future<Output = ()> + Send,
) -> Result<()>
where
    S: AsyncRead + AsyncWrite + Connected + Unpin + Send + 'static,
{
    let service = StoreServer::new(Service(db.clone())).max_decoding_message_size(MESSAGE);
    let (close, closed) = oneshot::channel();
    let (ended, end) = oneshot::channel::<()>();
    // What waits for a commit or a watch ends with the engine; then the connections can.
    let stop = async move {
        stop.await;
        let _ = close.send(db.close().await);
        drop(ended);
    };
    let server = Server::builder()
        .initial_stream_window_size(WINDOW)
        .initial_connection_window_size(WINDOW)
        .max_concurrent_streams(STREAMS)
        .http2_keepalive_interval(Some(ALIVE.0))
        .http2_keepalive_timeout(Some(ALIVE.1))
        .add_service(service)
        .serve_with_incoming_shutdown(incoming, stop);
    let late = async {
        let _ = end.await;
        tokio::time::sleep(GRACE).await;
    };
    tokio::select! {
        outcome = server => outcome.map_err(|error| {
            Error::new(Class::Unavailable, "the store server can't accept connections").with(error)
        })?,
        () = late => {}
    }
    closed.await.unwrap_or(Ok(()))
}

struct Service(Arc<dyn Database>);

type Answer<T> = std::result::Result<Response<T>, Status>;

impl Service {
    fn begin(&self, version: Option<u64>) -> Box<dyn Transaction> {
        let mut tx = self.0.begin();
        if let Some(version) = version {
            tx.set_read_version(Version(version), Version(version));
        }
        tx
    }
}

fn refuse(error: Error) -> Status {
    wire::status(&error)
}

#[tonic::async_trait]
impl Store for Service {
    type CommitAndWatchStream = ReceiverStream<std::result::Result<v1::WatchEvent, Status>>;

    async fn read_version(&self, _: Request<v1::ReadVersionRequest>) -> Answer<v1::ReadVersionResponse> {
        let version = self.begin(None).read_version().await.map_err(refuse)?.0;
        Ok(Response::new(v1::ReadVersionResponse { version }))
    }

    async fn get(&self, request: Request<v1::GetRequest>) -> Answer<v1::GetResponse> {
        let request = request.into_inner();
        let mut tx = self.begin(request.version);
        let version = tx.read_version().await.map_err(refuse)?.0;
        let value = tx.get(&request.key, Isolation::Snapshot).await.map_err(refuse)?;
        Ok(Response::new(v1::GetResponse { version, value }))
    }

    async fn range(&self, request: Request<v1::RangeRequest>) -> Answer<v1::RangeResponse> {
        let v1::RangeRequest { version, begin, end, reverse, limit } = request.into_inner();
        let mut tx = self.begin(version);
        let version = tx.read_version().await.map_err(refuse)?.0;
        let limit = usize::try_from(limit).unwrap_or(usize::MAX);
        let select = Select { begin, end, reverse, limit };
        let page = tx.range(select, Isolation::Snapshot).await.map_err(refuse)?;
        let rows = page.rows.into_iter().map(|(key, value)| v1::Row { key, value }).collect();
        Ok(Response::new(v1::RangeResponse { version, rows, more: page.more }))
    }

    async fn commit(&self, request: Request<v1::CommitRequest>) -> Answer<v1::Committed> {
        let request = request.into_inner();
        let mut tx = self.begin(request.version);
        wire::replay(request, &mut *tx);
        Ok(Response::new(wire::committed(tx.commit().await.map_err(refuse)?)))
    }

    async fn commit_and_watch(
        &self,
        request: Request<v1::CommitRequest>,
    ) -> Answer<Self::CommitAndWatchStream> {
        let mut request = request.into_inner();
        let mut tx = self.begin(request.version);
        let keys = std::mem::take(&mut request.watches);
        wire::replay(request, &mut *tx);
        let watches = keys.iter().map(|key| tx.watch(key)).collect();
        let committed = tx.commit().await.map_err(refuse)?;
        let (events, receiver) = mpsc::channel(EVENTS);
        let first = v1::watch_event::Kind::Committed(wire::committed(committed));
        tokio::spawn(tell(first, watches, events));
        Ok(Response::new(ReceiverStream::new(receiver)))
    }
}

/// Sends the events of one transaction until all its watches ended or nobody listens any more.
async fn tell(
    first: v1::watch_event::Kind,
    watches: Vec<Fut<'static, Result<()>>>,
    events: mpsc::Sender<std::result::Result<v1::WatchEvent, Status>>,
) {
    let mut waiting = JoinSet::new();
    for (place, watch) in (0u32..).zip(watches) {
        waiting.spawn(async move { (place, watch.await) });
    }
    let mut event = Some(first);
    while let Some(kind) = event {
        if events.send(Ok(v1::WatchEvent { kind: Some(kind) })).await.is_err() {
            return;
        }
        event = tokio::select! {
            ended = waiting.join_next() => match ended {
                Some(Ok((place, Ok(())))) => Some(v1::watch_event::Kind::Changed(place)),
                Some(Ok((place, Err(error)))) => {
                    let failure = Some(wire::failure(&error));
                    Some(v1::watch_event::Kind::Failed(v1::FailedWatch { place, failure }))
                }
                Some(Err(_)) | None => None,
            },
            () = events.closed() => None,
        };
    }
}
