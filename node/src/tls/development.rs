//! Certificates of the node's own making, for development: an authority of its own, once, and a certificate for each
//! domain that has none, both in `<data_dir>/tls`, renewed before they expire.

use std::fs;
use std::net::{IpAddr, Ipv6Addr};
use std::path::Path;

use rcgen::{
    BasicConstraints, CertificateParams, CidrSubnet, DnType, ExtendedKeyUsagePurpose, GeneralSubtree, IsCa,
    Issuer, KeyPair, KeyUsagePurpose, NameConstraints,
};
use rookery_cluster::mesh::peer::authority::{validity, write_file};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use x509_parser::prelude::{FromDer as _, GeneralName, X509Certificate};

use super::Error;
use crate::config::CertificateFiles;

const DAY: i64 = 86_400;
/// How long the authority lives, and how long a certificate does: what browsers and phones accept.
const AUTHORITY_DAYS: i64 = 3_650;
const CERTIFICATE_DAYS: i64 = 397;
/// What has less than this left is made anew.
pub(super) const RENEW: i64 = 30 * DAY;

/// The file of the authority's certificate, which clients have to trust.
pub const AUTHORITY: &str = "ca.pem";

/// The files of `domain`'s certificate in `folder`, made or renewed at `now` (seconds since 1970) if need be. The authority
/// can sign for the domains that are `served`, and for loopback, and for nothing else: clients that trust it trust it so far.
pub fn certificate(
    folder: &Path,
    domain: &str,
    served: &[&str],
    now: i64,
) -> Result<CertificateFiles, Error> {
    // A domain is no path: dots and letters of hosts only.
    let stem: String = ascii(domain)
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() || c == '-' || c == '.' { c } else { '_' })
        .collect();
    let files = CertificateFiles {
        certificate: folder.join(format!("{stem}.pem")),
        key: folder.join(format!("{stem}-key.pem")),
    };
    let authority = folder.join(AUTHORITY);
    let fresh = |path: &Path| not_after(path).is_some_and(|end| end - now > RENEW);
    if files.key.exists()
        && fresh(&files.certificate)
        && fresh(&authority)
        && is_for(&authority, served)
        && signed_by(&files.certificate, &authority)
    {
        return Ok(files);
    }
    fs::create_dir_all(folder).map_err(|e| file(folder, &e))?;
    let (ca, ca_pem) = issuer(folder, domain, served, now)?;
    let make = |source| Error::Make { domain: domain.to_owned(), source };
    let mut names = vec![ascii(domain)];
    if domain == "localhost" {
        names.extend(["127.0.0.1".to_owned(), "::1".to_owned()]);
    }
    let mut params = CertificateParams::new(names).map_err(make)?;
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, domain);
    (params.not_before, params.not_after) = validity(now, CERTIFICATE_DAYS);
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    params.use_authority_key_identifier_extension = true;
    let key = KeyPair::generate().map_err(make)?;
    let signed = params.signed_by(&key, &ca).map_err(make)?;
    write(&files.key, key.serialize_pem().as_bytes(), 0o600)?;
    write(&files.certificate, format!("{}{ca_pem}", signed.pem()).as_bytes(), 0o644)?;
    tracing::info!(domain, file = %files.certificate.display(), "certificate created");
    Ok(files)
}

/// The authority in `folder`, made if there is none, if it is about to expire, or if it is for other domains.
fn issuer(
    folder: &Path,
    domain: &str,
    served: &[&str],
    now: i64,
) -> Result<(Issuer<'static, KeyPair>, String), Error> {
    let make = |source| Error::Make { domain: domain.to_owned(), source };
    let (path, key_path) = (folder.join(AUTHORITY), folder.join("ca-key.pem"));
    if not_after(&path).is_some_and(|end| end - now > RENEW)
        && is_for(&path, served)
        && let (Ok(pem), Ok(key)) = (fs::read_to_string(&path), fs::read_to_string(&key_path))
    {
        let key = KeyPair::from_pem(&key).map_err(make)?;
        return Ok((Issuer::from_ca_cert_pem(&pem, key).map_err(make)?, pem));
    }
    let mut params = CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, "Rookery development authority");
    (params.not_before, params.not_after) = validity(now, AUTHORITY_DAYS);
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.name_constraints =
        Some(NameConstraints { permitted_subtrees: permitted(served), excluded_subtrees: Vec::new() });
    let key = KeyPair::generate().map_err(make)?;
    let pem = params.self_signed(&key).map_err(make)?.pem();
    write(&key_path, key.serialize_pem().as_bytes(), 0o600)?;
    write(&path, pem.as_bytes(), 0o644)?;
    let domains = served.join(", ");
    tracing::info!(file = %path.display(), domains, "certificate authority created; clients must trust this file");
    Ok((Issuer::new(params, key), pem))
}

