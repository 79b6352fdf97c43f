//! XEP-0157 Contact Addresses for XMPP Services, version 1.1.1: whom to write to about a domain.

use rookery_proto::xml::Writer;
use rookery_proto::xmpp::forms::{Field, FieldType, Form, FormType};
use rookery_proto::xmpp::ns;

use crate::features::contract::{Feature, Scope, Xep};
use crate::host::Host;

/// XEP-0157 section 3: a form in the disco#info of the domain (XEP-0128), if its operator gives addresses.
pub const CONTACT: Feature = Feature {
    xep: Xep { number: 157, version: "1.1.1", name: "Contact Addresses for XMPP Services", note: "" },
    form: Some(form),
    ..Feature::NONE
};

/// The kinds that the registry has (section 7.1); a form is written in this order.
pub const KINDS: [&str; 7] = ["abuse", "admin", "feedback", "sales", "security", "status", "support"];

fn form(host: &Host, domain: &str, scope: Scope, out: &mut Vec<u8>) {
    let options = host.options();
    if scope == Scope::Host
        && let Some(form) = options.domain(domain).and_then(|domain| contact(&domain.contact))
    {
        form.write(&mut Writer::new(out));
    }
}

/// The form of these addresses, by kind; `None` if there are none.
fn contact(addresses: &[(String, String)]) -> Option<Form> {
    let mut form = Form::new(FormType::Result, ns::SERVER_INFO);
    let mut any = false;
    for kind in KINDS {
        let values = addresses.iter().filter(|(of, _)| of == kind).map(|(_, address)| address.clone());
        let field = Field::new(&format!("{kind}-addresses")).type_(FieldType::ListMulti);
        let field = values.fold(field, Field::value);
        if !field.values.is_empty() {
            any = true;
            form = form.field(field);
        }
    }
    any.then_some(form)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_gathered_by_kind() {
        assert_eq!(contact(&[]), None);
        assert_eq!(contact(&[("odd".into(), "mailto:x@b".into())]), None);
        let address = |kind: &str, uri: &str| (kind.to_owned(), uri.to_owned());
        let form = contact(&[
            address("support", "xmpp:help@b"),
            address("abuse", "mailto:abuse@b"),
            address("support", "https://b/help"),
        ]);
        let form = form.unwrap();
        assert_eq!(form.form_type(), Some("http://jabber.org/network/serverinfo"));
        assert_eq!(form.fields[1].var, "abuse-addresses");
        assert_eq!(form.get("support-addresses").unwrap().values, ["xmpp:help@b", "https://b/help"]);
    }
}
