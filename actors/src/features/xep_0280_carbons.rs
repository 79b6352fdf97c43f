//! stub
use rookery_proto::xmpp::{jid::{BareJid, FullJid}, stanza::Stanza};
pub(crate) enum Kind { Sent, Received }
pub(crate) fn carbon(_: Kind, _: &BareJid, s: &Stanza, _: &[u8], _: &FullJid) -> Stanza { s.clone() }
