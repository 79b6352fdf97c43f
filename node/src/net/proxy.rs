//! The PROXY protocol, versions 1 and 2: how a load balancer tells where a connection really comes from.

use std::net::SocketAddr;

use proxy_header::{ParseConfig, ProxyHeader};
use tokio::io::{AsyncRead, AsyncReadExt as _};

/// The longest header of version 1, with its CRLF.
const V1: usize = 107;
/// The longest header of version 2 that is taken: addresses and a few TLVs.
const V2: usize = 16 + 1_024;
/// What version 2 begins with.
const SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";

/// Why a header was not taken.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The socket failed or ended.
    #[error("the connection ended: {0}")]
    Io(#[from] std::io::Error),
    /// Nothing came at all: a balancer looks whether the port is open.
    #[error("the connection ended before a byte came")]
    Nothing,
    /// What came is no PROXY header.
    #[error("no PROXY header")]
    Malformed,
    /// The header is longer than any that is needed.
    #[error("the PROXY header is too long")]
    TooLong,
}

/// Reads one header and not a byte more. `None`: the balancer speaks for itself (a health check), or does not know.
/// Needs a time limit from outside.
pub async fn read<S: AsyncRead + Unpin>(stream: &mut S) -> Result<Option<SocketAddr>, Error> {
    let mut header = vec![0; SIGNATURE.len()];
    let begun = match stream.read(&mut header).await {
        Ok(0) => return Err(Error::Nothing),
        Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => return Err(Error::Nothing),
        begun => begun?,
    };
    stream.read_exact(header.get_mut(begun..).unwrap_or_default()).await?;
    if header == SIGNATURE {
        let mut rest = [0; 4];
        stream.read_exact(&mut rest).await?;
        header.extend_from_slice(&rest);
        let [_, _, high, low] = rest;
        let len = header.len() + usize::from(u16::from_be_bytes([high, low]));
        if len > V2 {
            return Err(Error::TooLong);
        }
        let at = header.len();
        header.resize(len, 0);
        stream.read_exact(header.get_mut(at..).unwrap_or_default()).await?;
    } else {
        if !header.starts_with(b"PROXY ") {
            return Err(Error::Malformed);
        }
        // Byte by byte: what follows the line belongs to TLS.
        while !header.ends_with(b"\r\n") {
            if header.len() >= V1 {
                return Err(Error::TooLong);
            }
            header.push(stream.read_u8().await?);
        }
    }
    let config = ParseConfig { include_tlvs: false, ..ParseConfig::default() };
    match ProxyHeader::parse(&header, config) {
        Ok((parsed, len)) if len == header.len() => Ok(parsed.proxied_address().map(|a| a.source)),
        _ => Err(Error::Malformed),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn take(bytes: &[u8]) -> (Result<Option<SocketAddr>, Error>, Vec<u8>) {
        let mut stream = bytes;
        let result = read(&mut stream).await;
        (result, stream.to_vec())
    }

    #[tokio::test]
    async fn both_versions_to_the_last_byte() {
        let source: SocketAddr = "192.0.2.7:4321".parse().unwrap();
        let address = proxy_header::ProxiedAddress::stream(source, "192.0.2.1:5222".parse().unwrap());
        let header = ProxyHeader::with_address(address);
        let (mut one, mut two) = (Vec::new(), Vec::new());
        header.encode_v1(&mut one).unwrap();
        header.encode_v2(&mut two).unwrap();
        for mut bytes in [one, two] {
            bytes.extend_from_slice(b"<?xml");
            let (result, rest) = take(&bytes).await;
            assert_eq!((result.unwrap(), rest.as_slice()), (Some(source), &b"<?xml"[..]));
        }
        let (result, rest) = take(b"PROXY UNKNOWN\r\n<").await;
        assert_eq!((result.unwrap(), rest.as_slice()), (None, &b"<"[..]));
    }

    #[tokio::test]
    async fn refused() {
        let long = [b"PROXY TCP4 ".as_slice(), &[b'1'; 200]].concat();
        let huge = [SIGNATURE.as_slice(), &[0x21, 0x11, 0xff, 0xff], &[0; 70_000]].concat();
        assert!(matches!(take(&long).await.0, Err(Error::TooLong)));
        assert!(matches!(take(&huge).await.0, Err(Error::TooLong)));
        assert!(matches!(take(b"<?xml version='1.0'?>").await.0, Err(Error::Malformed)));
        assert!(matches!(take(b"PROXY TCP4 300.1.1.1 1.1.1.1 1 1\r\n").await.0, Err(Error::Malformed)));
        assert!(matches!(take(b"PRO").await.0, Err(Error::Io(_))));
        assert!(matches!(take(b"").await.0, Err(Error::Nothing)));
    }
}
