//! Stanzas read, changed and written.

use super::*;
use crate::{
    xml::{Error as XmlError, Limits, Scope},
    xmpp::Condition,
};

fn parse_in(frame: &str, scope: &Scope) -> Result<Stanza, Error> {
    Stanza::parse(frame.as_bytes(), scope, &Limits::CLIENT)
}

fn parse(frame: &str) -> Stanza {
    parse_in(frame, &Scope::CLIENT).unwrap()
}

fn written(stanza: &Stanza) -> String {
    let mut out = Vec::new();
    stanza.write(&mut out);
    String::from_utf8(out).unwrap()
}

const CHAT: &str = "<message from='romeo@example.org/orchard' to='juliet@example.org' id='m&amp;1' type='chat' \
                    xml:lang='en'><body>Call me but love</body><active xmlns='http://jabber.org/protocol/chatstates'/>\
                    <x:request xmlns:x='urn:xmpp:receipts'/></message>";

#[test]
fn reads_and_writes() {
    let stanza = parse(CHAT);
    assert_eq!(stanza.type_, Type::Message(MessageType::Chat));
    assert_eq!(stanza.to.as_ref().unwrap().as_str(), "juliet@example.org");
    assert_eq!(stanza.from_bare().unwrap().as_str(), "romeo@example.org");
    assert_eq!(stanza.id.as_deref(), Some("m&1"));
    assert_eq!(stanza.lang.as_deref(), Some("en"));
    let names: Vec<_> = stanza.children().map(|c| (c.name(), c.ns())).collect();
    assert_eq!(names, [("body", ns::CLIENT), ("active", ns::CHATSTATES), ("request", ns::RECEIPTS)]);
    assert!(
        stanza.has("body", ns::CLIENT) && !stanza.has("body", ns::SERVER) && !stanza.has("bod", ns::CLIENT)
    );
    let body = stanza.child("body", ns::CLIENT).unwrap();
    assert_eq!(body.raw(), b"<body>Call me but love</body>");
    assert_eq!(body.text(), "Call me but love");
    assert_eq!(body.bytes(), body.raw());
    assert!(stanza.child("request", ns::RECEIPTS).unwrap().element().is("request", ns::RECEIPTS));
    assert_eq!(stanza.child_in(ns::CHATSTATES).unwrap().name(), "active");
    assert_eq!(written(&stanza), CHAT);
}

#[test]
fn types() {
    for (frame, type_) in [
        ("<message/>", Type::Message(MessageType::Normal)),
        ("<message type='normal'/>", Type::Message(MessageType::Normal)),
        ("<message type='nonsense'/>", Type::Message(MessageType::Normal)),
        ("<message type='headline'/>", Type::Message(MessageType::Headline)),
        ("<presence/>", Type::Presence(PresenceType::Available)),
        ("<presence type='probe'/>", Type::Presence(PresenceType::Probe)),
        ("<iq id='' type='result'/>", Type::Iq(IqType::Result)),
        ("<iq id='1' type='get'><query xmlns='u'/></iq>", Type::Iq(IqType::Get)),
    ] {
        let stanza = parse(frame);
        assert_eq!(stanza.type_, type_);
        assert_eq!(Type::parse(stanza.kind(), type_.attribute()), Some(type_));
    }
    for kind in [Kind::Message, Kind::Presence, Kind::Iq] {
        assert_eq!(Kind::from_name(kind.name()), Some(kind));
    }
}

#[test]
fn malformed_stanzas_are_answered() {
    for (frame, condition, answered) in [
        ("<message to='@' id='1' type='chat'/>", Condition::JidMalformed, true),
        ("<message to='' id='1'/>", Condition::JidMalformed, true),
        ("<message to='a@b@c' type='error'/>", Condition::JidMalformed, false),
        ("<presence type='nonsense'/>", Condition::BadRequest, true),
        ("<presence type='available'/>", Condition::BadRequest, true),
        ("<iq type='get'><q xmlns='u'/></iq>", Condition::BadRequest, true),
        ("<iq id='1'><q xmlns='u'/></iq>", Condition::BadRequest, true),
        ("<iq id='1' type='nonsense'><q xmlns='u'/></iq>", Condition::BadRequest, true),
        ("<iq id='1' type='get'/>", Condition::BadRequest, true),
        ("<iq id='1' type='set'><q xmlns='u'/><r xmlns='u'/></iq>", Condition::BadRequest, true),
        ("<iq id='1' type='result'><q xmlns='u'/><r xmlns='u'/></iq>", Condition::BadRequest, false),
        ("<iq type='result'/>", Condition::BadRequest, false),
    ] {
        let Err(Error::Malformed(malformed)) = parse_in(frame, &Scope::CLIENT) else { panic!("{frame}") };
        assert_eq!(malformed.error.condition, condition, "{frame}");
        let reply = malformed.reply();
        assert_eq!(reply.is_some(), answered, "{frame}");
        if let Some(reply) = reply {
            assert!(reply.type_.is_error() && reply.id == malformed.id);
            assert_eq!(reply.error().unwrap().condition, condition);
        }
    }
    for (frame, error) in [("<stanza/>", "unsupported stanza type"), ("<message from='/'/>", "invalid from")]
    {
        assert_eq!(parse_in(frame, &Scope::CLIENT).unwrap_err().to_string(), error);
    }
    let crowd = format!("<message>{}</message>", "<a/>".repeat(257));
    assert!(matches!(parse_in(&crowd, &Scope::CLIENT), Err(Error::Xml(XmlError::TooManyChildren(256)))));
}

