//! Reading the document: which part belongs to which account. What an account's parts mean is in the files named for them.

use std::collections::HashSet;
use std::sync::Arc;

use rookery_cluster::entity::Entity;
use rookery_cluster::store::{self, Store};
use rookery_cluster::tables::archive::IdCipher;
use rookery_cluster::tables::secrets;
use rookery_proto::sasl::Credentials;
use rookery_proto::xmpp::element::Element;
use rookery_proto::xmpp::jid::BareJid;
use rookery_proto::xmpp::ns;
use tokio::task::JoinSet;

use super::document::{Broken, Document, Event, Frame};
use super::draft::{Begun, Draft};
use super::finish::{Ending, Outcome, finish};
use super::messages::{self, Message};
use super::report::{Ignored, Report, told};
use super::{Error, account, blocks, prefs, roster, scram};
use crate::host::options::Options;

/// XInclude 1.0, which may split a document over files (XEP-0227 section 5).
const XINCLUDE: &str = "http://www.w3.org/2001/XInclude";

/// Is told of each account that was made, when it is there: a running node may have an actor that believes that there is
/// none.
pub type Added = Arc<dyn Fn(BareJid) + Send + Sync>;

/// The elements that are entered.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Place {
    Data,
    Host,
    User,
    Roster,
    Private,
    Offline,
    Archive,
    Result,
    Forwarded,
}

fn classify(within: Option<Place>, head: &Element) -> Option<Place> {
    match (within, head.name(), head.ns()) {
        (None, "server-data", ns::PIE) => Some(Place::Data),
        // A file of a document that was split.
        (None | Some(Place::Data), "host", ns::PIE) => Some(Place::Host),
        (Some(Place::Host), "user", ns::PIE) => Some(Place::User),
        (Some(Place::User), "query", ns::ROSTER) => Some(Place::Roster),
        (Some(Place::User), "query", ns::PRIVATE) => Some(Place::Private),
        (Some(Place::User), "offline-messages", ns::PIE) => Some(Place::Offline),
        (Some(Place::User), "archive", ns::PIE_MAM) => Some(Place::Archive),
        (Some(Place::Archive), "result", ns::MAM) => Some(Place::Result),
        (Some(Place::Result), "forwarded", ns::FORWARD) => Some(Place::Forwarded),
        _ => None,
    }
}

/// A `<result/>` of an archive, as far as it was read.
#[derive(Default)]
struct Archived {
    id: String,
    stamp: Option<u64>,
    message: Option<Message>,
}

/// Takes a document in pieces and makes the accounts that are in it. Accounts that exist are left as they are, so a
/// document can be imported again.
///
/// Call [`Importer::push`] for each piece, then [`Importer::finish`]; or [`Importer::abort`] if the pieces end before the
/// document does. [`Importer::report`] tells at any time how far it is. An importer that is dropped leaves the account
/// that it was at reserved and unfinished; the next import of that account begins it again.
pub struct Importer {
    store: Store,
    options: Arc<Options>,
    added: Option<Added>,
    ids: IdCipher,
    document: Document<Place>,
    /// The host whose users come, if it is served here.
    host: Option<BareJid>,
    draft: Option<Draft>,
    archived: Option<Archived>,
    /// Accounts that are being finished.
    endings: JoinSet<Ending>,
    ending: HashSet<Entity>,
    report: Report,
    ignored: Ignored,
    failure: Option<store::Error>,
    broken: bool,
}

impl Importer {
    /// An importer into `store`. Of the options it needs the domains, the limits, and the rounds of PBKDF2.
    ///
    /// # Errors
    /// [`Error::Store`]
    pub async fn start(store: &Store, options: Arc<Options>, added: Option<Added>) -> Result<Self, Error> {
        let random = &*store.seams().random.clone();
        let key: secrets::Secret<16> = store
            .write(store::Options::default(), |tx| {
                Box::pin(async move { secrets::get_or_make(&mut **tx, secrets::ARCHIVE_KEY, random).await })
            })
            .await?;
        Ok(Self {
            store: store.clone(),
            options,
            added,
            ids: IdCipher::new(key.expose()),
            document: Document::new(classify),
            host: None,
            draft: None,
            archived: None,
            endings: JoinSet::new(),
            ending: HashSet::new(),
            report: Report::default(),
            ignored: Ignored::default(),
            failure: None,
            broken: false,
        })
    }

    /// What was done so far. Accounts count when they are durable.
    pub fn report(&self) -> &Report {
        &self.report
    }

    /// Takes the next piece, of any size.
    ///
    /// # Errors
    /// [`Error::Document`] and [`Error::Store`]: the import is over; accounts before the trouble stay.
    pub async fn push(&mut self, piece: &[u8]) -> Result<(), Error> {
        self.document.push(piece);
        let outcome = self.read().await;
        if outcome.is_err() {
            self.abort().await;
        }
        outcome
    }

