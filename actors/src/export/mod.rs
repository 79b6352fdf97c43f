//! XEP-0227 Portable Import/Export Format for XMPP-IM Servers, version 1.1: a user, or a host with all its users, as one
//! XML document, written and read in portions: neither side ever holds the document, or an archive, in memory.
//!
//! Both sides work on a [`Store`](rookery_cluster::store::Store) alone, so they serve the running node and the command
//! that works on the data folder of one that does not run.
//!
//! | in the document | here |
//! | --- | --- |
//! | `<scram-credentials/>` for each hash; `password` is read, never written | `scram.rs` |
//! | the roster, and `<presence type='subscribe'/>` for requests that wait | `roster.rs` |
//! | `<vCard/>`, private XML | as they are |
//! | the block list, as the privacy list that XEP-0191 section 5 equates it with | `blocks.rs` |
//! | archive preferences as XEP-0441 writes them, which XEP-0227 leaves open | `prefs.rs` |
//! | `<archive/>` and `<offline-messages/>` | `messages.rs` |
//! | what else an account has, in a namespace of ours | `account.rs` |

use rookery_cluster::store;
use rookery_proto::xmpp::jid::{self, BareJid};

mod account;
mod blocks;
mod document;
mod draft;
mod finish;
mod import;
mod messages;
mod pages;
mod prefs;
mod report;
mod roster;
mod scram;
mod write;

pub use import::{Added, Importer};
pub use report::{Remark, Report};
pub use write::{Gone, Sink, export};

/// The most bytes in one piece of an exported document.
pub const CHUNK: usize = 64 << 10;

/// What is to be exported.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Target {
    /// One account.
    User(BareJid),
    /// All accounts of a domain.
    Host(BareJid),
}

impl Target {
    /// A bare JID stands for its account, a domain for all of its accounts.
    ///
    /// # Errors
    /// If the text is no bare JID.
    pub fn parse(text: &str) -> Result<Self, jid::Error> {
        let jid = BareJid::parse(text)?;
        Ok(if jid.local().is_some() { Self::User(jid) } else { Self::Host(jid) })
    }
}

/// Why an export or an import ended early.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is no such account.
    #[error("there is no such account")]
    NotFound,
    /// The reader of the document has gone.
    #[error("the reader of the export is gone")]
    Gone,
    /// The document is not one of XEP-0227, is broken, or ends too early. What came before is imported.
    #[error("line {line}: {reason}")]
    Document {
        /// Where, counted from 1.
        line: u64,
        /// What is wrong. Repeats nothing of the document.
        reason: String,
    },
    /// The store does not answer as it must.
    #[error("the store refused: {0}")]
    Store(#[from] store::Error),
}