#[test]
fn payloads_become_self_contained() {
    let own = |content, declared: &[(&str, &str)]| {
        Scope::new(content, declared.iter().map(|(p, u)| ((*p).into(), (*u).into())).collect())
    };
    let streams = own(ns::CLIENT, &[("", ns::STREAM), ("c", ns::CLIENT)]);
    let extra = own(ns::CLIENT, &[("", ns::CLIENT), ("x", "urn:x"), ("e", "urn:a&#58;b")]);
    for (scope, frame, payload) in [
        // As usual: untouched.
        (&Scope::CLIENT, "<message xmlns='jabber:client'><body>b</body></message>", "<body>b</body>"),
        (&Scope::NOTHING, "<message xmlns='jabber:client'><body>b</body></message>", "<body>b</body>"),
        (&Scope::CLIENT, "<message> <a xmlns='u'>\r\n<b/></a>\t</message>", " <a xmlns='u'>\r\n<b/></a>\t"),
        (
            &Scope::CLIENT,
            "<message><forwarded xmlns='urn:xmpp:forward:0'><message xmlns='jabber:client'/></forwarded></message>",
            "<forwarded xmlns='urn:xmpp:forward:0'><message xmlns='jabber:client'/></forwarded>",
        ),
        // The content namespace under another guise.
        (&streams, "<c:message><c:body>b</c:body></c:message>", "<body>b</body>"),
        (
            &Scope::CLIENT,
            "<c:message xmlns:c='jabber:client'><c:body>b</c:body></c:message>",
            "<body>b</body>",
        ),
        (&Scope::CLIENT, "<message><body xmlns='jabber:client'>b</body></message>", "<body>b</body>"),
        (&Scope::SERVER, "<message><a><b/><c xmlns='u'/></a></message>", "<a><b/><c xmlns='u'/></a>"),
        (
            &Scope::SERVER,
            "<s:message xmlns:s='jabber:server'><s:a><s:b/><c xmlns='u'/></s:a></s:message>",
            "<a><b/><c xmlns='u'/></a>",
        ),
        // Prefixes and defaults from outside.
        (&extra, "<message><x:a x:b='c'/></message>", "<a xmlns='urn:x' xmlns:a0='urn:x' a0:b='c'/>"),
        (&extra, "<message><a xmlns='u' x:b='c'/></message>", "<a xmlns='u' xmlns:a0='urn:x' a0:b='c'/>"),
        (&extra, "<message><a xmlns='u'><x:b/></a></message>", "<a xmlns='u'><b xmlns='urn:x'/></a>"),
        (&extra, "<message><e:b/></message>", "<b xmlns='urn:a&amp;#58;b'/>"),
        (&streams, "<c:message><error/></c:message>", "<error xmlns='http://etherx.jabber.org/streams'/>"),
        (&Scope::CLIENT, "<message xmlns:y='u'><y:a><y:b/></y:a></message>", "<a xmlns='u'><b/></a>"),
        (&Scope::CLIENT, "<c:message xmlns:c='jabber:client' xmlns='u'><a/></c:message>", "<a xmlns='u'/>"),
        (
            &Scope::CLIENT,
            "<message><a xmlns='u'/><b><stream:c/></b></message>",
            "<a xmlns='u'/><b><c xmlns='http://etherx.jabber.org/streams'/></b>",
        ),
        // A namespace that hides behind references.
        (
            &Scope::CLIENT,
            "<message><a xmlns='urn&#58;x'>&#65;<![CDATA[<]]></a></message>",
            "<a xmlns='urn&#58;x'>&#65;<![CDATA[<]]></a>",
        ),
    ] {
        let stanza = parse_in(frame, scope).unwrap();
        assert_eq!(std::str::from_utf8(stanza.shared_payload().as_bytes()).unwrap(), payload, "{frame}");
        // And what is kept is the same as what the index says, once more.
        let again = Stanza::parse(&stanza.to_bytes(), &Scope::NOTHING, &Limits::TRUSTED).unwrap();
        assert_eq!(again, stanza);
        let (a, b) = (stanza.children().map(|c| c.element()), again.children().map(|c| c.element()));
        assert!(a.eq(b));
    }
}

