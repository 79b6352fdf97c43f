//! XEP-0115 Entity Capabilities, version 1.6.0: the server's own disco#info as a hash, so that clients ask once for all
//! servers that say the same. What contacts put in their presence is passed on as it is.

use std::collections::HashMap;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use parking_lot::Mutex;
use rookery_proto::xml::write;
use rookery_proto::xmpp::element::Element;
use rookery_proto::xmpp::forms::Form;
use rookery_proto::xmpp::ns;
use sha1::{Digest as _, Sha1};

use super::xep_0030_disco::Info;
use super::xep_0355_delegation;
use crate::features::contract::{Feature, Scope, Xep};
use crate::host::Host;
use crate::host::options::Options;

/// XEP-0115.
pub const CAPS: Feature = Feature {
    xep: Xep {
        number: 115,
        version: "1.6.0",
        name: "Entity Capabilities",
        note: "the server's own; those of contacts are passed on unread",
    },
    disco: &[(Scope::Host, ns::CAPS)],
    ..Feature::NONE
};

/// Names this software in caps (section 4).
const NODE: &str = "urn:x-rookery:server";

/// The server's capabilities (section 4).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Caps {
    /// Which software.
    pub node: &'static str,
    /// The verification string (section 5), SHA-1 in base64.
    pub ver: String,
}

/// The capabilities of our domains under the options that they were made with: every login shows them, and they change only
/// when the options do.
#[derive(Default)]
pub(crate) struct Cache(Mutex<Kept>);

#[derive(Default)]
struct Kept {
    under: Option<Arc<Options>>,
    /// What components can (XEP-0355), by the number of its changes.
    nested: u64,
    domains: HashMap<String, Arc<Caps>>,
}

/// The capabilities of one of our domains. They differ between domains that give other contact addresses.
pub fn caps(host: &Host, domain: &str) -> Arc<Caps> {
    let options = host.options();
    let cache = host.state::<Cache>();
    let nested = xep_0355_delegation::changes(host);
    let mut kept = cache.0.lock();
    if kept.nested != nested || kept.under.as_ref().is_none_or(|under| !Arc::ptr_eq(under, &options)) {
        *kept = Kept { under: Some(options), nested, domains: HashMap::new() };
    }
    if let Some(caps) = kept.domains.get(domain) {
        return caps.clone();
    }
    let caps = Arc::new(Caps { node: NODE, ver: verification(&Info::of(host, domain, Scope::Host)) });
    // Only as many as there are domains.
    if host.serves(domain) {
        kept.domains.insert(domain.to_owned(), caps.clone());
    }
    caps
}

/// The stream feature (section 6.3): `<c xmlns='http://jabber.org/protocol/caps' …/>`, after authentication.
pub fn stream_feature(host: &Host, domain: &str) -> Vec<u8> {
    let caps = caps(host, domain);
    write::bytes(|w| {
        w.start("c", ns::CAPS).attr("hash", "sha-1").attr("node", caps.node).attr("ver", &caps.ver);
    })
}

/// Whether this is the node that our caps lead to (section 6.2).
pub(crate) fn is_node(node: &str, host: &Host, domain: &str) -> bool {
    node.strip_prefix(NODE)
        .and_then(|rest| rest.strip_prefix('#'))
        .is_some_and(|ver| ver == caps(host, domain).ver)
}

fn verification(info: &Info) -> String {
    STANDARD.encode(Sha1::digest(hashed(info)))
}

/// The text that is hashed (section 5.1).
fn hashed(info: &Info) -> String {
    let (category, kind, name) = info.identity;
    let mut text = format!("{category}/{kind}//{name}<");
    // A set of strings is in the order of their bytes already.
    for feature in &info.features {
        append(&mut text, feature);
    }
    let mut forms = forms(&info.forms);
    forms.sort_by(|a, b| a.form_type().cmp(&b.form_type()));
    for form in &mut forms {
        append(&mut text, form.form_type().unwrap_or_default());
        form.fields.sort_by(|a, b| a.var.cmp(&b.var));
        for field in form.fields.iter_mut().filter(|field| field.var != "FORM_TYPE") {
            append(&mut text, &field.var);
            field.values.sort();
            field.values.iter().for_each(|value| append(&mut text, value));
        }
    }
    text
}

fn append(text: &mut String, part: &str) {
    text.push_str(part);
    text.push('<');
}

fn forms(raw: &[u8]) -> Vec<Form> {
    let wrapped = [b"<x>", raw, b"</x>"].concat();
    let parsed = Element::parse(&wrapped);
    parsed.iter().flat_map(Element::children).filter_map(|form| Form::parse(form).ok()).collect()
}

#[cfg(test)]
mod tests {
    use std::borrow::Cow;

    use super::*;
    use crate::features::testing::Scene;
    use rookery_proto::xml::Writer;
    use rookery_proto::xmpp::forms::{Field, FormType};

    #[test]
    fn section_5_2_s_example() {
        let info = Info {
            identity: ("client", "pc", "Exodus 0.9.1"),
            features: [ns::DISCO_ITEMS, ns::CAPS, ns::MUC, ns::DISCO_INFO].map(Cow::Borrowed).into(),
            forms: Vec::new(),
        };
        assert_eq!(verification(&info), "QgayPKawpkPSDYmwT/WM94uAlu0=");
    }

    #[test]
    fn forms_and_values_are_sorted_as_in_section_5_3() {
        let mut forms = Vec::new();
        for form in [
            Form::new(FormType::Result, "urn:b").field(Field::new("x").value("1")),
            Form::new(FormType::Result, "urn:a")
                .field(Field::new("os").value("Mac"))
                .field(Field::new("ip").value("v6").value("v4")),
        ] {
            form.write(&mut Writer::new(&mut forms));
        }
        let info =
            Info { identity: ("server", "im", "R"), features: ["b", "a"].map(Cow::Borrowed).into(), forms };
        assert_eq!(hashed(&info), "server/im//R<a<b<urn:a<ip<v4<v6<os<Mac<urn:b<x<1<");
    }

    #[tokio::test]
    async fn made_once_and_again_when_the_options_change() {
        let scene = Scene::new(&[]).await;
        let first = caps(&scene.host, "localhost");
        assert!(Arc::ptr_eq(&first, &caps(&scene.host, "localhost")));
        let _ = caps(&scene.host, "elsewhere.example");
        assert_eq!(scene.host.state::<Cache>().0.lock().domains.len(), 1);
        let mut options = Options::clone(&scene.host.options());
        options.domains[0].contact.clear();
        scene.host.reload(options);
        let second = caps(&scene.host, "localhost");
        assert_ne!(first, second);
        assert_eq!(second.ver, verification(&Info::of(&scene.host, "localhost", Scope::Host)));
    }

    #[tokio::test]
    async fn the_node_of_the_stream_feature_is_answered() {
        let scene = Scene::new(&["romeo"]).await;
        let mut romeo = scene.session("romeo/orchard").await;
        let caps = caps(&scene.host, "localhost");
        assert!(String::from_utf8(stream_feature(&scene.host, "localhost")).unwrap().contains(&caps.ver));
        let node = format!("{}#{}", caps.node, caps.ver);
        let query = format!("<query xmlns='http://jabber.org/protocol/disco#info' node='{node}'/>");
        let answer = romeo.ask(&format!("<iq type='get' id='1' to='localhost'>{query}</iq>")).await;
        assert!(answer.contains(&format!("node='{node}'")) && answer.contains("type='result'"), "{answer}");
    }
}
