//! Archive preferences, written as XEP-0441 does.

use rookery_cluster::tables::mam_prefs::{Policy, Preferences};
use rookery_proto::xml::Writer;
use rookery_proto::xmpp::element::Element;
use rookery_proto::xmpp::jid::Jid;
use rookery_proto::xmpp::ns;

/// JIDs in one list at most; what is more is left out.
const JIDS: usize = 500;

const POLICIES: [(Policy, &str); 3] =
    [(Policy::Always, "always"), (Policy::Never, "never"), (Policy::Roster, "roster")];

pub(super) fn write(w: &mut Writer<'_>, prefs: &Preferences) {
    w.start("prefs", ns::MAM_PREFS);
    let default = POLICIES.iter().find(|(policy, _)| *policy == prefs.policy());
    w.attr_opt("default", default.map(|(_, name)| *name));
    for (name, jids) in [("always", &prefs.always), ("never", &prefs.never)] {
        w.start(name, ns::MAM_PREFS);
        for jid in jids {
            w.leaf("jid", ns::MAM_PREFS, jid);
        }
        w.end();
    }
    w.end();
}

pub(super) fn read(element: &Element) -> Preferences {
    let default = POLICIES.iter().find(|(_, name)| element.attr("default") == Some(name));
    let list = |name| {
        let jids = element.child(name, ns::MAM_PREFS).into_iter().flat_map(Element::children);
        let jids = jids.filter_map(|jid| Jid::parse(jid.text().trim()).ok());
        jids.map(|jid| jid.as_str().to_owned()).take(JIDS).collect()
    };
    let policy = default.map_or(Policy::Unset, |(policy, _)| *policy);
    Preferences { policy: policy.into(), always: list("always"), never: list("never") }
}
