//! Reading the configuration again (SIGHUP, or the admin socket): certificates, limits, domains, log level.

use std::sync::Arc;

use arc_swap::ArcSwap;
use rookery_ops::health::Health;
use rookery_ops::logging;

use crate::acme::Acme;
use crate::cluster::{Member, security};
use crate::config::{self, Config};
use crate::options;
use crate::streams::c2s::{Settings, Shared};
use crate::streams::s2s::{self, Federation};
use crate::tls::remote::Judge;

/// Why nothing changed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file is no good.
    #[error("the configuration was rejected, and nothing changed: {0}")]
    Config(#[from] config::Error),
    /// Some of it was refused; the rest holds.
    #[error("not all changes were applied: {}{}", refused.join("; "), rest(taken))]
    Refused {
        /// What stays as it was, and why.
        refused: Vec<String>,
        /// What changed, or needs a restart.
        taken: Vec<String>,
    },
    /// The work was interrupted.
    #[error("the configuration could not be read")]
    Interrupted,
}

fn rest(taken: &[String]) -> String {
    if taken.is_empty() { String::new() } else { format!("; the rest: {}", taken.join("; ")) }
}

/// The configuration in force, and the parts of the node that it concerns.
pub struct Reloader {
    /// What the node started with: what only a restart changes is as it is there.
    started: Config,
    config: ArcSwap<Config>,
    /// Connections and what they share.
    pub shared: Arc<Shared>,
    /// Streams between servers, if there are any.
    pub federation: Option<Arc<Federation>>,
    /// Certificates from an authority.
    pub acme: Arc<Acme>,
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
        federation: Option<Arc<Federation>>,
        acme: Arc<Acme>,
        member: Option<Member>,
        health: Health,
        logging: logging::Handle,
    ) -> Self {
        Self {
            started: config.clone(),
            config: ArcSwap::from_pointee(config),
            shared,
            federation,
            acme,
            member,
            health,
            logging,
        }
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
    /// If the file has problems; then nothing changed. [`Error::Refused`] if a certificate, or another part, was not taken.
    pub async fn reload(self: &Arc<Self>) -> Result<Vec<String>, Error> {
        let this = self.clone();
        // Files are read: not on a thread that serves.
        tokio::task::spawn_blocking(move || this.apply()).await.map_err(|_| Error::Interrupted)?
    }

    fn apply(&self) -> Result<Vec<String>, Error> {
        let old = self.config();
        let mut new = Config::load_or_development(old.file.as_deref())?;
        let mut notes = changes(&old, &new);
        notes.extend(restarts(&self.started, &new));
        keep(&self.started, &mut new);
        let reloaded = self.shared.tls.reload(&new);
        notes.extend(reloaded.taken);
        let mut refused = reloaded.refused;
        refused.extend(self.peers(&new));
        let before = self.shared.host.options();
        self.shared.host.reload(options::host(&new));
        self.shared.host.components_changed(&before);
        self.shared.settings.store(Arc::new(Settings::from(&new)));
        self.shared.gate.set_limits(&new.limits);
        refused.extend(self.federate(&new));
        self.acme.configure(&new);
        if let Err(error) = self.logging.set(&new.log.level) {
            refused.push(format!("log.level: {error}"));
        }
        self.config.store(Arc::new(new));
        for note in &notes {
            tracing::info!("reloaded: {note}");
        }
        if refused.is_empty() { Ok(notes) } else { Err(Error::Refused { refused, taken: notes }) }
    }

    /// Takes over what streams between servers look at, authorities and DNS among it.
    fn federate(&self, config: &Config) -> Vec<String> {
        let (Some(federation), mut refused) = (&self.federation, Vec::new()) else { return Vec::new() };
        federation.reload(s2s::Settings::from(config));
        match Judge::new(&config.authorities, self.shared.seams.clone()) {
            Ok(judge) => federation.judge.store(Arc::new(judge)),
            Err(error) => refused.push(format!("authorities: the old ones stay, because {error}")),
        }
        if let Err(error) = federation.finder.reload(&config.dns) {
            refused.push(format!("dns: the old configuration stays, because {error}"));
        }
        refused
    }

    /// Reads the certificates for other nodes again. Connections between nodes stay as they are, but for those that stand on
    /// a certificate which is denied now; new ones use them.
    fn peers(&self, config: &Config) -> Option<String> {
        let (member, section) = (self.member.as_ref()?, config.cluster.as_ref()?);
        member.cluster.peers().deny(security::denied(section));
        match security::read(section) {
            Ok(security) => {
                member.cluster.peers().renew(security);
                None
            }
            Err(error) => Some(format!("cluster: the certificate was refused: {error}")),
        }
    }
}

