//! The administration of the running node.

use std::borrow::Cow;
use std::sync::Arc;

use rookery_actors::export::Added;
use rookery_cluster::entity::Entity;
use rookery_cluster::mesh::Home;
use rookery_ops::admin::{
    self, Certificate, Certificates, Chunks, ClusterStatus, Error, ImportReport, PAGE, Progress, S2sStream,
    Session, ShardGroup, Status, User, UserImportLine,
};
use rookery_ops::secret::Password;
use rookery_proto::xml::chars::is_char;
use rookery_proto::xmpp::jid::{BareJid, Jid};
use tokio::task::JoinSet;

use super::Accounts;
use super::{cluster, documents, streams};
use crate::cluster::Member;
use crate::reload::Reloader;

/// The running node, for the admin socket.
pub struct Node {
    /// Knows the configuration, and everything that looks at it.
    pub reloader: Arc<Reloader>,
    /// Where it listens, as in `c2s 127.0.0.1:5222`.
    pub listeners: Vec<String>,
}

impl Node {
    fn accounts(&self) -> Accounts {
        let host = &self.reloader.shared.host;
        let options = host.options();
        let domains = options.domains.iter().map(|d| d.name.clone()).collect();
        Accounts::new(host.store().clone(), host.seams().clone(), domains, options.iterations)
    }

    /// What this node is called.
    fn name(&self) -> String {
        let member = self.reloader.member.as_ref();
        member.map_or_else(|| "local".to_owned(), |member| member.mesh().node().to_string())
    }

    /// Where a session lives.
    fn home(&self, jid: &str) -> String {
        let member = self.reloader.member.as_ref();
        let bare = jid.split('/').next().unwrap_or(jid);
        match member.map(|member| member.mesh().map().home(Entity::new(bare).shard())) {
            Some(Home::There { node, .. }) => node.to_string(),
            _ => self.name(),
        }
    }

    fn member(&self) -> Result<&Member, Error> {
        self.reloader.member.as_ref().ok_or_else(cluster::alone)
    }

    /// An actor that was told that there is nobody learns that there is somebody now.
    async fn created(&self, jid: &BareJid) {
        self.reloader.shared.host.created(jid).await;
    }
}

impl admin::Admin for Node {
    async fn user_add(&self, jid: &str, password: &Password) -> Result<(), Error> {
        let jid = self.accounts().add(jid, password).await?;
        self.created(&jid).await;
        tracing::info!(user = %jid, "account created by the operator");
        Ok(())
    }

    async fn user_passwd(&self, jid: &str, password: &Password) -> Result<(), Error> {
        let jid = self.accounts().passwd(jid, password).await?;
        tracing::info!(user = %jid, "password set by the operator");
        if self.reloader.shared.host.password_set(&jid).await {
            return Ok(());
        }
        Err(Error::internal(format!(
            "the password of {jid} is set, but the home node of the account did not answer: older sessions may continue until \
             `rookery session kick {jid}` ends them"
        )))
    }

    async fn user_remove(&self, jid: &str) -> Result<(), Error> {
        let jid = self.accounts().parse(jid)?;
        let removed = self.reloader.shared.host.remove_account(&jid).await;
        removed.map_err(|error| super::not_removed(&jid, &error))?;
        tracing::info!(user = %jid, "account removed by the operator");
        Ok(())
    }

    async fn user_list(&self, domain: &str, after: &str, limit: usize) -> Result<Vec<User>, Error> {
        self.accounts().list(domain, after, limit).await
    }

    async fn user_import(&self, batch: Vec<UserImportLine>) -> Result<ImportReport, Error> {
        let (report, made) = self.accounts().import(batch).await?;
        // At once: each may be at home on another node.
        let mut told = JoinSet::new();
        for jid in made {
            let host = self.reloader.shared.host.clone();
            told.spawn(async move { host.created(&jid).await });
        }
        told.join_all().await;
        Ok(report)
    }

