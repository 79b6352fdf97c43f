//! XEP-0077 In-Band Registration, version 2.4: accounts are made before login, passwords changed and accounts removed
//! after it.
//!
//! - `before`: what a connection may ask that has not authenticated, and the limit per address.
//! - `remove`: everything about a user goes.

use rookery_proto::xml::write;
use rookery_proto::xmpp::element::Element;
use rookery_proto::xmpp::error::{Condition, ErrorType, StanzaError, StreamCondition};
use rookery_proto::xmpp::jid::BareJid;
use rookery_proto::xmpp::ns;

use crate::auth;
use crate::features::contract::{Done, Feature, Iq, Method, Request, Run, Scope, Who, Work, Xep};
use crate::host::Host;
use crate::session::SessionId;
use crate::user::User;

mod before;
mod remove;

use crate::features::hourly::Hourly;
pub use before::{Registrations, before_login, register, register_info, stream_feature};
pub use remove::remove_account;

/// XEP-0077. Requests go to the domain or, without `to`, to the account.
pub const REGISTRATION: Feature = Feature {
    xep: Xep {
        number: 77,
        version: "2.4",
        name: "In-Band Registration",
        note: "new accounts where the operator opened registration, so many an hour from each address",
    },
    disco: &[(Scope::Host, ns::REGISTER)],
    iq: &[
        iq(Scope::Host, Method::Get, Run::Now(registered)),
        iq(Scope::Account, Method::Get, Run::Now(registered)),
        iq(Scope::Host, Method::Set, Run::Change(|host, request| Box::pin(set(host, request)) as Work)),
        iq(Scope::Account, Method::Set, Run::Change(|host, request| Box::pin(set(host, request)) as Work)),
    ],
    ..Feature::NONE
};

const fn iq(scope: Scope, method: Method, run: Run) -> Iq {
    Iq { scope, method, name: "query", ns: ns::REGISTER, who: Who::Owner, run }
}

/// The longest name of a new account, bytes; RFC 7622 would allow 1,023.
const NAME: usize = 256;

/// The answer when the authenticator has none.
fn failed(error: auth::Error) -> StanzaError {
    match error {
        auth::Error::Password(unfit) => StanzaError::new(Condition::NotAcceptable).text(unfit.to_string()),
        auth::Error::Store(error) => super::store_failed(&error),
        auth::Error::Failed => StanzaError::new(Condition::InternalServerError),
    }
}

/// What a form was filled in with: `<username/>` and `<password/>`, both needed.
fn fields(query: &Element) -> Option<(String, String)> {
    let username = query.child_text("username", ns::REGISTER).filter(|text| !text.is_empty())?;
    let password = query.child_text("password", ns::REGISTER).filter(|text| !text.is_empty())?;
    Some((username, password))
}

/// Only the domain of the account itself knows about it.
fn own_domain(request: &Request) -> Result<(), StanzaError> {
    let own = request.to.domain() == request.account.domain();
    own.then_some(()).ok_or(StanzaError::new(Condition::NotAllowed))
}

/// Section 3.1, for a user who has an account already.
fn registered(_: &mut User, request: &Request) -> Result<Vec<u8>, StanzaError> {
    own_domain(request)?;
    Ok(write::bytes(|w| {
        w.start("query", ns::REGISTER).empty("registered", ns::REGISTER);
        w.leaf("username", ns::REGISTER, request.account.local().unwrap_or_default());
        w.empty("password", ns::REGISTER);
    }))
}

async fn set(host: Host, request: Request) -> Result<Done, StanzaError> {
    own_domain(&request)?;
    if !request.by_owner() {
        return Err(Condition::Forbidden.into());
    }
    let query = request.element()?;
    if query.has("remove", ns::REGISTER) {
        if query.children().count() != 1 {
            return Err(Condition::BadRequest.into()); // section 3.2
        }
        return remove::remove(host, request).await;
    }
    let (username, password) = fields(&query).ok_or(StanzaError::new(Condition::BadRequest))?;
    let named = BareJid::new(Some(&username), request.account.domain());
    // Some clients put the whole address there.
    if named.ok() != Some(request.account.clone())
        && BareJid::parse(&username).ok() != Some(request.account.clone())
    {
        return Err(Condition::NotAllowed.into());
    }
    if !host.authenticator(request.account.domain()).abilities().change {
        return Err(Condition::NotAllowed.into());
    }
    let now = host.seams().clock.now_micros();
    let per_hour = host.options().limits.password_changes_per_hour;
    if !host.state::<Hourly>().admit(&request.account, now, per_hour) {
        let text = "the password was changed too often";
        return Err(
            super::over("password_changes", Condition::ResourceConstraint, text).type_(ErrorType::Wait)
        );
    }
    // Section 3.3.
    let authenticator = host.authenticator(request.account.domain());
    if !authenticator.change(&request.account, password, request.sid).await.map_err(failed)? {
        return Err(Condition::ItemNotFound.into());
    }
    tracing::info!(user = %request.account, "password changed by its user");
    Ok(Done::then(move |user: &mut User| user.end_others(request.sid, "the password was changed")))
}

impl User {
    /// Ends all sessions but one, hibernating ones too, with `<not-authorized/>`: what they were opened with holds no more.
    pub(crate) fn end_others(&mut self, keep: Option<SessionId>, text: &'static str) {
        let others = self.sessions().iter().map(|session| session.sid).filter(|sid| Some(*sid) != keep);
        for sid in others.collect::<Vec<_>>() {
            self.end_session(sid, StreamCondition::NotAuthorized, text);
        }
    }
}

#[cfg(test)]
mod tests;
