//! What other nodes send.

use std::sync::Arc;

use bytes::Bytes;
use prost::Message as _;
use rookery_cluster::entity::Shard;
use rookery_cluster::mesh::Home;
use rookery_cluster::mesh::peer::{Done, Envelope, NodeId, Receiver};
use rookery_proto::xmpp::error::Condition;
use rookery_proto::xmpp::jid::{BareJid, Jid};
use tokio::sync::oneshot;

use crate::connection::ledger::Receipt;
use crate::connection::pipe::Pipe;
use crate::connection::reply::Reply;
use crate::host::kind::Inbound;
use crate::host::{Host, NotResumed};
use crate::routing::wire::{self, What};
use crate::session::SessionId;
use crate::session::handle::{ConnInfo, SessionHandle};
use crate::session::remote::connection_proxy::ConnectionProxy;
use crate::user;

/// See [`Host::receiver`].
struct Mailbox(Host);

impl Receiver for Mailbox {
    fn take(&self, from: &NodeId, envelope: Envelope, done: Done) {
        let generation = done.generation();
        let Envelope { shard, epoch, body, .. } = envelope;
        self.0.arrive(from, generation, (shard, epoch), &body, Reply::peer(done));
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
        let Some(what) = wire::decode(body) else { return reply.taken() };
        let what = match what {
            // A connection that is not here any more: the home of its session must know.
            What::Down(down) => {
                return if self.take_down(from, down) { reply.taken() } else { reply.not_here(0, None) };
            }
            // Each is looked at by itself; one alone is like any other payload.
            What::FanOut(fan_out) if fan_out.users.len() > 1 => {
                return reply.answer(self.take_fan_out(fan_out));
            }
            What::Broadcast(broadcast) => return self.take_broadcast(from, generation, broadcast, reply),
            What::ToComponent(payload) => return self.take_to_component(&payload, reply),
            What::ShowPresence(show) => {
                reply.taken();
                return self.take_show_presence(&show);
            }
            What::Order(wire::Order { what: Some(wire::order::What::List(prefix)) }) => {
                return self.take_list(&prefix, reply);
            }
            // Room for what a proxy has still to say, also while its shard is given up.
            What::Up(up) if matches!(up.what, Some(wire::up::What::Credit(_))) => {
                return self.take_up(from, generation, up, reply);
            }
            what => what,
        };
        if let Some((what, reply)) = self.early(from, generation, (shard, epoch), what, reply) {
            self.take(from, generation, shard, what, reply);
        }
    }

    /// Takes a payload for an entity.
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
            What::FanOut(fan_out) => reply.answer(self.take_fan_out(fan_out)),
            What::Retell(retell) => {
                reply.taken();
                if let Ok(from) = Jid::parse(&retell.from) {
                    let users = retell.users.iter().filter_map(|user| BareJid::parse(user).ok()).collect();
                    self.retell_here(&from, users);
                }
            }
            What::Serve(serve) => self.take_serve(from, generation, serve, reply),
            What::Down(_) | What::Broadcast(_) | What::ToComponent(_) | What::ShowPresence(_) => {
                reply.taken()
            }
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
            Receipt::owed(reply, payload.verdicts)
                .archived(wire::id_of(&payload.entry))
                .pressed(payload.pressing),
        );
        let Some(kind) = self.kinds().named(&payload.kind) else {
            return self.bounce(&stanza, receipt, Condition::ServiceUnavailable);
        };
        let change = payload.change.map(Box::new);
        self.to_entity_here(kind, &user, Inbound { stanza: Arc::new(stanza), receipt, origin, change });
    }

    /// A presence for several recipients; returns those that do not live here.
    fn take_fan_out(&self, fan_out: wire::FanOut) -> Bytes {
        let Some(stanza) = crate::routing::stored::stanza(&fan_out.stanza) else { return Bytes::new() };
        let Some(kind) = self.kinds().named(&fan_out.kind) else { return Bytes::new() };
        if self.is_outdated(&stanza, fan_out.epoch) {
            metrics::counter!("rookery_presence_outdated_total").increment(1);
            return wire::Refused { users: fan_out.users, outdated: true, understood: false }
                .encode_to_vec()
                .into();
        }
        let stanza = Arc::new(stanza);
        let mut users = Vec::new();
        for name in fan_out.users {
            let Ok(user) = BareJid::parse(&name) else { continue };
            if self.is_home(&user) {
                self.presence_here(kind, &user, &stanza, fan_out.strict);
            } else {
                users.push(name);
            }
        }
        if users.is_empty() {
            Bytes::new()
        } else {
            wire::Refused { users, ..wire::Refused::default() }.encode_to_vec().into()
        }
    }

    fn take_up(&self, from: &NodeId, _generation: u64, up: wire::Up, reply: Reply) {
        let proxy = self.remote().connection_proxies.lock().get(&(from.clone(), up.conn)).cloned();
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
}
