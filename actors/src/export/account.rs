//! What an account has that XEP-0227 has no words for: when it was made, and whether logins are refused. An importer that
//! does not know the namespace leaves it out.

use rookery_cluster::tables::accounts::Account;
use rookery_proto::xml::Writer;
use rookery_proto::xmpp::datetime;
use rookery_proto::xmpp::element::Element;

/// The namespace; it only grows.
pub(super) const NS: &str = "rookery:account:0";

pub(super) fn write(w: &mut Writer<'_>, account: &Account) {
    w.start("account", NS).attr("created", &datetime::format(account.created_at));
    if account.disabled {
        w.attr("disabled", "true");
    }
    w.end();
}

pub(super) fn read(element: &Element, account: &mut Account) {
    if let Some(created) = element.attr("created").and_then(|text| datetime::parse(text).ok()) {
        account.created_at = created;
    }
    account.disabled = matches!(element.attr("disabled"), Some("true" | "1"));
}
