//! `rookery store`: a store for several nodes on one machine, for development and tests.

use std::io::{self, Write as _};
use std::os::unix::fs::DirBuilderExt as _;
use std::sync::Arc;
use std::time::Duration;

use rookery_cluster::seams::Seams;
use rookery_cluster::store::embedded::Embedded;
use rookery_cluster::store::memory::Memory;
use rookery_cluster::store::{self, Database, Durability, Version, dev};
use rookery_ops::cli::StoreArgs;
use rookery_ops::logging;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio_stream::{Stream, StreamExt as _};

use crate::net::{Listener, Net};
use crate::signals::{Ask, Signals};
use crate::start::{Error, keep_from_others};
use crate::storage;

/// What it says of itself: the first line.
const WARNING: &str =
    "for development and tests, not for production: one process, no copies, no login, no encryption";

/// How long to wait after a connection that could not be accepted.
const PAUSE: Duration = Duration::from_millis(100);

/// Serves until a signal says to stop; then everything committed is on disk.
///
/// # Errors
/// If the folder or the address can't be used, or the folder can't be closed.
pub async fn run(arguments: &StoreArgs, net: &impl Net<Listener = TcpListener>) -> Result<(), Error> {
    let logging = logging::init("info", logging::Format::Text)?;
    let mut signals = Signals::new()?;
    let at = arguments.listen;
    if !arguments.off_loopback && !at.ip().to_canonical().is_loopback() {
        return Err(Error::Exposed { at });
    }
    let (db, place) = open(arguments).await?;
    let listener = net.bind(at).map_err(|source| Error::Listen { option: "--listen", at, source })?;
    let at = listener.local_addr().unwrap_or(at);
    let hint = format!("nodes use it with url = \"dev://{at}\" under [store]; Ctrl-C stops the store");
    // A reader that has gone away must not end the store.
    let _ = writeln!(io::stdout(), "rookery store at {at}, {place}: {WARNING}\n{hint}");
    let (lost, end) = oneshot::channel();
    let standing = db.standing();
    let stop = async move {
        tokio::select! {
            () = async { while signals.next().await != Ask::Stop {} } => {}
            why = storage::lost(standing) => drop(lost.send(why)),
        }
    };
    let served = dev::serve(db, accepted(listener), stop).await;
    logging.flush();
    let served = match end.await {
        Ok(why) => Err(store::Error::new(store::Class::Corrupt, "the store is lost").with(why)),
        Err(_) => served,
    };
    served.map_err(|source| Error::Store { at: place, source })
}

async fn open(arguments: &StoreArgs) -> Result<(Arc<dyn Database>, String), Error> {
    let Some(folder) = arguments.data.clone() else {
        // Versions go on from where a server before this one can have been.
        let first = Version(Seams::system().clock.now_micros());
        return Ok((Arc::new(Memory::starting_at(first)), "in memory".to_owned()));
    };
    let source = |source| Error::Folder { path: folder.clone(), source };
    keep_from_others();
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&folder).map_err(source)?;
    let durability = if arguments.buffered { Durability::Buffered } else { Durability::Sync };
    let place = format!("in {}", folder.display());
    let opened = tokio::task::spawn_blocking(move || Embedded::open(&folder.join("store"), durability)).await;
    match opened {
        Ok(Ok(db)) => Ok((Arc::new(db), place)),
        Ok(Err(source)) => Err(Error::Store { at: place, source }),
        Err(error) => Err(Error::Io { what: "the store cannot be opened", source: io::Error::other(error) }),
    }
}

/// What is accepted; a connection that failed before that ends nothing.
fn accepted(listener: TcpListener) -> impl Stream<Item = io::Result<TcpStream>> + Send {
    let (sender, receiver) = tokio::sync::mpsc::channel(1);
    tokio::spawn(async move {
        let mut listener = listener;
        loop {
            let next = tokio::select! {
                next = Listener::accept(&mut listener) => next,
                () = sender.closed() => return,
            };
            match next {
                Ok((stream, _)) => {
                    if sender.send(stream).await.is_err() {
                        return;
                    }
                }
                // Out of files, most likely: those that are open go on.
                Err(error) => {
                    tracing::warn!(%error, "a connection could not be accepted");
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
    });
    tokio_stream::wrappers::ReceiverStream::new(receiver).map(Ok)
}
