//! The end of an account's import: what was held back is written, what waits is compared with the archive, and the
//! account is made. Runs beside the reading of the next accounts.

use rookery_cluster::store::{self, Ops};
use rookery_cluster::tables::archive::{self, ArchiveId, Collection, End, Entry, Query, With};
use rookery_cluster::tables::{blocks, mam_prefs, offline};
use rookery_proto::sasl::{Credentials, keys};
use tokio::task::JoinHandle;

use super::draft::{Draft, Write};
use super::pages::page;
use super::report::Notes;
use super::scram;
use crate::auth::credentials;

/// What became of an account.
pub(super) enum Outcome {
    Added,
    Exists,
    Failed(String),
}

/// How an account's import ended.
pub(super) struct Ending {
    pub(super) line: u64,
    pub(super) jid: rookery_proto::xmpp::jid::BareJid,
    pub(super) outcome: store::Result<Outcome>,
    pub(super) notes: Notes,
}

/// Messages that are compared in one go.
const PAGE: usize = 100;

/// Makes the account, or takes everything back.
pub(super) async fn finish(mut draft: Draft) -> Ending {
    let outcome = complete(&mut draft).await;
    if !matches!(outcome, Ok(Outcome::Added))
        && let Err(error) = draft.forget().await
    {
        tracing::warn!(user = %draft.jid, %error, "a failed import of an account could not be rolled back; the account name stays reserved until the account is imported again");
    }
    Ending { line: draft.line, jid: draft.jid, outcome, notes: draft.notes }
}

async fn complete(draft: &mut Draft) -> store::Result<Outcome> {
    if let Some(password) = draft.password.take()
        && !scram::complete(&draft.account)
    {
        match made(password).await {
            Ok(credentials) => {
                draft.account.credentials = credentials::to_account(&credentials, 0).credentials;
            }
            Err(reason) => return Ok(Outcome::Failed(reason)),
        }
    }
    if draft.account.credentials.is_empty() {
        draft.note("there is no password and there are no keys: set a password before anybody can log in");
    } else if !scram::complete(&draft.account) {
        draft.note(
            "there are keys for some of the mechanisms only: clients that insist on another can log in once PLAIN was used \
             or a password was set",
        );
    }
    for item in std::mem::take(&mut draft.contacts).into_values() {
        let size = item.pending_in.as_ref().map_or(0, bytes::Bytes::len)
            + item.groups.iter().map(String::len).sum::<usize>();
        draft.write(Write::Contact(item), size).await?;
    }
    let now = draft.store.seams().clock.now_micros();
    for jid in std::mem::take(&mut draft.blocked) {
        let mut ops = Ops::new();
        blocks::add(&mut ops, &draft.entity, &jid, now);
        draft.write(Write::Ops(ops), jid.len()).await?;
    }
    if let Some(prefs) = draft.prefs.take() {
        let mut ops = Ops::new();
        mam_prefs::put(&mut ops, &draft.entity, &prefs)?;
        draft.write(Write::Ops(ops), (prefs.always.len() + prefs.never.len()) * 64).await?;
    }
    draft.flush().await?;
    if draft.waiting {
        reconcile(draft).await?;
    }
    Ok(if draft.create().await? { Outcome::Added } else { Outcome::Exists })
}

async fn made(password: JoinHandle<Result<Credentials, keys::Error>>) -> Result<Credentials, String> {
    match password.await {
        Ok(made) => made.map_err(|error| error.to_string()),
        Err(_) => Err("no keys could be made of the password".to_owned()),
    }
}

/// A message that waits and is in the archive too is not kept twice: the cursor into the archive stands for it, as if it
/// had come while nobody was here.
async fn reconcile(draft: &Draft) -> store::Result<()> {
    let (store, user) = (&draft.store, &draft.entity);
    let mut cursor: Option<ArchiveId> = None;
    let mut query = Query::all(PAGE);
    loop {
        let slice = page(store, Collection::Queue, user, &query).await?;
        let mut ops = Ops::new();
        for (id, waiting) in &slice.entries {
            if let Some(archived) = same(draft, *id, waiting).await? {
                archive::remove(&mut ops, Collection::Queue, user, *id);
                cursor = Some(cursor.map_or(archived, |cursor| cursor.min(archived)));
            }
        }
        if let (false, Some(cursor)) = (ops.is_empty(), cursor) {
            offline::set(&mut ops, user, offline::Cursor::at(cursor.before()));
            let ops = &ops;
            store
                .write(store::Options::default(), |tx| {
                    Box::pin(async move {
                        ops.iter().for_each(|op| op.apply(&mut **tx));
                        Ok(())
                    })
                })
                .await?;
        }
        if slice.end == End::Complete {
            return Ok(());
        }
        query = query.onwards(slice.cursor);
    }
}

/// The archived message that is this one, of the same moment.
async fn same(draft: &Draft, id: ArchiveId, waiting: &Entry) -> store::Result<Option<ArchiveId>> {
    let with = With::Bare(waiting.with.clone());
    let query = Query { start: Some(id.micros), end: Some(id.micros), with, ..Query::all(PAGE) };
    let slice = page(&draft.store, Collection::Archive, &draft.entity, &query).await?;
    Ok(slice.entries.iter().find(|(_, entry)| entry.stanza == waiting.stanza).map(|(id, _)| *id))
}
