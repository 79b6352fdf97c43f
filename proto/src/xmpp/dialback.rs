//! The elements of server dialback (XEP-0220 version 1.1.1): `<db:result/>` between the two servers of a stream, and
//! `<db:verify/>` between the receiving server and the one that is authoritative for the sender's domain.

use super::{BareJid, Element, Jid, StanzaError, ns};
use crate::xml::escape;

/// Which of the two conversations an element belongs to.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Kind {
    /// `<db:result/>`: may the sender's domain send on this stream?
    Result,
    /// `<db:verify/>`: is this the key that the domain gave for the stream with this id?
    Verify {
        /// The id in the header that the receiving server sent.
        id: String,
    },
}

/// What an element says.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Says {
    /// A request, with the key (XEP-0185).
    Key(String),
    /// The answer `valid`.
    Valid,
    /// The answer `invalid`.
    Invalid,
    /// The answer `error` (section 2.5): not about the key. The stream goes on.
    Error(StanzaError),
}

/// One element of dialback.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Dialback {
    /// Which conversation.
    pub kind: Kind,
    /// The domain of the sender of this element.
    pub from: BareJid,
    /// The domain of the receiver.
    pub to: BareJid,
    /// A request or an answer.
    pub says: Says,
}

/// Why an element in the namespace of dialback is none of its elements. Each ends the stream.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Error {
    /// `from` or `to` is missing, or no bare domain (RFC 6120 section 4.9.3.7).
    #[error("from or to is no domain")]
    Addressing,
    /// Anything else that the schema does not know.
    #[error("no element of dialback")]
    Schema,
}

/// The longest key and id that are taken, bytes: what others make is below 150.
const LONGEST: usize = 1_024;

impl Dialback {
    /// Reads an element of the namespace [`ns::DIALBACK`].
    ///
    /// # Errors
    /// See [`Error`].
    pub fn parse(element: &Element) -> Result<Self, Error> {
        let domain = |name: &str| {
            let jid = Jid::parse(element.attr(name)?).ok()?;
            (jid.local().is_none() && jid.resource().is_none()).then(|| jid.to_bare())
        };
        let kind = match element.name() {
            "result" => Kind::Result,
            "verify" => {
                let id = element.attr("id").filter(|id| !id.is_empty() && id.len() <= LONGEST);
                Kind::Verify { id: id.ok_or(Error::Schema)?.to_owned() }
            }
            _ => return Err(Error::Schema),
        };
        let from = domain("from").ok_or(Error::Addressing)?;
        let to = domain("to").ok_or(Error::Addressing)?;
        let says = match element.attr("type") {
            None => {
                // Line breaks and spaces around the key, as in the examples of section 2, are no part of it.
                let key = element.text().trim().to_owned();
                if key.is_empty() || key.len() > LONGEST {
                    return Err(Error::Schema);
                }
                Says::Key(key)
            }
            Some("valid") => Says::Valid,
            Some("invalid") => Says::Invalid,
            Some("error") => {
                let error = element.children().find(|child| child.name() == "error");
                Says::Error(error.map_or_else(|| StanzaError::parse(element), StanzaError::parse))
            }
            Some(_) => return Err(Error::Schema),
        };
        Ok(Self { kind, from, to, says })
    }

    /// The answer to this request, from its `to` to its `from`.
    #[must_use]
    pub fn answer(&self, says: Says) -> Self {
        Self { kind: self.kind.clone(), from: self.to.clone(), to: self.from.clone(), says }
    }

    /// Appends the element as it stands in a stream whose header is ours ([`Opening`](crate::xml::header::Opening)): the prefix
    /// `db` is bound.
    pub fn write(&self, out: &mut Vec<u8>) {
        let name: &[u8] = match self.kind {
            Kind::Result => b"db:result",
            Kind::Verify { .. } => b"db:verify",
        };
        let attribute = |out: &mut Vec<u8>, name: &str, value: &str| {
            out.push(b' ');
            out.extend_from_slice(name.as_bytes());
            out.extend_from_slice(b"='");
            escape::attribute(out, value);
            out.push(b'\'');
        };
        out.push(b'<');
        out.extend_from_slice(name);
        attribute(out, "from", self.from.as_str());
        attribute(out, "to", self.to.as_str());
        if let Kind::Verify { id } = &self.kind {
            attribute(out, "id", id);
        }
        match &self.says {
            Says::Valid => attribute(out, "type", "valid"),
            Says::Invalid => attribute(out, "type", "invalid"),
            Says::Error(_) => attribute(out, "type", "error"),
            Says::Key(_) => {}
        }
        match &self.says {
            Says::Valid | Says::Invalid => return out.extend_from_slice(b"/>"),
            Says::Key(key) => {
                out.push(b'>');
                escape::text(out, key);
            }
            Says::Error(error) => {
                out.push(b'>');
                error.write(out);
            }
        }
        out.extend_from_slice(b"</");
        out.extend_from_slice(name);
        out.push(b'>');
    }

    /// Whether an element is in the namespace of dialback.
    #[must_use]
    pub fn is(element: &Element) -> bool {
        element.ns() == ns::DIALBACK
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::xml::{Limits, Scope};
    use crate::xmpp::Condition;

    fn parse(text: &str) -> Result<Dialback, Error> {
        Dialback::parse(&Element::parse_in(text.as_bytes(), &Scope::SERVER, &Limits::LOGIN).unwrap())
    }

    fn written(dialback: &Dialback) -> String {
        let mut out = Vec::new();
        dialback.write(&mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn the_examples_of_xep_0220() {
        let key = parse(
            "<db:result from='Capulet.example' to='montague.example'>\n  b4835385f37fe289\n</db:result>",
        );
        let key = key.unwrap();
        assert_eq!(
            (key.from.as_str(), &key.says),
            ("capulet.example", &Says::Key("b4835385f37fe289".into()))
        );
        assert_eq!(
            written(&key.answer(Says::Valid)),
            "<db:result from='montague.example' to='capulet.example' type='valid'/>"
        );
        let verify =
            parse("<db:verify from='a.example' id='417GAF25' to='b.example'>225c</db:verify>").unwrap();
        assert_eq!(verify.kind, Kind::Verify { id: "417GAF25".into() });
        let error = verify.answer(Says::Error(StanzaError::new(Condition::ItemNotFound)));
        assert_eq!(parse(&written(&error)), Ok(error));
        for again in [verify.answer(Says::Invalid), verify, key] {
            assert_eq!(parse(&written(&again)), Ok(again));
        }
    }

    #[test]
    fn what_is_none() {
        for (text, error) in [
            ("<db:result from='a.example'>k</db:result>", Error::Addressing),
            ("<db:result from='a.example' to='u@b.example'>k</db:result>", Error::Addressing),
            ("<db:result from='a.example/r' to='b.example'>k</db:result>", Error::Addressing),
            ("<db:result from='' to='b.example'>k</db:result>", Error::Addressing),
            ("<db:verify from='a.example' to='b.example'>k</db:verify>", Error::Schema),
            ("<db:verify id='' from='a.example' to='b.example'>k</db:verify>", Error::Schema),
            ("<db:result from='a.example' to='b.example'/>", Error::Schema),
            ("<db:result from='a.example' to='b.example' type='maybe'/>", Error::Schema),
            ("<db:other from='a.example' to='b.example'>k</db:other>", Error::Schema),
        ] {
            assert_eq!(parse(text), Err(error), "{text}");
        }
        let long =
            format!("<db:result from='a.example' to='b.example'>{}</db:result>", "k".repeat(LONGEST + 1));
        assert_eq!(parse(&long), Err(Error::Schema));
    }
}
