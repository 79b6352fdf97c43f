//! What a feature (a XEP) is: one `const` value that declares everything it answers, advertises and hooks into.
//! Nothing is registered by side effect; [`crate::features::ALL`] is the only list, and its order is the order in
//! which hooks run within a phase.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use bytes::Bytes;
use rookery_cluster::entity::Entity;
use rookery_cluster::store::{self, Edit, Store};
use rookery_cluster::tables::archive::Collection;
use rookery_proto::xmpp::element::Element;
use rookery_proto::xmpp::error::{Condition, StanzaError};
use rookery_proto::xmpp::jid::{BareJid, Jid};
use rookery_proto::xmpp::stanza::{Stanza, Text};

use crate::connection::pipe::Outgoing;
use crate::host::Host;
use crate::session::SessionId;
use crate::user::User;

/// Which specification a feature follows.
#[derive(Clone, Copy, Debug)]
pub struct Xep {
    /// Its number.
    pub number: u16,
    /// The version that was read when the code was written.
    pub version: &'static str,
    /// Its title.
    pub name: &'static str,
    /// What of it is not there, or what people should know; empty if all is as written.
    pub note: &'static str,
}

/// The addressee of an IQ, and the entity on whose disco#info a feature shows.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Scope {
    /// The server: a domain we host.
    Host,
    /// A user's bare JID.
    Account,
}

/// The senders that may ask.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Who {
    /// Only the account's owner. Others learn nothing: see [`crate::features::not_there`].
    Owner,
    /// Every sender that is not blocked.
    Anyone,
    /// The owner, and contacts that may see the account's presence. Others learn nothing.
    Subscriber,
}

/// Which kinds of request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Method {
    /// `type='get'`
    Get,
    /// `type='set'`
    Set,
}

/// An IQ request as a handler sees it.
#[derive(Clone, Debug)]
pub struct Request {
    /// The sender, as stamped by the server.
    pub from: Jid,
    /// The session that asks, if it is one of this user's own.
    pub sid: Option<SessionId>,
    /// The account that is asked ([`Scope::Account`]), or the sender's account ([`Scope::Host`]).
    pub account: BareJid,
    /// The domain or bare JID it is addressed to.
    pub to: Jid,
    /// The request's id.
    pub id: Text,
    /// Get or set.
    pub method: Method,
    /// The stanza's `xml:lang`.
    pub lang: Option<Text>,
    /// The only child, as bytes.
    pub child: Bytes,
}

impl Request {
    /// The child as a tree.
    pub fn element(&self) -> Result<Element, StanzaError> {
        Element::parse(&self.child).map_err(|_| StanzaError::new(Condition::BadRequest))
    }

    /// Whether the account's owner asks.
    pub fn by_owner(&self) -> bool {
        self.from.bare_str() == self.account.as_str()
    }
}

/// What a handler that took time has done.
#[derive(Default)]
pub struct Done {
    /// The child of the result; empty for `<iq type='result'/>` alone.
    pub reply: Vec<u8>,
    /// Stanzas to the asking session before the result, in order (XEP-0313 results).
    pub before: Vec<Outgoing>,
    /// What to do in the user actor once the work is durable, before the result is sent.
    pub then: Option<Then>,
    /// The same, after it is sent.
    pub after: Option<Then>,
}

impl Done {
    /// A result with this child.
    pub fn reply(reply: Vec<u8>) -> Self {
        Self { reply, ..Self::default() }
    }

    /// An empty result, after `then` was run in the user actor.
    pub fn then(then: impl FnOnce(&mut User) + Send + 'static) -> Self {
        Self { then: Some(Box::new(then)), ..Self::default() }
    }
}

/// A step to take in the user actor.
pub type Then = Box<dyn FnOnce(&mut User) + Send>;

/// What a handler returns that needs the store.
pub type Work = Pin<Box<dyn Future<Output = Result<Done, StanzaError>> + Send>>;

/// How an IQ is answered.
#[derive(Clone, Copy)]
pub enum Run {
    /// At once, from what the server knows: for [`Scope::Host`], for every sender.
    Host(fn(&Host, &Request) -> Result<Vec<u8>, StanzaError>),
    /// At once, from what the user actor knows.
    Now(fn(&mut User, &Request) -> Result<Vec<u8>, StanzaError>),
    /// With the store, where it changes something that bears on what its session sends next; that waits (RFC 6120 section
    /// 10.1). Changes of one account run one after the other, in order.
    Change(fn(Host, Request) -> Work),
    /// With the store, where it changes nothing: what follows does not wait. A read begins when the changes are done that its
    /// session sent before it. All requests that others than the owner may send are of this kind.
    Read(fn(Host, Request) -> Work),
}

/// One kind of IQ that a feature answers.
#[derive(Clone, Copy)]
pub struct Iq {
    /// The addressee.
    pub scope: Scope,
    /// Get or set.
    pub method: Method,
    /// Name and namespace of the child.
    pub name: &'static str,
    /// See `name`.
    pub ns: &'static str,
    /// The senders that may ask.
    pub who: Who,
    /// The handler.
    pub run: Run,
}

/// Where a stanza is on its way.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Direction {
    /// From one of this user's sessions to anybody.
    Out,
    /// From anybody to this user.
    In,
}

/// The phases a message passes in each user actor, in order. A hook belongs to one.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Phase {
    /// Strip what must not be there, read hints.
    Check,
    /// Refuse or drop. A filter that fails closes.
    Filter,
    /// Decide whether it is kept.
    Archive,
    /// Decide which sessions get copies.
    Copy,
}

