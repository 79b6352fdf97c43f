//! What a node is called.

use std::borrow::Borrow;
use std::fmt;
use std::sync::Arc;

/// The longest name of a node, in bytes: that of a DNS label, since names stand in certificates.
pub const NAME_MAX: usize = 63;

/// The name of a node: one DNS label in lower case (`rookery-0`). The name stays when the node restarts; the generation
/// does not.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeId(Arc<str>);

/// A name that a node cannot have.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "a node's name is 1 to 63 of a-z, 0-9 and '-', with a letter or digit at both ends, and not a number: {0:?}"
)]
pub struct BadName(String);

impl NodeId {
    /// The node of that name.
    ///
    /// # Errors
    /// [`BadName`] unless it is one DNS label in lower case. A number alone is refused: certificates would take it
    /// for an address.
    pub fn new(name: &str) -> Result<Self, BadName> {
        let inner = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit() || c == b'-';
        let good = (1..=NAME_MAX).contains(&name.len())
            && name.bytes().all(inner)
            && !name.starts_with('-')
            && !name.ends_with('-')
            && !name.bytes().all(|c| c.is_ascii_digit());
        if good { Ok(Self(name.into())) } else { Err(BadName(name.chars().take(80).collect())) }
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Borrow<str> for NodeId {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "NodeId({})", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_one_label() {
        for good in ["a", "rookery-0", "n1", "0a"] {
            assert_eq!(NodeId::new(good).unwrap().as_str(), good);
        }
        let long = "a".repeat(64);
        for bad in ["", "-a", "a-", "A", "a.b", "a_b", "a b", "ä", "17", "*", long.as_str()] {
            assert!(NodeId::new(bad).is_err(), "{bad}");
        }
    }
}
