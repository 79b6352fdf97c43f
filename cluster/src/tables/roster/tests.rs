use super::*;
use crate::tables::double::{Double, still_decodes};

fn item(jid: &str) -> Item {
    Item {
        jid: jid.into(),
        name: Some("Nurse".into()),
        groups: vec!["Servants".into(), "Friends".into()],
        subscription: Subscription::Both as i32,
        ask_subscribe: true,
        approved: true,
        pending_in: Some(Bytes::from_static(b"<presence/>")),
        unlisted: true,
        untold: 0,
        asked_at: 0,
    }
}

#[test]
fn old_records_decode() {
    still_decodes(
        "0a036e406212054e757273651a0853657276616e74731a07467269656e64732003280130013a0b3c70726573656e63652f3e4001",
        &item("n@b"),
    );
}

#[tokio::test]
async fn contacts_come_back_in_order_and_each_change_has_its_version() {
    let mut tx = Double::new();
    let user = Entity::new("juliet@example.org");
    assert_eq!(version(&mut tx, &user).await.unwrap(), RosterVersion::default());
    let mut versions = Vec::new();
    for jid in ["nurse@b", "a@b", "nurse@b"] {
        put(&mut tx, &user, &item(jid)).unwrap();
        versions.push(version(&mut tx, &user).await.unwrap());
    }
    put(&mut tx, &Entity::new("juliet@example.orgs"), &item("else@b")).unwrap();
    let all = load(&mut tx, &user, 10).await.unwrap();
    assert_eq!(all, Rows { rows: vec![item("a@b"), item("nurse@b")], more: false });
    assert!(load(&mut tx, &user, 1).await.unwrap().more);
    remove(&mut tx, &user, "a@b").await.unwrap();
    versions.push(version(&mut tx, &user).await.unwrap());
    assert!(versions.is_sorted_by(|a, b| a < b), "{versions:?}");
    assert_eq!(get(&mut tx, &user, "a@b").await.unwrap(), None);
    assert_eq!(get(&mut tx, &user, "nurse@b").await.unwrap(), Some(item("nurse@b")));
}

#[tokio::test]
async fn who_knows_a_version_is_told_what_is_new() {
    let mut tx = Double::new();
    let user = Entity::new("juliet@example.org");
    let listed = |jid: &str| Item { unlisted: false, ..item(jid) };
    async fn now(tx: &mut Double, user: &Entity) -> RosterVersion {
        version(tx, user).await.unwrap()
    }
    async fn since(tx: &mut Double, user: &Entity, version: &RosterVersion) -> Option<Vec<String>> {
        let changes = changes(tx, user, version, (100, 3)).await.unwrap()?;
        assert_eq!(changes.version, now(tx, user).await);
        let name =
            |row: std::result::Result<Item, String>| row.map_or_else(|jid| format!("-{jid}"), |i| i.jid);
        Some(changes.rows.into_iter().map(|(_, row)| name(row)).collect())
    }
    let none = RosterVersion::default();
    assert_eq!(since(&mut tx, &user, &none).await, Some(vec![]));
    for jid in ["b@b", "a@b"] {
        put(&mut tx, &user, &listed(jid)).unwrap();
    }
    let two = now(&mut tx, &user).await;
    assert_eq!(since(&mut tx, &user, &none).await.unwrap(), ["b@b", "a@b"]);
    // Nobody is told of rows that are the server's own.
    put(&mut tx, &user, &item("request@b")).unwrap();
    assert_eq!(since(&mut tx, &user, &two).await, Some(vec![]));
    put(&mut tx, &user, &listed("b@b")).unwrap();
    remove(&mut tx, &user, "a@b").await.unwrap();
    assert_eq!(since(&mut tx, &user, &two).await.unwrap(), ["b@b", "-a@b"]);
    let four = now(&mut tx, &user).await;
    assert_eq!(since(&mut tx, &user, &four).await, Some(vec![]));
    // The contact comes back.
    put(&mut tx, &user, &listed("a@b")).unwrap();
    assert_eq!(since(&mut tx, &user, &two).await.unwrap(), ["b@b", "a@b"]);
    assert_eq!(since(&mut tx, &user, &four).await.unwrap(), ["a@b"]);
    // Too much; and versions that never were.
    put(&mut tx, &user, &listed("c@b")).unwrap();
    put(&mut tx, &user, &listed("d@b")).unwrap();
    assert_eq!(since(&mut tx, &user, &none).await, None);
    assert_eq!(since(&mut tx, &user, &[0xff; 10]).await, None);
    // Removals are not remembered for ever; the last one always.
    let before = now(&mut tx, &user).await;
    for n in 0..=REMOVED {
        let last = now(&mut tx, &user).await;
        remove(&mut tx, &user, &format!("{n}@b")).await.unwrap();
        assert_eq!(since(&mut tx, &user, &last).await.unwrap(), [format!("-{n}@b")]);
    }
    assert_eq!(since(&mut tx, &user, &before).await, None);
    let after = now(&mut tx, &user).await;
    put(&mut tx, &user, &listed("e@b")).unwrap();
    assert_eq!(since(&mut tx, &user, &after).await.unwrap(), ["e@b"]);
    let all = everything(&mut tx, &user, 100).await.unwrap();
    let removed = all.rows.iter().filter(|(_, row)| row.is_err()).count();
    assert_eq!((all.version, removed, all.rows.len()), (now(&mut tx, &user).await, 1, 7));
    // Another account of that name.
    tx.rows.clear();
    begin(&mut tx, &user);
    let new = now(&mut tx, &user).await;
    assert_eq!(since(&mut tx, &user, &after).await, None);
    put(&mut tx, &user, &listed("f@b")).unwrap();
    assert_eq!(since(&mut tx, &user, &new).await.unwrap(), ["f@b"]);
}

