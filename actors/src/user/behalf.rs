//! What components with privileges do in the user's name (XEP-0356): messages, the roster, requests; and what they are told of the
//! user's presence and roster. A component is known by its name, which nobody else can put into `from`.

use std::sync::Arc;
use std::time::Duration;

use rookery_cluster::tables::roster as table;
use rookery_proto::xmpp::error::{Condition, StanzaError};
use rookery_proto::xmpp::jid::{BareJid, Jid};
use rookery_proto::xmpp::ns;
use rookery_proto::xmpp::stanza::{IqType, PresenceType, Stanza, Type};

use super::iq::{Dispatch, Started};
use super::{Inbound, Msg, User, roster, roster_iq};
use crate::connection::ledger::Receipt;
use crate::features::contract::{Done, Method, Request};
use crate::features::xep_0356_privilege as xml;
use crate::host::options::{Component, PresenceAccess};
use crate::runtime::actor::Handle;
use crate::session::SessionId;

/// No session of anybody's: what a component sends is sent by none.
const NOBODY: SessionId = SessionId([0; 16]);
/// Requests of components to others that wait for an answer, of one user.
const ASKED: usize = 32;
/// How long they wait.
const PATIENCE: Duration = Duration::from_secs(60);

/// A request in the user's name to somebody else.
pub(super) struct Asked {
    /// The id under which it was sent.
    id: String,
    /// As the component has sent it, and what was in it.
    outer: Stanza,
    inner: Stanza,
}

/// What becomes of the answer to a request of a component.
type Answer = Box<dyn FnOnce(&User, Result<Vec<u8>, StanzaError>) + Send>;

impl User {
    /// The component whose name this is, if it is there for this user.
    fn component(&self, jid: &Jid) -> Option<Component> {
        if jid.local().is_some() || jid.resource().is_some() {
            return None;
        }
        let options = self.host.options();
        options.component(jid.domain()).filter(|component| component.covers(self.jid.domain())).cloned()
    }

    /// A message that a component sends in the user's name: it is archived and copied as if a device of the user had sent it.
    pub(super) fn send_in_name(&mut self, inbound: Inbound) {
        let Inbound { stanza, receipt, origin, .. } = inbound;
        let component = stanza.from.as_ref().and_then(|from| self.component(from));
        if !component.is_some_and(|component| component.privileges.message) {
            return self.refuse(&stanza, receipt, &Condition::Forbidden.into());
        }
        let inner = match xml::forwarded_message(&stanza) {
            Ok(inner) if inner.from.as_ref().is_some_and(|from| from.as_str() == self.jid.as_str()) => inner,
            Ok(_) => return self.refuse(&stanza, receipt, &Condition::Forbidden.into()),
            Err(error) => return self.refuse(&stanza, receipt, &error),
        };
        self.send_message(NOBODY, Arc::new(inner), origin, receipt);
    }

    /// A request of a component that bears on privileges; any other comes back.
    pub(super) fn asked_by_component(&mut self, stanza: &Stanza, receipt: Receipt) -> Option<Receipt> {
        let Some(component) = stanza.from.as_ref().and_then(|from| self.component(from)) else {
            return Some(receipt);
        };
        let allowed = |access: crate::host::options::Access| match stanza.type_ {
            Type::Iq(IqType::Get) => access.get,
            _ => access.set,
        };
        if stanza.has("query", ns::ROSTER) {
            match allowed(component.privileges.roster) {
                true => self.roster_for(&component, stanza, receipt),
                false => self.refuse(stanza, receipt, &Condition::Forbidden.into()),
            }
            return None;
        }
        if !stanza.has("privileged_iq", ns::PRIVILEGE) {
            return Some(receipt);
        }
        match self.checked(&component, stanza) {
            Ok(inner) => self.request_in_name(stanza.clone(), inner, receipt),
            Err(error) => self.refuse(stanza, receipt, &error),
        }
        None
    }

    /// Section 6.3: what is to be forbidden.
    fn checked(&self, component: &Component, stanza: &Stanza) -> Result<Stanza, StanzaError> {
        let forbidden = || StanzaError::new(Condition::Forbidden);
        let inner = xml::privileged_iq(stanza)?;
        let own = |jid: &Jid| jid.as_str() == self.jid.as_str();
        let child = inner.children().next().ok_or(StanzaError::new(Condition::BadRequest))?;
        let access = component.privileges.iq(child.ns());
        let allowed = match inner.type_ {
            Type::Iq(IqType::Get) => access.get,
            Type::Iq(IqType::Set) => access.set,
            _ => false,
        };
        if !allowed || inner.type_ != stanza.type_ || !inner.from.as_ref().is_none_or(own) {
            return Err(forbidden());
        }
        Ok(inner.from(self.jid.clone()))
    }

