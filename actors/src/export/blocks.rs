//! The block list. XEP-0227 knows privacy lists (XEP-0016); XEP-0191 section 5 says which of them is a block list: the
//! default one, with a rule that denies everything from and to each JID.

use rookery_proto::xml::Writer;
use rookery_proto::xmpp::element::Element;
use rookery_proto::xmpp::jid::Jid;
use rookery_proto::xmpp::ns;

/// XEP-0016 privacy lists, which this server does not speak.
pub(super) const PRIVACY: &str = "jabber:iq:privacy";

/// The name of our list.
const LIST: &str = "blocklist";

pub(super) fn write(w: &mut Writer<'_>, jids: &[String]) {
    if jids.is_empty() {
        return;
    }
    w.start("query", PRIVACY);
    w.start("default", PRIVACY).attr("name", LIST).end();
    w.start("list", PRIVACY).attr("name", LIST);
    for (order, jid) in (1u64..).zip(jids) {
        w.start("item", PRIVACY).attr("type", "jid").attr("value", jid).attr("action", "deny");
        w.attr_display("order", order).end();
    }
    w.end().end();
}

/// What a `<query/>` of privacy lists, or a `<blocklist/>` as XEP-0191 writes it, blocks.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Blocked {
    /// The JIDs.
    pub(super) jids: Vec<String>,
    /// Whether there were rules that a block list can't say.
    pub(super) other: bool,
}

pub(super) fn read(element: &Element) -> Blocked {
    let mut blocked = Blocked::default();
    if element.ns() == ns::BLOCKING {
        for item in element.children().filter(|child| child.is("item", ns::BLOCKING)) {
            blocked.take(item.attr("jid"));
        }
        return blocked;
    }
    let default = element.child("default", PRIVACY).and_then(|default| default.attr("name"));
    for list in element.children().filter(|child| child.is("list", PRIVACY)) {
        if default.is_none() || list.attr("name") != default {
            blocked.other = true; // in force only where a client asks for it
            continue;
        }
        for item in list.children().filter(|child| child.is("item", PRIVACY)) {
            // With children it denies only what they name.
            let whole = item.children().next().is_none();
            match (item.attr("type"), item.attr("action")) {
                (Some("jid"), Some("deny")) if whole => blocked.take(item.attr("value")),
                (None, Some("allow")) => {}
                _ => blocked.other = true,
            }
        }
    }
    blocked
}

impl Blocked {
    fn take(&mut self, jid: Option<&str>) {
        match jid.and_then(|jid| Jid::parse(jid).ok()) {
            Some(jid) => self.jids.push(jid.as_str().to_owned()),
            None => self.other = true,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_text(xml: &str) -> Blocked {
        read(&Element::parse(xml.as_bytes()).unwrap())
    }

    #[test]
    fn only_what_denies_everything_blocks() {
        let item = |attributes: &str, inner: &str| format!("<item order='1' {attributes}>{inner}</item>");
        let list = |items: &str| {
            format!(
                "<query xmlns='jabber:iq:privacy'><default name='a'/><list name='a'>{items}</list></query>"
            )
        };
        let deny = item("type='jid' value='Tybalt@Example.com' action='deny'", "");
        let blocked = read_text(&list(&format!("{deny}{}", item("action='allow'", ""))));
        assert_eq!(blocked, Blocked { jids: vec!["tybalt@example.com".into()], other: false });
        for other in [
            item("type='jid' value='a@b' action='deny'", "<message/>"),
            item("type='jid' value='@' action='deny'", ""),
            item("type='subscription' value='none' action='deny'", ""),
            item("type='jid' value='a@b' action='allow'", ""),
            item("action='deny'", ""),
        ] {
            assert_eq!(read_text(&list(&other)), Blocked { jids: vec![], other: true }, "{other}");
        }
        let unused = list(&deny).replace("<default name='a'/>", "<default name='b'/>");
        assert_eq!(read_text(&unused), Blocked { jids: vec![], other: true });
        let own = read_text("<blocklist xmlns='urn:xmpp:blocking'><item jid='b/x'/></blocklist>");
        assert_eq!(own, Blocked { jids: vec!["b/x".into()], other: false });
    }

    #[test]
    fn what_is_written_is_read() {
        let jids = ["a@b".to_owned(), "c".to_owned()];
        let xml = rookery_proto::xml::write::bytes(|w| write(w, &jids));
        assert_eq!(read(&Element::parse(&xml).unwrap()), Blocked { jids: jids.to_vec(), other: false });
        assert!(rookery_proto::xml::write::bytes(|w| write(w, &[])).is_empty());
    }
}
