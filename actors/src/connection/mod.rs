//! What a session and its connection share: the pipe down, the ledger of what came up, and what is counted and remembered
//! of both. Nothing here knows sessions, users or nodes: they come as [`ledger::Keeper`] and [`pipe::Feeder`].

pub(crate) mod budget;
pub(crate) mod heard;
pub(crate) mod kept;
pub(crate) mod ledger;
pub(crate) mod left_behind;
pub mod pipe;
pub(crate) mod receipt;
pub(crate) mod recent;
pub(crate) mod reply;
pub(crate) mod shared_delivery;
