//! The ways from other nodes: accepts connections, checks the callers, hands envelopes on and sends outcomes back.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use rookery_rpc::mesh::v1 as wire;
use rookery_rpc::mesh::v1::mesh_server::{Mesh, MeshServer};
use rookery_rpc::mesh::v1::refusal::Reason;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::time::{Sleep, sleep, timeout};
use tokio_stream::Stream;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::server::Connected;
use tonic::{Request, Response, Status, Streaming};

use super::Receiver;
use super::envelope::MESSAGE_MAX;
use super::hello::{self, No};
use super::inbox::{self, Inbox};
use super::meters::{self, FromPeer};
use super::net::{Accept, Io};
use super::node::NodeId;
use super::outbox::Next;
use super::shared::{Shared, WINDOW_CONNECTION, WINDOW_STREAM};
use super::tls::Certified;

/// TLS handshakes at a time.
const HANDSHAKES: usize = 256;
/// Connections that wait to be served.
const AHEAD: usize = 16;
/// Streams on a connection: one is used; a second while the first has not ended yet.
const STREAMS: u32 = 4;
/// Bytes of headers.
const HEADERS: u32 = 16 * 1024;
/// Questions about third nodes that are worked on at a time, in all.
const PROBES: usize = 64;
/// The longest that such a question may take.
const PROBE_MAX: Duration = Duration::from_secs(10);
/// The wait after an error of the listener: it is out of files, most likely.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Serves other nodes until `stop` completes; then their streams end.
pub(super) async fn serve(
    shared: Arc<Shared>,
    listener: impl Accept,
    receiver: Arc<dyn Receiver>,
    stop: impl Future<Output = ()> + Send,
) -> io::Result<()> {
    let stopped = watch::Sender::new(false);
    let (sender, accepted) = mpsc::channel(AHEAD);
    let options = &shared.options;
    let service = Service {
        shared: Arc::clone(&shared),
        receiver,
        probes: Arc::new(Semaphore::new(PROBES)),
        stopped: stopped.subscribe(),
    };
    let service = MeshServer::new(service)
        .max_decoding_message_size(MESSAGE_MAX)
        .max_encoding_message_size(MESSAGE_MAX);
    let mut until = stopped.subscribe();
    let server = tonic::transport::Server::builder()
        .initial_stream_window_size(WINDOW_STREAM)
        .initial_connection_window_size(WINDOW_CONNECTION)
        .max_concurrent_streams(STREAMS)
        .http2_max_header_list_size(HEADERS)
        .http2_keepalive_interval(Some(options.keepalive))
        .http2_keepalive_timeout(Some(options.keepalive_timeout))
        .add_service(service)
        .serve_with_incoming_shutdown(ReceiverStream::new(accepted), async move {
            let _ = until.wait_for(|stop| *stop).await;
        });
    let mut server = std::pin::pin!(server);
    {
        let accepting = accept(Arc::clone(&shared), listener, sender);
        tokio::select! {
            served = &mut server => return served.map_err(io::Error::other),
            () = accepting => {}
            () = stop => {}
        }
    }
    stopped.send_replace(true);
    // Streams end by themselves now; a connection that stays is one of a peer that does not read.
    match timeout(options.connect, server).await {
        Ok(served) => served.map_err(io::Error::other),
        Err(_) => Ok(()),
    }
}

