//! What an operator can ask of a node: one trait, [`Admin`], with three implementations. The running node implements it
//! over its actors; the program implements it over the data folder when no node runs; and [`Remote`] implements it over
//! the admin socket. So every command is written once, against the trait.
//!
//! ```text
//! rookery user add … ──► commands::run ──► Remote ──Unix socket──► serve ──► the node's Admin
//!                                     └──► the data folder's Admin, when nobody answers at the socket
//! ```

mod client;
mod error;
mod server;
mod socket;
#[cfg(test)]
pub(crate) mod testing;

use std::pin::Pin;

use bytes::Bytes;
pub use rookery_rpc::admin::v1::{
    Certificate, CertificateListResponse as Certificates, ClusterNode,
    ClusterStatusResponse as ClusterStatus, ImportError, ImportReport, MAX_CHUNK, MAX_IMPORT_LINES, S2sPair,
    S2sStream, Session, ShardGroup, ShardRange, StatusResponse as Status, User, UserImportLine,
};
use tokio_stream::Stream;

pub use self::client::{Remote, connect, not_running};
pub use self::error::{Error, Kind};
pub use self::server::serve;
pub use self::socket::{Address, Socket};
use crate::secret::Password;

/// The most entries that one page of a list holds.
pub const PAGE: usize = 500;

/// The pieces of a document, each at most [`MAX_CHUNK`] bytes. An error ends it; without one, the document is whole.
pub type Chunks = Pin<Box<dyn Stream<Item = Result<Bytes, Error>> + Send>>;

/// Is told how far an import is. May be called as often as one likes.
pub type Progress<'a> = &'a (dyn Fn(&ImportReport) + Send + Sync);

