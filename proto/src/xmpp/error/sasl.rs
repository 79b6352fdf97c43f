//! SASL failures: RFC 6120 6.5.

use super::{conditions, write_empty, write_text};
use crate::xmpp::ns;

conditions! {
    /// Why an authentication failed (RFC 6120 6.5). What a user could learn from it is the same for a wrong password and for
    /// a user that does not exist: [`SaslFailure::NotAuthorized`].
    SaslFailure {
        /// The client gave up with `<abort/>` (6.5.1).
        Aborted = "aborted",
        /// The account is switched off; only said after the password was right (6.5.2).
        AccountDisabled = "account-disabled",
        /// The credentials have run out (6.5.3).
        CredentialsExpired = "credentials-expired",
        /// The mechanism needs TLS first (6.5.4).
        EncryptionRequired = "encryption-required",
        /// The data is not base64 as RFC 4648 section 4 has it (6.5.5).
        IncorrectEncoding = "incorrect-encoding",
        /// The authorisation identity is not one that this user may act as (6.5.6).
        InvalidAuthzid = "invalid-authzid",
        /// The mechanism was not offered (6.5.7).
        InvalidMechanism = "invalid-mechanism",
        /// The mechanism's own message is wrong (6.5.8).
        MalformedRequest = "malformed-request",
        /// The mechanism is weaker than the server allows for this user (6.5.9).
        MechanismTooWeak = "mechanism-too-weak",
        /// The credentials are wrong, or there is no such user (6.5.10).
        NotAuthorized = "not-authorized",
        /// The server cannot judge now; the client may try later (6.5.11).
        TemporaryAuthFailure = "temporary-auth-failure",
    }
}

impl SaslFailure {
    /// Appends `<failure xmlns='urn:ietf:params:xml:ns:xmpp-sasl'>`, with a text for people if there is one.
    pub fn write(self, text: Option<&str>, out: &mut Vec<u8>) {
        out.extend_from_slice(b"<failure xmlns='");
        out.extend_from_slice(ns::SASL.as_bytes());
        out.extend_from_slice(b"'>");
        write_empty(out, self.name(), ns::SASL);
        if let Some(text) = text {
            write_text(out, ns::SASL, text);
        }
        out.extend_from_slice(b"</failure>");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_lead_back() {
        assert_eq!(SaslFailure::ALL.len(), 11);
        for &failure in SaslFailure::ALL {
            assert_eq!(SaslFailure::from_name(failure.name()), Some(failure));
        }
    }

    #[test]
    fn is_written_with_text() {
        let mut out = Vec::new();
        SaslFailure::NotAuthorized.write(Some("no & no"), &mut out);
        assert_eq!(
            String::from_utf8(out).unwrap(),
            "<failure xmlns='urn:ietf:params:xml:ns:xmpp-sasl'><not-authorized xmlns='urn:ietf:params:xml:ns:xmpp-sasl'/>\
             <text xmlns='urn:ietf:params:xml:ns:xmpp-sasl' xml:lang='en'>no &amp; no</text></failure>"
        );
    }
}
