//! Judges one complete frame: everything that XML 1.0, Namespaces in XML 1.0 and RFC 6120 section 11 forbid.
//!
//! One pass by hand, since it runs for every stanza: a 315-byte message costs well under a microsecond. Code that needs
//! more than a yes (the index of a stanza's children, a stream header) listens to the pass as a [`Visitor`].

mod namespaces;
mod tag;
mod walk;

#[cfg(test)]
mod tests;

pub(crate) use self::{
    tag::{Attribute, after_tag, attribute},
    walk::{Shape, Start, Visitor, walk},
};
use super::{Error, Limits, Scope, chars};

/// Accepts one element with everything in it, and nothing before or behind it.
///
/// # Errors
/// The first violation found.
pub fn element(frame: &[u8], scope: &Scope, limits: &Limits) -> Result<(), Error> {
    walk(text(frame, limits)?, Shape::Element, scope, limits, &mut ())
}

/// Accepts any number of elements side by side, with text between them: the inside of a stanza.
///
/// # Errors
/// The first violation found.
pub fn fragment(frame: &[u8], scope: &Scope, limits: &Limits) -> Result<(), Error> {
    walk(text(frame, limits)?, Shape::Fragment, scope, limits, &mut ())
}

/// The checks that need no structure: size, UTF-8, characters.
pub(crate) fn text<'a>(frame: &'a [u8], limits: &Limits) -> Result<&'a str, Error> {
    if frame.len() > usize::try_from(limits.stanza_bytes).unwrap_or(usize::MAX) {
        return Err(Error::TooLarge(limits.stanza_bytes));
    }
    let text = std::str::from_utf8(frame).map_err(|_| Error::Encoding)?;
    if !chars::all_chars(text) {
        return Err(Error::NotWellFormed("illegal character"));
    }
    Ok(text)
}

/// Accepts an XML declaration: version 1.0, UTF-8 or no encoding named, `standalone` either way
/// (XML 1.0 section 2.8, RFC 6120 section 11.5).
///
/// # Errors
/// `Restricted` for a processing instruction, `Encoding` for another encoding, else `NotWellFormed`.
pub fn declaration(frame: &[u8]) -> Result<(), Error> {
    const BROKEN: Error = Error::NotWellFormed("XML declaration");
    let text = std::str::from_utf8(frame).map_err(|_| Error::Encoding)?;
    let body = text.strip_prefix("<?").and_then(|t| t.strip_suffix("?>")).ok_or(BROKEN)?;
    let body = body.strip_prefix("xml").filter(|b| b.bytes().next().is_some_and(chars::is_space));
    let mut rest = body.ok_or(Error::Restricted("processing instruction"))?;
    // Each part only after those that the grammar puts before it.
    let mut parts = ["version", "encoding", "standalone"].iter();
    let mut first = true;
    loop {
        let trimmed = rest.trim_start_matches([' ', '\t', '\r', '\n']);
        if trimmed.is_empty() {
            return if first { Err(BROKEN) } else { Ok(()) };
        }
        if trimmed.len() == rest.len() {
            return Err(BROKEN);
        }
        let (name, value, after) = pseudo_attribute(trimmed).ok_or(BROKEN)?;
        let part = parts.find(|part| **part == name).ok_or(BROKEN)?;
        match *part {
            "version" if value != "1.0" => return Err(Error::NotWellFormed("XML version is not 1.0")),
            "version" => {}
            _ if first => return Err(BROKEN),
            "encoding" if !value.eq_ignore_ascii_case("utf-8") => return Err(Error::Encoding),
            "standalone" if !matches!(value, "yes" | "no") => return Err(BROKEN),
            _ => {}
        }
        first = false;
        rest = after;
    }
}

/// Splits `name = 'value'` off the front.
fn pseudo_attribute(text: &str) -> Option<(&str, &str, &str)> {
    const SPACE: [char; 4] = [' ', '\t', '\r', '\n'];
    let (name, rest) = text.split_once('=')?;
    let rest = rest.trim_start_matches(SPACE);
    let quote = rest.chars().next().filter(|c| matches!(c, '"' | '\''))?;
    let (value, after) = rest.get(1..)?.split_once(quote)?;
    Some((name.trim_end_matches(SPACE), value, after))
}
