//! XEP-0313 Message Archive Management, version 1.1.3: a user's history, kept by the server. Paging is XEP-0059.
//!
//! - `keep`: which messages are archived, by their content, their hints and the user's preferences (XEP-0441).
//! - `query`: what a client asks for. `page`: how it is found and sent.
//!
//! What lies where in the archive is [`rookery_cluster::tables::archive`]'s.

use rookery_cluster::entity::Entity;
use rookery_cluster::store::Result as StoreResult;
use rookery_cluster::store::Tx;
use rookery_cluster::tables::archive::{self, ArchiveId, Collection};
use rookery_proto::xml::write;
use rookery_proto::xmpp::error::StanzaError;
use rookery_proto::xmpp::{datetime, ns};

use crate::features::contract::{
    Done, Feature, Iq, MessageHook, Method, Phase, Request, Run, Scope, Who, Work, Xep,
};
use crate::host::Host;
use crate::user::User;

pub(crate) mod keep;
mod page;
mod query;
#[cfg(test)]
mod tests;

/// XEP-0313: queries go to the account, and only its owner may ask.
pub const MAM: Feature = Feature {
    xep: Xep {
        number: 313,
        version: "1.1.3",
        name: "Message Archive Management",
        note: "with urn:xmpp:mam:2#extended; groupchat messages are the rooms' to archive; nothing is counted",
    },
    disco: &[
        (Scope::Account, ns::MAM),
        (Scope::Account, ns::MAM_EXTENDED),
        (Scope::Account, GROUPCHAT_FIELD),
        (Scope::Account, ns::RSM),
    ],
    iq: &[
        iq(Method::Set, "query", Run::Read(|host, request| Box::pin(page::answer(host, request)) as Work)),
        iq(Method::Get, "query", Run::Now(form)),
        iq(Method::Get, "metadata", Run::Read(|host, request| Box::pin(metadata(host, request)) as Work)),
    ],
    messages: &[MessageHook { phase: Phase::Archive, run: keep::hook }],
    ..Feature::NONE
};

/// The server understands the field `include-groupchat` (section 5), though there are none to include.
const GROUPCHAT_FIELD: &str = "urn:xmpp:mam:2#groupchat-field";
/// XEP-0122, which marks the list of ids as open.
const VALIDATE: &str = "http://jabber.org/protocol/xdata-validate";

const fn iq(method: Method, name: &'static str, run: Run) -> Iq {
    Iq { scope: Scope::Account, method, name, ns: ns::MAM, who: Who::Owner, run }
}

/// The fields of a query and their types (section 4.1).
const FIELDS: [(&str, &str); 7] = [
    ("with", "jid-single"),
    ("start", "text-single"),
    ("end", "text-single"),
    ("before-id", "text-single"),
    ("after-id", "text-single"),
    ("ids", "list-multi"),
    ("include-groupchat", "boolean"),
];

/// Section 4.1.5: which fields a query may have.
fn form(_: &mut User, _: &Request) -> Result<Vec<u8>, StanzaError> {
    Ok(write::bytes(|w| {
        w.start("query", ns::MAM).start("x", ns::DATA_FORMS).attr("type", "form");
        w.start("field", ns::DATA_FORMS).attr("type", "hidden").attr("var", "FORM_TYPE");
        w.leaf("value", ns::DATA_FORMS, ns::MAM).end();
        for (var, type_) in FIELDS {
            w.start("field", ns::DATA_FORMS).attr("type", type_).attr("var", var);
            if var == "ids" {
                w.start("validate", VALIDATE).attr("datatype", "xs:string").empty("open", VALIDATE).end();
            }
            w.end();
        }
    }))
}

/// Section 5: where the archive begins and ends.
async fn metadata(host: Host, request: Request) -> Result<Done, StanzaError> {
    let user = Entity::new(request.account.as_str());
    let user = &user;
    host.batcher().flush().await.ok(); // what the client has sent before is there; if that failed, it has heard of it
    let ends = host.store().read(|tx| Box::pin(ends(tx, user))).await;
    let ends = ends.map_err(|error| super::store_failed(&error))?;
    Ok(Done::reply(write::bytes(|w| {
        w.start("metadata", ns::MAM);
        let (first, last) = ends;
        for (name, id) in [("start", first), ("end", last)] {
            if let Some(id) = id {
                w.start(name, ns::MAM).attr("id", &host.ids().seal(id));
                w.attr("timestamp", &datetime::format(id.micros)).end();
            }
        }
    })))
}

async fn ends(tx: &mut Tx<'_>, user: &Entity) -> StoreResult<(Option<ArchiveId>, Option<ArchiveId>)> {
    let first = archive::first_id(&mut **tx, Collection::Archive, user).await?;
    Ok((first, archive::last_id(&mut **tx, Collection::Archive, user).await?))
}
