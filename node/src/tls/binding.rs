//! Channel bindings: what SCRAM-*-PLUS ties a login to, so that nobody can sit in the middle.

use std::cell::Cell;

use hmac::{Hmac, KeyInit, Mac};
use rustls::KeyLog;
use sha2::{Digest as _, Sha256, Sha384};
use x509_parser::prelude::X509Certificate;
use x509_parser::signature_algorithm::SignatureAlgorithm;

thread_local! {
    /// What the handshake that this thread is busy with has derived last.
    static DERIVED: Cell<Option<[u8; 32]>> = const { Cell::new(None) };
}

/// Derives `tls-exporter` (RFC 9266) during a handshake. rustls' unbuffered connection can't export keying material, so the exporter
/// secret comes by way of the key log, and nothing is kept but the binding. On TLS 1.3 only: on 1.2 it would need the
/// extended master secret, which rustls does not log.
///
/// What breaks this, and which test fails then (`the_key_log_is_as_we_need_it`, below):
/// - rustls logs the secret under another label than `EXPORTER_SECRET`, or not at all: no client is offered `tls-exporter`.
/// - The secret is logged twice, for another connection's handshake, or on another thread: a client's binding is not ours, and
///   logins with SCRAM-*-PLUS fail.
/// - It is logged after the handshake counts as finished: [`TlsStream::accept`](super::TlsStream) does not see it.
/// - The secret is no longer that of RFC 8446 section 7.5: `every_suite_carries_bytes_and_binds` compares with what a client exports.
///
/// All of this goes once rustls' `UnbufferedServerConnection` has `export_keying_material`.
#[derive(Debug)]
pub(super) struct Exporter;

impl Exporter {
    /// Runs a step of a handshake; also returns the binding, if this step has derived it.
    pub(super) fn watch<T>(step: impl FnOnce() -> T) -> (T, Option<[u8; 32]>) {
        DERIVED.set(None);
        let done = step();
        (done, DERIVED.take())
    }
}

impl KeyLog for Exporter {
    fn log(&self, label: &str, _: &[u8], secret: &[u8]) {
        if self.will_log(label) {
            // The secret is as long as the hash of the suite, and all suites have one of these.
            DERIVED.set(match secret.len() {
                32 => export::<Hmac<Sha256>>(secret, &Sha256::digest([])),
                48 => export::<Hmac<Sha384>>(secret, &Sha384::digest([])),
                _ => None,
            });
        }
    }

    fn will_log(&self, label: &str) -> bool {
        label == "EXPORTER_SECRET"
    }
}

/// TLS-Exporter of RFC 8446 section 7.5, without a context; `nothing` is the hash of nothing.
fn export<M: Mac + KeyInit>(secret: &[u8], nothing: &[u8]) -> Option<[u8; 32]> {
    let derived = expand::<M>(secret, b"EXPORTER-Channel-Binding", nothing, nothing.len())?;
    expand::<M>(&derived, b"exporter", nothing, 32)?.try_into().ok()
}

/// HKDF-Expand-Label of RFC 8446 section 7.1, for at most one block.
fn expand<M: Mac + KeyInit>(secret: &[u8], label: &[u8], context: &[u8], len: usize) -> Option<Vec<u8>> {
    let mut mac = <M as KeyInit>::new_from_slice(secret).ok()?;
    mac.update(&u16::try_from(len).ok()?.to_be_bytes());
    mac.update(&[u8::try_from(6 + label.len()).ok()?]);
    mac.update(b"tls13 ");
    mac.update(label);
    mac.update(&[u8::try_from(context.len()).ok()?]);
    mac.update(context);
    mac.update(&[1]);
    Some(mac.finalize().into_bytes().get(..len)?.to_vec())
}

