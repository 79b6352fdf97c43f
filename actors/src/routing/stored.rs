//! Stanzas as they lie in the store.

use rookery_proto::xml::{Limits, Scope};
use rookery_proto::xmpp::stanza::Stanza;

/// A stanza that this server once wrote; `None` for no bytes, or bytes that are none (which is logged).
pub(crate) fn stanza(bytes: &[u8]) -> Option<Stanza> {
    if bytes.is_empty() {
        return None;
    }
    Stanza::parse(bytes, &Scope::CLIENT, &Limits::TRUSTED)
        .inspect_err(|error| tracing::error!(%error, "a stored stanza cannot be decoded and is skipped"))
        .ok()
}
