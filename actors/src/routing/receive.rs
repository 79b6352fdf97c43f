//! What other nodes send.

use std::sync::Arc;

use bytes::Bytes;
use prost::Message as _;
use rookery_cluster::entity::Shard;
use rookery_cluster::mesh::Home;
use rookery_cluster::mesh::peer::{Done, Envelope, NodeId, Receiver};
use rookery_proto::xmpp::error::Condition;
use rookery_proto::xmpp::jid::{BareJid, Jid};
use rookery_proto::xmpp::stanza::{PresenceType, Stanza, Type};
use tokio::sync::oneshot;

use super::wire::{self, What};
use crate::connection::ledger::Receipt;
use crate::connection::pipe::Pipe;
use crate::connection::reply::Reply;
use crate::host::{Host, NotResumed};
use crate::runtime::origin::Origin;
use crate::session::SessionId;
use crate::session::handle::{ConnInfo, SessionHandle};
use crate::session::remote::connection_proxy::ConnectionProxy;
use crate::user::{self, Inbound};

/// See [`Host::receiver`].
struct Mailbox(Host);

impl Receiver for Mailbox {
    fn take(&self, from: &NodeId, envelope: Envelope, done: Done) {
        let generation = done.generation();
        let Envelope { shard, epoch, body, .. } = envelope;
        self.0.arrive(from, generation, (shard, epoch), &body, Reply::to_peer(done));
    }
}

/// No session, and why; to a resumption that there is none needs no condition.
fn refused(condition: &str) -> Bytes {
    wire::Bound { condition: condition.to_owned(), ..wire::Bound::default() }.encode_to_vec().into()
}

impl Host {
    /// Takes what other nodes send.
    pub fn receiver(&self) -> Arc<dyn Receiver> {
        Arc::new(Mailbox(self.clone()))
    }

    /// Takes a payload of this very node.
    pub(crate) fn receive(&self, from: &NodeId, generation: u64, shard: Shard, body: &Bytes, reply: Reply) {
        self.arrive(from, generation, (shard, 0), body, reply);
    }

    /// Takes a payload of a node that takes this one for the shard's home in an epoch; 0 if it does not say.
    fn arrive(
        &self,
        from: &NodeId,
        generation: u64,
        (shard, epoch): (Shard, u64),
        body: &Bytes,
        reply: Reply,
    ) {
        let Some(placement) = self.placement() else { return };
        let Some(what) = wire::decode(body) else { return reply.taken() };
        let what = match what {
            // A connection that is not here any more: whoever has its session must know.
            What::Down(down) => {
                return if self.take_down(from, down) { reply.taken() } else { reply.not_here(0, None) };
            }
            // Each is looked at by itself; one alone is like any other payload.
            What::FanOut(crowd) if crowd.users.len() > 1 => return reply.answer(self.take_crowd(crowd)),
            What::Order(wire::Order { what: Some(wire::order::What::List(prefix)) }) => {
                return self.take_list(&prefix, reply);
            }
            // Room for what a proxy has still to say, also while its shard is given up.
            What::Up(up) if matches!(up.what, Some(wire::up::What::Credit(_))) => {
                return self.take_up(from, generation, up, reply);
            }
            what => what,
        };
        if let Some((what, reply)) = placement.early(from, generation, (shard, epoch), what, reply) {
            self.take(from, generation, shard, what, reply);
        }
    }

    /// Takes a payload for a user.
    pub(crate) fn take(&self, from: &NodeId, generation: u64, shard: Shard, what: What, reply: Reply) {
        let Some(placement) = self.placement() else { return };
        match placement.home(shard) {
            Home::Here { .. } => {}
            Home::There { node, epoch, .. } => return reply.not_here(epoch.0.into(), Some(&node)),
            Home::Nobody => return reply.not_here(0, None),
        }
        match what {
            What::In(payload) => self.take_in(payload, reply),
            What::Up(up) => self.take_up(from, generation, up, reply),
            What::Bind(bind) => self.take_bind(from, generation, bind, reply),
            What::Resume(resume) => self.take_resume(from, generation, resume, reply),
            What::Attach(attach) => self.take_attach(from, generation, attach, reply),
            What::Order(order) => self.take_order(order, reply),
            What::FanOut(crowd) => reply.answer(self.take_crowd(crowd)),
            What::Retell(retell) => {
                reply.taken();
                if let Ok(from) = Jid::parse(&retell.from) {
                    let users = retell.users.iter().filter_map(|user| BareJid::parse(user).ok()).collect();
                    self.retell_here(&from, users);
                }
            }
            What::Down(_) => reply.taken(),
        }
    }

