//! `rookery check`: reads everything that a start would read, and says what it would do.

use rookery_cluster::seams::Seams;

use crate::cluster::{seconds, security};
use crate::config::{Config, describe};
use crate::tls::Tls;

/// What the node would do, for people; the error says what stands against it. Changes nothing: certificates of the
/// node's own making are not made.
pub fn check(config: &Config) -> Result<String, String> {
    let mut out = describe(config);
    let mut theirs = config.clone();
    theirs.domains.retain(|domain| domain.certificate.is_some());
    if !theirs.domains.is_empty() {
        let tls = Tls::load(&theirs, Seams::system()).map_err(|e| e.to_string())?;
        for line in tls.describe() {
            out.push_str(&format!("certificate    {line}\n"));
        }
    }
    if let Some(cluster) = &config.cluster {
        security::read(cluster).map_err(|e| e.to_string())?;
        if let Some(until) = cluster.files.as_ref().and_then(security::expiry) {
            let days = (until - seconds(&Seams::system())) / 86_400;
            out.push_str(&format!("certificate    node {}: valid for {days} more days\n", cluster.node));
        }
    }
    out.push_str("ok\n");
    Ok(out)
}
