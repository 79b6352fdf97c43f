//! XEP-0424 Message Retraction, version 0.4.2, in one-to-one chats. A retraction is a message like any other: it is archived,
//! copied, and waits for a user who is offline. In the transaction that stores it, on the sender's side and on the recipient's, the
//! message that it names becomes a tombstone ("Tombstones"), so no archive query shows its contents any more; a device that has
//! not got the message yet gets the tombstone or nothing, and then the retraction.
//!
//! - Which message: the newest with that `id` attribute ("Using the correct ID"), in the same conversation, in the same direction: so
//!   it is from the bare JID that retracts it ("Business Rules").
//! - How it is found: by reading back in the archive, at most [`ROWS`] × [`ROUNDS`] rows, whatever conversation they belong to. An
//!   index by id would be one more row for every message that is ever sent, for the few that are retracted. A row is up to 10 kB of
//!   one message; most messages are one row.
//! - What that costs is bounded: a node looks for two messages at a time, for [`PATIENCE`] each, for [`PER_HOUR`] retractions by one
//!   JID, and for no more than a few of one user at a time: what comes behind one waits for it.
//! - A tombstone is what an archive may do, not what it must. There is none if the message is not found in time, if an id is longer than
//!   [`ID`], if the retraction has no id, which the tombstone must name, or if the retraction is stored nowhere.
//! - A retraction is never retracted: it must stay. Private messages of rooms are left alone: their bare JID is the room's, and does
//!   not name the speaker.
//! - A retraction that the recipient's side refuses leaves the sender's archive again; the tombstone there stays.

use std::sync::Arc;
use std::time::Duration;

use rookery_cluster::store::{self, Edit, Store};
use rookery_cluster::tables::archive::{self, ArchiveId, End, Entry, Query, With};
use rookery_proto::xml::write;
use rookery_proto::xmpp::stanza::{MessageType, Stanza, Type};
use rookery_proto::xmpp::{datetime, ns};
use tokio::sync::Semaphore;
use tokio::time::timeout;

use crate::features::contract::{
    Direction, Feature, MessageHook, Passing, Payload, Phase, Place, Prepare, Scope, Verdict, Xep,
};
use crate::features::hourly::Hourly;
use crate::routing::stored;
use crate::user::User;

/// XEP-0424.
pub const RETRACTION: Feature = Feature {
    xep: Xep {
        number: 424,
        version: "0.4.2",
        name: "Message Retraction",
        note: "one-to-one chats; tombstones in both archives, for messages among the newest 5,000 there, and 120 an hour by one contact",
    },
    disco: &[(Scope::Host, RETRACT), (Scope::Account, RETRACT), (Scope::Account, TOMBSTONE)],
    messages: &[MessageHook { phase: Phase::Archive, run: hook }],
    payloads: &[Payload { name: "retract", ns: RETRACT, archived: true, copied: true, waits: true }],
    ..Feature::NONE
};

/// The server archives retractions ("Discovering support").
const RETRACT: &str = "urn:xmpp:message-retract:1";
/// The archive has tombstones ("Tombstones").
const TOMBSTONE: &str = "urn:xmpp:message-retract:1#tombstone";

/// The longest id that is looked for or written into a tombstone, bytes. Clients make ids of some forty.
const ID: usize = 1_024;
/// Rows that one transaction reads back.
const ROWS: usize = 500;
/// How many such transactions look for one message.
const ROUNDS: usize = 10;
/// How long that may take in all.
const PATIENCE: Duration = Duration::from_secs(1);
/// How many messages a node looks for at a time.
static LOOKING: Semaphore = Semaphore::const_new(2);
/// Retractions by one bare JID, or to it, that are looked at in an hour.
const PER_HOUR: u32 = 120;

/// How many retractions each JID has sent or got lately.
#[derive(Default)]
struct Retractions(Hourly);

