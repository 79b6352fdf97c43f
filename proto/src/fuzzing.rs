//! What the fuzz targets run, so that a short deterministic run of the same is among the tests.
//!
//! Each function takes any bytes and panics only if a promise of this crate is broken.
#![allow(clippy::expect_used, reason = "a broken promise must panic here; nothing else calls this module")]

use crate::{
    sasl,
    xml::{
        Error, Limits, Scope, check,
        framer::{Framer, Step},
    },
    xmpp::{BareJid, Element, Jid, Stanza, stanza},
};

/// A target: any bytes in, a panic if a promise is broken.
pub type Target = fn(&[u8]);

/// Every target by name.
pub const TARGETS: &[(&str, Target)] =
    &[("framer", framer), ("stanza", stanza), ("element", element), ("jid", jid), ("sasl", sasl)];

/// Small limits, so that short inputs reach them.
const LIMITS: Limits = Limits { stanza_bytes: 2048, depth: 12, attributes: 12, namespaces: 12, children: 12 };

/// All steps of a stream whose bytes come in pieces of the given lengths, over and over.
fn steps(data: &[u8], pieces: &[u8]) -> (Vec<Step>, Option<Error>) {
    let mut framer = Framer::new(LIMITS);
    let mut pieces = pieces.iter().cycle();
    let (mut from, mut to) = (0, 0);
    let mut steps: Vec<Step> = Vec::new();
    loop {
        match framer.next(data.get(from..to).unwrap_or_default()) {
            Err(error) => return (steps, Some(error)),
            Ok(Step::Need) if to == data.len() => return (steps, None),
            Ok(Step::Need) => {
                let piece = pieces.next().map_or(data.len(), |n| usize::from(*n) + 1);
                to = data.len().min(to + piece);
            }
            Ok(step) => {
                let (Step::Whitespace { len }
                | Step::Declaration { len }
                | Step::Open { len }
                | Step::Element { len }
                | Step::Close { len }) = step
                else {
                    unreachable!("Need was above")
                };
                assert!(len > 0 && from + len <= to, "a step of bytes that are not there");
                from += len;
                // White space may be cut anywhere.
                match (steps.last_mut(), step) {
                    (Some(Step::Whitespace { len: before }), Step::Whitespace { .. }) => *before += len,
                    _ => steps.push(step),
                }
            }
        }
    }
}

/// However a stream is cut, the framer finds the same frames; those that the check accepts make stanzas or elements.
pub fn framer(data: &[u8]) {
    let (pieces, data) = data.split_at(data.len().min(4));
    let (whole, error) = steps(data, &[]);
    let (cut, cut_error) = steps(data, pieces);
    let (bytewise, byte_error) = steps(data, &[0]);
    assert!(error.is_some() == cut_error.is_some() && error.is_some() == byte_error.is_some());
    assert!(whole == cut && whole == bytewise, "frames depend on how the stream is cut");
    let mut at = 0;
    for step in whole {
        match step {
            Step::Element { len } => {
                stanza(data.get(at..at + len).unwrap_or_default());
                at += len;
            }
            Step::Whitespace { len }
            | Step::Declaration { len }
            | Step::Open { len }
            | Step::Close { len } => {
                at += len;
            }
            Step::Need => {}
        }
    }
}

/// What is accepted as a stanza is well-formed, self-contained, and the same after it was written and read.
pub fn stanza(data: &[u8]) {
    let checked = check::element(data, &Scope::CLIENT, &LIMITS);
    let parsed = Stanza::parse(data, &Scope::CLIENT, &LIMITS);
    let parsed = match parsed {
        Err(stanza::Error::Xml(error)) => {
            let own = matches!(error, Error::TooManyChildren(_) | Error::Schema(_));
            assert!(own || checked == Err(error), "the check and the parser judge differently");
            return;
        }
        Err(stanza::Error::Malformed(malformed)) => {
            if let Some(reply) = malformed.reply() {
                assert!(reply.error().is_some());
            }
            return;
        }
        Err(_) => return,
        Ok(parsed) => parsed,
    };
    assert!(checked.is_ok(), "the check and the parser judge differently");
    // The tree of what came and the tree of what is kept are the same.
    let tree = Element::parse_in(data, &Scope::CLIENT, &LIMITS).expect("what was checked can be read");
    let stored = parsed.to_bytes();
    let kept = Element::parse_in(&stored, &Scope::NOTHING, &Limits::TRUSTED).expect("what is written is XML");
    assert_eq!(tree.nodes(), kept.nodes(), "the payload changed its meaning");
    // Written and read again it is the same to the last byte.
    let again =
        Stanza::parse(&stored, &Scope::NOTHING, &Limits::TRUSTED).expect("what is written is a stanza");
    assert_eq!(again, parsed);
    assert_eq!(again.to_bytes(), stored);
    // The index agrees with the tree, and each child stands alone.
    let children: Vec<_> = parsed.children().map(|child| child.element()).collect();
    assert!(children.iter().eq(tree.children()), "the index and the tree differ");
    for (child, element) in parsed.children().zip(&children) {
        assert!(element.is(child.name(), child.ns()) && child.is(element.name(), element.ns()));
        assert_eq!(Element::parse(child.raw()).as_ref(), Ok(element));
        assert_eq!(child.text(), element.text());
        for (name, value) in element.attrs() {
            assert_eq!(child.attr(name).as_deref(), Some(value));
        }
    }
    let fewer = parsed.without(|child| child.name().len() % 2 == 0);
    assert!(fewer.children().eq_by_name(parsed.children().filter(|child| child.name().len() % 2 != 0)));
    let more = parsed.append(b"<x xmlns='urn:x'/>");
    assert_eq!(more.children().count(), children.len() + 1);
    assert_eq!(more.without(|child| child.is("x", "urn:x")).to_bytes(), {
        parsed.without(|child| child.is("x", "urn:x")).to_bytes()
    });
}

