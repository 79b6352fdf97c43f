//! Writing the document.

use bytes::Bytes;
use rookery_cluster::entity::Entity;
use rookery_cluster::store::{self, Store, Transaction};
use rookery_cluster::tables::accounts::{self, Account};
use rookery_cluster::tables::archive::{Collection, IdCipher};
use rookery_cluster::tables::{blocks, mam_prefs, offline, private, roster as contacts, secrets, vcard};
use rookery_proto::xml::{Writer, escape};
use rookery_proto::xmpp::element::Element;
use rookery_proto::xmpp::jid::BareJid;
use rookery_proto::xmpp::ns;
use tokio::sync::mpsc;

use super::pages::{Waiting, Walk};
use super::{CHUNK, Error, Target, account, blocks as blocklist, messages, prefs, roster, scram};

/// Rows of one kind that are read of one user: far above every limit that an operator would set.
const ROWS: usize = 20_000;

/// Accounts per page of a host.
const ACCOUNTS: usize = 200;

/// Nobody takes the document any more.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("the reader of the export is gone")]
pub struct Gone;

/// Takes the pieces of a document, in order.
pub trait Sink: Send {
    /// Takes a piece of at most [`CHUNK`] bytes; waits while there is no room.
    ///
    /// # Errors
    /// [`Gone`] if there is no point in going on.
    fn send(&mut self, piece: Bytes) -> impl Future<Output = Result<(), Gone>> + Send;
}

impl Sink for Vec<u8> {
    async fn send(&mut self, piece: Bytes) -> Result<(), Gone> {
        self.extend_from_slice(&piece);
        Ok(())
    }
}

impl<E: Send> Sink for mpsc::Sender<Result<Bytes, E>> {
    async fn send(&mut self, piece: Bytes) -> Result<(), Gone> {
        Self::send(self, Ok(piece)).await.map_err(|_| Gone)
    }
}

/// Writes the document of one account or of a host, and returns how many accounts are in it. Each account is read at
/// several moments; only its archive can change meanwhile without the document being a state that was.
///
/// # Errors
/// [`Error::NotFound`] for an account that is not there, before anything is sent; a host without accounts is an empty
/// host. [`Error::Gone`] and [`Error::Store`]: the document is then not whole.
pub async fn export(store: &Store, target: &Target, out: &mut impl Sink) -> Result<u64, Error> {
    let random = &*store.seams().random.clone();
    let key: secrets::Secret<16> = store
        .write(store::Options::default(), |tx| {
            Box::pin(async move { secrets::get_or_make(&mut **tx, secrets::ARCHIVE_KEY, random).await })
        })
        .await?;
    let mut export = Export { store, out, buf: Vec::new(), ids: IdCipher::new(key.expose()), accounts: 0 };
    export.run(target).await?;
    Ok(export.accounts)
}

struct Export<'a, S> {
    store: &'a Store,
    out: &'a mut S,
    buf: Vec<u8>,
    ids: IdCipher,
    accounts: u64,
}

/// Everything about a user but the archive.
struct Parts {
    account: Account,
    roster: Vec<contacts::Item>,
    vcard: Option<Bytes>,
    private: Vec<private::Element>,
    blocked: Vec<String>,
    prefs: Option<mam_prefs::Preferences>,
    offline: Option<offline::Cursor>,
}

async fn read(tx: &mut dyn Transaction, user: &Entity) -> store::Result<Option<Parts>> {
    let Some(account) = accounts::get(tx, user).await? else { return Ok(None) };
    Ok(Some(Parts {
        account,
        roster: contacts::load(tx, user, ROWS).await?.rows,
        vcard: vcard::get(tx, user).await?,
        private: private::load(tx, user, ROWS).await?.rows,
        blocked: blocks::load(tx, user, ROWS).await?.rows,
        prefs: mam_prefs::get(tx, user).await?,
        offline: offline::get(tx, user).await?,
    }))
}