    /// Reads or writes the roster.
    fn roster_for(&mut self, component: &Component, stanza: &Stanza, receipt: Receipt) {
        let (method, child) = match (stanza.type_, stanza.child("query", ns::ROSTER)) {
            (Type::Iq(IqType::Get), Some(child)) => (Method::Get, child.bytes()),
            (_, Some(child)) => (Method::Set, child.bytes()),
            (_, None) => return receipt.done(), // looked at before
        };
        let request = Request {
            from: Jid::from(self.jid.clone()),
            sid: None,
            account: self.jid.clone(),
            to: Jid::from(self.jid.clone()),
            id: stanza.id.clone().unwrap_or_default(),
            method,
            lang: None,
            child,
        };
        let (host, gateway) = (self.host.clone(), component.name.clone());
        let start = Box::new(move || match method {
            Method::Get => roster_iq::get(host, request),
            Method::Set => roster_iq::set_by(host, request, Some(gateway)),
        });
        let asked = stanza.clone();
        let answer = Box::new(move |user: &User, result: Result<Vec<u8>, StanzaError>| {
            let answer = match result {
                Ok(reply) => Some(asked.result(reply)),
                Err(error) => asked.error_reply(&error),
            };
            if let Some(answer) = answer {
                user.host.route(answer, Receipt::none(), None);
            }
        });
        self.run_for_component(start, answer, receipt);
    }

    /// Runs a request as a change of the account.
    fn run_for_component(
        &mut self,
        start: Box<dyn FnOnce() -> Started + Send>,
        answer: Answer,
        receipt: Receipt,
    ) {
        if !self.others_may_change() {
            metrics::counter!("rookery_limits_hit_total", "limit" => "user_operations").increment(1);
            answer(self, Err(StanzaError::new(Condition::ResourceConstraint)));
            return receipt.done();
        }
        self.operation(receipt, move |_| async move {
            Ok(match start().await {
                Ok(Done { reply, then, after, .. }) => Done::then(move |user: &mut User| {
                    if let Some(then) = then {
                        then(user);
                    }
                    answer(user, Ok(reply));
                    if let Some(after) = after {
                        after(user);
                    }
                }),
                Err(error) => Done::then(move |user: &mut User| answer(user, Err(error))),
            })
        });
    }

    /// A request in the user's name: to the account itself or its server, or to somebody else.
    fn request_in_name(&mut self, outer: Stanza, mut inner: Stanza, receipt: Receipt) {
        let to = inner.to.get_or_insert_with(|| Jid::from(self.jid.clone())).clone();
        let to_host = to.local().is_none() && to.resource().is_none() && self.host.serves(to.domain());
        if to.as_str() != self.jid.as_str() && !to_host {
            return self.ask_in_name(outer, inner, receipt);
        }
        let (asked, component) = (inner.clone(), outer.from.clone());
        let answer = move |user: &User, result: Result<Vec<u8>, StanzaError>| {
            let answer = match result {
                Ok(reply) => Some(asked.result(reply)),
                Err(error) => asked.error_reply(&error),
            };
            if let Some(answer) = answer {
                user.host.route(xml::answer(&outer, &answer), Receipt::none(), None);
            }
        };
        match self.dispatch(None, &inner, component.as_ref().map(Jid::domain)) {
            Ok(Dispatch::Now(reply)) => {
                answer(self, Ok(reply));
                receipt.done();
            }
            Ok(Dispatch::Change(start) | Dispatch::Read(start)) => {
                self.run_for_component(start, Box::new(answer), receipt);
            }
            Err(error) => {
                answer(self, Err(error));
                receipt.done();
            }
        }
    }

