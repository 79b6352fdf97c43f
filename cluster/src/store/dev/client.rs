//! The client: a database that is elsewhere.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant as Stopwatch};

use bytes::Bytes;
use rookery_rpc::store::v1;
use rookery_rpc::store::v1::store_client::StoreClient;
use tokio::sync::watch;
use tokio::time::{Instant, timeout};
use tonic::transport::{Channel, Endpoint};
use tonic::{Response, Status, Streaming};

use super::{ALIVE, MESSAGE, WINDOW, wire};
use crate::store::buffered::{Base, Buffered, Commit, Watched};
use crate::store::engine::CLOSED;
use crate::store::{
    Class, Committed, Database, Error, Fut, Page, Result, Select, Transaction, Version, limits, meter,
};

/// How long a call may take; a commit's outcome is unknown then.
const CALL: Duration = Duration::from_secs(5);
/// How long the server may take to accept a connection.
const CONNECT: Duration = Duration::from_secs(2);

/// A database of a development server. One connection, made at the first call and again whenever it broke.
#[derive(Clone)]
pub struct Remote(Arc<Inner>);

struct Inner {
    client: StoreClient<Channel>,
    closed: watch::Sender<bool>,
    /// Microseconds that tests have let pass.
    passed: AtomicU64,
}

impl Remote {
    /// The database of the server at `address`, as in `127.0.0.1:7300`. Must be called within a tokio runtime; does not
    /// connect yet.
    ///
    /// # Errors
    /// [`Class::Misuse`] if that is no address.
    pub fn new(address: &str) -> Result<Self> {
        Ok(Self::over(Self::endpoint(address)?.connect_lazy()))
    }

    /// How connections to `address` should be made: for [`Endpoint::connect_with_connector_lazy`] in a simulation.
    ///
    /// # Errors
    /// [`Class::Misuse`] if that is no address.
    pub fn endpoint(address: &str) -> Result<Endpoint> {
        let wrong = || Error::new(Class::Misuse, "not the address of a store server").with(address);
        let (host, port) = address.rsplit_once(':').ok_or_else(wrong)?;
        if host.is_empty() || port.parse::<u16>().is_err() || address.contains('/') {
            return Err(wrong());
        }
        let endpoint = Endpoint::from_shared(format!("http://{address}")).map_err(|_| wrong())?;
        Ok(endpoint
            .connect_timeout(CONNECT)
            .tcp_nodelay(true)
            .initial_stream_window_size(WINDOW)
            .initial_connection_window_size(WINDOW)
            .http2_keep_alive_interval(ALIVE.0)
            .keep_alive_timeout(ALIVE.1)
            .keep_alive_while_idle(true))
    }

    /// The database behind a channel made otherwise.
    pub fn over(channel: Channel) -> Self {
        let client = StoreClient::new(channel).max_decoding_message_size(MESSAGE);
        Self(Arc::new(Inner { client, closed: watch::Sender::new(false), passed: AtomicU64::new(0) }))
    }

    /// Lets time pass for the age of transactions, for tests.
    #[doc(hidden)]
    pub fn pass(&self, time: Duration) {
        let micros = u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        self.0.passed.fetch_add(micros, Ordering::Relaxed);
    }
}

impl Database for Remote {
    fn begin(&self) -> Box<dyn Transaction> {
        Box::new(Buffered::new(Away { server: self.0.clone(), seen: None, wanted: None }))
    }

    fn engine(&self) -> &'static str {
        "dev"
    }

    /// What is committed is the server's to keep; this ends the watches and later transactions.
    fn close(&self) -> Fut<'_, Result<()>> {
        self.0.closed.send_replace(true);
        Box::pin(std::future::ready(Ok(())))
    }
}

impl Inner {
    fn now(&self) -> Instant {
        Instant::now() + Duration::from_micros(self.passed.load(Ordering::Relaxed))
    }

    /// Makes a call. `commit`: whether it may have had an effect if it is not answered.
    async fn call<T, F>(&self, commit: bool, call: impl FnOnce(StoreClient<Channel>) -> F) -> Result<T>
    where
        F: Future<Output = std::result::Result<Response<T>, Status>>,
    {
        if *self.closed.borrow() {
            return Err(CLOSED);
        }
        match timeout(CALL, call(self.client.clone())).await {
            Ok(Ok(answer)) => Ok(answer.into_inner()),
            Ok(Err(status)) => Err(wire::error(&status, commit)),
            Err(_) if commit => {
                Err(Error::new(Class::MaybeCommitted, "the store server did not answer a commit in time"))
            }
            Err(_) => Err(Error::new(Class::Unavailable, "the store server did not answer in time")),
        }
    }

    async fn read<T, F>(&self, call: impl FnOnce(StoreClient<Channel>) -> F) -> Result<T>
    where
        F: Future<Output = std::result::Result<Response<T>, Status>>,
    {
        let since = Stopwatch::now();
        let outcome = self.call(false, call).await;
        match &outcome {
            Ok(_) => meter::read(since),
            Err(error) => meter::refused(error),
        }
        outcome
    }
}

/// A transaction's hold on the server: its read version.
struct Away {
    server: Arc<Inner>,
    /// The version, and when it was asked for.
    seen: Option<(Version, Instant)>,
    /// At which version to read, and by which to be judged.
    wanted: Option<(Version, Version)>,
}

impl Away {
    /// The version to read at, if there is one yet.
    fn current(&mut self) -> Result<Option<u64>> {
        let now = self.server.now();
        if self.seen.is_none() {
            self.seen = self.wanted.map(|(version, _)| (version, now));
        }
        match self.seen {
            Some((_, began)) if began + limits::AGE < now => {
                let error = Error::too_old();
                meter::refused(&error);
                Err(error)
            }
            seen => Ok(seen.map(|(version, _)| version.0)),
        }
    }