/// A retraction on its way through one of the two sides.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Retraction {
    /// The id of the message that is retracted.
    original: String,
    /// The retraction's own id.
    id: String,
    /// The other side's bare JID.
    with: String,
    /// Which way the retraction goes; the message went the same way.
    direction: archive::Direction,
    /// When it came, microseconds since 1970.
    at: u64,
}

fn hook(user: &User, passing: &mut Passing) -> Verdict {
    if let Some(retraction) = Retraction::of(passing, || user.host().seams().clock.now_micros())
        && user.may_prepare()
        && user.host().state::<Retractions>().0.admit(&passing.with, retraction.at, PER_HOUR)
    {
        let retraction = Arc::new(retraction);
        passing
            .prepare
            .push(Prepare::new(move |store, place| Box::pin(prepare(store, place, retraction.clone()))));
    }
    Verdict::Pass
}

/// Finds the message; the edit makes it a tombstone.
async fn prepare(store: Store, place: Place, retraction: Arc<Retraction>) -> store::Result<Vec<Edit>> {
    let found = async {
        let _turn = LOOKING.acquire().await.ok()?;
        find(&store, &place, &retraction).await.ok().flatten()
    };
    // A message that cannot be found in time stays as it is; the retraction is a message like any other.
    let Ok(Some(id)) = timeout(PATIENCE, found).await else { return Ok(Vec::new()) };
    let edit = Edit::new(move |tx| {
        let (place, retraction) = (place.clone(), retraction.clone());
        Box::pin(async move {
            let change = |entry| retraction.tombstone(entry);
            archive::edit(tx, place.collection, &place.owner, id, change).await.map(|_| ())
        })
    });
    Ok(vec![edit])
}

async fn find(store: &Store, place: &Place, retraction: &Retraction) -> store::Result<Option<ArchiveId>> {
    let mut query = Query {
        with: With::Bare(retraction.with.clone()),
        backwards: true,
        max_rows: ROWS,
        ..Query::all(ROWS)
    };
    for _ in 0..ROUNDS {
        let ask = &query;
        let slice = store.read(|tx| {
            Box::pin(async move { archive::page(&mut **tx, place.collection, &place.owner, ask).await })
        });
        let slice = slice.await?;
        if let Some((id, _)) = slice.entries.iter().find(|(_, entry)| retraction.means(entry).is_some()) {
            return Ok(Some(*id));
        }
        if slice.end == End::Complete {
            break;
        }
        query = query.onwards(slice.cursor);
    }
    Ok(None)
}

/// A private message of a room (XEP-0045 section 7.5).
fn is_of_a_room(stanza: &Stanza) -> bool {
    stanza.has("x", ns::MUC_USER)
}

impl Retraction {
    /// What a message retracts, if it is a retraction that can leave a tombstone.
    fn of(passing: &Passing, now: impl FnOnce() -> u64) -> Option<Self> {
        let stanza = &passing.stanza;
        let original = stanza.child("retract", RETRACT)?.attr("id")?;
        let id = stanza.id.as_deref()?;
        let one_to_one = matches!(stanza.type_, Type::Message(MessageType::Chat | MessageType::Normal));
        let fits = |id: &str| !id.is_empty() && id.len() <= ID;
        if !one_to_one || is_of_a_room(stanza) || !fits(&original) || !fits(id) {
            return None;
        }
        Some(Self {
            original: original.into_owned(),
            id: id.to_owned(),
            with: passing.with.as_str().to_owned(),
            direction: match passing.direction {
                Direction::In => archive::Direction::In,
                Direction::Out => archive::Direction::Out,
            },
            at: now(),
        })
    }

    /// The stanza of an entry, if it is the message that is retracted, or was.
    fn means(&self, entry: &Entry) -> Option<Stanza> {
        if entry.direction() != self.direction || entry.with != self.with {
            return None;
        }
        let stanza = stored::stanza(&entry.stanza)?;
        let its = stanza.id.as_deref() == Some(self.original.as_str());
        (its && !stanza.has("retract", RETRACT) && !is_of_a_room(&stanza)).then_some(stanza)
    }

