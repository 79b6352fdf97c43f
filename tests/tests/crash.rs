//! kill -9 under load, ten times: what was acknowledged is there, and what was sent arrives, in order.
//!
//! Nothing comes twice either: what a client has got, confirmed or not, is covered by the count that it comes back with.
//! Archives hold each message once.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    missing_docs,
    reason = "test code"
)]

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use rookery_tests::client::{Client, Error, Event, Lost, Options, SM};
use rookery_tests::server::rookery::{Config, Rookery};
use tokio::sync::Notify;
use tokio::task::JoinSet;

const PAIRS: usize = 6;
const ROUNDS: usize = 10;
/// A sender stops here in a round if nobody kills the server before.
const PER_ROUND: usize = 400;
const MAM: &str = "urn:xmpp:mam:2";
const RSM: &str = "http://jabber.org/protocol/rsm";

fn user(role: &str, pair: usize) -> String {
    format!("{role}-{pair}")
}

/// The sender of a pair; `sent` counts over all rounds.
struct Sender {
    client: Client,
    pair: usize,
    sent: usize,
}

struct Receiver {
    client: Client,
    /// Bodies in the order of their first arrival, and their stanza-ids.
    got: Vec<String>,
    ids: HashMap<String, String>,
}

impl Receiver {
    fn take(&mut self, element: &rookery_tests::xml::Element) {
        let Some(body) = element.get("body") else { return };
        let id =
            element.child("stanza-id", "urn:xmpp:sid:0").and_then(|id| id.attr("id")).expect("a stanza-id");
        match self.ids.insert(body.text(), id.to_owned()) {
            None => self.got.push(body.text()),
            Some(before) => panic!("{} came twice, as {before} and as {id}", body.text()),
        }
    }
}

/// Counts acknowledged messages of all senders and says when there are enough of them to kill.
struct Trigger {
    acked: AtomicUsize,
    at: usize,
    enough: Notify,
}

impl Trigger {
    fn add(&self, more: usize) {
        let now = self.acked.fetch_add(more, Ordering::Relaxed) + more;
        if now >= self.at {
            self.enough.notify_one();
        }
    }
}

/// Sends until the connection breaks or the round is over.
async fn send(mut s: Sender, trigger: Arc<Trigger>) -> Sender {
    let stop = s.sent + PER_ROUND;
    while s.sent < stop {
        let text = format!(
            "<message to='{}@localhost' type='chat' id='m{n}'><body>{n}</body></message>",
            user("receiver", s.pair),
            n = s.sent
        );
        s.sent += 1;
        if s.client.send(&text).await.is_err() {
            return s;
        }
        // Not only what is archived counts: an IQ now and then.
        let ping = format!("<iq type='get' id='p{}'><ping xmlns='urn:xmpp:ping'/></iq>", s.sent);
        if s.sent.is_multiple_of(3) && s.client.send(&ping).await.is_err() {
            return s;
        }
        if s.sent.is_multiple_of(4) {
            if s.client.send_raw(format!("<r xmlns='{SM}'/>").as_bytes()).await.is_err() {
                return s;
            }
            let before = s.client.sm.acked;
            loop {
                match s.client.next().await {
                    Ok(Event::Element(a)) if a.is("a", SM) => {
                        s.client.acked(&a).expect("an honest h");
                        break;
                    }
                    Ok(Event::Element(e)) if e.name == "iq" || e.is("r", SM) => {}
                    Ok(Event::Element(other)) => panic!("a sender got:\n{other}"),
                    _ => return s,
                }
            }
            trigger.add((s.client.sm.acked - before) as usize);
        }
    }
    s
}

/// Receives until the connection breaks. Answers to pings come between the messages, and count as well: all the time, for
/// while an odd number of messages is there each answer makes for the next ping.
async fn receive(mut r: Receiver) -> Receiver {
    loop {
        match r.client.fresh().await {
            Ok(Event::Element(e)) => r.take(&e),
            _ => return r,
        }
        let ping = format!("<iq type='get' id='q{}'><ping xmlns='urn:xmpp:ping'/></iq>", r.got.len());
        if r.got.len() % 2 == 1 && r.client.send(&ping).await.is_err() {
            return r;
        }
    }
}

async fn back(options: &Options, user: &str, lost: Lost, automatic: bool) -> Client {
    let (mut client, answer) =
        Client::resume(options, user, "secret", lost).await.unwrap_or_else(|e| panic!("{user}: {e}"));
    assert!(answer.is("resumed", SM), "{user} cannot resume:\n{answer}");
    client.sm.automatic = automatic;
    client
}

