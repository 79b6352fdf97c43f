//! SOCKS5 (RFC 1928), as far as it takes to connect to a name through a proxy: without authentication, the proxy resolves.

use std::io;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::config::Proxy;
use crate::net::tcp;

impl Proxy {
    /// Whether connections to `host` (in A-labels, lower case) go through it.
    pub fn is_for(&self, host: &str) -> bool {
        self.domains.iter().any(|pattern| match pattern.strip_prefix('*') {
            Some(rest) => host.ends_with(rest) && host.len() > rest.len(),
            None => pattern == host,
        })
    }

    /// A connection to `host`, which the proxy resolves.
    pub(super) async fn connect(&self, host: &str, port: u16) -> io::Result<TcpStream> {
        let mut stream = tcp::connect(self.address).await?;
        // Version 5, one method: no authentication.
        stream.write_all(&[5, 1, 0]).await?;
        let mut chosen = [0; 2];
        stream.read_exact(&mut chosen).await?;
        if chosen != [5, 0] {
            return Err(io::Error::other("the SOCKS5 proxy asks for authentication, which is not supported"));
        }
        let length = u8::try_from(host.len()).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
        // CONNECT to a name (section 4).
        let mut request = vec![5, 1, 0, 3, length];
        request.extend_from_slice(host.as_bytes());
        request.extend_from_slice(&port.to_be_bytes());
        stream.write_all(&request).await?;
        let mut reply = [0; 4];
        stream.read_exact(&mut reply).await?;
        let [version, code, _, kind] = reply;
        if version != 5 || code != 0 {
            return Err(io::Error::other(meaning(code)));
        }
        // The address that the proxy connects from: of no use here.
        let length = match kind {
            1 => 4,
            4 => 16,
            3 => usize::from(stream.read_u8().await?),
            _ => return Err(io::Error::other("the SOCKS5 proxy's answer cannot be read")),
        };
        let mut rest = vec![0; length + 2];
        stream.read_exact(&mut rest).await?;
        Ok(stream)
    }
}

/// RFC 1928 section 6.
fn meaning(code: u8) -> String {
    let what = match code {
        1 => "general failure",
        2 => "connection not allowed",
        3 => "network unreachable",
        4 => "host unreachable",
        5 => "connection refused",
        6 => "TTL expired",
        7 => "command not supported",
        8 => "address type not supported",
        _ => return format!("the SOCKS5 proxy says error {code}"),
    };
    format!("the SOCKS5 proxy says: {what}")
}
