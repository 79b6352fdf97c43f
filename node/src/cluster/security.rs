//! The certificates by which nodes know each other: reading those of this node, and making them.

use std::path::Path;

use rookery_cluster::mesh::peer::tls::{Error, Files, Tls};
use rookery_cluster::mesh::peer::{Denied, NodeId, Security, authority};
use rookery_ops::admin;
use rookery_ops::cli::CertArgs;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use sha2::{Digest as _, Sha256};
use x509_parser::prelude::{FromDer as _, X509Certificate};

use crate::config::{Cluster, Config};

/// How this node knows others, and they know it.
///
/// # Errors
/// If a file is missing or wrong, or the certificate is not for this node.
pub fn read(section: &Cluster) -> Result<Security, Error> {
    let Some(files) = &section.files else { return Ok(Security::PlainText) };
    let tls = Tls::read(files, &section.node)?;
    if let Some(until) = expiry(files) {
        #[allow(clippy::cast_precision_loss)] // seconds are exact in an f64
        metrics::gauge!("rookery_certificate_expiry_seconds", "domain" => format!("cluster node {}", section.node))
            .set(until as f64);
    }
    Ok(Security::Tls(tls))
}

/// Which certificates are turned away although they are valid.
pub fn denied(section: &Cluster) -> Denied {
    let list = section.denied.clone();
    Denied::new(move |der| {
        let fingerprint = Sha256::digest(der);
        let serial = X509Certificate::from_der(der).ok().map(|(_, parsed)| parsed.serial.to_bytes_be());
        list.iter().any(|denied| {
            denied.as_slice() == fingerprint.as_slice()
                || serial.as_ref().is_some_and(|serial| serial == denied)
        })
    })
}

/// When the node's certificate expires, seconds since 1970.
pub fn expiry(files: &Files) -> Option<i64> {
    let der = CertificateDer::from_pem_file(&files.certificate).ok()?;
    let (_, certificate) = X509Certificate::from_der(&der).ok()?;
    Some(certificate.validity().not_after.timestamp())
}

/// `rookery cluster cert`: makes the authority if there is none, and a certificate for each node named, at `now` (seconds
/// since 1970). Says what goes where.
///
/// # Errors
/// [`admin::Kind::Invalid`] for names that cannot be, and files that cannot be written or read.
pub fn make(arguments: &CertArgs, config: Option<&Config>, now: i64) -> Result<String, admin::Error> {
    let section = config.and_then(|config| config.cluster.as_ref());
    let invalid = |error: &dyn std::fmt::Display| admin::Error::invalid(error.to_string());
    let mut nodes = Vec::new();
    for name in &arguments.nodes {
        nodes.push(NodeId::new(name).map_err(|e| invalid(&e))?);
    }
    if nodes.is_empty() {
        let node = section.map(|section| section.node.clone());
        nodes.push(node.ok_or_else(|| {
            admin::Error::invalid(
                "name the node: --node NAME, or --config with the file of a node that has [cluster]",
            )
        })?);
    }
    let name = section.map_or("rookery", |section| section.name.as_str());
    let folder = &arguments.dir;
    let made = authority::make(folder, name, now).map_err(|e| invalid(&e))?;
    let shown = |path: &Path| path.display().to_string();
    let mut out = format!(
        "authority  {}{}\n",
        shown(&folder.join(authority::AUTHORITY)),
        if made { " (new: signs the certificates of all nodes of this cluster)" } else { " (unchanged)" },
    );
    for node in &nodes {
        let files = authority::certificate(folder, node, now).map_err(|e| invalid(&e))?;
        out += &format!(
            "node {node}\n  certificate  {}, for {} days\n  key          {}\n",
            shown(&files.certificate),
            authority::NODE_DAYS,
            shown(&files.key)
        );
    }
    out += &format!(
        "Copy the authority and the certificate and key of the node to each node: into its data_dir, or to the paths in\n\
         [cluster]. The user that runs rookery must be able to read them. Then start the node, or run `rookery reload`.\n\
         Keep {} off the nodes: with this file anyone can add a node.\n",
        shown(&folder.join(authority::AUTHORITY_KEY))
    );
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: i64 = 1_800_000_000;

    #[test]
    fn certificates_are_made_and_read() {
        let folder = tempfile::tempdir().unwrap();
        let arguments = |nodes: &[&str]| CertArgs {
            nodes: nodes.iter().map(|n| (*n).to_owned()).collect(),
            dir: folder.path().into(),
        };
        let said = make(&arguments(&["n1", "n2"]), None, NOW).unwrap();
        assert!(said.contains("cluster_ca.pem (new") && said.contains("n2.key"), "{said}");
        let said = make(&arguments(&["n3"]), None, NOW).unwrap();
        assert!(said.contains("unchanged"), "{said}");
        let text = "[store]\nurl='dev://127.0.0.1:7300'\n[cluster]\nnode='n3'\nauthority='cluster_ca.pem'\n\
            certificate='{node}.pem'\nkey='{node}.key'\n[[domain]]\nname='a.example'\nself_signed=true";
        let config = crate::config::parse(text, folder.path()).unwrap();
        let section = config.cluster.clone().unwrap();
        assert!(matches!(read(&section), Ok(Security::Tls(_))));
        assert_eq!(expiry(section.files.as_ref().unwrap()), Some(NOW + authority::NODE_DAYS * 86_400));
        // By the configuration alone.
        assert!(make(&arguments(&[]), Some(&config), NOW).unwrap().contains("node n3\n"));
        // Another's certificate is refused.
        let other = Cluster { node: NodeId::new("n1").unwrap(), ..section };
        assert!(read(&other).unwrap_err().to_string().contains("is not for n1"));
        for wrong in [&["N1"][..], &[]] {
            assert_eq!(make(&arguments(wrong), None, NOW).unwrap_err().kind, admin::Kind::Invalid);
        }
    }
}
