//! Judging a client's stream header (RFC 6120 section 4.7).

use rookery_proto::xml::header::StreamHeader;
use rookery_proto::xmpp::error::StreamCondition;
use rookery_proto::xmpp::jid::BareJid;

use super::CONTENT;

/// What the stream must agree with.
pub(super) struct Expected<'a> {
    /// Whether a domain is served here.
    pub(super) serves: &'a dyn Fn(&str) -> bool,
    /// The domain of the stream before the restart, once the client has logged in to it.
    pub(super) domain: Option<&'a BareJid>,
    /// The user that the client has proved to be.
    pub(super) user: Option<&'a BareJid>,
}

/// The domain that the stream is for, or the stream error that RFC 6120 names.
pub(super) fn judge(header: &StreamHeader, expected: &Expected<'_>) -> Result<BareJid, StreamCondition> {
    // Section 4.8.2: this is a port for clients.
    if header.content != CONTENT {
        return Err(StreamCondition::InvalidNamespace);
    }
    // Section 4.7.5: a higher version is answered with ours; none, or 0.x, is from before RFC 3920.
    if header.version.is_none_or(|(major, _)| major < 1) {
        return Err(StreamCondition::UnsupportedVersion);
    }
    // Section 4.7.2: the client must name the domain; sections 4.9.3.6 and 4.9.3.7.
    let to = header.to.as_ref().ok_or(StreamCondition::ImproperAddressing)?;
    if to.local().is_some() || to.resource().is_some() || !(expected.serves)(to.domain()) {
        return Err(StreamCondition::HostUnknown);
    }
    let to = to.to_bare();
    if expected.domain.is_some_and(|before| *before != to) {
        return Err(StreamCondition::NotAuthorized);
    }
    // Section 4.9.3.9: `from` is optional, but may not lie.
    if let (Some(user), Some(from)) = (expected.user, &header.from)
        && from.bare_str() != user.as_str()
    {
        return Err(StreamCondition::InvalidFrom);
    }
    Ok(to)
}

#[cfg(test)]
mod tests {
    use rookery_proto::xml::Limits;
    use rookery_proto::xmpp::ns;

    use super::*;

    fn judged(attributes: &str, content: &str, expected: &Expected<'_>) -> Result<BareJid, StreamCondition> {
        let frame = format!("<stream:stream xmlns='{content}' xmlns:stream='{}' {attributes}>", ns::STREAM);
        judge(&StreamHeader::parse(frame.as_bytes(), &Limits::LOGIN, CONTENT).unwrap(), expected)
    }

    #[test]
    fn each_rule_has_its_error() {
        let serves = |domain: &str| ["a.example", "b.example"].contains(&domain);
        let fresh = Expected { serves: &serves, domain: None, user: None };
        let client = |attributes: &str| judged(attributes, ns::CLIENT, &fresh);
        assert_eq!(client("to='A.example' version='1.0'").unwrap().as_str(), "a.example");
        assert!(client("to='a.example' version='2.7'").is_ok());
        assert!(client("to='a.example' from='x@elsewhere.example' version='1.0'").is_ok());
        assert_eq!(client("to='a.example'"), Err(StreamCondition::UnsupportedVersion));
        assert_eq!(client("to='a.example' version='0.9'"), Err(StreamCondition::UnsupportedVersion));
        assert_eq!(client("version='1.0'"), Err(StreamCondition::ImproperAddressing));
        assert_eq!(client("to='c.example' version='1.0'"), Err(StreamCondition::HostUnknown));
        assert_eq!(client("to='x@a.example' version='1.0'"), Err(StreamCondition::HostUnknown));
        let server = judged("to='a.example' version='1.0'", ns::SERVER, &fresh);
        assert_eq!(server, Err(StreamCondition::InvalidNamespace));
        let (domain, user) = (BareJid::parse("a.example").unwrap(), BareJid::parse("x@a.example").unwrap());
        let known = Expected { serves: &serves, domain: Some(&domain), user: Some(&user) };
        let again = |attributes: &str| judged(attributes, ns::CLIENT, &known);
        assert!(again("to='a.example' from='x@a.example' version='1.0'").is_ok());
        assert_eq!(again("to='b.example' version='1.0'"), Err(StreamCondition::NotAuthorized));
        assert_eq!(
            again("to='a.example' from='y@a.example' version='1.0'"),
            Err(StreamCondition::InvalidFrom)
        );
    }
}
