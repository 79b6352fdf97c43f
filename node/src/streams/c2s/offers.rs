//! What a client may do before it has a session: one list. The stream features of each stage (RFC 6120 section 4.3.2) and
//! the elements that are handled derive from it; a new one is an [`Offer`] in a file of its own and a line here.
//!
//! What is offered works, and what is not offered is not taken.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use rookery_actors::features::{xep_0115_caps, xep_0478_stream_limits};
use rookery_actors::{Pipe, SessionHandle};
use rookery_proto::xml::Writer;
use rookery_proto::xmpp::error::StreamCondition;
use rookery_proto::xmpp::ns;

use super::End;
use super::negotiate::{Frame, Negotiation};
use crate::transport::{Frames as _, Transport};

/// How far the negotiation has come.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Stage {
    /// In the clear: there is nothing but TLS.
    Clear,
    /// Encrypted; the client has not proved who it is.
    Login,
    /// The client has logged in; there is no session yet.
    Session,
}

/// What comes of an element that was handled.
pub(super) enum Next {
    /// The stage goes on.
    Stay,
    /// The stream restarts (RFC 6120 section 4.3.3), in this stage.
    Restart(Stage),
    /// There is a session.
    Bound {
        /// The client's handle of it.
        link: SessionHandle,
        /// What it sends.
        pipe: Arc<Pipe>,
        /// Whether it was there before.
        resumed: bool,
    },
}

/// The handling of one element. Boxed: it is over before there is a session.
pub(super) type Handling<'a> = Pin<Box<dyn Future<Output = Result<Next, End>> + Send + 'a>>;

/// The elements that an offer is about.
pub(super) struct Takes<T: Transport> {
    /// Whether this is one of them.
    pub(super) is: fn(&Frame) -> bool,
    /// Handles it.
    pub(super) handle: for<'a> fn(&'a mut Negotiation<T>, Frame) -> Handling<'a>,
}

/// One thing that a client may do, or may know.
pub(super) struct Offer<T: Transport> {
    /// In which stages.
    pub(super) stages: &'static [Stage],
    /// Appends the stream feature. Where it appends nothing, the offer does not hold for this client. `None`: it holds and is
    /// not advertised.
    pub(super) feature: Option<fn(&Negotiation<T>, &mut Writer<'_>)>,
    /// What is taken before there is a session; `None`: the feature is about the session.
    pub(super) takes: Option<Takes<T>>,
}

impl<T: Transport> Negotiation<T> {
    /// The list. Its order is that of the stream features; of several that take an element the first handles it.
    const OFFERS: &'static [Offer<T>] = &[
        Self::STARTTLS,
        Self::TOO_EARLY_FOR_SASL,
        Self::SASL,
        Self::REGISTRATION,
        Self::LIMITS_BEFORE_LOGIN,
        Self::BIND,
        Self::ESTABLISH,
        Self::RESUMPTION,
        Self::CLIENT_STATE,
        Self::ROSTER_VERSIONS,
        Self::PRE_APPROVAL,
        Self::LIMITS,
        Self::CAPS,
        Self::TOO_EARLY_FOR_SM,
    ];

    /// XEP-0478: before login the limits are small.
    const LIMITS_BEFORE_LOGIN: Offer<T> = Offer::feature(&[Stage::Login], |negotiation, w| {
        let bytes = usize::try_from(negotiation.settings.before.stanza_bytes).unwrap_or(usize::MAX);
        w.raw(&xep_0478_stream_limits::stream_feature(bytes, None));
    });
    /// XEP-0478.
    const LIMITS: Offer<T> = Offer::feature(&[Stage::Session], |negotiation, w| {
        let limits = &negotiation.settings.limits;
        w.raw(&xep_0478_stream_limits::stream_feature(limits.stanza_bytes, Some(limits.idle.as_secs())));
    });
    /// XEP-0352.
    const CLIENT_STATE: Offer<T> = Offer::feature(&[Stage::Session], |_, w| {
        w.empty("csi", ns::CSI);
    });
    /// RFC 6121 section 2.6.1.
    const ROSTER_VERSIONS: Offer<T> = Offer::feature(&[Stage::Session], |_, w| {
        w.empty("ver", ns::ROSTER_VER);
    });
    /// RFC 6121 section 3.4.
    const PRE_APPROVAL: Offer<T> = Offer::feature(&[Stage::Session], |_, w| {
        w.empty("sub", ns::PRE_APPROVAL);
    });
    /// XEP-0115 section 6.3.
    const CAPS: Offer<T> = Offer::feature(&[Stage::Session], |negotiation, w| {
        if let Some(domain) = &negotiation.domain {
            w.raw(&xep_0115_caps::stream_feature(&negotiation.shared.host, domain.as_str()));
        }
    });

    /// Sends the features of `stage`. Returns which offers hold for this client.
    async fn advertise(&mut self, stage: Stage) -> Result<Vec<&'static Offer<T>>, End> {
        let (mut features, mut hold) = (b"<stream:features>".to_vec(), Vec::new());
        for offer in Self::OFFERS.iter().filter(|offer| offer.stages.contains(&stage)) {
            let before = features.len();
            if let Some(feature) = offer.feature {
                feature(self, &mut Writer::new(&mut features));
            }
            if offer.feature.is_none() || features.len() > before {
                hold.push(offer);
            }
        }
        features.extend_from_slice(b"</stream:features>");
        self.say(|out| out.extend_from_slice(&features));
        self.flush().await?;
        Ok(hold)
    }

    /// Offers what `stage` has, and handles what comes until the stream leaves the stage.
    pub(super) async fn stage(&mut self, stage: Stage) -> Result<Next, End> {
        let offers = self.advertise(stage).await?;
        loop {
            let frame = self.next().await?;
            let takes =
                offers.iter().filter_map(|offer| offer.takes.as_ref()).find(|takes| (takes.is)(&frame));
            let next = match (takes, frame) {
                (Some(takes), frame) => (takes.handle)(self, frame).await?,
                (None, Frame::Malformed(Some(reply))) if stage != Stage::Clear => {
                    self.say(|out| reply.write(out));
                    self.flush().await?;
                    Next::Stay
                }
                (None, Frame::Nonza(_)) => return Err(End::error(StreamCondition::UnsupportedStanzaType)),
                // RFC 6120 sections 4.9.3.12 and 7.1.
                (None, _) => return Err(End::error(StreamCondition::NotAuthorized)),
            };
            if !matches!(next, Next::Stay) {
                return Ok(next);
            }
        }
    }

    /// Appends an element to what is sent with the next flush.
    pub(super) fn say(&mut self, write: impl FnOnce(&mut Vec<u8>)) {
        T::Frames::element(&mut self.out, write);
    }
}

impl<T: Transport> Offer<T> {
    /// An offer that only says what the session will do.
    pub(super) const fn feature(
        stages: &'static [Stage],
        write: fn(&Negotiation<T>, &mut Writer<'_>),
    ) -> Self {
        Self { stages, feature: Some(write), takes: None }
    }
}
