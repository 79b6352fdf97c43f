//! A node that is not there: [`Admin`] over a map, for tests of the wire and of the commands.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use tokio::sync::oneshot;
use tokio_stream::StreamExt as _;

use super::{
    Address, Admin, Certificate, Certificates, Chunks, ClusterStatus, Error, ImportReport, Progress,
    S2sStream, Session, ShardGroup, ShardRange, Socket, Status, User, UserImportLine, add_failure, connect,
    serve,
};
use crate::secret::Password;

/// Accounts and their passwords; everything else is canned.
#[derive(Default)]
pub(crate) struct Fake {
    pub(crate) users: Mutex<BTreeMap<String, String>>,
    pub(crate) sessions: Mutex<Vec<Session>>,
    pub(crate) streams: Mutex<Vec<S2sStream>>,
    pub(crate) batches: Mutex<Vec<usize>>,
    /// What the cluster looks like, one time after another; the last stays.
    pub(crate) clusters: Mutex<Vec<ClusterStatus>>,
    pub(crate) certificates: Mutex<Vec<Certificate>>,
    pub(crate) documents: Mutex<Vec<Result<Vec<u8>, Error>>>,
}

fn check(jid: &str) -> Result<(), Error> {
    if jid.contains('@') { Ok(()) } else { Err(Error::invalid(format!("{jid:?} is no bare JID"))) }
}

impl Fake {
    pub(crate) fn with_users(count: usize) -> Self {
        let users = (0..count).map(|n| (format!("user{n:05}@example.org"), "x".to_owned())).collect();
        Self { users: Mutex::new(users), ..Self::default() }
    }

    pub(crate) fn password(&self, jid: &str) -> Option<String> {
        self.users.lock().unwrap().get(jid).cloned()
    }
}

impl Admin for Fake {
    async fn user_add(&self, jid: &str, password: &Password) -> Result<(), Error> {
        check(jid)?;
        let mut users = self.users.lock().unwrap();
        if users.contains_key(jid) {
            return Err(Error::exists(format!("{jid} exists")));
        }
        users.insert(jid.to_owned(), password.as_str().to_owned());
        Ok(())
    }

    async fn user_passwd(&self, jid: &str, password: &Password) -> Result<(), Error> {
        let mut users = self.users.lock().unwrap();
        let slot = users.get_mut(jid).ok_or_else(|| Error::not_found(format!("{jid} does not exist")))?;
        *slot = password.as_str().to_owned();
        Ok(())
    }

    async fn user_remove(&self, jid: &str) -> Result<(), Error> {
        let removed = self.users.lock().unwrap().remove(jid);
        removed.map(drop).ok_or_else(|| Error::not_found(format!("{jid} does not exist")))
    }

    async fn user_list(&self, domain: &str, after: &str, limit: usize) -> Result<Vec<User>, Error> {
        assert!(limit <= super::PAGE);
        let users = self.users.lock().unwrap();
        let of_domain = |jid: &&String| domain.is_empty() || jid.ends_with(&format!("@{domain}"));
        let after = users.keys().filter(|jid| jid.as_str() > after).filter(of_domain);
        Ok(after.take(limit).map(|jid| User { jid: jid.clone() }).collect())
    }

    async fn user_import(&self, batch: Vec<UserImportLine>) -> Result<ImportReport, Error> {
        self.batches.lock().unwrap().push(batch.len());
        let mut report = ImportReport::default();
        for UserImportLine { line, jid, password } in batch {
            match self.user_add(&jid, &Password::new(password).unwrap()).await {
                Ok(()) => report.added += 1,
                Err(error) if error.kind == super::Kind::Exists => report.skipped += 1,
                Err(error) => add_failure(&mut report, line, error.message),
            }
        }
        Ok(report)
    }

    async fn sessions(&self, filter: &str, after: &str, limit: usize) -> Result<Vec<Session>, Error> {
        let sessions = self.sessions.lock().unwrap();
        let wanted = sessions.iter().filter(|s| s.jid.starts_with(filter) && s.jid.as_str() > after);
        Ok(wanted.take(limit).cloned().collect())
    }

    async fn kick(&self, jid: &str, _reason: &str) -> Result<u64, Error> {
        let mut sessions = self.sessions.lock().unwrap();
        let before = sessions.len();
        sessions.retain(|session| !session.jid.starts_with(jid));
        match before - sessions.len() {
            0 => Err(Error::not_found(format!("{jid} has no session"))),
            kicked => Ok(kicked as u64),
        }
    }

    async fn streams(&self, domain: &str, after: &str, limit: usize) -> Result<Vec<S2sStream>, Error> {
        let streams = self.streams.lock().unwrap();
        let of = |s: &&S2sStream| domain.is_empty() || s.pairs.iter().any(|pair| pair.remote == domain);
        Ok(streams.iter().filter(|s| s.id.as_str() > after).filter(of).take(limit).cloned().collect())
    }

