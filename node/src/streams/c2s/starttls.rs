//! TLS inside the stream (RFC 6120 section 5), which is required: in the clear there is nothing else.

use rookery_proto::xml::chars::is_space;
use rookery_proto::xmpp::error::SaslFailure;
use rookery_proto::xmpp::ns;

use super::End;
use super::negotiate::{Frame, Negotiation};
use super::offers::{Next, Offer, Stage, Takes};
use crate::transport::Transport;

impl<T: Transport> Negotiation<T> {
    /// RFC 6120 section 5.4.
    pub(super) const STARTTLS: Offer<T> = Offer {
        stages: &[Stage::Clear],
        feature: Some(|_, w| {
            w.start("starttls", ns::TLS).empty("required", ns::TLS).end();
        }),
        takes: Some(Takes {
            is: |frame| matches!(frame, Frame::Nonza(element) if element.is("starttls", ns::TLS)),
            handle: |negotiation, _| Box::pin(negotiation.starttls()),
        }),
    };

    /// Section 6.5.4: nobody gets to send a password in the clear twice.
    pub(super) const TOO_EARLY_FOR_SASL: Offer<T> = Offer {
        stages: &[Stage::Clear],
        feature: None,
        takes: Some(Takes {
            is: |frame| matches!(frame, Frame::Nonza(element) if element.is("auth", ns::SASL)),
            handle: |negotiation, _| Box::pin(negotiation.encryption_required()),
        }),
    };

    async fn encryption_required(&mut self) -> Result<Next, End> {
        self.say(|out| SaslFailure::EncryptionRequired.write(None, out));
        self.flush().await?;
        Ok(Next::Stay)
    }

    async fn starttls(&mut self) -> Result<Next, End> {
        // What came in the clear behind <starttls/> must not be taken for something encrypted (section 5.4.3.3). White space
        // says nothing: some clients end the element with a line end.
        if !std::mem::take(&mut self.tail).into_iter().all(is_space) {
            self.say(|out| out.extend_from_slice(b"<failure xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>"));
            return Err(End::Clean);
        }
        self.say(|out| out.extend_from_slice(b"<proceed xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>"));
        self.flush().await?;
        let domain = self.domain.as_ref().map(|d| d.as_str().to_owned()).unwrap_or_default();
        let encrypted = self.transport.encrypt(&self.shared.tls, &domain).await;
        encrypted.map_err(|error| self.no_tls(&error))?;
        Ok(Next::Restart(Stage::Login))
    }
}
