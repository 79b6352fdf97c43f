//! Certificates: an authority of the test's own, and all that may be wrong with what it signs.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    KeyUsagePurpose, PublicKeyData as _,
};
use sha2::{Digest, Sha256};

use crate::server::Error;

/// The next certificate's.
static NUMBER: AtomicU32 = AtomicU32::new(0);

/// What a domain's certificate is like.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    /// For the domain, from the authority, for servers and clients.
    Valid,
    /// For servers only, as public authorities issue them today.
    ServerOnly,
    /// The certificate ended long ago.
    Expired,
    /// For another domain.
    WrongName,
    /// By nobody.
    SelfSigned,
}

/// Where a certificate lies.
#[derive(Clone, Debug)]
pub struct Files {
    /// The certificate.
    pub cert: PathBuf,
    /// Its key.
    pub key: PathBuf,
    /// Both.
    pub both: PathBuf,
    /// SHA-256 of its public key, in hexadecimal: the data of a `TLSA 3 1 1`.
    pub key_hash: String,
}

/// Signs certificates.
pub struct Authority {
    dir: PathBuf,
    issuer: CertifiedIssuer<'static, KeyPair>,
}

impl Authority {
    /// Makes an authority whose certificate is `ca.pem` in `dir`.
    pub fn new(dir: &Path) -> Result<Authority, Error> {
        let mut params = CertificateParams::new(Vec::new()).map_err(fail)?;
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.distinguished_name.push(rcgen::DnType::CommonName, "the authority of a test");
        dated(&mut params, 2036);
        let issuer =
            CertifiedIssuer::self_signed(params, KeyPair::generate().map_err(fail)?).map_err(fail)?;
        std::fs::create_dir_all(dir)?;
        std::fs::write(dir.join("ca.pem"), issuer.pem())?;
        Ok(Authority { dir: dir.to_owned(), issuer })
    }

    /// The authority's certificate.
    pub fn file(&self) -> PathBuf {
        self.dir.join("ca.pem")
    }

    /// A certificate for the names, of which the first names the files.
    pub fn issue(&self, names: &[&str], kind: Kind) -> Result<Files, Error> {
        let names = match kind {
            Kind::WrongName => vec!["elsewhere.example".to_owned()],
            _ => names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>(),
        };
        let first =
            format!("{}-{kind:?}-{}", names[0].replace('*', "any"), NUMBER.fetch_add(1, Ordering::Relaxed));
        let mut params = CertificateParams::new(names).map_err(fail)?;
        dated(&mut params, if kind == Kind::Expired { 2025 } else { 2036 });
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        if kind != Kind::ServerOnly {
            params.extended_key_usages.push(ExtendedKeyUsagePurpose::ClientAuth);
        }
        let key = KeyPair::generate().map_err(fail)?;
        let hash = Sha256::digest(key.subject_public_key_info());
        let cert = match kind {
            Kind::SelfSigned => params.self_signed(&key),
            _ => params.signed_by(&key, &self.issuer),
        };
        let (cert, pem) = (cert.map_err(fail)?.pem(), key.serialize_pem());
        let at = |end: &str| self.dir.join(format!("{first}.{end}"));
        let files = Files {
            cert: at("crt"),
            key: at("key"),
            both: at("pem"),
            key_hash: hash.iter().map(|b| format!("{b:02x}")).collect(),
        };
        std::fs::write(&files.cert, &cert)?;
        std::fs::write(&files.key, &pem)?;
        std::fs::write(&files.both, format!("{cert}{pem}"))?;
        Ok(files)
    }
}

/// Erlang sets a timer for the end, for which rcgen's default is too far away.
fn dated(params: &mut CertificateParams, end: i32) {
    params.not_before = rcgen::date_time_ymd(2024, 1, 1);
    params.not_after = rcgen::date_time_ymd(end, 1, 1);
}

fn fail(e: rcgen::Error) -> Error {
    Error::Failed(e.to_string())
}