impl<S: Sink> Export<'_, S> {
    async fn run(&mut self, target: &Target) -> Result<(), Error> {
        let domain = match target {
            Target::Host(domain) => domain.as_str(),
            Target::User(user) => user.domain(),
        };
        self.raw("<?xml version='1.0' encoding='UTF-8'?>\n<server-data xmlns='urn:xmpp:pie:0'>\n<host jid='");
        escape::attribute(&mut self.buf, domain);
        self.raw("'>\n");
        match target {
            Target::User(user) => {
                if !self.user(&Entity::new(user.as_str())).await? {
                    return Err(Error::NotFound);
                }
            }
            Target::Host(_) => self.host(domain).await?,
        }
        self.raw("</host>\n</server-data>\n");
        self.flush(0).await
    }

    async fn host(&mut self, domain: &str) -> Result<(), Error> {
        let mut after: Option<String> = None;
        loop {
            let from = after.as_deref();
            let page = self
                .store
                .read(|tx| Box::pin(async move { accounts::list(&mut **tx, domain, from, ACCOUNTS).await }))
                .await?;
            for listed in &page.rows {
                self.user(&listed.user).await?;
            }
            match page.rows.last() {
                Some(last) if page.more => after = Some(last.name.clone()),
                _ => return Ok(()),
            }
        }
    }

    /// Whether there was such an account.
    async fn user(&mut self, entity: &Entity) -> Result<bool, Error> {
        let Ok(jid) = BareJid::parse(entity.as_str()) else { return Ok(false) };
        let parts = self.store.read(|tx| Box::pin(async move { read(&mut **tx, entity).await })).await?;
        let (Some(parts), Some(name)) = (parts, jid.local()) else { return Ok(false) };
        self.accounts += 1;
        self.raw("<user name='");
        escape::attribute(&mut self.buf, name);
        self.raw("'>\n");
        self.parts(&parts);
        self.flush(CHUNK).await?;

        self.raw("<archive xmlns='urn:xmpp:pie:0#mam'>\n");
        let mut archive = Walk::new(self.store, Collection::Archive, entity, None);
        while let Some((id, entry)) = archive.next().await? {
            messages::write_archived(&mut self.buf, &self.ids, id, &entry);
            self.flush(CHUNK).await?;
        }
        self.raw("</archive>\n<offline-messages>\n");
        let mut waiting = Waiting::new(self.store, entity, parts.offline);
        while let Some((id, stanza)) = waiting.next().await? {
            messages::write_waiting(&mut self.buf, &jid, id, &stanza);
            self.flush(CHUNK).await?;
        }
        self.raw("</offline-messages>\n</user>\n");
        Ok(true)
    }

    fn parts(&mut self, parts: &Parts) {
        self.part(|w| account::write(w, &parts.account));
        self.part(|w| scram::write(w, &parts.account));
        self.part(|w| roster::write(w, &parts.roster));
        for request in roster::requests(&parts.roster) {
            request.write_in(&mut self.buf, ns::CLIENT);
            self.buf.push(b'\n');
        }
        // What clients wrote is parsed and written again: a damaged row must not damage the document.
        if let Some(card) = parts.vcard.as_deref().and_then(|card| Element::parse(card).ok()) {
            self.part(|w| card.write_to(w));
        }
        let private: Vec<Element> =
            parts.private.iter().filter_map(|row| Element::parse(&row.xml).ok()).collect();
        if !private.is_empty() {
            self.part(|w| {
                w.start("query", ns::PRIVATE);
                private.iter().for_each(|element| element.write_to(w));
                w.end();
            });
        }
        self.part(|w| blocklist::write(w, &parts.blocked));
        if let Some(preferences) = &parts.prefs {
            self.part(|w| prefs::write(w, preferences));
        }
    }

    /// A part of a user, with a line to itself if it is not empty.
    fn part(&mut self, write: impl FnOnce(&mut Writer<'_>)) {
        let before = self.buf.len();
        let mut w = Writer::inside(&mut self.buf, ns::PIE);
        write(&mut w);
        w.finish();
        if self.buf.len() > before {
            self.buf.push(b'\n');
        }
    }

    fn raw(&mut self, text: &str) {
        self.buf.extend_from_slice(text.as_bytes());
    }

    /// Sends what there is if it is more than `threshold` bytes.
    async fn flush(&mut self, threshold: usize) -> Result<(), Error> {
        if self.buf.len() <= threshold {
            return Ok(());
        }
        let mut all = Bytes::from(std::mem::take(&mut self.buf));
        while !all.is_empty() {
            let piece = all.split_to(all.len().min(CHUNK));
            self.out.send(piece).await.map_err(|Gone| Error::Gone)?;
        }
        Ok(())
    }
}
