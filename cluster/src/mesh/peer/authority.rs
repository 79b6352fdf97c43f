//! The cluster's own certificate authority, for `rookery cluster cert`: files in a folder that an operator keeps, not on
//! the nodes. A node gets `cluster_ca.pem`, its certificate and its key.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyPair, KeyUsagePurpose,
};
use time::OffsetDateTime;

use super::node::NodeId;
use super::tls::{Error, Files};

// No node is called like these: names of nodes have no underscore.
/// The file of the authority's certificate, which every node has.
pub const AUTHORITY: &str = "cluster_ca.pem";
/// The file of its key, which no node has.
pub const AUTHORITY_KEY: &str = "cluster_ca.key";

const DAY: i64 = 86_400;
const AUTHORITY_DAYS: i64 = 3_650;
/// How long a node's certificate lives.
pub const NODE_DAYS: i64 = 397;

/// Makes the authority of `cluster` in `folder`, if there is none, at `now` (seconds since 1970). The answer is whether
/// it was made.
///
/// # Errors
/// If a file cannot be written.
pub fn make(folder: &Path, cluster: &str, now: i64) -> Result<bool, Error> {
    let (path, key_path) = (folder.join(AUTHORITY), folder.join(AUTHORITY_KEY));
    if path.exists() && key_path.exists() {
        return Ok(false);
    }
    let failed = |source| Error::Make { name: cluster.to_owned(), source };
    fs::create_dir_all(folder).map_err(|source| Error::File { path: folder.to_owned(), source })?;
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, format!("Rookery cluster {cluster}"));
    (params.not_before, params.not_after) = validity(now, AUTHORITY_DAYS);
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let key = KeyPair::generate().map_err(failed)?;
    let pem = params.self_signed(&key).map_err(failed)?.pem();
    write(&key_path, key.serialize_pem().as_bytes(), 0o600)?;
    write(&path, pem.as_bytes(), 0o644)?;
    Ok(true)
}

/// Makes a certificate and a key for `node` with the authority in `folder`, at `now` (seconds since 1970), good for 397
/// days. Those made before are replaced; they stay good until they expire.
///
/// # Errors
/// If there is no authority in the folder, or a file cannot be read or written.
pub fn certificate(folder: &Path, node: &NodeId, now: i64) -> Result<Files, Error> {
    let failed = |source| Error::Make { name: node.to_string(), source };
    let (authority, key_path) = (folder.join(AUTHORITY), folder.join(AUTHORITY_KEY));
    let read = |path: &Path| {
        fs::read_to_string(path).map_err(|source| Error::File { path: path.to_owned(), source })
    };
    let ca_key = KeyPair::from_pem(&read(&key_path)?).map_err(failed)?;
    let issuer = Issuer::from_ca_cert_pem(&read(&authority)?, ca_key).map_err(failed)?;

    let mut params = CertificateParams::new(vec![node.as_str().to_owned()]).map_err(failed)?;
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, node.as_str());
    (params.not_before, params.not_after) = validity(now, NODE_DAYS);
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    // A node calls and is called.
    params.extended_key_usages =
        vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    params.use_authority_key_identifier_extension = true;
    let key = KeyPair::generate().map_err(failed)?;
    let signed = params.signed_by(&key, &issuer).map_err(failed)?;
    let files = Files {
        authority,
        certificate: folder.join(format!("{node}.pem")),
        key: folder.join(format!("{node}.key")),
    };
    write(&files.key, key.serialize_pem().as_bytes(), 0o600)?;
    write(&files.certificate, signed.pem().as_bytes(), 0o644)?;
    Ok(files)
}

/// When a certificate made at `now` (seconds since 1970) is valid: from a day ago, since clocks differ, for that many days.
pub fn validity(now: i64, days: i64) -> (OffsetDateTime, OffsetDateTime) {
    let at = |seconds| OffsetDateTime::from_unix_timestamp(seconds).unwrap_or(OffsetDateTime::UNIX_EPOCH);
    (at(now - DAY), at(now + days * DAY))
}

/// Writes a whole file or nothing, with `mode` from its first moment.
///
/// # Errors
/// Those of the disk.
pub fn write_file(path: &Path, bytes: &[u8], mode: u32) -> std::io::Result<()> {
    let part = path.with_extension("part");
    let _ = fs::remove_file(&part);
    let mut out = fs::OpenOptions::new().write(true).create_new(true).mode(mode).open(&part)?;
    out.write_all(bytes)?;
    out.sync_all()?;
    fs::rename(&part, path)
}

fn write(path: &Path, bytes: &[u8], mode: u32) -> Result<(), Error> {
    write_file(path, bytes, mode).map_err(|source| Error::File { path: path.to_owned(), source })
}