    /// There are no more pieces: waits until all accounts are made.
    ///
    /// # Errors
    /// [`Error::Document`] if the document is not complete; [`Error::Store`].
    pub async fn finish(&mut self) -> Result<(), Error> {
        let complete = self.document.end();
        self.abort().await;
        complete?;
        self.failure.take().map_or(Ok(()), |error| Err(error.into()))
    }

    /// There will be no more pieces although the document is not over: takes back the account that is half read, and waits
    /// for those that were read.
    pub async fn abort(&mut self) {
        self.broken = true;
        if let Some(draft) = self.draft.take()
            && let Err(error) = draft.forget().await
        {
            tracing::warn!(user = %draft.jid, %error, "a partly imported account could not be rolled back; the account name stays reserved until the account is imported again");
        }
        while let Some(ended) = self.endings.join_next().await {
            self.ended(ended.ok());
        }
        std::mem::take(&mut self.ignored).tell(&mut self.report);
    }

    async fn read(&mut self) -> Result<(), Error> {
        if self.broken {
            return Err(Broken { line: self.document.line(), reason: "the import is over".to_owned() }.into());
        }
        while let Some(event) = self.document.next()? {
            match event {
                Event::Enter(place, head) => self.enter(place, &head).await?,
                Event::Whole(place, frame) => self.whole(place, &frame).await?,
                Event::Leave(place) => self.leave(place).await?,
            }
            if let Some(error) = self.failure.take() {
                return Err(error.into());
            }
        }
        Ok(())
    }

    async fn enter(&mut self, place: Place, head: &Element) -> Result<(), Error> {
        match place {
            Place::Host => self.enter_host(head),
            Place::User => self.enter_user(head).await?,
            Place::Result => {
                let id = head.attr("id").unwrap_or_default().to_owned();
                self.archived = Some(Archived { id, ..Archived::default() });
            }
            _ => {}
        }
        Ok(())
    }

    fn enter_host(&mut self, head: &Element) {
        let name = head.attr("jid").unwrap_or_default();
        let host = BareJid::parse(name).ok().filter(|jid| jid.local().is_none());
        self.host = host.filter(|jid| self.options.domain(jid.as_str()).is_some());
        if self.host.is_none() {
            let shown: String = name.chars().take(255).collect();
            self.report.remark(
                self.document.line(),
                &shown,
                "this domain is not served here, so its users were not imported",
            );
        }
    }

    async fn enter_user(&mut self, head: &Element) -> Result<(), Error> {
        let Some(host) = &self.host else {
            self.report.failed += 1;
            return Ok(());
        };
        let line = self.document.line();
        let jid = BareJid::new(head.attr("name").filter(|name| !name.is_empty()), host.as_str());
        let Some(jid) = jid.ok().filter(|jid| jid.local().is_some()) else {
            let host = host.as_str().to_owned();
            self.fail(line, &host, "a user whose name is no part of a JID was not imported");
            return Ok(());
        };
        let entity = Entity::new(jid.as_str());
        while self.ending.contains(&entity) {
            let ended = self.endings.join_next().await;
            self.ended(ended.and_then(Result::ok));
        }
        let draft = Draft::new(self.store.clone(), jid, line, self.options.limits.clone(), self.ids.clone());
        match draft.begin().await? {
            Begun::Yes => self.draft = Some(draft),
            Begun::Exists => self.report.skipped += 1,
            Begun::Reserved => self.fail(line, draft.jid.as_str(), "the name is reserved"),
        }
        if let (Some(draft), Some(password)) = (&mut self.draft, head.attr("password")) {
            let (password, seed) = (password.to_owned(), self.store.seams().bytes());
            let iterations = self.options.iterations;
            // Milliseconds of work, done while the rest of the account is read.
            let made = tokio::task::spawn_blocking(move || Credentials::derive(&password, &seed, iterations));
            draft.password = Some(made);
        }
        Ok(())
    }

    fn fail(&mut self, line: u64, subject: &str, reason: impl Into<String>) {
        self.report.failed += 1;
        self.report.remark(line, subject, reason);
    }

