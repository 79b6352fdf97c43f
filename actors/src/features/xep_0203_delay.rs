//! stub
pub(crate) fn delay(_: &rookery_proto::xmpp::jid::Jid, _: u64) -> Vec<u8> { Vec::new() }
