//! The tables on the memory engine, through the runner and the batcher: what needs real commits, conflicts and
//! versionstamps.

use std::sync::Arc;

use bytes::Bytes;

use super::archive::{Clock, Collection, Direction, End, Entry, Query, With};
use super::secrets::Secret;
use super::*;
use crate::entity::Entity;
use crate::seams::Seams;
use crate::store::batcher::Settings;
use crate::store::keys::{Key, Kind};
use crate::store::memory::Memory;
use crate::store::{Batcher, Ops, Options, Store, Writes};

fn store() -> Store {
    Store::new(Arc::new(Memory::new()), Seams::system())
}

fn entry(n: usize) -> Entry {
    Entry {
        with: if n.is_multiple_of(3) { "romeo@b" } else { "nurse@b" }.into(),
        direction: Direction::In as i32,
        // Every tenth is one of the largest stanzas.
        stanza: vec![b'x'; if n.is_multiple_of(10) { 256_000 } else { 300 }].into(),
        ..Entry::default()
    }
}

/// All entries that match, over as many transactions as it takes.
async fn walk(store: &Store, owner: &Entity, mut query: Query) -> Vec<(archive::ArchiveId, Entry)> {
    let mut found = Vec::new();
    loop {
        let (asked, owner) = (&query, owner);
        let slice = store
            .read(|tx| {
                Box::pin(async move { archive::page(&mut **tx, Collection::Archive, owner, asked).await })
            })
            .await
            .unwrap();
        found.extend(slice.entries);
        if slice.end == End::Complete {
            return found;
        }
        query = query.onwards(slice.cursor);
    }
}

#[tokio::test]
async fn an_archive_written_by_the_batcher_is_read_in_order() {
    let store = store();
    let batcher = Batcher::start(store.clone(), Settings::default());
    let owner = Entity::new("juliet@a");
    let (mut clock, mut day) = (Clock::default(), None);
    let mut written = Vec::new();
    let mut commits = Vec::new();
    for n in 0..60 {
        let id = clock.next(1_700_000_000_000_000, 1);
        let mut ops = Ops::new();
        day = Some(archive::append(&mut ops, Collection::Archive, &owner, id, &entry(n), day).unwrap());
        offline::set(&mut ops, &owner, offline::Cursor::at(id));
        seen::put(
            &mut ops,
            &owner,
            &[7; 16],
            seen::Seen { last: u64::try_from(n).unwrap(), at: 1, ..seen::Seen::default() },
        );
        let (batcher, owner) = (batcher.clone(), owner.clone());
        commits.push(tokio::spawn(async move { batcher.write(Writes::new(&owner, ops)).await }));
        written.push((id, entry(n)));
    }
    for commit in commits {
        commit.await.unwrap().unwrap();
    }
    assert_eq!(walk(&store, &owner, Query::all(7)).await, written);
    let backwards = Query { backwards: true, max_bytes: 300_000, ..Query::all(50) };
    assert!(walk(&store, &owner, backwards).await.iter().rev().eq(&written));
    let romeo = Query { with: With::Bare("romeo@b".into()), max_rows: 11, ..Query::all(3) };
    let expected = written.iter().filter(|(_, entry)| entry.with == "romeo@b");
    assert!(walk(&store, &owner, romeo).await.iter().eq(expected));
    let user = &owner;
    let (last, waits) = store
        .read(|tx| {
            Box::pin(async move {
                let last = archive::last_id(&mut **tx, Collection::Archive, user).await?;
                Ok((last, offline::get(&mut **tx, user).await?))
            })
        })
        .await
        .unwrap();
    assert_eq!((last, waits.map(|cursor| cursor.after)), (clock.last, clock.last));
}

