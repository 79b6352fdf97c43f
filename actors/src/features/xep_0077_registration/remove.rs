//! Removal of an account (section 3.2): its subscriptions are ended, its sessions closed, its rows erased.

use rookery_cluster::entity::Entity;
use rookery_cluster::store;
use rookery_cluster::tables::{accounts, roster};
use rookery_proto::xmpp::error::{Condition, StanzaError, StreamCondition};
use rookery_proto::xmpp::jid::BareJid;
use rookery_proto::xmpp::stanza::{IqType, Stanza};

use crate::connection::pipe::Outgoing;
use crate::features::contract::{Done, Request};
use crate::host::Host;
use crate::session::SessionId;
use crate::user::{self, User};

/// The requesting client gets the result; then every stream of the account ends with `<not-authorized/>`.
pub(super) async fn remove(host: Host, request: Request) -> Result<Done, StanzaError> {
    erase(&host, &request.account).await?;
    tracing::info!(user = %request.account, "account removed by its user");
    Ok(Done::then(move |user: &mut User| {
        if let Some(sid) = request.sid {
            // Here, since nothing is sent after the end of the stream.
            let result = Stanza::new(IqType::Result).to(request.from).from(request.to).id(request.id);
            user.send(sid, Outgoing::new(result));
        }
        end(user);
    }))
}

/// Removes an account: for the operator.
///
/// # Errors
/// `<item-not-found/>` if there is none; else the store's.
pub async fn remove_account(host: &Host, account: &BareJid) -> Result<(), StanzaError> {
    erase(host, account).await?;
    host.with_user(account, end).await;
    Ok(())
}

/// Ends the sessions of a removed user. Only entities that got directed presence must still be told.
fn end(user: &mut User) {
    let sids: Vec<SessionId> = user.sessions().iter().map(|session| session.sid).collect();
    for sid in sids {
        if let Some(session) = user.session_mut(sid) {
            session.presence = None;
        }
        user.end_session(sid, StreamCondition::NotAuthorized, "the account was removed");
    }
}

/// Erases everything about a user in the store. First the account is disabled, so that nobody logs in or takes the name;
/// then nothing new is written for it; then it goes, in one transaction.
async fn erase(host: &Host, account: &BareJid) -> Result<(), StanzaError> {
    let user = Entity::new(account.as_str());
    let user = &user;
    let failed = |error: store::Error| crate::features::store_failed(&error);
    let disabled = host.store().write(store::Options::owner(user), |tx| {
        Box::pin(async move {
            let Some(found) = accounts::get(&mut **tx, user).await? else { return Ok(false) };
            accounts::put(&mut **tx, user, &accounts::Account { disabled: true, ..found });
            Ok(true)
        })
    });
    if !disabled.await.map_err(failed)? {
        return Err(Condition::ItemNotFound.into());
    }
    let limit = host.options().limits.roster_rows();
    let contacts =
        host.store().read(|tx| Box::pin(async move { roster::load(&mut **tx, user, limit).await }));
    let mut steps = Vec::new();
    for contact in contacts.await.map_err(failed)?.rows {
        let Ok(contact) = BareJid::parse(&contact.jid) else { continue };
        // One transaction each: two rosters change together.
        match user::remove_contact(host.clone(), user.clone(), account.clone(), contact).await {
            Ok(done) => steps.extend(done.then),
            Err(error) if error.condition == Condition::ItemNotFound => {}
            Err(error) => return Err(error),
        }
    }
    let retire = move |user: &mut User| {
        for step in steps {
            step(user);
        }
        user.removed();
    };
    host.with_user(account, retire).await;
    // Behind everything that the actor has written so far.
    host.batcher().write(store::Writes::new(user, store::Ops::new())).await.map_err(failed)?;
    let erased = host.store().write(store::Options::owner(user), |tx| {
        Box::pin(async move { accounts::erase_user(&mut **tx, user).await })
    });
    erased.await.map_err(failed)
}
