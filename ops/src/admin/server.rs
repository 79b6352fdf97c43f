//! The server end of the admin socket: gRPC to the [`Admin`] trait, one method each.
//!
//! Length: one method for each request, a few lines each.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use rookery_rpc::admin::v1;
use rookery_rpc::admin::v1::admin_server::{Admin as Rpc, AdminServer};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{mpsc, oneshot};
use tokio_stream::wrappers::ReceiverStream;
use tokio_stream::{Stream, StreamExt as _};
use tonic::{Request, Response, Status, Streaming};

use super::{Admin, Error, ImportReport, PAGE, Socket};
use crate::secret::Password;

/// How long requests may go on after the stop.
const GRACE: Duration = Duration::from_secs(5);

/// Requests at a time on one connection.
const CONCURRENT: usize = 16;

/// How long to wait after a caller that could not be accepted.
const PAUSE: Duration = Duration::from_millis(100);

/// Responses that wait for a reader.
const AHEAD: usize = 4;

/// Serves `admin` on `socket` until `stop` completes; then lets open requests end within five seconds, and removes the
/// socket.
///
/// # Errors
/// [`super::Kind::Internal`] if the socket breaks.
pub async fn serve<A: Admin>(
    mut socket: Socket,
    admin: Arc<A>,
    stop: impl Future<Output = ()> + Send,
) -> Result<(), Error> {
    let Some(listener) = socket.listener.take() else {
        return Err(Error::internal("the admin socket is served already"));
    };
    let owner = socket.owner;
    let (sender, callers) = mpsc::channel(1);
    let accepting = accept(listener, owner, sender);
    let (stopped, grace) = oneshot::channel();
    let stop = async move {
        stop.await;
        let _ = stopped.send(());
    };
    let server = tonic::transport::Server::builder()
        .concurrency_limit_per_connection(CONCURRENT)
        .add_service(AdminServer::new(Service(admin)))
        .serve_with_incoming_shutdown(ReceiverStream::new(callers), stop);
    tokio::select! {
        never = accepting => never,
        served = server => served.map_err(|error| Error::internal(format!("the admin socket failed: {error}"))),
        () = async {
            let _ = grace.await;
            tokio::time::sleep(GRACE).await;
        } => Ok(()),
    }
}

