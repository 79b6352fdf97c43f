//! What runs actors, whatever they are: mailboxes, passivation, a directory by name, timers; and what makes a repeated stanza known.

pub(crate) mod actor;
pub(crate) mod directory;
pub(crate) mod origin;
pub(crate) mod wheel;
