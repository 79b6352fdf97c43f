//! Our side against rustls' own buffered client.

use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, HandshakeKind, ProtocolVersion};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, duplex};
use tokio_rustls::TlsConnector;
use tokio_rustls::client;

use super::*;
use crate::tls::tests::{Anyhow, NOW, config, seams};
use crate::tls::{Accepted, Tls, accept_direct};

struct Node {
    tls: Tls,
    folder: tempfile::TempDir,
}

type Both = (Accepted<DuplexStream>, client::TlsStream<DuplexStream>);

impl Node {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let tls = Tls::load(&config(folder.path(), &["localhost"]), seams(NOW)).unwrap();
        Self { tls, folder }
    }

    fn client(&self, provider: CryptoProvider) -> Arc<ClientConfig> {
        let roots = Anyhow::trusting(self.folder.path());
        let config = ClientConfig::builder_with_provider(Arc::new(provider))
            .with_safe_default_protocol_versions()
            .unwrap()
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(roots))
            .with_no_client_auth();
        Arc::new(config)
    }

    /// A connection over a pipe that holds so many bytes.
    async fn connect(&self, client: Arc<ClientConfig>, capacity: usize) -> Both {
        let (ours, theirs) = duplex(capacity);
        let name = ServerName::try_from("localhost").unwrap();
        let connector = TlsConnector::from(client);
        let (server, client) = tokio::join!(accept_direct(&self.tls, ours), connector.connect(name, theirs));
        (server.unwrap(), client.unwrap())
    }

    async fn usual(&self, capacity: usize) -> (TlsStream<DuplexStream>, client::TlsStream<DuplexStream>) {
        let (server, client) = self.connect(self.client(aws_lc_rs::default_provider()), capacity).await;
        (server.stream, client)
    }
}

fn pattern(len: usize) -> Vec<u8> {
    (0..len).map(|at| u8::try_from((at * 31 + at / 251) % 256).unwrap()).collect()
}

async fn pass<A: AsyncWrite + Unpin, B: AsyncRead + Unpin>(from: &mut A, to: &mut B, len: usize) {
    let sent = pattern(len);
    let mut got = vec![0; len];
    let send = async {
        from.write_all(&sent).await.unwrap();
        from.flush().await.unwrap();
    };
    let (_, read) = tokio::join!(send, to.read_exact(&mut got));
    read.unwrap();
    assert!(got == sent, "{len} bytes differ");
}

async fn both_ways<A, B>(a: &mut A, b: &mut B, len: usize)
where
    A: AsyncRead + AsyncWrite + Unpin,
    B: AsyncRead + AsyncWrite + Unpin,
{
    pass(a, b, len).await;
    pass(b, a, len).await;
}

#[tokio::test]
async fn every_suite_carries_bytes_and_binds() {
    let node = Node::new();
    let mut seen = Vec::new();
    for suite in aws_lc_rs::default_provider().cipher_suites {
        let provider = CryptoProvider { cipher_suites: vec![suite], ..aws_lc_rs::default_provider() };
        if format!("{suite:?}").contains("RSA") {
            continue; // the certificate is of ECDSA
        }
        let version = if suite.tls13().is_some() { &rustls::version::TLS13 } else { &rustls::version::TLS12 };
        let roots = Anyhow::trusting(node.folder.path());
        let config = ClientConfig::builder_with_provider(Arc::new(provider))
            .with_protocol_versions(&[version])
            .unwrap()
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(roots))
            .with_no_client_auth();
        let (mut server, mut client) = node.connect(Arc::new(config), 64 * 1024).await;
        both_ways(&mut server.stream, &mut client, 100_000).await;
        let (_, theirs) = client.get_ref();
        assert_eq!(server.stream.get_ref().1.negotiated_cipher_suite(), Some(suite));
        let exported = theirs.export_keying_material([0; 32], b"EXPORTER-Channel-Binding", None).ok();
        match theirs.protocol_version() {
            Some(ProtocolVersion::TLSv1_3) => assert_eq!(server.bindings.exporter, exported),
            _ => assert_eq!(server.bindings.exporter, None),
        }
        seen.push(server.protocol);
    }
    assert_eq!(seen.iter().filter(|version| **version == "1.3").count(), 3);
    assert!(seen.contains(&"1.2"));
}

