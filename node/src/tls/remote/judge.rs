//! What a certificate proves.

use std::path::PathBuf;
use std::sync::Arc;

use rookery_cluster::seams::Seams;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, SignatureVerificationAlgorithm, TrustAnchor, UnixTime};
use rustls::{ClientConfig, RootCertStore};
use webpki::{EndEntityCert, KeyUsage};
use x509_parser::prelude::{FromDer as _, X509Certificate};

use super::dane;
use super::names_of::Names;
use super::posh::Fingerprints;
use crate::config::Authorities;
use crate::dns::{Target, Tlsa, names};
use crate::https;

/// How many certificates of a chain are looked at.
const CHAIN: usize = 10;

/// What a certificate proves a domain by.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Proof {
    /// A chain to a trusted authority, and the domain's name (RFC 9525).
    Pkix,
    /// A TLSA record that DNSSEC has validated (RFC 7673).
    Dane,
    /// A fingerprint in the domain's POSH file (RFC 7711).
    Posh,
}

/// Why a certificate does not prove a domain. Its names are the other side's words: they are printed escaped.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum NotProved {
    /// No certificate was sent.
    #[error("no certificate was sent")]
    NoCertificate,
    /// The certificate cannot be read.
    #[error("the certificate cannot be read: {0}")]
    Malformed(String),
    /// A certificate of the chain has expired.
    #[error("the certificate expired {} ago", duration(*.0))]
    Expired(u64),
    /// A certificate of the chain is not valid yet.
    #[error("the certificate becomes valid in {}", duration(*.0))]
    NotYetValid(u64),
    /// The certificate is for other names.
    #[error("the certificate is not for {domain}, but for {names:?}")]
    WrongName {
        /// The domain that was to be proved.
        domain: String,
        /// Some of the names that it is for.
        names: Vec<String>,
    },
    /// No authority that is trusted has signed it.
    #[error(
        "the certificate is not signed by a trusted authority, or an intermediate certificate is missing"
    )]
    UnknownAuthority,
    /// The certificate is for other uses than TLS.
    #[error("the certificate is not for TLS: it lacks the usages serverAuth and clientAuth")]
    WrongUsage,
    /// The domain's TLSA records are of other certificates.
    #[error("the certificate does not match the TLSA records of the domain")]
    WrongRecord,
    /// The domain's POSH file is about other certificates.
    #[error("the certificate is not among the fingerprints in the domain's POSH file")]
    WrongFingerprint,
    /// The chain breaks a rule of RFC 5280.
    #[error("the certificate chain is not valid: {0}")]
    Invalid(String),
}

fn duration(seconds: u64) -> String {
    match seconds {
        0..3_600 => format!("{} min", seconds / 60),
        3_600..172_800 => format!("{} h", seconds / 3_600),
        _ => format!("{} days", seconds / 86_400),
    }
}

/// Judges certificates of other servers. Cheap to clone.
#[derive(Clone)]
pub struct Judge {
    roots: Arc<Roots>,
    algorithms: &'static [&'static dyn SignatureVerificationAlgorithm],
    seams: Seams,
}

/// The authorities, as they were read and as they are used.
struct Roots {
    certificates: Vec<CertificateDer<'static>>,
    anchors: Vec<TrustAnchor<'static>>,
}

/// The configured file of authorities cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("{}: {what}", path.display())]
pub struct BadAuthorities {
    path: PathBuf,
    what: String,
}

impl Judge {
    /// Reads the authorities. What the system has and cannot be read is left out, with a warning; without any, only DANE proves.
    pub fn new(config: &Authorities, seams: Seams) -> Result<Self, BadAuthorities> {
        let mut certificates = Vec::new();
        if config.system {
            let found = rustls_native_certs::load_native_certs();
            for error in &found.errors {
                tracing::warn!(%error, "an authority of the system cannot be read, and is left out");
            }
            certificates = found.certs;
        }
        if let Some(path) = &config.file {
            let bad = |e: &dyn std::fmt::Display| BadAuthorities { path: path.clone(), what: e.to_string() };
            for certificate in CertificateDer::pem_file_iter(path).map_err(|e| bad(&e))? {
                certificates.push(certificate.map_err(|e| bad(&e))?);
            }
        }
        let anchors: Vec<_> = certificates.iter().filter_map(anchor).collect();
        if anchors.is_empty() {
            tracing::warn!(
                "no certificate authority is trusted, so no certificate proves another server; install ca-certificates, or set authorities.file"
            );
        }
        let algorithms = rustls::crypto::aws_lc_rs::default_provider().signature_verification_algorithms.all;
        Ok(Self { roots: Arc::new(Roots { certificates, anchors }), algorithms, seams })
    }

