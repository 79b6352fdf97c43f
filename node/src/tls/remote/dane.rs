//! TLSA records against certificates (RFC 6698, RFC 7671).

use rustls::pki_types::CertificateDer;
use sha2::{Digest as _, Sha256, Sha512};
use x509_parser::prelude::{FromDer as _, X509Certificate};

use crate::dns::Tlsa;

/// Certificate usages (RFC 7218).
pub(super) const PKIX_TA: u8 = 0;
pub(super) const PKIX_EE: u8 = 1;
pub(super) const DANE_TA: u8 = 2;
pub(super) const DANE_EE: u8 = 3;

/// Whether a record is one that can be compared at all (RFC 7671 section 10.3: others count as not there).
pub(super) fn usable(record: &Tlsa) -> bool {
    let length = record.data.len();
    let data = match record.matching {
        0 => length > 0,
        1 => length == 32,
        2 => length == 64,
        _ => false,
    };
    data && record.usage <= DANE_EE && record.selector <= 1
}

/// Whether the record is of this certificate, whatever its usage.
pub(super) fn matches(record: &Tlsa, certificate: &CertificateDer<'_>) -> bool {
    let selected = match record.selector {
        0 => certificate.as_ref(),
        1 => match X509Certificate::from_der(certificate) {
            Ok((_, parsed)) => parsed.tbs_certificate.subject_pki.raw,
            Err(_) => return false,
        },
        _ => return false,
    };
    match record.matching {
        0 => record.data == selected,
        1 => record.data == Sha256::digest(selected).as_slice(),
        2 => record.data == Sha512::digest(selected).as_slice(),
        _ => false,
    }
}

/// The certificate that a record holds as a whole: an authority that the other side need not send.
pub(super) fn whole(record: &Tlsa) -> Option<CertificateDer<'_>> {
    (record.selector == 0 && record.matching == 0).then(|| CertificateDer::from(record.data.as_slice()))
}
