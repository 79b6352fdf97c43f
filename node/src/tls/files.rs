//! Reading certificates and keys from files.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use super::Error;
use crate::config::CertificateFiles;

/// The chain, the end entity first, and the key. A key that everybody may read is used, with a warning.
pub(super) fn load(
    files: &CertificateFiles,
) -> Result<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>), Error> {
    let wrong = |path: &Path, what: String| Error::File { path: path.to_owned(), what };
    let chain = CertificateDer::pem_file_iter(&files.certificate)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|e| wrong(&files.certificate, format!("no PEM certificate could be read: {e}")))?;
    if chain.is_empty() {
        return Err(wrong(&files.certificate, "holds no certificate; it must be in PEM".to_owned()));
    }
    let key = PrivateKeyDer::from_pem_file(&files.key)
        .map_err(|e| wrong(&files.key, format!("no PEM private key could be read: {e}")))?;
    if let Ok(meta) = std::fs::metadata(&files.key)
        && meta.permissions().mode() & 0o007 != 0
    {
        tracing::warn!(file = %files.key.display(), "other users of this machine can read the private key; run chmod 600 on the file");
    }
    Ok((chain, key))
}