    async fn leave(&mut self, place: Place) -> Result<(), Error> {
        match place {
            Place::Host => self.host = None,
            Place::Result => {
                let archived = self.archived.take().unwrap_or_default();
                if let Some(draft) = &mut self.draft {
                    match (archived.message, archived.stamp) {
                        (Some(message), Some(stamp)) => draft.archived(message, &archived.id, stamp).await?,
                        _ => draft
                            .note("an archived message without a time, or that can't be read, was left out"),
                    }
                }
            }
            Place::User => {
                if let Some(draft) = self.draft.take() {
                    self.ending.insert(draft.entity.clone());
                    self.endings.spawn(finish(draft));
                }
                // As many as there are cores keep all of them busy with keys; one more writes.
                let most = std::thread::available_parallelism().map_or(1, std::num::NonZero::get) + 1;
                while self.endings.len() > most {
                    let ended = self.endings.join_next().await;
                    self.ended(ended.and_then(Result::ok));
                }
                while let Some(ended) = self.endings.try_join_next() {
                    self.ended(ended.ok());
                }
            }
            _ => {}
        }
        Ok(())
    }

    /// Counts an account that is finished. None: its task panicked, which is a fault of ours.
    fn ended(&mut self, ending: Option<Ending>) {
        let Some(Ending { line, jid, outcome, notes }) = ending else {
            self.report.failed += 1;
            self.ending.clear();
            return;
        };
        self.ending.remove(&Entity::new(jid.as_str()));
        match outcome {
            Ok(Outcome::Added) => {
                self.report.added += 1;
                for (what, times) in notes {
                    self.report.remark(line, jid.as_str(), told(what, times));
                }
                if let Some(added) = &self.added {
                    added(jid);
                }
            }
            Ok(Outcome::Exists) => self.report.skipped += 1,
            Ok(Outcome::Failed(reason)) => self.fail(line, jid.as_str(), reason),
            Err(error) => {
                self.fail(line, jid.as_str(), error.to_string());
                self.failure.get_or_insert(error);
            }
        }
    }

    async fn whole(&mut self, place: Place, frame: &Frame) -> Result<(), Error> {
        let (name, space) = (frame.head.name(), frame.head.ns());
        if space == XINCLUDE && matches!(place, Place::Data | Place::Host | Place::User) {
            frame.check()?;
            let line = frame.line;
            self.report.remark(
                line,
                "",
                "a part in another file was not read: join the files first, for instance with xmllint --xinclude",
            );
            return Ok(());
        }
        let Some(draft) = &mut self.draft else {
            frame.check()?;
            if matches!(place, Place::Data | Place::Host) {
                self.ignored.count(name, space);
            }
            return Ok(());
        };
        match (place, name, space) {
            (Place::User, "scram-credentials", ns::PIE_SCRAM) => match scram::read(&frame.element()?) {
                Ok(keys) if draft.account.keys(keys.hash()).is_none() => draft.account.credentials.push(keys),
                Ok(_) => draft.note("keys for a mechanism that has some already were left out"),
                Err(what) => draft.note(what),
            },
            (Place::User, "account", account::NS) => account::read(&frame.element()?, &mut draft.account),
            (Place::User, "presence", ns::CLIENT) => {
                frame.check()?;
                match roster::read_request(frame, &draft.jid) {
                    Some((from, stanza)) => draft.request(&from, &stanza),
                    None => draft.note("a presence that is no subscription request was left out"),
                }
            }
            (Place::User, "vCard", ns::VCARD) => draft.vcard(&frame.element()?).await?,
            (Place::User, "query", blocks::PRIVACY) | (Place::User, "blocklist", ns::BLOCKING) => {
                let blocked = blocks::read(&frame.element()?);
                if blocked.other {
                    draft.note("rules of privacy lists that a block list can't say were left out");
                }
                draft.block(blocked.jids);
            }
            (Place::User, "prefs", ns::MAM_PREFS) => draft.prefs = Some(prefs::read(&frame.element()?)),
            (Place::Roster, "item", ns::ROSTER) => {
                match roster::read(&frame.element()?, &draft.jid, self.options.limits.roster_groups) {
                    Ok(item) => draft.contact(item),
                    Err(what) => draft.note(what),
                }
            }
            (Place::Private, ..) => draft.private(&frame.element()?).await?,
            (Place::Offline, "message", ns::CLIENT) => {
                frame.check()?;
                match messages::read(frame, &draft.jid) {
                    Some(message) => draft.waits(message).await?,
                    None => draft.note("an offline message that can't be read was left out"),
                }
            }
            (Place::Forwarded, "delay", ns::DELAY) => {
                let stamp = messages::stamp_of(&frame.element()?);
                self.archived.get_or_insert_default().stamp = stamp;
            }
            (Place::Forwarded, "message", ns::CLIENT) => {
                frame.check()?;
                self.archived.get_or_insert_default().message = messages::read(frame, &draft.jid);
            }
            _ => {
                frame.check()?;
                self.ignored.count(name, space);
            }
        }
        Ok(())
    }
}

impl From<Broken> for Error {
    fn from(Broken { line, reason }: Broken) -> Self {
        Self::Document { line, reason }
    }
}
