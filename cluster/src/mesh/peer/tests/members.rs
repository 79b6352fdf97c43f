//! Nodes that die, come back, and are asked about.

use super::*;

/// A node whose lease is over.
struct Unwell;

impl Receiver for Unwell {
    fn take(&self, _: &NodeId, _: Envelope, _: Done) {}

    fn is_well(&self) -> bool {
        false
    }
}

#[tokio::test]
async fn a_new_generation_means_lost_for_all_that_has_no_outcome() {
    let (authority, book) = (Authority::new(), Book::default());
    let a = Node::usual("a", 1, &authority, &book).await;
    let mut b = Node::usual("b", 1, &authority, &book).await;
    let to_b = a.peers.peer(&id("b"));
    let outcomes: Vec<_> = (0..10).map(|n| send(&to_b, numbered(n))).collect();
    for _ in 0..5 {
        b.next().await.2.taken();
    }
    let held: Vec<_> = [b.next().await, b.next().await].into();
    b.kill().await;
    let mut b = Node::usual("b", 2, &authority, &book).await;
    let mut results = Vec::new();
    for outcome in outcomes {
        results.push(wait(outcome).await);
    }
    // What was answered before the end may have been told or not; what was not, is lost.
    assert!(results[5..].iter().all(|outcome| *outcome == Outcome::Lost), "{results:?}");
    drop(held);
    assert!(b.taken.try_recv().is_err(), "what was lost came to the new generation");
    let outcome = send(&to_b, numbered(10));
    let (_, envelope, done) = b.next().await;
    assert_eq!(number(&envelope), 10);
    done.taken();
    assert_eq!(wait(outcome).await, Outcome::Taken(Bytes::new()));
    assert_eq!(a.peers.standings()[0].generation, Some(2));
}

#[tokio::test]
async fn a_new_generation_of_the_sender_begins_anew_and_the_old_one_is_refused() {
    let (authority, book) = (Authority::new(), Book::default());
    let mut b = Node::usual("b", 1, &authority, &book).await;
    let old = Node::usual("a", 1, &authority, &book).await;
    let outcome = send(&old.peers.peer(&id("b")), numbered(1));
    let (_, _, held) = b.next().await;
    let new = Node::usual("a", 2, &authority, &book).await;
    let again = send(&new.peers.peer(&id("b")), numbered(2));
    let (_, envelope, done) = b.next().await;
    assert_eq!((number(&envelope), done.generation()), (2, 2));
    done.taken();
    assert_eq!(wait(again).await, Outcome::Taken(Bytes::new()));
    held.taken(); // goes nowhere
    // The old one tries to come back and is refused.
    while old.peers.standings()[0].trouble.as_deref().is_none_or(|why| !why.contains("has a successor")) {
        tokio::task::yield_now().await;
    }
    old.peers.close();
    assert_eq!(wait(outcome).await, Outcome::Lost);
}

#[tokio::test]
async fn who_is_said_to_be_dead_gets_nothing_and_is_not_heard() {
    let (authority, book) = (Authority::new(), Book::default());
    let mut a = Node::usual("a", 1, &authority, &book).await;
    let mut b = Node::usual("b", 1, &authority, &book).await;
    let to_b = a.peers.peer(&id("b"));
    let outcome = send(&to_b, numbered(1));
    let (_, _, held) = b.next().await;
    let back = send(&b.peers.peer(&id("a")), numbered(2));
    let (_, _, held_back) = a.next().await;
    a.peers.dead(&id("b"), 1);
    assert_eq!(wait(outcome).await, Outcome::Lost);
    held.taken();
    held_back.taken();
    // B lives on, but A has nothing to do with it any more.
    assert!(!a.peers.probe(&id("b"), Duration::from_millis(50)).await);
    let outcome = send(&to_b, numbered(3));
    while b.peers.standings()[0].trouble.as_deref().is_none_or(|why| !why.contains("is dead")) {
        tokio::task::yield_now().await;
    }
    b.kill().await;
    assert_eq!(wait(back).await, Outcome::Lost);
    // Its successor is welcome, with what waits for the name.
    let mut b = Node::usual("b", 2, &authority, &book).await;
    let (_, envelope, done) = b.next().await;
    assert_eq!(number(&envelope), 3);
    done.taken();
    assert_eq!(wait(outcome).await, Outcome::Taken(Bytes::new()));
    let outcome = send(&b.peers.peer(&id("a")), numbered(4));
    a.next().await.2.taken();
    assert_eq!(wait(outcome).await, Outcome::Taken(Bytes::new()));
}