#[tokio::test]
async fn whatever_the_pieces() {
    let node = Node::new();
    for capacity in [1_000, 5_003, 17_000, 64 * 1024] {
        let (mut server, mut client) = node.usual(capacity).await;
        for len in [1, 2, 300, 16_384, 16_385, 50_000] {
            both_ways(&mut server, &mut client, len).await;
        }
    }
}

#[tokio::test]
async fn much_in_both_directions_at_once() {
    let node = Node::new();
    let (server, client) = node.usual(1_000).await;
    let ((mut sr, mut sw), (mut cr, mut cw)) = (tokio::io::split(server), tokio::io::split(client));
    tokio::join!(pass(&mut sw, &mut cr, 1_000_000), pass(&mut cw, &mut sr, 1_000_000));
}

#[tokio::test]
async fn small_reads_of_large_records() {
    let node = Node::new();
    let (mut server, mut client) = node.usual(64 * 1024).await;
    client.write_all(&pattern(40_000)).await.unwrap();
    client.flush().await.unwrap();
    let mut got = Vec::new();
    let mut buffer = [0; 7];
    while got.len() < 40_000 {
        let n = server.read(&mut buffer).await.unwrap();
        assert!(n > 0);
        got.extend_from_slice(&buffer[..n]);
    }
    assert!(got == pattern(40_000));
}

#[tokio::test]
async fn an_idle_connection_keeps_no_buffer() {
    let node = Node::new();
    let (mut server, mut client) = node.usual(64 * 1024).await;
    both_ways(&mut server, &mut client, 60_000).await;
    let kept = server.incoming.capacity() + server.plain.capacity() + server.outgoing.capacity();
    assert_eq!(kept, 0);
}

#[tokio::test]
async fn what_the_socket_does_not_take_is_not_lost_and_holds_the_writer() {
    let node = Node::new();
    let (mut server, mut client) = node.usual(2_000).await;
    let all = pattern(400_000);
    let mut taken = 0;
    // Nobody reads: at some time nothing more is taken, and not much of it is kept here.
    std::future::poll_fn(|cx| {
        while let Poll::Ready(n) = Pin::new(&mut server).poll_write(cx, &all[taken..]) {
            taken += n.unwrap();
        }
        Poll::Ready(())
    })
    .await;
    assert!(taken <= 2 * WRITE && server.outgoing.len() <= 2 * WRITE, "{taken}");
    let mut got = vec![0; taken];
    let (flushed, read) = tokio::join!(server.flush(), client.read_exact(&mut got));
    flushed.unwrap();
    read.unwrap();
    assert!(got == all[..taken]);
    both_ways(&mut server, &mut client, 5_000).await;
}

#[tokio::test]
async fn both_sides_close_properly() {
    let node = Node::new();
    let (mut server, mut client) = node.usual(64 * 1024).await;
    client.write_all(b"last words").await.unwrap();
    client.shutdown().await.unwrap();
    let mut all = Vec::new();
    server.read_to_end(&mut all).await.unwrap();
    assert_eq!(all, b"last words");
    // Half closed: what we still have to say arrives.
    server.write_all(b"bye").await.unwrap();
    server.shutdown().await.unwrap();
    assert_eq!(server.read(&mut [0; 8]).await.unwrap(), 0);
    assert_eq!(server.write(b"more").await.unwrap_err().kind(), io::ErrorKind::BrokenPipe);
    let mut answer = Vec::new();
    client.read_to_end(&mut answer).await.unwrap();
    assert_eq!(answer, b"bye");
}

#[tokio::test]
async fn we_close_first_and_still_read() {
    let node = Node::new();
    let (mut server, mut client) = node.usual(64 * 1024).await;
    server.shutdown().await.unwrap();
    assert_eq!(client.read(&mut [0; 8]).await.unwrap(), 0);
    client.write_all(b"late").await.unwrap();
    client.shutdown().await.unwrap();
    let mut all = Vec::new();
    server.read_to_end(&mut all).await.unwrap();
    assert_eq!(all, b"late");
    server.shutdown().await.unwrap();
}