/// What an operator can ask of a node. JIDs are text as the operator wrote it; the implementation parses them and
/// answers [`Kind::Invalid`]. Implementations write `async fn`; their futures must be `Send`.
///
/// Whatever writes answers only when it is durable.
pub trait Admin: Send + Sync + 'static {
    /// Makes an account.
    ///
    /// # Errors
    /// [`Kind::Exists`], [`Kind::Invalid`] for a JID or password that cannot be, [`Kind::NotFound`] for a domain that
    /// is not served.
    fn user_add(&self, jid: &str, password: &Password) -> impl Future<Output = Result<(), Error>> + Send;

    /// Sets an account's password.
    ///
    /// # Errors
    /// [`Kind::NotFound`], [`Kind::Invalid`].
    fn user_passwd(&self, jid: &str, password: &Password) -> impl Future<Output = Result<(), Error>> + Send;

    /// Removes an account and everything it owns, and ends its sessions.
    ///
    /// # Errors
    /// [`Kind::NotFound`], [`Kind::Invalid`].
    fn user_remove(&self, jid: &str) -> impl Future<Output = Result<(), Error>> + Send;

    /// A page of accounts, in an order that does not change: those of `domain` (empty: all domains) that come after the
    /// bare JID `after` (empty: from the beginning), at most `limit` and at most [`PAGE`]. An empty page is the end.
    ///
    /// # Errors
    /// [`Kind::NotFound`] for a domain that is not served.
    fn user_list(
        &self,
        domain: &str,
        after: &str,
        limit: usize,
    ) -> impl Future<Output = Result<Vec<User>, Error>> + Send;

    /// Makes accounts in bulk, at most [`MAX_IMPORT_LINES`]; keys are made on all cores. Accounts that exist are left as
    /// they are and counted. A line that fails is reported with its number and does not stop the others.
    ///
    /// # Errors
    /// Only what concerns the whole batch, such as [`Kind::Unavailable`].
    fn user_import(
        &self,
        batch: Vec<UserImportLine>,
    ) -> impl Future<Output = Result<ImportReport, Error>> + Send;

    /// A page of sessions, in an order that does not change: those of `filter` (a domain, a bare or a full JID; empty:
    /// all) that come after the full JID `after`, at most `limit` and at most [`PAGE`]. An empty page is the end.
    ///
    /// # Errors
    /// [`Kind::Invalid`].
    fn sessions(
        &self,
        filter: &str,
        after: &str,
        limit: usize,
    ) -> impl Future<Output = Result<Vec<Session>, Error>> + Send;

    /// Ends the session of a full JID, or all of a bare JID; their clients are told `reason`. Answers how many.
    ///
    /// # Errors
    /// [`Kind::NotFound`] if there was none, [`Kind::Invalid`].
    fn kick(&self, jid: &str, reason: &str) -> impl Future<Output = Result<u64, Error>> + Send;

    /// A page of streams between this node and other servers, in an order that does not change: those of the remote `domain`
    /// (empty: all) that come after the stream `after`, at most `limit` and at most [`PAGE`]. An empty page is the end.
    ///
    /// # Errors
    /// [`Kind::Invalid`]; [`Kind::Unavailable`] if no node runs.
    fn streams(
        &self,
        domain: &str,
        after: &str,
        limit: usize,
    ) -> impl Future<Output = Result<Vec<S2sStream>, Error>> + Send;

    /// Closes the stream of that id in order, or all of a remote domain. Answers how many.
    ///
    /// # Errors
    /// [`Kind::NotFound`] if there was none, [`Kind::Invalid`]; [`Kind::Unavailable`] if no node runs.
    fn close_streams(&self, target: &str) -> impl Future<Output = Result<u64, Error>> + Send;

    /// The XEP-0227 document of one account (a bare JID) or of a host with all its accounts.
    ///
    /// # Errors
    /// [`Kind::NotFound`], [`Kind::Invalid`]; what goes wrong later is in the stream.
    fn export(&self, target: &str) -> impl Future<Output = Result<Chunks, Error>> + Send;

    /// Reads an XEP-0227 document and makes what it holds. An error in `chunks` means that the document is not whole.
    ///
    /// # Errors
    /// [`Kind::Invalid`] for what is no such document; accounts that fail are in the report.
    fn import(
        &self,
        chunks: Chunks,
        progress: Progress<'_>,
    ) -> impl Future<Output = Result<ImportReport, Error>> + Send;

    /// Reads the configuration again. Answers a line for each thing that changed or that needs a restart.
    ///
    /// # Errors
    /// [`Kind::Invalid`] if the file has errors, and nothing changed; [`Kind::Unavailable`] if no node runs.
    fn reload(&self) -> impl Future<Output = Result<Vec<String>, Error>> + Send;

    /// How the node is.
    ///
    /// # Errors
    /// [`Kind::Unavailable`] if no node runs.
    fn status(&self) -> impl Future<Output = Result<Status, Error>> + Send;

    /// Sets the log level (see [`crate::logging::Handle::set`]) and answers what it was.
    ///
    /// # Errors
    /// [`Kind::Invalid`]; [`Kind::Unavailable`] if no node runs.
    fn log_level(&self, directives: &str) -> impl Future<Output = Result<String, Error>> + Send;

    /// The certificates that the node serves, and those that are still to be ordered, in the order of their names.
    ///
    /// # Errors
    /// [`Kind::Unavailable`] if no node runs, or the store fails.
    fn certificates(&self) -> impl Future<Output = Result<Certificates, Error>> + Send;

    /// Has a certificate ordered for `name` now, and the present one revoked afterwards if `revoke`. Answers the name as certificates
    /// write it, before the order is done.
    ///
    /// # Errors
    /// [`Kind::NotFound`] if no certificate is ordered for that name; [`Kind::Unavailable`] as above.
    fn certificate_order(
        &self,
        name: &str,
        revoke: bool,
    ) -> impl Future<Output = Result<String, Error>> + Send;

    /// How the cluster is, as this node sees it.
    ///
    /// # Errors
    /// [`Kind::Unavailable`] if no node runs, or it is alone; the same for what follows.
    fn cluster_status(&self) -> impl Future<Output = Result<ClusterStatus, Error>> + Send;

    /// Which node holds which shards.
    fn cluster_shards(&self) -> impl Future<Output = Result<Vec<ShardGroup>, Error>> + Send;

    /// Has a node (`self`: this one) begin to give its shards to the others. Answers its name.
    ///
    /// # Errors
    /// [`Kind::NotFound`]; [`Kind::Invalid`] if it is dead; [`Kind::Unavailable`] if nobody is there to take them.
    fn cluster_drain(&self, node: &str) -> impl Future<Output = Result<String, Error>> + Send;

    /// Lets a node (`self`: this one) take shards again. Answers its name.
    ///
    /// # Errors
    /// [`Kind::NotFound`]; [`Kind::Invalid`] if it is not draining.
    fn cluster_undrain(&self, node: &str) -> impl Future<Output = Result<String, Error>> + Send;

    /// Declares a node dead at once. Answers its name.
    ///
    /// # Errors
    /// [`Kind::NotFound`]; [`Kind::Invalid`] if it is this node, or shows signs of life and not `force`.
    fn cluster_evict(&self, node: &str, force: bool) -> impl Future<Output = Result<String, Error>> + Send;
}

/// Adds what `more` says to `report`, keeping [`MAX_IMPORT_LINES`] errors at most.
pub fn add_report(report: &mut ImportReport, more: ImportReport) {
    report.added = report.added.saturating_add(more.added);
    report.skipped = report.skipped.saturating_add(more.skipped);
    report.failed = report.failed.saturating_add(more.failed);
    let room = MAX_IMPORT_LINES.saturating_sub(report.errors.len());
    report.errors.extend(more.errors.into_iter().take(room));
}

/// Adds one failure to `report`, keeping [`MAX_IMPORT_LINES`] errors at most.
pub fn add_failure(report: &mut ImportReport, line: u64, reason: impl Into<String>) {
    let errors = vec![ImportError { line, reason: reason.into() }];
    add_report(report, ImportReport { failed: 1, errors, ..ImportReport::default() });
}
