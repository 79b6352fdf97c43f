//! The bytes: a socket, perhaps under TLS, and the pieces that come out of it.

use std::io;
use std::ops::Range;
use std::sync::Arc;

use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::framer::{Framer, Piece};

/// A socket, perhaps under TLS.
pub enum Io {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
    /// In the middle of a change.
    Gone,
}

/// What comes out of a stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Frame {
    /// The server's stream header.
    Open,
    /// A whole element; its bytes are valid until the next call.
    Element(Range<usize>),
    /// `</stream:stream>`
    Close,
    /// End of file.
    End,
}

/// A socket and what was read from it.
pub struct Wire {
    pub io: Io,
    buf: Vec<u8>,
    pos: usize,
    framer: Framer,
    /// The stream header as it came.
    pub header: String,
}

impl Wire {
    /// Starts on a connected socket.
    pub fn new(io: Io) -> Wire {
        Wire { io, buf: Vec::new(), pos: 0, framer: Framer::default(), header: String::new() }
    }

    /// Writes all of `bytes`.
    pub async fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        match &mut self.io {
            Io::Plain(io) => io.write_all(bytes).await,
            Io::Tls(io) => {
                io.write_all(bytes).await?;
                io.flush().await
            }
            Io::Gone => Err(io::ErrorKind::NotConnected.into()),
        }
    }

    /// The bytes of a frame.
    pub fn bytes(&self, range: Range<usize>) -> &[u8] {
        &self.buf[range]
    }

    /// Reads up to the next frame. Safe to cancel.
    pub async fn frame(&mut self) -> io::Result<Frame> {
        loop {
            if let Some(piece) = self.framer.next(&self.buf[self.pos..]) {
                let start = self.pos;
                match piece {
                    Piece::Declaration(n) | Piece::Space(n) => self.pos += n,
                    Piece::Open(n) => {
                        self.pos += n;
                        self.header = String::from_utf8_lossy(&self.buf[start..self.pos]).into_owned();
                        return Ok(Frame::Open);
                    }
                    Piece::Element(n) => {
                        self.pos += n;
                        return Ok(Frame::Element(start..self.pos));
                    }
                    Piece::Close(n) => {
                        self.pos += n;
                        return Ok(Frame::Close);
                    }
                }
                continue;
            }
            self.buf.drain(..self.pos);
            self.pos = 0;
            if self.buf.is_empty() && self.buf.capacity() > 64 * 1024 {
                self.buf = Vec::new();
            }
            let read = match &mut self.io {
                Io::Plain(io) => io.read_buf(&mut self.buf).await?,
                Io::Tls(io) => io.read_buf(&mut self.buf).await?,
                Io::Gone => 0,
            };
            if read == 0 {
                return Ok(Frame::End);
            }
        }
    }

    /// Gives back the buffer when there is nothing in it: for idle connections by the thousand.
    pub fn shrink(&mut self) {
        self.buf.drain(..self.pos);
        self.pos = 0;
        self.buf.shrink_to_fit();
        self.header = String::new();
    }

    /// Does the TLS handshake; whatever was read before it is dropped.
    pub async fn secure(&mut self, config: &Arc<ClientConfig>, domain: &str) -> io::Result<()> {
        let Io::Plain(tcp) = std::mem::replace(&mut self.io, Io::Gone) else {
            return Err(io::Error::other("already under TLS"));
        };
        // A name beyond ASCII is not sent: the server goes by the stream's `to` then.
        let name = match domain.is_ascii() {
            true => ServerName::try_from(domain.to_owned()).map_err(io::Error::other)?,
            false => ServerName::IpAddress(std::net::Ipv4Addr::LOCALHOST.into()),
        };
        let tls = TlsConnector::from(config.clone()).connect(name, tcp).await?;
        self.io = Io::Tls(Box::new(tls));
        self.restart();
        Ok(())
    }

    /// Forgets the stream so far: after TLS and after SASL a new one begins.
    pub fn restart(&mut self) {
        self.buf.clear();
        self.pos = 0;
        self.framer = Framer::default();
    }

    /// The channel binding of RFC 9266, where the connection has one.
    pub fn exporter(&self) -> Option<Vec<u8>> {
        match &self.io {
            Io::Tls(tls) => {
                tls.get_ref().1.export_keying_material(vec![0; 32], b"EXPORTER-Channel-Binding", None).ok()
            }
            _ => None,
        }
    }
}
