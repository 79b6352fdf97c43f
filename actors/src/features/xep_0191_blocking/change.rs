//! Blocking and unblocking: first the store, then the user actor, then all sessions and contacts that are to know.

use std::sync::Arc;

use rookery_cluster::entity::Entity;
use rookery_cluster::store::{self, Class};
use rookery_cluster::tables::{blocks, roster};
use rookery_proto::xmpp::error::{Condition, StanzaError};
use rookery_proto::xmpp::jid::Jid;
use rookery_proto::xmpp::ns;

use super::{Blocks, items, show};
use crate::features::contract::{Done, Request};
use crate::host::Host;
use crate::session;
use crate::user::User;

/// The JIDs of a request's items.
fn jids(request: &Request, max: usize) -> Result<Vec<Jid>, StanzaError> {
    let element = request.element()?;
    let mut jids = Vec::new();
    for item in element.children() {
        if !item.is("item", ns::BLOCKING) {
            return Err(StanzaError::new(Condition::BadRequest));
        }
        if jids.len() >= max {
            return Err(full());
        }
        let jid = item.attr("jid").ok_or(StanzaError::new(Condition::BadRequest))?;
        jids.push(Jid::parse(jid).map_err(|_| StanzaError::new(Condition::JidMalformed))?);
    }
    Ok(jids)
}

fn full() -> StanzaError {
    crate::features::over("blocked", Condition::ResourceConstraint, "the block list is full")
}

/// Section 3.3.
pub(super) async fn block(host: Host, request: Request) -> Result<Done, StanzaError> {
    let max = host.options().limits.blocked;
    let jids = jids(&request, max)?;
    if jids.is_empty() {
        return Err(StanzaError::new(Condition::BadRequest));
    }
    if jids.iter().any(|jid| jid.bare_str() == request.account.as_str()) {
        return Err(StanzaError::new(Condition::NotAllowed));
    }
    let user = Entity::new(request.account.as_str());
    let (user, wanted, now) = (&user, &jids, host.seams().clock.now_micros());
    let (new, rows) = (&Blocks::of(&jids), host.options().limits.roster_rows());
    let written = host.store().write(store::Options::owner(user), |tx| {
        Box::pin(async move {
            let stored = blocks::load(&mut **tx, user, max.saturating_add(1)).await?;
            let more = wanted.iter().filter(|jid| !stored.rows.iter().any(|row| row == jid.as_str()));
            if stored.more || stored.rows.len() + more.count() > max {
                return Err(store::Error::new(Class::TooLarge, "too many blocked jids"));
            }
            for jid in wanted {
                blocks::add(&mut **tx, user, jid.as_str(), now);
            }
            // As if they had come later: nobody hears of them, and an unblocked contact may ask again.
            let unwanted = |jid: &str| Jid::parse(jid).is_ok_and(|jid| new.matches(&jid));
            roster::drop_requests(&mut **tx, user, rows, unwanted).await
        })
    });
    written.await.map_err(|error| match error.class {
        Class::TooLarge => full(),
        _ => crate::features::store_failed(&error),
    })?;
    Ok(Done::then(move |user: &mut User| {
        let after = user.blocks.with(&jids);
        // While they are not blocked yet, so that it reaches them.
        show(user, &user.blocks, &after, false);
        let (own, blocked) = (user.jid().clone(), after.clone());
        let withdrawn: Arc<dyn Fn(&Jid) -> bool + Send + Sync> =
            Arc::new(move |from| from.bare_str() != own.as_str() && blocked.matches(from));
        for session in user.sessions_mut() {
            session.directed.retain(|jid| !after.matches(jid));
            let _ = session.handle.cast_always(session::Msg::Withdraw(withdrawn.clone()));
        }
        user.forget_requests(|jid| after.matches(jid));
        user.blocks = after;
        user.push_to(&items("block", jids.iter()), |session| session.blocks_push);
    }))
}

/// Sections 3.4 and 3.5: without items, all.
pub(super) async fn unblock(host: Host, request: Request) -> Result<Done, StanzaError> {
    let jids = jids(&request, host.options().limits.blocked)?;
    let user = Entity::new(request.account.as_str());
    let (user, wanted) = (&user, &jids);
    let written = host.store().write(store::Options::owner(user), |tx| {
        Box::pin(async move {
            if wanted.is_empty() {
                blocks::clear(&mut **tx, user);
            }
            for jid in wanted {
                blocks::remove(&mut **tx, user, jid.as_str());
            }
            Ok(())
        })
    });
    written.await.map_err(|error| crate::features::store_failed(&error))?;
    Ok(Done::then(move |user: &mut User| {
        let after = if jids.is_empty() { super::Blocks::default() } else { user.blocks.without(&jids) };
        let before = std::mem::replace(&mut user.blocks, after);
        show(user, &user.blocks, &before, true);
        user.show_hidden(|jid| before.matches(jid) && !user.blocks.matches(jid));
        user.push_to(&items("unblock", jids.iter()), |session| session.blocks_push);
    }))
}