    fn take_in(&self, payload: wire::In, reply: Reply) {
        let (Ok(user), Some(stanza)) =
            (BareJid::parse(&payload.user), crate::routing::stored::stanza(&payload.stanza))
        else {
            return reply.taken();
        };
        let (origin, receipt) = (
            wire::origin(&payload),
            Receipt::owed(reply, payload.verdicts).archived(wire::id_of(&payload.entry)),
        );
        let change = payload.change.and_then(wire::change_of).map(Box::new);
        self.to_user_here(&user, Arc::new(stanza), receipt, origin, change);
    }

    /// A presence for several; returns who does not live here.
    fn take_crowd(&self, crowd: wire::FanOut) -> Bytes {
        let Some(stanza) = crate::routing::stored::stanza(&crowd.stanza) else { return Bytes::new() };
        let stanza = Arc::new(stanza);
        let mut users = Vec::new();
        for name in crowd.users {
            let Ok(user) = BareJid::parse(&name) else { continue };
            if self.is_home(&user) {
                self.presence_here(&user, &stanza, crowd.strict);
            } else {
                users.push(name);
            }
        }
        if users.is_empty() { Bytes::new() } else { wire::Refused { users }.encode_to_vec().into() }
    }

    /// A presence for a user whose home this is; the stanza need not name it. If it is `strict`, it is a probe of a session that
    /// has been away: who is not there says so.
    pub(crate) fn presence_here(&self, user: &BareJid, stanza: &Arc<Stanza>, strict: bool) {
        let msg = || {
            let (receipt, origin, change) = (Receipt::none(), None, None);
            user::Msg::In(Box::new(Inbound { stanza: stanza.clone(), receipt, origin, change }))
        };
        if strict && let Some(from) = stanza.from.clone() {
            // First all are gone, then those who are there say so: of who left meanwhile nobody else would speak.
            let gone = Stanza::new(Type::Presence(PresenceType::Unavailable)).from(user.clone()).to(from);
            self.route(gone, Receipt::none(), None);
        }
        if let Some(handle) = self.users().find(user) {
            let _ = handle.cast(msg());
        } else if self.may_have_sessions(user) {
            let _ = self.cast_user(user, msg());
        }
    }

    fn take_up(&self, from: &NodeId, _generation: u64, up: wire::Up, reply: Reply) {
        let Some(placement) = self.placement() else { return };
        let proxy = placement.connection_proxies.lock().get(&(from.clone(), up.conn)).cloned();
        match proxy {
            Some(proxy) if proxy.attempt == up.attempt => {
                reply.taken();
                if self.take_up_from(&proxy, up) {
                    self.forget_connection(&proxy);
                }
            }
            // Of a time before the connection looked for a new home: what counts of it has come again.
            Some(proxy) if proxy.attempt > up.attempt => reply.taken(),
            // Not of this activation: the connection is to attach.
            _ => reply.not_here(0, None),
        }
    }

    fn take_bind(&self, from: &NodeId, generation: u64, bind: wire::Bind, reply: Reply) {
        let (Ok(user), Some(conn)) = (BareJid::parse(&bind.user), bind.conn) else { return reply.taken() };
        let pipe = Pipe::remote(from.clone(), conn.id);
        let (answer, bound_to) = oneshot::channel();
        let msg = user::Bind {
            resource: bind.resource,
            conn: ConnInfo::elsewhere(&conn.address),
            pipe: pipe.clone(),
            reply: answer,
        };
        if self.cast_user(&user, user::Msg::Bind(Box::new(msg))).is_err() {
            return reply.answer(refused(Condition::ResourceConstraint.name()));
        }
        let (host, from) = (self.clone(), from.clone());
        self.spawn(async move {
            match bound_to.await {
                Ok(Ok(link)) => host.welcome(
                    ConnectionProxy::new(from, generation, &conn, &user, pipe, false),
                    link,
                    reply,
                ),
                Ok(Err(error)) => reply.answer(refused(error.condition.name())),
                Err(_) => drop(reply), // the actor has gone: again
            }
        });
    }

