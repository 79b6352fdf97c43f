//! XEP-0191 Blocking Command, version 1.3: the JIDs that a user does not want to hear of. The block list is part of the user actor,
//! and every stanza in or out is held against it.

use std::sync::Arc;

use rookery_proto::xml::write;
use rookery_proto::xmpp::error::{Condition, ErrorType, StanzaError};
use rookery_proto::xmpp::jid::Jid;
use rookery_proto::xmpp::ns;
use rookery_proto::xmpp::stanza::{IqType, MessageType, PresenceType, Stanza, Type};

use crate::features::contract::{
    Direction, Feature, Iq, MessageHook, Method, Passing, Phase, Request, Run, Scope, Verdict, Who, Xep,
};
use crate::user::User;

mod change;

/// XEP-0191 section 3.
pub const BLOCKING: Feature = Feature {
    xep: Xep {
        number: 191,
        version: "1.3",
        name: "Blocking Command",
        note: "subscriptions stay (\"polite blocking\"); a stranger's probe is answered as by an account that does not exist",
    },
    disco: &[(Scope::Host, ns::BLOCKING)],
    iq: &[
        iq(Method::Get, "blocklist", Run::Now(list)),
        iq(Method::Set, "block", Run::Change(|host, request| Box::pin(change::block(host, request)))),
        iq(Method::Set, "unblock", Run::Change(|host, request| Box::pin(change::unblock(host, request)))),
    ],
    messages: &[MessageHook { phase: Phase::Filter, run: message }],
    filters: &[stanza],
    ..Feature::NONE
};

const fn iq(method: Method, name: &'static str, run: Run) -> Iq {
    Iq { scope: Scope::Account, method, name, ns: ns::BLOCKING, who: Who::Owner, run }
}

/// The JIDs that a user has blocked: full and bare JIDs, domains, and domains with a resource.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Blocks(Vec<Jid>);

impl Blocks {
    /// From the rows of the store. The caller must have read all of them.
    pub fn load<T: AsRef<str>>(rows: impl IntoIterator<Item = T>) -> Self {
        let parse = |row: T| {
            let jid = Jid::parse(row.as_ref());
            jid.inspect_err(|_| {
                tracing::error!(
                    jid = row.as_ref(),
                    "an entry of a block list cannot be decoded and has no effect"
                )
            })
            .ok()
        };
        let mut jids: Vec<Jid> = rows.into_iter().filter_map(parse).collect();
        jids.sort();
        jids.dedup();
        Self(jids)
    }

    /// Whether nobody is blocked.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// How many JIDs are blocked.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// The blocked JIDs, sorted.
    pub fn iter(&self) -> impl Iterator<Item = &Jid> {
        self.0.iter()
    }

    /// Whether `jid` itself, its bare JID or its domain is blocked (section 5).
    pub fn matches(&self, jid: &Jid) -> bool {
        !self.0.is_empty()
            && [jid.as_str(), jid.bare_str(), jid.domain()].iter().any(|text| self.find(text).is_ok())
    }

    fn find(&self, jid: &str) -> Result<usize, usize> {
        self.0.binary_search_by(|blocked| blocked.as_str().cmp(jid))
    }

    /// These, as they stand in a request.
    fn of(jids: &[Jid]) -> Self {
        Self::default().with(jids)
    }

    /// The same with more.
    fn with(&self, jids: &[Jid]) -> Self {
        let mut all = [&self.0, jids].concat();
        all.sort();
        all.dedup();
        Self(all)
    }

    /// The same with fewer.
    fn without(&self, jids: &[Jid]) -> Self {
        Self(self.0.iter().filter(|jid| !jids.contains(jid)).cloned().collect())
    }
}

/// Section 3.2. From now on the session gets pushes.
fn list(user: &mut User, request: &Request) -> Result<Vec<u8>, StanzaError> {
    if let Some(sid) = request.sid
        && let Some(session) = user.session_mut(sid)
        && !session.blocks_push
    {
        session.blocks_push = true;
        user.changed(sid);
    }
    Ok(items("blocklist", user.blocks.iter()))
}

