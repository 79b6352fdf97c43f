//! Keys of server dialback (XEP-0220 version 1.1), made as XEP-0185 (version 1.0) says from a secret of the deployment: each node
//! verifies the keys of all.

use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;

use crate::host::Host;

impl Host {
    /// The key by which `originating`, a domain of this deployment, proves itself to `receiving` on the stream to which the receiving
    /// server has given `stream_id`. 64 lower-case hexadecimal digits.
    pub fn dialback_key(&self, receiving: &str, originating: &str, stream_id: &str) -> String {
        key(self.dialback_secret(), receiving, originating, stream_id)
    }

    /// Whether a key is that of [`Host::dialback_key`], made by this node or another. The time it takes says nothing about the key.
    pub fn is_dialback_key(&self, receiving: &str, originating: &str, stream_id: &str, key: &str) -> bool {
        let right = self.dialback_key(receiving, originating, stream_id);
        right.as_bytes().ct_eq(key.as_bytes()).into()
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// XEP-0185 section 3.
fn key(secret: &[u8], receiving: &str, originating: &str, stream_id: &str) -> String {
    // A key of any length will do; were one refused, no key would be right.
    let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(hex(&Sha256::digest(secret)).as_bytes()) else {
        return String::new();
    };
    for part in [receiving, " ", originating, " ", stream_id] {
        mac.update(part.as_bytes());
    }
    hex(&mac.finalize().into_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_key_is_that_of_the_specification() {
        assert_eq!(
            key(b"s3cr3tf0rd14lb4ck", "xmpp.example.com", "example.org", "D60000229F"),
            "37c69b1cf07a3f67c04a5ef5902fa5114f2c76fe4a2686482ba5b89323075643"
        );
    }
}
