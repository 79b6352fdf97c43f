use std::sync::atomic::{AtomicU64, Ordering};

use rookery_cluster::seams::Clock;
use rookery_cluster::store::keys::{Key, Kind};
use rookery_cluster::store::memory::Memory;
use rookery_cluster::tables::accounts::Account;

use super::*;
use crate::host::options::Domain;

/// A clock that stands until it is set.
#[derive(Default)]
struct Hand(AtomicU64);

impl Clock for Hand {
    fn now_micros(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

const START: u64 = 20_000 * DAY;

struct World {
    clock: Arc<Hand>,
    store: Store,
    options: Options,
    maintenance: Maintenance,
}

impl World {
    fn new() -> Self {
        let clock = Arc::new(Hand::default());
        clock.0.store(START, Ordering::Relaxed);
        let seams = Seams { clock: clock.clone(), ..Seams::system() };
        let store = Store::new(Arc::new(Memory::new()), seams.clone());
        let domain = |name: &str| Domain { name: name.into(), open_registration: false, contact: Vec::new() };
        let options = Options::new(vec![domain("a"), domain("b")]);
        Self { clock, maintenance: Maintenance::new(store.clone(), seams, Arc::default()), store, options }
    }

    fn set(&self, micros: u64) {
        self.clock.0.store(micros, Ordering::Relaxed);
    }

    /// A whole round, and as many steps as there were.
    async fn round(&mut self) -> usize {
        let (mut steps, mut turns) = (0, 0);
        while turns < SHARDS {
            steps += 1;
            turns += u16::from(self.maintenance.step(&self.options).await == TURN);
        }
        steps
    }

    /// An account with a message on each of `days`, and repetition rows of those days.
    async fn account(&self, name: &str, days: std::ops::Range<u64>) -> Entity {
        let user = Entity::new(name);
        let (entity, days) = (&user, &days);
        self.store
            .write(store::Options::default(), |tx| {
                Box::pin(async move {
                    accounts::put(&mut **tx, entity, &Account::default());
                    let (mut clock, mut day) = (archive::Clock::default(), None);
                    for n in days.clone() {
                        let id = clock.next(n * DAY, 1);
                        let entry = archive::Entry::default();
                        day = Some(archive::append(&mut **tx, Collection::Archive, entity, id, &entry, day)?);
                        archive::append(&mut **tx, Collection::Queue, entity, id, &entry, None)?;
                        let mut sid = [0; 16];
                        sid[8..].copy_from_slice(&n.to_be_bytes());
                        seen::put(
                            &mut **tx,
                            entity,
                            &sid,
                            seen::Seen { last: 1, at: n * DAY, ..seen::Seen::default() },
                        );
                    }
                    Ok(())
                })
            })
            .await
            .unwrap();
        user
    }

    /// The first day of the archive, of the queue, and how many repetition rows there are.
    async fn left(&self, user: &Entity) -> (Option<u64>, Option<u64>, usize) {
        self.store
            .read(|tx| {
                Box::pin(async move {
                    let day = |id: Option<archive::ArchiveId>| id.map(|id| id.micros / DAY);
                    let archive = day(archive::first_id(&mut **tx, Collection::Archive, user).await?);
                    let queue = day(archive::first_id(&mut **tx, Collection::Queue, user).await?);
                    Ok((archive, queue, seen::load(&mut **tx, user, 99).await?.rows.len()))
                })
            })
            .await
            .unwrap()
    }
}

#[tokio::test]
async fn what_is_too_old_goes_and_nothing_else() {
    let mut world = World::new();
    world.options.retention = Duration::from_secs(10 * 86_400);
    let early = world.account("romeo@a", 19_970..20_001).await;
    let late = world.account("juliet@b", 19_995..20_001).await;
    let steps = world.round().await;
    assert_eq!(world.left(&early).await, (Some(19_990), Some(19_990), 3));
    assert_eq!(world.left(&late).await, (Some(19_995), Some(19_995), 3));
    assert_eq!(world.maintenance.done, Done { archive_days: 40, seen_rows: 28 + 3, ..Done::default() });
    // Three jobs for each shard, one more in an hour, and small transactions: eight days of archives each.
    assert_eq!(steps, 3 * usize::from(SHARDS) + 1 + 4);
    // A second round finds nothing, and the accounts are not looked at again on this day.
    let done = world.maintenance.done;
    world.round().await;
    assert_eq!(world.maintenance.done, done);
    // The next day there is a line in the log, and a new count.
    world.set(START + DAY);
    world.round().await;
    assert_eq!(world.maintenance.done, Done { archive_days: 2, seen_rows: 2, ..Done::default() });
    assert_eq!(world.left(&late).await.2, 2);
}

#[tokio::test]
async fn without_retention_messages_stay() {
    let mut world = World::new();
    let user = world.account("romeo@a", 19_990..20_000).await;
    world.round().await;
    assert_eq!(world.left(&user).await, (Some(19_990), Some(19_990), 2));
    assert_eq!(world.maintenance.done.archive_days, 0);
}

#[tokio::test]
async fn every_account_is_visited_once_a_day_however_many_there_are() {
    let mut world = World::new();
    for n in 0..250 {
        world.account(&format!("u{n:03}@a"), 19_990..19_991).await;
    }
    world.account("juliet@b", 19_990..19_991).await;
    world.round().await;
    assert_eq!(world.maintenance.done.seen_rows, 251);
}

#[tokio::test]
async fn old_marks_of_operations_go() {
    let mut world = World::new();
    let mark = |n: u8| Key::of(Kind::Operation, &Entity::new("")).fixed(&[n; 16]).finish();
    for n in 0..3 {
        // As the runner writes them: the attempt, the time, the versionstamp.
        let at = START - u64::from(n) * HOUR;
        let value = [&[0; 4][..], &at.to_be_bytes(), &[0; 10]].concat();
        let (key, value) = (&mark(n), &value);
        let set = world.store.write(store::Options::default(), |tx| {
            tx.set(key, value);
            Box::pin(std::future::ready(Ok(())))
        });
        set.await.unwrap();
    }
    world.round().await;
    assert_eq!(world.maintenance.done.marks, 1, "older than an hour");
    assert!(world.store.get(&mark(1)).await.unwrap().is_some());
    assert!(world.store.get(&mark(2)).await.unwrap().is_none());
}

#[tokio::test]
async fn a_store_that_fails_is_counted_and_tried_again() {
    let mut world = World::new();
    world.options.retention = Duration::from_secs(86_400);
    let user = world.account("romeo@a", 19_990..20_000).await;
    world.maintenance.shard = user.shard().0;
    world.store.close().await.unwrap();
    world.maintenance.step(&world.options).await;
    assert_eq!(world.maintenance.done.failures, 1);
    assert_eq!(
        world.maintenance.job,
        Job::Retention(Collection::Queue),
        "one shard that fails holds up no other"
    );
}

#[tokio::test]
async fn archives_are_weighed_once_a_day() {
    let mut world = World::new();
    let user = &world.account("romeo@a", 19_990..20_001).await;
    let at = (Collection::Archive, user);
    let one = world.store.read(|tx| {
        Box::pin(async move { archive::quota::weigh(&mut **tx, at, (20_000, None), (u64::MAX, 9)).await })
    });
    let one = one.await.unwrap().bytes;
    world.options.quota = 5 * one - 1;
    world.round().await;
    assert_eq!(world.left(user).await.0, Some(19_997));
    // What the days weigh is known now: with a quota that is lower they go without being read.
    world.options.quota = 2 * one;
    world.options.when_full = crate::host::options::Full::Refuse;
    world.set(START + DAY);
    world.round().await;
    assert_eq!(world.left(user).await.0, Some(19_997));
    assert!(world.maintenance.quotas.is_full("romeo@a"));
    world.options.when_full = crate::host::options::Full::Oldest;
    world.set(START + 2 * DAY);
    world.round().await;
    assert_eq!(world.left(user).await.0, Some(19_999));
    assert!(!world.maintenance.quotas.is_full("romeo@a"));
    let days = world
        .store
        .read(|tx| Box::pin(async move { archive::quota::days(&mut **tx, Collection::Archive, user).await }));
    assert_eq!(days.await.unwrap(), [(20_000, Some(one)), (19_999, Some(one))]);
}
