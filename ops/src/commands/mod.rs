//! The commands for a node: what each does with an [`Admin`], and what the operator sees. The same code runs against a
//! running node and against the data folder.

mod account;
mod bulk;
mod certificate;
mod cluster;
mod meter;
mod node;
mod session;
mod stream;
mod terminal;
mod transfer;

pub use self::cluster::cluster;
pub use self::terminal::{Fill, Sink, Terminal};
use crate::admin::{Admin, Error};
use crate::cli::{AdminCommand, UserCommand};

/// Runs `command` against `admin`. Results go to `terminal.out`; progress and remarks to `terminal.err`. The caller
/// prints the error, and ends with its [`crate::admin::Kind::exit_code`].
///
/// Files and standard input are read with blocking calls: run it on a thread that may wait.
///
/// # Errors
/// What the node answers; [`crate::admin::Kind::Invalid`] also for a file that cannot be read and for lines of it that
/// were refused.
pub async fn run<A: Admin>(command: &AdminCommand, admin: &A, terminal: &Terminal) -> Result<(), Error> {
    match command {
        AdminCommand::User(UserCommand::Add { jid, password }) => {
            account::add(jid, password, admin, terminal).await
        }
        AdminCommand::User(UserCommand::Passwd { jid, password }) => {
            account::passwd(jid, password, admin, terminal).await
        }
        AdminCommand::User(UserCommand::Remove { jid }) => account::remove(jid, admin, terminal).await,
        AdminCommand::User(UserCommand::List { domain, limit, json }) => {
            account::list(domain.as_deref().unwrap_or_default(), *limit, *json, admin, terminal).await
        }
        AdminCommand::User(UserCommand::Import { file }) => bulk::import(file, admin, terminal).await,
        AdminCommand::Session(command) => session::run(command, admin, terminal).await,
        AdminCommand::Certificate(command) => certificate::run(command, admin, terminal).await,
        AdminCommand::Stream(command) => stream::run(command, admin, terminal).await,
        AdminCommand::Export { target, output } => {
            transfer::export(target, output.as_deref(), admin, terminal).await
        }
        AdminCommand::Import { file } => transfer::import(file, admin, terminal).await,
        AdminCommand::Reload => node::reload(admin, terminal).await,
        AdminCommand::Status { json } => node::status(*json, admin, terminal).await,
        AdminCommand::LogLevel { level } => node::log_level(level, admin, terminal).await,
    }
}
