//! What goes over the wire, from and to what it is here. What another node of the cluster sends is believed, but nothing of
//! it may break this one: a later version may know more.

use bytes::Bytes;
use prost::Message as _;
use rookery_cluster::store;
use rookery_cluster::tables::archive::ArchiveId;
use rookery_proto::xmpp::error::StreamCondition;
use rookery_proto::xmpp::jid::BareJid;
pub(crate) use rookery_rpc::payload::v1::payload::What;
pub(crate) use rookery_rpc::payload::v1::{
    Attach, Bind, Bound, Broadcast, Capsule, Change, Close, Conn, Down, Enable, FanOut, In, Item, Kick,
    Order, Payload, Recent, Refused, Resume, Retell, Serve, Served, Session, Sessions, ShowPresence, Stanza,
    ToComponent, TooHigh, Up, close, item, order, up,
};

use crate::connection::pipe::{self, Kept};
use crate::runtime::origin::{Origin, OriginName};

/// The payload [`Broadcast`], among what a node says that it knows.
pub(crate) const BROADCAST: &str = "broadcast";
/// That [`ShowPresence`] may say that a component is away, or back.
pub(crate) const ABSENCE: &str = "component-absence";
/// What must be sent only to nodes that say they know it. Others would answer that they have taken it, and drop it.
pub(crate) const ANNOUNCED: &[&str] = &[BROADCAST, ABSENCE];

/// A stanza for a user, as part of what goes to many: nothing else is said of it.
pub(crate) fn to_one(
    user: &BareJid,
    stanza: &rookery_proto::xmpp::stanza::Stanza,
    origin: Option<Origin>,
) -> In {
    In {
        user: user.as_str().to_owned(),
        stanza: stanza.to_bytes().into(),
        sid: origin.map(|origin| Bytes::copy_from_slice(&origin.name.0)).unwrap_or_default(),
        n: origin.map_or(0, |origin| origin.number),
        verdicts: true,
        ..In::default()
    }
}

/// A payload's bytes.
pub(crate) fn encode(what: What) -> Bytes {
    Payload { what: Some(what) }.encode_to_vec().into()
}

/// A payload, if it is one that this version knows.
pub(crate) fn decode(body: &Bytes) -> Option<What> {
    Payload::decode(body.clone())
        .inspect_err(|error| tracing::error!(%error, "a message from another node cannot be decoded"))
        .ok()?
        .what
}

/// 16 bytes, or none.
pub(crate) fn id_bytes(id: Option<ArchiveId>) -> Bytes {
    id.map(|id| Bytes::copy_from_slice(&id.to_bytes())).unwrap_or_default()
}

pub(crate) fn id_of(bytes: &[u8]) -> Option<ArchiveId> {
    Some(ArchiveId::from_bytes(bytes.try_into().ok()?))
}

/// How often the connection has looked for a home before.
pub(crate) fn attempt(attach: &Attach) -> u32 {
    attach.conn.as_ref().map_or(0, |conn| conn.attempt)
}

/// The stanza's origin, if it has one.
pub(crate) fn origin(payload: &In) -> Option<Origin> {
    Some(Origin::new(OriginName::from_slice(&payload.sid)?, payload.n))
}

/// What is in a pipe, for the connection's node; nothing for what is none of its business.
pub(crate) fn item(down: &pipe::Down) -> item::What {
    match down {
        pipe::Down::Stanza(outgoing, kept) => {
            let mut bytes = Vec::with_capacity(outgoing.size() + 16);
            outgoing.write(&mut bytes);
            item::What::Stanza(stanza(bytes.into(), kept))
        }
        pipe::Down::Written(bytes, _) => {
            item::What::Stanza(Stanza { stanza: bytes.clone(), ..Stanza::default() })
        }
        pipe::Down::Nonza(bytes) => item::What::Nonza(bytes.clone()),
        pipe::Down::Enabled(bytes) => item::What::Enabled(bytes.clone()),
        pipe::Down::Mark(number) => item::What::Mark(*number),
        pipe::Down::Close(close) => item::What::Close(close_to(close)),
        pipe::Down::Moved => item::What::Moved(true),
    }
}

/// What an item weighs in a pipe between nodes, bytes.
pub(crate) fn weight(item: &item::What) -> usize {
    match item {
        item::What::Stanza(stanza) => stanza.stanza.len(),
        item::What::Nonza(bytes) | item::What::Enabled(bytes) => bytes.len(),
        _ => 0,
    }
}

fn close_to(close: &pipe::Close) -> Close {
    let (what, text) = match close {
        pipe::Close::Clean => (close::What::Clean(true), String::new()),
        pipe::Close::Abandon => (close::What::Abandon(true), String::new()),
        pipe::Close::HandledTooHigh { h, sent } => {
            (close::What::TooHigh(TooHigh { h: *h, sent: *sent }), String::new())
        }
        pipe::Close::Error(condition, text) => {
            (close::What::Condition(condition.name().to_owned()), text.to_string())
        }
    };
    Close { what: Some(what), text }
}

pub(crate) fn close_of(close: Close) -> pipe::Close {
    match close.what {
        Some(close::What::Clean(_)) => pipe::Close::Clean,
        Some(close::What::TooHigh(TooHigh { h, sent })) => pipe::Close::HandledTooHigh { h, sent },
        Some(close::What::Condition(name)) => {
            let condition = StreamCondition::from_name(&name).unwrap_or(StreamCondition::UndefinedCondition);
            pipe::Close::Error(condition, close.text.into())
        }
        Some(close::What::Abandon(_)) | None => pipe::Close::Abandon,
    }
}

/// A stanza that is sent to a client, and where it lies.
pub(crate) fn stanza(stanza: Bytes, kept: &Kept) -> Stanza {
    let (id, queued) = (id_bytes(kept.id()), id_bytes(kept.queued()));
    let origin = kept.room().map(Origin::to_bytes).unwrap_or_default();
    let (offline, left_behind, key) = (kept.offline(), kept.left().is_some(), kept.key());
    Stanza { stanza, id, queued, offline, key, origin, left_behind }
}

/// Where a stanza lies.
pub(crate) fn kept(stanza: &Stanza) -> Kept {
    let Stanza { id, queued, offline, key, origin, left_behind, .. } = stanza;
    let kept = match id_of(queued) {
        Some(queued) => Kept::queue(queued),
        None if *left_behind => Kept::left_behind(id_of(id)),
        None => Kept::archive(id_of(id), *offline),
    };
    match Origin::of_bytes(origin) {
        Some(room) => kept.of_room(room, false),
        None => kept.keyed(*key),
    }
}

/// A capsule of what a session's record in the store says, at a home that has its shard in `epoch`.
pub(crate) fn capsule(
    sid: [u8; 16],
    record: &rookery_cluster::tables::sessions::Record,
    acked: Option<ArchiveId>,
    epoch: u32,
) -> Capsule {
    Capsule {
        epoch,
        sid: Bytes::copy_from_slice(&sid),
        record: record.encode_to_vec().into(),
        acked: id_bytes(acked),
    }
}

/// What a session's record in the store says.
pub(crate) fn record(capsule: &Capsule) -> Option<rookery_cluster::tables::sessions::Record> {
    rookery_cluster::tables::sessions::Record::decode(capsule.record.clone())
        .map_err(|error| store::Error::new(store::Class::Corrupt, "a capsule").with(error))
        .inspect_err(|error| tracing::error!(%error, "a session cannot be restored"))
        .ok()
}
