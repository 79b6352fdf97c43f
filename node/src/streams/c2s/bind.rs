//! From a logged-in stream to a session: bind a resource (RFC 6120 section 7) or resume one (XEP-0198 section 5, version
//! 1.6.2).

use rookery_actors::{NotResumed, Pipe};
use rookery_proto::xml::Writer;
use rookery_proto::xmpp::element::Element;
use rookery_proto::xmpp::error::StreamCondition;
use rookery_proto::xmpp::ns;
use rookery_proto::xmpp::stanza::{IqType, Stanza, Type};

use super::End;
use super::negotiate::{Frame, Negotiation, is_sm};
use super::offers::{Next, Offer, Stage, Takes};
use crate::transport::Transport;

impl<T: Transport> Negotiation<T> {
    /// RFC 6120 section 7.
    pub(super) const BIND: Offer<T> = Offer {
        stages: &[Stage::Session],
        feature: Some(|_, w| {
            w.empty("bind", ns::BIND);
        }),
        takes: Some(Takes {
            is: |frame| match frame {
                Frame::Stanza(iq) => iq.type_ == Type::Iq(IqType::Set) && iq.has("bind", ns::BIND),
                _ => false,
            },
            handle: |negotiation, frame| {
                Box::pin(async move {
                    match frame {
                        Frame::Stanza(iq) => negotiation.bind(&iq).await,
                        _ => Ok(Next::Stay),
                    }
                })
            },
        }),
    };

    /// RFC 3921 section 3: old clients ask for a session, which binding has made.
    pub(super) const ESTABLISH: Offer<T> = Offer::feature(&[Stage::Session], |_, w| {
        w.start("session", ns::SESSION).empty("optional", ns::SESSION).end();
    });

    /// XEP-0198 section 5.
    pub(super) const RESUMPTION: Offer<T> = Offer {
        stages: &[Stage::Session],
        feature: Some(|_, w| {
            w.empty("sm", ns::SM);
        }),
        takes: Some(Takes {
            is: |frame| matches!(frame, Frame::Nonza(element) if element.is("resume", ns::SM)),
            handle: |negotiation, frame| {
                Box::pin(async move {
                    match frame {
                        Frame::Nonza(resume) => negotiation.resume(&resume).await,
                        _ => Ok(Next::Stay),
                    }
                })
            },
        }),
    };

    /// XEP-0198 section 3: nothing of it before authentication, and nothing but `<resume/>` before there is a session.
    pub(super) const TOO_EARLY_FOR_SM: Offer<T> = Offer {
        stages: &[Stage::Clear, Stage::Login, Stage::Session],
        feature: None,
        takes: Some(Takes {
            is: |frame| matches!(frame, Frame::Nonza(element) if is_sm(element)),
            handle: |negotiation, _| {
                Box::pin(async { negotiation.refuse_sm("unexpected-request").await.map(|()| Next::Stay) })
            },
        }),
    };

    async fn bind(&mut self, iq: &Stanza) -> Result<Next, End> {
        let Some(who) = self.user.clone() else { return Err(End::error(StreamCondition::NotAuthorized)) };
        let resource =
            iq.child("bind", ns::BIND).and_then(|bind| bind.element().child_text("resource", ns::BIND));
        let resource = resource.filter(|resource| !resource.is_empty());
        let pipe = Pipe::new();
        let bound = self.shared.host.bind(who, resource.as_deref(), self.conn(), pipe.clone()).await;
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
            self.say(|out| answer.write(out));
        }
        self.flush().await?;
        Ok(match bound {
            Ok(link) => Next::Bound { link, pipe, resumed: false },
            Err(_) => Next::Stay,
        })
    }

    async fn resume(&mut self, resume: &Element) -> Result<Next, End> {
        let Some(who) = self.user.clone() else { return Err(End::error(StreamCondition::NotAuthorized)) };
        let h =
            resume.attr("h").filter(|h| h.bytes().all(|b| b.is_ascii_digit())).and_then(|h| h.parse().ok());
        let (Some(previd), Some(h)) = (resume.attr("previd"), h) else {
            self.refuse_sm("bad-request").await?;
            return Ok(Next::Stay);
        };
        let pipe = Pipe::new();
        match self.shared.host.resume(who.clone(), previd, h, self.conn(), pipe.clone()).await {
            Ok(link) => Ok(Next::Bound { link, pipe, resumed: true }),
            Err(NotResumed::NotFound) => {
                self.refuse_sm("item-not-found").await?;
                Ok(Next::Stay)
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
        self.say(|out| write_failed(out, condition));
        self.flush().await
    }
}

/// XEP-0198 section 3: `<failed/>` with a stanza error condition.
pub(super) fn write_failed(out: &mut Vec<u8>, condition: &str) {
    let mut w = Writer::new(out);
    w.start("failed", ns::SM).empty(condition, ns::STANZAS).end();
}
