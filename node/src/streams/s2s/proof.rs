//! What a certificate proves of another server, and whether the policy for its domain is content with that.

use std::time::Duration;

use rookery_proto::xmpp::jid::BareJid;
use rustls::pki_types::CertificateDer;
use tokio::time::timeout;

use super::Federation;
use crate::config::Policy;
use crate::dns::Target;
use crate::tls::remote::Proof;

/// How long DNS may take to find what proves a certificate by DANE.
const DANE: Duration = Duration::from_secs(10);

/// How a domain was proved, for logs, metrics and the operator.
pub(super) fn name(proof: Option<Proof>) -> &'static str {
    match proof {
        Some(Proof::Pkix) => "certificate",
        Some(Proof::Dane) => "dane",
        None => "dialback",
    }
}

/// Whether a proof by certificate, or the lack of one, is enough for an outgoing stream. Without a proof the server was found by
/// DNS, as with dialback.
pub(super) fn suffices(policy: Policy, proof: Option<Proof>) -> bool {
    match policy {
        Policy::Dialback => true,
        Policy::Certificate => proof.is_some(),
        Policy::Dane => proof == Some(Proof::Dane),
    }
}

impl Federation {
    /// How an outgoing stream's certificates prove `remote`; or why they do not, for the operator.
    pub(super) fn judge_called(
        &self,
        chain: &[CertificateDer<'_>],
        remote: &str,
        target: &Target,
    ) -> Result<Proof, String> {
        self.judge
            .load()
            .judge(chain, remote, std::slice::from_ref(target))
            .map_err(|error| error.to_string())
    }

    /// How the certificates of a server that has called prove `remote`, if they are enough for the policy.
    pub(super) async fn judge_caller(
        &self,
        chain: &[CertificateDer<'static>],
        remote: &BareJid,
    ) -> Option<Proof> {
        if chain.is_empty() {
            return None;
        }
        let policy = self.settings.load().federation.policy(remote.domain());
        let by_authority = self.judge.load().judge(chain, remote.domain(), &[]);
        match by_authority {
            Ok(proof) if suffices(policy, Some(proof)) => return Some(proof),
            _ => {}
        }
        if self.settings.load().federation.route(remote.domain()).is_some() {
            return None;
        }
        // Its own records may say that this is its certificate.
        let targets = timeout(DANE, self.finder.find(remote.domain())).await.ok()?.ok()?;
        let proof = self.judge.load().judge(chain, remote.domain(), &targets.list).ok()?;
        suffices(policy, Some(proof)).then_some(proof)
    }
}
