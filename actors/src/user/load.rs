//! What a user actor reads from the store when it is first needed.

use rookery_cluster::entity::Entity;
use rookery_cluster::store;
use rookery_cluster::tables::archive::{self, ArchiveId};
use rookery_cluster::tables::{accounts, blocks, mam_prefs, offline, roster, seen, sessions};
use rookery_proto::xmpp::error::StanzaError;

use super::{Msg, User, roster::Roster, share};
use crate::features::{store_error, xep_0191_blocking::Blocks};
use crate::host::NotResumed;
use crate::host::kind::PlacedActor;
use crate::host::options::Limits;
use crate::placement::lifecycle;
use crate::runtime::seen::Senders;

/// Rows of a block list that are read: far more than any limit lets in, so that a lower limit unblocks nobody.
const BLOCKED: usize = 100_000;

/// Everything a user actor remembers.
pub(crate) struct Loaded {
    /// `None` if there is no such account.
    account: Option<Account>,
}

struct Account {
    password_at: u64,
    roster: Roster,
    /// Changes to the rosters of contacts of which those may not have heard.
    untold: Vec<(String, u64)>,
    blocks: Blocks,
    prefs: Option<mam_prefs::Preferences>,
    last: Option<ArchiveId>,
    offline: Option<offline::Cursor>,
    queued: usize,
    /// The newest entry of the offline queue.
    last_queued: Option<ArchiveId>,
    seen: Senders,
    sessions: Vec<sessions::Stored>,
}

async fn read(tx: &mut dyn store::Transaction, user: &Entity, limits: &Limits) -> store::Result<Loaded> {
    let Some(account) = accounts::get(tx, user).await? else {
        return Ok(Loaded { account: None });
    };
    let items = roster::load(tx, user, limits.roster_rows()).await?.rows;
    let seen = seen::load(tx, user, 4_096).await?.rows;
    let (queued, last_queued) = queued(tx, user).await?;
    Ok(Loaded {
        account: Some(Account {
            password_at: account.password_at.max(account.created_at),
            roster: Roster::load(&items, limits.requests),
            untold: items.into_iter().filter(|i| i.untold != 0).map(|i| (i.jid, i.untold)).collect(),
            blocks: Blocks::load(blocks::load(tx, user, BLOCKED).await?.rows),
            prefs: mam_prefs::get(tx, user).await?,
            last: archive::last_id(tx, archive::Collection::Archive, user).await?,
            offline: offline::get(tx, user).await?,
            queued,
            last_queued,
            // Numbers of a session are 32 bits (XEP-0198); the table has room for more.
            seen: Senders::of_rows(seen),
            sessions: sessions::load(tx, user, limits.sessions_per_user).await?.rows,
        }),
    })
}

/// How many messages wait in the offline queue, and the newest of them.
async fn queued(tx: &mut dyn store::Transaction, user: &Entity) -> store::Result<(usize, Option<ArchiveId>)> {
    let collection = archive::Collection::Queue;
    let Some(last) = archive::last_id(tx, collection, user).await? else { return Ok((0, None)) };
    let queued = archive::get(tx, collection, user, last).await?.map_or(1, |last| share::queued(&last));
    Ok((queued, Some(last)))
}

impl User {
    /// Asks the store; the answer comes as [`Msg::Loaded`].
    pub(super) fn load(&self) {
        let Some(me) = self.me.clone() else { return };
        let (host, entity) = (self.host.clone(), self.entity.clone());
        let limits = host.options().limits.clone();
        self.host.clone().spawn(async move {
            let loaded = host
                .store()
                .read(|tx| {
                    let (entity, limits) = (entity.clone(), limits.clone());
                    Box::pin(async move { read(&mut **tx, &entity, &limits).await })
                })
                .await;
            let loaded = loaded.map(Box::new).map_err(|error| {
                tracing::warn!(user = %entity, %error, "a user could not be loaded from the store; requests to this user fail until the store answers");
                Box::new(store_error(&error))
            });
            let _ = me.cast_always(Msg::Loaded(loaded));
        });
    }

    pub(super) fn loaded(&mut self, loaded: Result<Box<Loaded>, Box<StanzaError>>) {
        match loaded {
            Ok(loaded) => lifecycle::loaded(self, loaded.account.is_some(), |user| {
                if let Some(account) = loaded.account {
                    user.take(account);
                }
            }),
            Err(error) => {
                // Answer all who wait; the next message asks the store again.
                let (me, mut woken) = (self.me.take(), false);
                for msg in lifecycle::not_loaded(self) {
                    woken |= matches!(msg, Msg::Then(_));
                    match msg {
                        Msg::In(inbound) => self.refuse_inbound(*inbound, &error),
                        Msg::Bind(bind) => drop(bind.reply.send(Err((*error).clone()))),
                        Msg::Resume(resume) => drop(resume.reply.send(Err(NotResumed::Unable))),
                        _ => {}
                    }
                }
                if woken {
                    // Sessions on record, perhaps: their presence must be there, and their time run.
                    lifecycle::wake_again(self.host.wheel(), me, <Self as PlacedActor>::wake());
                }
            }
        }
    }

    fn take(&mut self, account: Account) {
        self.password_at = account.password_at;
        self.roster = account.roster;
        self.blocks = account.blocks;
        self.prefs = account.prefs;
        // Archive and queue have their ids from one clock, and that of the last home may have been ahead.
        self.ids = archive::Clock::after(account.last.max(account.last_queued));
        self.stored = account.last;
        self.day = account.last.map(ArchiveId::day);
        self.offline = account.offline;
        self.queued = account.queued;
        self.seen = account.seen;
        for record in account.sessions {
            self.restore(record);
        }
        self.end_replaced();
        self.tell_untold(account.untold);
    }
}