    fn saw(&mut self, version: u64, began: Instant) {
        self.seen.get_or_insert((Version(version), began));
    }
}

impl Base for Away {
    fn pin(&mut self, version: Version, judged: Version) {
        self.wanted = Some((version, judged));
    }

    async fn version(&mut self) -> Result<Version> {
        if let Some(version) = self.current()? {
            return Ok(Version(version));
        }
        let began = self.server.now();
        let call = |mut client: StoreClient<Channel>| async move {
            client.read_version(v1::ReadVersionRequest {}).await
        };
        let version = self.server.read(call).await?.version;
        self.saw(version, began);
        Ok(Version(version))
    }

    async fn get(&mut self, key: &[u8]) -> Result<Option<Bytes>> {
        let request = v1::GetRequest { version: self.current()?, key: Bytes::copy_from_slice(key) };
        let began = self.server.now();
        let call = |mut client: StoreClient<Channel>| async move { client.get(request).await };
        let answer = self.server.read(call).await?;
        self.saw(answer.version, began);
        Ok(answer.value)
    }

    async fn page(&mut self, select: &Select) -> Result<Page> {
        let Select { begin, end, reverse, limit } = select.clone();
        let limit = u64::try_from(limit).unwrap_or(u64::MAX);
        let request = v1::RangeRequest { version: self.current()?, begin, end, reverse, limit };
        let began = self.server.now();
        let call = |mut client: StoreClient<Channel>| async move { client.range(request).await };
        let answer = self.server.read(call).await?;
        self.saw(answer.version, began);
        let rows = answer.rows.into_iter().map(|row| (row.key, row.value)).collect();
        Ok(Page { rows, more: answer.more })
    }

    async fn commit(mut self, mut commit: Commit) -> Result<Committed> {
        let (since, bytes) = (Stopwatch::now(), commit.pending.size());
        let writes = !commit.pending.is_empty();
        if !writes && commit.watches.is_empty() {
            let version = match self.seen {
                Some((version, _)) => version,
                None => self.version().await?,
            };
            return Ok(Committed { version, versionstamp: [0; 10] });
        }
        let judged = self.seen.map(|(version, _)| self.wanted.map_or(version, |(_, judged)| judged));
        let request = wire::request(judged, &mut commit);
        let watches = std::mem::take(&mut commit.watches);
        let outcome = if watches.is_empty() {
            let call = |mut client: StoreClient<Channel>| async move { client.commit(request).await };
            self.server.call(writes, call).await.map(|answer| wire::read_committed(&answer))
        } else {
            commit_and_watch(self.server, request, watches, writes).await
        };
        match &outcome {
            Ok(_) => meter::committed(since, bytes),
            Err(error) => meter::refused(error),
        }
        outcome
    }
}

async fn commit_and_watch(
    server: Arc<Inner>,
    request: v1::CommitRequest,
    watches: Vec<Watched>,
    writes: bool,
) -> Result<Committed> {
    use v1::watch_event::Kind;
    let mut waiting: Vec<Option<Watched>> = watches.into_iter().map(Some).collect();
    let call = |mut client: StoreClient<Channel>| async move {
        let mut events = client.commit_and_watch(request).await?.into_inner();
        match events.message().await?.and_then(|event| event.kind) {
            Some(Kind::Committed(committed)) => Ok(Response::new((wire::read_committed(&committed), events))),
            _ => Err(Status::internal("the store server did not say how the commit went")),
        }
    };
    let (committed, mut events) = server.call(writes, call).await?;
    let mut closed = server.closed.subscribe();
    tokio::spawn(async move {
        let ended = tokio::select! {
            error = forward(&mut events, &mut waiting) => error,
            _ = closed.wait_for(|closed| *closed) => CLOSED,
        };
        for watched in waiting.into_iter().flatten() {
            let _ = watched.wake.send(Err(ended.clone()));
        }
    });
    Ok(committed)
}

/// Wakes the waiters, until none is left or nothing more is to be heard.
async fn forward(events: &mut Streaming<v1::WatchEvent>, waiting: &mut [Option<Watched>]) -> Error {
    use v1::watch_event::Kind;
    let lost = |detail: String| {
        Error::new(Class::Unavailable, "the connection to the store server is lost").with(detail)
    };
    loop {
        let event = tokio::select! {
            event = events.message() => event,
            () = forgotten(waiting) => return lost(String::new()),
        };
        let (place, outcome) = match event {
            Ok(Some(v1::WatchEvent { kind: Some(Kind::Changed(place)) })) => (place, Ok(())),
            Ok(Some(v1::WatchEvent { kind: Some(Kind::Failed(failed)) })) => {
                let error = failed.failure.as_ref().and_then(wire::read_failure);
                (failed.place, Err(error.unwrap_or_else(|| lost("the watch failed".to_owned()))))
            }
            Ok(Some(_)) => continue,
            Ok(None) => return lost("the server ended the watches".to_owned()),
            Err(status) => return lost(status.message().to_owned()),
        };
        let watched = usize::try_from(place).ok().and_then(|place| waiting.get_mut(place)?.take());
        if let Some(watched) = watched {
            let _ = watched.wake.send(outcome);
        }
    }
}

/// Completes when nobody waits any more.
async fn forgotten(waiting: &mut [Option<Watched>]) {
    for watched in waiting.iter_mut().flatten() {
        watched.wake.closed().await;
    }
}
