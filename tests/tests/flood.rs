//! Ten thousand connections that never log in, against one process: sessions notice nothing.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::disallowed_methods,
    missing_docs,
    reason = "test code"
)]

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rookery_tests::client::{Client, Event, Options, Security};
use rookery_tests::load::usage;
use rookery_tests::server::rookery::{Config, Rookery};
use rookery_tests::xml;
use tokio::sync::{Mutex, Semaphore, oneshot};
use tokio::task::JoinSet;

const FLOOD: usize = 10_000;
/// How many connect at the same time: less than the kernel's backlog.
const AT_ONCE: usize = 256;
/// What a chatting pair would notice. A debug build on a busy machine stays far below; a starved one does not.
const NOTICED: Duration = Duration::from_secs(2);
/// Both tests together would need more files than a process may open.
static ONE_AT_A_TIME: Mutex<()> = Mutex::const_new(());

/// Limits as they come, but for those named; ten thousand need more files than some systems give.
async fn server(limits: &str) -> Option<Rookery> {
    if usage::file_limit() < FLOOD + 1_000 {
        println!("skipped: {} open files are too few for {FLOOD} connections", usage::file_limit());
        return None;
    }
    let config = Config { limits: limits.into(), ..Config::default() };
    let server = Rookery::start(&config).await.unwrap_or_else(|e| panic!("{e}"));
    let users = [("romeo@localhost", "secret"), ("juliet@localhost", "secret")];
    server.add_users(users).unwrap_or_else(|e| panic!("{e}"));
    Some(server)
}

/// The sum of the samples whose lines begin so.
async fn metric(server: &Rookery, name: &str) -> f64 {
    let text = server.metrics().await.unwrap();
    let lines = text.lines().filter(|l| l.starts_with(name));
    lines.filter_map(|l| l.rsplit(' ').next()?.parse::<f64>().ok()).sum()
}

/// Two clients that chat from the moment they are told to until they are stopped.
struct Pair {
    stop: oneshot::Sender<()>,
    chat: tokio::task::JoinHandle<(usize, Duration)>,
}

impl Pair {
    async fn start(options: &Options) -> Pair {
        let login = async |user| Client::login(options, user, "secret", "r").await.unwrap();
        let (mut romeo, mut juliet) = (login("romeo").await, login("juliet").await);
        romeo.available().await.unwrap();
        juliet.available().await.unwrap();
        let (stop, mut stopped) = oneshot::channel();
        let chat = tokio::spawn(async move {
            let (mut count, mut worst) = (0, Duration::ZERO);
            while stopped.try_recv() == Err(oneshot::error::TryRecvError::Empty) {
                let sent = Instant::now();
                let line =
                    format!("<message to='{}' type='chat'><body>n{count}.</body></message>", juliet.jid);
                romeo.send(&line).await.unwrap();
                let got = juliet.wait("the line", |e| e.is("message", xml::CLIENT)).await.unwrap();
                assert!(got.to_string().contains(&format!("n{count}.")), "{got}");
                worst = worst.max(sent.elapsed());
                count += 1;
            }
            assert!(romeo.kept.is_empty() && juliet.kept.is_empty(), "{:?} {:?}", romeo.kept, juliet.kept);
            (count, worst)
        });
        Pair { stop, chat }
    }

    /// How many lines they exchanged, none of which took long.
    async fn notices_nothing(self) -> usize {
        let _ = self.stop.send(());
        let (count, worst) = self.chat.await.unwrap();
        println!("{count} lines, the slowest took {worst:?}");
        assert!(worst < NOTICED, "a line took {worst:?}");
        count
    }
}

/// The stream error's condition, if any, that ends a client which says nothing after the header.
async fn told(client: &mut Client) -> Option<String> {
    let mut condition = None;
    loop {
        // No deadline here: the test has one for all of them.
        match client.fresh().await {
            Ok(Event::Element(e)) if e.is("error", xml::STREAMS) => {
                condition = e.children().next().map(|c| c.name.clone());
            }
            Ok(Event::Element(_)) => {}
            _ => return condition,
        }
    }
}

