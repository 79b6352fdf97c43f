//! DNS servers that answer badly: errors for one kind of record, records of other names, other classes, noise.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    missing_docs,
    reason = "test code"
)]

use std::net::Ipv4Addr;
use std::sync::Arc;

use hickory_resolver::proto::op::{Message, ResponseCode};
use hickory_resolver::proto::rr::rdata::{A, CNAME, SRV};
use hickory_resolver::proto::rr::{DNSClass, Name, RData, Record, RecordType};
use rookery_cluster::seams::Seams;
use rookery_node::config::{Anchor, Dns};
use rookery_node::dns::{Begin, Finder, NotFound};
use tokio::net::UdpSocket;

fn name(text: &str) -> Name {
    Name::from_ascii(text).unwrap()
}

fn srv(owner: &Name) -> Record {
    Record::from_rdata(owner.clone(), 300, RData::SRV(SRV::new(1, 1, 5269, name("host.example."))))
}

fn a(owner: &Name) -> Record {
    Record::from_rdata(owner.clone(), 300, RData::A(A(Ipv4Addr::new(127, 0, 0, 5))))
}

/// What is answered: a code and records; `None`: noise.
fn answer(asked: &Name, kind: RecordType) -> Option<(ResponseCode, Vec<Record>)> {
    let text = asked.to_ascii().to_ascii_lowercase();
    let direct = text.starts_with("_xmpps-server.");
    let domain = text.trim_start_matches("_xmpp-server._tcp.").trim_start_matches("_xmpps-server._tcp.");
    let nothing = Some((ResponseCode::NoError, Vec::new()));
    let found = |record: Record| Some((ResponseCode::NoError, vec![record]));
    let failed = Some((ResponseCode::ServFail, Vec::new()));
    match (domain, kind) {
        ("host.example.", RecordType::A) => found(a(asked)),
        ("direct-fails.example.", RecordType::SRV) if direct => failed,
        ("direct-fails.example.", RecordType::SRV) => found(srv(asked)),
        ("bare.example.", RecordType::SRV) if direct => failed,
        ("bare.example.", RecordType::A) => found(a(asked)),
        ("starttls-fails.example.", RecordType::SRV) if !direct => failed,
        ("starttls-fails.example.", RecordType::A) => found(a(asked)),
        ("no-and-fails.example.", RecordType::SRV) if direct => failed,
        ("no-and-fails.example.", RecordType::SRV) => {
            found(Record::from_rdata(asked.clone(), 300, RData::SRV(SRV::new(0, 0, 0, Name::root()))))
        }
        ("fails.example.", _) => failed,
        ("refuses.example.", _) => Some((ResponseCode::Refused, Vec::new())),
        ("noise.example.", _) => None,
        // Records of somebody else count for nothing, in whatever order they come.
        ("foreign.example.", RecordType::SRV) => found(srv(&name("_xmpp-server._tcp.bank.example."))),
        ("foreign.example.", RecordType::A) => found(a(&name("bank.example."))),
        ("kind.example.", RecordType::SRV) => found(a(asked)),
        ("class.example.", RecordType::A) => {
            let mut record = a(asked);
            record.dns_class = DNSClass::CH;
            found(record)
        }
        ("loop.example.", _) => {
            found(Record::from_rdata(asked.clone(), 300, RData::CNAME(CNAME(asked.clone()))))
        }
        ("flood.example.", RecordType::A) => Some((
            ResponseCode::NoError,
            (0..20).map(|_| a(asked)).chain([a(&name("bank.example."))]).collect(),
        )),
        _ => nothing,
    }
}

