use super::*;

fn gate(connections: usize, per_address: usize, before: usize, before_per: usize) -> Gate {
    let mut limits = crate::config::Config::development().limits;
    limits.connections = connections;
    limits.connections_per_address = per_address;
    limits.connections_before_login = before;
    limits.connections_before_login_per_address = before_per;
    Gate::new(&limits)
}

fn origin(n: u8) -> Origin {
    std::net::IpAddr::from([192, 0, 2, n]).into()
}

fn sent(pass: &Pass) -> bool {
    pass.away.sent.load(Ordering::Acquire)
}

#[test]
fn in_all_and_before_login() {
    let gate = gate(3, 9, 2, 9);
    let mut a = gate.enter().unwrap();
    let b = gate.enter().unwrap();
    a.standing().proved();
    b.standing().proved();
    assert_eq!(gate.enter().err(), Some(Refusal::BeforeLogin));
    a.logged_in();
    a.logged_in();
    let c = gate.enter().unwrap();
    c.standing().proved();
    drop(b);
    let mut d = gate.enter().unwrap();
    d.logged_in();
    assert_eq!(gate.enter().err(), Some(Refusal::Total));
    assert_eq!(gate.counts(), (3, 1));
    drop((a, c, d));
    assert_eq!(gate.counts(), (0, 0));
}

#[test]
fn the_oldest_that_has_not_authenticated_makes_room() {
    let gate = gate(9, 9, 3, 2);
    let mut passes: Vec<_> = (0..3).map(|_| gate.enter().unwrap()).collect();
    passes[0].from(origin(1)).unwrap();
    passes[0].standing().proved();
    passes[1].from(origin(2)).unwrap();
    passes[2].from(origin(1)).unwrap();
    // In all: the oldest, which is not counted any more, though not gone yet.
    let mut d = gate.enter().unwrap();
    assert!(!sent(&passes[0]) && sent(&passes[1]) && !sent(&passes[2]));
    assert_eq!(gate.counts(), (3, 3));
    // From one address: the oldest from there.
    d.from(origin(1)).unwrap();
    assert!(sent(&passes[2]) && !sent(&d));
    assert_eq!(gate.counts(), (2, 2));
    passes.push(d);
    passes.iter_mut().for_each(Pass::logged_in);
    assert_eq!(gate.counts(), (2, 0));
    drop(passes);
    assert_eq!(gate.counts(), (0, 0));
    assert!(gate.0.inner.lock().by_network.is_empty());
}

#[test]
fn the_networks_of_one_customer_count_together() {
    let gate = gate(9_999, 9_999, 9_999, 2);
    let from = |text: String| Origin::from(text.parse::<std::net::IpAddr>().unwrap());
    let enter = |origin| {
        let mut pass = gate.enter().unwrap();
        pass.from(origin).unwrap();
        pass
    };
    let one: Vec<_> = (0..256).map(|n| enter(from(format!("2001:db8:1:{n:x}::1")))).collect();
    assert_eq!(one.iter().filter(|p| !sent(p)).count(), 4, "of one /56");
    let more: Vec<_> = (1..256).map(|n| enter(from(format!("2001:db8:1:{n:x}00::1")))).collect();
    assert_eq!(one.iter().chain(&more).filter(|p| !sent(p)).count(), 8, "of one /48");
    let other = enter(from("2001:db8:2::1".to_owned()));
    assert_eq!(gate.counts(), (9, 9));
    drop((one, more, other));
    assert!(gate.0.inner.lock().by_network.is_empty());
}

#[test]
fn from_one_origin() {
    let gate = gate(9, 2, 9, 1);
    let mut a = gate.enter().unwrap();
    a.from(origin(1)).unwrap();
    a.standing().proved();
    let mut b = gate.enter().unwrap();
    assert_eq!(b.from(origin(1)), Err(Refusal::BeforeLoginPerAddress));
    b.from(origin(2)).unwrap();
    a.logged_in();
    let mut c = gate.enter().unwrap();
    c.from(origin(1)).unwrap();
    c.logged_in();
    let mut d = gate.enter().unwrap();
    assert_eq!(d.from(origin(1)), Err(Refusal::PerAddress));
    drop((a, b, c, d));
    assert!(gate.0.inner.lock().by_network.is_empty());
}

#[test]
fn new_limits_hold_for_the_next() {
    let small = gate(1, 1, 1, 1);
    let one = small.enter().unwrap();
    one.standing().proved();
    assert!(small.enter().is_err());
    small.set_limits(&crate::config::Config::development().limits);
    assert!(small.enter().is_ok());
}

#[tokio::test]
async fn shut_and_open() {
    let gate = gate(9, 9, 9, 9);
    assert!(!gate.open());
    gate.shut();
    gate.is_shut().await;
    assert_eq!(gate.enter().err(), Some(Refusal::Shut));
    assert!(gate.open() && gate.enter().is_ok());
}
