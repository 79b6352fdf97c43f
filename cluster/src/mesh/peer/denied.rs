//! Certificates that are denied although the authority signed them and they have not expired: a node's key was stolen, or it
//! left for good. Connections that stand on such a certificate end when it is denied, and none begins.

use std::fmt;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::watch;

use super::net::Io;

type Judge = dyn Fn(&[u8]) -> bool + Send + Sync;

/// Says of a certificate, given as DER, whether it is denied.
#[derive(Clone)]
pub struct Denied(Arc<Judge>);

impl Denied {
    /// Those for which it says yes.
    pub fn new(denied: impl Fn(&[u8]) -> bool + Send + Sync + 'static) -> Self {
        Self(Arc::new(denied))
    }

    /// None.
    pub fn nobody() -> Self {
        Self::new(|_| false)
    }

    fn has(&self, certificate: &[u8]) -> bool {
        (self.0)(certificate)
    }
}

impl fmt::Debug for Denied {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Denied")
    }
}

/// A connection that ends when the certificate at its other end is denied.
pub(super) struct Guarded<I> {
    io: I,
    denied: Pin<Box<dyn Future<Output = ()> + Send>>,
    over: bool,
}

fn refused() -> io::Error {
    io::Error::new(io::ErrorKind::PermissionDenied, "the certificate is denied (cluster.denied)")
}

impl<I: Io> Guarded<I> {
    /// Around `io`, at whose other end is `certificate`.
    ///
    /// # Errors
    /// If it is denied already.
    pub(super) fn new(io: I, certificate: &[u8], mut list: watch::Receiver<Denied>) -> io::Result<Self> {
        if list.borrow_and_update().has(certificate) {
            return Err(refused());
        }
        let certificate = certificate.to_vec();
        let denied = Box::pin(async move {
            if list.wait_for(|denied| denied.has(&certificate)).await.is_err() {
                std::future::pending::<()>().await; // the channel itself is gone
            }
        });
        Ok(Self { io, denied, over: false })
    }

    fn look(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        self.over = self.over || self.denied.as_mut().poll(cx).is_ready();
        if self.over { Err(refused()) } else { Ok(()) }
    }
}

impl<I: Io> AsyncRead for Guarded<I> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        this.look(cx)?;
        Pin::new(&mut this.io).poll_read(cx, buf)
    }
}

impl<I: Io> AsyncWrite for Guarded<I> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if this.over {
            return Poll::Ready(Err(refused()));
        }
        Pin::new(&mut this.io).poll_write(cx, buf)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().io).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().io).poll_shutdown(cx)
    }
}
