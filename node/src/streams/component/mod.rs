//! A component's stream (XEP-0114, version 1.6): a header, a handshake, and then stanzas both ways. What the stanzas mean is in
//! [`rookery_actors::component`].

use std::sync::Arc;
use std::time::Duration;

use rookery_actors::component::{ComponentLink, End as Ended, Patience, Refused};
use rookery_proto::xml::framer::Step;
use rookery_proto::xml::header::Opening;
use rookery_proto::xml::{Limits, Scope};
use rookery_proto::xmpp::element::Element;
use rookery_proto::xmpp::error::{StreamCondition, StreamError};
use rookery_proto::xmpp::jid::BareJid;
use rookery_proto::xmpp::ns;
use rookery_proto::xmpp::stanza::{self, Stanza};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::time::{Instant, timeout, timeout_at};

use crate::net::seldom::Seldom;
use crate::net::{Origin, Pass, Standing};
use crate::streams::c2s::Shared;
use crate::transport::{Frames as _, Transport};

#[cfg(test)]
mod hostile;
mod running;
#[cfg(test)]
mod tests;

/// The namespace of what components send.
const CONTENT: &str = ns::COMPONENT_ACCEPT;
/// A wrong secret is answered after this time, so that guessing is slow.
const GUESS: Duration = Duration::from_secs(1);

/// Programs that try again for ever fill no log.
static WRONG: Seldom = Seldom::new();

/// Why a stream ends.
#[derive(Debug)]
enum End {
    /// The component closed its stream, or the socket was lost.
    Gone,
    /// With an error.
    Error(Box<StreamError>),
}

impl End {
    fn because(condition: StreamCondition, text: &'static str) -> Self {
        Self::Error(Box::new(StreamError::from(condition).text(text)))
    }
}

impl From<StreamCondition> for End {
    fn from(condition: StreamCondition) -> Self {
        Self::Error(Box::new(condition.into()))
    }
}

impl From<std::io::Error> for End {
    fn from(error: std::io::Error) -> Self {
        tracing::trace!(%error, "socket");
        Self::Gone
    }
}

impl From<Refused> for End {
    fn from(refused: Refused) -> Self {
        match refused {
            Refused::From => {
                Self::because(StreamCondition::InvalidFrom, "'from' is not at the component's name")
            }
            Refused::To => Self::because(StreamCondition::ImproperAddressing, "a stanza has no 'to'"),
        }
    }
}

impl From<Ended> for End {
    fn from(ended: Ended) -> Self {
        match ended {
            Ended::NotAuthorized => {
                Self::because(StreamCondition::NotAuthorized, "the configuration of the server has changed")
            }
            Ended::Silent => {
                Self::because(StreamCondition::ConnectionTimeout, "you were silent for too long")
            }
        }
    }
}

/// Takes care of one accepted connection until its end.
pub fn serve<T: Transport>(shared: &Arc<Shared>, transport: T, via: &'static str, pass: Pass) {
    let shared = shared.clone();
    tokio::spawn(async move {
        metrics::counter!("rookery_connections_total", "kind" => via).increment(1);
        let gauge = metrics::gauge!("rookery_connections", "kind" => via);
        gauge.increment(1.0);
        run(shared, transport, pass).await;
        gauge.decrement(1.0);
    });
}

/// A stream before and after the handshake.
struct Stream<T: Transport> {
    shared: Arc<Shared>,
    transport: T,
    framer: T::Frames,
    tail: Vec<u8>,
    /// What is to be written; the first `written` bytes of it are.
    out: Vec<u8>,
    written: usize,
    opened: bool,
    scope: Scope,
    address: Arc<str>,
}

async fn run<T: Transport>(shared: Arc<Shared>, mut transport: T, mut pass: Pass) {
    let settings = shared.settings.load_full();
    let (standing, mut stop) = (pass.standing(), shared.stop.clone());
    let Some(peer) = transport.locate(None).await else { return };
    if let Err(refusal) = pass.from(Origin::from(peer.ip())) {
        metrics::counter!("rookery_limits_hit_total", "limit" => refusal.limit()).increment(1);
        return;
    }
    let deadline = Instant::now() + settings.limits.login;
    let mut stream = Stream {
        transport,
        framer: T::Frames::new(settings.before),
        tail: Vec::new(),
        out: Vec::new(),
        written: 0,
        opened: false,
        scope: Scope::NOTHING,
        address: peer.to_string().into(),
        shared,
    };
    let proved = tokio::select! {
        biased;
        proved = timeout_at(deadline, stream.handshake(&standing)) => {
            let late = || End::because(StreamCondition::ConnectionTimeout, "the handshake took too long");
            proved.unwrap_or_else(|_| Err(late()))
        }
        _ = stop.wait_for(|stop| *stop) => Err(StreamCondition::SystemShutdown.into()),
        () = standing.sent_away() => return,
    };
    let end = match proved {
        Ok(name) => {
            pass.logged_in();
            let tls = stream.transport.security().is_some();
            let patience = Patience { idle: settings.limits.idle, answer: settings.limits.answer };
            let link = stream.shared.host.serve_component(&name, stream.address.clone(), tls, patience);
            tracing::info!(component = %name, address = %stream.address, tls, "a component is connected");
            let end = tokio::select! {
                end = stream.work(&link) => end,
                _ = stop.wait_for(|stop| *stop) => StreamCondition::SystemShutdown.into(),
            };
            drop(link);
            let why = match &end {
                End::Gone => "the connection ended",
                End::Error(error) => error.condition.name(),
            };
            tracing::info!(component = %name, address = %stream.address, why, "a component's connection is closed");
            end
        }
        Err(end) => end,
    };
    stream.close(end).await;
}

