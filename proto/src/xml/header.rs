//! Stream headers (RFC 6120 section 4.7 and 4.8).

use super::{
    Error, Limits, Scope, Text,
    check::{self, Shape, Start, Visitor},
    escape,
};
use crate::xmpp::{jid::Jid, ns};

/// The opening tag of a peer's stream.
#[derive(Clone, Debug)]
pub struct StreamHeader {
    /// The domain that the peer wants to talk to.
    pub to: Option<Jid>,
    /// The address that the peer says it has.
    pub from: Option<Jid>,
    /// The stream's id, which only a receiving entity gives.
    pub id: Option<Text>,
    /// Major and minor number; none means a stream from before RFC 3920.
    pub version: Option<(u16, u16)>,
    /// The language for text meant for human eyes; what is no language tag is passed over.
    pub lang: Option<Text>,
    /// The content namespace: the expected one, else `jabber:client` or `jabber:server`. The receiver judges whether this is
    /// a stream for it (RFC 6120 section 4.8.2).
    pub content: &'static str,
    /// What the header declared, to read the rest of the stream with.
    pub scope: Scope,
}

impl StreamHeader {
    /// Reads the frame that the framer called `Open`, of a stream whose content should be in `expected`: `jabber:client`,
    /// `jabber:server` or `jabber:component:accept`. Any prefix may stand for the namespace of streams, and the content
    /// namespace may be the default or have a prefix (RFC 6120 section 4.8).
    ///
    /// # Errors
    /// What [`check::element`] refuses; `Namespace` if it is no XMPP stream; `Addressing` for an address that is
    /// not a JID; `Version` for a version that is not `number.number`.
    pub fn parse(frame: &[u8], limits: &Limits, expected: &'static str) -> Result<Self, Error> {
        let mut reading = Reading { header: Self::empty(expected), declared: Vec::new(), problem: None };
        check::walk(check::text(frame, limits)?, Shape::Open, &Scope::NOTHING, limits, &mut reading)?;
        let Reading { mut header, declared, problem } = reading;
        // Of a peer that came to the wrong port it is known what it wanted.
        let known = [expected, ns::CLIENT, ns::SERVER];
        let default = declared.iter().find(|(prefix, _)| prefix.is_empty()).map(|(_, uri)| uri.as_str());
        let bound = |uri: &str| declared.iter().any(|(_, bound)| bound == uri);
        let content = known.into_iter().find(|uri| default == Some(*uri));
        header.content =
            content.or_else(|| known.into_iter().find(|uri| bound(uri))).ok_or(Error::Namespace)?;
        header.scope = Scope::new(header.content, declared);
        match problem {
            Some(problem) => Err(problem),
            None => Ok(header),
        }
    }

    fn empty(content: &'static str) -> Self {
        let scope = Scope::NOTHING;
        Self { to: None, from: None, id: None, version: None, lang: None, content, scope }
    }
}

struct Reading {
    header: StreamHeader,
    declared: Vec<(Text, Text)>,
    problem: Option<Error>,
}

impl<'a> Visitor<'a> for Reading {
    fn start(&mut self, tag: &Start<'a, '_>) -> Result<(), Error> {
        if tag.local != "stream" || tag.ns.uri != ns::STREAM {
            return Err(Error::Namespace);
        }
        for attribute in tag.attributes {
            let value = attribute.value();
            if let Some(prefix) = attribute.declares() {
                self.declared.push((Text::from(prefix), Text::from(value)));
                continue;
            }
            match (attribute.name.prefix, attribute.name.local) {
                ("", "to") => self.header.to = self.jid(&value),
                ("", "from") => self.header.from = self.jid(&value),
                ("", "id") => self.header.id = Some(value.into()),
                ("", "version") => match version(&value) {
                    None => self.problem = Some(Error::Version),
                    version => self.header.version = version,
                },
                ("xml", "lang") => self.header.lang = is_language(&value).then(|| value.into()),
                _ => {}
            }
        }
        Ok(())
    }

    fn end(&mut self, _: i32, _: usize, _: usize) {}
}

impl Reading {
    fn jid(&mut self, value: &str) -> Option<Jid> {
        let jid = Jid::parse(value).ok();
        if jid.is_none() {
            self.problem = Some(Error::Addressing);
        }
        jid
    }
}

/// The longest language tag that is taken. RFC 5646 section 4.4.1 wants room for 35; every stanza repeats it.
const LANGUAGE: usize = 64;