/// `tls-server-end-point` (RFC 5929 section 4.1): the certificate's hash, by the hash of its signature, SHA-256 at
/// least. `None` where that is not defined (Ed25519 has no separate hash).
pub(super) fn server_end_point(der: &[u8], certificate: &X509Certificate<'_>) -> Option<Vec<u8>> {
    // RSASSA-PSS and the other OIDs of RFC 4055 and RFC 5758.
    let oid = match SignatureAlgorithm::try_from(&certificate.signature_algorithm) {
        Ok(SignatureAlgorithm::RSASSA_PSS(parameters)) => parameters.hash_algorithm_oid().to_id_string(),
        _ => certificate.signature_algorithm.algorithm.to_id_string(),
    };
    match oid.as_str() {
        // md5WithRSA, sha1WithRSA, ecdsa-with-SHA1, SHA-1 itself: SHA-256 in their place.
        "1.2.840.113549.1.1.4" | "1.2.840.113549.1.1.5" | "1.2.840.10045.4.1" | "1.3.14.3.2.26"
        // sha256WithRSA, ecdsa-with-SHA256, SHA-256.
        | "1.2.840.113549.1.1.11" | "1.2.840.10045.4.3.2" | "2.16.840.1.101.3.4.2.1" => {
            Some(Sha256::digest(der).to_vec())
        }
        "1.2.840.113549.1.1.12" | "1.2.840.10045.4.3.3" | "2.16.840.1.101.3.4.2.2" => {
            Some(Sha384::digest(der).to_vec())
        }
        "1.2.840.113549.1.1.13" | "1.2.840.10045.4.3.4" | "2.16.840.1.101.3.4.2.3" => {
            Some(sha2::Sha512::digest(der).to_vec())
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::thread::ThreadId;

    use parking_lot::Mutex;
    use rustls::pki_types::ServerName;
    use rustls::unbuffered::ConnectionState;
    use rustls::{ClientConfig, ClientConnection, SupportedProtocolVersion, version};

    use super::*;
    use crate::tls::Tls;
    use crate::tls::tests::{Anyhow, NOW, config, seams};

    /// A label, a secret, and the thread that has logged them.
    type Logged = (String, Vec<u8>, ThreadId);

    /// Notes what is logged.
    #[derive(Debug, Default)]
    struct Spy(Mutex<Vec<Logged>>);

    impl KeyLog for Spy {
        fn log(&self, label: &str, _: &[u8], secret: &[u8]) {
            self.0.lock().push((label.to_owned(), secret.to_vec(), std::thread::current().id()));
        }
    }

    /// A handshake without a socket: what the server's side has logged until it was finished, and what the client exports.
    fn handshake(only: &'static SupportedProtocolVersion) -> (Vec<Logged>, Option<[u8; 32]>) {
        let folder = tempfile::tempdir().unwrap();
        let tls = Tls::load(&config(folder.path(), &["localhost"]), seams(NOW)).unwrap();
        let spy = Arc::new(Spy::default());
        let mut server = (*tls.identity(None).unwrap().starttls).clone();
        server.key_log = spy.clone();
        let mut server = rustls::server::UnbufferedServerConnection::new(Arc::new(server)).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let client = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[only])
            .unwrap()
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(Anyhow::trusting(folder.path())))
            .with_no_client_auth();
        let name = ServerName::try_from("localhost").unwrap();
        let mut client = ClientConnection::new(Arc::new(client), name).unwrap();
        let mut incoming = Vec::new();
        while server.is_handshaking() {
            client.write_tls(&mut incoming).unwrap();
            let mut outgoing = Vec::new();
            loop {
                let status = server.process_tls_records(&mut incoming);
                let discard = status.discard;
                let more = match status.state.unwrap() {
                    ConnectionState::EncodeTlsData(mut data) => {
                        let mut record = vec![0; 16 * 1024];
                        let written = data.encode(&mut record).unwrap();
                        outgoing.extend_from_slice(&record[..written]);
                        true
                    }
                    ConnectionState::TransmitTlsData(data) => {
                        data.done();
                        true
                    }
                    _ => false,
                };
                incoming.drain(..discard);
                if !more {
                    break;
                }
            }
            let mut rest = outgoing.as_slice();
            while !rest.is_empty() {
                client.read_tls(&mut rest).unwrap();
                client.process_new_packets().unwrap();
            }
        }
        let exported = client.export_keying_material([0; 32], b"EXPORTER-Channel-Binding", None).ok();
        (std::mem::take(&mut spy.0.lock()), exported)
    }

    #[test]
    fn the_key_log_is_as_we_need_it() {
        let (logged, exported) = handshake(&version::TLS13);
        let ours: Vec<_> = logged.iter().filter(|(label, ..)| Exporter.will_log(label)).collect();
        let [(_, secret, thread)] = ours.as_slice() else { panic!("not logged once: {logged:?}") };
        assert_eq!(*thread, std::thread::current().id());
        let (binding, derived) =
            (exported, Exporter::watch(|| Exporter.log("EXPORTER_SECRET", &[], secret)).1);
        assert!(binding.is_some() && binding == derived);
        // Nothing that is not asked for is taken for it.
        assert_eq!(Exporter::watch(|| Exporter.log("CLIENT_TRAFFIC_SECRET_0", &[], secret)).1, None);
        let (logged, _) = handshake(&version::TLS12);
        assert!(logged.iter().all(|(label, ..)| !Exporter.will_log(label)), "{logged:?}");
    }
}
