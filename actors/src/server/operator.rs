//! What operators ask of users, wherever they live.

use std::borrow::Cow;

use bytes::Bytes;
use prost::Message as _;
use rookery_cluster::entity::Shard;
use rookery_cluster::mesh::peer::{Envelope, Outcome};
use rookery_cluster::tables::nodes::State;
use rookery_proto::xmpp::error::{Condition, StanzaError, StreamCondition};
use rookery_proto::xmpp::jid::{BareJid, Jid};
use tokio::sync::oneshot;

use crate::connection::reply::Reply;
use crate::features::xep_0077_registration;
use crate::host::Host;
use crate::host::kind::Actors;
use crate::routing::wire::{self, What, order};
use crate::session::SessionId;
use crate::session::handle::ConnInfo;
use crate::user::{self, User};

/// Sessions in one answer: it must fit into a message between nodes.
const LISTED: usize = 4_000;

/// One open session, for the operator.
#[derive(Clone, Debug)]
pub struct SessionInfo {
    /// Its full JID.
    pub jid: String,
    /// When it was bound, microseconds since 1970.
    pub since: u64,
    /// The address that the client had when it bound its resource.
    pub address: String,
    /// Its connection, if it has one to this node.
    pub conn: Option<ConnInfo>,
    /// Whether it has a connection now, or waits to be resumed.
    pub connected: bool,
    /// Its priority if it is available.
    pub priority: Option<i8>,
}

impl Host {
    /// Sends an order to a user's home; the answer's bytes.
    pub(crate) async fn order(&self, user: &BareJid, what: order::What) -> Option<Bytes> {
        let (reply, answer) = oneshot::channel();
        self.send(user, What::Order(wire::Order { what: Some(what) }), move |_, answer| {
            drop(reply.send(answer))
        });
        answer.await.ok()?.ok()
    }

    /// An order for a user whose home this is.
    pub(crate) fn take_order(&self, order: wire::Order, reply: Reply) {
        let host = self.clone();
        self.spawn(async move {
            match order.what {
                Some(order::What::Created(name)) => {
                    if let Ok(jid) = BareJid::parse(&name) {
                        host.created_here(&jid).await;
                    }
                    reply.taken();
                }
                Some(order::What::Removed(name)) => {
                    let Ok(jid) = BareJid::parse(&name) else { return reply.taken() };
                    match xep_0077_registration::remove_account(&host, &jid).await {
                        Ok(()) => reply.taken(),
                        Err(error) => reply.answer(error.condition.name().into()),
                    }
                }
                Some(order::What::Kick(kick)) => {
                    let kicked = match Jid::parse(&kick.jid) {
                        Ok(jid) => host.kick_here(&jid, kick.text).await,
                        Err(_) => 0,
                    };
                    reply.answer(kicked.to_string().into());
                }
                Some(order::What::List(_)) | None => reply.taken(),
            }
        });
    }

    /// The sessions of this node.
    pub(crate) fn take_list(&self, prefix: &str, reply: Reply) {
        let (host, prefix) = (self.clone(), prefix.to_owned());
        self.spawn(async move {
            let sessions =
                host.sessions_here(&prefix).await.into_iter().take(LISTED).map(|info| wire::Session {
                    via: info.conn.as_ref().map(|conn| conn.via.to_owned()).unwrap_or_default(),
                    tls: info.conn.as_ref().map(|conn| conn.tls.to_owned()).unwrap_or_default(),
                    suite: info.conn.as_ref().map(|conn| conn.suite.to_owned()).unwrap_or_default(),
                    jid: info.jid,
                    since: info.since,
                    address: info.address,
                    connected: info.connected,
                    priority: info.priority.map(i32::from),
                });
            let sessions = wire::Sessions { sessions: sessions.collect() };
            reply.answer(sessions.encode_to_vec().into());
        });
    }

    /// The sessions of the other nodes.
    pub(crate) async fn sessions_elsewhere(&self, prefix: &str) -> Vec<SessionInfo> {
        let Some(placement) = self.placement() else { return Vec::new() };
        let map = placement.cluster.mesh().map();
        let mut asked = Vec::new();
        for member in map.members() {
            let serves = matches!(member.status.state(), State::Active | State::Draining);
            if !serves || member.node == *map.node() {
                continue;
            }
            let list = wire::Order { what: Some(order::What::List(prefix.to_owned())) };
            let envelope = Envelope::new(Shard(0), 0, Bytes::new(), wire::encode(What::Order(list)));
            let (reply, answer) = oneshot::channel();
            let told = move |outcome| drop(reply.send(outcome));
            if placement.cluster.peers().peer(&member.node).send(envelope, told).is_ok() {
                asked.push(answer);
            }
        }
        let mut all = Vec::new();
        for answer in asked {
            let patience = std::time::Duration::from_secs(5);
            let Ok(Ok(Outcome::Taken(reply))) = tokio::time::timeout(patience, answer).await else {
                continue;
            };
            let sessions = wire::Sessions::decode(reply).unwrap_or_default().sessions;
            all.extend(sessions.into_iter().map(|session| SessionInfo {
                conn: None,
                jid: session.jid,
                since: session.since,
                address: session.address,
                connected: session.connected,
                priority: session.priority.and_then(|priority| i8::try_from(priority).ok()),
            }));
        }
        // The rest of a connection is known where it is.
        for info in &mut all {
            info.conn = self.connections().find(&info.jid).filter(|conn: &ConnInfo| !conn.via.is_empty());
        }
        all
    }

