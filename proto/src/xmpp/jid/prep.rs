//! The canonical form of each part of an address.
//!
//! - localpart: PRECIS UsernameCaseMapped (RFC 8265 3.3) without the characters of RFC 7622 3.3.1. Full-width and half-width
//!   forms and letter case fold; what would need a wider fold (ligatures, letter-like symbols) is refused, not guessed.
//! - domainpart: UTS 46 (non-transitional, so `faß.de` stays itself), STD3 host names, A-labels become U-labels, one dot at the
//!   end goes. IPv4, and IPv6 in brackets, are allowed. Names of symbols that UTS 46 allows and IDNA 2008 does not are
//!   accepted: DNS decides.
//! - resourcepart: PRECIS OpaqueString (RFC 8265 4.2).
//!
//! PRECIS's registry knows Unicode 6.3. Newer scripts are refused in localparts, where two spellings of one name would be a
//! danger. In resources, which phones and people fill with emoji, assigned pictographs of newer versions are let through.

use super::{Error, PART_BYTES, Part};
use idna::{
    AsciiDenyList,
    uts46::{Hyphens, Uts46},
};
use precis_profiles::{
    OpaqueString, UsernameCaseMapped,
    precis_core::profile::{PrecisFastInvocation, stabilize},
};
use std::{borrow::Cow, net::Ipv6Addr};
use unicode_normalization::char::is_public_assigned;

/// RFC 7622 3.3.1: what a localpart may not hold although PRECIS would let it.
const fn is_excluded(byte: u8) -> bool {
    matches!(byte, b'"' | b'&' | b'\'' | b'/' | b':' | b'<' | b'>' | b'@')
}

/// Whether a localpart is canonical ASCII already.
pub(super) fn is_plain_local(text: &str) -> bool {
    (1..=PART_BYTES).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_graphic() && !b.is_ascii_uppercase() && !is_excluded(b))
}

/// Whether a domainpart is a canonical host name of ASCII without A-labels.
pub(super) fn is_plain_domain(text: &str) -> bool {
    (1..=253).contains(&text.len())
        && text.split('.').all(|label| {
            (1..=63).contains(&label.len())
                && label.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
                && !label.starts_with('-')
                && !label.ends_with('-')
                && !label.starts_with("xn--")
        })
}

/// Whether a resourcepart is canonical ASCII already: all of it but controls.
pub(super) fn is_plain_resource(text: &str) -> bool {
    (1..=PART_BYTES).contains(&text.len()) && text.bytes().all(|b| b == b' ' || b.is_ascii_graphic())
}

fn measured<'a>(part: Part, text: Cow<'a, str>) -> Result<Cow<'a, str>, Error> {
    match text.len() {
        0 => Err(Error::Empty(part)),
        1..=PART_BYTES => Ok(text),
        _ => Err(Error::TooLong(part)),
    }
}

/// The canonical localpart.
pub(super) fn local(text: &str) -> Result<Cow<'_, str>, Error> {
    if is_plain_local(text) {
        return Ok(Cow::Borrowed(text));
    }
    let part = Part::Local;
    let text = measured(part, Cow::Borrowed(text))?;
    let folded = if text.is_ascii() {
        // PRECIS allows all printable ASCII, so only case is left to fold.
        if !text.bytes().all(|b| b.is_ascii_graphic()) {
            return Err(Error::Illegal(part));
        }
        Cow::Owned(text.to_ascii_lowercase())
    } else {
        // Until nothing changes: case mapping may make a character that normalisation composes further.
        stabilize(text, |t| UsernameCaseMapped::enforce(t)).map_err(|_| Error::Illegal(part))?
    };
    // Afterwards: U+FF20 folds to `@`.
    if folded.bytes().any(is_excluded) {
        return Err(Error::Illegal(part));
    }
    measured(part, folded)
}

/// The canonical domainpart.
pub(super) fn domain(text: &str) -> Result<Cow<'_, str>, Error> {
    if is_plain_domain(text) {
        return Ok(Cow::Borrowed(text));
    }
    let part = Part::Domain;
    let text = measured(part, Cow::Borrowed(text))?;
    if let Some(inner) = text.strip_prefix('[') {
        let inner = inner.strip_suffix(']').ok_or(Error::Illegal(part))?;
        let address: Ipv6Addr = inner.parse().map_err(|_| Error::Illegal(part))?;
        return Ok(Cow::Owned(format!("[{address}]")));
    }
    let (name, verdict) =
        Uts46::new().to_unicode(text.as_bytes(), AsciiDenyList::STD3, Hyphens::CheckFirstLast);
    verdict.map_err(|_| Error::Illegal(part))?;
    // RFC 7622 3.2: the dot of the DNS root is no part of the name. Other dots of Unicode are dots by now.
    let name = name.strip_suffix('.').unwrap_or(&name);
    if name.is_empty() {
        return Err(Error::Empty(part));
    }
    fits_dns(name)?;
    measured(part, Cow::Owned(name.to_owned()))
}

/// Whether the name can be a name in DNS: RFC 5890 counts labels in their ASCII form.
fn fits_dns(name: &str) -> Result<(), Error> {
    let illegal = Error::Illegal(Part::Domain);
    let ascii = Uts46::new()
        .to_ascii(
            name.as_bytes(),
            AsciiDenyList::STD3,
            Hyphens::CheckFirstLast,
            idna::uts46::DnsLength::Ignore,
        )
        .map_err(|_| illegal)?;
    let labels_fit = ascii.split('.').all(|label| (1..=63).contains(&label.len()));
    if !labels_fit {
        return Err(illegal);
    }
    if ascii.len() > 253 { Err(Error::TooLong(Part::Domain)) } else { Ok(()) }
}

/// The canonical resourcepart.
pub(super) fn resource(text: &str) -> Result<Cow<'_, str>, Error> {
    if is_plain_resource(text) {
        return Ok(Cow::Borrowed(text));
    }
    let part = Part::Resource;
    measured(part, Cow::Borrowed(text))?;
    let mut folded = String::with_capacity(text.len());
    // A pictograph takes part in no mapping and no composition, so the text falls into pieces at each.
    for piece in text.split_inclusive(is_new_pictograph) {
        let (words, pictograph) = match piece.chars().next_back() {
            Some(c) if is_new_pictograph(c) => piece.split_at(piece.len() - c.len_utf8()),
            _ => (piece, ""),
        };
        if !words.is_empty() {
            folded.push_str(&OpaqueString::enforce(words).map_err(|_| Error::Illegal(part))?);
        }
        folded.push_str(pictograph);
    }
    measured(part, Cow::Owned(folded))
}

/// Assigned characters of the emoji blocks, old and new.
fn is_new_pictograph(c: char) -> bool {
    matches!(c, '\u{1F300}'..='\u{1F6FF}' | '\u{1F7E0}'..='\u{1F7F0}' | '\u{1F900}'..='\u{1FAFF}')
        && is_public_assigned(c)
}
