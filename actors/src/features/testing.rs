//! A whole server in memory for tests: sessions that speak XML, without sockets.

use std::sync::Arc;

use rookery_cluster::entity::Entity;
use rookery_cluster::seams::Seams;
use rookery_cluster::store::memory::Memory;
use rookery_cluster::store::{self, Store};
use rookery_cluster::tables::{accounts, roster};
use rookery_proto::sasl::Credentials;
use rookery_proto::xml::{Limits, Scope};
use rookery_proto::xmpp::jid::BareJid;
use rookery_proto::xmpp::stanza::Stanza;

use crate::auth::credentials;
use crate::host::options::Domain;
use crate::{Authenticated, ConnInfo, Down, Host, Options, Pipe, SessionHandle};

/// The password of all users of a scene.
pub(crate) const PASSWORD: &str = "secret";

/// A server for `localhost`.
pub(crate) struct Scene {
    pub(crate) host: Host,
}

impl Scene {
    /// A server with these users.
    pub(crate) async fn new(users: &[&str]) -> Self {
        Self::with(users, |_| ()).await
    }

    /// The same with other options.
    pub(crate) async fn with(users: &[&str], change: impl FnOnce(&mut Options)) -> Self {
        let mut options = Options::new(vec![Domain {
            name: "localhost".to_owned(),
            open_registration: true,
            contact: vec![("abuse".to_owned(), "mailto:abuse@localhost".to_owned())],
        }]);
        options.iterations = 4_096;
        change(&mut options);
        let seams = Seams::system();
        let store = Store::new(Arc::new(Memory::new()), seams.clone());
        if !users.is_empty() {
            let account =
                credentials::to_account(&Credentials::derive(PASSWORD, &[7; 32], 4_096).unwrap(), 1);
            for user in users {
                let user = Entity::new(format!("{user}@localhost"));
                let (user, account) = (&user, &account);
                let made = store.write(store::Options::default(), |tx| {
                    Box::pin(async move { accounts::create(&mut **tx, user, account, 1).await })
                });
                made.await.unwrap();
            }
        }
        Self { host: Host::start(options, store, seams).await.unwrap() }
    }

    /// Makes two users see each other's presence, as if they had subscribed. Before their first session.
    pub(crate) async fn friends(&self, one: &str, other: &str) {
        for (user, contact) in [(one, other), (other, one)] {
            let user = Entity::new(format!("{user}@localhost"));
            let jid = format!("{contact}@localhost");
            let item =
                &roster::Item { jid, subscription: roster::Subscription::Both.into(), ..Default::default() };
            let user = &user;
            let made = self.host.store().write(store::Options::default(), |tx| {
                Box::pin(async move { roster::put(&mut **tx, user, item) })
            });
            made.await.unwrap();
        }
    }

    /// A session of `user/resource`.
    pub(crate) async fn session(&self, name: &str) -> Session {
        let (user, resource) = name.split_once('/').unwrap();
        let user = BareJid::new(Some(user), "localhost").unwrap();
        let pipe = Pipe::new();
        let conn = ConnInfo { address: "test".into(), via: "c2s", tls: "1.3", suite: "" };
        let link =
            self.host.bind(Authenticated::by_sasl(user), Some(resource), conn, pipe.clone()).await.unwrap();
        Session { link, pipe, waiting: Vec::new().into() }
    }
}

/// One session.
pub(crate) struct Session {
    link: SessionHandle,
    pipe: Arc<Pipe>,
    waiting: std::collections::VecDeque<Down>,
}

impl Session {
    /// Sends a stanza.
    pub(crate) fn send(&mut self, xml: &str) {
        let stanza = Stanza::parse(xml.as_bytes(), &Scope::CLIENT, &Limits::TRUSTED).unwrap();
        self.link.up(stanza);
    }

    /// Enables resumption, and loses its connection.
    pub(crate) async fn sleeps(mut self) {
        self.link.enable(true, None);
        while !matches!(self.down().await, Down::Enabled(_)) {}
        self.link.closed(false);
    }

    /// Sends a stanza and waits for the next that comes.
    pub(crate) async fn ask(&mut self, xml: &str) -> String {
        self.send(xml);
        self.next().await
    }

    async fn down(&mut self) -> Down {
        loop {
            if let Some(down) = self.waiting.pop_front() {
                return down;
            }
            let mut items = Vec::new();
            while self.pipe.drain(&mut items, 100) {}
            self.waiting = items.into();
            if self.waiting.is_empty() {
                let patience = std::time::Duration::from_secs(20);
                tokio::time::timeout(patience, self.pipe.ready()).await.expect("nothing comes");
            }
        }
    }

    /// The next stanza as it is written to the client.
    pub(crate) async fn next(&mut self) -> String {
        loop {
            match self.down().await {
                Down::Stanza(outgoing, _) => {
                    let mut out = Vec::new();
                    outgoing.write(&mut out);
                    return String::from_utf8(out).unwrap();
                }
                Down::Close(close) => panic!("the stream ends: {close:?}"),
                Down::Mark(number) => self.link.marked(number),
                _ => {}
            }
        }
    }

    /// Sends its presence and waits until it is back.
    pub(crate) async fn available(&mut self, payload: &str) {
        self.send(&format!("<presence>{payload}</presence>"));
        while !self.next().await.contains(&format!("from='{}'", self.link.jid())) {}
    }

    /// How the stream ends; what comes before is passed over.
    pub(crate) async fn end(&mut self) -> String {
        loop {
            if let Down::Close(close) = self.down().await {
                return format!("{close:?}");
            }
        }
    }
}
