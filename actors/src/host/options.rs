//! What the operator decides about users and sessions. The program `rookery` validates its configuration file into
//! this; see the configuration reference in README.md for the defaults and their reasons.

use std::time::Duration;

use rookery_proto::xmpp::jid::Jid;

pub use super::components::{Access, Component, Delegation, PresenceAccess, Privileges, Secret};
pub use super::federation::{DomainPattern, Federation};
pub use super::names::Service;
use crate::connection::budget;

/// A domain whose users live here.
#[derive(Clone, Debug)]
pub struct Domain {
    /// Its name, normalised (RFC 7622 section 3.2).
    pub name: String,
    /// Whether strangers may make accounts (XEP-0077).
    pub open_registration: bool,
    /// Contact addresses (XEP-0157): kind (`abuse`, `admin`, `support`, …) and address as a URI.
    pub contact: Vec<(String, String)>,
}

/// An entity elsewhere that a domain lists among its items.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DiscoItem {
    /// The domain that lists it.
    pub domain: String,
    /// The entity.
    pub jid: Jid,
    /// What people call it; may be empty.
    pub name: String,
}

/// What is archived if a user says nothing else (XEP-0441's words).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Archive {
    /// Everything.
    Always,
    /// Only messages with contacts of the roster.
    Roster,
    /// Nothing; messages are kept only until they are delivered.
    Never,
}

/// What happens when an archive holds as much as it may.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Full {
    /// The oldest messages are removed.
    Oldest,
    /// Nothing more is archived; messages are delivered as where nothing is archived.
    Refuse,
}

/// Limits on what users may ask for. Every one has a specified error at the limit.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Contacts in a roster.
    pub roster_items: usize,
    /// Groups of one contact.
    pub roster_groups: usize,
    /// The JID, the name and the groups of one contact, bytes.
    pub roster_item_bytes: usize,
    /// The same of all contacts.
    pub roster_bytes: usize,
    /// Subscription requests that wait for the user's answer; the oldest make room.
    pub requests: usize,
    /// One of them as it is kept, bytes of what it says.
    pub request_bytes: usize,
    /// Bound resources of one user, hibernating ones included.
    pub sessions_per_user: usize,
    /// Stanzas sent to a session and not acknowledged by it (XEP-0198).
    pub unacked_stanzas: usize,
    /// Bytes that wait for one session: not yet written, or not acknowledged.
    pub unacked_bytes: usize,
    /// Bytes that wait for all connections of a user on one node.
    pub waiting_bytes_per_account: usize,
    /// The same of all users.
    pub waiting_bytes: usize,
    /// Messages that wait for a user who is offline, where nothing is archived.
    pub offline_messages: usize,
    /// Entities a session may send directed presence to.
    pub directed_presences: usize,
    /// Blocked JIDs of one user (XEP-0191).
    pub blocked: usize,
    /// One vCard, bytes (XEP-0054).
    pub vcard_bytes: usize,
    /// One element of private XML, bytes (XEP-0049).
    pub private_bytes: usize,
    /// Elements of private XML of one user.
    pub private_items: usize,
    /// Messages per archive page (XEP-0313).
    pub archive_page: usize,
    /// Stanzas that wait for one component.
    pub component_stanzas: usize,
    /// The same, bytes.
    pub component_bytes: usize,
    /// How long stanzas wait for a component that has just lost its connection.
    pub component_wait: Duration,
    /// Accounts that one address may register in an hour (XEP-0077).
    pub registrations_per_hour: u32,
    /// How often an account's password may be changed by its user in an hour (XEP-0077).
    pub password_changes_per_hour: u32,
}

/// What may wait for each connection that a node may have, if the operator says nothing of their sum.
pub const WAITING_BYTES: usize = 16 << 10;

impl Default for Limits {
    fn default() -> Self {
        Self {
            roster_items: 2_000,
            roster_groups: 50,
            roster_item_bytes: 4_096,
            roster_bytes: 1 << 20,
            requests: 200,
            request_bytes: 1_024,
            sessions_per_user: 16,
            unacked_stanzas: 2_000,
            unacked_bytes: 4 << 20,
            waiting_bytes_per_account: 16 << 20,
            waiting_bytes: 50_000 * WAITING_BYTES,
            offline_messages: 1_000,
            directed_presences: 256,
            blocked: 1_000,
            vcard_bytes: 128 << 10,
            private_bytes: 64 << 10,
            private_items: 100,
            archive_page: 250,
            component_stanzas: 10_000,
            component_bytes: 16 << 20,
            component_wait: Duration::from_secs(10),
            registrations_per_hour: 5,
            password_changes_per_hour: 10,
        }
    }
}

impl Limits {
    /// What of them bounds what waits for clients.
    pub(crate) fn waiting(&self) -> budget::Limits {
        budget::Limits {
            session: self.unacked_bytes,
            stanzas: self.unacked_stanzas,
            account: self.waiting_bytes_per_account,
            node: self.waiting_bytes,
        }
    }

    /// The most rows that a roster has: contacts, requests, and what is remembered of contacts that were removed.
    pub fn roster_rows(&self) -> usize {
        self.roster_items.saturating_mul(2).saturating_add(self.requests)
    }
}

/// Everything together.
#[derive(Clone, Debug)]
pub struct Options {
    /// The domains, at least one.
    pub domains: Vec<Domain>,
    /// Other names that this deployment answers.
    pub services: Vec<Service>,
    /// What the items of a domain list beside the services (XEP-0030 section 4).
    pub disco_items: Vec<DiscoItem>,
    /// Where the status of domains can be read in an outage (XEP-0455): domain and URL.
    pub outage_status: Vec<(String, String)>,
    /// External components. Each has a [`Service`] of its name.
    pub components: Vec<Component>,
    /// How other servers are spoken with; `None`: not at all.
    pub federation: Option<Federation>,
    /// The archive's default policy.
    pub archive: Archive,
    /// Messages older than that are removed; zero keeps them.
    pub retention: Duration,
    /// What the archive of one account may hold, bytes; zero: as much as comes.
    pub quota: u64,
    /// What happens then.
    pub when_full: Full,
    /// How long a session waits to be resumed (XEP-0198) at most.
    pub resume: Duration,
    /// PBKDF2 rounds of new passwords (RFC 5802 asks for 4,096 at least).
    pub iterations: u32,
    /// This node's public name and port for `<enabled location='…'/>`, if clients should come back to it.
    pub location: Option<String>,
    /// The limits.
    pub limits: Limits,
}

impl Options {
    /// The defaults for these domains.
    pub fn new(domains: Vec<Domain>) -> Self {
        Self {
            domains,
            services: Vec::new(),
            disco_items: Vec::new(),
            outage_status: Vec::new(),
            components: Vec::new(),
            federation: None,
            archive: Archive::Always,
            retention: Duration::ZERO,
            quota: 1 << 30,
            when_full: Full::Oldest,
            resume: Duration::from_secs(600),
            iterations: 10_000,
            location: None,
            limits: Limits::default(),
        }
    }

    /// The domain of that name.
    pub fn domain(&self, name: &str) -> Option<&Domain> {
        self.domains.iter().find(|domain| domain.name == name)
    }
}