/// Whether it has the form of a language tag (RFC 5646 section 2.1): letters and digits in parts of at most eight.
fn is_language(tag: &str) -> bool {
    let part = |part: &str| (1..=8).contains(&part.len()) && part.bytes().all(|b| b.is_ascii_alphanumeric());
    tag.len() <= LANGUAGE && tag.split('-').all(part)
}

fn version(text: &str) -> Option<(u16, u16)> {
    let number = |digits: &str| {
        (!digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit())).then(|| digits.parse().ok())?
    };
    let (major, minor) = text.split_once('.')?;
    Some((number(major)?, number(minor)?))
}

/// Our own header.
#[derive(Clone, Copy, Debug)]
pub struct Opening<'a> {
    /// The content namespace, as in [`StreamHeader::parse`].
    pub content: &'static str,
    /// Our domain.
    pub from: Option<&'a str>,
    /// The peer's address, if it gave one.
    pub to: Option<&'a str>,
    /// The stream's id.
    pub id: Option<&'a str>,
    /// The language of what we say ourselves.
    pub lang: Option<&'a str>,
}

impl Opening<'_> {
    /// Appends the declaration and the opening tag, with `version='1.0'`. A stream between servers also declares the namespace
    /// of dialback (XEP-0220 section 2.4.1). A component's has no version (XEP-0114 section 3), which would promise stream features.
    pub fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(b"<?xml version='1.0'?><stream:stream xmlns='");
        out.extend_from_slice(self.content.as_bytes());
        out.extend_from_slice(b"' xmlns:stream='");
        out.extend_from_slice(ns::STREAM.as_bytes());
        if self.content == ns::SERVER {
            out.extend_from_slice(b"' xmlns:db='");
            out.extend_from_slice(ns::DIALBACK.as_bytes());
        }
        out.extend_from_slice(if self.content == ns::COMPONENT_ACCEPT { b"'" } else { b"' version='1.0'" });
        let attributes =
            [(" from='", self.from), (" to='", self.to), (" id='", self.id), (" xml:lang='", self.lang)];
        for (name, value) in attributes {
            if let Some(value) = value {
                out.extend_from_slice(name.as_bytes());
                escape::attribute(out, value);
                out.push(b'\'');
            }
        }
        out.push(b'>');
    }
}

