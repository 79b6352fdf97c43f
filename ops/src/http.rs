//! The HTTP listener: `/metrics`, `/healthz`, `/readyz` and a page of links. Small and hard to hold up: few connections
//! at a time, of which the oldest makes room for the next, short deadlines, small headers, no request bodies.
//!
//! It has no login: it listens on loopback unless the operator says otherwise, and shows nothing about any user.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::Router;
use axum::extract::{Request, State};
use axum::http::{StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{Html, IntoResponse, Response};
use axum::routing::get;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use parking_lot::Mutex;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;
use tokio::time::{sleep, timeout};

use crate::health::Health;
use crate::metrics;

/// What a client may take from us.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Connections at a time; the next takes the place of the oldest that is not being answered.
    pub connections: usize,
    /// How long a request's head may take, and how long a connection may say nothing between two requests.
    pub head: Duration,
    /// How long a connection may live, over all its requests.
    pub connection: Duration,
    /// How long open requests may go on after the stop.
    pub grace: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 64,
            head: Duration::from_secs(10),
            connection: Duration::from_secs(300),
            grace: Duration::from_secs(2),
        }
    }
}

/// The most header fields of a request, and the most bytes of its head.
const HEADERS: (usize, usize) = (64, 16 * 1024);

#[derive(Clone)]
struct Shared {
    health: Health,
    metrics: metrics::Handle,
}

/// The routes of every node. Others (uploads, WebSocket) can be merged into them.
pub fn routes(health: Health, metrics: metrics::Handle) -> Router {
    Router::new()
        .route("/", get(page))
        .route("/metrics", get(render))
        .route("/healthz", get(alive))
        .route("/readyz", get(ready))
        .layer(middleware::map_response(harden))
        .layer(middleware::from_fn(count))
        .with_state(Shared { health, metrics })
}

/// A connection that is open.
struct Open {
    /// Whether a request of it is being answered.
    busy: Arc<AtomicBool>,
    /// Told to make room.
    away: Arc<Notify>,
}

/// The connections that are open, oldest first.
#[derive(Default)]
struct Places {
    open: BTreeMap<u64, Open>,
    next: u64,
}

impl Places {
    /// Takes a place, if need be that of the oldest connection that is not being answered, else that of the oldest.
    fn take(&mut self, most: usize) -> (u64, Arc<AtomicBool>, Arc<Notify>) {
        if self.open.len() >= most {
            let idle = self.open.iter().find(|(_, open)| !open.busy.load(Ordering::Acquire));
            let oldest = idle.or_else(|| self.open.iter().next()).map(|(number, _)| *number);
            if let Some(open) = oldest.and_then(|number| self.open.remove(&number)) {
                open.away.notify_one();
                ::metrics::counter!("rookery_limits_hit_total", "limit" => "http_connections").increment(1);
            }
        }
        let (number, busy, away) = (self.next, Arc::<AtomicBool>::default(), Arc::<Notify>::default());
        self.next += 1;
        self.open.insert(number, Open { busy: busy.clone(), away: away.clone() });
        (number, busy, away)
    }
}

