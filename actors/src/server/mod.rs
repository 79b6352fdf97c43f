//! The server as the program sees it: its start and stop, sessions for connections, what other nodes send, and what operators ask.
//! Everything else of this crate lies below; this alone knows all of it.

mod bind;
mod handoff;
mod operator;
mod receive;
mod start;
mod stop;
mod watch;

pub use operator::SessionInfo;
pub use start::knows;
