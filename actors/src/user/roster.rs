//! A user's contacts as the user actor remembers them, and how they are written in stanzas (RFC 6121 section 2).

use rookery_cluster::tables::roster::{Item, RosterVersion, Subscription, displaced, version_text};
use rookery_proto::xml::write::{self, Writer};
use rookery_proto::xmpp::jid::{BareJid, Jid};
use rookery_proto::xmpp::ns;

/// A contact in memory: what deliveries and presence need. Names and groups stay in the store and are read when the
/// roster is asked for.
#[derive(Clone, Debug)]
pub struct Contact {
    /// The contact.
    pub jid: BareJid,
    /// In which directions presence is shared.
    pub subscription: Subscription,
    /// The user has asked for a subscription, and there is no answer yet.
    pub asks: bool,
}

impl Contact {
    /// The contact sees our presence.
    pub fn from(&self) -> bool {
        matches!(self.subscription, Subscription::From | Subscription::Both)
    }

    /// We see the contact's presence.
    pub fn to(&self) -> bool {
        matches!(self.subscription, Subscription::To | Subscription::Both)
    }
}

/// All contacts of a user, sorted by JID.
#[derive(Clone, Debug, Default)]
pub struct Roster {
    contacts: Vec<Contact>,
    /// Requests that the user has not answered, sorted by JID.
    requests: Vec<Request>,
}

#[derive(Clone, Debug)]
struct Request {
    from: BareJid,
    stanza: bytes::Bytes,
    /// When it came, microseconds since 1970.
    at: u64,
}

impl Roster {
    /// From the rows of the store, with so many requests at most. Rows that are no contacts yet (only a request that waits) are
    /// left out.
    pub(crate) fn load(items: &[Item], requests: usize) -> Self {
        let mut roster = Self { contacts: Vec::with_capacity(items.len()), requests: Vec::new() };
        for item in items {
            roster.apply(item);
        }
        roster.limit_requests(requests);
        roster
    }

    /// The contact of that JID.
    pub fn get(&self, jid: &BareJid) -> Option<&Contact> {
        let at = self.contacts.binary_search_by(|c| c.jid.cmp(jid)).ok()?;
        self.contacts.get(at)
    }

    /// All contacts.
    pub fn iter(&self) -> impl Iterator<Item = &Contact> {
        self.contacts.iter()
    }

    /// Requests that wait for the user's answer (section 3.1.3), sorted by JID.
    pub fn requests(&self) -> impl Iterator<Item = (&BareJid, &[u8])> {
        self.requests.iter().map(|request| (&request.from, &request.stanza[..]))
    }

    /// Whether a request of that JID waits for the user's answer.
    pub(crate) fn is_asked_by(&self, jid: &BareJid) -> bool {
        self.requests.binary_search_by(|request| request.from.cmp(jid)).is_ok()
    }

    /// Forgets the requests of contacts for which `wanted` is false.
    pub(crate) fn keep_requests(&mut self, wanted: impl Fn(&BareJid) -> bool) {
        self.requests.retain(|request| wanted(&request.from));
    }

    /// Forgets the requests that are more than `most`, as the store has done.
    pub(crate) fn limit_requests(&mut self, most: usize) {
        if self.requests.len() <= most {
            return;
        }
        let waiting: Vec<_> =
            self.requests.iter().map(|request| (request.at, request.from.as_str())).collect();
        let mut gone = displaced(&waiting, most);
        gone.sort_unstable_by(|a, b| b.cmp(a));
        gone.into_iter().for_each(|place| drop(self.requests.remove(place)));
    }

    /// Whether that entity may see this user's presence.
    pub fn sees_me(&self, who: &Jid) -> bool {
        self.get(&who.to_bare()).is_some_and(Contact::from)
    }

