//! Base64 as it stands in SASL's elements: RFC 6120 6.4, RFC 4648 section 4, strict.

use super::{MESSAGE_BYTES, STANDARD};
use crate::xmpp::SaslFailure;
use base64::Engine as _;

/// The data of `<auth/>`: nothing = there is no initial response, `=` = it is empty (RFC 6120 6.4.2).
///
/// # Errors
/// [`SaslFailure::IncorrectEncoding`] for white space, missing or wrong padding, other characters, stray bits;
/// [`SaslFailure::MalformedRequest`] for more than [`MESSAGE_BYTES`].
pub fn decode_initial(text: &str) -> Result<Option<Vec<u8>>, SaslFailure> {
    if text.is_empty() { Ok(None) } else { decode(text).map(Some) }
}

/// The data of `<response/>`, `<challenge/>` or `<success/>`. Empty data is written as nothing or as `=`.
///
/// # Errors
/// As [`decode_initial`].
pub fn decode(text: &str) -> Result<Vec<u8>, SaslFailure> {
    if text.len() > MESSAGE_BYTES.div_ceil(3) * 4 {
        return Err(SaslFailure::MalformedRequest);
    }
    if text == "=" {
        return Ok(Vec::new());
    }
    STANDARD.decode(text).map_err(|_| SaslFailure::IncorrectEncoding)
}

/// The text for `<challenge/>`, `<response/>` or `<success/>`.
#[must_use]
pub fn encode(data: &[u8]) -> String {
    STANDARD.encode(data)
}

/// The text for `<auth/>` or the data of `<success/>`, where empty data and no data differ: `=` is empty (RFC 6120 6.4.2, 6.4.6).
#[must_use]
pub fn encode_initial(data: &[u8]) -> String {
    if data.is_empty() { "=".into() } else { encode(data) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_strict() {
        assert_eq!(decode_initial(""), Ok(None));
        assert_eq!(decode_initial("="), Ok(Some(vec![])));
        assert_eq!(decode_initial("AGEA"), Ok(Some(vec![0, b'a', 0])));
        assert_eq!(decode("YQ=="), Ok(b"a".to_vec()));
        for bad in ["YQ", "YQ=", "YR==", "Y Q==", "YQ==\n", "YQ==YQ==", "-_==", "==", "ä", "YQ===", "Y"] {
            assert_eq!(decode(bad), Err(SaslFailure::IncorrectEncoding), "{bad}");
        }
        assert_eq!(decode(&"A".repeat(8000)), Err(SaslFailure::MalformedRequest));
        assert_eq!(
            (encode(b""), encode_initial(b""), encode(b"a")),
            (String::new(), "=".into(), "YQ==".into())
        );
    }
}