/// What only a restart changes stays as it is.
fn keep(started: &Config, new: &mut Config) {
    new.data_dir.clone_from(&started.data_dir);
    new.store.clone_from(&started.store);
    let denied = new.cluster.take().map(|cluster| cluster.denied);
    new.cluster = started
        .cluster
        .clone()
        .map(|cluster| config::Cluster { denied: denied.unwrap_or_default(), ..cluster });
    new.log.json = started.log.json;
    new.federation.enabled = started.federation.enabled;
    let (listen, was) = (&mut new.listen, &started.listen);
    listen.c2s.clone_from(&was.c2s);
    listen.c2s_tls.clone_from(&was.c2s_tls);
    listen.component.clone_from(&was.component);
    listen.component_tls.clone_from(&was.component_tls);
    listen.s2s.clone_from(&was.s2s);
    listen.s2s_tls.clone_from(&was.s2s_tls);
    listen.http.clone_from(&was.http);
    listen.https.clone_from(&was.https);
    listen.acme.clone_from(&was.acme);
    listen.admin.clone_from(&was.admin);
}

/// What the file says and the running node does not do, for people.
fn restarts(started: &Config, new: &Config) -> Vec<String> {
    let mut kept = new.clone();
    keep(started, &mut kept);
    let moved = kept.listen.sockets() != new.listen.sockets() || kept.listen.admin != new.listen.admin;
    let all = [
        (kept.data_dir != new.data_dir, "data_dir: needs a restart"),
        (kept.store != new.store, "store: needs a restart"),
        (kept.cluster != new.cluster, "cluster: needs a restart"),
        (kept.log.json != new.log.json, "log.format: needs a restart"),
        (moved, "listen: other addresses need a restart"),
        (kept.federation.enabled != new.federation.enabled, "federation.enabled: needs a restart"),
    ];
    all.into_iter().filter(|(differs, _)| *differs).map(|(_, text)| text.to_owned()).collect()
}

/// What is different and holds from now on, for people.
fn changes(old: &Config, new: &Config) -> Vec<String> {
    let mut notes = Vec::new();
    let mut note = |changed: bool, text: &str| {
        if changed {
            notes.push(text.to_owned());
        }
    };
    note(old.limits != new.limits || old.sasl != new.sasl || old.resume != new.resume, "limits: changed");
    note(old.domains != new.domains, "domains: changed");
    note(old.components != new.components, "components: changed");
    note(old.acme != new.acme, "acme: changed");
    note(old.archive != new.archive, "archive: changed");
    note(old.federation != new.federation, "federation: changed");
    note(old.dns != new.dns, "dns: changed");
    note(old.authorities != new.authorities, "authorities: changed");
    note(old.log.level != new.log.level, "log.level: changed");
    let listen = |c: &Config| {
        let listen = &c.listen;
        (listen.proxy.clone(), listen.http_proxies.clone(), listen.public.clone())
    };
    note(listen(old) != listen(new), "listen: changed");
    let denied = |c: &Config| c.cluster.as_ref().map(|cluster| cluster.denied.clone()).unwrap_or_default();
    note(denied(old) != denied(new), "cluster.denied: changed");
    notes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn says_what_changed_and_what_needs_a_restart() {
        let old = Config::development();
        assert!(changes(&old, &old).is_empty() && restarts(&old, &old).is_empty());
        let mut new = old.clone();
        new.limits.stanza_bytes += 1;
        new.store.sync = false;
        new.listen.http.clear();
        new.log.json = true;
        assert_eq!(changes(&old, &new), ["limits: changed"]);
        let restart = ["store", "log.format"].map(|what| format!("{what}: needs a restart"));
        assert_eq!(restarts(&old, &new)[..2], restart);
        assert_eq!(restarts(&old, &new)[2..], ["listen: other addresses need a restart"]);
        // What runs counts, and not what was read last: read again it still needs a restart, and put back it does not.
        let mut force = new.clone();
        keep(&old, &mut force);
        assert_eq!((changes(&force, &new), restarts(&old, &new).len()), (Vec::new(), 3));
        assert!(restarts(&old, &Config { limits: new.limits, ..old.clone() }).is_empty());
    }

    #[test]
    fn denied_certificates_need_no_restart() {
        let text = |denied| {
            format!(
                "data_dir = '/d'\n[store]\nurl = 'dev://127.0.0.1:7300'\n[[domain]]\nname = 'a.example'\nself_signed = true\n[cluster]\nnode = 'n'\ndenied = {denied}"
            )
        };
        let read = |denied| config::parse(&text(denied), std::path::Path::new("/")).unwrap();
        let (old, mut new) = (read("[]"), read("['0a']"));
        assert_eq!(changes(&old, &new), ["cluster.denied: changed"]);
        assert!(restarts(&old, &new).is_empty());
        keep(&old, &mut new);
        assert_eq!(new.cluster.unwrap().denied, [[10]]);
    }
}
