//! XEP-0455 Service Outage Status, version 0.4.0: where clients can read that the service has an outage, and until when.

use rookery_proto::xml::Writer;
use rookery_proto::xmpp::forms::{Field, FieldType, Form, FormType};
use rookery_proto::xmpp::ns;

use crate::features::contract::{Feature, Scope, Xep};
use crate::host::Host;

/// XEP-0455 section 2.1: a form in the disco#info of the domain (XEP-0128), if its operator gives URLs. The files must be elsewhere, to
/// be there in an outage: this server serves none of them, and tells nothing of an outage in the stream.
pub const OUTAGE: Feature = Feature {
    xep: Xep {
        number: 455,
        version: "0.4.0",
        name: "Service Outage Status",
        note: "the operator's URLs (`outage_status`); the file itself is elsewhere",
    },
    form: Some(form),
    ..Feature::NONE
};

fn form(host: &Host, domain: &str, scope: Scope, out: &mut Vec<u8>) {
    let options = host.options();
    if scope == Scope::Host
        && let Some(form) = addresses(&options.outage_status, domain)
    {
        form.write(&mut Writer::new(out));
    }
}

/// The form of the URLs of `domain`; `None` if there are none.
fn addresses(all: &[(String, String)], domain: &str) -> Option<Form> {
    let urls = all.iter().filter(|(of, _)| of == domain).map(|(_, url)| url.clone());
    let field = Field::new("external-status-addresses").type_(FieldType::ListMulti);
    let field = urls.fold(field, Field::value);
    (!field.values.is_empty()).then(|| Form::new(FormType::Result, ns::OUTAGE).field(field))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_domain_has_its_own_addresses() {
        let one = |domain: &str, url: &str| (domain.to_owned(), url.to_owned());
        let all = [
            one("a.example", "https://status.example/a.json"),
            one("b.example", "https://status.example/b.json"),
            one("a.example", "http://other.example/a.json"),
        ];
        assert_eq!(addresses(&all, "c.example"), None);
        assert_eq!(addresses(&[], "a.example"), None);
        let form = addresses(&all, "a.example").unwrap();
        assert_eq!(form.form_type(), Some("urn:xmpp:sos:0"));
        let urls = &form.get("external-status-addresses").unwrap().values;
        assert_eq!(*urls, ["https://status.example/a.json", "http://other.example/a.json"]);
    }
}