/// Accepts for ever. Handshakes go on beside each other.
async fn accept(shared: Arc<Shared>, mut listener: impl Accept, accepted: mpsc::Sender<io::Result<Caller>>) {
    let permits = Arc::new(Semaphore::new(HANDSHAKES));
    loop {
        let io = match listener.accept().await {
            Ok(io) => io,
            Err(error) => {
                tracing::warn!(%error, "mesh: a connection could not be accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let Ok(permit) = Arc::clone(&permits).acquire_owned().await else { return };
        let (shared, accepted) = (Arc::clone(&shared), accepted.clone());
        tokio::spawn(async move {
            let security = shared.security();
            match timeout(shared.options.connect, security.accept(io, shared.denied.subscribe())).await {
                Ok(Ok((io, certified))) => {
                    let _ = accepted.send(Ok(Caller { io, certified })).await;
                }
                Ok(Err(error)) => {
                    meters::turned_away("tls");
                    tracing::warn!(%error, "mesh: connection refused: no valid certificate of this cluster");
                }
                Err(_) => meters::turned_away("late"),
            }
            drop(permit);
        });
    }
}

/// A connection whose certificate is known.
struct Caller {
    io: Box<dyn Io>,
    certified: Certified,
}

impl Connected for Caller {
    type ConnectInfo = Certified;

    fn connect_info(&self) -> Certified {
        self.certified.clone()
    }
}

impl AsyncRead for Caller {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_read(context, buffer)
    }
}

impl AsyncWrite for Caller {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }
}

struct Service {
    shared: Arc<Shared>,
    receiver: Arc<dyn Receiver>,
    probes: Arc<Semaphore>,
    stopped: watch::Receiver<bool>,
}

#[tonic::async_trait]
impl Mesh for Service {
    type CarryStream = Incoming;

    async fn carry(&self, request: Request<Streaming<wire::Forth>>) -> Result<Response<Incoming>, Status> {
        let certified = request.extensions().get::<Certified>().cloned();
        let mut forth = request.into_inner();
        let result = self.greet(certified, &mut forth).await;
        let (inbox, hello, stream) = result.map_err(|no| {
            tracing::warn!(reason = no.1, "mesh: connection of a node refused");
            meters::turned_away(no.0.as_str_name());
            hello::refuse(no)
        })?;
        tokio::spawn(read(
            Arc::clone(&self.shared),
            Arc::clone(&self.receiver),
            Arc::clone(&self.probes),
            self.stopped.clone(),
            Arc::clone(&inbox),
            stream,
            forth,
        ));
        let delay = self.shared.options.delay;
        Ok(Response::new(Incoming { inbox, stream, hello: Some(hello), waited: false, delay, until: None }))
    }
}

impl Service {
    async fn greet(
        &self,
        certified: Option<Certified>,
        forth: &mut Streaming<wire::Forth>,
    ) -> Result<(Arc<Inbox>, wire::Hello, u64), No> {
        let shared = &self.shared;
        if *self.stopped.borrow() {
            return Err(No(Reason::Stopping, format!("{} is about to stop", shared.me.node)));
        }
        let first = timeout(shared.options.connect, forth.message()).await;
        let Ok(Ok(Some(wire::Forth { hello: Some(hello), .. }))) = first else {
            return Err(No(Reason::Malformed, "no greeting".into()));
        };
        let certified = certified.ok_or_else(|| No(Reason::Name, "no certificate".into()))?;
        let other = hello::from_caller(&shared.me, &hello, &certified)?;
        let too_old = || {
            let text =
                format!("generation {} of {} is dead or has a successor", other.generation, other.node);
            No(Reason::Generation, text)
        };
        let (inbox, resumed, replaced) = {
            let mut inboxes = shared.inboxes.lock();
            // Under the lock, so that a burial is not missed.
            if shared.is_dead(&other.node, other.generation) {
                return Err(too_old());
            }
            let this = (other.generation, hello.numbering);
            let known = inboxes.get(&other.node).cloned();
            match known {
                Some(known) if (known.generation, known.numbering) == this => (known, true, None),
                Some(known) if (known.generation, known.numbering) > this => return Err(too_old()),
                before => {
                    let window = shared.options.window;
                    let inbox =
                        Arc::new(Inbox::new(other.node.clone(), other.generation, hello.numbering, window));
                    inboxes.insert(other.node.clone(), Arc::clone(&inbox));
                    (inbox, false, before)
                }
            }
        };
        if let Some(replaced) = replaced {
            replaced.close();
        }
        let (stream, taken_to) = inbox.attach(if resumed { hello.seen } else { 0 });
        tracing::info!(
            peer = %other.node, generation = other.generation, software = other.software, resumed,
            "mesh: connection accepted"
        );
        let hello = shared.me.answer(resumed, taken_to, shared.options.window);
        Ok((inbox, hello, stream))
    }
}

/// Reads a stream until it ends, breaks, or breaks the rules.
async fn read(
    shared: Arc<Shared>,
    receiver: Arc<dyn Receiver>,
    probes: Arc<Semaphore>,
    mut stopped: watch::Receiver<bool>,
    inbox: Arc<Inbox>,
    stream: u64,
    mut forth: Streaming<wire::Forth>,
) {
    let meters = FromPeer::new(&inbox.from);
    loop {
        let message = tokio::select! {
            message = forth.message() => message,
            _ = stopped.wait_for(|stop| *stop) => break,
        };
        let mut message = match message {
            Ok(Some(message)) => message,
            Ok(None) => break,
            Err(status) => {
                tracing::debug!(peer = %inbox.from, error = status.message(), "mesh: a stream broke");
                break;
            }
        };
        for probe in message.probes.drain(..) {
            // A caller that asks too much gets no answer, which counts as one.
            if let Ok(permit) = Arc::clone(&probes).try_acquire_owned() {
                let (shared, inbox) = (Arc::clone(&shared), Arc::clone(&inbox));
                tokio::spawn(async move {
                    let reached = probe_for(&shared, &probe).await;
                    inbox.probed(wire::Probed { number: probe.number, reached });
                    drop(permit);
                });
            }
        }
        match inbox.take(stream, message, &*receiver) {
            Ok(brought) => meters.brought(brought),
            Err(inbox::REPLACED) => break,
            Err(why) => {
                tracing::warn!(peer = %inbox.from, why, "mesh: an incoming stream was closed");
                break;
            }
        }
    }
    inbox.detach(stream);
}

async fn probe_for(shared: &Arc<Shared>, probe: &wire::Probe) -> bool {
    let Ok(node) = NodeId::new(&probe.node) else { return false };
    if shared.addresses.address(&node).is_none() {
        return false;
    }
    let within = Duration::from_millis(u64::from(probe.timeout_millis)).min(PROBE_MAX);
    let link = shared.link_or_start(&node);
    timeout(within, link.ping()).await.unwrap_or(false)
}

/// What goes back to a caller: made when HTTP/2 has room for it.
struct Incoming {
    inbox: Arc<Inbox>,
    stream: u64,
    hello: Option<wire::Hello>,
    waited: bool,
    delay: Duration,
    until: Option<Pin<Box<Sleep>>>,
}

impl Stream for Incoming {
    type Item = Result<wire::Back, Status>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if let Some(hello) = self.hello.take() {
            return Poll::Ready(Some(Ok(wire::Back { hello: Some(hello), ..wire::Back::default() })));
        }
        // The code that woke this task may have more outcomes: let it go on before the message is made.
        if !std::mem::replace(&mut self.waited, true) {
            context.waker().wake_by_ref();
            return Poll::Pending;
        }
        let this = &mut *self;
        let mut now = this.delay.is_zero();
        loop {
            match this.inbox.next(this.stream, context.waker(), now) {
                Next::Message(back) => {
                    this.until = None;
                    return Poll::Ready(Some(Ok(back)));
                }
                Next::Later => {
                    let delay = this.delay;
                    let until = this.until.get_or_insert_with(|| Box::pin(sleep(delay)));
                    if until.as_mut().poll(context).is_ready() {
                        now = true;
                        continue;
                    }
                }
                Next::Nothing => {}
                Next::Over => return Poll::Ready(None),
            }
            this.waited = false;
            return Poll::Pending;
        }
    }
}

impl Drop for Incoming {
    fn drop(&mut self) {
        self.inbox.detach(self.stream);
    }
}