/// A message on its way through a user actor, and what the hooks decided so far.
#[derive(Debug)]
pub struct Passing {
    /// The message. Shared: most pass as they are.
    pub stanza: Arc<Stanza>,
    /// Out of, or in to, this user.
    pub direction: Direction,
    /// The other side's bare JID.
    pub with: BareJid,
    /// Keep it in the archive. Set in [`Phase::Archive`].
    pub archive: bool,
    /// XEP-0334: what its sender asked for.
    pub hints: Hints,
    /// Send carbons of it. Set in [`Phase::Copy`].
    pub copies: bool,
    /// What else is written in the transaction that stores it. Forgotten if it is stored nowhere.
    pub prepare: Vec<Prepare>,
}

impl Passing {
    pub(crate) fn new(stanza: impl Into<Arc<Stanza>>, direction: Direction, with: BareJid) -> Self {
        Self {
            stanza: stanza.into(),
            direction,
            with,
            archive: false,
            hints: Hints::default(),
            copies: false,
            prepare: Vec::new(),
        }
    }
}

/// Where a message is going to be stored.
#[derive(Clone, Debug)]
pub struct Place {
    /// The owner of the archive or queue.
    pub owner: Entity,
    /// The archive, or the offline queue of a user whose archive does not keep the message.
    pub collection: Collection,
}

/// What a hook adds to the transaction that stores a message, in two steps, because many users share one commit:
///
/// 1. The function given to [`Prepare::new`] reads. The function runs when everything before the message is stored, and may take its time, but
///    not without a limit: all later messages of the user wait for it, those of other users do not.
/// 2. The [`Edit`]s that it returns read and write a few rows within the transaction.
///
/// If either fails, the message is not stored and its sender gets an error. Both may run more than once. A message that is to be
/// handed to a session and stored nowhere has no transaction: then nothing of this runs.
#[derive(Clone)]
pub struct Prepare(Arc<dyn Fn(Store, Place) -> Preparing + Send + Sync>);

/// What the function of a [`Prepare`] returns.
pub type Preparing = Pin<Box<dyn Future<Output = store::Result<Vec<Edit>>> + Send>>;

impl Prepare {
    /// See [`Prepare`].
    pub fn new(read: impl Fn(Store, Place) -> Preparing + Send + Sync + 'static) -> Self {
        Self(Arc::new(read))
    }

    pub(crate) fn run(&self, store: Store, place: Place) -> Preparing {
        (self.0)(store, place)
    }
}

impl std::fmt::Debug for Prepare {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Prepare")
    }
}

/// Message processing hints (XEP-0334), and what else a message says about its own handling.
#[derive(Clone, Copy, Default, Debug)]
pub struct Hints {
    /// `<no-store/>`
    pub no_store: bool,
    /// `<no-permanent-store/>`
    pub no_permanent_store: bool,
    /// `<no-copy/>`, and `<private/>` of XEP-0280
    pub no_copy: bool,
    /// `<store/>`
    pub store: bool,
}

/// What a filter says.
#[derive(Debug)]
pub enum Verdict {
    /// Go on.
    Pass,
    /// Answer with this error.
    Refuse(StanzaError),
    /// Forget it without a word.
    Drop,
}

/// A hook into the way of a message.
#[derive(Clone, Copy)]
pub struct MessageHook {
    /// When it runs.
    pub phase: Phase,
    /// What it does.
    pub run: fn(&User, &mut Passing) -> Verdict,
}

/// What the server does with a message that has no body, but this child. A message with a body is archived, copied and kept anyway;
/// what its hints, its type and the user's preferences say goes before this.
#[derive(Clone, Copy, Debug)]
pub struct Payload {
    /// The child's name.
    pub name: &'static str,
    /// The child's namespace.
    pub ns: &'static str,
    /// A message with it is archived (XEP-0313 section 6.1.1).
    pub archived: bool,
    /// A message with it is copied to other devices whatever its type (XEP-0280 section 6.1; chat messages always are).
    pub copied: bool,
    /// A chat message waits for a user who is offline (XEP-0160 section 3; normal messages always do).
    pub waits: bool,
}

/// A filter for presence and IQs between accounts; messages have [`MessageHook`]s.
pub type StanzaFilter = fn(&User, Direction, &Stanza, with: &Jid) -> Verdict;

/// Adds to a disco#info answer: extended information forms (XEP-0128) as complete child elements.
pub type DiscoForm = fn(&Host, domain: &str, Scope, &mut Vec<u8>);

/// A feature: what one XEP adds to the server.
pub struct Feature {
    /// The specification.
    pub xep: Xep,
    /// What is advertised, and where.
    pub disco: &'static [(Scope, &'static str)],
    /// The IQs it answers.
    pub iq: &'static [Iq],
    /// The hooks into messages.
    pub messages: &'static [MessageHook],
    /// The children that make a message more than a state.
    pub payloads: &'static [Payload],
    /// Filters of everything else.
    pub filters: &'static [StanzaFilter],
    /// Extended information in disco#info.
    pub form: Option<DiscoForm>,
}

impl Feature {
    /// A feature that declares nothing: the base for `..Feature::NONE`.
    pub const NONE: Self = Self {
        xep: Xep { number: 0, version: "", name: "", note: "" },
        disco: &[],
        iq: &[],
        messages: &[],
        payloads: &[],
        filters: &[],
        form: None,
    };
}