    fn ask_in_name(&mut self, outer: Stanza, inner: Stanza, receipt: Receipt) {
        if self.asked.len() >= ASKED {
            metrics::counter!("rookery_limits_hit_total", "limit" => "component_requests").increment(1);
            return self.refuse(&outer, receipt, &Condition::ResourceConstraint.into());
        }
        let id = self.host.random_id();
        let sent = inner.clone().id(id.as_str());
        self.asked.push(Asked { id: id.clone(), outer, inner });
        if let Some(me) = self.me.as_ref().map(Handle::downgrade) {
            self.host.wheel().after(PATIENCE, move || {
                if let Some(me) = me.upgrade() {
                    let late = move |user: &mut User| user.not_answered(&id);
                    let _ = me.cast_always(Msg::Then(Box::new(late)));
                }
            });
        }
        self.send_to(Arc::new(sent), receipt, None);
    }

    fn not_answered(&mut self, id: &str) {
        let Some(at) = self.asked.iter().position(|asked| asked.id == id) else { return };
        let Asked { outer, inner, .. } = self.asked.swap_remove(at);
        if let Some(error) = inner.error_reply(&Condition::RemoteServerTimeout.into()) {
            self.host.route(xml::answer(&outer, &error), Receipt::none(), None);
        }
    }

    /// An answer to the bare JID: whether a component has asked for it.
    pub(super) fn answered_in_name(&mut self, stanza: &Stanza) -> bool {
        let is_it =
            |asked: &Asked| stanza.id.as_deref() == Some(asked.id.as_str()) && asked.inner.to == stanza.from;
        let Some(at) = self.asked.iter().position(is_it) else { return false };
        let Asked { outer, inner, .. } = self.asked.swap_remove(at);
        let mut answer = stanza.clone();
        answer.id = inner.id;
        self.host.route(xml::answer(&outer, &answer), Receipt::none(), None);
        true
    }

    /// Tells components a presence of one of the user's sessions, or of a contact. What a contact in the roster is told anyway it is
    /// not told again.
    pub(super) fn tell_components(&self, stanza: &Stanza, least: PresenceAccess) {
        let options = self.host.options();
        for component in &options.components {
            let told = match component.privileges.presence {
                PresenceAccess::None => false,
                PresenceAccess::ManagedEntity => least == PresenceAccess::ManagedEntity,
                PresenceAccess::Roster => true,
            };
            let Some(name) = BareJid::parse(&component.name).ok().filter(|_| told) else { continue };
            let own = least == PresenceAccess::ManagedEntity;
            if component.covers(self.jid.domain()) && !(own && self.roster.sees_me(name.as_jid())) {
                self.host.route(stanza.clone().to(name), Receipt::none(), None);
            }
        }
    }

    /// A component has come that hears presence: it is told what there is.
    pub(super) fn show_to_component(&self, name: &BareJid) {
        let options = self.host.options();
        let hears = options.component(name.as_str()).is_some_and(|component| {
            component.privileges.presence != PresenceAccess::None && component.covers(self.jid.domain())
        });
        if !hears || self.roster.sees_me(name.as_jid()) {
            return;
        }
        for presence in self.sessions.iter().filter_map(|session| session.presence.as_ref()) {
            self.host.route(Stanza::clone(&presence.stanza).to(name.clone()), Receipt::none(), None);
        }
    }

    /// The presence of a contact elsewhere, for components that hear those.
    pub(super) fn contact_shown(&self, stanza: &Stanza) {
        let shows =
            matches!(stanza.type_, Type::Presence(PresenceType::Available | PresenceType::Unavailable));
        let contact = stanza.from.as_ref().map(Jid::to_bare);
        let seen = contact.is_some_and(|contact| {
            self.roster.get(&contact).is_some_and(roster::Contact::to)
                && self.host.options().component(contact.domain()).is_none()
        });
        if shows && seen {
            self.tell_components(stanza, PresenceAccess::Roster);
        }
    }

    /// Pushes a changed item of the roster to components (section 4.4).
    pub(super) fn push_to_components(&self, item: Result<&table::Item, &BareJid>) {
        let options = self.host.options();
        let wants =
            |component: &&Component| component.privileges.roster_push && component.covers(self.jid.domain());
        for component in options.components.iter().filter(wants) {
            let payload = match item {
                Ok(item) if roster::in_roster(item) => roster::query_unversioned(std::slice::from_ref(item)),
                Ok(_) => continue,
                Err(contact) => roster::query_removed_unversioned(contact.as_str()),
            };
            let Ok(name) = BareJid::parse(&component.name) else { continue };
            let push = Stanza::new(Type::Iq(IqType::Set)).id(self.host.random_id().as_str());
            let push = push.from(self.jid.clone()).to(name).payload(payload);
            self.host.route(push, Receipt::none(), None);
        }
    }
}