    /// What stays of a message; nothing if it is a tombstone already: the first retraction counts.
    fn tombstone(&self, entry: Entry) -> Option<Entry> {
        let stanza = self.means(&entry)?;
        let mut children = stanza.children();
        if let (Some(only), None) = (children.next(), children.next())
            && only.is("retracted", RETRACT)
        {
            return None;
        }
        let payload = write::bytes(|w| {
            w.start("retracted", RETRACT).attr("id", &self.id).attr("stamp", &datetime::format(self.at));
        });
        let mut tombstone = stanza.header().payload(payload);
        tombstone.lang = None;
        let mut stored = Vec::new();
        tombstone.write(&mut stored);
        Some(Entry { stanza: stored.into(), ..entry })
    }
}

#[cfg(test)]
mod tests {
    use rookery_proto::xmpp::jid::{BareJid, Jid};

    use super::*;
    use crate::features::testing::{Scene, Session};
    use crate::host::options::Archive;

    fn message(type_: MessageType, id: &str, payload: &str) -> Stanza {
        let from = Jid::parse("romeo@localhost/orchard").unwrap();
        let to = Jid::parse("juliet@localhost").unwrap();
        Stanza::new(type_).from(from).to(to).id(id).payload(payload.as_bytes().to_vec())
    }

    fn retracts(id: &str) -> String {
        format!("<retract xmlns='urn:xmpp:message-retract:1' id='{id}'/>")
    }

    fn read(stanza: Stanza) -> Option<Retraction> {
        let with = BareJid::parse("romeo@localhost").unwrap();
        Retraction::of(&Passing::new(stanza, Direction::In, with), || 1_700_000_000_000_000)
    }

    fn entry(stanza: &Stanza) -> Entry {
        Entry {
            with: "romeo@localhost".into(),
            direction: archive::Direction::In.into(),
            stanza: stanza.to_bytes().into(),
            flags: 3,
            stored_at: 7,
            ..Entry::default()
        }
    }

    #[test]
    fn what_is_a_retraction() {
        let chat = |id: &str, payload: &str| message(MessageType::Chat, id, payload);
        let read_one = read(chat("r", &retracts("m"))).unwrap();
        assert_eq!((read_one.original.as_str(), read_one.id.as_str()), ("m", "r"));
        assert!(read(message(MessageType::Normal, "r", &retracts("m"))).is_some());
        let long = "x".repeat(ID);
        assert!(read(chat(&long, &retracts(&long))).is_some());
        let room = "<x xmlns='http://jabber.org/protocol/muc#user'/>";
        for (id, payload) in [
            ("r", retracts("")),
            ("", retracts("m")),
            ("r", retracts(&format!("{long}x"))),
            (&format!("{long}x"), retracts("m")),
            ("r", "<retract xmlns='urn:xmpp:message-retract:1'/>".into()),
            ("r", "<retract xmlns='urn:xmpp:message-retract:0' id='m'/>".into()),
            ("r", format!("{}{room}", retracts("m"))),
        ] {
            assert_eq!(read(chat(id, &payload)), None, "{} {}", id.len(), payload.len());
        }
        for type_ in [MessageType::Groupchat, MessageType::Error, MessageType::Headline] {
            assert_eq!(read(message(type_, "r", &retracts("m"))), None);
        }
        let mut nameless = chat("r", &retracts("m"));
        nameless.id = None;
        assert_eq!(read(nameless), None, "a tombstone must name its retraction");
    }

