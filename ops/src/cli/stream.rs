//! `rookery stream …`

use clap::Subcommand;

/// `rookery stream …`
#[derive(Debug, Clone, PartialEq, Eq, Subcommand)]
pub enum StreamCommand {
    /// List streams of this node, with the domains that were proved on them and how
    List {
        /// Only streams of this remote domain
        domain: Option<String>,
        /// Print one JSON object per line
        #[arg(long)]
        json: bool,
    },
    /// Close a stream, or all streams of a remote domain. They come back when something is to be sent
    Close {
        /// The id of a stream, from the list, or a remote domain
        #[arg(value_name = "ID|DOMAIN")]
        target: String,
    },
}