    /// Takes over what was committed for one contact.
    pub(crate) fn apply(&mut self, item: &Item) {
        let Ok(jid) = BareJid::parse(&item.jid) else { return };
        let known = self.requests.binary_search_by(|request| request.from.cmp(&jid));
        let request = item.pending_in.clone();
        let request = request.map(|stanza| Request { from: jid.clone(), stanza, at: item.asked_at });
        match (known, request) {
            (Ok(at), None) => drop(self.requests.remove(at)),
            (Ok(at), Some(request)) => self.requests.splice(at..=at, [request]).for_each(drop),
            (Err(at), Some(request)) => self.requests.insert(at, request),
            (Err(_), None) => {}
        }
        match self.contacts.binary_search_by(|c| c.jid.cmp(&jid)) {
            Ok(at) if !in_roster(item) => drop(self.contacts.remove(at)),
            Ok(at) => {
                if let Some(contact) = self.contacts.get_mut(at) {
                    (contact.subscription, contact.asks) = (item.subscription(), item.ask_subscribe);
                }
            }
            Err(at) if in_roster(item) => {
                let (subscription, asks) = (item.subscription(), item.ask_subscribe);
                self.contacts.insert(at, Contact { jid, subscription, asks });
            }
            Err(_) => {}
        }
    }

    /// Forgets a contact.
    pub(crate) fn remove(&mut self, jid: &BareJid) {
        self.contacts.retain(|contact| contact.jid != *jid);
    }
}

/// Whether a row is a contact that clients see. Rows that hold only an unanswered request or a pre-approval are not
/// (RFC 6121 appendix A.2: "None + Pending In" is never pushed).
pub(crate) fn in_roster(item: &Item) -> bool {
    !item.unlisted
}

/// Appends `<item/>` (RFC 6121 section 2.1.2).
pub(crate) fn write_item(w: &mut Writer<'_>, item: &Item) {
    w.start("item", ns::ROSTER).attr("jid", &item.jid);
    w.attr_opt("name", item.name.as_deref()).attr("subscription", subscription_name(item.subscription()));
    if item.ask_subscribe {
        w.attr("ask", "subscribe");
    }
    if item.approved {
        w.attr("approved", "true");
    }
    for group in &item.groups {
        w.start("group", ns::ROSTER).text(group).end();
    }
    w.end();
}

/// The value of the `subscription` attribute.
pub(crate) fn subscription_name(subscription: Subscription) -> &'static str {
    match subscription {
        Subscription::None => "none",
        Subscription::To => "to",
        Subscription::From => "from",
        Subscription::Both => "both",
    }
}

/// `<query xmlns='jabber:iq:roster'/>` with these items.
pub(crate) fn query(version: &RosterVersion, items: &[Item]) -> Vec<u8> {
    write_query(Some(version), items)
}

/// The same for a client that knows no versions.
pub(crate) fn query_unversioned(items: &[Item]) -> Vec<u8> {
    write_query(None, items)
}

fn write_query(version: Option<&RosterVersion>, items: &[Item]) -> Vec<u8> {
    let mut out = Vec::with_capacity(64 + items.len() * 96);
    let w = &mut Writer::new(&mut out);
    w.start("query", ns::ROSTER);
    if let Some(version) = version {
        w.attr("ver", &version_text(version));
    }
    for item in items.iter().filter(|item| in_roster(item)) {
        write_item(w, item);
    }
    w.end();
    out
}

/// The same for a contact that was removed.
pub(crate) fn query_removed(version: &RosterVersion, jid: &str) -> Vec<u8> {
    write_removed(Some(version), jid)
}

/// The same without a version.
pub(crate) fn query_removed_unversioned(jid: &str) -> Vec<u8> {
    write_removed(None, jid)
}

fn write_removed(version: Option<&RosterVersion>, jid: &str) -> Vec<u8> {
    write::bytes(|w| {
        w.start("query", ns::ROSTER).attr_opt("ver", version.map(version_text).as_deref());
        w.start("item", ns::ROSTER).attr("jid", jid).attr("subscription", "remove").end().end();
    })
}
