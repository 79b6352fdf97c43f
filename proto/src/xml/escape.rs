//! Escaping on the way out, reading references on the way in.

use std::borrow::Cow;

use super::chars;

/// Bits of [`CARE`]: the byte needs care in character data, or in an attribute value.
const IN_TEXT: u8 = 1;
const IN_ATTRIBUTE: u8 = 2;

/// Which bytes cannot be copied as they are.
const CARE: [u8; 256] = care();

#[allow(clippy::indexing_slicing, clippy::cast_possible_truncation, reason = "a const loop over all bytes")]
const fn care() -> [u8; 256] {
    let mut table = [0; 256];
    let mut b = 0;
    while b < 256 {
        table[b] = match b as u8 {
            b'&' | b'<' | b'>' | b'\r' | 0xef => IN_TEXT | IN_ATTRIBUTE,
            b'"' | b'\'' | b'\t' | b'\n' => IN_ATTRIBUTE,
            0..0x20 => IN_TEXT | IN_ATTRIBUTE,
            _ => 0,
        };
        b += 1;
    }
    table
}

/// Appends `text` as character data. Characters that XML 1.0 does not know are left out.
pub fn text(out: &mut Vec<u8>, text: &str) {
    escape(out, text, IN_TEXT);
}

/// Appends `value` as it may stand in an attribute between quotes of either kind.
/// Characters that XML 1.0 does not know are left out.
pub fn attribute(out: &mut Vec<u8>, value: &str) {
    escape(out, value, IN_ATTRIBUTE);
}

fn escape(out: &mut Vec<u8>, text: &str, place: u8) {
    let mut rest = text.as_bytes();
    while let Some(at) =
        rest.iter().position(|b| CARE.get(usize::from(*b)).is_some_and(|care| care & place != 0))
    {
        let (plain, tail) = rest.split_at(at);
        out.extend_from_slice(plain);
        let replacement: &[u8] = match tail {
            [b'&', ..] => b"&amp;",
            [b'<', ..] => b"&lt;",
            [b'>', ..] => b"&gt;",
            [b'"', ..] => b"&quot;",
            [b'\'', ..] => b"&apos;",
            // Written as references, else the reader's line-end and attribute rules turn them into other characters.
            [b'\r', ..] => b"&#13;",
            [b'\n', ..] => b"&#10;",
            [b'\t', ..] => b"&#9;",
            [0xef, 0xbf, 0xbe | 0xbf, after @ ..] => {
                rest = after;
                continue;
            }
            [0xef, ..] => &[0xef],
            _ => b"",
        };
        out.extend_from_slice(replacement);
        rest = tail.get(1..).unwrap_or_default();
    }
    out.extend_from_slice(rest);
}

/// The characters that raw character data stands for: references read, line ends made `\n` (XML 1.0 section 2.11).
#[must_use]
pub fn unescape_text(raw: &str) -> Cow<'_, str> {
    if memchr::memchr2(b'&', b'\r', raw.as_bytes()).is_none() {
        return Cow::Borrowed(raw);
    }
    Cow::Owned(unescape(raw, false))
}

/// The characters that a raw attribute value stands for: references read, white space made spaces (section 3.3.3).
#[must_use]
pub fn unescape_attribute(raw: &str) -> Cow<'_, str> {
    if !raw.bytes().any(|b| matches!(b, b'&' | b'\r' | b'\n' | b'\t')) {
        return Cow::Borrowed(raw);
    }
    Cow::Owned(unescape(raw, true))
}

fn unescape(raw: &str, in_attribute: bool) -> String {
    let mut out = String::with_capacity(raw.len());
    let mut rest = raw;
    while let Some(at) = rest.find(['&', '\r', '\n', '\t']) {
        let (plain, tail) = rest.split_at(at);
        out.push_str(plain);
        let mut used = 1;
        match tail.as_bytes().first() {
            Some(b'&') => match reference(tail) {
                Some((c, length)) => {
                    out.push(c);
                    used = length;
                }
                // Only in text that was never checked.
                None => out.push('&'),
            },
            Some(b'\r') => {
                out.push(if in_attribute { ' ' } else { '\n' });
                used += usize::from(tail.as_bytes().get(1) == Some(&b'\n'));
            }
            Some(b'\n') if !in_attribute => out.push('\n'),
            Some(b'\t') if !in_attribute => out.push('\t'),
            _ => out.push(' '),
        }
        rest = tail.get(used..).unwrap_or_default();
    }
    out.push_str(rest);
    out
}

/// The character that the reference at the start of `raw` stands for, and the length of the reference in bytes.
///
/// `None` if it is not one of the five predefined entities, or not a legal character (XML 1.0 section 4.1).
#[must_use]
pub fn reference(raw: &str) -> Option<(char, usize)> {
    let body = raw.strip_prefix('&')?;
    // Longer than any sensible reference: `&#x10FFFF;` with a few leading zeros.
    let end = body.bytes().take(20).position(|b| b == b';')?;
    let name = body.get(..end)?;
    let c = match name {
        "amp" => '&',
        "lt" => '<',
        "gt" => '>',
        "quot" => '"',
        "apos" => '\'',
        _ => {
            let digits = name.strip_prefix('#')?;
            let (digits, radix) = match digits.strip_prefix('x') {
                Some(hex) => (hex, 16),
                None => (digits, 10),
            };
            // `from_str_radix` would take a sign.
            if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_hexdigit()) {
                return None;
            }
            let c = char::from_u32(u32::from_str_radix(digits, radix).ok()?)?;
            chars::is_char(c).then_some(c)?
        }
    };
    Some((c, end + 2))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(f: impl Fn(&mut Vec<u8>, &str), s: &str) -> String {
        let mut out = Vec::new();
        f(&mut out, s);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn escapes() {
        assert_eq!(written(text, "plain ünï"), "plain ünï");
        assert_eq!(written(text, "a<b>&c\r\n\t'\""), "a&lt;b&gt;&amp;c&#13;\n\t'\"");
        assert_eq!(written(attribute, "'\"\n\t<"), "&apos;&quot;&#10;&#9;&lt;");
        assert_eq!(written(text, "x\0\u{1}y\u{fffe}z\u{ffff}\u{fffd}\u{feff}"), "xyz\u{fffd}\u{feff}");
    }

    #[test]
    fn references() {
        assert_eq!(unescape_text("&amp;&lt;&gt;&quot;&apos;&#65;&#x1F642;"), "&<>\"'A🙂");
        assert_eq!(unescape_text("a\r\nb\rc\nd\te"), "a\nb\nc\nd\te");
        assert_eq!(unescape_attribute("a\r\nb\rc\nd\te&#10;"), "a b c d e\n");
        for bad in
            ["&", "&;", "&a", "&nbsp;", "&#;", "&#x;", "&#0;", "&#x1F;", "&#xFFFE;", "&#xD800;", "&#+65;"]
        {
            assert_eq!(reference(bad), None, "{bad}");
        }
        assert_eq!(reference("&#x0000041;x"), Some(('A', 11)));
        assert_eq!(reference("&#x110000;"), None);
        assert_eq!(reference("&#a;"), None);
    }

    proptest::proptest! {
        #[test]
        fn what_is_written_is_read(s: String) {
            let legal: String = s.chars().filter(|c| chars::is_char(*c)).collect();
            let (text, attribute) = (written(text, &s), written(attribute, &s));
            proptest::prop_assert_eq!(unescape_text(&text), legal.as_str());
            proptest::prop_assert_eq!(unescape_attribute(&attribute), legal.as_str());
        }
    }
}
