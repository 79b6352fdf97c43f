//! Passwords on their way from an operator to a node: read from a file or standard input, or generated. Never from the
//! command line's arguments, which every user of the machine can read; there is no such option.

use std::fmt;
use std::io::Read;

/// The longest password, in bytes. RFC 5802 sets no limit; key stretching of a longer one serves nobody.
pub const MAX_BYTES: usize = 1024;

/// 32 symbols, 5 bits each, without those that look alike (`l`, `o`, `0`, `1`).
const ALPHABET: &[u8; 32] = b"abcdefghijkmnpqrstuvwxyz23456789";

/// A password in clear. Its `Debug` prints nothing of it.
#[derive(Clone, PartialEq, Eq)]
pub struct Password(String);

/// Why a text is not taken as a password.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Nothing was given.
    #[error("the password is empty")]
    Empty,
    /// More than [`MAX_BYTES`].
    #[error("the password is longer than {MAX_BYTES} bytes")]
    TooLong,
    /// A line break or another control character.
    #[error("the password holds a line break or another control character; give it on one line")]
    Control,
    /// Not UTF-8.
    #[error("the password is not valid UTF-8")]
    Encoding,
    /// The file or standard input could not be read.
    #[error("the password could not be read: {0}")]
    Read(#[from] std::io::Error),
}

impl Password {
    /// Takes `text` as a password.
    ///
    /// # Errors
    /// [`Error::Empty`], [`Error::TooLong`] or [`Error::Control`]. What else a password may hold is decided by
    /// SASLprep (RFC 4013) where keys are made from it.
    pub fn new(text: impl Into<String>) -> Result<Self, Error> {
        let text = text.into();
        if text.is_empty() {
            return Err(Error::Empty);
        }
        if text.len() > MAX_BYTES {
            return Err(Error::TooLong);
        }
        if text.chars().any(char::is_control) {
            return Err(Error::Control);
        }
        Ok(Self(text))
    }

    /// Reads a password to the end of `input` and takes away one line break at the end.
    ///
    /// # Errors
    /// Those of [`Password::new`], [`Error::Encoding`] and [`Error::Read`].
    pub fn read(input: impl Read) -> Result<Self, Error> {
        let limit = u64::try_from(MAX_BYTES).unwrap_or(u64::MAX).saturating_add(3);
        let mut bytes = Vec::new();
        input.take(limit).read_to_end(&mut bytes)?;
        let mut text = match String::from_utf8(bytes) {
            Ok(text) => text,
            // The limit may have cut a character in two.
            Err(error) if error.as_bytes().len() > MAX_BYTES => return Err(Error::TooLong),
            Err(_) => return Err(Error::Encoding),
        };
        if text.ends_with('\n') {
            text.pop();
            if text.ends_with('\r') {
                text.pop();
            }
        }
        Self::new(text)
    }

    /// Makes a password of 100 random bits, as four groups of five letters and digits. `fill` must be a
    /// cryptographically secure source.
    pub fn generate(fill: &dyn Fn(&mut [u8])) -> Self {
        let mut random = [0_u8; 20];
        fill(&mut random);
        let mut text = String::with_capacity(23);
        for (index, byte) in random.iter().enumerate() {
            if index > 0 && index % 5 == 0 {
                text.push('-');
            }
            // 256 is a multiple of 32: every symbol is equally likely.
            text.push(char::from(ALPHABET.get(usize::from(byte & 31)).copied().unwrap_or(b'a')));
        }
        Self(text)
    }

    /// The password in clear, for the code that makes keys from it.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The password in clear, taken out.
    pub fn into_string(self) -> String {
        self.0
    }
}

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Password(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_line_break_is_taken_away() {
        for (given, expected) in [("secret", "secret"), ("secret\n", "secret"), ("secret \r\n", "secret ")] {
            assert_eq!(Password::read(given.as_bytes()).unwrap().as_str(), expected);
        }
    }

    #[test]
    fn what_is_no_password_is_refused() {
        assert!(matches!(Password::read(&b""[..]), Err(Error::Empty)));
        assert!(matches!(Password::read(&b"\n"[..]), Err(Error::Empty)));
        assert!(matches!(Password::read(&b"one\ntwo\n"[..]), Err(Error::Control)));
        assert!(matches!(Password::read(&b"secret\n\n"[..]), Err(Error::Control)));
        assert!(matches!(Password::read(&b"\xff\xfe"[..]), Err(Error::Encoding)));
        assert!(matches!(Password::read("ä".repeat(600).as_bytes()), Err(Error::TooLong)));
        assert!(matches!(Password::read(std::io::repeat(b'x')), Err(Error::TooLong)));
        assert_eq!(Password::read("x".repeat(MAX_BYTES).as_bytes()).unwrap().as_str().len(), MAX_BYTES);
    }

    #[test]
    fn generated_passwords_use_all_their_bits() {
        let counting = |buf: &mut [u8]| buf.iter_mut().zip(0..).for_each(|(byte, i)| *byte = i);
        assert_eq!(Password::generate(&counting).as_str(), "abcde-fghij-kmnpq-rstuv");
        let high = |buf: &mut [u8]| buf.fill(0xff);
        assert_eq!(Password::generate(&high).as_str(), "99999-99999-99999-99999");
    }

    #[test]
    fn a_password_is_never_printed() {
        assert_eq!(format!("{:?}", Password::new("hunter2").unwrap()), "Password(..)");
    }
}