async fn serve(socket: UdpSocket) {
    let mut buffer = vec![0; 4_096];
    loop {
        let (length, from) = socket.recv_from(&mut buffer).await.unwrap();
        let Ok(request) = Message::from_vec(&buffer[..length]) else { continue };
        let query = request.queries[0].clone();
        if query.name().to_ascii().contains("silent") {
            continue; // as name servers that are not there
        }
        let reply = match answer(query.name(), query.query_type()) {
            Some((code, records)) => {
                let mut reply = Message::response(request.metadata.id, request.metadata.op_code);
                reply.metadata.response_code = code;
                reply.add_query(query);
                reply.add_answers(records);
                reply.to_vec().unwrap()
            }
            None => {
                let mut noise = buffer[..length].to_vec();
                noise[2..].fill(0xc0);
                noise
            }
        };
        socket.send_to(&reply, from).await.unwrap();
    }
}

/// A finder that asks such a server.
async fn finder(trust_anchor: Anchor) -> Arc<Finder> {
    #[allow(clippy::disallowed_methods, reason = "test code")]
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let servers = vec![socket.local_addr().unwrap()];
    tokio::spawn(serve(socket));
    let dns = Dns { servers, trust_anchor, proxy: None, refused: Vec::new() };
    Arc::new(Finder::new(&dns, Seams::system()).unwrap())
}

#[tokio::test]
async fn bad_answers_of_one_domain_are_its_own_matter() {
    // With validation, for which nothing here is good enough.
    let finder = finder(Anchor::Root).await;
    let all = [
        ("direct-fails.example", Ok("host.example")),
        ("bare.example", Ok("bare.example")),
        ("flood.example", Ok("flood.example")),
        ("starttls-fails.example", Err(false)),
        ("no-and-fails.example", Err(false)),
        ("fails.example", Err(false)),
        ("refuses.example", Err(false)),
        ("noise.example", Err(false)),
        ("foreign.example", Err(true)),
        ("kind.example", Err(true)),
        ("missing.example", Err(true)),
    ];
    let tasks = all.map(|(domain, wanted)| {
        let finder = finder.clone();
        tokio::spawn(async move {
            let found = finder.find(domain).await;
            match (&found, wanted) {
                (Ok(targets), Ok(host)) => {
                    let [target] = targets.list.as_slice() else { panic!("{domain}: {targets:?}") };
                    assert_eq!((target.host.as_str(), target.begin), (host, Begin::Starttls), "{domain}");
                    assert!(!target.secure && target.tlsa.is_empty(), "{domain}");
                    assert!(target.addresses.iter().all(|a| a.to_string() == "127.0.0.5"), "{target:?}");
                    assert!(target.addresses.len() <= 4, "{target:?}");
                }
                (Err(error), Err(permanent)) => assert_eq!(error.permanent(), permanent, "{domain}: {error}"),
                _ => panic!("{domain}: {found:?}"),
            }
        })
    });
    for task in tasks {
        task.await.unwrap();
    }
    // Whatever these are, they lead nowhere, and soon.
    for domain in ["class.example", "loop.example"] {
        let error = finder.find(domain).await.unwrap_err();
        assert!(matches!(error, NotFound::NoName(_) | NotFound::NoAnswer(..)), "{domain}: {error:?}");
    }
    // And the others are found as before.
    assert_eq!(finder.find("direct-fails.example").await.unwrap().list.len(), 1);
}

/// Thousands of names whose name servers never answer, of one zone and of a zone each: others are found nevertheless.
#[tokio::test]
async fn names_that_nobody_answers_for_do_not_keep_others_from_being_found() {
    let finder = finder(Anchor::None).await;
    let zone = |n: usize, own: bool| match own {
        true => format!("silent{n}.example"),
        false => format!("n{n}.silent.example"),
    };
    for (own, honest) in [(false, "direct-fails.example"), (true, "bare.example")] {
        let mut silent = tokio::task::JoinSet::new();
        for n in 0..2_000 {
            let (finder, domain) = (finder.clone(), zone(n, own));
            silent.spawn(async move { finder.find(&domain).await.is_err() });
        }
        // All of them are asked for, or stand in line.
        tokio::task::yield_now().await;
        let begun = std::time::Instant::now();
        assert_eq!(finder.find(honest).await.unwrap().list.len(), 1);
        assert!(begun.elapsed() < std::time::Duration::from_secs(10), "{:?}", begun.elapsed());
        silent.abort_all();
    }
}
