//! What runs actors, whatever they are: mailboxes, passivation, a directory by name, timers.

pub(crate) mod actor;
pub(crate) mod directory;
pub(crate) mod wheel;
