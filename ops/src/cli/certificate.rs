//! The commands for certificates.

use clap::Subcommand;

/// `rookery certificate …`
#[derive(Debug, Clone, PartialEq, Eq, Subcommand)]
pub enum CertificateCommand {
    /// List the certificates: name, source, issuer, expiry, next order, last error
    List {
        /// Print one JSON object per line
        #[arg(long)]
        json: bool,
    },
    /// Order a new certificate now ([acme] in the configuration), even if the present one is valid
    Order {
        /// The name that the certificate is for, as in example.org
        #[arg(value_name = "NAME")]
        name: String,
        /// Revoke the present certificate once the new one is in use: for example because its key was stolen
        #[arg(long)]
        revoke: bool,
    },
}
