//! What becomes of envelopes.

use super::*;

async fn pair(authority: &Authority, book: &Book) -> (Node, Node) {
    (Node::usual("a", 1, authority, book).await, Node::usual("b", 1, authority, book).await)
}

#[tokio::test]
async fn every_outcome_comes_back() {
    let (authority, book) = (Authority::new(), Book::default());
    let (a, mut b) = pair(&authority, &book).await;
    let to_b = a.peers.peer(&id("b"));
    assert!(!to_b.is_connected(), "connected before there is anything to send");

    let outcome = send(&to_b, envelope("one"));
    let (from, one, done) = b.next().await;
    assert_eq!((from, one.number, one.epoch, one.shard), (id("a"), 1, 3, Shard(7)));
    assert_eq!((&one.entity[..], &one.body[..]), (&b"romeo@example.org"[..], &b"one"[..]));
    assert_eq!(done.generation(), 1);
    done.taken();
    assert_eq!(wait(outcome).await, Outcome::Taken(Bytes::new()));

    let outcome = send(&to_b, envelope("two"));
    b.next().await.2.reply(Bytes::from_static(b"answer")).unwrap();
    assert_eq!(wait(outcome).await, Outcome::Taken(Bytes::from_static(b"answer")));

    let outcome = send(&to_b, envelope("three"));
    b.next().await.2.not_owner(9, Some(&id("c")));
    assert_eq!(wait(outcome).await, Outcome::NotOwner { epoch: 9, hint: Some(id("c")) });

    let outcome = send(&to_b, envelope("four"));
    b.next().await.2.not_owner(10, None);
    assert_eq!(wait(outcome).await, Outcome::NotOwner { epoch: 10, hint: None });

    let outcome = send(&to_b, envelope("five"));
    drop(b.next().await.2);
    assert_eq!(wait(outcome).await, Outcome::Lost);

    let outcome = send(&to_b, envelope("six"));
    let reply = Bytes::from(vec![0; REPLY_MAX + 1]);
    assert_eq!(b.next().await.2.reply(reply.clone()), Err(reply));
    assert_eq!(wait(outcome).await, Outcome::Taken(Bytes::new()));

    let standings = a.peers.standings();
    assert_eq!(
        standings,
        [Standing {
            node: id("b"),
            generation: Some(1),
            connected: true,
            waiting: 0,
            in_flight: 0,
            trouble: None
        }]
    );
}

#[tokio::test]
async fn outcomes_may_come_in_any_order_and_those_not_ready_hold_up_nothing() {
    let (authority, book) = (Authority::new(), Book::default());
    let small =
        Options { window: Limit { envelopes: 100, bytes: 100_000 }, delay: Duration::ZERO, ..options() };
    let a = Node::start(me("a", 1), small.clone(), authority.tls("a"), &book).await;
    let mut b = Node::start(me("b", 1), small, authority.tls("b"), &book).await;
    let to_b = a.peers.peer(&id("b"));
    let first = send(&to_b, envelope("first"));
    let (_, _, slow) = b.next().await;
    for n in 0..1_000 {
        let outcome = send(&to_b, numbered(n));
        b.next().await.2.taken();
        assert_eq!(wait(outcome).await, Outcome::Taken(Bytes::new()));
    }
    slow.taken();
    assert_eq!(wait(first).await, Outcome::Taken(Bytes::new()));
}

#[tokio::test]
async fn large_envelopes_arrive_and_too_large_ones_are_given_back() {
    let (authority, book) = (Authority::new(), Book::default());
    let (a, mut b) = pair(&authority, &book).await;
    let to_b = a.peers.peer(&id("b"));
    let spare = envelope("").size();
    let large = envelope(vec![b'x'; ENVELOPE_MAX - spare]);
    let outcomes: Vec<_> = (0..3).map(|_| send(&to_b, large.clone())).collect();
    for outcome in outcomes {
        let (_, got, done) = b.next().await;
        assert_eq!(got.body, large.body);
        done.reply(Bytes::from(vec![b'y'; REPLY_MAX])).unwrap();
        let Outcome::Taken(reply) = wait(outcome).await else { panic!("not taken") };
        assert_eq!(reply.len(), REPLY_MAX);
    }
    let oversize = envelope(vec![b'x'; ENVELOPE_MAX - spare + 1]);
    let refused = to_b.send(oversize.clone(), |_| panic!("called")).unwrap_err();
    assert_eq!(refused.why, Why::TooLarge { size: ENVELOPE_MAX + 1 });
    assert_eq!(refused.envelope, oversize);
    assert!(refused.why.to_string().contains("larger than the limit"));
}

