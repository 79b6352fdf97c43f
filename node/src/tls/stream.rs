//! A TLS connection on rustls' unbuffered interface. The buffered one keeps 4 kB for the next record in every idle
//! connection; this one reads into a buffer of the thread and keeps only the tail of an incomplete record.
//!
//! Length: reading, writing and the handshake drive one state machine of rustls.

use std::cell::Cell;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use rustls::server::{ServerConnectionData, UnbufferedServerConnection};
use rustls::unbuffered::{
    ConnectionState, EncodeError, EncodeTlsData, EncryptError, UnbufferedStatus, WriteTraffic,
};
use rustls::{CommonState, ServerConfig};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::binding::Exporter;

/// What one read of the socket takes at least: more than one record at its largest (RFC 8446 section 5.2).
const READ: usize = 20 * 1024;
/// No honest record or handshake message leaves a longer tail.
const TAIL: usize = 80 * 1024;
/// How much one write encrypts at most.
const WRITE: usize = 64 * 1024;
/// A buffer that has grown beyond this is not kept.
const KEEP: usize = 256 * 1024;
/// What a record adds to its content, its header included; more than any suite needs.
const OVERHEAD: usize = 64;

thread_local! {
    /// What all connections of this thread read into, and encrypt into. Taken while in use.
    static RAW: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
    static OUT: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

/// An encrypted connection, server side.
pub struct TlsStream<S> {
    io: S,
    tls: UnbufferedServerConnection,
    /// The tail of an incomplete record.
    incoming: Vec<u8>,
    /// What was decrypted and not fetched yet, from `fetched` on.
    plain: Vec<u8>,
    fetched: usize,
    /// What is encrypted and not sent yet, from `sent` on.
    outgoing: Vec<u8>,
    sent: usize,
    /// The peer has ended its side properly.
    ended: bool,
    /// We have ended ours.
    closing: bool,
    /// A record was no good: nothing more is read or written.
    failed: bool,
}

/// What to say as soon as it may be said.
enum Say<'a> {
    Data(&'a [u8]),
    CloseNotify,
}

fn invalid(error: rustls::Error) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}

/// Lets `write` append to `out`; it returns how much it wrote, or how much room it needs.
fn append(
    out: &mut Vec<u8>,
    room: usize,
    mut write: impl FnMut(&mut [u8]) -> Result<usize, Option<usize>>,
) -> io::Result<()> {
    let (start, mut room) = (out.len(), room);
    // Twice: the second time with exactly what it said it needs.
    for _ in 0..2 {
        out.resize(start + room, 0);
        match write(out.get_mut(start..).unwrap_or_default()) {
            Ok(written) => {
                out.truncate(start + written);
                return Ok(());
            }
            Err(Some(needed)) => room = needed,
            Err(None) => break,
        }
    }
    out.truncate(start);
    Err(io::Error::other("nothing more can be encrypted"))
}

fn encode(mut data: EncodeTlsData<'_, ServerConnectionData>, out: &mut Vec<u8>) -> io::Result<()> {
    append(out, 0, |out| {
        data.encode(out).map_err(|error| match error {
            EncodeError::InsufficientSize(size) => Some(size.required_size),
            EncodeError::AlreadyEncoded => None,
        })
    })
}

fn say(
    mut traffic: WriteTraffic<'_, ServerConnectionData>,
    what: &Say<'_>,
    out: &mut Vec<u8>,
) -> io::Result<()> {
    let needed = |error| match error {
        EncryptError::InsufficientSize(size) => Some(size.required_size),
        EncryptError::EncryptExhausted => None,
    };
    match what {
        Say::Data(data) => {
            let room = data.len() + (data.len() / 1024 + 2) * OVERHEAD;
            append(out, room, |out| traffic.encrypt(data, out).map_err(needed))
        }
        Say::CloseNotify => append(out, OVERHEAD, |out| traffic.queue_close_notify(out).map_err(needed)),
    }
}

impl<S> TlsStream<S> {
    /// The socket, and what the handshake has agreed on.
    pub fn get_ref(&self) -> (&S, &CommonState) {
        (&self.io, &self.tls)
    }

    /// Puts back what was read: it is read again, before anything else.
    pub(crate) fn unread(&mut self, bytes: &[u8]) {
        let rest = self.plain.get(self.fetched..).unwrap_or_default();
        (self.plain, self.fetched) = ([bytes, rest].concat(), 0);
    }

