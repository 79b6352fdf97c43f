//! What the operating system asks for.

use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::start::Error;

/// What a signal asks for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Ask {
    /// SIGTERM, SIGINT: end properly.
    Stop,
    /// SIGHUP: read the configuration again.
    Reload,
}

/// The signals of this process. From here on they do not end it by themselves.
pub struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
}

impl Signals {
    /// Listens for them.
    pub fn new() -> Result<Self, Error> {
        let listen =
            |kind| signal(kind).map_err(|source| Error::Io { what: "signals can't be received", source });
        Ok(Self {
            terminate: listen(SignalKind::terminate())?,
            interrupt: listen(SignalKind::interrupt())?,
            hangup: listen(SignalKind::hangup())?,
        })
    }

    /// The next one. Cancel safe.
    pub async fn next(&mut self) -> Ask {
        tokio::select! {
            _ = self.terminate.recv() => Ask::Stop,
            _ = self.interrupt.recv() => Ask::Stop,
            _ = self.hangup.recv() => Ask::Reload,
        }
    }
}