impl<T: Transport> Stream<T> {
    /// Section 3: which component, and its proof.
    async fn handshake(&mut self, standing: &Standing) -> Result<BareJid, End> {
        if let Err(error) = self.transport.begin(&self.shared.tls).await {
            tracing::debug!(address = %self.address, %error, "TLS handshake of a component failed");
            return Err(End::Gone);
        }
        let header = loop {
            match self.step().await? {
                Step::Open { len } => {
                    let frame = self.tail.get(..len).unwrap_or_default();
                    let header = T::Frames::header(frame, self.framer.limits(), CONTENT)
                        .map_err(|error| End::from(error.condition()))?;
                    self.tail.drain(..len);
                    break header;
                }
                Step::Whitespace { len } | Step::Declaration { len } => drop(self.tail.drain(..len)),
                Step::Close { .. } => return Err(End::Gone),
                _ => return Err(StreamCondition::BadFormat.into()),
            }
        };
        if header.content != CONTENT {
            return Err(StreamCondition::InvalidNamespace.into());
        }
        let name = header.to.as_ref().filter(|to| to.local().is_none() && to.resource().is_none());
        let name = name.ok_or(StreamCondition::ImproperAddressing)?.to_bare();
        let host = self.shared.host.clone();
        if host.options().component(name.as_str()).is_none() {
            return Err(End::because(
                StreamCondition::HostUnknown,
                "no component of that name is configured",
            ));
        }
        let id = host.random_id();
        self.open(Some(name.as_str()), &id);
        self.flush().await?;
        self.scope = header.scope;
        let handshake = loop {
            match self.step().await? {
                Step::Element { len } => {
                    let frame = self.tail.get(..len).unwrap_or_default();
                    let element = Element::parse_in(frame, &self.scope, self.framer.limits())
                        .map_err(|error| End::from(error.condition()))?;
                    self.tail.drain(..len);
                    break element;
                }
                Step::Whitespace { len } | Step::Declaration { len } => drop(self.tail.drain(..len)),
                Step::Close { .. } => return Err(End::Gone),
                _ => return Err(StreamCondition::BadFormat.into()),
            }
        };
        if !handshake.is("handshake", CONTENT) {
            return Err(StreamCondition::NotAuthorized.into());
        }
        let proves = |component: &rookery_actors::options::Component| {
            component.secret.proves(&id, handshake.text().trim())
        };
        if !host.options().component(name.as_str()).is_some_and(proves) {
            metrics::counter!("rookery_component_refused_total").increment(1);
            if let Some(others) = WRONG.now() {
                tracing::warn!(component = %name, address = %self.address, others, "a component was refused: its secret is not the one of [[component]]; make both the same");
            }
            tokio::time::sleep(GUESS).await;
            return Err(StreamCondition::NotAuthorized.into());
        }
        standing.proved();
        T::Frames::element(&mut self.out, |out| out.extend_from_slice(b"<handshake/>"));
        self.flush().await?;
        self.framer.set_limits(self.shared.settings.load().after);
        Ok(name)
    }

    /// Our header.
    fn open(&mut self, from: Option<&str>, id: &str) {
        let opening = Opening { content: CONTENT, from, to: None, id: Some(id), lang: None };
        T::Frames::open(&mut self.out, &opening);
        self.opened = true;
    }

    /// What comes next, once it is whole.
    async fn step(&mut self) -> Result<Step, End> {
        loop {
            match self.framer.next(&self.tail).map_err(|error| End::from(error.condition()))? {
                Step::Need => {
                    let read = self.transport.read_buf(&mut self.tail).await?;
                    if read == 0 {
                        return Err(End::Gone);
                    }
                }
                step => return Ok(step),
            }
        }
    }

    async fn flush(&mut self) -> Result<(), End> {
        self.transport.write_all(&self.out).await?;
        self.transport.flush().await?;
        self.out.clear();
        Ok(())
    }

    /// Says why, and closes (RFC 6120 sections 4.4 and 4.9.1).
    async fn close(mut self, end: End) {
        let mut out = self.out.split_off(self.written.min(self.out.len()));
        self.out.clear();
        if let End::Error(error) = &end {
            metrics::counter!("rookery_stream_errors_total", "condition" => error.condition.name())
                .increment(1);
            tracing::debug!(address = %self.address, condition = error.condition.name(), "a component's stream is refused");
            if !self.opened {
                let id = self.shared.host.random_id();
                self.open(None, &id);
                out.append(&mut self.out);
            }
            T::Frames::element(&mut out, |out| error.write(out));
        }
        if self.opened {
            T::Frames::close(&mut out);
        }
        let goodbye = async {
            self.transport.write_all(&out).await?;
            self.transport.shutdown().await?;
            // What still comes is read and dropped: a reset must not eat our last words.
            let mut scrap = [0; 512];
            while self.transport.read(&mut scrap).await? > 0 {}
            std::io::Result::Ok(())
        };
        let _ = timeout(self.shared.settings.load().limits.close, goodbye).await;
    }
}

/// A stanza, or the answer to one that broke a rule.
fn take(link: &ComponentLink, frame: &[u8], scope: &Scope, limits: &Limits) -> Result<(), End> {
    match Stanza::parse(frame, scope, limits) {
        Ok(stanza) => Ok(link.up(stanza)?),
        Err(stanza::Error::Malformed(malformed)) => {
            link.answer(malformed.reply());
            Ok(())
        }
        Err(error) => Err(error.condition().unwrap_or(StreamCondition::BadFormat).into()),
    }
}
