//! The operating system's TCP.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use socket2::{Domain, Protocol, SockRef, Socket, TcpKeepalive, Type};
use tokio::net::{TcpListener, TcpSocket, TcpStream};

use super::{Listener, Net, reserve};

/// How many connections may wait to be accepted. The kernel has its own ceiling (`net.core.somaxconn`).
const BACKLOG: i32 = 4_096;

/// TCP by tokio and the kernel.
#[derive(Clone, Copy, Debug, Default)]
pub struct Tcp;

impl Net for Tcp {
    type Listener = TcpListener;

    /// An IPv6 wildcard takes IPv4 as well.
    fn bind(&self, at: SocketAddr) -> io::Result<TcpListener> {
        let socket = Socket::new(Domain::for_address(at), Type::STREAM, Some(Protocol::TCP))?;
        if at.is_ipv6() {
            socket.set_only_v6(false)?;
        }
        // A restart must not wait for the connections of the process before.
        socket.set_reuse_address(true)?;
        socket.set_nonblocking(true)?;
        socket.bind(&at.into())?;
        socket.listen(BACKLOG)?;
        TcpListener::from_std(socket.into())
    }
}

impl Listener for TcpListener {
    type Stream = TcpStream;

    async fn accept(&mut self) -> io::Result<(TcpStream, SocketAddr)> {
        let (stream, peer) = TcpListener::accept(self).await?;
        set_up(&stream)?;
        Ok((stream, peer))
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        TcpListener::local_addr(self)
    }
}

/// A connection to `at`.
pub(crate) async fn connect(at: SocketAddr) -> io::Result<TcpStream> {
    let socket = if at.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    let stream = socket.connect(at).await?;
    set_up(&stream)?;
    Ok(stream)
}

fn set_up(stream: &TcpStream) -> io::Result<()> {
    reserve::check(stream)?;
    // Batches are made before they are written; the kernel need not wait for more.
    stream.set_nodelay(true)?;
    let keepalive =
        TcpKeepalive::new().with_time(Duration::from_secs(600)).with_interval(Duration::from_secs(60));
    SockRef::from(stream).set_tcp_keepalive(&keepalive)
}
