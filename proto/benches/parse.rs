//! What one chat message costs between a socket and a socket: frame, check, parse, write.

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use rookery_proto::{
    xml::{
        Limits, Scope, check,
        framer::{Framer, Step},
    },
    xmpp::{Element, Jid, Stanza, ns, toplevel::TopLevel},
};
use std::hint::black_box;

/// 315 bytes, as clients of today send them.
const CHAT: &str = "<message to='juliet@example.org/balcony' id='6cb0b8a4-43a8-4b8e-9d3f-0f6f5a9a7a11' type='chat'>\
    <body>Wherefore art thou, Romeo? The walls are high and hard to c</body>\
    <active xmlns='http://jabber.org/protocol/chatstates'/><request xmlns='urn:xmpp:receipts'/>\
    <origin-id xmlns='urn:xmpp:sid:0' id='6cb0b8'/></message>";

fn parse(c: &mut Criterion) {
    let frame = CHAT.as_bytes();
    let (scope, limits) = (Scope::CLIENT, Limits::CLIENT);
    let mut group = c.benchmark_group(format!("chat message of {} bytes", frame.len()));
    group.throughput(Throughput::Bytes(frame.len().try_into().unwrap_or(u64::MAX)));
    let mut framer = Framer::new(limits);
    assert!(matches!(framer.next(b"<stream:stream>"), Ok(Step::Open { .. })));
    group.bench_function("frame", |b| b.iter(|| framer.next(black_box(frame))));
    group.bench_function("check", |b| b.iter(|| check::element(black_box(frame), &scope, &limits)));
    group.bench_function("check and parse", |b| b.iter(|| Stanza::parse(black_box(frame), &scope, &limits)));
    let mut out = Vec::with_capacity(1024);
    group.bench_function("frame, check, parse, write", |b| {
        b.iter(|| {
            let step = framer.next(black_box(frame));
            let stanza = Stanza::parse(frame, &scope, &limits);
            out.clear();
            if let Ok(stanza) = &stanza {
                stanza.write(&mut out);
            }
            (step, stanza)
        });
    });
    let Ok(stanza) = Stanza::parse(frame, &scope, &limits) else { return };
    let Ok(to) = Jid::parse("nurse@example.org/hall") else { return };
    group.bench_function("write for one of many", |b| {
        b.iter(|| {
            out.clear();
            stanza.write_with(
                &mut out,
                Some(black_box(&to)),
                b"<stanza-id xmlns='urn:xmpp:sid:0' by='a' id='b'/>",
            );
        });
    });
    group.bench_function("clone", |b| b.iter(|| black_box(&stanza).clone()));
    group.bench_function("find a child", |b| b.iter(|| black_box(&stanza).has("request", ns::RECEIPTS)));
    group.bench_function("tree", |b| b.iter(|| Element::parse(black_box(frame))));
    group.finish();
    // The yardstick: what a parser without our checks takes for its bare events, on the same machine at the same time.
    c.bench_function("quick-xml's events alone", |b| {
        b.iter(|| {
            let mut reader = quick_xml::Reader::from_str(black_box(CHAT));
            while !matches!(reader.read_event(), Ok(quick_xml::events::Event::Eof) | Err(_)) {}
        });
    });
    let ack = b"<a xmlns='urn:xmpp:sm:3' h='12345'/>";
    c.bench_function("ack", |b| b.iter(|| TopLevel::parse(black_box(ack), &scope, &limits)));
}

criterion_group!(benches, parse);
criterion_main!(benches);