/// What closes a stream that [`Opening::write`] opened.
pub const CLOSE: &[u8] = b"</stream:stream>";

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(frame: &str) -> Result<StreamHeader, Error> {
        StreamHeader::parse(frame.as_bytes(), &Limits::LOGIN, ns::CLIENT)
    }

    #[test]
    fn the_usual_header() {
        let header = parse(
            "<stream:stream xmlns='jabber:client' xmlns:stream='http://etherx.jabber.org/streams' \
             to='example.org' from='romeo@example.org' version='1.0' xml:lang='de'>",
        )
        .unwrap();
        assert_eq!(header.to.unwrap().as_str(), "example.org");
        assert_eq!(header.from.unwrap().as_str(), "romeo@example.org");
        assert_eq!(header.version, Some((1, 0)));
        assert_eq!(header.lang.unwrap(), "de");
        assert_eq!(header.scope, Scope::CLIENT);
        assert!(header.id.is_none());
    }

    #[test]
    fn what_is_no_language_is_no_language() {
        const NS: &str = "xmlns='jabber:client' xmlns:s='http://etherx.jabber.org/streams'";
        let lang = |tag: &str| parse(&format!("<s:stream {NS} xml:lang='{tag}'>")).unwrap().lang;
        for tag in [
            "de",
            "zh-Hant-TW",
            "sl-rozaj-biske-1994",
            "x-klingon",
            "en-a-myext-b-another-c-andsoon-x-private",
        ] {
            assert_eq!(lang(tag).as_deref(), Some(tag));
        }
        let long = ["de", &"-abcdefgh".repeat(7)].concat();
        for tag in ["", "de_DE", "a b", "abcdefghi", "de-", "ünder", &long, &"x".repeat(5_000)] {
            assert_eq!(lang(tag), None, "{tag}");
        }
    }

    #[test]
    fn other_prefixes_mean_the_same() {
        let header =
            parse("<stream xmlns='http://etherx.jabber.org/streams' xmlns:c='jabber:client' version='1.0'>")
                .unwrap();
        assert_eq!(header.content, ns::CLIENT);
        assert_eq!(header.scope.lookup("c"), Some(ns::CLIENT));
        assert_eq!(header.scope.lookup(""), Some(ns::STREAM));
        let header =
            parse("<s:stream xmlns='jabber:server' xmlns:s='http://etherx.jabber.org/streams'>").unwrap();
        assert_eq!((header.content, header.version), (ns::SERVER, None));
    }

    #[test]
    fn the_expected_namespace_goes_first() {
        const COMPONENT: &str = "jabber:component:accept";
        let read = |declared: &str, expected| {
            let frame = format!("<s:stream {declared} xmlns:s='http://etherx.jabber.org/streams'>");
            StreamHeader::parse(frame.as_bytes(), &Limits::LOGIN, expected).map(|header| header.content)
        };
        let accept = "xmlns='jabber:component:accept'";
        assert_eq!(read(accept, COMPONENT), Ok(COMPONENT));
        assert_eq!(read(accept, ns::CLIENT), Err(Error::Namespace));
        let both = "xmlns:a='jabber:client' xmlns:b='jabber:server'";
        assert_eq!((read(both, ns::CLIENT), read(both, ns::SERVER)), (Ok(ns::CLIENT), Ok(ns::SERVER)));
        // The default says what it is; the receiver judges.
        assert_eq!(read("xmlns='jabber:client' xmlns:b='jabber:server'", ns::SERVER), Ok(ns::CLIENT));
    }

    #[test]
    fn refused() {
        const NS: &str = "xmlns='jabber:client' xmlns:s='http://etherx.jabber.org/streams'";
        for (header, error) in [
            ("<stream xmlns='jabber:client'>".to_owned(), Error::Namespace),
            ("<s:stream xmlns:s='jabber:client'>".to_owned(), Error::Namespace),
            ("<s:stream xmlns='x' xmlns:s='http://etherx.jabber.org/streams'>".to_owned(), Error::Namespace),
            ("<stream:stream xmlns='jabber:client'>".to_owned(), Error::UnboundPrefix),
            (format!("<s:steam {NS}>"), Error::Namespace),
            (format!("<s:stream {NS} to='@'>"), Error::Addressing),
            (format!("<s:stream {NS} version='1'>"), Error::Version),
            (format!("<s:stream {NS} version='+1.0'>"), Error::Version),
            (format!("<s:stream {NS} version='99999.0'>"), Error::Version),
        ] {
            assert_eq!(parse(&header).err(), Some(error), "{header}");
        }
        assert!(matches!(parse(&format!("<s:stream {NS}/>")), Err(Error::NotWellFormed(_))));
        assert!(matches!(parse(&format!("<s:stream {NS}> ")), Err(Error::NotWellFormed(_))));
    }

    #[test]
    fn ours_is_read_back() {
        let mut out = Vec::new();
        let content = ns::CLIENT;
        Opening { content, from: Some("example.org"), to: None, id: Some("a'b"), lang: Some("en") }
            .write(&mut out);
        let text = String::from_utf8(out).unwrap();
        let (declaration, open) = text.split_at(text.find("<stream").unwrap());
        check::declaration(declaration.as_bytes()).unwrap();
        let header = parse(open).unwrap();
        assert_eq!((header.id.unwrap().as_str(), header.lang.unwrap().as_str()), ("a'b", "en"));
    }

    #[test]
    fn between_servers_dialback_is_declared() {
        let mut out = Vec::new();
        Opening { content: ns::SERVER, from: Some("a.example"), to: Some("b.example"), id: None, lang: None }
            .write(&mut out);
        let text = String::from_utf8(out).unwrap();
        let open = &text[text.find("<stream").unwrap()..];
        let header = StreamHeader::parse(open.as_bytes(), &Limits::LOGIN, ns::SERVER).unwrap();
        assert_eq!((header.content, &header.scope), (ns::SERVER, &Scope::SERVER));
        assert!(header.scope.declares(ns::DIALBACK) && header.scope.lookup("db") == Some(ns::DIALBACK));
        // With another prefix it is another scope, and the same namespace; without, there is none.
        let open = |db: &str| {
            let text = format!("<stream:stream xmlns='jabber:server' xmlns:stream='{}'{db}>", ns::STREAM);
            StreamHeader::parse(text.as_bytes(), &Limits::LOGIN, ns::SERVER).unwrap().scope
        };
        assert!(open(" xmlns:d='jabber:server:dialback'").declares(ns::DIALBACK));
        assert!(!open("").declares(ns::DIALBACK) && !open(" xmlns:db='other'").declares(ns::DIALBACK));
    }
}