    /// TLS with web servers that these authorities prove.
    ///
    /// # Errors
    /// Those of [`https::config`].
    pub(crate) fn https(&self) -> Result<ClientConfig, rustls::Error> {
        https::config(RootCertStore { roots: self.roots.anchors.clone() })
    }

    /// Whether the first certificate of `chain` is among the fingerprints of the domain's POSH file (RFC 7711 section 4). Names and
    /// authorities do not count; the certificate's own dates do.
    ///
    /// # Errors
    /// Why not.
    pub fn by_fingerprint(
        &self,
        chain: &[CertificateDer<'_>],
        fingerprints: &Fingerprints,
    ) -> Result<Proof, NotProved> {
        let first = chain.first().ok_or(NotProved::NoCertificate)?;
        let (_, parsed) =
            X509Certificate::from_der(first).map_err(|e| NotProved::Malformed(e.to_string()))?;
        let now = i64::try_from(self.seams.clock.now_micros() / 1_000_000).unwrap_or(i64::MAX);
        let (from, to) = (parsed.validity().not_before.timestamp(), parsed.validity().not_after.timestamp());
        if now > to {
            return Err(NotProved::Expired(now.abs_diff(to)));
        }
        if now < from {
            return Err(NotProved::NotYetValid(now.abs_diff(from)));
        }
        if fingerprints.have(first) { Ok(Proof::Posh) } else { Err(NotProved::WrongFingerprint) }
    }

    /// Whether `chain` (the server's certificate first, as TLS brought it) proves `domain` (as in a JID).
    ///
    /// `targets`: for an outgoing stream the one target that it was connected to; for an incoming stream all targets of the
    /// domain, if DANE is to be tried; else none. Where every target has usable TLSA records, they decide alone (RFC 7673
    /// section 4); where DNSSEC has validated the way to a target, a certificate for its host proves the domain.
    pub fn judge(
        &self,
        chain: &[CertificateDer<'_>],
        domain: &str,
        targets: &[Target],
    ) -> Result<Proof, NotProved> {
        let chain = chain.get(..CHAIN).unwrap_or(chain);
        let (first, rest) = chain.split_first().ok_or(NotProved::NoCertificate)?;
        let (_, parsed) =
            X509Certificate::from_der(first).map_err(|e| NotProved::Malformed(e.to_string()))?;
        let case = Case {
            judge: self,
            certificate: EndEntityCert::try_from(first).map_err(|e| NotProved::Malformed(e.to_string()))?,
            first,
            rest,
            names: Names::of(&parsed).map_err(NotProved::Malformed)?,
            domain,
            targets,
            now: UnixTime::since_unix_epoch(std::time::Duration::from_micros(self.seams.clock.now_micros())),
        };
        let records = |target: &'_ Target| target.secure && target.tlsa.iter().any(dane::usable);
        let all: Vec<&Tlsa> = targets
            .iter()
            .filter(|target| target.secure)
            .flat_map(|target| &target.tlsa)
            .filter(|record| dane::usable(record))
            .collect();
        if all.iter().any(|record| case.dane(record)) {
            return Ok(Proof::Dane);
        }
        if !targets.is_empty() && targets.iter().all(records) {
            return Err(NotProved::WrongRecord);
        }
        case.pkix().map(|()| Proof::Pkix)
    }
}

/// One certificate before the judge.
struct Case<'a> {
    judge: &'a Judge,
    certificate: EndEntityCert<'a>,
    first: &'a CertificateDer<'a>,
    rest: &'a [CertificateDer<'a>],
    names: Names,
    domain: &'a str,
    targets: &'a [Target],
    now: UnixTime,
}

