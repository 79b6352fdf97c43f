//! stub
pub(crate) fn stanza_id(_: &rookery_proto::xmpp::jid::BareJid, _: &str) -> Vec<u8> { Vec::new() }
