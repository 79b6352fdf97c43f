//! The service: connections from accept to end.

use std::future::Future;
use std::io;
use std::net::IpAddr;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::Router;
use hyper::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::{Service as _, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::places::{Place, Places};
use super::{Client, Limits, Routes, Tls, Trusted};

/// Makes the connection of an accepted socket.
pub trait Secure: Send + Sync + 'static {
    /// What is read and written.
    type Stream: AsyncRead + AsyncWrite + Unpin + Send + 'static;

    /// A TLS handshake, or nothing. The caller limits the time.
    fn secure(
        &self,
        socket: TcpStream,
    ) -> impl Future<Output = io::Result<(Self::Stream, Option<Tls>)>> + Send;
}

/// No TLS.
#[derive(Clone, Copy, Debug, Default)]
pub struct Plain;

impl Secure for Plain {
    type Stream = TcpStream;

    async fn secure(&self, socket: TcpStream) -> io::Result<(TcpStream, Option<Tls>)> {
        Ok((socket, None))
    }
}

/// What is served, and how.
pub struct Service<S> {
    /// What is mounted.
    pub routes: Routes,
    /// What clients may take.
    pub limits: Limits,
    /// TLS, or none.
    pub secure: S,
    /// The proxies that are believed.
    pub trusted: Trusted,
}

/// What the connections of one listener share.
struct Shared<S> {
    service: TowerToHyperService<Router>,
    limits: Limits,
    secure: S,
    trusted: Trusted,
    places: Mutex<Places>,
}

impl<S: Secure> Service<S> {
    /// Serves on a bound listener until `stop` completes; then lets open requests end within `limits.grace`.
    pub async fn serve(self, listener: TcpListener, stop: impl Future<Output = ()>) {
        let Self { routes, limits, secure, trusted } = self;
        let (service, places) = (TowerToHyperService::new(routes.finish()), Mutex::default());
        let shared = Arc::new(Shared { service, limits, secure, trusted, places });
        let (ending, ends) = watch::channel(false);
        let mut tasks = JoinSet::new();
        let mut stop = pin!(stop);
        loop {
            let accepted = tokio::select! {
                biased;
                () = &mut stop => break,
                // Those that have ended are forgotten.
                Some(_) = tasks.join_next() => continue,
                accepted = listener.accept() => accepted,
            };
            match accepted {
                Ok((socket, peer)) => {
                    tasks.spawn(connection(shared.clone(), socket, peer.ip(), ends.clone()));
                }
                Err(error) => {
                    // Out of file descriptors, or a client that left already. Do not spin on it.
                    tracing::warn!(%error, "http: a connection could not be accepted");
                    sleep(Duration::from_millis(100)).await;
                }
            }
        }
        drop(listener);
        let _ = ending.send(true);
        // A connection that is not done then is cut off with the set.
        let _ = timeout(limits.grace, async { while tasks.join_next().await.is_some() {} }).await;
    }
}

/// One connection. What goes wrong with one client (reset, timeout, broken request) is its own affair.
async fn connection<S: Secure>(
    shared: Arc<Shared<S>>,
    socket: TcpStream,
    peer: IpAddr,
    ends: watch::Receiver<bool>,
) {
    let counted = (!(shared.trusted)(peer.to_canonical())).then_some(peer);
    let place = shared.places.lock().take(counted, &shared.limits);
    tokio::select! {
        () = answer(&shared, socket, peer, &place, ends) => {}
        () = place.away.notified() => {}
    }
    shared.places.lock().leave(place.number);
}

/// Answers requests until the client, the connection's time or the service ends.
async fn answer<S: Secure>(
    shared: &Arc<Shared<S>>,
    socket: TcpStream,
    peer: IpAddr,
    place: &Place,
    mut ends: watch::Receiver<bool>,
) {
    let limits = shared.limits;
    let over = Instant::now() + limits.connection;
    let secured = tokio::select! {
        secured = timeout(limits.head, shared.secure.secure(socket)) => secured,
        _ = ends.wait_for(|ends| *ends) => return,
    };
    let (stream, tls) = match secured {
        Ok(Ok((stream, tls))) => (stream, tls.map(Arc::new)),
        Ok(Err(error)) => return tracing::debug!(%peer, %error, "http: TLS handshake failed"),
        Err(_) => return tracing::debug!(%peer, "http: TLS handshake took too long"),
    };
    let (shared, busy) = (shared.clone(), place.busy.clone());
    let service = service_fn(move |mut request: Request<Incoming>| {
        let client = Client::of(peer, tls.clone(), request.headers(), &shared.trusted);
        request.extensions_mut().insert(client);
        request.extensions_mut().insert(limits);
        let busy = Busy::new(busy.clone());
        let response = shared.service.call(request);
        async move {
            let response = response.await;
            drop(busy);
            response
        }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.head)
        .max_headers(limits.fields)
        .max_header_size(limits.head_bytes)
        .max_buf_size(2 * limits.head_bytes)
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades();
    let mut connection = pin!(connection);
    tokio::select! {
        _ = connection.as_mut() => return,
        () = sleep_until(over) => {}
        _ = ends.wait_for(|ends| *ends) => {}
    }
    // What is being answered is answered, and nothing more.
    connection.as_mut().graceful_shutdown();
    let _ = timeout(limits.grace, connection).await;
}

/// Marks its connection while a request is being answered.
struct Busy(Arc<AtomicBool>);

impl Busy {
    fn new(busy: Arc<AtomicBool>) -> Self {
        busy.store(true, Ordering::Release);
        Self(busy)
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Release);
    }
}
