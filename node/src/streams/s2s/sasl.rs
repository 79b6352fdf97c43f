//! SASL EXTERNAL between servers (RFC 6120 section 6, XEP-0178 version 1.2): the certificate says it all.

use rookery_proto::sasl::encoding;
use rookery_proto::xmpp::element::Element;
use rookery_proto::xmpp::error::SaslFailure;
use rookery_proto::xmpp::jid::{BareJid, Jid};
use rookery_proto::xmpp::ns;

/// The name of the mechanism.
const EXTERNAL: &str = "EXTERNAL";

/// `<auth/>` for `domain`. The domain goes along since older servers want to see it (XEP-0178 section 3).
pub(super) fn write_auth(domain: &str, out: &mut Vec<u8>) {
    let data = encoding::encode(domain.as_bytes());
    for part in ["<auth xmlns='", ns::SASL, "' mechanism='EXTERNAL'>", &data, "</auth>"] {
        out.extend_from_slice(part.as_bytes());
    }
}

/// Whether features offer it.
pub(super) fn is_offered(features: &Element) -> bool {
    let mechanisms = features.child("mechanisms", ns::SASL);
    mechanisms
        .is_some_and(|all| all.children().any(|m| m.is("mechanism", ns::SASL) && m.text().trim() == EXTERNAL))
}

/// Appends the stream feature.
pub(super) fn write_feature(out: &mut Vec<u8>) {
    for part in ["<mechanisms xmlns='", ns::SASL, "'><mechanism>", EXTERNAL, "</mechanism></mechanisms>"] {
        out.extend_from_slice(part.as_bytes());
    }
}

/// Judges `<auth/>` of a server whose certificate proves `proved`.
///
/// # Errors
/// What to answer.
pub(super) fn judge(auth: &Element, proved: Option<&BareJid>) -> Result<(), SaslFailure> {
    if auth.attr("mechanism") != Some(EXTERNAL) {
        return Err(SaslFailure::InvalidMechanism);
    }
    let proved = proved.ok_or(SaslFailure::NotAuthorized)?;
    let text = auth.text();
    let data = match text.trim() {
        "" | "=" => return Ok(()),
        text => encoding::decode(text)?,
    };
    let authzid = String::from_utf8(data).map_err(|_| SaslFailure::MalformedRequest)?;
    let is = Jid::parse(&authzid).is_ok_and(|jid| jid.as_str() == proved.as_str());
    if is { Ok(()) } else { Err(SaslFailure::InvalidAuthzid) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_identity_is_the_one_that_is_proved_or_none() {
        let proved = BareJid::parse("a.example").unwrap();
        let auth =
            |data: &str| Element::new("auth", ns::SASL).with_attr("mechanism", EXTERNAL).with_text(data);
        let judged = |data: &str| judge(&auth(data), Some(&proved));
        let encoded = |text: &str| encoding::encode(text.as_bytes());
        for good in ["", "=", &encoded("a.example"), &encoded("A.Example")] {
            assert_eq!(judged(good), Ok(()), "{good}");
        }
        for (bad, failure) in [
            (encoded("b.example"), SaslFailure::InvalidAuthzid),
            (encoded("u@a.example"), SaslFailure::InvalidAuthzid),
            ("!".to_owned(), SaslFailure::IncorrectEncoding),
        ] {
            assert_eq!(judged(&bad), Err(failure), "{bad}");
        }
        assert_eq!(judge(&auth("="), None), Err(SaslFailure::NotAuthorized));
        let other = Element::new("auth", ns::SASL).with_attr("mechanism", "PLAIN");
        assert_eq!(judge(&other, Some(&proved)), Err(SaslFailure::InvalidMechanism));
        let mut out = Vec::new();
        write_auth("a.example", &mut out);
        let written = Element::parse(&out).unwrap();
        assert_eq!(judge(&written, Some(&proved)), Ok(()));
        out.clear();
        write_feature(&mut out);
        let features = Element::new("features", ns::STREAM).with_child(Element::parse(&out).unwrap());
        assert!(is_offered(&features) && !is_offered(&Element::new("features", ns::STREAM)));
    }
}
