//! Recipients of a message: to which sessions a message is owed when it comes, and which sessions it is handed to. What each session is to have of it
//! says [`Reader::share`].

use rookery_cluster::tables::archive::ArchiveId;
use rookery_proto::xmpp::jid::Jid;
use rookery_proto::xmpp::stanza::{Stanza, Type};

use super::queue::waits_its_turn;
use super::steps::Step;
use super::{User, UserSession};
use crate::features::contract::{Direction, Verdict};
pub(crate) use crate::session::owed::{About, Owed, flags, nth, owed_to, queued, waits_for_any};
pub(crate) use crate::session::reader::{Reader, Share};

impl UserSession {
    /// What the session gets of an archived message.
    pub(super) fn share(&self, message: About<'_>) -> Option<Share> {
        self.reader.share(&self.jid, message)
    }

    /// Whether a message that is archived nowhere is for this session, and not only a copy of it. `full` is the session that
    /// it names, if that is here.
    pub(super) fn is_meant(&self, full: Option<&Jid>) -> bool {
        match full {
            Some(to) => self.jid.as_str() == to.as_str(),
            None => self.takes_messages(),
        }
    }
}

impl User {
    /// The full JID that a message is for, if that session is here. If not, it goes where the bare JID's would go: chats
    /// by RFC 6121 section 8.5.3.2.1, and whatever was on its way when the session ended.
    pub(super) fn recipient<'s>(&self, stanza: &'s Stanza) -> Option<&'s Jid> {
        let full = stanza.to.as_ref().filter(|to| to.resource().is_some())?;
        self.sessions.iter().any(|session| session.jid.as_str() == full.as_str()).then_some(full)
    }

    /// Whether a filter keeps a message to the user back that was taken before and that nobody has got yet: its sender may have
    /// been blocked since (XEP-0191).
    pub(super) fn withholds(&self, stanza: &Stanza) -> bool {
        let passes = |from| matches!(self.filter(Direction::In, stanza, from), Verdict::Pass);
        matches!(stanza.type_, Type::Message(_)) && stanza.from.as_ref().is_some_and(|from| !passes(from))
    }

    /// Which sessions a message is owed to that comes now; `worth` says whether it may wait.
    pub(super) fn owed(&self, stanza: &Stanza, worth: impl Fn() -> bool) -> Owed {
        if self.recipient(stanza).is_some() {
            Owed::Resource
        } else if self.takes_messages() {
            Owed::Takers
        } else if worth() {
            Owed::AnyDevice
        } else {
            Owed::Nobody
        }
    }

    /// The sessions that a step's stanza is handed to now.
    pub(super) fn targets<'a>(&'a self, step: &'a Step) -> impl Iterator<Item = &'a UserSession> {
        let reached = match step {
            Step::In { stanza, id: None, .. } => {
                self.sessions.iter().any(|session| session.is_meant(self.recipient(stanza)))
            }
            _ => true,
        };
        self.sessions.iter().filter(move |session| match step {
            Step::In { stanza, id, owed, copies, .. } => match self.about(stanza, *id, *owed, *copies) {
                Some(message) => !session.draining && session.share(message).is_some(),
                None if session.is_meant(self.recipient(stanza)) => {
                    !self.is_late(session) || *owed == Owed::LeftBehind || !waits_its_turn(stanza)
                }
                None => reached && *copies && session.carbons,
            },
            Step::Sent { id, copies, sid, .. } => {
                let copied = id.map_or(session.carbons, |id| session.reader.copy_sent(id));
                *copies && copied && session.sid != *sid && !(session.draining && id.is_some())
            }
            Step::Page(page) => page.sid == session.sid,
            Step::Kept { .. } | Step::Again { .. } | Step::Held { .. } => false,
        })
    }

    /// What decides which sessions get an archived message.
    fn about<'s>(
        &self,
        stanza: &'s Stanza,
        id: Option<ArchiveId>,
        owed: Owed,
        copies: bool,
    ) -> Option<About<'s>> {
        Some(About { id: id?, owed, to: stanza.to.as_ref(), copies })
    }
}
