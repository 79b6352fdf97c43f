//! What an operator can ask, over the running node ([`Node`]) and over its data folder when no node runs ([`Folder`]).

use rookery_ops::admin::Error;
use rookery_proto::xmpp::error::{Condition, StanzaError};
use rookery_proto::xmpp::jid::{BareJid, Jid};

mod accounts;
mod cluster;
mod documents;
mod folder;
mod import;
mod node;
mod streams;
#[cfg(test)]
mod tests;

pub use accounts::Accounts;
pub use folder::Folder;
pub use node::Node;

/// The bare JID of an account that could be here: with a name, without a resource, normalised.
pub(crate) fn account(text: &str, serves: &dyn Fn(&str) -> bool) -> Result<BareJid, Error> {
    let invalid = || Error::invalid(format!("{text:?} is no account: write name@domain"));
    let jid = Jid::parse(text).map_err(|_| invalid())?;
    if jid.local().is_none() || jid.resource().is_some() {
        return Err(invalid());
    }
    if !serves(jid.domain()) {
        return Err(Error::not_found(format!(
            "{} is not served here; see [[domain]] in the configuration",
            jid.domain()
        )));
    }
    Ok(jid.to_bare())
}

/// A failure of the store, for the operator.
pub(crate) fn store(error: &rookery_cluster::store::Error) -> Error {
    let detail = error.detail.as_deref().map(|detail| format!(" ({detail})")).unwrap_or_default();
    Error::unavailable(format!("the store failed: {error}{detail}"))
}

/// Why an account was not removed, for the operator.
pub(crate) fn not_removed(jid: &BareJid, error: &StanzaError) -> Error {
    match error.condition {
        Condition::ItemNotFound => Error::not_found(format!("there is no account {jid}")),
        condition => Error::unavailable(format!("{jid} was not removed: {}; try again", condition.name())),
    }
}