/// What the authority may sign for (RFC 5280 section 4.2.1.10).
fn permitted(served: &[&str]) -> Vec<GeneralSubtree> {
    let loopback = [
        GeneralSubtree::DnsName("localhost".to_owned()),
        GeneralSubtree::IpAddress(CidrSubnet::from_v4_prefix([127, 0, 0, 0], 8)),
        GeneralSubtree::IpAddress(CidrSubnet::from_v6_prefix(Ipv6Addr::LOCALHOST.octets(), 128)),
    ];
    let domain = |domain: &&str| {
        let name = ascii(domain);
        match name.parse::<IpAddr>() {
            Ok(address @ IpAddr::V4(_)) => {
                GeneralSubtree::IpAddress(CidrSubnet::from_addr_prefix(address, 32))
            }
            Ok(address) => GeneralSubtree::IpAddress(CidrSubnet::from_addr_prefix(address, 128)),
            Err(_) => GeneralSubtree::DnsName(name),
        }
    };
    loopback.into_iter().chain(served.iter().filter(|name| **name != "localhost").map(domain)).collect()
}

/// Whether the authority is constrained, and may sign for all that is served.
fn is_for(path: &Path, served: &[&str]) -> bool {
    let Some(der) = first(path) else { return false };
    let Ok((_, certificate)) = X509Certificate::from_der(&der) else { return false };
    let Ok(Some(constraints)) = certificate.name_constraints() else { return false };
    let permitted = constraints.value.permitted_subtrees.as_deref().unwrap_or_default();
    let has = |name: &str| {
        permitted.iter().any(|subtree| match &subtree.base {
            GeneralName::DNSName(permitted) => *permitted == name,
            GeneralName::IPAddress(permitted) => name.parse::<IpAddr>().is_ok_and(|address| match address {
                IpAddr::V4(v4) => permitted.starts_with(&v4.octets()),
                IpAddr::V6(v6) => permitted.starts_with(&v6.octets()),
            }),
            _ => false,
        })
    };
    served.iter().all(|domain| has(&ascii(domain)))
}

fn first(path: &Path) -> Option<CertificateDer<'static>> {
    CertificateDer::from_pem_file(path).ok()
}

/// When the first certificate in the file expires.
fn not_after(path: &Path) -> Option<i64> {
    let der = first(path)?;
    let (_, certificate) = X509Certificate::from_der(&der).ok()?;
    Some(certificate.validity().not_after.timestamp())
}

/// Whether the key identifiers fit: a certificate of an authority that was made anew since does not.
fn signed_by(path: &Path, authority: &Path) -> bool {
    let sent = CertificateDer::pem_file_iter(path).ok().and_then(|mut all| all.nth(1)?.ok());
    sent.is_some() && sent == first(authority)
}

fn file(path: &Path, error: &dyn std::fmt::Display) -> Error {
    Error::File { path: path.to_owned(), what: error.to_string() }
}

/// Writes a whole file or nothing, with `mode` from its first moment.
fn write(path: &Path, bytes: &[u8], mode: u32) -> Result<(), Error> {
    write_file(path, bytes, mode).map_err(|e| file(path, &e))
}

/// A domain as certificates and SNI write it: A-labels, lower case, no dot at the end.
pub fn ascii(domain: &str) -> String {
    let domain = domain.strip_suffix('.').unwrap_or(domain);
    idna::domain_to_ascii(domain).unwrap_or_else(|_| domain.to_ascii_lowercase())
}