/// Serves `routes` on a bound listener until `stop` completes; then lets open requests end within `limits.grace`.
pub async fn serve(listener: TcpListener, routes: Router, limits: Limits, stop: impl Future<Output = ()>) {
    let places = Arc::new(Mutex::new(Places::default()));
    let graceful = GracefulShutdown::new();
    let mut stop = pin!(stop);
    loop {
        let accepted = tokio::select! {
            biased;
            () = &mut stop => break,
            accepted = listener.accept() => accepted,
        };
        let stream = match accepted {
            Ok((stream, _)) => stream,
            Err(error) => {
                // Out of file descriptors, or a client that left already. Do not spin on it.
                tracing::warn!(%error, "http: a connection could not be accepted");
                sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let (number, busy, away) = places.lock().take(limits.connections);
        let routes = routes.clone().layer(middleware::from_fn_with_state(busy, mark_busy));
        let connection = graceful.watch(connection(stream, routes, limits));
        let places = places.clone();
        tokio::spawn(async move {
            // What goes wrong with one client (reset, timeout, broken request) is its own affair.
            tokio::select! {
                _ = timeout(limits.connection, connection) => {}
                () = away.notified() => {}
            }
            places.lock().open.remove(&number);
        });
    }
    drop(listener);
    let _ = timeout(limits.grace, graceful.shutdown()).await;
}

/// Marks its connection while a request is being answered.
async fn mark_busy(State(busy): State<Arc<AtomicBool>>, request: Request, next: Next) -> Response {
    busy.store(true, Ordering::Release);
    let response = next.run(request).await;
    busy.store(false, Ordering::Release);
    response
}

type Connection = http1::Connection<TokioIo<TcpStream>, TowerToHyperService<Router>>;

fn connection(stream: TcpStream, routes: Router, limits: Limits) -> Connection {
    let (headers, bytes) = HEADERS;
    http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.head)
        .max_headers(headers)
        .max_header_size(bytes)
        .max_buf_size(2 * bytes)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(routes))
}

/// Alive: the runtime turns. That is all that a restart could mend.
async fn alive() -> &'static str {
    "ok\n"
}

async fn ready(State(shared): State<Shared>) -> Response {
    let reasons = shared.health.reasons();
    if reasons.is_empty() {
        return "ready\n".into_response();
    }
    let text: String = reasons.iter().flat_map(|reason| [reason.text(), "\n"]).collect();
    (StatusCode::SERVICE_UNAVAILABLE, text).into_response()
}

async fn render(State(shared): State<Shared>) -> Response {
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], shared.metrics.render())
        .into_response()
}

async fn page(State(shared): State<Shared>) -> Html<String> {
    let state = if shared.health.is_ready() { "ready" } else { "not ready" };
    let (version, minutes) = (crate::VERSION, shared.metrics.uptime().as_secs() / 60);
    Html(format!(
        "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><title>Rookery</title>\
         <h1>Rookery {version}</h1><p>This node is {state}; it has been up for {minutes} minutes.</p>\
         <ul><li><a href=\"/metrics\">/metrics</a>: what it measures, for Prometheus</li>\
         <li><a href=\"/healthz\">/healthz</a>: whether it is alive</li>\
         <li><a href=\"/readyz\">/readyz</a>: whether it takes work, and if not, why</li></ul></html>\n"
    ))
}

/// Nothing here is to be kept, framed, guessed at or scripted.
async fn harden(mut response: Response) -> Response {
    for (name, value) in [
        (header::CACHE_CONTROL, "no-store"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::CONTENT_SECURITY_POLICY, "default-src 'none'; frame-ancestors 'none'"),
    ] {
        response.headers_mut().insert(name, header::HeaderValue::from_static(value));
    }
    response
}