    /// Runs the protocol over `input` until it wants more, and says `what`, if it may. Plaintext goes to `plain`, what
    /// must be sent into `outgoing`. Returns how much of `input` is used.
    fn drive(
        &mut self,
        input: &mut [u8],
        mut what: Option<Say<'_>>,
        plain: &mut dyn FnMut(&[u8]),
    ) -> io::Result<usize> {
        let mut used = 0;
        loop {
            let rest = input.get_mut(used..).unwrap_or_default();
            let UnbufferedStatus { mut discard, state } = self.tls.process_tls_records(rest);
            let mut more = true;
            match state {
                Ok(ConnectionState::ReadTraffic(mut traffic)) => {
                    while let Some(record) = traffic.next_record() {
                        let record = record.map_err(invalid)?;
                        discard += record.discard;
                        plain(record.payload);
                    }
                }
                Ok(ConnectionState::EncodeTlsData(data)) => encode(data, &mut self.outgoing)?,
                // The record stays in `outgoing` until it is sent.
                Ok(ConnectionState::TransmitTlsData(data)) => data.done(),
                Ok(ConnectionState::PeerClosed) => self.ended = true,
                Ok(ConnectionState::Closed) => {
                    self.ended = true;
                    more = false;
                }
                Ok(ConnectionState::WriteTraffic(traffic)) => {
                    more = false;
                    if let Some(what) = what.take() {
                        say(traffic, &what, &mut self.outgoing)?;
                    }
                }
                Ok(ConnectionState::BlockedHandshake) => more = false,
                // Early data is never accepted; other states there are none.
                Ok(_) => return Err(io::Error::other("an unknown state of TLS")),
                Err(error) => {
                    self.fail();
                    return Err(invalid(error));
                }
            }
            used += discard;
            if !more {
                return match what {
                    None => Ok(used),
                    Some(_) => Err(io::ErrorKind::BrokenPipe.into()),
                };
            }
        }
    }

    /// After an error: the alert that tells the peer is put into `outgoing`. The input is not looked at again.
    fn fail(&mut self) {
        self.failed = true;
        while self.tls.wants_write() {
            match self.tls.process_tls_records(&mut []).state {
                Ok(ConnectionState::EncodeTlsData(data)) => match encode(data, &mut self.outgoing) {
                    Ok(()) => {}
                    Err(_) => return,
                },
                Ok(ConnectionState::ReadTraffic(mut traffic)) => while traffic.next_record().is_some() {},
                _ => return,
            }
        }
    }

    /// Says `what`, in front of what is still unread.
    fn say(&mut self, what: Say<'_>) -> io::Result<()> {
        let (mut incoming, mut plain) = (std::mem::take(&mut self.incoming), std::mem::take(&mut self.plain));
        let used = self.drive(&mut incoming, Some(what), &mut |bytes| plain.extend_from_slice(bytes));
        (self.incoming, self.plain) = (incoming, plain);
        self.incoming.drain(..used?);
        Ok(())
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> TlsStream<S> {
    /// The handshake. `incoming` is what was read already. Also returns the channel binding `tls-exporter`.
    pub(super) async fn accept(
        io: S,
        config: Arc<ServerConfig>,
        incoming: Vec<u8>,
    ) -> io::Result<(Self, Option<[u8; 32]>)> {
        let tls = UnbufferedServerConnection::new(config).map_err(invalid)?;
        let mut stream = Self {
            io,
            tls,
            incoming: Vec::new(),
            plain: Vec::new(),
            fetched: 0,
            outgoing: Vec::new(),
            sent: 0,
            ended: false,
            closing: false,
            failed: false,
        };
        let (mut raw, mut exporter) = (incoming, None);
        loop {
            let mut plain = Vec::new();
            let (driven, derived) =
                Exporter::watch(|| stream.drive(&mut raw, None, &mut |bytes| plain.extend_from_slice(bytes)));
            exporter = exporter.or(derived);
            stream.plain.append(&mut plain);
            // What follows a finished handshake (a ticket) need not be gone: the client may not read yet.
            let done = driven.is_ok() && !stream.tls.is_handshaking();
            let sent = std::future::poll_fn(|cx| {
                let sent = stream.poll_send(cx);
                if done && sent.is_pending() {
                    return Poll::Ready(Ok(()));
                }
                ready!(sent)?;
                Pin::new(&mut stream.io).poll_flush(cx)
            });
            let sent = sent.await;
            raw.drain(..driven?);
            sent?;
            if done {
                break;
            }
            if raw.len() > TAIL {
                return Err(io::ErrorKind::InvalidData.into());
            }
            if stream.ended || read_some(&mut stream.io, &mut raw).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
        raw.shrink_to_fit();
        stream.incoming = raw;
        Ok((stream, exporter))
    }

    /// Sends what is encrypted.
    fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while let Some(rest) = self.outgoing.get(self.sent..).filter(|rest| !rest.is_empty()) {
            match ready!(Pin::new(&mut self.io).poll_write(cx, rest))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                n => self.sent += n,
            }
        }
        self.sent = 0;
        if self.outgoing.capacity() > 0 {
            let mut buffer = std::mem::take(&mut self.outgoing);
            buffer.clear();
            if buffer.capacity() <= KEEP {
                OUT.set(buffer);
            }
        }
        Poll::Ready(Ok(()))
    }

    /// Reads from the socket once and decrypts it, into `buf` as far as it goes.
    fn poll_fill(
        &mut self,
        cx: &mut Context<'_>,
        raw: &mut Vec<u8>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let tail = self.incoming.len();
        if raw.len() < tail + READ {
            raw.resize(tail + READ, 0);
        }
        let (front, room) = raw.split_at_mut(tail);
        let mut filled = ReadBuf::new(room);
        ready!(Pin::new(&mut self.io).poll_read(cx, &mut filled))?;
        let read = filled.filled().len();
        if read == 0 {
            return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()));
        }
        front.copy_from_slice(&self.incoming);
        self.incoming = Vec::new();
        let input = raw.get_mut(..tail + read).unwrap_or_default();
        let mut plain = Vec::new();
        let driven = self.drive(input, None, &mut |bytes| {
            let fits = if plain.is_empty() { bytes.len().min(buf.remaining()) } else { 0 };
            let (now, later) = bytes.split_at(fits);
            buf.put_slice(now);
            plain.extend_from_slice(later);
        });
        self.plain = plain;
        match driven {
            Ok(used) => {
                self.incoming = input.get(used..).unwrap_or_default().to_vec();
                if self.incoming.len() > TAIL {
                    self.fail();
                    return Poll::Ready(Err(io::ErrorKind::InvalidData.into()));
                }
                Poll::Ready(Ok(()))
            }
            Err(error) => Poll::Ready(Err(error)),
        }
    }

    /// Nothing may be written any more.
    fn mute(&self) -> io::Result<()> {
        if self.closing || self.failed { Err(io::ErrorKind::BrokenPipe.into()) } else { Ok(()) }
    }
}

