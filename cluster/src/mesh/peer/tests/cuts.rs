//! Connections that break at any byte.

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::*;

/// Passes bytes on, and cuts each of the first `cuts` connections after a number of bytes drawn from the seed.
async fn cutting(target: String, seed: u64, cuts: usize, cut: mpsc::Sender<()>) -> String {
    let listener = listen().await;
    let address = listener.local_addr().unwrap().to_string();
    tokio::spawn(async move {
        let mut random = StdRng::seed_from_u64(seed);
        for n in 0.. {
            let Ok((near, _)) = listener.accept().await else { return };
            #[allow(clippy::disallowed_methods)] // to a node of this test
            let Ok(far) = TcpStream::connect(&target).await else { return };
            // Some die in the handshake, some after many messages.
            let budget = if n < cuts { random.random_range(1..60_000) } else { usize::MAX };
            let cut = cut.clone();
            tokio::spawn(async move {
                let budget = Arc::new(Mutex::new(budget));
                let (near_read, near_write) = near.into_split();
                let (far_read, far_write) = far.into_split();
                // One direction's end is both directions' end.
                tokio::select! {
                    () = copy(near_read, far_write, Arc::clone(&budget)) => {}
                    () = copy(far_read, near_write, budget) => {}
                }
                let _ = cut.send(()).await;
            });
        }
    });
    address
}

async fn copy(
    mut from: tokio::net::tcp::OwnedReadHalf,
    mut to: tokio::net::tcp::OwnedWriteHalf,
    budget: Arc<Mutex<usize>>,
) {
    let mut buffer = vec![0; 4096];
    while let Ok(read @ 1..) = from.read(&mut buffer).await {
        let pass = {
            let mut budget = budget.lock();
            let pass = read.min(*budget);
            *budget -= pass;
            pass
        };
        if to.write_all(&buffer[..pass]).await.is_err() || pass < read {
            return;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn over_fifty_cuts_everything_arrives_once_and_in_order() {
    const CUTS: usize = 50;
    let (authority, book) = (Authority::new(), Book::default());
    let small = Options { window: Limit { envelopes: 64, bytes: 64 * 1024 }, ..options() };
    let a = Node::start(me("a", 1), small.clone(), authority.tls("a"), &book).await;
    let b = Node::start(me("b", 1), small, authority.tls("b"), &book).await;
    let (cut, mut was_cut) = mpsc::channel(1_000);
    let proxy = cutting(b.address.clone(), 20_250_101, CUTS, cut).await;
    book.set("b", &proxy);

    let to_b = a.peers.peer(&id("b"));
    let (told, mut outcomes) = mpsc::channel(1_000_000);
    let enough = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let sending = tokio::spawn({
        let enough = Arc::clone(&enough);
        async move {
            let mut n = 0;
            while !enough.load(std::sync::atomic::Ordering::Relaxed) {
                let told = told.clone();
                let on_outcome = move |outcome| told.try_send((n, outcome)).unwrap();
                match to_b.send(numbered(n), on_outcome) {
                    Ok(()) => n += 1,
                    Err(refused) => to_b.room(refused.envelope.size()).await,
                }
            }
            n
        }
    });
    // Every third is answered late, out of order, some with a reply, some with NotOwner.
    let mut taken = b.taken;
    let receiving = tokio::spawn(async move {
        let mut random = StdRng::seed_from_u64(7);
        let mut next = 0;
        let mut held = Vec::new();
        while let Some((_, envelope, done)) = taken.recv().await {
            assert_eq!(number(&envelope), next, "lost, doubled or out of order");
            next += 1;
            held.push((number(&envelope), done));
            while held.len() > 20 || (!held.is_empty() && taken.is_empty()) {
                let at = random.random_range(0..held.len());
                let (n, done) = held.swap_remove(at);
                match n % 5 {
                    0 => done.reply(Bytes::from(n.to_be_bytes().to_vec())).unwrap(),
                    1 => done.not_owner(n, None),
                    _ => done.taken(),
                }
            }
        }
    });
    for _ in 0..CUTS {
        tokio::time::timeout(LONG, was_cut.recv()).await.expect("no cut").unwrap();
    }
    enough.store(true, std::sync::atomic::Ordering::Relaxed);
    let sent = sending.await.unwrap();
    let mut told = std::collections::HashMap::new();
    while let Some((n, outcome)) = tokio::time::timeout(LONG, outcomes.recv()).await.expect("no outcome") {
        assert!(told.insert(n, outcome).is_none(), "told twice");
    }
    assert_eq!(told.len() as u64, sent);
    assert!(sent > 1_000, "only {sent} were sent");
    for (n, outcome) in told {
        let expected = match n % 5 {
            0 => Outcome::Taken(Bytes::from(n.to_be_bytes().to_vec())),
            1 => Outcome::NotOwner { epoch: n, hint: None },
            _ => Outcome::Taken(Bytes::new()),
        };
        assert_eq!(outcome, expected);
    }
    assert!(!receiving.is_finished(), "the receiver saw something wrong");
    drop(b.stop);
    b.served.await.unwrap();
}
