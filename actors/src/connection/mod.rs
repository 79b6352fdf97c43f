//! What a session and its connection share: the pipe down, the ledger of what came up, and what is counted and remembered
//! of both.

pub(crate) mod budget;
pub(crate) mod kept;
pub(crate) mod ledger;
pub mod pipe;
pub(crate) mod recent;
pub(crate) mod reply;
pub(crate) mod shared_delivery;