/// Accepts until nobody takes callers any more.
async fn accept(
    listener: UnixListener,
    owner: u32,
    callers: mpsc::Sender<io::Result<UnixStream>>,
) -> Result<(), Error> {
    loop {
        match listener.accept().await {
            Ok((caller, _)) if may_call(&caller, owner) => {
                if callers.send(Ok(caller)).await.is_err() {
                    return std::future::pending().await; // the server ends
                }
            }
            Ok(_) => {}
            // Out of file descriptors: trying again at once would burn a processor and help nobody.
            Err(error) => {
                tracing::warn!(%error, "admin: a connection could not be accepted");
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}

/// Only the node's own user and root: the file's mode says so too, but there is a moment before it is set.
fn may_call(caller: &UnixStream, owner: u32) -> bool {
    match caller.peer_cred() {
        Ok(peer) if peer.uid() == owner || peer.uid() == 0 => true,
        Ok(peer) => {
            tracing::warn!(uid = peer.uid(), "admin: connection refused: wrong user");
            false
        }
        Err(_) => false,
    }
}

struct Service<A>(Arc<A>);

/// Counts the answer to `method` and puts it on the wire.
fn answer<T>(method: &'static str, result: Result<T, Error>) -> Result<T, Status> {
    let outcome = result.as_ref().err().map_or("ok", |error| error.kind.name());
    metrics::counter!("rookery_admin_requests_total", "method" => method, "outcome" => outcome).increment(1);
    result.map_err(Status::from)
}

type Replies<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// Answers with what `work` sends. The work ends early when the caller goes away.
fn replies<T, F, W>(method: &'static str, work: W) -> Response<Replies<T>>
where
    T: Send + 'static,
    F: Future<Output = Result<(), Error>> + Send,
    W: FnOnce(mpsc::Sender<Result<T, Status>>) -> F + Send + 'static,
{
    let (sender, receiver) = mpsc::channel(AHEAD);
    tokio::spawn(async move {
        let work = work(sender.clone());
        tokio::select! {
            result = work => if let Err(status) = answer(method, result) {
                let _ = sender.send(Err(status)).await;
            },
            () = sender.closed() => {
                let _ = answer::<()>(method, Err(Error::unavailable("the client of the admin socket disconnected")));
            }
        }
    });
    Response::new(Box::pin(ReceiverStream::new(receiver)))
}

/// The caller went away: not the node's error, and the work stops anyway.
async fn send<T>(sender: &mpsc::Sender<Result<T, Status>>, reply: T) -> Result<(), Error> {
    sender
        .send(Ok(reply))
        .await
        .map_err(|_| Error::unavailable("the client of the admin socket disconnected"))
}

/// Sends pages that `next(after, limit)` gives until there are no more or `limit` entries (0: all) were sent.
async fn pages<T, P, N, F>(
    limit: u64,
    after: String,
    sender: mpsc::Sender<Result<P, Status>>,
    next: N,
    key: fn(&T) -> &str,
    page: fn(Vec<T>) -> P,
) -> Result<(), Error>
where
    N: Fn(String, usize) -> F,
    F: Future<Output = Result<Vec<T>, Error>>,
{
    let mut left = if limit == 0 { u64::MAX } else { limit };
    let mut after = after;
    while left > 0 {
        let size = usize::try_from(left).unwrap_or(PAGE).min(PAGE);
        let entries = next(after, size).await?;
        let Some(last) = entries.last() else { break };
        after = key(last).to_owned();
        left = left.saturating_sub(u64::try_from(entries.len()).unwrap_or(u64::MAX));
        send(&sender, page(entries)).await?;
    }
    Ok(())
}

#[tonic::async_trait]
impl<A: Admin> Rpc for Service<A> {
    type UserListStream = Replies<v1::UserListResponse>;
    type UserImportStream = Replies<v1::UserImportResponse>;
    type SessionListStream = Replies<v1::SessionListResponse>;
    type StreamListStream = Replies<v1::StreamListResponse>;
    type ExportStream = Replies<v1::ExportResponse>;
    type ImportStream = Replies<v1::ImportResponse>;

    async fn user_add(
        &self,
        request: Request<v1::UserAddRequest>,
    ) -> Result<Response<v1::UserAddResponse>, Status> {
        let v1::UserAddRequest { jid, password } = request.into_inner();
        let result = match Password::new(password) {
            Ok(password) => self.0.user_add(&jid, &password).await,
            Err(error) => Err(error.into()),
        };
        answer("user_add", result)?;
        tracing::info!(jid, "admin: account created");
        Ok(Response::new(v1::UserAddResponse {}))
    }

    async fn user_passwd(
        &self,
        request: Request<v1::UserPasswdRequest>,
    ) -> Result<Response<v1::UserPasswdResponse>, Status> {
        let v1::UserPasswdRequest { jid, password } = request.into_inner();
        let result = match Password::new(password) {
            Ok(password) => self.0.user_passwd(&jid, &password).await,
            Err(error) => Err(error.into()),
        };
        answer("user_passwd", result)?;
        tracing::info!(jid, "admin: password set");
        Ok(Response::new(v1::UserPasswdResponse {}))
    }

    async fn user_remove(
        &self,
        request: Request<v1::UserRemoveRequest>,
    ) -> Result<Response<v1::UserRemoveResponse>, Status> {
        let jid = request.into_inner().jid;
        answer("user_remove", self.0.user_remove(&jid).await)?;
        tracing::info!(jid, "admin: account removed");
        Ok(Response::new(v1::UserRemoveResponse {}))
    }

    async fn user_list(
        &self,
        request: Request<v1::UserListRequest>,
    ) -> Result<Response<Self::UserListStream>, Status> {
        let v1::UserListRequest { domain, after, limit } = request.into_inner();
        let admin = Arc::clone(&self.0);
        Ok(replies("user_list", move |sender| async move {
            let next = |after: String, size| {
                let (admin, domain) = (&admin, &domain);
                async move { admin.user_list(domain, &after, size).await }
            };
            pages(limit, after, sender, next, |user| &user.jid, |users| v1::UserListResponse { users }).await
        }))
    }

    async fn user_import(
        &self,
        request: Request<Streaming<v1::UserImportRequest>>,
    ) -> Result<Response<Self::UserImportStream>, Status> {
        let (admin, mut batches) = (Arc::clone(&self.0), request.into_inner());
        Ok(replies("user_import", move |sender| async move {
            let mut total = ImportReport::default();
            while let Some(batch) = batches.message().await? {
                if batch.lines.len() > v1::MAX_IMPORT_LINES {
                    return Err(Error::limit(format!(
                        "a batch holds at most {} lines",
                        v1::MAX_IMPORT_LINES
                    )));
                }
                let report = admin.user_import(batch.lines).await?;
                super::add_report(&mut total, report.clone());
                send(&sender, v1::UserImportResponse { report: Some(report) }).await?;
            }
            tracing::info!(
                added = total.added,
                skipped = total.skipped,
                failed = total.failed,
                "admin: accounts imported"
            );
            Ok(())
        }))
    }

    async fn session_list(
        &self,
        request: Request<v1::SessionListRequest>,
    ) -> Result<Response<Self::SessionListStream>, Status> {
        let v1::SessionListRequest { filter, after, limit } = request.into_inner();
        let admin = Arc::clone(&self.0);
        Ok(replies("session_list", move |sender| async move {
            let next = |after: String, size| {
                let (admin, filter) = (&admin, &filter);
                async move { admin.sessions(filter, &after, size).await }
            };
            let page = |sessions| v1::SessionListResponse { sessions };
            pages(limit, after, sender, next, |session| &session.jid, page).await
        }))
    }

    async fn session_kick(
        &self,
        request: Request<v1::SessionKickRequest>,
    ) -> Result<Response<v1::SessionKickResponse>, Status> {
        let v1::SessionKickRequest { jid, reason } = request.into_inner();
        let kicked = answer("session_kick", self.0.kick(&jid, &reason).await)?;
        tracing::info!(jid, kicked, "admin: sessions ended");
        Ok(Response::new(v1::SessionKickResponse { kicked }))
    }

    async fn stream_list(
        &self,
        request: Request<v1::StreamListRequest>,
    ) -> Result<Response<Self::StreamListStream>, Status> {
        let v1::StreamListRequest { domain, after, limit } = request.into_inner();
        let admin = Arc::clone(&self.0);
        Ok(replies("stream_list", move |sender| async move {
            let next = |after: String, size| {
                let (admin, domain) = (&admin, &domain);
                async move { admin.streams(domain, &after, size).await }
            };
            let page = |streams| v1::StreamListResponse { streams };
            pages(limit, after, sender, next, |stream| &stream.id, page).await
        }))
    }

    async fn stream_close(
        &self,
        request: Request<v1::StreamCloseRequest>,
    ) -> Result<Response<v1::StreamCloseResponse>, Status> {
        let target = request.into_inner().target;
        let closed = answer("stream_close", self.0.close_streams(&target).await)?;
        tracing::info!(stream = target, closed, "admin: streams closed");
        Ok(Response::new(v1::StreamCloseResponse { closed }))
    }

    async fn export(
        &self,
        request: Request<v1::ExportRequest>,
    ) -> Result<Response<Self::ExportStream>, Status> {
        let (admin, target) = (Arc::clone(&self.0), request.into_inner().target);
        Ok(replies("export", move |sender| async move {
            let mut chunks = admin.export(&target).await?;
            while let Some(chunk) = chunks.next().await {
                send(&sender, v1::ExportResponse { chunk: chunk? }).await?;
            }
            tracing::info!(target_jid = target, "admin: exported");
            Ok(())
        }))
    }

    async fn import(
        &self,
        request: Request<Streaming<v1::ImportRequest>>,
    ) -> Result<Response<Self::ImportStream>, Status> {
        let (admin, chunks) = (Arc::clone(&self.0), request.into_inner());
        Ok(replies("import", move |sender| async move {
            let chunks = Box::pin(chunks.map(|chunk| chunk.map(|chunk| chunk.chunk).map_err(Error::from)));
            // Progress is for people: what does not fit is left out, the next one says more.
            let progress = |report: &ImportReport| {
                let _ = sender.try_send(Ok(v1::ImportResponse { report: Some(report.clone()), done: false }));
            };
            let report = admin.import(chunks, &progress).await?;
            tracing::info!(
                added = report.added,
                skipped = report.skipped,
                failed = report.failed,
                "admin: imported"
            );
            send(&sender, v1::ImportResponse { report: Some(report), done: true }).await
        }))
    }

    async fn reload(
        &self,
        _request: Request<v1::ReloadRequest>,
    ) -> Result<Response<v1::ReloadResponse>, Status> {
        let notes = answer("reload", self.0.reload().await)?;
        Ok(Response::new(v1::ReloadResponse { notes }))
    }

    async fn status(
        &self,
        _request: Request<v1::StatusRequest>,
    ) -> Result<Response<v1::StatusResponse>, Status> {
        let status = answer("status", self.0.status().await)?;
        Ok(Response::new(v1::StatusResponse {
            version: crate::VERSION.to_owned(),
            api_version: v1::API_VERSION,
            ..status
        }))
    }

    async fn log_level(
        &self,
        request: Request<v1::LogLevelRequest>,
    ) -> Result<Response<v1::LogLevelResponse>, Status> {
        let directives = request.into_inner().directives;
        let previous = answer("log_level", self.0.log_level(&directives).await)?;
        tracing::info!(directives, previous, "admin: log level set");
        Ok(Response::new(v1::LogLevelResponse { previous }))
    }

    async fn certificate_list(
        &self,
        _request: Request<v1::CertificateListRequest>,
    ) -> Result<Response<v1::CertificateListResponse>, Status> {
        Ok(Response::new(answer("certificate_list", self.0.certificates().await)?))
    }

    async fn certificate_order(
        &self,
        request: Request<v1::CertificateOrderRequest>,
    ) -> Result<Response<v1::CertificateOrderResponse>, Status> {
        let v1::CertificateOrderRequest { name, revoke } = request.into_inner();
        let name = answer("certificate_order", self.0.certificate_order(&name, revoke).await)?;
        tracing::info!(name, revoke, "admin: a certificate is to be ordered");
        Ok(Response::new(v1::CertificateOrderResponse { name }))
    }

    async fn cluster_status(
        &self,
        _request: Request<v1::ClusterStatusRequest>,
    ) -> Result<Response<v1::ClusterStatusResponse>, Status> {
        Ok(Response::new(answer("cluster_status", self.0.cluster_status().await)?))
    }

    async fn cluster_shards(
        &self,
        _request: Request<v1::ClusterShardsRequest>,
    ) -> Result<Response<v1::ClusterShardsResponse>, Status> {
        let groups = answer("cluster_shards", self.0.cluster_shards().await)?;
        Ok(Response::new(v1::ClusterShardsResponse { groups }))
    }

    async fn cluster_drain(
        &self,
        request: Request<v1::ClusterDrainRequest>,
    ) -> Result<Response<v1::ClusterDrainResponse>, Status> {
        let node = answer("cluster_drain", self.0.cluster_drain(&request.into_inner().node).await)?;
        tracing::info!(node, "admin: node is draining");
        Ok(Response::new(v1::ClusterDrainResponse { node }))
    }

    async fn cluster_undrain(
        &self,
        request: Request<v1::ClusterUndrainRequest>,
    ) -> Result<Response<v1::ClusterUndrainResponse>, Status> {
        let node = answer("cluster_undrain", self.0.cluster_undrain(&request.into_inner().node).await)?;
        tracing::info!(node, "admin: node is undrained");
        Ok(Response::new(v1::ClusterUndrainResponse { node }))
    }

    async fn cluster_evict(
        &self,
        request: Request<v1::ClusterEvictRequest>,
    ) -> Result<Response<v1::ClusterEvictResponse>, Status> {
        let v1::ClusterEvictRequest { node, force } = request.into_inner();
        let node = answer("cluster_evict", self.0.cluster_evict(&node, force).await)?;
        tracing::warn!(node, force, "admin: node declared dead");
        Ok(Response::new(v1::ClusterEvictResponse { node }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::testing::{Fake, Node};
    use crate::admin::{Kind, UserImportLine, connect};

    #[tokio::test]
    async fn the_server_does_not_trust_its_clients() {
        let node = Node::start(Fake::default()).await;
        let line = UserImportLine { line: 1, jid: "a@b".into(), password: "x".into() };
        let error = node.remote.user_import(vec![line; v1::MAX_IMPORT_LINES + 1]).await.unwrap_err();
        assert_eq!(error.kind, Kind::Limit, "{error}");
        assert!(node.fake.batches.lock().unwrap().is_empty());

        let endpoint = tonic::transport::Endpoint::from_shared(node.address.to_string()).unwrap();
        let mut raw = v1::admin_client::AdminClient::new(endpoint.connect().await.unwrap());
        let request = v1::UserAddRequest { jid: "a@b".into(), password: String::new() };
        let status = raw.user_add(request).await.unwrap_err();
        assert_eq!(
            (status.code(), status.message()),
            (tonic::Code::InvalidArgument, "the password is empty")
        );
        drop(raw);
        node.stop().await;
    }

    #[tokio::test]
    async fn many_callers_are_served_at_once() {
        let node = Node::start(Fake::with_users(2_000)).await;
        let mut calls = tokio::task::JoinSet::new();
        for n in 0..40 {
            let address = node.address.clone();
            calls.spawn(async move {
                let remote = connect(&address).await.unwrap().unwrap();
                let password = Password::new("secret").unwrap();
                remote.user_add(&format!("new{n}@example.org"), &password).await.unwrap();
                assert_eq!(
                    remote.user_list("example.org", "user00999@example.org", 10).await.unwrap().len(),
                    10
                );
            });
        }
        calls.join_all().await;
        assert_eq!(node.fake.users.lock().unwrap().len(), 2_040);
        node.stop().await;
    }
}