#[test]
fn versions_are_read_as_they_are_written() {
    let version = [0, 1, 2, 3, 4, 5, 6, 0xfe, 0xff, 0x10];
    assert_eq!(parse_version(&version_text(&version)), Some(version));
    for wrong in [
        "",
        "no-such-version",
        "0001020304050607080",
        "c+00102030405060708ff",
        "c000102030405060708é",
        "00010203040506070809",
    ] {
        assert_eq!(parse_version(wrong), None, "{wrong}");
    }
}

#[tokio::test]
async fn rows_of_any_size_are_stored_and_counted() {
    let mut tx = Double::new();
    let user = Entity::new("juliet@example.org");
    let large = Item { pending_in: Some(vec![b'x'; 200_000].into()), ..item("large@b") };
    put(&mut tx, &user, &large).unwrap();
    put(&mut tx, &user, &Item { unlisted: false, ..item("small@b") }).unwrap();
    assert_eq!(get(&mut tx, &user, "large@b").await.unwrap(), Some(large.clone()));
    let bytes = "small@bNurseServantsFriends".len();
    let all = Count { listed: 1, unlisted: 1, bytes, more: false };
    assert_eq!(count(&mut tx, &user, 9).await.unwrap(), all);
    let first = Count { listed: 0, unlisted: 1, bytes: 0, more: true };
    assert_eq!(count(&mut tx, &user, 1).await.unwrap(), first);
    // A smaller record leaves no part of the larger one behind.
    put(&mut tx, &user, &item("large@b")).unwrap();
    assert_eq!(load(&mut tx, &user, 9).await.unwrap().rows.len(), 2);
    let too_large = Item { pending_in: Some(vec![b'x'; split::MAX].into()), ..item("large@b") };
    assert_eq!(put(&mut tx, &user, &too_large).unwrap_err().class, Class::TooLarge);
    assert_eq!(get(&mut tx, &user, "large@b").await.unwrap(), Some(item("large@b")));
}

#[tokio::test]
async fn the_oldest_requests_make_room_and_leave_contacts_alone() {
    let mut tx = Double::new();
    let user = Entity::new("juliet@example.org");
    let asked = |jid: &str, at| Item {
        pending_in: Some(Bytes::from_static(b"<presence/>")),
        asked_at: at,
        ..Item::unlisted(jid)
    };
    for (jid, at) in [("d@b", 1), ("c@b", 2), ("b@b", 3)] {
        keep(&mut tx, &user, &asked(jid, at)).unwrap();
    }
    // A contact that asks, longer ago than anybody knows.
    put(&mut tx, &user, &Item { unlisted: false, asked_at: 0, ..item("a@b") }).unwrap();
    assert_eq!(make_room(&mut tx, &user, "e@b", (5, 9)).await.unwrap(), 0);
    assert_eq!(make_room(&mut tx, &user, "e@b", (3, 9)).await.unwrap(), 2);
    let left = load(&mut tx, &user, 9).await.unwrap().rows;
    let waits: Vec<_> = left.iter().map(|item| (&item.jid[..], item.pending_in.is_some())).collect();
    assert_eq!(waits, [("a@b", false), ("b@b", true), ("c@b", true)]);
    drop_requests(&mut tx, &user, 9, |jid| jid == "c@b").await.unwrap();
    assert_eq!(load(&mut tx, &user, 9).await.unwrap().rows.len(), 2);
}

#[test]
fn no_domain_takes_the_room_of_all_others() {
    let flood = |n: u64| (n + 10, "x@flood");
    let mut waiting = vec![(1, "a@old"), (2, "b@old"), (3, "c@other"), (4, "d")];
    assert_eq!(displaced(&waiting, 4), []);
    assert_eq!(displaced(&waiting, 3), [0]);
    waiting.extend((0..5).map(flood));
    // The flood alone, down to as many as others have; then the request that has waited longest.
    assert_eq!(displaced(&waiting, 6), [4, 5, 6]);
    assert_eq!(displaced(&waiting, 4), [4, 5, 6, 0, 7]);
    assert_eq!(displaced(&waiting, 0).len(), waiting.len());
}
