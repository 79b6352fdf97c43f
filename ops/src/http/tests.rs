//! The service over real sockets.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Bytes;
use axum::extract::{Extension, Path, Request};
use axum::http::{Method, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;
use tokio::sync::oneshot;

use super::*;
use crate::health::{Health, Reason};
use crate::metrics;

struct Server {
    health: Health,
    port: u16,
    stop: oneshot::Sender<()>,
    task: tokio::task::JoinHandle<()>,
}

fn start(limits: Limits) -> Server {
    let health = Health::new();
    // Not installed: recorders are global, and tests share a process.
    let (_, metrics) = metrics::recorder().unwrap();
    start_with(limits, operator(health.clone(), metrics), health)
}

fn start_with(limits: Limits, routes: Routes, health: Health) -> Server {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let listener = TcpListener::from_std(listener).unwrap();
    let port = listener.local_addr().unwrap().port();
    let (stop, stopped) = oneshot::channel();
    // Every caller from the test's own address counts as a proxy.
    let service =
        Service { routes, limits, secure: Plain, trusted: Arc::new(|address| address.is_loopback()) };
    let task = tokio::spawn(service.serve(listener, async {
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

async fn echo(Extension(client): Extension<Client>, body: Bytes) -> String {
    format!("{} {} {}", client.address, client.secure, body.len())
}

#[tokio::test]
async fn features_mount_routes_with_limits_of_their_own() {
    let below = |Path(rest): Path<String>| async move { rest };
    let small = Routes::new(10).at(&Method::POST, "/small", echo).below(&Method::GET, "/files", below);
    let routes = small.and(Routes::new(100_000).at(&Method::POST, "/large", echo));
    let limits = Limits { body: Duration::from_millis(50), ..Limits::default() };
    let server = start_with(limits, routes, Health::new());
    let post = |path: &str, len: usize| {
        format!(
            "POST {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {len}\r\n\r\n{}",
            "x".repeat(len)
        )
    };
    assert!(ask(server.port, &post("/small", 10)).await.ends_with("127.0.0.1 false 10"));
    assert!(ask(server.port, &post("/large", 50_000)).await.ends_with("127.0.0.1 false 50000"));
    // Too large by its own word, and without one.
    assert!(ask(server.port, &post("/small", 11)).await.starts_with("HTTP/1.1 413"));
    let chunked = "POST /small HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n14\r\nxxxxxxxxxxxxxxxxxxxx\r\n0\r\n\r\n";
    assert!(ask(server.port, chunked).await.starts_with("HTTP/1.1 413"));
    // One that does not come: the server, not we, ends the connection.
    let slow = "POST /small HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nxx";
    assert!(ask(server.port, slow).await.starts_with("HTTP/1.1 408"));
    let page = get_page(server.port, "/files/a/b").await;
    assert!(page.starts_with("HTTP/1.1 200") && page.ends_with("a/b"), "{page}");
    assert!(get_page(server.port, "/files").await.starts_with("HTTP/1.1 404"));
    let behind = "POST /small HTTP/1.1\r\nHost: x\r\nConnection: close\r\nX-Forwarded-For: 203.0.113.7\r\n\
                  X-Forwarded-Proto: https\r\nContent-Length: 0\r\n\r\n";
    assert!(ask(server.port, behind).await.ends_with("203.0.113.7 true 0"));
}

#[tokio::test]
async fn what_is_being_answered_at_the_end_is_answered() {
    let (begun, go) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let (inside, wait) = (begun.clone(), go.clone());
    let slow = move || {
        let (begun, go) = (inside.clone(), wait.clone());
        async move {
            begun.notify_one();
            go.notified().await;
            "done"
        }
    };
    let routes = Routes::new(0).at(&Method::GET, "/slow", slow);
    let server =
        start_with(Limits { grace: Duration::from_secs(60), ..Limits::default() }, routes, Health::new());
    let mut idle = dial(server.port);
    let mut busy = dial(server.port);
    busy.write_all(b"GET /slow HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
    begun.notified().await;
    server.stop.send(()).unwrap();
    assert_eq!(idle.read(&mut [0]).await.unwrap(), 0, "nobody waits for who is idle");
    go.notify_one();
    let mut answer = String::new();
    busy.read_to_string(&mut answer).await.unwrap();
    assert!(answer.ends_with("done"), "{answer}");
    server.task.await.unwrap();
}

/// What WebSocket does.
#[tokio::test]
async fn a_connection_that_changes_its_protocol_is_none_of_the_service_any_more() {
    async fn upgrade(mut request: Request) -> Response {
        let upgraded = hyper::upgrade::on(&mut request);
        tokio::spawn(async move {
            let mut io = TokioIo::new(upgraded.await.unwrap());
            let mut byte = [0];
            while io.read(&mut byte).await.unwrap() > 0 {
                io.write_all(&byte).await.unwrap();
            }
        });
        let headers = [(header::CONNECTION, "upgrade"), (header::UPGRADE, "echo")];
        (StatusCode::SWITCHING_PROTOCOLS, headers).into_response()
    }
    let routes = Routes::new(0).at(&Method::GET, "/echo", upgrade);
    let server = start_with(Limits { connections: 1, ..Limits::default() }, routes, Health::new());
    let mut client = dial(server.port);
    let request = b"GET /echo HTTP/1.1\r\nHost: x\r\nConnection: upgrade\r\nUpgrade: echo\r\n\r\n1";
    client.write_all(request).await.unwrap();
    let mut answer = String::new();
    while !answer.ends_with("\r\n\r\n1") {
        answer.push(char::from(client.read_u8().await.unwrap()));
    }
    assert!(answer.starts_with("HTTP/1.1 101"), "{answer}");
    // Such a connection takes nobody's place, and the end of the service is not its end.
    assert!(get_page(server.port, "/nothing").await.starts_with("HTTP/1.1 404"));
    server.stop.send(()).unwrap();
    server.task.await.unwrap();
    client.write_all(b"2").await.unwrap();
    assert_eq!(client.read_u8().await.unwrap(), b'2');
}
