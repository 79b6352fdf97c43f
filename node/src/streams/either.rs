//! One port for clients and servers. Which of them has called is said by ALPN (XEP-0368), or else by the namespace in the header of the
//! stream; then the connection goes on as on a port of its kind, with what was read.
//!
//! Until that is known a connection is a client that has not logged in: the clients' gate counts it, and their limits hold. The time for that is
//! part of the time to log in, or to prove a domain. A peer that does not say in time what it is, or says what is nothing, is a client, and
//! gets the stream errors that a client would.

use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use rookery_proto::xml::Limits;
use rookery_proto::xml::framer::{Framer, Step};
use rookery_proto::xml::header::StreamHeader;
use rookery_proto::xmpp::ns;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, ReadBuf};
use tokio::time::{Instant, timeout_at};

use super::c2s::{self, Shared};
use super::s2s::{self, Federation};
use crate::net::{Origin, Pass, Refusal, Stream};
use crate::tls::{Kind, accept_either};
use crate::transport::tcp::{Socket, Start, locate};

/// How long a peer may take to say what it is, if `limits.login_seconds` is not less.
const PATIENCE: Duration = Duration::from_secs(15);
/// The most bytes in which the header must be complete.
const MOST: usize = 16 * 1024;

/// Takes care of one connection that was accepted from `peer` on a port for both, in tasks of its own. `pass` is of the clients' gate.
pub fn serve(
    shared: &Arc<Shared>,
    federation: &Arc<Federation>,
    stream: impl Stream,
    start: Start,
    peer: SocketAddr,
    mut pass: Pass,
) {
    let (shared, federation) = (shared.clone(), federation.clone());
    tokio::spawn(async move {
        let standing = pass.standing();
        let (mut stop, gate) = (shared.stop.clone(), shared.gate.clone());
        let both = Both { shared: &shared, federation: &federation, start };
        tokio::select! {
            biased;
            taken = Box::pin(both.take(stream, peer, &mut pass)) => match taken {
                Some(Taken::Client(client)) => client.serve(&shared, pass),
                Some(Taken::Server(server)) => both.server(server, pass),
                None => both.nobody(),
            },
            // Without a word: the peer holds too many connections, or has not said one that could be answered.
            () = standing.sent_away() => both.nobody(),
            _ = stop.wait_for(|stop| *stop) => both.nobody(),
            () = gate.is_shut() => both.nobody(),
        }
    });
}

struct Both<'a> {
    shared: &'a Arc<Shared>,
    federation: &'a Arc<Federation>,
    start: Start,
}

/// A connection of a known kind.
enum Taken {
    Client(Client),
    Server(s2s::Arrived),
}

/// A client's connection: in the clear, with what was read, or by TLS.
enum Client {
    Plain(Socket<Rewound>),
    Tls(Socket<Box<dyn Stream>>),
}

impl Client {
    fn serve(self, shared: &Arc<Shared>, pass: Pass) {
        match self {
            Self::Plain(socket) => c2s::serve(shared, socket, pass),
            Self::Tls(socket) => c2s::serve(shared, socket, pass),
        }
    }
}