    fn take_resume(&self, from: &NodeId, generation: u64, resume: wire::Resume, reply: Reply) {
        let (Ok(user), Some(conn)) = (BareJid::parse(&resume.user), resume.conn) else {
            return reply.answer(refused(""));
        };
        let (Some(sid), Ok(key)) = (SessionId::from_slice(&resume.sid), resume.key[..].try_into()) else {
            return reply.answer(refused(""));
        };
        let pipe = Pipe::remote(from.clone(), conn.id);
        let (answer, resumed) = oneshot::channel();
        let conn_info = ConnInfo::elsewhere(&conn.address);
        let msg = user::Resume { sid, key, h: resume.h, conn: conn_info, pipe: pipe.clone(), reply: answer };
        if self.cast_user(&user, user::Msg::Resume(Box::new(msg))).is_err() {
            return reply.answer(refused(Condition::ResourceConstraint.name()));
        }
        let (host, from, unable) = (self.clone(), from.clone(), Condition::InternalServerError.name());
        self.spawn(async move {
            match resumed.await {
                Ok(Ok(link)) => host.welcome(
                    ConnectionProxy::new(from, generation, &conn, &user, pipe, true),
                    link,
                    reply,
                ),
                Ok(Err(NotResumed::NotFound)) => reply.answer(refused("")),
                Ok(Err(NotResumed::Unable)) => reply.answer(refused(unable)),
                Err(_) if host.is_home(&user) => reply.answer(refused(unable)),
                Err(_) => drop(reply),
            }
        });
    }

    fn take_attach(&self, from: &NodeId, generation: u64, attach: wire::Attach, reply: Reply) {
        let (Ok(user), Some(conn)) = (BareJid::parse(&attach.user), attach.conn.clone()) else {
            return reply.answer(refused(""));
        };
        let (pipe, managed) = (Pipe::remote(from.clone(), conn.id), attach.managed);
        let (answer, attached) = oneshot::channel();
        let msg = user::Attach {
            attach,
            peer: (from.clone(), conn.id),
            pipe: pipe.clone(),
            here: None,
            reply: answer,
        };
        if self.cast_user(&user, user::Msg::Attach(Box::new(msg))).is_err() {
            return drop(reply);
        }
        let (host, from) = (self.clone(), from.clone());
        self.spawn(async move {
            match attached.await {
                Ok(Some(link)) => {
                    host.welcome(
                        ConnectionProxy::new(from, generation, &conn, &user, pipe, managed),
                        link,
                        reply,
                    );
                }
                Ok(None) => reply.answer(refused("")),
                Err(_) => drop(reply),
            }
        });
    }

    /// A session has a connection on another node: it is entered, then told.
    fn welcome(&self, proxy: Arc<ConnectionProxy>, link: SessionHandle, reply: Reply) {
        let Some(placement) = self.placement() else { return };
        let (jid, ledger) = (link.jid().as_str().to_owned(), link.ledger());
        let (settled, entered) = (ledger.processed(), ledger.received());
        let (node, generation) =
            (placement.cluster.mesh().node().as_str().to_owned(), placement.cluster.mesh().generation());
        self.enter_connection(&proxy, link);
        let bound = wire::Bound { jid, settled, condition: String::new(), node, generation, entered };
        reply.answer(bound.encode_to_vec().into());
    }

    /// A stanza for a user whose home this is.
    pub(crate) fn to_user_here(
        &self,
        user: &BareJid,
        stanza: Arc<Stanza>,
        receipt: Receipt,
        origin: Option<Origin>,
        change: Option<Box<user::Change>>,
    ) {
        // Presence matters only to users who are here (RFC 6121 section 8.5.1 has nobody else care).
        if change.is_none() && matches!(stanza.type_, Type::Presence(_)) {
            self.presence_here(user, &stanza, false);
            return receipt.done();
        }
        self.give(user, Inbound { stanza, receipt, origin, change });
    }

    /// The same for a user whose home may be anywhere.
    pub(crate) fn to_user_away(
        &self,
        user: &BareJid,
        stanza: Arc<Stanza>,
        receipt: Receipt,
        origin: Option<Origin>,
        change: Option<&user::Change>,
    ) {
        let payload = wire::In {
            user: user.as_str().to_owned(),
            stanza: stanza.to_bytes().into(),
            sid: origin.map(|origin| Bytes::copy_from_slice(&origin.name.0)).unwrap_or_default(),
            n: origin.map_or(0, |origin| origin.number),
            change: change.map(wire::change),
            entry: wire::id_bytes(receipt.entry()),
            verdicts: true,
        };
        let roster = change.is_some();
        self.send(user, What::In(payload), move |host, answer| match answer {
            Ok(refused) => match crate::routing::stored::stanza(&refused) {
                Some(error) => host.refuse(error, receipt),
                None => receipt.done(),
            },
            Err(_) if roster => receipt.leave(), // who sent it remembers it, and tells it again
            Err(_) => {
                tracing::debug!(to = ?stanza.to, "no node accepted a stanza in time; the sender gets an error");
                host.bounce(&stanza, receipt, Condition::ResourceConstraint);
            }
        });
    }
}
