//! What is done to a password before it is hashed: SASLprep (RFC 4013), as RFC 5802 2.2 asks.
//!
//! RFC 8265 replaced SASLprep by OpaqueString, which keeps compatibility characters apart (`²` and `2`) that SASLprep folds. A
//! SCRAM client prepares its password itself, and those in use do SASLprep; with keys made in another way its user could not log
//! in. So the older rule stays until clients change. Two liberties, neither of which changes a password that RFC 4013 accepts:
//! characters that Unicode 3.2 did not know are let through (emoji), and text of mixed direction is not refused.

use std::borrow::Cow;
use unicode_normalization::UnicodeNormalization;

/// The longest password in bytes, as it came.
pub const PASSWORD_BYTES: usize = 1024;

/// Why a text cannot be a password.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Nothing, or nothing that is left after preparation.
    #[error("the password is empty")]
    Empty,
    /// More than [`PASSWORD_BYTES`].
    #[error("the password is longer than 1024 bytes")]
    TooLong,
    /// A control, private-use or formatting character.
    #[error("the password has a character that is not allowed")]
    Prohibited,
}

/// The prepared form, which the keys are made from.
///
/// # Errors
/// [`Error`]; to a client that logs in all of them are `<not-authorized/>`.
pub fn prepare(password: &str) -> Result<Cow<'_, str>, Error> {
    match password.len() {
        0 => return Err(Error::Empty),
        1..=PASSWORD_BYTES => {}
        _ => return Err(Error::TooLong),
    }
    if password.bytes().all(|b| b == b' ' || b.is_ascii_graphic()) {
        return Ok(Cow::Borrowed(password));
    }
    let prepared: String = password
        .chars()
        .map(|c| if is_wide_space(c) { ' ' } else { c })
        .filter(|c| !is_nothing(*c))
        .nfkc()
        .collect();
    if prepared.is_empty() {
        return Err(Error::Empty);
    }
    if prepared.chars().any(is_prohibited) { Err(Error::Prohibited) } else { Ok(Cow::Owned(prepared)) }
}

/// RFC 3454 table C.1.2.
fn is_wide_space(c: char) -> bool {
    matches!(c, '\u{A0}' | '\u{1680}' | '\u{2000}'..='\u{200B}' | '\u{202F}' | '\u{205F}' | '\u{3000}')
}

/// RFC 3454 table B.1.
fn is_nothing(c: char) -> bool {
    matches!(
        c,
        '\u{AD}'
            | '\u{34F}'
            | '\u{1806}'
            | '\u{180B}'..='\u{180D}'
            | '\u{200C}'
            | '\u{200D}'
            | '\u{2060}'
            | '\u{FE00}'..='\u{FE0F}'
            | '\u{FEFF}'
    )
}

/// RFC 3454 tables C.2.1 to C.9.
fn is_prohibited(c: char) -> bool {
    let cp = u32::from(c);
    c.is_control()
        || (cp & 0xFFFE) == 0xFFFE
        || matches!(
            c,
            '\u{340}'
                | '\u{341}'
                | '\u{6DD}'
                | '\u{70F}'
                | '\u{180E}'
                | '\u{200E}'
                | '\u{200F}'
                | '\u{2028}'..='\u{202E}'
                | '\u{2061}'..='\u{2063}'
                | '\u{206A}'..='\u{206F}'
                | '\u{2FF0}'..='\u{2FFB}'
                | '\u{E000}'..='\u{F8FF}'
                | '\u{FDD0}'..='\u{FDEF}'
                | '\u{FFF9}'..='\u{FFFD}'
                | '\u{1D173}'..='\u{1D17A}'
                | '\u{E0001}'
                | '\u{E0020}'..='\u{E007F}'
                | '\u{F0000}'..='\u{10FFFF}'
        )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn follows_rfc_4013() {
        for (given, prepared) in [
            ("pencil", "pencil"),
            ("I\u{AD}X", "IX"),
            ("user", "user"),
            ("USER", "USER"),
            ("\u{AA}", "a"),
            ("\u{2168}", "IX"),
            ("a\u{3000}b", "a b"),
            ("p\u{200D}w", "pw"),
            ("ｐｗ", "pw"),
            ("u\u{308}", "ü"),
            ("correct 🐴🫠", "correct 🐴🫠"),
        ] {
            assert_eq!(prepare(given).as_deref(), Ok(prepared), "{given:?}");
        }
        for (given, error) in [
            ("", Error::Empty),
            ("\u{AD}", Error::Empty),
            ("a\u{7}b", Error::Prohibited),
            ("a\u{7}ü", Error::Prohibited),
            ("\u{0}", Error::Prohibited),
            ("\u{85}", Error::Prohibited),
            ("\u{E000}", Error::Prohibited),
            ("\u{FFFE}", Error::Prohibited),
            ("\u{1FFFF}", Error::Prohibited),
            ("\u{202E}", Error::Prohibited),
            ("\u{FFFD}", Error::Prohibited),
            ("\u{E0041}", Error::Prohibited),
        ] {
            assert_eq!(prepare(given), Err(error), "{given:?}");
        }
        assert_eq!(prepare(&"x".repeat(1025)), Err(Error::TooLong));
        assert!(prepare(&"x".repeat(1024)).is_ok());
    }
}
