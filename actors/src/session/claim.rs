//! A session that was restored from its record is resumed (XEP-0198 section 5): its client brings a count, and nobody
//! remembers what was counted. What the store knows says how much of the archive that is. This place is written down before the
//! client is told anything, with a new numbering, so that the old numbers can mean nothing else later.

use std::sync::Arc;

use rookery_cluster::entity::Entity;
use rookery_cluster::store::{self, Class, Options, Transaction};
use rookery_cluster::tables::archive::{self, ArchiveId, Collection};
use rookery_cluster::tables::{offline, sessions};

use super::{Msg, Session};
use crate::connection::recent::Recent;
use crate::host::{Host, NotResumed};
use crate::runtime::actor::Handle;

/// What a client has.
#[derive(Clone, Copy)]
pub(crate) struct Claim {
    /// Its count.
    pub(crate) h: u32,
    /// The numbering that ends with it.
    pub(crate) before: u64,
    /// The numbering that begins with it.
    numbering: u64,
    /// What it has of the archive.
    acked: Option<ArchiveId>,
    /// What of it was offline for all devices.
    pub(crate) offline: Option<ArchiveId>,
}

/// How many archive entries are looked at: more than can be on their way to one client.
const MOST: usize = 20_000;

impl Session {
    /// Finds out what a client with `h` stanzas has; the answer is [`Msg::Claimed`].
    pub(super) fn claim(&mut self, h: u32, me: &Handle<Self>) {
        let Some((record, mut cursor)) = self.record() else { return };
        Recent::read(&cursor).covered_by(h).write(&mut cursor);
        let (Some(stored), Some(sm)) = (&self.restored, &mut self.sm) else { return };
        sm.claiming();
        let claim = Claim {
            h,
            before: record.numbering,
            numbering: u64::from_le_bytes(self.host.seams().bytes()),
            acked: self.acked.max(stored.cursor.acked),
            offline: None,
        };
        let stored = sessions::Stored { record, cursor, ..sessions::Stored::clone(stored) };
        let (host, weak) = (self.host.clone(), me.downgrade());
        self.host.spawn(async move {
            let claimed = write(&host, Arc::new(stored), claim).await;
            let claimed = claimed.map(|claim| claim.map(Box::new)).map_err(|error| {
                // What is damaged will not mend: the client must not come again for it for ever.
                let later = error.class.repeats() || error.class == Class::Full;
                if error.class == Class::Fenced {
                    return NotResumed::Unable; // its home is another node
                }
                tracing::warn!(%error, later, "a session could not be resumed; the client must retry or log in again");
                if later { NotResumed::Unable } else { NotResumed::NotFound }
            });
            let claimed = claimed.and_then(|claim| claim.ok_or(NotResumed::NotFound));
            if let Some(session) = weak.upgrade() {
                let _ = session.cast_always(Msg::Claimed(claimed));
            }
        });
    }

    pub(super) fn claimed(&mut self, claim: Result<Box<Claim>, NotResumed>, me: &Handle<Self>) {
        let Some(sm) = &mut self.sm else { return };
        sm.written();
        let Some(resume) = self.resuming.take() else { return };
        match claim {
            Ok(claim) if claim.h == resume.h => {
                if let Some(stored) = self.restored.take() {
                    self.recent = Recent::read(&stored.cursor).covered_by(claim.h);
                }
                let queued = sm.take_had(&self.recent);
                sm.count_from(claim.h, claim.numbering);
                sm.note_had(&mut self.recent, self.ledger.received());
                self.recent.comes_again_after(sm.sent());
                self.acked = claim.acked;
                self.unqueue(&queued);
                self.resume(resume, me, Some(*claim));
            }
            // Another connection has come meanwhile, with another count.
            Ok(_) => self.resume(resume, me, None),
            Err(why) => drop(resume.reply.send(Err(why))),
        }
    }
}

/// None: the session has ended meanwhile.
async fn write(host: &Host, stored: Arc<sessions::Stored>, claim: Claim) -> store::Result<Option<Claim>> {
    // What was submitted of this session before must not be written after this.
    let owner = stored.user.clone();
    let epoch = host.store().epoch(owner.shard());
    // What of others could not be written is no matter of this session: it is done with all the same.
    host.batcher().flush().await.ok();
    if host.store().epoch(owner.shard()) != epoch {
        return Err(store::Error::new(Class::Fenced, "the user is at home elsewhere, or was meanwhile"));
    }
    host.store()
        .write(Options::owner(&owner), |tx| {
            let stored = stored.clone();
            Box::pin(async move { take(&mut **tx, &stored, claim).await })
        })
        .await
}

async fn take(
    tx: &mut dyn Transaction,
    stored: &sessions::Stored,
    claim: Claim,
) -> store::Result<Option<Claim>> {
    let (user, sid): (&Entity, _) = (&stored.user, &stored.sid);
    if sessions::get(tx, user, sid).await?.is_none() {
        return Ok(None); // nobody would remove what is written now
    }
    let (old, mut claim) = ((claim.before, claim.h), claim);
    if old.0 != 0 {
        let found = archive::received(tx, Collection::Archive, user, claim.acked, old, MOST).await?;
        claim.acked = claim.acked.max(found.last);
        for id in archive::received(tx, Collection::Queue, user, None, old, MOST).await?.ids {
            archive::remove(tx, Collection::Queue, user, id);
        }
        if let Some(page) = sessions::sending(tx, user, sid).await?.filter(|page| page.numbering == old.0) {
            let ids = page.covered_by(claim.h)?;
            if page.queue {
                ids.iter().for_each(|id| archive::remove(tx, Collection::Queue, user, *id));
            } else {
                // The page before was confirmed when this one was made.
                let upto = ids.last().copied().max(page.confirmed()?);
                claim.acked = claim.acked.max(upto);
                claim.offline = upto.filter(|_| page.offline);
            }
        }
    }
    if let Some(upto) = claim.offline {
        match offline::get(tx, user).await? {
            Some(cursor) if cursor.after < upto => offline::set(tx, user, cursor.given(upto)),
            _ => claim.offline = None,
        }
    }
    let record = sessions::Record { numbering: claim.numbering, ..stored.record.clone() };
    sessions::put(tx, user, sid, &record)?;
    let cursor = sessions::Cursor { down_acked: claim.h, acked: claim.acked, ..stored.cursor.clone() };
    sessions::put_cursor(tx, user, sid, &cursor);
    Ok(Some(claim))
}
