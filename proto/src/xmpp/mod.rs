//! XMPP's own vocabulary: addresses, stanzas and errors.

pub mod datetime;
pub mod dialback;
pub mod element;
pub mod error;
pub mod forms;
pub mod jid;
pub mod ns;
pub mod rsm;
pub mod stanza;
pub mod toplevel;

pub use element::Element;
pub use error::{Condition, ErrorType, SaslFailure, StanzaError, StreamCondition, StreamError};
pub use jid::{BareJid, FullJid, Jid};
pub use stanza::Stanza;
