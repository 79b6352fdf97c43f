//! The messages that a SCRAM client sends: RFC 5802 section 7, to the letter.

use crate::xmpp::{BareJid, SaslFailure, jid::PART_BYTES};
use base64::{Engine as _, engine::general_purpose::STANDARD};

/// The longest nonce that a client may choose, in bytes.
const NONCE_BYTES: usize = 256;

/// The first letter of the GS2 header: what the client says about channel binding (RFC 5802 6).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Binding<'a> {
    /// `n`: it cannot.
    Unsupported,
    /// `y`: it can, and thinks that the server cannot.
    NotOffered,
    /// `p=`: it does, with the binding of this name.
    Required(&'a str),
}

/// The client's first message, taken apart.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct ClientFirst<'a> {
    pub(super) binding: Binding<'a>,
    /// The user that the client wants to act as; `None` = as itself.
    pub(super) authzid: Option<String>,
    pub(super) user: String,
    pub(super) nonce: &'a str,
    /// The GS2 header with its last comma, which comes again in the last message.
    pub(super) header: &'a str,
    /// The rest of the message, which is signed.
    pub(super) bare: &'a str,
}

/// The client's last message, taken apart.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct ClientFinal<'a> {
    /// The GS2 header again, with the data of the channel binding behind it.
    pub(super) binding: Vec<u8>,
    pub(super) nonce: &'a str,
    pub(super) proof: Vec<u8>,
    /// All of the message but the proof, which is signed.
    pub(super) without_proof: &'a str,
}

const MALFORMED: SaslFailure = SaslFailure::MalformedRequest;

/// `name=value` with exactly this name.
fn attribute(field: Option<&str>, name: char) -> Result<&str, SaslFailure> {
    field.and_then(|f| f.strip_prefix(name)).and_then(|f| f.strip_prefix('=')).ok_or(MALFORMED)
}

/// Further attributes: a letter, `=`, a value that is not empty. All of them are optional and ignored (RFC 5802 5.1).
fn extensions<'a>(fields: impl Iterator<Item = &'a str>) -> Result<(), SaslFailure> {
    for field in fields {
        let value = field.strip_prefix(|c: char| c.is_ascii_alphabetic()).and_then(|f| f.strip_prefix('='));
        if value.is_none_or(str::is_empty) {
            return Err(MALFORMED);
        }
    }
    Ok(())
}

/// Undoes the escapes of `saslname`: `=2C` and `=3D`, no other.
fn saslname(text: &str) -> Result<String, SaslFailure> {
    if text.is_empty() || text.len() > 3 * PART_BYTES {
        return Err(MALFORMED);
    }
    let mut parts = text.split('=');
    let mut name = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let (c, rest) = match (part.strip_prefix("2C"), part.strip_prefix("3D")) {
            (Some(rest), _) => (',', rest),
            (_, Some(rest)) => ('=', rest),
            _ => return Err(MALFORMED),
        };
        name.push(c);
        name.push_str(rest);
    }
    Ok(name)
}

fn is_nonce(text: &str) -> bool {
    (1..=NONCE_BYTES).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_graphic() && b != b',')
}

fn utf8(data: &[u8]) -> Result<&str, SaslFailure> {
    let text = std::str::from_utf8(data).map_err(|_| MALFORMED)?;
    if text.contains('\0') { Err(MALFORMED) } else { Ok(text) }
}

impl<'a> ClientFirst<'a> {
    /// Reads `gs2-cbind-flag , [a=authzid] , n=user , r=nonce [, extensions]`.
    ///
    /// A mandatory extension (`m=`) is refused: none is known (RFC 5802 5.1).
    pub(super) fn parse(data: &'a [u8]) -> Result<Self, SaslFailure> {
        let text = utf8(data)?;
        let mut gs2 = text.splitn(3, ',');
        let (Some(flag), Some(authzid), Some(bare)) = (gs2.next(), gs2.next(), gs2.next()) else {
            return Err(MALFORMED);
        };
        let binding = match flag {
            "n" => Binding::Unsupported,
            "y" => Binding::NotOffered,
            _ => Binding::Required(cb_name(attribute(Some(flag), 'p')?)?),
        };
        let authzid = match authzid {
            "" => None,
            _ => Some(saslname(attribute(Some(authzid), 'a')?)?),
        };
        let mut fields = bare.split(',');
        let user = saslname(attribute(fields.next(), 'n')?)?;
        let nonce = attribute(fields.next(), 'r')?;
        if !is_nonce(nonce) {
            return Err(MALFORMED);
        }
        extensions(fields)?;
        let header = text.get(..text.len() - bare.len()).unwrap_or_default();
        Ok(Self { binding, authzid, user, nonce, header, bare })
    }
}

fn cb_name(name: &str) -> Result<&str, SaslFailure> {
    let fits = !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'.' || b == b'-');
    if fits { Ok(name) } else { Err(MALFORMED) }
}

