//! Channel bindings: what SCRAM-*-PLUS ties a login to, so that nobody can sit in the middle.

use rustls::ServerConnection;
use sha2::Digest as _;
use x509_parser::prelude::X509Certificate;
use x509_parser::signature_algorithm::SignatureAlgorithm;

/// `tls-exporter` (RFC 9266): 32 bytes, on TLS 1.3 only. On TLS 1.2 it would need the extended master secret, which
/// rustls does not tell about.
pub(super) fn exporter(connection: &ServerConnection) -> Option<[u8; 32]> {
    if connection.protocol_version()? != rustls::ProtocolVersion::TLSv1_3 {
        return None;
    }
    connection.export_keying_material([0; 32], b"EXPORTER-Channel-Binding", None).ok()
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
            Some(sha2::Sha256::digest(der).to_vec())
        }
        "1.2.840.113549.1.1.12" | "1.2.840.10045.4.3.3" | "2.16.840.1.101.3.4.2.2" => {
            Some(sha2::Sha384::digest(der).to_vec())
        }
        "1.2.840.113549.1.1.13" | "1.2.840.10045.4.3.4" | "2.16.840.1.101.3.4.2.3" => {
            Some(sha2::Sha512::digest(der).to_vec())
        }
        _ => None,
    }
}
