//! The commands for sessions.

use clap::Subcommand;

/// `rookery session …`
#[derive(Debug, Clone, PartialEq, Eq, Subcommand)]
pub enum SessionCommand {
    /// List sessions
    List {
        /// Only sessions of this domain, bare JID or full JID
        filter: Option<String>,
        /// List at most this many
        #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
        limit: Option<u64>,
        /// Print one JSON object per line
        #[arg(long)]
        json: bool,
    },
    /// End a session (full JID) or all sessions of a user (bare JID)
    Kick {
        /// The full or bare JID
        jid: String,
        /// The reason that is sent to the clients
        #[arg(long, default_value = "")]
        reason: String,
    },
}
