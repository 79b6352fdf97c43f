//! What a certificate proves of another server, and whether the policy for its domain is content with that.

use std::time::Duration;

use rookery_proto::xmpp::jid::BareJid;
use rustls::pki_types::CertificateDer;
use tokio::time::timeout;

use super::{Direction, Federation};
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
        Some(Proof::Posh) => "posh",
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
    pub(super) async fn judge_called(
        &self,
        chain: &[CertificateDer<'_>],
        remote: &str,
        target: &Target,
    ) -> Result<Proof, String> {
        let judged = self.judge.load().judge(chain, remote, std::slice::from_ref(target));
        match judged {
            Ok(proof) => Ok(proof),
            Err(error) => self.judge_by_posh(chain, remote, error, Direction::Outgoing).await,
        }
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
        let remote = remote.domain();
        let settings = self.settings.load_full();
        let policy = settings.federation.policy(remote);
        let mut judged = self.judge.load().judge(chain, remote, &[]);
        if judged.as_ref().is_ok_and(|proof| suffices(policy, Some(*proof))) {
            return judged.ok();
        }
        if settings.federation.route(remote).is_none() {
            // Its own records may say that this is its certificate, or that it is not.
            let targets = timeout(DANE, self.finder.find(remote)).await.ok()?.ok()?;
            judged = self.judge.load().judge(chain, remote, &targets.list);
        }
        let proof = match judged {
            Ok(proof) => proof,
            Err(error) => self.judge_by_posh(chain, remote, error, Direction::Incoming).await.ok()?,
        };
        suffices(policy, Some(proof)).then_some(proof)
    }
}