#[tokio::test]
async fn who_is_out_of_reach_for_too_long_has_lost() {
    let (authority, book) = (Authority::new(), Book::default());
    let impatient = Options { patience: Duration::from_millis(50), ..options() };
    let a = Node::start(me("a", 1), impatient, authority.tls("a"), &book).await;
    let to_b = a.peers.peer(&id("b"));
    assert_eq!(wait(send(&to_b, numbered(0))).await, Outcome::Lost, "no address at all");
    let mut b = Node::usual("b", 1, &authority, &book).await;
    let outcomes = [send(&to_b, numbered(1)), send(&to_b, numbered(2))];
    let (one, two) = (b.next().await, b.next().await);
    // The way is gone, the process lives.
    let there = b.address.clone();
    book.set("b", "127.0.0.1:1");
    drop(b.stop.take());
    (&mut b.served).await.unwrap();
    for outcome in outcomes {
        assert_eq!(wait(outcome).await, Outcome::Lost);
    }
    one.2.taken();
    drop(two);
    assert_eq!(wait(send(&to_b, numbered(3))).await, Outcome::Lost);
    assert!(a.peers.standings()[0].trouble.is_some());
    assert_ne!(there, "127.0.0.1:1");
    // The peer can be reached again, still the same process: later envelopes arrive, those given up do not.
    let listener = listen().await;
    book.set("b", &listener.local_addr().unwrap().to_string());
    let (sender, mut taken) = mpsc::channel(100);
    let (_stop, stopped) = oneshot::channel::<()>();
    let peers = b.peers.clone();
    tokio::spawn(async move {
        let stop = async {
            let _ = stopped.await;
        };
        peers.serve(listener, Arc::new(Hands(sender)), stop).await.unwrap();
    });
    let outcome = send(&to_b, numbered(4));
    let (_, envelope, done) = tokio::time::timeout(LONG, taken.recv()).await.unwrap().unwrap();
    assert_eq!(number(&envelope), 4);
    done.taken();
    assert_eq!(wait(outcome).await, Outcome::Taken(Bytes::new()));
}

#[tokio::test]
async fn probes_tell_who_answers() {
    let (authority, book) = (Authority::new(), Book::default());
    let a = Node::usual("a", 1, &authority, &book).await;
    let b = Node::usual("b", 1, &authority, &book).await;
    let c = Node::usual("c", 1, &authority, &book).await;
    let short = Duration::from_millis(300);
    assert!(a.peers.probe(&id("b"), LONG).await);
    assert!(a.peers.probe_through(&id("b"), &id("c"), LONG).await);
    assert!(!a.peers.probe(&id("d"), short).await);
    // The way from a to d is cut, that from b is not.
    let elsewhere = Book::default();
    elsewhere.set("b", &b.address);
    elsewhere.set("d", "127.0.0.1:1");
    let cut_off = Node::usual("f", 1, &authority, &elsewhere).await;
    let d = Node::usual("d", 1, &authority, &book).await;
    assert!(cut_off.peers.reaches(&id("d"), &[id("d"), id("f"), id("b")], LONG / 10).await);
    assert!(!cut_off.peers.reaches(&id("d"), &[id("d")], short).await);
    d.kill().await;
    assert!(!a.peers.probe_through(&id("b"), &id("d"), short).await);
    c.kill().await;
    assert!(!a.peers.probe_through(&id("b"), &id("c"), short).await);
    assert!(!a.peers.probe_through(&id("c"), &id("b"), short).await);
    assert!(!a.peers.probe(&id("c"), short).await);
    // One that does not think that it works says so itself.
    let (_unwell, address, _stop, _served) =
        serve(me("e", 1), options(), authority.tls("e"), &book, Arc::new(Unwell)).await;
    book.set("e", &address);
    assert!(!a.peers.probe(&id("e"), LONG).await);
    assert!(!a.peers.probe_through(&id("b"), &id("e"), LONG).await);
    // A node that accepts and says nothing does not answer either.
    let silent = listen().await;
    book.set("c", &silent.local_addr().unwrap().to_string());
    assert!(!a.peers.probe(&id("c"), short).await);
    drop(b);
}

#[tokio::test]
async fn a_peer_that_goes_silent_is_found_by_keepalive() {
    let (authority, book) = (Authority::new(), Book::default());
    let quick = Options {
        keepalive: Duration::from_millis(50),
        keepalive_timeout: Duration::from_millis(100),
        ..options()
    };
    let a = Node::start(me("a", 1), quick, authority.tls("a"), &book).await;
    let b = Node::usual("b", 1, &authority, &book).await;
    // A way that swallows everything once it is told to, without closing.
    let listener = listen().await;
    book.set("b", &listener.local_addr().unwrap().to_string());
    let target = b.address.clone();
    let (freeze, mut frozen) = oneshot::channel::<()>();
    tokio::spawn(async move {
        loop {
            let (mut near, _) = listener.accept().await.unwrap();
            #[allow(clippy::disallowed_methods)] // to a node of this test
            let mut far = tokio::net::TcpStream::connect(&target).await.unwrap();
            tokio::select! {
                biased;
                _ = &mut frozen => std::future::pending().await,
                // On a slow machine keepalive may cut it before that; then another one comes.
                _ = tokio::io::copy_bidirectional(&mut near, &mut far) => {}
            }
        }
    });
    assert!(a.peers.probe(&id("b"), LONG).await);
    freeze.send(()).unwrap();
    let found = async {
        while a.peers.standings()[0].connected {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(5), found).await.expect("the dead peer was not found");
}
