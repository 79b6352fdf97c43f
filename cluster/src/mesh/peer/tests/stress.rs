//! Much at once.

use super::*;

/// Takes at once, in order.
struct Counting(Mutex<u64>);

impl Receiver for Counting {
    fn take(&self, _: &NodeId, envelope: Envelope, done: Done) {
        let mut next = self.0.lock();
        assert_eq!(number(&envelope), *next);
        *next += 1;
        done.taken();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_thousand_both_ways_at_once() {
    const COUNT: u64 = 100_000;
    let (authority, book) = (Authority::new(), Book::default());
    let receivers = [Arc::new(Counting(Mutex::new(0))), Arc::new(Counting(Mutex::new(0)))];
    let (a, _, _stop_a, _served_a) =
        serve(me("a", 1), options(), authority.tls("a"), &book, receivers[0].clone()).await;
    let (b, _, _stop_b, _served_b) =
        serve(me("b", 1), options(), authority.tls("b"), &book, receivers[1].clone()).await;
    let ways = [(a, "b"), (b, "a")].map(|(peers, to)| {
        tokio::spawn(async move {
            let (told, mut outcomes) = mpsc::channel(usize::try_from(COUNT).unwrap());
            send_all(&peers.peer(&id(to)), COUNT, &told).await;
            for n in 0..COUNT {
                let outcome = tokio::time::timeout(LONG, outcomes.recv()).await.expect("no outcome");
                assert_eq!(outcome, Some((n, Outcome::Taken(Bytes::new()))));
            }
        })
    });
    for way in ways {
        way.await.unwrap();
    }
    for receiver in receivers {
        assert_eq!(*receiver.0.lock(), COUNT);
    }
}
