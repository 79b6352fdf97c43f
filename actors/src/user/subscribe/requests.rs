//! Requests that wait for the user's answer (RFC 6121 section 3.1.3): in which form they are kept, and how they are shown.

use rookery_proto::xml::write;
use rookery_proto::xmpp::jid::{BareJid, Jid};
use rookery_proto::xmpp::ns;
use rookery_proto::xmpp::stanza::Stanza;

use super::User;
use crate::connection::ledger::Receipt;
use crate::connection::pipe::Outgoing;
use crate::connection::reply::Reply;
use crate::features::contract::{Direction, Verdict};
use crate::runtime::actor::Handle;
use crate::session::SessionId;
use crate::user::Msg;

/// How many requests are shown at once. The next come when the client has these.
const PORTION: usize = 16;

/// How many bytes a character takes when it is written.
fn escaped(c: char) -> usize {
    match c {
        '&' => 5,
        '<' | '>' => 4,
        '\'' | '"' => 6,
        c => c.len_utf8(),
    }
}

/// A request as it is kept.
pub(crate) fn kept(request: &Stanza, most: usize) -> Vec<u8> {
    short(request, most).map_or_else(|| request.to_bytes(), |short| short.to_bytes())
}

/// A request is kept whole, as section 3.1.3 wants it, unless what it says is longer than `most` bytes. Then this is left of
/// it: its status, cut. Anybody may ask, and it is sent at each login until it is answered.
fn short(request: &Stanza, most: usize) -> Option<Stanza> {
    let texts = [&request.id, &request.lang].into_iter().flatten().map(|text| text.len()).sum::<usize>();
    if request.shared_payload().len() + texts <= most {
        return None;
    }
    let mut room = most;
    let fits = |c: &char| {
        let left = room.checked_sub(escaped(*c));
        room = left.unwrap_or(0);
        left.is_some()
    };
    let status = request.child("status", ns::CLIENT).map(|status| status.text().into_owned());
    let status: String = status.unwrap_or_default().chars().take_while(fits).collect();
    let mut short = request.header();
    (short.id, short.lang) = (None, None);
    if status.is_empty() {
        return Some(short);
    }
    let status = write::bytes(|w| {
        w.leaf("status", ns::CLIENT, &status);
    });
    Some(short.payload(status))
}

impl User {
    /// Shows a session the requests without an answer, from the contact behind `after` on, in portions that its
    /// client confirms. What was stored before its sender was blocked stays hidden.
    pub(in crate::user) fn show_requests(&self, sid: SessionId, after: Option<&BareJid>) {
        let Some(session) = self.session(sid).filter(|session| session.presence.is_some()) else { return };
        let mut waiting = self.roster.requests().filter(|(from, _)| after < Some(*from)).peekable();
        for _ in 0..PORTION - 1 {
            let Some((from, stored)) = waiting.next() else { return };
            if let Some(request) = self.request(from, stored) {
                session.deliver(request, None, Receipt::none());
            }
        }
        let Some((last, stored)) = waiting.next() else { return };
        let receipt = match (waiting.peek(), self.me.as_ref().map(Handle::downgrade)) {
            (Some(_), Some(me)) => {
                let last = last.clone();
                Receipt::owed(
                    Reply::heard(move |taken| {
                        if let Some(me) = me.upgrade().filter(|_| taken) {
                            let next = move |user: &mut User| user.show_requests(sid, Some(&last));
                            let _ = me.cast_always(Msg::Then(Box::new(next)));
                        }
                    }),
                    false,
                )
            }
            _ => Receipt::none(),
        };
        match self.request(last, stored) {
            Some(request) => session.deliver(request, None, receipt),
            None => receipt.done(),
        }
    }

    /// A request as it is shown, if it may be. Older versions stored them whole, of any size.
    pub(super) fn request(&self, from: &BareJid, stored: &[u8]) -> Option<Outgoing> {
        let from = Jid::from(from.clone());
        let request = crate::routing::stored::stanza(stored)?;
        let request = short(&request, self.host.options().limits.request_bytes).unwrap_or(request);
        let request = request.from(from.clone()).to(Jid::from(self.jid.clone()));
        let shown = matches!(self.filter(Direction::In, &request, &from), Verdict::Pass);
        shown.then(|| Outgoing::new(request))
    }

    /// Shows the requests of contacts for which `hidden` is true: they may be heard again.
    pub(crate) fn show_hidden(&self, hidden: impl Fn(&Jid) -> bool) {
        for (from, stored) in self.roster.requests().filter(|(from, _)| hidden(&Jid::from((*from).clone()))) {
            if let Some(request) = self.request(from, stored) {
                self.to_interested(request);
            }
        }
    }

    /// Forgets the requests of contacts for which `unwanted` is true: the store has done so.
    pub(crate) fn forget_requests(&mut self, unwanted: impl Fn(&Jid) -> bool) {
        self.roster.keep_requests(|from| !unwanted(&Jid::from(from.clone())));
    }
}

#[cfg(test)]
mod tests {
    use rookery_proto::xmpp::stanza::PresenceType;

    use super::*;

    #[test]
    fn what_is_long_is_cut_to_its_status() {
        let jids =
            |stanza: Stanza| stanza.from(Jid::parse("a@b").unwrap()).to(Jid::parse("c@d").unwrap()).id("1");
        let ask =
            |payload: &str| jids(Stanza::new(PresenceType::Subscribe).payload(payload.as_bytes().to_vec()));
        let short = ask("<status>hi</status><x xmlns='urn:x'>extended content</x>");
        assert_eq!(kept(&short, 100), short.to_bytes());
        let cut = |payload: &str| String::from_utf8(kept(&ask(payload), 10)).unwrap();
        let head = "<presence from='a@b' to='c@d' type='subscribe'";
        for (payload, rest) in [
            ("<x xmlns='urn:x'>extended content</x>", "/>".to_owned()),
            ("<status>&lt;&lt;&lt;é</status>", "><status>&lt;&lt;</status></presence>".to_owned()),
            ("<status>01234567é890</status>", "><status>01234567é</status></presence>".to_owned()),
        ] {
            let stanza = crate::routing::stored::stanza(cut(payload).as_bytes()).unwrap();
            let wanted = crate::routing::stored::stanza(format!("{head}{rest}").as_bytes()).unwrap();
            assert_eq!(stanza, wanted, "{payload}");
        }
        let long_id = ask("").id("x".repeat(11).as_str());
        assert!(crate::routing::stored::stanza(&kept(&long_id, 10)).unwrap().id.is_none());
    }
}
