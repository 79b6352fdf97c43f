//! Making an account before login (XEP-0077), where the domain is open for it; the rules are the feature's.

use rookery_actors::features::xep_0077_registration;
use rookery_proto::xmpp::error::StreamCondition;
use rookery_proto::xmpp::ns;
use rookery_proto::xmpp::stanza::{Kind, Stanza};

use super::End;
use super::negotiate::{Frame, Negotiation};
use super::offers::{Next, Offer, Stage, Takes};
use crate::transport::Transport;

impl<T: Transport> Negotiation<T> {
    /// XEP-0077 section 3.1.1.
    pub(super) const REGISTRATION: Offer<T> = Offer {
        stages: &[Stage::Login],
        feature: Some(|negotiation, w| {
            let (host, domain) = (&negotiation.shared.host, negotiation.domain.as_ref());
            if let Some(open) = domain.and_then(|d| xep_0077_registration::stream_feature(host, d.as_str())) {
                w.raw(&open);
            }
        }),
        takes: Some(Takes {
            is: |frame| match frame {
                Frame::Stanza(iq) => iq.kind() == Kind::Iq && iq.has("query", ns::REGISTER),
                _ => false,
            },
            handle: |negotiation, frame| Box::pin(negotiation.register(frame)),
        }),
    };

    /// Answers a registration request for the server, or for nobody in particular: which is the same here.
    async fn register(&mut self, frame: Frame) -> Result<Next, End> {
        let (Frame::Stanza(iq), Some(domain)) = (frame, self.domain.clone()) else { return Err(not_yet()) };
        if !is_for(&iq, domain.as_str()) {
            return Err(not_yet());
        }
        let host = &self.shared.host;
        let answer = xep_0077_registration::before_login(host, domain.as_str(), self.peer, &iq).await;
        if let Some(answer) = answer {
            self.say(|out| answer.write(out));
            self.flush().await?;
        }
        Ok(Next::Stay)
    }
}

fn is_for(iq: &Stanza, domain: &str) -> bool {
    iq.to.as_ref().is_none_or(|to| to.as_str() == domain)
}

/// RFC 6120 section 4.9.3.12.
fn not_yet() -> End {
    End::error(StreamCondition::NotAuthorized)
}
