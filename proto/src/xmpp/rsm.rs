//! Paging: XEP-0059 Result Set Management, version 1.0.

use super::{Condition, Element, StanzaError, ns};
use crate::xml::Writer;

/// The longest id of an item in bytes. No id of ours is longer, so a longer one is of no item.
pub const UID_BYTES: usize = 256;

/// What is wrong with a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// A number that is none.
    #[error("not a number")]
    Number,
    /// An id that can be no item's.
    #[error("an id longer than {UID_BYTES} bytes")]
    Uid,
}

impl From<Error> for StanzaError {
    fn from(error: Error) -> Self {
        let condition = match error {
            Error::Number => Condition::BadRequest,
            // As for every id that does not exist (section 2.2).
            Error::Uid => Condition::ItemNotFound,
        };
        Self::new(condition).text(error.to_string())
    }
}

/// Which page is wanted: `<set/>` of a query.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Request {
    /// The most items to return; 0 asks for the count only (section 2.6). Bound it by your own limit.
    pub max: Option<u32>,
    /// Only items after this one.
    pub after: Option<String>,
    /// Only items before this one, counted from the end; empty = the last page (section 2.5).
    pub before: Option<String>,
    /// The page that starts with this item, counted from 0.
    pub index: Option<u32>,
}

impl Request {
    /// Reads `<set xmlns='http://jabber.org/protocol/rsm'/>`. An `<after/>` that is empty asks for the first page and is dropped.
    ///
    /// # Errors
    /// [`Error`], which is a stanza error too.
    pub fn parse(set: &Element) -> Result<Self, Error> {
        let number = |name| set.child_text(name, ns::RSM).map(|text| number(&text)).transpose();
        let uid = |name| match set.child_text(name, ns::RSM) {
            Some(text) if text.len() > UID_BYTES => Err(Error::Uid),
            text => Ok(text),
        };
        Ok(Self {
            max: number("max")?,
            after: uid("after")?.filter(|text| !text.is_empty()),
            before: uid("before")?,
            index: number("index")?,
        })
    }

    /// Whether the page is counted from the end: there is a `<before/>`.
    #[must_use]
    pub const fn is_backwards(&self) -> bool {
        self.before.is_some()
    }

    /// The number of items to fetch: what was asked for, or `default`, and never more than `most`.
    #[must_use]
    pub fn limit(&self, default: u32, most: u32) -> u32 {
        self.max.unwrap_or(default).min(most)
    }
}

/// Digits only; what is larger than 32 bits is as good as the largest number.
fn number(text: &str) -> Result<u32, Error> {
    let text = text.trim_matches([' ', '\t', '\r', '\n']);
    if text.is_empty() || text.len() > 20 || !text.bytes().all(|b| b.is_ascii_digit()) {
        return Err(Error::Number);
    }
    Ok(text.parse().unwrap_or(u32::MAX))
}

/// What the page holds: `<set/>` of an answer.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Page<'a> {
    /// The ids of the first and of the last item; `None` if the page is empty.
    pub ends: Option<(&'a str, &'a str)>,
    /// The place of the first item in the full set, counted from 0, where that is known.
    pub index: Option<u64>,
    /// The number of items in the full set, where that is known.
    pub count: Option<u64>,
}

impl Page<'_> {
    /// Writes `<set xmlns='http://jabber.org/protocol/rsm'/>`.
    pub fn write(&self, w: &mut Writer<'_>) {
        w.start("set", ns::RSM);
        if let Some((first, last)) = self.ends {
            w.start("first", ns::RSM);
            if let Some(index) = self.index {
                w.attr_display("index", index);
            }
            w.text(first).end();
            w.leaf("last", ns::RSM, last);
        }
        if let Some(count) = self.count {
            w.leaf("count", ns::RSM, &count.to_string());
        }
        w.end();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(inner: &str) -> Result<Request, Error> {
        let xml = format!("<set xmlns='http://jabber.org/protocol/rsm'>{inner}</set>");
        Request::parse(&Element::parse(xml.as_bytes()).unwrap())
    }

    #[test]
    fn reads_requests() {
        assert_eq!(parse(""), Ok(Request::default()));
        let request = parse("<max>10</max><after>x&amp;y</after>").unwrap();
        assert_eq!(
            (request.max, request.after.as_deref(), request.is_backwards()),
            (Some(10), Some("x&y"), false)
        );
        let request = parse("<max>0</max><before/><index>7</index>").unwrap();
        assert_eq!((request.max, request.before.as_deref(), request.index), (Some(0), Some(""), Some(7)));
        assert!(request.is_backwards());
        assert_eq!(parse("<after/>"), Ok(Request::default()));
        assert_eq!(parse("<max xmlns='urn:other'>x</max>"), Ok(Request::default()));
        assert_eq!(parse("<max> 10\n</max>").unwrap().limit(50, 5), 5);
        assert_eq!(parse("<max>99999999999</max>").unwrap().limit(50, 250), 250);
        assert_eq!(parse("").unwrap().limit(50, 250), 50);
    }

    #[test]
    fn refuses_nonsense() {
        for inner in [
            "<max>-1</max>",
            "<max/>",
            "<max>ten</max>",
            "<max>1.5</max>",
            "<index>+1</index>",
            "<max>٣</max>",
        ] {
            assert_eq!(parse(inner), Err(Error::Number), "{inner}");
        }
        let long = format!("<before>{}</before>", "x".repeat(257));
        assert_eq!(parse(&long), Err(Error::Uid));
        assert_eq!(StanzaError::from(Error::Uid).condition, Condition::ItemNotFound);
        assert_eq!(StanzaError::from(Error::Number).condition, Condition::BadRequest);
    }

    #[test]
    fn writes_pages() {
        let written = |page: Page<'_>| {
            let mut out = Vec::new();
            page.write(&mut Writer::new(&mut out));
            String::from_utf8(out).unwrap()
        };
        assert_eq!(
            written(Page { ends: Some(("a<", "z")), index: Some(0), count: Some(2) }),
            "<set xmlns='http://jabber.org/protocol/rsm'><first index='0'>a&lt;</first><last>z</last><count>2</count></set>"
        );
        assert_eq!(written(Page::default()), "<set xmlns='http://jabber.org/protocol/rsm'/>");
    }
}
