//! What a session actor is sent.

use std::borrow::Cow;
use std::sync::{Arc, Weak};

use rookery_cluster::tables::archive::ArchiveId;
use rookery_proto::xmpp::error::StreamCondition;
use rookery_proto::xmpp::jid::Jid;
use rookery_proto::xmpp::stanza::Stanza;
use tokio::sync::oneshot;

use super::handle::Route;
use super::timers::Timer;
use super::{Attach, Claim, ClientState, Resume};
use crate::connection::ledger::{Ledger, Receipt};
use crate::connection::pipe::{Kept, Outgoing};
use crate::host::NotResumed;

/// A stanza for the session's client.
pub(crate) struct Delivery {
    pub(crate) outgoing: Outgoing,
    /// Where it is durable.
    pub(crate) kept: Kept,
    pub(crate) receipt: Receipt,
}

/// What a session actor is sent.
pub(crate) enum Msg {
    /// A stanza from the client.
    Up {
        stanza: Arc<Stanza>,
        receipt: Receipt,
    },
    /// The connection's own answer to a stanza that was none.
    Answer {
        reply: Option<Box<Stanza>>,
        receipt: Receipt,
    },
    /// A stanza for the client.
    Deliver(Box<Delivery>),
    DownAck(u32),
    Enable {
        resume: bool,
        max: Option<u32>,
        ledger: Arc<Ledger>,
    },
    Resume(Box<Resume>),
    Csi(bool),
    /// What these have sent is withdrawn, as far as the client has not got it.
    Withdraw(Arc<dyn Fn(&Jid) -> bool + Send + Sync>),
    /// What its client has asked for, as its user knows it.
    Remember(Box<ClientState>),
    /// Tell the user, with this number, when the client has everything sent so far.
    Mark(u64),
    /// The connection has written everything before that mark.
    Written(u64),
    /// Its client sends nothing more, and all that it sent is settled.
    Finish {
        generation: u32,
    },
    Closed {
        clean: bool,
        generation: u32,
    },
    Kick(StreamCondition, Cow<'static, str>),
    /// The process stops: the stream ends, a resumable session stays on record.
    Suspend(oneshot::Sender<()>),
    /// The time has come that something asked for.
    Timer(Timer),
    /// The time to resume is over, if there was no connection since.
    Expire {
        generation: u32,
    },
    /// What was changed before so many of the client's stanzas were settled has come: the record may say so.
    Record {
        settled: u32,
    },
    /// The record is written, and says that the client's stanzas are settled up to here; or it could not be written.
    Recorded {
        settled: Option<u32>,
    },
    /// Somebody waits for the record to say what is settled.
    Settle,
    /// What its client has, now that it is written down; or the store refused.
    Claimed(Result<Box<Claim>, NotResumed>),
    /// The way of its connection here, which leads elsewhere when it moves.
    Route(Weak<Route>),
    /// Its connection, which is elsewhere, knew it on another node.
    Attach(Box<Attach>),
    /// The session is about to move: nothing more comes from its connection.
    Hold,
    /// What came before that is through.
    Holding,
    /// The session moves now.
    Leave(oneshot::Sender<()>),
    /// The session lives on another node already.
    Lose,
    /// A stanza of the client is settled: what it was told because of that is in front of this.
    Done(Receipt),
    /// Its queue is full.
    TooSlow,
    /// A stanza that waits for its ack is on its way into the offline queue, under this id.
    Kept {
        number: u32,
        id: ArchiveId,
    },
    /// The store has refused that.
    NotKept {
        number: u32,
        receipt: Receipt,
    },
}
