//! A connection opens a session whose home is another node, or goes on with one.

use std::sync::Arc;

use bytes::Bytes;
use prost::Message as _;
use rookery_cluster::mesh::peer::NodeId;
use rookery_proto::xmpp::error::{Condition, StanzaError};
use tokio::sync::oneshot;

use super::session_proxy::SessionProxy;
use crate::connection::pipe::Pipe;
use crate::host::{Host, NotResumed};
use crate::routing::wire::{self, What};
use crate::session::SessionId;
use crate::session::handle::{Authenticated, ConnInfo, SessionHandle};

impl Host {
    /// Opens a session whose home is another node.
    pub(crate) async fn bind_away(
        &self,
        who: &Authenticated,
        resource: Option<&str>,
        conn: &ConnInfo,
        pipe: Arc<Pipe>,
    ) -> Result<SessionHandle, StanzaError> {
        let unable = || StanzaError::new(Condition::InternalServerError);
        let proxy = SessionProxy::new(self, who.jid(), &conn.address, pipe).ok_or_else(unable)?;
        let bind = wire::Bind {
            user: who.jid().as_str().to_owned(),
            resource: resource.map(str::to_owned),
            conn: Some(proxy.conn()),
        };
        let bound = self.ask(proxy.clone(), What::Bind(bind)).await.ok_or_else(unable)?;
        match SessionProxy::jid(&bound) {
            Some(jid) => Ok(SessionHandle::away(proxy, jid)),
            None => Err(StanzaError::new(
                Condition::from_name(&bound.condition).unwrap_or(Condition::InternalServerError),
            )),
        }
    }

    /// Goes on with a session whose home is another node.
    pub(crate) async fn resume_away(
        &self,
        who: &Authenticated,
        (sid, key): (SessionId, [u8; 16]),
        h: u32,
        conn: &ConnInfo,
        pipe: Arc<Pipe>,
    ) -> Result<SessionHandle, NotResumed> {
        let proxy = SessionProxy::new(self, who.jid(), &conn.address, pipe).ok_or(NotResumed::Unable)?;
        proxy.resuming(h);
        let resume = wire::Resume {
            user: who.jid().as_str().to_owned(),
            sid: Bytes::copy_from_slice(&sid.0),
            key: Bytes::copy_from_slice(&key),
            h,
            conn: Some(proxy.conn()),
        };
        let bound = self.ask(proxy.clone(), What::Resume(resume)).await.ok_or(NotResumed::Unable)?;
        match SessionProxy::jid(&bound) {
            Some(jid) => Ok(SessionHandle::away(proxy, jid)),
            None if bound.condition.is_empty() => Err(NotResumed::NotFound),
            None => Err(NotResumed::Unable),
        }
    }

    /// Asks for a session. If nobody waits for the answer any more, the session is told that its connection is gone.
    async fn ask(&self, proxy: Arc<SessionProxy>, what: What) -> Option<wire::Bound> {
        struct Waits(Arc<SessionProxy>, bool);
        impl Drop for Waits {
            fn drop(&mut self) {
                if !self.1 {
                    self.0.forget();
                }
            }
        }
        let mut waits = Waits(proxy.clone(), false);
        let (reply, answer) = oneshot::channel();
        self.send(&proxy.user.clone(), what, move |_, answer| {
            let bound = answer.ok().and_then(|bytes| wire::Bound::decode(bytes).ok());
            if let Some(bound) = bound.as_ref().filter(|bound| !bound.jid.is_empty())
                && let Ok(node) = NodeId::new(&bound.node)
            {
                proxy.settle(node, bound.generation, bound.settled);
            }
            let _ = reply.send(bound);
        });
        let bound = answer.await.ok().flatten()?;
        waits.1 = !bound.jid.is_empty();
        Some(bound)
    }
}