#[test]
fn rewriting_does_not_let_a_stanza_explode() {
    // Each child would repeat half a kilobyte that was written once.
    let uri = "u".repeat(512);
    let frame = format!("<message xmlns:x='{uri}'><a xmlns='v'>{}</a></message>", "<x:b/>".repeat(40_000));
    assert!(frame.len() < 256 * 1024);
    assert!(matches!(parse_in(&frame, &Scope::CLIENT), Err(Error::Xml(XmlError::TooLarge(_)))));
    let frame = format!("<message xmlns:x='{uri}'><a xmlns='v'>{}</a></message>", "<x:b/>".repeat(400));
    assert_eq!(parse(&frame).child("a", "v").unwrap().element().children().count(), 400);
}

#[test]
fn namespaces_do_not_hide_behind_references() {
    let stanza = parse("<message><a xmlns='urn&#58;x'/><b xmlns='urn:&amp;'/><c/><d xmlns='u'/></message>");
    assert!(stanza.has("a", "urn:x") && stanza.has("b", "urn:&") && stanza.has("c", ns::CLIENT));
    let stanza = stanza.append(b"<e xmlns='u&#x3a;v'/>").without(|c| c.is("b", "urn:&"));
    let seen: Vec<_> = stanza.children().map(|c| (c.name(), c.ns())).collect();
    assert_eq!(seen, [("a", "urn:x"), ("c", ns::CLIENT), ("d", "u"), ("e", "u:v")]);
}

#[test]
fn builders() {
    let body = crate::xml::write::bytes(|w| {
        w.leaf("body", ns::CLIENT, "<hi>");
    });
    let jid = Jid::parse("room@conf.example.org/O'Neil").unwrap();
    let stanza = Stanza::new(MessageType::Groupchat).from(jid).id("1").lang("de").payload(body);
    assert_eq!(
        written(&stanza),
        "<message from='room@conf.example.org/O&apos;Neil' id='1' type='groupchat' xml:lang='de'>\
         <body>&lt;hi&gt;</body></message>"
    );
    let marked = stanza.append(b"<stanza-id xmlns='urn:xmpp:sid:0' by='b' id='7'/>");
    let id = marked.child("stanza-id", ns::STANZA_ID).unwrap();
    assert_eq!(
        (id.attr("id").as_deref(), id.attr("xmlns").as_deref(), id.attr("no")),
        (Some("7"), Some(ns::STANZA_ID), None)
    );
    assert_eq!(marked.without(|c| c.is("stanza-id", ns::STANZA_ID)), stanza);
    let tail = marked.without(|c| c.name() == "body");
    assert_eq!(tail.children().next().unwrap().element().attr("by"), Some("b"));
    assert_eq!(tail.shared_payload().as_bytes(), id.raw());
    assert_eq!(stanza.append(b""), stanza);
    assert_eq!(Stanza::new(PresenceType::Available).append(b"<a/>").children().count(), 1);

    let mut out = Vec::new();
    let to = Jid::parse("juliet@example.org/balcony").unwrap();
    tail.header().write_with(&mut out, Some(&to), b"<x xmlns='u'/>");
    let copy = parse(std::str::from_utf8(&out).unwrap());
    assert_eq!((copy.to, copy.from), (Some(to), stanza.from.clone()));
    assert!(copy.payload.child("x", "u").is_some());
    assert!(stanza.size() >= written(&stanza).len());
    assert!(!format!("{stanza:?}").contains("hi"), "what people write shows in no log");
}

#[test]
fn answers() {
    let get = parse("<iq from='a@b/c' to='d' id='1' type='get'><ping xmlns='urn:xmpp:ping'/></iq>");
    assert_eq!(written(&get.result(Vec::new())), "<iq from='d' to='a@b/c' id='1' type='result'/>");
    let error = get.error_reply(&StanzaError::new(Condition::ServiceUnavailable)).unwrap();
    assert_eq!(
        (error.to.as_ref(), error.from.as_ref(), error.id.as_ref()),
        (get.from.as_ref(), get.to.as_ref(), get.id.as_ref())
    );
    assert_eq!(error.error().unwrap().condition, Condition::ServiceUnavailable);
    assert_eq!(error.type_, Type::Iq(IqType::Error));
    assert!(error.error_reply(&StanzaError::new(Condition::BadRequest)).is_none());
    assert!(get.result(Vec::new()).error_reply(&StanzaError::new(Condition::BadRequest)).is_none());
    assert!(get.error().is_none());
}

#[test]
fn in_forwarded() {
    let mut out = Vec::new();
    parse("<message to='a'><body>b</body></message>").write_in(&mut out, ns::CLIENT);
    assert_eq!(out, b"<message xmlns='jabber:client' to='a'><body>b</body></message>");
    let forwarded = crate::xml::write::bytes(|w| {
        w.start("forwarded", ns::FORWARD).raw(&out);
    });
    let carbon = Stanza::new(MessageType::Chat).payload(forwarded);
    let inner = carbon.child("forwarded", ns::FORWARD).unwrap().element();
    assert_eq!(
        inner.child("message", ns::CLIENT).unwrap().child_text("body", ns::CLIENT).as_deref(),
        Some("b")
    );
}
