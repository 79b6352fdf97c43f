use super::*;
use crate::tables::double::{Double, still_decodes};

fn node(name: &str) -> NodeId {
    NodeId::new(name).unwrap()
}

fn owner(name: &str, epoch: u32) -> Owner {
    Owner { node: name.into(), generation: 3, epoch, released: false }
}

#[test]
fn old_records_decode() {
    let status = Status {
        generation: 3,
        state: State::Active as i32,
        address: "10.0.0.1:5280".into(),
        public: "a.example.org".into(),
        zone: "z1".into(),
        weight: 100,
        version: "0.1.0".into(),
        nonce: 7,
        knows: None,
    };
    still_decodes(
        "080310021a0d31302e302e302e313a35323830220d612e6578616d706c652e6f72672a027a3130643a05302e312e304107000000\
             00000000",
        &status,
    );
    let knows = Some(Knows { payloads: vec!["a".into()], kinds: vec!["b".into()] });
    let said = Status { generation: 3, knows, ..Status::default() };
    still_decodes("08034a060a0161120162", &said);
    assert!(said.says(|knows| knows.payload("a") && knows.kind("b")) && !said.says(|knows| knows.kind("a")));
    assert!(!status.says(|_| true));
    still_decodes("08031007", &Beat { generation: 3, count: 7 });
    let vote = Vote { beat: Some(Beat { generation: 3, count: 7 }), voter_generation: 2 };
    still_decodes("0a04080310071002", &vote);
    still_decodes("0a016110031805", &owner("a", 5));
    still_decodes("0a0161100318052001", &Owner { released: true, ..owner("a", 5) });
    // A state that a later version knows is not dead.
    let later = Status { state: 9, ..status };
    assert_eq!((later.state(), later.lives(3), later.lives(2)), (State::Unknown, true, false));
}

#[tokio::test]
async fn rows_come_back_under_their_names() {
    let mut tx = Double::new();
    let (a, b) = (node("a"), node("b"));
    for (place, name) in [&a, &b].into_iter().enumerate() {
        let generation = place as u64 + 1;
        put_status(&mut tx as &mut dyn Transaction, name, &Status { generation, ..Status::default() });
        put_beat(&mut tx as &mut dyn Transaction, name, &Beat { generation, count: 1 });
        put_vote(&mut tx as &mut dyn Transaction, &a, name, &Vote::default());
    }
    let found: Vec<_> =
        statuses(&mut tx).await.unwrap().into_iter().map(|(n, s)| (n, s.generation)).collect();
    assert_eq!(found, [(a.clone(), 1), (b.clone(), 2)]);
    assert_eq!(status(&mut tx, &b).await.unwrap().unwrap().generation, 2);
    assert_eq!(beats(&mut tx).await.unwrap().len(), 2);
    assert_eq!(beat(&mut tx, &a).await.unwrap().unwrap().generation, 1);
    assert_eq!(
        votes(&mut tx, &a).await.unwrap().into_iter().map(|(n, _)| n).collect::<Vec<_>>(),
        [a.clone(), b]
    );
    clear_votes(&mut tx as &mut dyn Transaction, &a);
    assert_eq!(votes(&mut tx, &a).await.unwrap(), []);
    clear(&mut tx as &mut dyn Transaction, &a);
    assert_eq!(tx.rows.len(), 2, "those of b");
}

#[tokio::test]
async fn owners_are_found_by_their_shards() {
    let mut tx = Double::new();
    for n in [3, 5, 700] {
        put_owner(&mut tx as &mut dyn Transaction, Shard(n), &owner("a", u32::from(n)));
    }
    let all = owners(&mut tx).await.unwrap();
    assert_eq!(
        all.iter().map(|(shard, owner)| (shard.0, owner.epoch)).collect::<Vec<_>>(),
        [(3, 3), (5, 5), (700, 700)]
    );
    let some = owners_of(&mut tx, &[Shard(700), Shard(4), Shard(3)]).await.unwrap();
    assert_eq!(some, [Some(owner("a", 700)), None, Some(owner("a", 3))]);
    assert_eq!(owners_of(&mut tx, &[]).await.unwrap(), []);
    assert!(owner("a", 1).is(&node("a"), 3) && !owner("a", 1).is(&node("a"), 4));
}
