//! Reading the configuration again (SIGHUP, or the admin socket): certificates, limits, domains, log level.

use std::sync::Arc;

use arc_swap::ArcSwap;
use rookery_ops::health::Health;
use rookery_ops::logging;

use crate::cluster::{Member, security};
use crate::config::{self, Config};
use crate::connection::{Settings, Shared};
use crate::options;

/// Why nothing changed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file is no good.
    #[error("the configuration was not taken, and nothing changed: {0}")]
    Config(#[from] config::Error),
    /// The work was interrupted.
    #[error("the configuration could not be read")]
    Interrupted,
}

/// The configuration in force and whom it concerns.
pub struct Reloader {
    config: ArcSwap<Config>,
    /// Connections and what they share.
    pub shared: Arc<Shared>,
    /// The node's place among others.
    pub member: Option<Member>,
    /// Whether the node takes work.
    pub health: Health,
    logging: logging::Handle,
}

impl Reloader {
    /// With the configuration that the node started with.
    pub fn new(
        config: Config,
        shared: Arc<Shared>,
        member: Option<Member>,
        health: Health,
        logging: logging::Handle,
    ) -> Self {
        Self { config: ArcSwap::from_pointee(config), shared, member, health, logging }
    }

    /// The configuration in force.
    pub fn config(&self) -> Arc<Config> {
        self.config.load_full()
    }

    /// Sets the log level until the next reload.
    pub fn log_level(&self, directives: &str) -> Result<String, logging::Error> {
        self.logging.set(directives)
    }

    /// Reads the file again. Answers a line for each thing that changed or needs a restart.
    ///
    /// # Errors
    /// If the file has problems; then nothing changed.
    pub async fn reload(self: &Arc<Self>) -> Result<Vec<String>, Error> {
        let this = self.clone();
        // Files are read: not on a thread that serves.
        tokio::task::spawn_blocking(move || this.apply()).await.map_err(|_| Error::Interrupted)?
    }

    fn apply(&self) -> Result<Vec<String>, Error> {
        let old = self.config();
        let mut new = Config::load_or_development(old.file.as_deref())?;
        let mut notes = changes(&old, &new);
        // What a restart would change stays as it is.
        new.data_dir.clone_from(&old.data_dir);
        new.store.clone_from(&old.store);
        new.cluster.clone_from(&old.cluster);
        notes.extend(self.shared.tls.reload(&new));
        notes.extend(self.peers(&new));
        self.shared.host.reload(options::host(&new));
        self.shared.settings.store(Arc::new(Settings::from(&new)));
        self.shared.gate.set_limits(&new.limits);
        if let Err(error) = self.logging.set(&new.log.level) {
            notes.push(format!("log.level: {error}"));
        }
        self.config.store(Arc::new(new));
        for note in &notes {
            tracing::info!("reloaded: {note}");
        }
        Ok(notes)
    }

    /// Reads the certificates for other nodes again. Connections between nodes stay as they are; new ones use them.
    fn peers(&self, config: &Config) -> Option<String> {
        let (member, section) = (self.member.as_ref()?, config.cluster.as_ref()?);
        match security::read(section) {
            Ok(security) => {
                member.cluster.peers().renew(security);
                None
            }
            Err(error) => Some(format!("cluster: the certificate was not taken: {error}")),
        }
    }
}

/// What is different, for people.
fn changes(old: &Config, new: &Config) -> Vec<String> {
    let mut notes = Vec::new();
    let mut note = |changed: bool, text: &str| {
        if changed {
            notes.push(text.to_owned());
        }
    };
    note(old.limits != new.limits || old.sasl != new.sasl || old.resume != new.resume, "limits: changed");
    note(old.domains != new.domains, "domains: changed");
    note(old.archive != new.archive, "archive: changed");
    note(old.log.level != new.log.level, "log.level: changed");
    note(old.listen.proxy != new.listen.proxy || old.listen.public != new.listen.public, "listen: changed");
    note(old.data_dir != new.data_dir, "data_dir: needs a restart");
    note(old.store != new.store, "store: needs a restart");
    note(old.cluster != new.cluster, "cluster: needs a restart");
    note(old.log.json != new.log.json, "log.format: needs a restart");
    let sockets = |c: &Config| {
        let listen = &c.listen;
        (listen.c2s.clone(), listen.c2s_tls.clone(), listen.http.clone(), listen.admin.clone())
    };
    note(sockets(old) != sockets(new), "listen: other addresses need a restart");
    notes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn says_what_changed_and_what_needs_a_restart() {
        let old = Config::development();
        assert!(changes(&old, &old).is_empty());
        let mut new = old.clone();
        new.limits.stanza_bytes += 1;
        new.store.sync = false;
        new.listen.http.clear();
        assert_eq!(
            changes(&old, &new),
            ["limits: changed", "store: needs a restart", "listen: other addresses need a restart"]
        );
    }
}
