//! What runs actors, whatever they are: mailboxes, passivation, a directory by name, timers, and the queues in which they wait for the store;
//! what makes a repeated stanza known, and fair shares of queues.

pub(crate) mod actor;
pub(crate) mod commit_queue;
pub(crate) mod directory;
pub(crate) mod operations;
pub(crate) mod origin;
pub(crate) mod seen;
pub(crate) mod shares;
pub(crate) mod wheel;