    #[test]
    fn a_tombstone_looks_as_the_specification_shows() {
        let retraction = read(message(MessageType::Chat, "r&1", &retracts("m"))).unwrap();
        let said = message(MessageType::Chat, "m", "<body>hi</body><thread>t</thread>").lang("en");
        let entry = entry(&said);
        let tombstone = retraction.tombstone(entry.clone()).unwrap();
        assert_eq!(
            String::from_utf8(tombstone.stanza.to_vec()).unwrap(),
            "<message from='romeo@localhost/orchard' to='juliet@localhost' id='m' type='chat'>\
             <retracted xmlns='urn:xmpp:message-retract:1' id='r&amp;1' stamp='2023-11-14T22:13:20Z'/></message>"
        );
        assert_eq!(Entry { stanza: entry.stanza.clone(), ..tombstone.clone() }, entry, "the rest stays");
        assert_eq!(retraction.tombstone(tombstone), None, "the first retraction counts");
    }

    #[test]
    fn which_message_is_meant() {
        let retraction = read(message(MessageType::Chat, "r", &retracts("m"))).unwrap();
        let said = entry(&message(MessageType::Chat, "m", "<body>hi</body>"));
        let own = archive::Direction::Out.into();
        assert!(retraction.tombstone(said.clone()).is_some());
        for other in [
            Entry { with: "nurse@localhost".into(), ..said.clone() },
            Entry { direction: own, ..said },
            entry(&message(MessageType::Chat, "M", "<body>hi</body>")),
            entry(&message(MessageType::Chat, "m", &retracts("x"))),
            entry(&message(
                MessageType::Chat,
                "m",
                "<body>hi</body><x xmlns='http://jabber.org/protocol/muc#user'/>",
            )),
            Entry { stanza: bytes::Bytes::new(), ..entry(&message(MessageType::Chat, "m", "")) },
        ] {
            assert_eq!(retraction.tombstone(other.clone()), None, "{other:?}");
        }
    }

    /// What an archive query finds.
    async fn archived(session: &mut Session) -> Vec<String> {
        session.send("<iq type='set' id='q'><query xmlns='urn:xmpp:mam:2'/></iq>");
        let mut found = Vec::new();
        loop {
            let next = session.next().await;
            if next.contains("<fin") {
                return found;
            }
            found.push(next);
        }
    }

    #[tokio::test]
    async fn both_archives_have_a_tombstone() {
        let scene = Scene::with(&["romeo", "juliet"], |options| options.archive = Archive::Always).await;
        let mut romeo = scene.session("romeo/orchard").await;
        let mut juliet = scene.session("juliet/balcony").await;
        juliet.available("").await;
        for (id, payload) in
            [("m", "<body>wrong</body>".into()), ("n", "<body>right</body>".into()), ("r", retracts("m"))]
        {
            romeo.send(&format!("<message to='juliet@localhost' type='chat' id='{id}'>{payload}</message>"));
            assert!(juliet.next().await.contains(&format!("id='{id}'")));
        }
        for session in [&mut romeo, &mut juliet] {
            let found = archived(session).await;
            let [tombstone, other, retraction] = found.as_slice() else { panic!("{found:?}") };
            assert!(tombstone.contains("id='m'") && !tombstone.contains("wrong"), "{tombstone}");
            assert!(
                tombstone.contains("<retracted xmlns='urn:xmpp:message-retract:1' id='r' stamp='"),
                "{tombstone}"
            );
            assert!(other.contains("right") && retraction.contains(&retracts("m")), "{found:?}");
        }
    }

    #[tokio::test]
    async fn it_is_advertised() {
        let scene = Scene::new(&["romeo"]).await;
        let mut romeo = scene.session("romeo/orchard").await;
        for (to, tombstones) in [("localhost", false), ("romeo@localhost", true)] {
            let ask = format!(
                "<iq type='get' id='d' to='{to}'><query xmlns='http://jabber.org/protocol/disco#info'/></iq>"
            );
            let got = romeo.ask(&ask).await;
            assert!(got.contains("<feature var='urn:xmpp:message-retract:1'/>"), "{got}");
            assert_eq!(
                got.contains("<feature var='urn:xmpp:message-retract:1#tombstone'/>"),
                tombstones,
                "{got}"
            );
        }
    }
}