    async fn sessions(&self, filter: &str, after: &str, limit: usize) -> Result<Vec<Session>, Error> {
        let filter = if filter.is_empty() { None } else { Some(parse(filter)?) };
        // A domain is no prefix of the JIDs in it.
        let prefix = filter.as_ref().filter(|jid| jid.local().is_some()).map_or("", |jid| jid.as_str());
        let host = &self.reloader.shared.host;
        let now = host.seams().clock.now_micros();
        let fits = |jid: &str| match (&filter, Jid::parse(jid)) {
            (None, _) => true,
            (Some(filter), Ok(jid)) => {
                filter.domain() == jid.domain()
                    && (filter.local().is_none() || filter.local() == jid.local())
                    && (filter.resource().is_none() || filter.resource() == jid.resource())
            }
            _ => false,
        };
        let all = host.session_list(prefix).await;
        let page =
            all.into_iter().filter(|info| info.jid.as_str() > after && fits(&info.jid)).take(limit.min(PAGE));
        let session = |info: rookery_actors::SessionInfo| {
            let conn = info.conn.as_ref();
            Session {
                node: self.home(&info.jid),
                jid: info.jid,
                address: conn.map_or(String::new(), |conn| conn.address.to_string()),
                connection: conn.map_or("", |conn| conn.via).to_owned(),
                tls: conn.map_or(String::new(), |conn| format!("{} {}", conn.tls, conn.suite)),
                age_seconds: now.saturating_sub(info.since) / 1_000_000,
                state: if info.connected { "attached" } else { "resumable" }.to_owned(),
                priority: info.priority.map(i32::from),
            }
        };
        Ok(page.map(session).collect())
    }

    async fn kick(&self, jid: &str, reason: &str) -> Result<u64, Error> {
        let jid = parse(jid)?;
        let kicked = self.reloader.shared.host.kick(&jid, told(reason)?).await;
        if kicked == 0 {
            return Err(Error::not_found(format!("{jid} has no session here")));
        }
        tracing::info!(%jid, reason, kicked, "sessions ended by the operator");
        Ok(kicked as u64)
    }

    async fn streams(&self, domain: &str, after: &str, limit: usize) -> Result<Vec<S2sStream>, Error> {
        streams::list(self.reloader.federation.as_deref(), domain, after, limit)
    }

    async fn close_streams(&self, target: &str) -> Result<u64, Error> {
        streams::close(self.reloader.federation.as_deref(), target)
    }

    async fn export(&self, target: &str) -> Result<Chunks, Error> {
        tracing::info!(target, "accounts exported by the operator");
        self.accounts().export(target).await
    }

    async fn import(&self, chunks: Chunks, progress: Progress<'_>) -> Result<ImportReport, Error> {
        let host = self.reloader.shared.host.clone();
        let (store, options) = (host.store().clone(), host.options());
        // An actor that remembers that there is nobody of that name must look again.
        let added: Added = Arc::new(move |jid: BareJid| {
            let host = host.clone();
            tokio::spawn(async move { host.created(&jid).await });
        });
        documents::import(&store, options, Some(added), chunks, progress).await
    }

    async fn reload(&self) -> Result<Vec<String>, Error> {
        self.reloader.reload().await.map_err(|e| Error::invalid(e.to_string()))
    }

    async fn status(&self) -> Result<Status, Error> {
        let shared = &self.reloader.shared;
        let config = self.reloader.config();
        let durability = if config.store.sync { "sync" } else { "buffered" };
        Ok(Status {
            version: rookery_ops::VERSION.to_owned(),
            api_version: rookery_rpc::admin::v1::API_VERSION,
            node: self.name(),
            uptime_seconds: shared.host.uptime().as_secs(),
            not_ready: self.reloader.health.reasons().iter().map(|r| r.text().to_owned()).collect(),
            domains: config.domains.iter().map(|d| d.name.clone()).collect(),
            listeners: self.listeners.clone(),
            connections: shared.gate.counts().0 as u64,
            sessions: shared.host.sessions_here("").await.len() as u64,
            components: shared.host.connected_components().iter().map(component).collect(),
            store: match config.store.url.as_str() {
                "embedded:" => format!("embedded ({durability})"),
                url => url.trim_end_matches(':').to_owned(),
            },
        })
    }