    async fn close_streams(&self, target: &str) -> Result<u64, Error> {
        let mut streams = self.streams.lock().unwrap();
        let before = streams.len();
        streams.retain(|s| s.id != target && s.pairs.iter().all(|pair| pair.remote != target));
        match before - streams.len() {
            0 => Err(Error::not_found(format!("{target} has no stream"))),
            closed => Ok(closed as u64),
        }
    }

    async fn export(&self, target: &str) -> Result<Chunks, Error> {
        if target == "broken.example" {
            let pieces = [Ok(Bytes::from("<server-data>")), Err(Error::internal("the store broke"))];
            return Ok(Box::pin(tokio_stream::iter(pieces)));
        }
        if self.password(target).is_none() {
            return Err(Error::not_found(format!("{target} does not exist")));
        }
        let pieces = ["<server-data>", target, "</server-data>"].map(|text| Ok(Bytes::from(text.to_owned())));
        Ok(Box::pin(tokio_stream::iter(pieces)))
    }

    async fn import(&self, mut chunks: Chunks, progress: Progress<'_>) -> Result<ImportReport, Error> {
        let (mut document, mut report) = (Vec::new(), ImportReport::default());
        while let Some(chunk) = chunks.next().await {
            match chunk {
                Ok(chunk) => document.extend_from_slice(&chunk),
                Err(error) => {
                    self.documents.lock().unwrap().push(Err(error.clone()));
                    return Err(error);
                }
            }
            report.added += 1;
            progress(&report);
        }
        self.documents.lock().unwrap().push(Ok(document));
        Ok(report)
    }

    async fn reload(&self) -> Result<Vec<String>, Error> {
        Ok(vec!["limits: changed".to_owned()])
    }

    async fn status(&self) -> Result<Status, Error> {
        Ok(Status {
            node: "n1".into(),
            uptime_seconds: 93_784,
            domains: vec!["example.org".into()],
            ..Status::default()
        })
    }

    async fn log_level(&self, directives: &str) -> Result<String, Error> {
        crate::logging::check(directives)?;
        Ok("info".to_owned())
    }

    async fn certificates(&self) -> Result<Certificates, Error> {
        Ok(Certificates { certificates: self.certificates.lock().unwrap().clone(), now: 1_000_000 })
    }

    async fn certificate_order(&self, name: &str, revoke: bool) -> Result<String, Error> {
        if self.certificates.lock().unwrap().iter().any(|certificate| certificate.name == name) {
            return Ok(if revoke { format!("{name} (revoked)") } else { name.to_owned() });
        }
        Err(Error::not_found(format!("no certificate is ordered for {name}")))
    }

    async fn cluster_status(&self) -> Result<ClusterStatus, Error> {
        let mut clusters = self.clusters.lock().unwrap();
        match clusters.len() {
            0 => Err(Error::unavailable("n1 is alone")),
            1 => Ok(clusters[0].clone()),
            _ => Ok(clusters.remove(0)),
        }
    }

    async fn cluster_shards(&self) -> Result<Vec<ShardGroup>, Error> {
        let group = |owner: &str, desired: &str, ranges: &[(u32, u32)]| ShardGroup {
            owner: owner.into(),
            desired: desired.into(),
            ranges: ranges.iter().map(|&(first, last)| ShardRange { first, last }).collect(),
        };
        Ok(vec![
            group("n1", "n1", &[(0, 2), (4, 4)]),
            group("n1", "n2", &[(3, 3)]),
            group("", "n2", &[(5, 1023)]),
        ])
    }

    async fn cluster_drain(&self, node: &str) -> Result<String, Error> {
        Ok(if node == "self" { "n1" } else { node }.to_owned())
    }

    async fn cluster_undrain(&self, node: &str) -> Result<String, Error> {
        self.cluster_drain(node).await
    }

    async fn cluster_evict(&self, node: &str, force: bool) -> Result<String, Error> {
        if force { Ok(node.to_owned()) } else { Err(Error::invalid(format!("{node} beats"))) }
    }
}

/// A fake node behind a real socket in a folder of its own.
pub(crate) struct Node {
    pub(crate) fake: Arc<Fake>,
    pub(crate) address: Address,
    pub(crate) remote: super::Remote,
    stop: oneshot::Sender<()>,
    task: tokio::task::JoinHandle<Result<(), Error>>,
    _folder: tempfile::TempDir,
}

impl Node {
    pub(crate) async fn start(fake: Fake) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let address = Address::new(&folder.path().join("admin.sock")).unwrap();
        let socket = Socket::bind(&address).await.unwrap();
        let (fake, (stop, stopped)) = (Arc::new(fake), oneshot::channel());
        let task = tokio::spawn(serve(socket, Arc::clone(&fake), async {
            let _ = stopped.await;
        }));
        let remote = connect(&address).await.unwrap().unwrap();
        Self { fake, address, remote, stop, task, _folder: folder }
    }

    /// Stops it, with no client left, and checks that it removed its socket.
    pub(crate) async fn stop(self) {
        let Self { address, remote, stop, task, .. } = self;
        drop(remote);
        stop.send(()).unwrap();
        task.await.unwrap().unwrap();
        assert!(!address.path().exists());
        assert!(connect(&address).await.unwrap().is_none());
    }
}
