//! What the stream features say about SASL, and XEP-0474's proof that they arrived unchanged. One list serves both.

use super::{ChannelBindings, Hash, Mechanism, encoding};
use crate::xmpp::ns;

/// Appends `<mechanisms/>` (RFC 6120 6.3.3) and, if there is something to bind to, `<sasl-channel-binding/>` (XEP-0440 0.4.2).
pub fn write(offered: &[Mechanism], bindings: &ChannelBindings, out: &mut Vec<u8>) {
    let mut put = |parts: &[&str]| parts.iter().for_each(|part| out.extend_from_slice(part.as_bytes()));
    put(&["<mechanisms xmlns='", ns::SASL, "'>"]);
    for mechanism in offered {
        put(&["<mechanism>", mechanism.name(), "</mechanism>"]);
    }
    put(&["</mechanisms>"]);
    if !bindings.is_empty() {
        put(&["<sasl-channel-binding xmlns='", ns::SASL_CB, "'>"]);
        for type_ in bindings.types() {
            put(&["<channel-binding type='", type_.name(), "'/>"]);
        }
        put(&["</sasl-channel-binding>"]);
    }
}

/// The value of SCRAM's attribute `h` (XEP-0474 0.5.0 section 5.1): a hash, in base64, over the names of mechanisms and of channel-binding
/// types, each list sorted by octets. `types` is empty if XEP-0440 was not used.
#[must_use]
pub fn downgrade_hash(hash: Hash, mechanisms: &[&str], types: &[&str]) -> String {
    let mut mechanisms = mechanisms.to_vec();
    mechanisms.sort_unstable();
    let mut text = mechanisms.join("\x1e");
    if !types.is_empty() {
        let mut types = types.to_vec();
        types.sort_unstable();
        text.push('\x1f');
        text.push_str(&types.join("\x1e"));
    }
    encoding::encode(&hash.digest(text.as_bytes()))
}

/// [`downgrade_hash`] over what [`write`] announces.
#[must_use]
pub(super) fn hash_of(hash: Hash, offered: &[Mechanism], bindings: &ChannelBindings) -> String {
    let mechanisms: Vec<_> = offered.iter().map(|m| m.name()).collect();
    let types: Vec<_> = bindings.types().map(|t| t.name()).collect();
    downgrade_hash(hash, &mechanisms, &types)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hash_is_that_of_xep_0474() {
        let types = ["tls-server-end-point", "tls-exporter"];
        assert_eq!(
            downgrade_hash(Hash::Sha1, &["SCRAM-SHA-1-PLUS", "SCRAM-SHA-1"], &types),
            "G6k/rBLDqgOhRRaCuuatSDFkJ08="
        );
    }

    #[test]
    fn announces_bindings_only_where_there_are_some() {
        let written = |bindings: &ChannelBindings| {
            let mut out = Vec::new();
            write(
                &[Mechanism::Scram { hash: Hash::Sha1, plus: false }, Mechanism::Plain],
                bindings,
                &mut out,
            );
            String::from_utf8(out).unwrap()
        };
        let plain = "<mechanisms xmlns='urn:ietf:params:xml:ns:xmpp-sasl'>\
                     <mechanism>SCRAM-SHA-1</mechanism><mechanism>PLAIN</mechanism></mechanisms>";
        assert_eq!(written(&ChannelBindings::default()), plain);
        let bindings = ChannelBindings { exporter: Some([0; 32]), server_end_point: Some(vec![1]) };
        assert_eq!(
            written(&bindings),
            format!(
                "{plain}<sasl-channel-binding xmlns='urn:xmpp:sasl-cb:0'><channel-binding type='tls-exporter'/>\
                 <channel-binding type='tls-server-end-point'/></sasl-channel-binding>"
            )
        );
    }
}