    /// All open sessions whose JID begins with `prefix`, on all nodes.
    pub async fn session_list(&self, prefix: &str) -> Vec<SessionInfo> {
        let mut all = self.sessions_here(prefix).await;
        all.extend(self.sessions_elsewhere(prefix).await);
        all.sort_by(|a, b| a.jid.cmp(&b.jid));
        all.dedup_by(|a, b| a.jid == b.jid);
        for info in all.iter_mut().filter(|info| info.connected && info.conn.is_none()) {
            info.conn = self.connections().find(&info.jid);
        }
        all
    }

    /// The sessions whose home is this node.
    pub async fn sessions_here(&self, prefix: &str) -> Vec<SessionInfo> {
        let mut all = Vec::new();
        for (jid, handle) in self.users().map(Actors::all).unwrap_or_default() {
            if !jid.as_str().starts_with(prefix.split('/').next().unwrap_or_default()) {
                continue;
            }
            let (reply, answer) = oneshot::channel();
            let ask =
                user::Msg::Then(Box::new(move |user: &mut User| drop(reply.send(user.session_infos()))));
            if handle.cast_always(ask).is_ok()
                && let Ok(infos) = answer.await
            {
                all.extend(infos.into_iter().filter(|info| info.jid.starts_with(prefix)));
            }
        }
        for info in all.iter_mut().filter(|info| info.connected) {
            info.conn = self.connections().find(&info.jid);
        }
        all
    }

    /// Ends the sessions of a bare JID, or the one of a full JID, whose clients are told `text`, which must be characters that
    /// XML allows; returns how many there were.
    pub async fn kick(&self, jid: &Jid, text: impl Into<Cow<'static, str>>) -> usize {
        self.try_kick(jid, text.into()).await.unwrap_or(0)
    }

    /// The same; `None` if the user's home did not answer.
    async fn try_kick(&self, jid: &Jid, text: Cow<'static, str>) -> Option<usize> {
        let user = jid.to_bare();
        if self.is_home(&user) {
            return Some(self.kick_here(jid, text).await);
        }
        let kick = wire::Kick { jid: jid.as_str().to_owned(), text: text.into_owned() };
        let answer = self.order(&user, order::What::Kick(kick)).await?;
        std::str::from_utf8(&answer).ok()?.parse().ok()
    }

    /// The operator has given an account a new password ([`replace`](crate::auth::credentials::replace)): sessions that were opened
    /// with the old one end, wherever they are. `false` if the user's home did not answer: then they may still be open.
    pub async fn password_set(&self, user: &BareJid) -> bool {
        self.try_kick(&Jid::from(user.clone()), "the password was changed".into()).await.is_some()
    }

    async fn kick_here(&self, jid: &Jid, text: impl Into<Cow<'static, str>>) -> usize {
        let Some(handle) = self.find_user(&jid.to_bare()) else { return 0 };
        let (reply, answer) = oneshot::channel();
        let (jid, text) = (jid.clone(), text.into());
        let kick = move |user: &mut User| {
            let matching: Vec<SessionId> = user
                .sessions()
                .iter()
                .filter(|s| jid.resource().is_none() || s.jid.as_str() == jid.as_str())
                .map(|s| s.sid)
                .collect();
            for sid in &matching {
                user.end_session(*sid, StreamCondition::NotAuthorized, text.clone());
            }
            let _ = reply.send(matching.len());
        };
        let _ = handle.cast_always(user::Msg::Then(Box::new(kick)));
        answer.await.unwrap_or(0)
    }

    /// An account of that name was made: an actor that was told that there is nobody must look again.
    pub async fn created(&self, jid: &BareJid) {
        if self.is_home(jid) {
            self.created_here(jid).await;
        } else {
            self.order(jid, order::What::Created(jid.as_str().to_owned())).await;
        }
    }

    async fn created_here(&self, jid: &BareJid) {
        self.with_user(jid, |user| user.created()).await;
    }

    /// Removes an account, at its home.
    ///
    /// # Errors
    /// Those of [`xep_0077_registration::remove_account`].
    pub async fn remove_account(&self, jid: &BareJid) -> Result<(), StanzaError> {
        if self.is_home(jid) {
            return xep_0077_registration::remove_account(self, jid).await;
        }
        let unable = || StanzaError::new(Condition::InternalServerError);
        let removed = order::What::Removed(jid.as_str().to_owned());
        let answer = self.order(jid, removed).await.ok_or_else(unable)?;
        match std::str::from_utf8(&answer) {
            Ok("") => Ok(()),
            Ok(name) => Err(Condition::from_name(name).map_or_else(unable, StanzaError::new)),
            Err(_) => Err(unable()),
        }
    }

    /// Runs a step in the actor of `jid` if it is here: how changes made by the operator reach it.
    pub async fn with_user(&self, jid: &BareJid, step: impl FnOnce(&mut User) + Send + 'static) {
        if let Some(handle) = self.find_user(jid) {
            let (reply, answer) = oneshot::channel();
            let step = move |user: &mut User| {
                step(user);
                let _ = reply.send(());
            };
            let _ = handle.cast_always(user::Msg::Then(Box::new(step)));
            let _ = answer.await;
        }
    }
}

impl User {
    /// What the operator wants to know of the sessions.
    pub(crate) fn session_infos(&self) -> Vec<SessionInfo> {
        self.sessions()
            .iter()
            .map(|session| SessionInfo {
                jid: session.jid.as_str().to_owned(),
                since: session.since,
                address: session.address.to_string(),
                conn: None,
                connected: session.shared.connected.load(std::sync::atomic::Ordering::Relaxed),
                priority: session.presence.as_ref().map(|presence| presence.priority),
            })
            .collect()
    }
}