/// All bodies in the archive of this user, oldest first.
async fn archive(options: &Options, user: &str) -> Result<Vec<String>, Error> {
    let mut client = Client::login(options, user, "secret", "reader").await?;
    let (mut bodies, mut after) = (Vec::new(), String::new());
    loop {
        let query = format!("<query xmlns='{MAM}'><set xmlns='{RSM}'><max>100</max>{after}</set></query>");
        let answer = client.iq_ok("set", "", &query).await?;
        for result in std::mem::take(&mut client.kept) {
            let body = result.find("body", "jabber:client").map(|b| b.text());
            bodies.extend(body.filter(|_| result.child("result", MAM).is_some()));
        }
        let fin = answer.child("fin", MAM).expect("a fin");
        if fin.attr("complete") == Some("true") {
            client.close().await?;
            return Ok(bodies);
        }
        after = format!("<after>{}</after>", fin.find("last", RSM).expect("a last").text());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_kills_lose_nothing_and_double_nothing() {
    let config = Config { durability: "sync".into(), ..Config::default() };
    let mut server = Rookery::start(&config).await.unwrap_or_else(|e| panic!("{e}"));
    let users: Vec<String> =
        (0..PAIRS).flat_map(|p| [user("sender", p), user("receiver", p)]).map(|u| u + "@localhost").collect();
    server.add_users(users.iter().map(|u| (u.as_str(), "secret"))).unwrap_or_else(|e| panic!("{e}"));

    let mut options = server.listening.options();
    let (mut senders, mut receivers) = (Vec::new(), Vec::new());
    for pair in 0..PAIRS {
        let mut client = Client::login(&options, &user("sender", pair), "secret", "s").await.unwrap();
        client.enable_sm(true, false).await.unwrap();
        senders.push(Sender { client, pair, sent: 0 });
        let mut client = Client::login(&options, &user("receiver", pair), "secret", "r").await.unwrap();
        client.enable_sm(true, true).await.unwrap();
        client.available().await.unwrap();
        receivers.push(Receiver { client, got: Vec::new(), ids: HashMap::new() });
    }

    let mut acked_in_all = 0;
    for round in 0..ROUNDS {
        // A different moment each time, and the same ones in every run.
        let at = 37 + (round * 97) % 211;
        let trigger = Arc::new(Trigger { acked: AtomicUsize::new(0), at, enough: Notify::new() });
        let (mut sending, mut receiving) = (JoinSet::new(), JoinSet::new());
        for sender in senders.drain(..) {
            sending.spawn(send(sender, trigger.clone()));
        }
        for receiver in receivers.drain(..) {
            receiving.spawn(receive(receiver));
        }
        trigger.enough.notified().await;
        server.kill().await.unwrap();
        senders = sending.join_all().await;
        receivers = receiving.join_all().await;
        acked_in_all += trigger.acked.load(Ordering::Relaxed);
        server.restart().await.unwrap_or_else(|e| panic!("round {round}: {e}"));
        options = server.listening.options();
        for sender in &mut senders {
            let lost = Lost { jid: sender.client.jid.clone(), sm: sender.client.sm.clone() };
            sender.client = back(&options, &user("sender", sender.pair), lost, false).await;
        }
        for receiver in &mut receivers {
            let lost = Lost { jid: receiver.client.jid.clone(), sm: receiver.client.sm.clone() };
            let name = lost.jid.split('@').next().unwrap().to_owned();
            receiver.client = back(&options, &name, lost, true).await;
        }
    }

    let mut sent_in_all = 0;
    for sender in senders {
        let Sender { mut client, pair, sent } = sender;
        sent_in_all += sent;
        client
            .all_acked()
            .await
            .unwrap_or_else(|e| panic!("pair {pair}: the server has not handled all: {e}"));
        let want: Vec<String> = (0..sent).map(|n| n.to_string()).collect();
        let at = receivers.iter().position(|r| r.client.jid.starts_with(&user("receiver", pair))).unwrap();
        let receiver = &mut receivers[at];
        while receiver.got.len() < sent {
            let element = receiver.client.element().await.unwrap_or_else(|e| {
                let missing: Vec<usize> =
                    (0..sent).filter(|n| !receiver.got.contains(&n.to_string())).collect();
                panic!(
                    "pair {pair}: {} of {sent} arrived, without {missing:?}: {e}\n{}",
                    receiver.got.len(),
                    server.log()
                )
            });
            receiver.take(&element);
        }
        assert_eq!(receiver.got, want, "pair {pair}: all, in order");
        for role in ["receiver", "sender"] {
            let kept = archive(&options, &user(role, pair)).await.unwrap();
            assert_eq!(kept, want, "pair {pair}: the archive of the {role}");
        }
    }
    println!(
        "{ROUNDS} kills, {sent_in_all} messages sent, {acked_in_all} acknowledged under load, 0 missing, 0 twice"
    );
}
