use super::*;
use crate::store::{Ops, Select};
use crate::tables::double::{Double, still_decodes};

fn record(resource: &str) -> Record {
    Record {
        resource: resource.into(),
        token_hash: Bytes::from_static(&[1, 2]),
        created_at: 300,
        max_resume_s: 600,
        presence: Bytes::from_static(b"<presence/>"),
        priority: -1,
        flags: flags::CARBONS | flags::RESUMABLE,
        address: "::1".into(),
        user_agent: "Test".into(),
        numbering: 0,
        directed: Vec::new(),
        roster: Bytes::new(),
        bound: Bytes::new(),
        takes: Vec::new(),
        copies: Vec::new(),
    }
}

#[test]
fn old_records_decode_and_debug_shows_no_token() {
    still_decodes(
        "0a01781202010218ac0220d8042a0b3c70726573656e63652f3e3001381142033a3a314a0454657374",
        &record("x"),
    );
    still_decodes(
        "080110021a1007070707070707070707070707070707",
        &Progress { up_handled: 1, down_acked: 2, acked: Bytes::from_static(&[7; 16]), recent: Bytes::new() },
    );
    assert_eq!(format!("{:?}", record("x")), "Record(created at 300, flags 0x11)");
}

#[tokio::test]
async fn sessions_come_back_with_their_cursors() {
    let mut tx = Double::new();
    let user = Entity::new("juliet@a");
    let id = ArchiveId { micros: 1, epoch: 2, counter: 3 };
    let recent = Bytes::from_static(&[8; 16]);
    let cursor = Cursor { up_handled: u32::MAX, down_acked: 2, acked: Some(id), recent };
    let mut ops = Ops::new();
    put(&mut ops, &user, &[1; 16], &record("one")).unwrap();
    put(&mut ops, &user, &[0xff; 16], &record("two")).unwrap();
    put_cursor(&mut ops, &user, &[0xff; 16], &cursor);
    // What comes late for a session that was cleared shows nowhere.
    put_cursor(&mut ops, &user, &[2; 16], &cursor);
    ops.iter().for_each(|op| op.apply(&mut tx));
    let all = load(&mut tx, &user, 9).await.unwrap();
    assert_eq!(all.rows.iter().map(|s| &*s.record.resource).collect::<Vec<_>>(), ["one", "two"]);
    assert_eq!((&all.rows[0].cursor, &all.rows[1].cursor), (&Cursor::default(), &cursor));
    let larger = Record { presence: vec![b'x'; 100_000].into(), ..record("two") };
    put(&mut tx as &mut dyn Transaction, &user, &[0xff; 16], &larger).unwrap();
    let two = get(&mut tx, &user, &[0xff; 16]).await.unwrap().unwrap();
    assert_eq!((&two.record, two.cursor), (&larger, cursor));
    clear(&mut tx as &mut dyn Transaction, &user, &[0xff; 16]);
    assert_eq!(get(&mut tx, &user, &[0xff; 16]).await.unwrap(), None);
    assert_eq!(load(&mut tx, &user, 9).await.unwrap().rows.len(), 1);
}

#[tokio::test]
async fn a_shard_is_read_in_pages() {
    let mut tx = Double::new();
    let shard = Entity::new("a@b").shard();
    let mut ops = Ops::new();
    let mut expected = Vec::new();
    for user in (0..).map(|n| Entity::new(format!("x{n}@b"))).filter(|e| e.shard() == shard).take(4) {
        for n in 0..3u8 {
            put(&mut ops, &user, &[n; 16], &record("x")).unwrap();
            if n != 1 {
                put_cursor(&mut ops, &user, &[n; 16], &Cursor { up_handled: 9, ..Cursor::default() });
            }
            expected.push((user.clone(), [n; 16]));
        }
    }
    ops.iter().for_each(|op| op.apply(&mut tx));
    expected.sort();
    for limit in [1, 2, 3, 5, 12, 13] {
        let mut found: Vec<(Entity, Sid)> = Vec::new();
        loop {
            let after = found.last().cloned();
            let page = page(&mut tx, shard, after.as_ref().map(|(u, s)| (u, s)), limit).await.unwrap();
            assert!(page.rows.len() <= limit);
            assert!(page.rows.iter().all(|s| (s.cursor.up_handled == 9) == (s.sid[0] != 1)));
            found.extend(page.rows.into_iter().map(|s| (s.user, s.sid)));
            if !page.more {
                break;
            }
        }
        assert_eq!(found, expected, "pages of {limit}");
    }
    let all = Key::shard(Kind::Session, shard).range();
    assert_eq!(tx.range(Select::range(all, 2), Isolation::Snapshot).await.unwrap().rows.len(), 2);
}
