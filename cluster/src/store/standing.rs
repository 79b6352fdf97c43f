//! What a store says of itself, without being asked.

use std::sync::Arc;

/// What can be done with a store now.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub enum Standing {
    /// Everything, as far as is known.
    #[default]
    Well,
    /// Its disk is nearly full: what adds is refused ([`super::Class::Full`]), what removes is taken.
    Full,
    /// A write failed. Nothing is written until the disk takes writes again; that is tried by itself.
    Broken,
    /// The store cannot be mended in this process, for this reason: the process is to end.
    Lost(Arc<str>),
}