/// Reads what there is, at the end of `into`.
pub(super) async fn read_some<S: AsyncRead + Unpin>(io: &mut S, into: &mut Vec<u8>) -> io::Result<usize> {
    use tokio::io::AsyncReadExt as _;
    into.reserve(2 * 1024);
    io.read_buf(into).await
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for TlsStream<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let stream = self.get_mut();
        loop {
            let rest = stream.plain.get(stream.fetched..).unwrap_or_default();
            if !rest.is_empty() {
                let (now, later) = rest.split_at(rest.len().min(buf.remaining()));
                buf.put_slice(now);
                stream.fetched += now.len();
                if later.is_empty() {
                    (stream.plain, stream.fetched) = (Vec::new(), 0);
                }
                return Poll::Ready(Ok(()));
            }
            if stream.ended || buf.remaining() == 0 {
                return Poll::Ready(Ok(()));
            }
            if stream.failed {
                return Poll::Ready(Err(io::ErrorKind::InvalidData.into()));
            }
            let before = buf.filled().len();
            let mut raw = RAW.take();
            let read = stream.poll_fill(cx, &mut raw, buf);
            if raw.len() <= KEEP {
                RAW.set(raw);
            }
            // What the protocol itself answers goes out without anybody's flush. If it can't, the next write says so.
            let _ = stream.poll_send(cx);
            ready!(read)?;
            if buf.filled().len() > before {
                return Poll::Ready(Ok(()));
            }
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for TlsStream<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let stream = self.get_mut();
        stream.mute()?;
        ready!(stream.poll_send(cx))?;
        let data = buf.get(..WRITE).unwrap_or(buf);
        if data.is_empty() {
            return Poll::Ready(Ok(0));
        }
        stream.outgoing = OUT.take();
        stream.say(Say::Data(data))?;
        match stream.poll_send(cx) {
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            // The text is taken in any case; what the socket does not take now goes first next time.
            _ => Poll::Ready(Ok(data.len())),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let stream = self.get_mut();
        ready!(stream.poll_send(cx))?;
        Pin::new(&mut stream.io).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let stream = self.get_mut();
        if !std::mem::replace(&mut stream.closing, true) && !stream.failed {
            stream.say(Say::CloseNotify)?;
        }
        ready!(stream.poll_send(cx))?;
        match ready!(Pin::new(&mut stream.io).poll_shutdown(cx)) {
            // The peer was faster.
            Err(error) if error.kind() == io::ErrorKind::NotConnected => Poll::Ready(Ok(())),
            done => Poll::Ready(done),
        }
    }
}

#[cfg(test)]
mod tests;
