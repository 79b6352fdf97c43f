//! The client end of the admin socket: the [`Admin`] trait over gRPC.

use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt as _;
use std::time::Duration;

use rookery_rpc::admin::v1;
use rookery_rpc::admin::v1::admin_client::AdminClient;
use tokio::net::UnixStream;
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;
use tokio_stream::wrappers::ReceiverStream;
use tokio_stream::{StreamExt as _, once};
use tonic::transport::{Channel, Endpoint};

use super::{
    Address, Admin, Certificates, Chunks, ClusterStatus, Error, ImportReport, Progress, S2sStream, Session,
    ShardGroup, Status, User, UserImportLine,
};
use crate::secret::Password;

/// How long a node may take to accept.
const CONNECT: Duration = Duration::from_secs(5);

/// Chunks of a document that wait to be sent.
const AHEAD: usize = 4;

/// A node, reached through its admin socket.
#[derive(Debug, Clone)]
pub struct Remote(AdminClient<Channel>);

/// Connects to the node that listens at `address`; `None` if none does.
///
/// # Errors
/// [`super::Kind::Unavailable`] if there is a node that cannot be reached: the socket belongs to another user, or it
/// does not accept.
pub async fn connect(address: &Address) -> Result<Option<Remote>, Error> {
    let path = address.path();
    let refused = |why: String| Error::unavailable(format!("the node at {address} cannot be reached: {why}"));
    let stream = match timeout(CONNECT, UnixStream::connect(path)).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::ConnectionRefused) => {
            return Ok(None);
        }
        Ok(Err(error)) if error.kind() == ErrorKind::PermissionDenied => {
            let owner =
                std::fs::metadata(path).map_or("its owner".to_owned(), |at| format!("user {}", at.uid()));
            return Err(refused(format!(
                "only {owner} and root may open its socket; run this as one of them"
            )));
        }
        Ok(Err(error)) => return Err(refused(error.to_string())),
        Err(_) => return Err(refused("the node does not accept connections; is it overloaded?".to_owned())),
    };
    check_peer(&stream).map_err(refused)?;
    let endpoint = Endpoint::from_shared(address.to_string()).map_err(|error| refused(error.to_string()))?;
    let channel = endpoint.connect().await.map_err(|error| refused(error.to_string()))?;
    Ok(Some(Remote(AdminClient::new(channel))))
}

/// What to say when a command needs a node and [`connect`] found none.
pub fn not_running(address: &Address) -> Error {
    Error::unavailable(format!(
        "no node answers at {address}: is it running? Start it with `rookery serve`, or name its socket with --admin or \
         its configuration with --config"
    ))
}

/// A password is only told to a server of our own user or of root's; root may tell anyone.
fn check_peer(stream: &UnixStream) -> Result<(), String> {
    let server = stream.peer_cred().map_err(|error| error.to_string())?.uid();
    // The effective user of this process, as Linux shows it; elsewhere the file's mode must do.
    let Ok(me) = std::fs::metadata("/proc/self") else { return Ok(()) };
    if server == 0 || me.uid() == 0 || server == me.uid() {
        return Ok(());
    }
    Err(format!("the node runs as user {server}, and this command as user {}", me.uid()))
}

impl Remote {
    fn client(&self) -> AdminClient<Channel> {
        self.0.clone()
    }
}

impl Admin for Remote {
    async fn user_add(&self, jid: &str, password: &Password) -> Result<(), Error> {
        let request = v1::UserAddRequest { jid: jid.to_owned(), password: password.as_str().to_owned() };
        self.client().user_add(request).await?;
        Ok(())
    }

    async fn user_passwd(&self, jid: &str, password: &Password) -> Result<(), Error> {
        let request = v1::UserPasswdRequest { jid: jid.to_owned(), password: password.as_str().to_owned() };
        self.client().user_passwd(request).await?;
        Ok(())
    }

    async fn user_remove(&self, jid: &str) -> Result<(), Error> {
        self.client().user_remove(v1::UserRemoveRequest { jid: jid.to_owned() }).await?;
        Ok(())
    }

    async fn user_list(&self, domain: &str, after: &str, limit: usize) -> Result<Vec<User>, Error> {
        let limit = page_limit(limit);
        let request = v1::UserListRequest { domain: domain.to_owned(), after: after.to_owned(), limit };
        let mut pages = self.client().user_list(request).await?.into_inner();
        let mut users = Vec::new();
        while let Some(page) = pages.message().await? {
            users.extend(page.users);
        }
        Ok(users)
    }

    async fn user_import(&self, batch: Vec<UserImportLine>) -> Result<ImportReport, Error> {
        let mut replies =
            self.client().user_import(once(v1::UserImportRequest { lines: batch })).await?.into_inner();
        let mut total = ImportReport::default();
        while let Some(reply) = replies.message().await? {
            super::add_report(&mut total, reply.report.unwrap_or_default());
        }
        Ok(total)
    }

    async fn sessions(&self, filter: &str, after: &str, limit: usize) -> Result<Vec<Session>, Error> {
        let limit = page_limit(limit);
        let request = v1::SessionListRequest { filter: filter.to_owned(), after: after.to_owned(), limit };
        let mut pages = self.client().session_list(request).await?.into_inner();
        let mut sessions = Vec::new();
        while let Some(page) = pages.message().await? {
            sessions.extend(page.sessions);
        }
        Ok(sessions)
    }

