//! From a logged-in stream to a session: bind a resource (RFC 6120 section 7) or resume one (XEP-0198 section 5, version
//! 1.6.2).

use std::sync::Arc;

use rookery_actors::{Authenticated, NotResumed, Pipe, SessionHandle};
use rookery_proto::xml::Writer;
use rookery_proto::xmpp::element::Element;
use rookery_proto::xmpp::error::StreamCondition;
use rookery_proto::xmpp::ns;
use rookery_proto::xmpp::stanza::{IqType, Stanza, Type};

use super::negotiate::{Frame, Negotiation, is_sm};
use super::{End, features};
use crate::net::Stream;

impl<S: Stream> Negotiation<S> {
    /// Offers what a session can do, and goes on until there is one. Returns whether it was resumed.
    pub(super) async fn session(
        &mut self,
        who: Authenticated,
    ) -> Result<(SessionHandle, Arc<Pipe>, bool), End> {
        let domain = who.jid().domain();
        let extra = rookery_actors::features::xep_0115_caps::stream_feature(&self.shared.host, domain);
        features::before_session(&mut self.out, &extra, &self.settings);
        self.flush().await?;
        loop {
            match self.next().await? {
                Frame::Stanza(iq) if iq.type_ == Type::Iq(IqType::Set) && iq.has("bind", ns::BIND) => {
                    if let Some((link, pipe)) = self.bind(&who, &iq).await? {
                        return Ok((link, pipe, false));
                    }
                }
                Frame::Nonza(resume) if resume.is("resume", ns::SM) => {
                    if let Some((link, pipe)) = self.resume(&who, &resume).await? {
                        return Ok((link, pipe, true));
                    }
                }
                // XEP-0198 section 3: not before there is a session.
                Frame::Nonza(element) if is_sm(&element) => self.refuse_sm("unexpected-request").await?,
                Frame::Malformed(Some(reply)) => {
                    reply.write(&mut self.out);
                    self.flush().await?;
                }
                Frame::Nonza(_) => return Err(End::error(StreamCondition::UnsupportedStanzaType)),
                // RFC 6120 section 7.1: nothing else before there is a resource.
                _ => return Err(End::error(StreamCondition::NotAuthorized)),
            }
        }
    }

    async fn bind(
        &mut self,
        who: &Authenticated,
        iq: &Stanza,
    ) -> Result<Option<(SessionHandle, Arc<Pipe>)>, End> {
        let resource =
            iq.child("bind", ns::BIND).and_then(|bind| bind.element().child_text("resource", ns::BIND));
        let resource = resource.filter(|resource| !resource.is_empty());
        let pipe = Pipe::new();
        let bound = self.shared.host.bind(who.clone(), resource.as_deref(), self.conn(), pipe.clone()).await;
        let answer = match &bound {
            Ok(link) => {
                let mut payload = Vec::new();
                let mut w = Writer::new(&mut payload);
                w.start("bind", ns::BIND).leaf("jid", ns::BIND, link.jid().as_str()).end();
                drop(w);
                let mut result = Stanza::new(Type::Iq(IqType::Result)).payload(payload);
                result.id = iq.id.clone();
                Some(result)
            }
            Err(error) => iq.error_reply(error),
        };
        if let Some(answer) = answer {
            answer.write(&mut self.out);
        }
        self.flush().await?;
        Ok(bound.ok().map(|link| (link, pipe)))
    }

    async fn resume(
        &mut self,
        who: &Authenticated,
        resume: &Element,
    ) -> Result<Option<(SessionHandle, Arc<Pipe>)>, End> {
        let h =
            resume.attr("h").filter(|h| h.bytes().all(|b| b.is_ascii_digit())).and_then(|h| h.parse().ok());
        let (Some(previd), Some(h)) = (resume.attr("previd"), h) else {
            self.refuse_sm("bad-request").await?;
            return Ok(None);
        };
        let pipe = Pipe::new();
        match self.shared.host.resume(who.clone(), previd, h, self.conn(), pipe.clone()).await {
            Ok(link) => Ok(Some((link, pipe))),
            Err(NotResumed::NotFound) => {
                self.refuse_sm("item-not-found").await?;
                Ok(None)
            }
            // After `<failed/>` the client would take its session for lost; after an error some (nbxmpp) do, too. A connection
            // that breaks makes them all come again with the same id.
            Err(NotResumed::Unable) => {
                tracing::info!(jid = %who.jid(), "the node of a session cannot be reached; the client must reconnect");
                Err(End::Abandon)
            }
        }
    }

    pub(super) async fn refuse_sm(&mut self, condition: &str) -> Result<(), End> {
        write_failed(&mut self.out, condition);
        self.flush().await
    }
}

/// XEP-0198 section 3: `<failed/>` with a stanza error condition.
pub(super) fn write_failed(out: &mut Vec<u8>, condition: &str) {
    let mut w = Writer::new(out);
    w.start("failed", ns::SM).empty(condition, ns::STANZAS).end();
}
