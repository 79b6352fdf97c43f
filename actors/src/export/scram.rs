//! `<scram-credentials xmlns='urn:xmpp:pie:0#scram'/>`: keys instead of a password.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use rookery_cluster::tables::accounts::{Account, Hash, ScramKeys};
use rookery_proto::sasl::{self, keys::MAX_ITERATIONS};
use rookery_proto::xml::Writer;
use rookery_proto::xmpp::element::Element;
use rookery_proto::xmpp::ns;

const MECHANISMS: [(Hash, sasl::Hash, &str); 3] = [
    (Hash::Sha1, sasl::Hash::Sha1, "SCRAM-SHA-1"),
    (Hash::Sha256, sasl::Hash::Sha256, "SCRAM-SHA-256"),
    (Hash::Sha512, sasl::Hash::Sha512, "SCRAM-SHA-512"),
];

/// The longest salt that is taken over, bytes; [`sasl::Credentials`] takes none longer.
const SALT: usize = 1_024;

pub(super) fn write(w: &mut Writer<'_>, account: &Account) {
    for (hash, _, mechanism) in MECHANISMS {
        let Some(keys) = account.keys(hash) else { continue };
        w.start("scram-credentials", ns::PIE_SCRAM).attr("mechanism", mechanism);
        w.leaf("iter-count", ns::PIE_SCRAM, &keys.iterations.to_string());
        w.leaf("salt", ns::PIE_SCRAM, &STANDARD.encode(&keys.salt));
        w.leaf("server-key", ns::PIE_SCRAM, &STANDARD.encode(&keys.server_key));
        w.leaf("stored-key", ns::PIE_SCRAM, &STANDARD.encode(&keys.stored_key)).end();
    }
}

/// The keys, or why they can't be taken over.
pub(super) fn read(element: &Element) -> Result<ScramKeys, &'static str> {
    let mechanism = element.attr("mechanism").unwrap_or_default();
    let known = MECHANISMS.iter().find(|(.., name)| *name == mechanism);
    let (hash, kind, _) = known.ok_or("keys for a mechanism that is not known here were left out")?;
    let text = |name| element.child_text(name, ns::PIE_SCRAM).unwrap_or_default();
    let bytes = |name| STANDARD.decode(text(name).trim()).unwrap_or_default();
    let iterations =
        text("iter-count").trim().parse().ok().filter(|count| (1..=MAX_ITERATIONS).contains(count));
    let (salt, server_key, stored_key) = (bytes("salt"), bytes("server-key"), bytes("stored-key"));
    let sound = (1..=SALT).contains(&salt.len())
        && [&server_key, &stored_key].iter().all(|key| key.len() == kind.size());
    match iterations {
        Some(iterations) if sound => Ok(ScramKeys {
            hash: (*hash).into(),
            iterations,
            salt: salt.into(),
            stored_key: Bytes::from(stored_key),
            server_key: server_key.into(),
        }),
        _ => Err("SCRAM keys that are damaged were left out"),
    }
}

/// Whether there are keys for every mechanism that is offered: without them not every client can log in.
pub(super) fn complete(account: &Account) -> bool {
    MECHANISMS.iter().all(|(hash, ..)| account.keys(*hash).is_some())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn element(mechanism: &str, count: &str, key: usize) -> Element {
        let key = STANDARD.encode(vec![1; key]);
        let xml = format!(
            "<scram-credentials xmlns='urn:xmpp:pie:0#scram' mechanism='{mechanism}'><iter-count>{count}</iter-count>\
             <salt>TmFDbA==</salt><server-key>{key}</server-key><stored-key>\n{key} </stored-key></scram-credentials>"
        );
        Element::parse(xml.as_bytes()).unwrap()
    }

    #[test]
    fn damaged_keys_are_refused() {
        assert!(read(&element("SCRAM-SHA-1", "10000", 20)).is_ok());
        for (mechanism, count, key) in [
            ("SCRAM-SHA-1-PLUS", "10000", 20),
            ("DIGEST-MD5", "10000", 20),
            ("SCRAM-SHA-1", "0", 20),
            ("SCRAM-SHA-1", "-1", 20),
            ("SCRAM-SHA-1", "4294967295", 20),
            ("SCRAM-SHA-256", "10000", 20),
            ("SCRAM-SHA-512", "10000", 0),
        ] {
            assert!(read(&element(mechanism, count, key)).is_err(), "{mechanism} {count} {key}");
        }
    }
}