    async fn kick(&self, jid: &str, reason: &str) -> Result<u64, Error> {
        let request = v1::SessionKickRequest { jid: jid.to_owned(), reason: reason.to_owned() };
        Ok(self.client().session_kick(request).await?.into_inner().kicked)
    }

    async fn streams(&self, domain: &str, after: &str, limit: usize) -> Result<Vec<S2sStream>, Error> {
        let limit = page_limit(limit);
        let request = v1::StreamListRequest { domain: domain.to_owned(), after: after.to_owned(), limit };
        let mut pages = self.client().stream_list(request).await?.into_inner();
        let mut streams = Vec::new();
        while let Some(page) = pages.message().await? {
            streams.extend(page.streams);
        }
        Ok(streams)
    }

    async fn close_streams(&self, target: &str) -> Result<u64, Error> {
        let request = v1::StreamCloseRequest { target: target.to_owned() };
        Ok(self.client().stream_close(request).await?.into_inner().closed)
    }

    async fn export(&self, target: &str) -> Result<Chunks, Error> {
        let replies =
            self.client().export(v1::ExportRequest { target: target.to_owned() }).await?.into_inner();
        Ok(Box::pin(replies.map(|reply| reply.map(|reply| reply.chunk).map_err(Error::from))))
    }

    async fn import(&self, mut chunks: Chunks, progress: Progress<'_>) -> Result<ImportReport, Error> {
        let (sender, receiver) = mpsc::channel(AHEAD);
        let (fail, failed) = oneshot::channel();
        // A document that could not be read to its end must not look to the node as if it ended there. So on an error
        // the request's stream stays open, and the whole call is dropped, which the node sees as cancelled.
        let feed = async move {
            while let Some(chunk) = chunks.next().await {
                match chunk {
                    Ok(chunk) => {
                        if sender.send(v1::ImportRequest { chunk }).await.is_err() {
                            break; // The call is over; it says why.
                        }
                    }
                    Err(error) => {
                        let _ = fail.send(error);
                        return std::future::pending().await;
                    }
                }
            }
            drop(sender);
        };
        let mut client = self.client();
        let call = async {
            let mut replies = client.import(ReceiverStream::new(receiver)).await?.into_inner();
            while let Some(reply) = replies.message().await? {
                let report = reply.report.unwrap_or_default();
                if reply.done {
                    return Ok(report);
                }
                progress(&report);
            }
            Err(Error::unavailable("the node closed the connection before the import was finished"))
        };
        let fed = async {
            feed.await;
            std::future::pending::<()>().await;
        };
        tokio::select! {
            result = call => result,
            Ok(error) = failed => Err(error),
            () = fed => Err(Error::internal("the import ended unexpectedly")),
        }
    }

    async fn reload(&self) -> Result<Vec<String>, Error> {
        Ok(self.client().reload(v1::ReloadRequest {}).await?.into_inner().notes)
    }

    async fn status(&self) -> Result<Status, Error> {
        Ok(self.client().status(v1::StatusRequest {}).await?.into_inner())
    }

    async fn log_level(&self, directives: &str) -> Result<String, Error> {
        let request = v1::LogLevelRequest { directives: directives.to_owned() };
        Ok(self.client().log_level(request).await?.into_inner().previous)
    }

    async fn certificates(&self) -> Result<Certificates, Error> {
        Ok(self.client().certificate_list(v1::CertificateListRequest {}).await?.into_inner())
    }

    async fn certificate_order(&self, name: &str, revoke: bool) -> Result<String, Error> {
        let request = v1::CertificateOrderRequest { name: name.to_owned(), revoke };
        Ok(self.client().certificate_order(request).await?.into_inner().name)
    }

    async fn cluster_status(&self) -> Result<ClusterStatus, Error> {
        Ok(self.client().cluster_status(v1::ClusterStatusRequest {}).await?.into_inner())
    }

    async fn cluster_shards(&self) -> Result<Vec<ShardGroup>, Error> {
        Ok(self.client().cluster_shards(v1::ClusterShardsRequest {}).await?.into_inner().groups)
    }

    async fn cluster_drain(&self, node: &str) -> Result<String, Error> {
        let request = v1::ClusterDrainRequest { node: node.to_owned() };
        Ok(self.client().cluster_drain(request).await?.into_inner().node)
    }

    async fn cluster_undrain(&self, node: &str) -> Result<String, Error> {
        let request = v1::ClusterUndrainRequest { node: node.to_owned() };
        Ok(self.client().cluster_undrain(request).await?.into_inner().node)
    }

    async fn cluster_evict(&self, node: &str, force: bool) -> Result<String, Error> {
        let request = v1::ClusterEvictRequest { node: node.to_owned(), force };
        Ok(self.client().cluster_evict(request).await?.into_inner().node)
    }
}

/// On the wire 0 means all, which is more than a page.
fn page_limit(limit: usize) -> u64 {
    u64::try_from(limit.clamp(1, super::PAGE)).unwrap_or(1)
}