#[tokio::test]
async fn a_slow_receiver_makes_no_queue_grow_and_loses_nothing() {
    let (authority, book) = (Authority::new(), Book::default());
    let small = Options {
        queue: Limit { envelopes: 500, bytes: 1024 * 1024 },
        window: Limit { envelopes: 100, bytes: 1024 * 1024 },
        ..options()
    };
    let a = Node::start(me("a", 1), small.clone(), authority.tls("a"), &book).await;
    let mut b = Node::start(me("b", 1), small, authority.tls("b"), &book).await;
    let to_b = a.peers.peer(&id("b"));
    let (told, mut outcomes) = mpsc::channel(10_000);
    let sending = tokio::spawn({
        let to_b = to_b.clone();
        async move { send_all(&to_b, 3_000, &told).await }
    });
    let mut held = std::collections::VecDeque::new();
    // The receiver takes a whole window and answers none of it: that is all it ever gets.
    while held.len() < 100 {
        held.push_back(b.next().await);
    }
    while a.peers.standings()[0].waiting < 400 {
        tokio::task::yield_now().await;
    }
    assert!(a.peers.probe(&id("b"), LONG).await, "the channel works though the window is shut");
    assert!(b.taken.try_recv().is_err(), "more than the window");
    let full = to_b.send(numbered(0), |_| panic!("called")).unwrap_err();
    assert_eq!(full.why, Why::Full);
    // Then it answers one after another.
    for n in 0..3_000 {
        let (_, envelope, done) = match held.pop_front() {
            Some(held) => held,
            None => b.next().await,
        };
        assert_eq!(number(&envelope), n);
        done.taken();
        let standing = &a.peers.standings()[0];
        assert!(standing.in_flight <= 100 && standing.waiting + standing.in_flight <= 500);
    }
    sending.await.unwrap();
    for n in 0..3_000 {
        assert_eq!(outcomes.recv().await, Some((n, Outcome::Taken(Bytes::new()))));
    }
    assert_eq!(outcomes.recv().await, None);
}

#[tokio::test]
async fn the_bytes_of_the_window_count_too() {
    let (authority, book) = (Authority::new(), Book::default());
    let small = Options { window: Limit { envelopes: 100, bytes: 10_000 }, ..options() };
    let a = Node::start(me("a", 1), small.clone(), authority.tls("a"), &book).await;
    let mut b = Node::start(me("b", 1), small, authority.tls("b"), &book).await;
    let to_b = a.peers.peer(&id("b"));
    let outcomes: Vec<_> = (0..10).map(|_| send(&to_b, envelope(vec![b'x'; 3_000]))).collect();
    let (one, two, three) = (b.next().await, b.next().await, b.next().await);
    assert!(a.peers.probe(&id("b"), LONG).await);
    assert!(b.taken.try_recv().is_err(), "more bytes than the window");
    for (_, _, done) in [one, two, three] {
        done.taken();
    }
    for _ in 0..7 {
        b.next().await.2.taken();
    }
    for outcome in outcomes {
        assert_eq!(wait(outcome).await, Outcome::Taken(Bytes::new()));
    }
    // One that is larger than the whole window goes alone.
    let outcome = send(&to_b, envelope(vec![b'x'; 30_000]));
    b.next().await.2.taken();
    assert_eq!(wait(outcome).await, Outcome::Taken(Bytes::new()));
}

#[tokio::test]
async fn what_is_closed_takes_nothing_more_and_says_so() {
    let (authority, book) = (Authority::new(), Book::default());
    let (a, mut b) = pair(&authority, &book).await;
    let to_b = a.peers.peer(&id("b"));
    let outcome = send(&to_b, envelope("x"));
    let _held = b.next().await;
    a.peers.close();
    assert_eq!(wait(outcome).await, Outcome::Lost);
    assert_eq!(to_b.send(envelope("y"), |_| ()).unwrap_err().why, Why::Closed);
    to_b.room(1).await;
}
