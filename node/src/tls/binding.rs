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

/// Derives `tls-exporter` (RFC 9266) during a handshake. rustls' unbuffered connection can't export, so this is told
/// the exporter secret the way a key log is, and keeps nothing but the binding. On TLS 1.3 only: on 1.2 it would need
/// the extended master secret, which rustls does not tell about.
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