async fn count(request: Request, next: Next) -> Result<Response, Infallible> {
    // Labels are ours: what a client asks for that we do not have is "other".
    let path = match request.uri().path() {
        "/metrics" => "/metrics",
        "/healthz" => "/healthz",
        "/readyz" => "/readyz",
        "/" => "/",
        _ => "other",
    };
    let response = next.run(request).await;
    let status = response.status().as_str().to_owned();
    ::metrics::counter!("rookery_http_requests_total", "path" => path, "status" => status).increment(1);
    Ok(response)
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::sync::oneshot;

    use super::*;
    use crate::health::Reason;

    struct Server {
        health: Health,
        port: u16,
        stop: oneshot::Sender<()>,
        task: tokio::task::JoinHandle<()>,
    }

    fn start(limits: Limits) -> Server {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let listener = TcpListener::from_std(listener).unwrap();
        let port = listener.local_addr().unwrap().port();
        let (health, (stop, stopped)) = (Health::new(), oneshot::channel());
        // Not installed: recorders are global, and tests share a process.
        let (_, metrics) = metrics::recorder().unwrap();
        let routes = routes(health.clone(), metrics);
        let task = tokio::spawn(serve(listener, routes, limits, async {
            let _ = stopped.await;
        }));
        Server { health, port, stop, task }
    }

    fn dial(port: u16) -> TcpStream {
        let stream = std::net::TcpStream::connect(("127.0.0.1", port)).unwrap();
        stream.set_nonblocking(true).unwrap();
        TcpStream::from_std(stream).unwrap()
    }

    async fn ask(port: u16, request: &str) -> String {
        let mut stream = dial(port);
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    }

    async fn get_page(port: u16, path: &str) -> String {
        ask(port, &format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")).await
    }

    #[tokio::test]
    async fn pages_answer_over_a_socket() {
        let server = start(Limits::default());
        let page = get_page(server.port, "/readyz").await;
        assert!(page.starts_with("HTTP/1.1 503") && page.ends_with("starting\n"), "{page}");
        server.health.clear(Reason::Starting);
        let page = get_page(server.port, "/readyz").await;
        assert!(page.starts_with("HTTP/1.1 200") && page.ends_with("ready\n"), "{page}");
        server.health.raise(Reason::Draining);
        server.health.raise(Reason::StoreUnavailable);
        let page = get_page(server.port, "/readyz").await;
        assert!(page.ends_with("draining\nstore unavailable\n"), "{page}");
        assert!(get_page(server.port, "/healthz").await.starts_with("HTTP/1.1 200"));

        let page = get_page(server.port, "/metrics").await;
        assert!(page.contains("text/plain; version=0.0.4") && page.contains("rookery_build_info"), "{page}");
        let page = get_page(server.port, "/").await;
        assert!(page.contains("nosniff") && page.contains("href=\"/metrics\""), "{page}");
        assert!(get_page(server.port, "/etc/passwd").await.starts_with("HTTP/1.1 404"));
        let page = ask(server.port, "POST /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await;
        assert!(page.starts_with("HTTP/1.1 405"), "{page}");

        server.stop.send(()).unwrap();
        server.task.await.unwrap();
    }

    #[tokio::test]
    async fn a_big_head_and_a_slow_head_are_cut_off() {
        let server = start(Limits { head: Duration::from_millis(50), ..Limits::default() });
        let long = "x".repeat(20_000);
        let page = ask(server.port, &format!("GET / HTTP/1.1\r\nX: {long}\r\n\r\n")).await;
        assert!(page.starts_with("HTTP/1.1 431"), "{page}");
        // A head that never ends: the server, not we, ends the connection.
        let page = ask(server.port, "GET / HTTP/1.1\r\nHost: localhost\r\n").await;
        assert!(!page.starts_with("HTTP/1.1 200"), "{page}");
    }

    #[tokio::test]
    async fn idle_connections_keep_nobody_out() {
        let server = start(Limits { connections: 8, ..Limits::default() });
        let mut idle: Vec<_> = (0..64).map(|_| dial(server.port)).collect();
        // One of them keeps its connection after an answer: it is as idle as the others.
        idle[63].write_all(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
        assert!(idle[63].read(&mut [0; 1_024]).await.unwrap() > 0);
        for _ in 0..20 {
            assert!(get_page(server.port, "/healthz").await.ends_with("ok\n"));
        }
        // The oldest have gone.
        assert_eq!(idle[0].read(&mut [0]).await.unwrap(), 0);
    }

    #[tokio::test]
    async fn no_connection_outlives_its_time_or_says_nothing_for_long() {
        let server = start(Limits { connection: Duration::from_millis(100), ..Limits::default() });
        assert_eq!(dial(server.port).read(&mut [0]).await.unwrap(), 0);
        let server = start(Limits { head: Duration::from_millis(100), ..Limits::default() });
        assert_eq!(dial(server.port).read(&mut [0]).await.unwrap(), 0);
        let mut kept = dial(server.port);
        kept.write_all(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
        let mut all = String::new();
        kept.read_to_string(&mut all).await.unwrap();
        assert!(all.ends_with("ok\n"), "{all}");
    }
}