#[tokio::test]
async fn each_commit_gives_a_roster_a_greater_version() {
    let store = store();
    let users = [Entity::new("juliet@a"), Entity::new("romeo@a")];
    let mut versions = Vec::new();
    for n in 0..3 {
        let users = &users;
        // Both sides of a subscription change in one transaction.
        store
            .write(Options::default(), |tx| {
                Box::pin(async move {
                    for (user, contact) in users.iter().zip(users.iter().rev()) {
                        let item = roster::Item {
                            jid: contact.to_string(),
                            ask_subscribe: n == 1,
                            ..Default::default()
                        };
                        roster::put(&mut **tx, user, &item)?;
                    }
                    Ok(())
                })
            })
            .await
            .unwrap();
        let read =
            |user| store.read(move |tx| Box::pin(async move { roster::version(&mut **tx, user).await }));
        let [juliet, romeo] = users;
        let version = read(juliet).await.unwrap();
        assert_eq!(read(romeo).await.unwrap(), version);
        versions.push(version);
    }
    assert!(versions.is_sorted_by(|a, b| a < b), "{versions:?}");
    let user = &users[0];
    let all = store.read(|tx| Box::pin(async move { roster::load(&mut **tx, user, 9).await })).await.unwrap();
    assert_eq!(all.rows.len(), 1);
}

#[tokio::test]
async fn racing_transactions_make_one_secret_and_one_account() {
    let store = store();
    let mut racers = Vec::new();
    for n in 0..20u64 {
        let store = store.clone();
        racers.push(tokio::spawn(async move {
            let (random, user) = (store.seams().random.clone(), Entity::new("juliet@a"));
            let (random, user) = (&*random, &user);
            let account = &accounts::Account { created_at: n, ..Default::default() };
            let secret: Secret<16> = store
                .write(Options::default(), |tx| {
                    Box::pin(async move { secrets::get_or_make(&mut **tx, "x", random).await })
                })
                .await
                .unwrap();
            let created = store
                .write(Options::default(), |tx| {
                    Box::pin(async move { accounts::create(&mut **tx, user, account, 0).await })
                })
                .await
                .unwrap();
            (secret, created)
        }));
    }
    let mut outcomes = Vec::new();
    for racer in racers {
        outcomes.push(racer.await.unwrap());
    }
    assert!(outcomes.iter().all(|(secret, _)| *secret == outcomes[0].0));
    assert_eq!(outcomes.iter().filter(|(_, created)| *created == accounts::Created::Yes).count(), 1);
}

#[tokio::test]
async fn an_erased_user_leaves_nothing() {
    let store = store();
    let user = &Entity::new("juliet@a");
    let count = || {
        store.read(|tx| {
            Box::pin(async move {
                // Every row of the store but the marks of the runner.
                let all = Bytes::from_static(&[0])..Bytes::from_static(&[0xff]);
                let marks = Key::deployment(Kind::Operation).finish().slice(..2);
                let page = tx.scan(all, 10_000).await?;
                Ok(page.rows.iter().filter(|(key, _)| !key.starts_with(&marks)).count())
            })
        })
    };
    store
        .write(Options::default(), |tx| {
            Box::pin(async move {
                let tx = &mut **tx;
                accounts::put(tx, user, &accounts::Account::default());
                roster::put(tx, user, &roster::Item { jid: "n@b".into(), ..Default::default() })?;
                vcard::put(tx, user, &vec![b'x'; 50_000].into())?;
                let (mut clock, mut day) = (Clock::default(), None);
                for n in 0..30 {
                    // One a day.
                    let id = clock.next(n * 86_400_000_000, 1);
                    day = Some(archive::append(tx, Collection::Archive, user, id, &Entry::default(), day)?);
                }
                Ok(())
            })
        })
        .await
        .unwrap();
    assert_eq!(count().await.unwrap(), 3 + 2 + 5 + 30 * 3);
    store
        .write(Options::default(), |tx| {
            Box::pin(
                async move { archive::retain(&mut **tx, Collection::Archive, user.shard(), 10, 99).await },
            )
        })
        .await
        .unwrap();
    assert_eq!(count().await.unwrap(), 3 + 2 + 5 + 20 * 3);
    store
        .write(Options::default(), |tx| Box::pin(async move { accounts::erase_user(&mut **tx, user).await }))
        .await
        .unwrap();
    assert_eq!(count().await.unwrap(), 0);
}