#[tokio::test]
async fn a_socket_that_just_ends_is_an_error() {
    let node = Node::new();
    let (mut server, client) = node.usual(64 * 1024).await;
    drop(client);
    assert_eq!(server.read(&mut [0; 8]).await.unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
    let (mut server, mut client) = node.usual(64 * 1024).await;
    // Half a record.
    client.get_mut().0.write_all(&[23, 3, 3, 0, 40, 1, 2]).await.unwrap();
    drop(client);
    assert_eq!(server.read(&mut [0; 8]).await.unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
}

#[tokio::test]
async fn a_forged_record_ends_it_with_an_alert() {
    let node = Node::new();
    for forged in [
        [&[23, 3, 3, 0, 40][..], &[7; 40]].concat(),      // wrong keys
        [&[23, 3, 3, 0xff, 0xff][..], &[7; 40]].concat(), // too long
        b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n".to_vec(),
    ] {
        let (mut server, mut client) = node.usual(64 * 1024).await;
        both_ways(&mut server, &mut client, 100).await;
        client.get_mut().0.write_all(&forged).await.unwrap();
        assert_eq!(server.read(&mut [0; 8]).await.unwrap_err().kind(), io::ErrorKind::InvalidData);
        assert_eq!(server.read(&mut [0; 8]).await.unwrap_err().kind(), io::ErrorKind::InvalidData);
        assert_eq!(server.write(b"x").await.unwrap_err().kind(), io::ErrorKind::BrokenPipe);
        server.shutdown().await.unwrap();
        let error = client.read(&mut [0; 8]).await.unwrap_err();
        assert!(error.to_string().contains("alert"), "{error}");
    }
}

#[tokio::test]
async fn keys_are_updated_by_either_side() {
    let node = Node::new();
    for capacity in [1_000, 64 * 1024] {
        let (mut server, mut client) = node.usual(capacity).await;
        for round in 0..20 {
            client.get_mut().1.refresh_traffic_keys().unwrap();
            both_ways(&mut server, &mut client, 1_000 * (round % 3) + 1).await;
            let mut incoming = std::mem::take(&mut server.incoming);
            if let Ok(ConnectionState::WriteTraffic(traffic)) =
                server.tls.process_tls_records(&mut incoming).state
            {
                traffic.refresh_traffic_keys().unwrap();
            }
            server.incoming = incoming;
            both_ways(&mut server, &mut client, 1_000).await;
        }
    }
}

#[tokio::test]
async fn resumed_with_a_ticket_and_bound_anew() {
    let node = Node::new();
    let config = node.client(aws_lc_rs::default_provider());
    let mut bindings = Vec::new();
    for kind in [HandshakeKind::Full, HandshakeKind::Resumed] {
        let (mut server, mut client) = node.connect(config.clone(), 64 * 1024).await;
        both_ways(&mut server.stream, &mut client, 10).await; // the ticket is read with it
        assert_eq!(server.stream.get_ref().1.handshake_kind(), Some(kind));
        let theirs = client.get_ref().1.export_keying_material([0; 32], b"EXPORTER-Channel-Binding", None);
        assert_eq!(server.bindings.exporter, theirs.ok());
        bindings.push(server.bindings.exporter);
    }
    assert!(bindings[0] != bindings[1]);
}

#[tokio::test]
async fn no_tls_and_half_a_handshake() {
    let node = Node::new();
    let (ours, mut theirs) = duplex(64 * 1024);
    theirs.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
    let error = accept_direct(&node.tls, ours).await.err().unwrap();
    assert_eq!(error.kind(), io::ErrorKind::InvalidData);
    let mut alert = Vec::new();
    theirs.read_to_end(&mut alert).await.unwrap();
    assert_eq!(alert.first(), Some(&21));
    let (ours, mut theirs) = duplex(64 * 1024);
    theirs.write_all(&[22, 3, 1, 0, 200, 1, 0, 0, 196]).await.unwrap();
    drop(theirs);
    let error = accept_direct(&node.tls, ours).await.err().unwrap();
    assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
}