impl<'a> ClientFinal<'a> {
    /// Reads `c=binding , r=nonce [, extensions] , p=proof`.
    pub(super) fn parse(data: &'a [u8]) -> Result<Self, SaslFailure> {
        let text = utf8(data)?;
        let (without_proof, proof) = text.rsplit_once(",p=").ok_or(MALFORMED)?;
        let mut fields = without_proof.split(',');
        let binding = attribute(fields.next(), 'c')?;
        let nonce = attribute(fields.next(), 'r')?;
        extensions(fields)?;
        let decode = |text: &str| STANDARD.decode(text).map_err(|_| MALFORMED);
        Ok(Self { binding: decode(binding)?, nonce, proof: decode(proof)?, without_proof })
    }
}

/// The user that authenticates as `authcid`, a simple name (RFC 6120 6.3.7), and may act as nobody else (6.3.8).
pub(super) fn identify(
    authcid: &str,
    authzid: Option<&str>,
    domain: &BareJid,
) -> Result<BareJid, SaslFailure> {
    // A name that no user can have is refused at once: that says nothing about which users exist.
    let user = BareJid::new(Some(authcid), domain.domain()).map_err(|_| SaslFailure::NotAuthorized)?;
    match authzid {
        Some(other) if BareJid::parse(other).ok().as_ref() != Some(&user) => Err(SaslFailure::InvalidAuthzid),
        _ => Ok(user),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_first_messages() {
        let first = ClientFirst::parse(b"n,,n=user,r=fyko").unwrap();
        assert_eq!((first.header, first.bare, first.nonce), ("n,,", "n=user,r=fyko", "fyko"));
        let first =
            ClientFirst::parse("p=tls-exporter,a=a=2Cb=3D@c,n=ü=3D=2C,r=x,z=1,q=ü=".as_bytes()).unwrap();
        assert_eq!(first.binding, Binding::Required("tls-exporter"));
        assert_eq!((first.authzid.as_deref(), first.user.as_str()), (Some("a,b=@c"), "ü=,"));
        assert_eq!(first.header, "p=tls-exporter,a=a=2Cb=3D@c,");
        assert_eq!(ClientFirst::parse(b"y,,n=u,r=x").unwrap().binding, Binding::NotOffered);
    }

    #[test]
    fn refuses_other_first_messages() {
        let long = format!("n,,n=user,r={}", "x".repeat(257));
        for bad in [
            "",
            "n",
            "n,",
            "n,,",
            ",,n=user,r=x",
            "x,,n=user,r=x",
            "N,,n=user,r=x",
            "p,,n=user,r=x",
            "p=,,n=user,r=x",
            "p=tls unique,,n=user,r=x",
            "n,b=x,n=user,r=x",
            "n,a=,n=user,r=x",
            "n,user,n=user,r=x",
            "n,,r=x,n=user",
            "n,,n=,r=x",
            "n,,n=user",
            "n,,n=user,",
            "n,,n=user,r=",
            "n,,n=user,r= x",
            "n,,n=user,r=ü",
            "n,,m=ext,n=user,r=x",
            "n,,n=us=er,r=x",
            "n,,n=us=2cer,r=x",
            "n,,n=user=,r=x",
            "n,,n=us\0er,r=x",
            "n,,n=user,r=x,",
            "n,,n=user,r=x,z=",
            "n,,n=user,r=x,zz=1",
            "n,,n=user,r=x,z",
            &long,
        ] {
            assert_eq!(ClientFirst::parse(bad.as_bytes()), Err(MALFORMED), "{bad:?}");
        }
        assert_eq!(ClientFirst::parse(b"n,,n=\xff,r=x"), Err(MALFORMED));
    }

    #[test]
    fn reads_last_messages() {
        let last = ClientFinal::parse(b"c=biws,r=abc,x=1,p=YQ==").unwrap();
        assert_eq!((last.binding.as_slice(), last.nonce), (&b"n,,"[..], "abc"));
        assert_eq!((last.proof.as_slice(), last.without_proof), (&b"a"[..], "c=biws,r=abc,x=1"));
        for bad in [
            "",
            "c=biws,r=abc",
            "c=biws,p=YQ==",
            "r=abc,c=biws,p=YQ==",
            "c=biws,r=abc,p=YQ",
            "c=biws,r=abc,p=YQ==,x=1",
            "c=biw,r=abc,p=YQ==",
            "c=biws,r=abc,,p=YQ==",
            "c=biws,r=abc,p= YQ==",
            "p=YQ==",
        ] {
            assert_eq!(ClientFinal::parse(bad.as_bytes()), Err(MALFORMED), "{bad:?}");
        }
    }

    #[test]
    fn identifies_only_oneself() {
        let domain = BareJid::parse("example.net").unwrap();
        let user = Ok(BareJid::parse("romeo@example.net").unwrap());
        assert_eq!(identify("Romeo", None, &domain), user);
        assert_eq!(identify("romeo", Some("ROMEO@example.net"), &domain), user);
        for other in ["juliet@example.net", "romeo@example.org", "romeo", "romeo@example.net/r", "@"] {
            assert_eq!(identify("romeo", Some(other), &domain), Err(SaslFailure::InvalidAuthzid), "{other}");
        }
        for nobody in ["romeo@example.net", "a b", "", "a/b"] {
            assert_eq!(identify(nobody, None, &domain), Err(SaslFailure::NotAuthorized), "{nobody}");
        }
    }
}