impl Case<'_> {
    /// A chain to an authority, and the name.
    fn pkix(&self) -> Result<(), NotProved> {
        let constrained = self.chain(&self.judge.roots.anchors)?;
        self.name(constrained)
    }

    /// `constrained`: the chain's authorities may not sign every name. That was checked of DNS names and addresses alone, so no others
    /// count.
    fn name(&self, constrained: bool) -> Result<(), NotProved> {
        let ascii = match names::address(self.domain) {
            Some(_) => Some(self.domain.to_owned()),
            None => names::ascii(self.domain),
        };
        let cover = |name: &str| match constrained && names::address(name).is_none() {
            true => self.names.cover_host(name),
            false => self.names.cover(name),
        };
        let domain = ascii.is_some_and(|name| cover(&name));
        let delegated = || self.targets.iter().any(|t| t.secure && self.names.cover_host(&t.host));
        if domain || delegated() {
            return Ok(());
        }
        Err(NotProved::WrongName { domain: self.domain.to_owned(), names: self.names.some() })
    }

    /// A chain to one of `anchors`. serverAuth alone will do for a server that connects, as public authorities give no
    /// clientAuth any more; so does clientAuth alone. Whether an authority of the chain is bound to certain names.
    fn chain(&self, anchors: &[TrustAnchor<'_>]) -> Result<bool, NotProved> {
        let usage = |usage: KeyUsage| {
            self.certificate
                .verify_for_usage(self.judge.algorithms, anchors, self.rest, self.now, usage, None, None)
                .map(|path| {
                    let mut between = path.intermediate_certificates();
                    path.anchor().name_constraints.is_some() || between.any(|one| constrains(&one.der()))
                })
        };
        let verified = match usage(KeyUsage::server_auth()) {
            Err(webpki::Error::RequiredEkuNotFoundContext(_)) => usage(KeyUsage::client_auth()),
            verified => verified,
        };
        verified.map_err(why)
    }

    /// Whether a usable record proves the domain with this certificate.
    fn dane(&self, record: &Tlsa) -> bool {
        let ends_here = || dane::matches(record, self.first);
        match record.usage {
            // Names and dates do not count (RFC 7671 section 5.1).
            dane::DANE_EE => ends_here(),
            dane::PKIX_EE => ends_here() && self.pkix().is_ok(),
            dane::DANE_TA => {
                self.below(record, &[]).is_some_and(|constrained| self.name(constrained).is_ok())
            }
            dane::PKIX_TA => {
                self.below(record, &self.judge.roots.certificates).is_some() && self.pkix().is_ok()
            }
            _ => false,
        }
    }

    /// Whether the certificate is below an authority that the record is of: one of the chain, one of `others`, or one that the
    /// record holds. Whether the chain is bound to certain names.
    fn below(&self, record: &Tlsa, others: &[CertificateDer<'_>]) -> Option<bool> {
        let whole = dane::whole(record);
        let sent = self.rest.iter().chain(others).filter(|one| dane::matches(record, one));
        let mut authorities = sent.chain(whole.as_ref());
        authorities
            .find_map(|authority| self.chain(&[webpki::anchor_from_trusted_cert(authority).ok()?]).ok())
    }
}

/// Whether an authority is bound to certain names (RFC 5280 section 4.2.1.10). One that cannot be read is.
fn constrains(certificate: &CertificateDer<'_>) -> bool {
    X509Certificate::from_der(certificate)
        .map_or(true, |(_, parsed)| !matches!(parsed.name_constraints(), Ok(None)))
}

fn anchor(certificate: &CertificateDer<'static>) -> Option<TrustAnchor<'static>> {
    match webpki::anchor_from_trusted_cert(certificate) {
        Ok(anchor) => Some(anchor.to_owned()),
        Err(error) => {
            tracing::warn!(%error, "the certificate of an authority cannot be read, and is left out");
            None
        }
    }
}

fn why(error: webpki::Error) -> NotProved {
    match error {
        webpki::Error::CertExpired { time, not_after } => {
            NotProved::Expired(time.as_secs().saturating_sub(not_after.as_secs()))
        }
        webpki::Error::CertNotValidYet { time, not_before } => {
            NotProved::NotYetValid(not_before.as_secs().saturating_sub(time.as_secs()))
        }
        // The last one: an authority of the same name has another key.
        webpki::Error::UnknownIssuer
        | webpki::Error::CaUsedAsEndEntity
        | webpki::Error::InvalidSignatureForPublicKey => NotProved::UnknownAuthority,
        webpki::Error::RequiredEkuNotFoundContext(_) => NotProved::WrongUsage,
        other => NotProved::Invalid(other.to_string()),
    }
}
