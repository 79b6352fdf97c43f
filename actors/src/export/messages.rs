//! Messages: of the archive (`<archive xmlns='urn:xmpp:pie:0#mam'/>` with XEP-0313 results) and those that wait for a
//! device (`<offline-messages/>`).

use rookery_cluster::tables::archive::{ArchiveId, Direction, Entry, IdCipher};
use rookery_proto::xml::Writer;
use rookery_proto::xmpp::element::Element;
use rookery_proto::xmpp::jid::{BareJid, Jid};
use rookery_proto::xmpp::stanza::{ChildRef, Stanza, Type};
use rookery_proto::xmpp::{datetime, ns};

use super::document::{Frame, LIMITS};
use crate::features::{xep_0203_delay as delay, xep_0297_forwarding as forwarding};

/// A `<result/>` of the archive. Its stamp is the time in the id: what clients are told.
pub(super) fn write_archived(out: &mut Vec<u8>, ids: &IdCipher, id: ArchiveId, entry: &Entry) {
    let Some(stanza) = crate::routing::stored::stanza(&entry.stanza) else { return };
    let forwarded = forwarding::forwarded(&stanza, &delay::stamp(id.micros), b"");
    let mut w = Writer::inside(out, ns::PIE_MAM);
    w.start("result", ns::MAM).attr("id", &ids.seal(id)).raw(&forwarded).end();
    out.push(b'\n');
}

/// A message that waits, as the user's domain would deliver it (XEP-0160).
pub(super) fn write_waiting(out: &mut Vec<u8>, owner: &BareJid, id: ArchiveId, stanza: &Stanza) {
    let late = delay::delay(&Jid::from(owner.to_domain()), id.micros);
    stanza.append(&late).write_in(out, ns::CLIENT);
    out.push(b'\n');
}

/// A message out of a document.
pub(super) struct Message {
    /// When the other server took it, microseconds since 1970, if it says so.
    pub(super) stamp: Option<u64>,
    /// As it is to be stored, but for the time.
    pub(super) entry: Entry,
}

/// Reads a message; `None` if the frame is none, or one that can't be read.
pub(super) fn read(frame: &Frame, owner: &BareJid) -> Option<Message> {
    let stanza = Stanza::parse(&frame.bytes, &frame.scope, &LIMITS).ok()?;
    if !matches!(stanza.type_, Type::Message(_)) {
        return None;
    }
    let ours = |jid: &Jid| jid.bare_str() == owner.as_str() || jid.bare_str() == owner.domain();
    // What the other server said of it as this user's server, which is now us (XEP-0203, XEP-0359).
    let stale = |child: &ChildRef<'_>| {
        let by = |name| child.attr(name).and_then(|jid| Jid::parse(&jid).ok());
        (child.is("delay", ns::DELAY) && by("from").is_some_and(|from| ours(&from)))
            || (child.is("stanza-id", ns::STANZA_ID) && by("by").is_none_or(|by| ours(&by)))
    };
    let stamp = stanza.children().find(|child| child.is("delay", ns::DELAY) && stale(child));
    let stamp = stamp.and_then(|delay| stamp_of(&delay.element()));
    let mut stanza =
        if stanza.children().any(|child| stale(&child)) { stanza.without(stale) } else { stanza };
    let to_other = stanza.to.as_ref().is_some_and(|to| to.bare_str() != owner.as_str());
    let own = Jid::from(owner.clone());
    let from = stanza.from.get_or_insert_with(|| own.clone()).clone();
    let to = stanza.to.get_or_insert(own).clone();
    let (direction, other) = if to_other && from.bare_str() == owner.as_str() {
        (Direction::Out, to)
    } else {
        (Direction::In, from)
    };
    let mut bytes = Vec::with_capacity(stanza.size());
    stanza.write(&mut bytes);
    let entry = Entry {
        with: other.bare_str().to_owned(),
        with_full: other.resource().map(|_| other.as_str().to_owned()).unwrap_or_default(),
        direction: direction.into(),
        stanza: bytes.into(),
        stored_at: 0,
        flags: 0,
        sent: Vec::new(),
        origin: bytes::Bytes::new(),
    };
    Some(Message { stamp, entry })
}

/// The moment in a `<delay/>`.
pub(super) fn stamp_of(delay: &Element) -> Option<u64> {
    datetime::parse(delay.attr("stamp")?).ok()
}