/// Opens so many connections, a few hundred at a time, each from the address for its number.
async fn flood<T: Send + 'static>(
    one: impl Fn(usize) -> std::pin::Pin<Box<dyn Future<Output = T> + Send>>,
) -> Vec<T> {
    let gate = Arc::new(Semaphore::new(AT_ONCE));
    let mut opening = JoinSet::new();
    for n in 0..FLOOD {
        let (gate, open) = (gate.clone(), one(n));
        opening.spawn(async move {
            let _one = gate.acquire().await;
            open.await
        });
    }
    opening.join_all().await
}

#[tokio::test(flavor = "multi_thread")]
async fn from_many_addresses_all_are_let_in_and_sent_away_when_their_time_is_up() {
    let _alone = ONE_AT_A_TIME.lock().await;
    let limits = format!("connections_before_login = {}\nlogin_seconds = 25", FLOOD + 100);
    let Some(server) = server(&limits).await else { return };
    let options = server.listening.options();
    let pair = Pair::start(&options).await;
    let clients = flood(|n| {
        // 125 addresses with 80 connections each: below the limit of one address. A few speak TLS.
        let mut options = options.with(if n % 100 == 0 { Security::Direct } else { Security::None });
        options.source = Some(address(2, n % 125));
        Box::pin(
            async move { Client::open(&options).await.unwrap_or_else(|e| panic!("connection {n}: {e}")) },
        )
    })
    .await;
    assert_eq!(clients.len(), FLOOD);
    // All of them at once, and the pair: nobody was sent away yet.
    assert!(metric(&server, "rookery_connections{").await >= (FLOOD + 2) as f64);
    let mut closing = JoinSet::new();
    for mut client in clients {
        closing.spawn(async move { told(&mut client).await });
    }
    for condition in closing.join_all().await {
        assert_eq!(condition.as_deref(), Some("connection-timeout"));
    }
    assert!(pair.notices_nothing().await > 100);
    let timed_out = metric(&server, "rookery_limits_hit_total{limit=\"login_seconds\"}").await;
    assert!(timed_out >= FLOOD as f64, "{timed_out}");
}

#[tokio::test(flavor = "multi_thread")]
async fn from_one_address_few_are_kept_and_the_oldest_goes() {
    const KEPT: usize = 100; // the default of `connections_before_login_per_address`
    let _alone = ONE_AT_A_TIME.lock().await;
    // Nobody is sent away because of the time: each that comes takes the place of one that has not logged in.
    let limits = format!("connections_before_login = {}\nlogin_seconds = 3600", FLOOD + 100);
    let Some(server) = server(&limits).await else { return };
    let options = server.listening.options();
    let pair = Pair::start(&options).await;
    let clients = flood(|_| {
        let mut options = options.with(Security::None);
        options.source = Some(address(3, 0));
        Box::pin(async move { Client::open(&options).await })
    })
    .await;
    let limit = "rookery_limits_hit_total{limit=\"connections_before_login_per_address\"}";
    assert_eq!(metric(&server, limit).await, (FLOOD - KEPT) as f64);
    while metric(&server, "rookery_connections{").await > (KEPT + 2) as f64 {
        tokio::task::yield_now().await; // the last ones are on their way out
    }
    // A client from there that logs in is let in, and the next address has nothing to do with it.
    let mut same = options.clone();
    same.source = Some(address(3, 0));
    let mut juliet = Client::login(&same, "juliet", "secret", "other").await.unwrap();
    juliet.iq_ok("get", "localhost", "<ping xmlns='urn:xmpp:ping'/>").await.unwrap();
    drop(clients);
    let mut neighbour = options.clone();
    neighbour.source = Some(address(3, 1));
    let mut romeo = Client::login(&neighbour, "romeo", "secret", "other").await.unwrap();
    romeo.iq_ok("get", "localhost", "<ping xmlns='urn:xmpp:ping'/>").await.unwrap();
    assert!(pair.notices_nothing().await > 10);
}

/// An address of the loopback network.
fn address(net: u8, host: usize) -> IpAddr {
    Ipv4Addr::new(127, 1, net, u8::try_from(host + 1).unwrap()).into()
}
