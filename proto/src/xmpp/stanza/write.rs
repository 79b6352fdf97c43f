//! From a stanza to bytes.

use super::Stanza;
use crate::{
    xml::escape,
    xmpp::{Jid, ns},
};

impl Stanza {
    /// Appends it as it stands in a stream whose content namespace is the default.
    pub fn write(&self, out: &mut Vec<u8>) {
        self.write_all(out, None, self.to.as_ref(), &[]);
    }

    /// Appends it with another recipient and with more elements behind the payload: one of many copies, of which only
    /// the start tag differs.
    pub fn write_with(&self, out: &mut Vec<u8>, to: Option<&Jid>, extra: &[u8]) {
        self.write_all(out, None, to, extra);
    }

    /// Appends it as it stands within `<forwarded/>` (XEP-0297) and the like: it declares `ns`, which is
    /// `jabber:client`, on itself.
    pub fn write_in(&self, out: &mut Vec<u8>, ns: &str) {
        self.write_all(out, Some(ns), self.to.as_ref(), &[]);
    }

    /// Its bytes with `jabber:client` declared: to store it, and to read it with
    /// [`Scope::NOTHING`](crate::xml::Scope::NOTHING) and [`Limits::TRUSTED`](crate::xml::Limits::TRUSTED).
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.size());
        self.write_in(&mut out, ns::CLIENT);
        out
    }

    /// About how many bytes it takes on a stream; never less than its payload.
    #[must_use]
    pub fn size(&self) -> usize {
        // Straight on: this is asked several times for each stanza.
        let jid = |jid: &Option<Jid>| jid.as_ref().map_or(0, |jid| jid.as_str().len() + 8);
        let mut size = 64 + self.payload.len() + jid(&self.to) + jid(&self.from);
        size += self.id.as_ref().map_or(0, |id| id.len() + 12);
        size + self.lang.as_ref().map_or(0, |lang| lang.len() + 12)
    }

    fn write_all(&self, out: &mut Vec<u8>, ns: Option<&str>, to: Option<&Jid>, extra: &[u8]) {
        let name = self.kind().name().as_bytes();
        out.reserve(self.size() + extra.len());
        out.push(b'<');
        out.extend_from_slice(name);
        attribute(out, b" xmlns='", ns);
        attribute(out, b" from='", self.from.as_ref().map(Jid::as_str));
        attribute(out, b" to='", to.map(Jid::as_str));
        attribute(out, b" id='", self.id.as_deref());
        attribute(out, b" type='", self.type_.attribute());
        attribute(out, b" xml:lang='", self.lang.as_deref());
        if self.payload.is_empty() && extra.is_empty() {
            out.extend_from_slice(b"/>");
            return;
        }
        out.push(b'>');
        out.extend_from_slice(self.payload.as_bytes());
        out.extend_from_slice(extra);
        out.extend_from_slice(b"</");
        out.extend_from_slice(name);
        out.push(b'>');
    }
}

fn attribute(out: &mut Vec<u8>, start: &[u8], value: Option<&str>) {
    if let Some(value) = value {
        out.extend_from_slice(start);
        escape::attribute(out, value);
        out.push(b'\'');
    }
}
