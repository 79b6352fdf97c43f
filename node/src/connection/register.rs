//! Making an account before login (XEP-0077), where the domain is open for it; the rules are the feature's.

use rookery_actors::features::xep_0077_registration;
use rookery_proto::xmpp::ns;
use rookery_proto::xmpp::stanza::{Kind, Stanza};

use super::End;
use super::negotiate::Negotiation;
use crate::net::Stream;

impl<S: Stream> Negotiation<S> {
    /// Answers a registration request; false if this is none.
    pub(super) async fn register(&mut self, iq: &Stanza) -> Result<bool, End> {
        let Some(domain) = self.domain.clone() else { return Ok(false) };
        // For the server, or for nobody in particular: which is the same here.
        let ours = iq.to.as_ref().is_none_or(|to| to.as_str() == domain.as_str());
        if iq.kind() != Kind::Iq || !iq.has("query", ns::REGISTER) || !ours {
            return Ok(false);
        }
        let host = &self.shared.host;
        if let Some(answer) = xep_0077_registration::before_login(host, domain.as_str(), self.peer, iq).await
        {
            answer.write(&mut self.out);
            self.flush().await?;
        }
        Ok(true)
    }
}