/// Comparison of children by what can be seen of them.
trait EqByName<'a>: Iterator<Item = stanza::ChildRef<'a>> + Sized {
    fn eq_by_name<'b>(self, other: impl Iterator<Item = stanza::ChildRef<'b>>) -> bool {
        let show =
            |child: stanza::ChildRef<'_>| (child.name().to_owned(), child.ns().to_owned(), child.bytes());
        self.map(show).eq(other.map(|child| (child.name().to_owned(), child.ns().to_owned(), child.bytes())))
    }
}

impl<'a, I: Iterator<Item = stanza::ChildRef<'a>>> EqByName<'a> for I {}

/// An element means the same after it was written and read.
pub fn element(data: &[u8]) {
    if let Ok(element) = Element::parse_in(data, &Scope::CLIENT, &LIMITS) {
        let mut out = Vec::new();
        element.write(&mut out);
        assert_eq!(Element::parse(&out).as_ref(), Ok(&element), "the element changed its meaning");
        let mut inside = Vec::new();
        element.write_in(&mut inside, element.ns());
        assert!(inside.len() <= out.len());
    }
}

/// Canonical addresses are fixed points, and their parts make them up.
pub fn jid(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let Ok(jid) = Jid::parse(text) else { return };
    assert_eq!(Jid::parse(jid.as_str()).as_ref(), Ok(&jid), "canonical is not canonical");
    assert!(jid.as_str().starts_with(jid.bare_str()) && jid.as_str().len() <= 3 * 1023 + 2);
    let bare = BareJid::new(jid.local(), jid.domain()).expect("parts of a JID make a JID");
    assert_eq!(bare.as_str(), jid.bare_str());
    if let Some(resource) = jid.resource() {
        let full = bare.with_resource(resource).expect("parts of a JID make a JID");
        assert_eq!(full.as_str(), jid.as_str());
    }
}

/// No exchange ends in success by chance, and none panics. The first byte chooses the mechanism, lines are messages.
pub fn sasl(data: &[u8]) {
    let Some((first, data)) = data.split_first() else { return };
    let all = sasl::Mechanism::ALL;
    let Some(mechanism) = all.into_iter().cycle().nth(usize::from(*first)) else { return };
    let Ok(domain) = BareJid::parse("example.org") else { return };
    let context = sasl::Context {
        domain,
        bindings: sasl::ChannelBindings { exporter: Some([7; 32]), server_end_point: Some(vec![9; 32]) },
        offered: all.to_vec(),
        nonce: sasl::Nonce::from_random([1; 18]),
        fakes: sasl::Fakes::new([2; 32], 4096),
        downgrade_hash: *first > 127,
    };
    let mut messages = data.split(|b| *b == b'\n');
    let (mut server, mut step) = sasl::Server::start(mechanism, messages.next(), context);
    for _ in 0..8 {
        step = match step {
            sasl::Step::Challenge(_) => match messages.next() {
                Some(message) => server.response(message),
                None => return,
            },
            sasl::Step::NeedCredentials { .. } => server.credentials(None),
            sasl::Step::NeedPlainVerify(_) => server.verified(false),
            sasl::Step::Success { .. } => unreachable!("nobody has a password here"),
            sasl::Step::Failure(_) => return,
        };
    }
    unreachable!("an exchange without an end")
}