impl Both<'_> {
    /// From an accepted socket to a connection of a known kind; `None` if it ended before.
    async fn take(&self, mut stream: impl Stream, peer: SocketAddr, pass: &mut Pass) -> Option<Taken> {
        let settings = self.shared.settings.load_full();
        let peer = locate(&mut stream, peer, settings.proxy.as_deref()).await?;
        if let Err(refusal) = pass.from(Origin::from(peer.ip())) {
            metrics::counter!("rookery_limits_hit_total", "limit" => refusal.limit()).increment(1);
            tracing::debug!(%peer, limit = refusal.limit(), "connection refused");
            return None;
        }
        let (since, login) = (Instant::now(), settings.limits.login);
        let raw: Box<dyn Stream> = Box::new(stream);
        match self.start {
            Start::InTheStream => {
                let mut raw = raw;
                let (kind, read) = self.kind(&mut raw, settings.before, since + login).await;
                let stream = Rewound { read, fetched: 0, rest: raw };
                Some(match kind {
                    Kind::Client => {
                        Taken::Client(Client::Plain(Socket::located(stream, self.start, peer, since)))
                    }
                    Kind::Server => Taken::Server(s2s::Arrived::plain(stream, peer, since)),
                })
            }
            Start::Direct => {
                let handshake = timeout_at(since + login, accept_either(&self.shared.tls, raw));
                let accepted = match handshake.await {
                    Ok(Ok(accepted)) => accepted,
                    Ok(Err(error)) => {
                        tracing::debug!(%peer, %error, "TLS handshake failed");
                        return None;
                    }
                    Err(_) => {
                        metrics::counter!("rookery_limits_hit_total", "limit" => "login_seconds")
                            .increment(1);
                        return None;
                    }
                };
                let (mut accepted, chain, by_alpn) = accepted;
                let kind = match by_alpn {
                    Some(kind) => kind,
                    None => {
                        let (kind, read) =
                            self.kind(&mut accepted.stream, settings.before, since + login).await;
                        accepted.stream.unread(&read);
                        kind
                    }
                };
                Some(match kind {
                    Kind::Client => Taken::Client(Client::Tls(Socket::secured(accepted, peer, since))),
                    Kind::Server => Taken::Server(s2s::Arrived::secured(accepted, chain, peer, since)),
                })
            }
        }
    }

    /// The kind that the header of the stream names, and all that was read. `until`: the end of the time to log in.
    async fn kind<S: AsyncRead + Unpin>(
        &self,
        stream: &mut S,
        limits: Limits,
        until: Instant,
    ) -> (Kind, Vec<u8>) {
        let until = until.min(Instant::now() + PATIENCE);
        let (mut read, mut stop, gate) = (Vec::new(), self.shared.stop.clone(), self.shared.gate.clone());
        let kind = tokio::select! {
            biased;
            kind = timeout_at(until, header(stream, limits, &mut read)) => kind.unwrap_or(Kind::Client),
            // The client's part tells the peer.
            _ = stop.wait_for(|stop| *stop) => Kind::Client,
            () = gate.is_shut() => Kind::Client,
        };
        (kind, read)
    }

    /// A server has called: it leaves the clients' gate for that of servers.
    fn server(&self, server: s2s::Arrived, pass: Pass) {
        let gate = &self.federation.gate;
        match gate.enter() {
            Ok(own) => {
                drop(pass);
                server.serve(self.federation, own);
            }
            Err(Refusal::Shut) => tracing::debug!("connection refused: the node is parked"),
            Err(refusal) => {
                let limit = gate.limit(refusal);
                metrics::counter!("rookery_limits_hit_total", "limit" => limit).increment(1);
                tracing::debug!(limit, "connection refused");
            }
        }
    }

    /// The connection ended before anybody knew whose it was: it counts as a client's.
    fn nobody(&self) {
        metrics::counter!("rookery_connections_total", "kind" => self.start.c2s()).increment(1);
    }
}

/// Reads until the header of a stream is complete. Bytes that are no header are a client's mistake. `read` has all that was read. Cancel safe.
async fn header<S: AsyncRead + Unpin>(stream: &mut S, limits: Limits, read: &mut Vec<u8>) -> Kind {
    let (mut framer, mut at) = (Framer::new(limits), 0);
    loop {
        let rest = read.get(at..).unwrap_or_default();
        match framer.next(rest) {
            Ok(Step::Whitespace { len } | Step::Declaration { len }) => at += len,
            Ok(Step::Open { len }) => {
                let header = StreamHeader::parse(rest.get(..len).unwrap_or_default(), &limits, ns::CLIENT);
                let server = header.is_ok_and(|header| header.content == ns::SERVER);
                return if server { Kind::Server } else { Kind::Client };
            }
            Ok(Step::Need) if read.len() < MOST => {
                read.reserve(2 * 1024);
                match stream.read_buf(read).await {
                    Ok(0) | Err(_) => return Kind::Client,
                    Ok(_) => {}
                }
            }
            _ => return Kind::Client,
        }
    }
}

/// A socket in front of which stands what was read of it.
struct Rewound {
    read: Vec<u8>,
    fetched: usize,
    rest: Box<dyn Stream>,
}

impl AsyncRead for Rewound {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        let this = self.get_mut();
        let first = this.read.get(this.fetched..).unwrap_or_default();
        if first.is_empty() {
            return Pin::new(&mut this.rest).poll_read(cx, buf);
        }
        let (now, later) = first.split_at(first.len().min(buf.remaining()));
        buf.put_slice(now);
        this.fetched += now.len();
        if later.is_empty() {
            (this.read, this.fetched) = (Vec::new(), 0);
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Rewound {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.get_mut().rest).poll_write(cx, buf)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.get_mut().rest).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.get_mut().rest).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests;