    async fn log_level(&self, directives: &str) -> Result<String, Error> {
        self.reloader.log_level(directives).map_err(|e| Error::invalid(e.to_string()))
    }

    async fn certificates(&self) -> Result<Certificates, Error> {
        let now = self.reloader.shared.host.seams().clock.now_micros() / 1_000_000;
        let lines = self.reloader.acme.list().await.map_err(|e| super::store(&e))?;
        let certificates = lines.into_iter().map(|line| Certificate {
            name: line.name,
            source: line.source,
            issuer: line.issuer,
            expires: line.until,
            next_order: line.next,
            error: line.error,
        });
        Ok(Certificates { certificates: certificates.collect(), now: i64::try_from(now).unwrap_or(i64::MAX) })
    }

    async fn certificate_order(&self, name: &str, revoke: bool) -> Result<String, Error> {
        let ordered = self.reloader.acme.order(name, revoke).await.map_err(|e| super::store(&e))?;
        let name = ordered.ok_or_else(|| {
            Error::not_found(format!(
                "no certificate is ordered for {name}: it is neither a domain without a certificate file nor in acme.names, or \
                 there is no [acme] in the configuration"
            ))
        })?;
        tracing::info!(name, revoke, "certificate wanted by the operator");
        Ok(name)
    }

    async fn cluster_status(&self) -> Result<ClusterStatus, Error> {
        let name = self.reloader.config().cluster.as_ref().map_or_else(String::new, |c| c.name.clone());
        let sessions = self.reloader.shared.host.sessions_here("").await.len() as u64;
        Ok(cluster::status(self.member()?, name, sessions))
    }

    async fn cluster_shards(&self) -> Result<Vec<ShardGroup>, Error> {
        Ok(cluster::shards(self.member()?.mesh()))
    }

    async fn cluster_drain(&self, node: &str) -> Result<String, Error> {
        cluster::drain(self.member()?, node).await
    }

    async fn cluster_undrain(&self, node: &str) -> Result<String, Error> {
        cluster::undrain(self.member()?, node).await
    }

    async fn cluster_evict(&self, node: &str, force: bool) -> Result<String, Error> {
        cluster::evict(self.member()?, node, force).await
    }
}

/// The most bytes of a reason that an operator gives.
const REASON: usize = 1_000;

/// What clients are told whose sessions an operator ends for this reason.
fn told(reason: &str) -> Result<Cow<'static, str>, Error> {
    match reason.trim() {
        "" => Ok("the operator ended this session".into()),
        long if long.len() > REASON => {
            Err(Error::invalid(format!("the reason is longer than {REASON} bytes")))
        }
        odd if odd.chars().any(|c| !is_char(c) || c.is_control()) => {
            Err(Error::invalid("the reason holds a control character"))
        }
        reason => Ok(reason.to_owned().into()),
    }
}

fn parse(jid: &str) -> Result<Jid, Error> {
    Jid::parse(jid).map_err(|_| Error::invalid(format!("{jid:?} is no JID")))
}

/// A connected component, for people.
fn component(component: &rookery_actors::component::ConnectedComponent) -> String {
    let tls = if component.tls { ", TLS" } else { "" };
    format!("{} ({}{tls})", component.name, component.address)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_is_short_and_xml() {
        assert_eq!(told(" ").unwrap(), "the operator ended this session");
        assert_eq!(told(" <maintenance> & more \u{1f6e0}").unwrap(), "<maintenance> & more \u{1f6e0}");
        assert_eq!(told(&"x".repeat(REASON)).unwrap().len(), REASON);
        for wrong in ["a\0b", "a\u{1b}[2Jb", "a\nb", "\u{ffff}", &"x".repeat(REASON + 1)] {
            assert_eq!(told(wrong).unwrap_err().kind, admin::Kind::Invalid, "{wrong:?}");
        }
    }
}
