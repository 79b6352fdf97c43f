//! The character classes of XML 1.0 (fifth edition) and Namespaces in XML 1.0.

/// Whether XML 1.0 allows the character in a document at all (production 2, `Char`).
#[must_use]
pub fn is_char(c: char) -> bool {
    matches!(c, '\t' | '\n' | '\r' | ' '..='\u{d7ff}' | '\u{e000}'..='\u{fffd}' | '\u{10000}'..)
}

/// Whether all characters of the text are allowed in XML 1.0.
#[must_use]
pub fn all_chars(text: &str) -> bool {
    // One branch-free pass that the compiler turns into vector code, then the rare three-byte U+FFFE and U+FFFF.
    let bytes = text.as_bytes();
    let (mut control, mut high) = (0_u8, 0_u8);
    for &b in bytes {
        control |= u8::from(b < 0x20) & u8::from(b != b'\t') & u8::from(b != b'\n') & u8::from(b != b'\r');
        high |= u8::from(b == 0xef);
    }
    control == 0 && (high == 0 || !bytes.windows(3).any(|w| matches!(w, [0xef, 0xbf, 0xbe | 0xbf])))
}

/// Whether two short texts are equal. Names and prefixes are a few bytes, often none, and the comparison of the C
/// library cost 40 % of a stanza's check; so bytes are compared here, and the same place in memory not at all.
#[inline]
#[must_use]
pub(crate) fn same(a: &str, b: &str) -> bool {
    a.len() == b.len() && (std::ptr::eq(a, b) || a.bytes().zip(b.bytes()).all(|(a, b)| a == b))
}

/// Whether the byte is XML white space (production 3, `S`).
#[must_use]
pub const fn is_space(b: u8) -> bool {
    matches!(b, b' ' | b'\t' | b'\r' | b'\n')
}

/// Whether the character may start a name without a colon (Namespaces in XML, production 4).
#[must_use]
pub fn is_name_start(c: char) -> bool {
    matches!(c, 'A'..='Z' | '_' | 'a'..='z'
        | '\u{c0}'..='\u{d6}' | '\u{d8}'..='\u{f6}' | '\u{f8}'..='\u{2ff}' | '\u{370}'..='\u{37d}'
        | '\u{37f}'..='\u{1fff}' | '\u{200c}'..='\u{200d}' | '\u{2070}'..='\u{218f}' | '\u{2c00}'..='\u{2fef}'
        | '\u{3001}'..='\u{d7ff}' | '\u{f900}'..='\u{fdcf}' | '\u{fdf0}'..='\u{fffd}' | '\u{10000}'..='\u{effff}')
}

/// Whether the character may stand inside a name without a colon.
#[must_use]
pub fn is_name(c: char) -> bool {
    is_name_start(c)
        || matches!(c, '-' | '.' | '0'..='9' | '\u{b7}' | '\u{300}'..='\u{36f}' | '\u{203f}'..='\u{2040}')
}

/// Whether the text is a name without a colon (`NCName`).
#[must_use]
pub fn is_nc_name(text: &str) -> bool {
    let mut chars = text.chars();
    chars.next().is_some_and(is_name_start) && chars.all(is_name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn characters_of_xml() {
        assert!(all_chars("tab\t, line\r\n, nbsp\u{a0}, del\u{7f}, face 🙂, \u{fffd}, \u{feff}, \u{10ffff}"));
        for bad in ["\0", "a\u{1}", "\u{b}x", "\u{1f}", "x\u{fffe}", "\u{ffff}y"] {
            assert!(!all_chars(bad), "{bad:?}");
            assert!(!bad.chars().all(is_char));
        }
    }

    #[test]
    fn names() {
        for good in ["a", "_x", "stream", "é", "b-1.2", "日本"] {
            assert!(is_nc_name(good), "{good}");
        }
        for bad in ["", "1a", "-a", ".a", "a:b", "a b", "×", "a\u{37e}", "\u{300}a"] {
            assert!(!is_nc_name(bad), "{bad}");
        }
    }
}
