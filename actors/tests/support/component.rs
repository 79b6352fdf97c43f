//! A component of the tests' own, without a socket.
#![allow(dead_code, clippy::unwrap_used, clippy::expect_used, missing_docs, unreachable_pub)]

use std::sync::Arc;
use std::time::Duration;

use rookery_actors::Host;
use rookery_actors::component::{ComponentLink, End, KIND, Patience};
use rookery_actors::options::{Component as Configured, Options, Privileges, Secret, Service};
use rookery_proto::xml::{Limits, Scope};
use rookery_proto::xmpp::jid::BareJid;
use rookery_proto::xmpp::stanza::Stanza;
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

const PATIENCE: Duration = Duration::from_secs(60);

/// Configures a component of that name.
pub fn configure(options: &mut Options, name: &str, change: impl FnOnce(&mut Configured)) {
    let mut component = Configured {
        name: name.into(),
        secret: Secret::new("correct horse"),
        domains: Vec::new(),
        privileges: Privileges::default(),
        delegations: Vec::new(),
    };
    change(&mut component);
    options.services.push(Service { name: name.into(), kind: KIND, whole: true });
    options.components.push(component);
}

pub struct Component {
    pub name: String,
    link: Option<Arc<ComponentLink>>,
    got: mpsc::Receiver<String>,
    task: JoinHandle<End>,
    runtime: Handle,
}

impl Component {
    /// Connects to a host, in its runtime. Answers pings if it is `polite`.
    pub fn connect(host: &Host, name: &str, runtime: Handle, polite: bool) -> Self {
        let _there = runtime.enter();
        let jid = BareJid::parse(name).unwrap();
        let patience = Patience { idle: Duration::from_secs(300), answer: Duration::from_secs(60) };
        let link = Arc::new(host.serve_component(&jid, "192.0.2.7:1".into(), false, patience));
        let (tell, got) = mpsc::channel(10_000);
        let (reader, own) = (Arc::downgrade(&link), name.to_owned());
        let task = runtime.spawn(async move {
            let mut bytes = Vec::new();
            loop {
                bytes.clear();
                let next = async {
                    let Some(link) = reader.upgrade() else { return Err(None) };
                    match tokio::time::timeout(Duration::from_millis(50), link.next(&mut bytes)).await {
                        Ok(Err(end)) => Err(Some(end)),
                        _ => Ok(()),
                    }
                };
                match next.await {
                    Ok(()) => {}
                    Err(Some(end)) => return end,
                    Err(None) => return End::Silent,
                }
                for element in split(std::str::from_utf8(&bytes).unwrap()) {
                    let stanza = Stanza::parse(element.as_bytes(), &Scope::COMPONENT, &Limits::CLIENT)
                        .expect(&element);
                    if stanza.has("ping", "urn:xmpp:ping") && stanza.from.as_ref().unwrap().local().is_none()
                    {
                        if let Some(link) = reader.upgrade().filter(|_| polite) {
                            assert_eq!(stanza.to.as_ref().unwrap().as_str(), own);
                            link.up(stanza.result(Vec::new())).unwrap();
                        }
                    } else if tell.send(element).await.is_err() {
                        return End::Silent;
                    }
                }
            }
        });
        Self { name: name.into(), link: Some(link), got, task, runtime }
    }

    pub fn send(&self, xml: &str) {
        let stanza = Stanza::parse(xml.as_bytes(), &Scope::COMPONENT, &Limits::CLIENT).expect(xml);
        let _there = self.runtime.enter();
        self.link.as_ref().unwrap().up(stanza).unwrap();
    }

    /// The next stanza.
    pub async fn next(&mut self) -> String {
        tokio::time::timeout(PATIENCE, self.got.recv())
            .await
            .expect("nothing came")
            .expect("the connection has ended")
    }

    /// What has come and was not looked at.
    pub fn rest(&mut self) -> Vec<String> {
        std::iter::from_fn(|| self.got.try_recv().ok()).collect()
    }

    /// The next stanza with this part; what comes before is passed over.
    pub async fn until(&mut self, part: &str) -> String {
        loop {
            let next = self.next().await;
            if next.contains(part) {
                return next;
            }
        }
    }

    /// The end of its stream, which the server wants.
    pub async fn end(self) -> End {
        tokio::time::timeout(PATIENCE, self.task).await.expect("it goes on").unwrap()
    }

    /// The connection breaks.
    pub fn cut(mut self) {
        let _there = self.runtime.enter();
        self.task.abort();
        drop(self.link.take());
    }

    /// Its node was killed.
    pub fn forget(mut self) {
        std::mem::forget(self.link.take());
    }
}

/// Whole elements.
fn split(text: &str) -> Vec<String> {
    use rookery_proto::xml::framer::{Framer, Step};
    let header =
        "<stream:stream xmlns='jabber:component:accept' xmlns:stream='http://etherx.jabber.org/streams'>";
    let (mut framer, all) = (Framer::new(Limits::CLIENT), format!("{header}{text}"));
    let (mut at, mut elements) = (0, Vec::new());
    loop {
        match framer.next(&all.as_bytes()[at..]).unwrap() {
            Step::Element { len } => {
                elements.push(all[at..at + len].to_owned());
                at += len;
            }
            Step::Open { len } => at += len,
            _ => return elements,
        }
    }
}
