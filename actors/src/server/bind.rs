//! Sessions for connections of this node, wherever the session's home is.

use std::sync::Arc;

use rookery_proto::xmpp::error::{Condition, StanzaError};
use tokio::sync::oneshot;

use crate::connection::pipe::Pipe;
use crate::host::{Host, NotResumed};
use crate::session;
use crate::session::handle::{Authenticated, ConnInfo, SessionHandle};
use crate::user;

impl Host {
    /// Opens a session (RFC 6120 section 7).
    ///
    /// # Errors
    /// What to answer the bind request with.
    pub async fn bind(
        &self,
        who: Authenticated,
        resource: Option<&str>,
        conn: ConnInfo,
        pipe: Arc<Pipe>,
    ) -> Result<SessionHandle, StanzaError> {
        if self.is_stopping() {
            return Err(StanzaError::new(Condition::ServiceUnavailable));
        }
        loop {
            if !self.is_home(who.jid()) {
                let link = self.bind_away(&who, resource, &conn, pipe).await?;
                return Ok(link.known(&self.connections(), conn));
            }
            let (reply, answer) = oneshot::channel();
            let (resource, conn_info, pipe) = (resource.map(str::to_owned), conn.clone(), pipe.clone());
            let bind = user::Bind { resource, conn: conn_info, pipe, reply };
            self.cast_user(who.jid(), user::Msg::Bind(Box::new(bind)))
                .map_err(|_| StanzaError::new(Condition::ResourceConstraint))?;
            match answer.await {
                Ok(link) => return Ok(link?.known(&self.connections(), conn)),
                Err(_) if !self.is_home(who.jid()) => {} // it has just moved
                Err(_) => return Err(StanzaError::new(Condition::InternalServerError)),
            }
        }
    }

    /// Goes on with a session (XEP-0198 section 5). `<resumed/>` and what the client missed come through the pipe.
    ///
    /// # Errors
    /// [`NotResumed`].
    pub async fn resume(
        &self,
        who: Authenticated,
        previd: &str,
        h: u32,
        conn: ConnInfo,
        pipe: Arc<Pipe>,
    ) -> Result<SessionHandle, NotResumed> {
        let (sid, key) = session::parse_resumption_id(previd).ok_or(NotResumed::NotFound)?;
        let link = loop {
            if !self.is_home(who.jid()) {
                break self.resume_away(&who, (sid, key), h, &conn, pipe).await;
            }
            let (reply, answer) = oneshot::channel();
            let resume = user::Resume { sid, key, h, conn: conn.clone(), pipe: pipe.clone(), reply };
            self.cast_user(who.jid(), user::Msg::Resume(Box::new(resume))).map_err(|_| NotResumed::Unable)?;
            match answer.await {
                Ok(link) => break link,
                Err(_) if !self.is_home(who.jid()) => {} // it has just moved
                Err(_) => break Err(NotResumed::Unable),
            }
        };
        if matches!(link, Err(NotResumed::NotFound)) {
            metrics::counter!("rookery_sm_failed_total").increment(1);
        }
        link.map(|link| link.known(&self.connections(), conn))
    }
}