/// `<name xmlns='urn:xmpp:blocking'/>` with an item for each JID.
fn items<'a>(name: &str, jids: impl Iterator<Item = &'a Jid>) -> Vec<u8> {
    write::bytes(|w| {
        w.start(name, ns::BLOCKING);
        for jid in jids {
            w.start("item", ns::BLOCKING).attr("jid", jid.as_str()).end();
        }
    })
}

/// A user's own sessions are never blocked from each other, whatever the list says (section 4, note).
fn blocked(user: &User, with: &Jid) -> bool {
    user.blocks.matches(with) && with.bare_str() != user.jid().as_str()
}

/// To a blocked contact the user looks offline, and takes no messages.
fn unavailable() -> Verdict {
    Verdict::Refuse(StanzaError::new(Condition::ServiceUnavailable))
}

/// Section 3.3, the last rule: the user learns why nothing goes out.
fn not_sent() -> Verdict {
    const BLOCKED: &[u8] = b"<blocked xmlns='urn:xmpp:blocking:errors'/>";
    Verdict::Refuse(StanzaError::new(Condition::NotAcceptable).type_(ErrorType::Cancel).app(BLOCKED))
}

fn message(user: &User, passing: &mut Passing) -> Verdict {
    let with = match passing.direction {
        Direction::In => passing.stanza.from.as_ref(),
        Direction::Out => passing.stanza.to.as_ref(),
    };
    match with {
        Some(with) if blocked(user, with) => judge(passing.direction, passing.stanza.type_),
        _ => Verdict::Pass,
    }
}

fn stanza(user: &User, direction: Direction, stanza: &Stanza, with: &Jid) -> Verdict {
    if blocked(user, with) { judge(direction, stanza.type_) } else { Verdict::Pass }
}

/// What becomes of a stanza from or to a blocked contact (section 3.3).
fn judge(direction: Direction, type_: Type) -> Verdict {
    match (direction, type_) {
        (Direction::Out, type_) if type_.is_answerable() => not_sent(),
        (Direction::In, Type::Message(MessageType::Normal | MessageType::Chat | MessageType::Groupchat)) => {
            unavailable()
        }
        (Direction::In, Type::Iq(IqType::Get | IqType::Set)) => unavailable(),
        // Headlines to an offline user vanish too (RFC 6121 section 8.5.2.2.1); errors and results have no answer.
        _ => Verdict::Drop,
    }
}

/// Sends the presence of all available sessions, or their absence, to the contacts for which `from` and `to` (the block list before
/// and after, or the other way round) make a difference, if they may see it.
fn show(user: &User, from: &Blocks, to: &Blocks, available: bool) {
    let contacts: Vec<Jid> = user
        .roster()
        .iter()
        .filter(|contact| contact.from())
        .map(|contact| Jid::from(&contact.jid))
        .collect();
    let targets = differing(&contacts, from, to);
    for session in user.sessions() {
        let Some(presence) = &session.presence else { continue };
        let stanza = if available {
            Stanza::clone(&presence.stanza)
        } else {
            Stanza::new(PresenceType::Unavailable).from(&session.jid)
        };
        let directed = session.directed.iter().filter(|jid| !from.matches(jid) && to.matches(jid));
        for target in targets.iter().chain(directed.filter(|jid| !targets.contains(jid))) {
            user.host().route_from(
                Arc::new(stanza.clone().to(target.clone())),
                crate::connection::ledger::Receipt::none(),
                None,
            );
        }
    }
}

/// The contacts, and those of their resources that are named, that match `to` and did not match `from`.
fn differing(contacts: &[Jid], from: &Blocks, to: &Blocks) -> Vec<Jid> {
    let mut targets: Vec<Jid> =
        contacts.iter().filter(|contact| !from.matches(contact) && to.matches(contact)).cloned().collect();
    for jid in to.iter().filter(|jid| jid.resource().is_some() && !from.matches(jid)) {
        let contact = jid.to_bare();
        let covered = targets.iter().any(|target| contact == *target);
        if !covered && contacts.iter().any(|known| contact == *known) {
            targets.push(jid.clone());
        }
    }
    targets
}

#[cfg(test)]
mod tests;
