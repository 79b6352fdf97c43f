//! XEP-0227 on the memory store: what is exported, imported and exported again is the same; what other servers write is
//! taken as far as it goes; what is broken leaves no half account behind.
//!
//! Length: the documents of other servers, as they write them, are most of it.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, missing_docs)]

mod support;

use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;
use rookery_actors::auth::credentials;
use rookery_actors::export::{Error, Importer, Report, Target, export};
use rookery_actors::options::{Domain, Options};
use rookery_cluster::entity::Entity;
use rookery_cluster::seams::{Random, Seams};
use rookery_cluster::store::memory::Memory;
use rookery_cluster::store::{self, Store, Transaction};
use rookery_cluster::tables::accounts::{self, Account, Created};
use rookery_cluster::tables::archive::{self, Clock, Collection, Direction, Entry};
use rookery_cluster::tables::roster::{Item, Subscription};
use rookery_cluster::tables::{blocks, mam_prefs, offline, private, roster, secrets, vcard};
use rookery_proto::sasl::{Credentials, Hash};
use rookery_proto::xml::{Limits, Scope, check};
use rookery_proto::xmpp::stanza::Stanza;

const START: u64 = 1_700_000_000_000_000;

struct Sevens;

impl Random for Sevens {
    fn fill(&self, buf: &mut [u8]) {
        buf.fill(7);
    }
}

fn options() -> Arc<Options> {
    let domain = |name: &str| Domain { name: name.into(), open_registration: false, contact: vec![] };
    let mut options = Options::new(vec![domain("localhost"), domain("other.example")]);
    options.iterations = 4_096;
    Arc::new(options)
}

/// An empty store with the same key for archive ids in every test.
async fn empty() -> Store {
    let store = Store::new(Arc::new(Memory::new()), Seams::system());
    store
        .write(store::Options::default(), |tx| {
            Box::pin(async move {
                secrets::get_or_make::<16>(&mut **tx, secrets::ARCHIVE_KEY, &Sevens).await.map(|_| ())
            })
        })
        .await
        .unwrap();
    store
}

async fn exported(store: &Store, target: &str) -> String {
    let mut out = Vec::new();
    export(store, &Target::parse(target).unwrap(), &mut out).await.unwrap();
    String::from_utf8(out).unwrap()
}

async fn import_in(store: &Store, xml: &[u8], piece: usize) -> (Result<(), Error>, Report) {
    let mut importer = Importer::start(store, options(), None).await.unwrap();
    for piece in xml.chunks(piece) {
        if let Err(error) = importer.push(piece).await {
            return (Err(error), importer.report().clone());
        }
    }
    let outcome = importer.finish().await;
    (outcome, importer.report().clone())
}

async fn imported(store: &Store, xml: &str) -> Report {
    let (outcome, report) = import_in(store, xml.as_bytes(), 1_000).await;
    outcome.unwrap();
    report
}

fn remarks(report: &Report) -> String {
    let lines = report.remarks.iter().map(|r| format!("{} {}: {}\n", r.line, r.subject, r.reason));
    lines.collect()
}

async fn account(store: &Store, jid: &str) -> Option<Account> {
    let user = &Entity::new(jid);
    store.read(|tx| Box::pin(async move { accounts::get(&mut **tx, user).await })).await.unwrap()
}

fn message(from: &str, to: &str, payload: &str) -> Bytes {
    let xml = format!("<message from='{from}' to='{to}' type='chat' id='x'>{payload}</message>");
    let stanza = Stanza::parse(xml.as_bytes(), &Scope::CLIENT, &Limits::CLIENT).unwrap();
    let mut bytes = Vec::new();
    stanza.write(&mut bytes);
    bytes.into()
}

fn entry(direction: Direction, stanza: Bytes) -> Entry {
    let with = "romeo@elsewhere.example";
    let (with, with_full) = (with.to_owned(), format!("{with}/orchard"));
    Entry { with, with_full, direction: direction.into(), stanza, stored_at: START, ..Entry::default() }
}

/// What is written in as many ways as XML has.
const PAYLOADS: [&str; 4] = [
    "<body>neither &lt;fair&gt; saint, é &amp; \"both\"</body>",
    "<body xml:lang='it'><![CDATA[<ciao>]]></body><x:x xmlns:x=\"urn:x\" x:a='1'><x:y/></x:x>",
    "\n <body>spaces\n\tand lines</body>\n",
    "<encrypted xmlns='eu.siacs.conversations.axolotl'><payload>QQ==</payload></encrypted><store xmlns='urn:xmpp:hints'/>",
];

/// A user with a row in every table, far more messages than fit a page, and some that wait.
async fn fill(tx: &mut dyn Transaction, user: &Entity) -> store::Result<()> {
    let made = Credentials::derive("pencil", &[3; 32], 4_096).unwrap();
    accounts::put(tx, user, &Account { disabled: true, ..credentials::to_account(&made, START - 1) });
    for (jid, subscription, flags) in [
        ("romeo@elsewhere.example", Subscription::Both, 0),
        ("nurse@localhost", Subscription::None, 1),
        ("paris@elsewhere.example", Subscription::None, 4),
        ("friar@elsewhere.example", Subscription::From, 2 + 4),
    ] {
        let request = format!(
            "<presence from='{jid}' to='{user}' type='subscribe'><nick xmlns='urn:n'>P</nick></presence>"
        );
        let item = Item {
            jid: jid.into(),
            name: (flags == 0).then(|| "Romeo 'n' <co>".into()),
            groups: if flags == 0 { vec!["Friends & foes".into(), "G".into()] } else { vec![] },
            subscription: subscription.into(),
            ask_subscribe: flags & 1 != 0,
            approved: flags & 2 != 0,
            pending_in: (flags & 4 != 0).then(|| request.into()),
            unlisted: flags == 4,
            untold: 0,
            asked_at: 0,
        };
        roster::put(tx, user, &item)?;
    }
    let card = format!("<v:vCard xmlns:v='vcard-temp'><v:PHOTO>{}</v:PHOTO></v:vCard>", "A".repeat(100_000));
    vcard::put(tx, user, &card.into())?;
    let limits = private::Limits { elements: 9, bytes: 99_999 };
    for (name, space) in [("storage", "storage:bookmarks"), ("b", "urn:b")] {
        let xml = format!("<{name} xmlns='{space}'><c xmlns=''/>&#x21;</{name}>").into();
        let element = private::Element { namespace: space.into(), name: name.into(), xml };
        assert!(private::put(tx, user, &element, limits).await?);
    }
    blocks::add(tx, user, "tybalt@elsewhere.example", 1);
    blocks::add(tx, user, "evil.example", 1);
    let prefs = mam_prefs::Preferences {
        policy: mam_prefs::Policy::Roster.into(),
        always: vec!["a@b".into()],
        never: vec!["c@d".into(), "e@f".into()],
    };
    mam_prefs::put(tx, user, &prefs)?;
    let (mut clock, mut day, mut cursor) = (Clock::default(), None, None);
    let own = user.as_str();
    for n in 0..700u64 {
        // Several in a microsecond, some hours apart.
        let id = clock.next(START + n / 3 * 3_600_000_000, 1);
        let payload = PAYLOADS[usize::try_from(n).unwrap() % PAYLOADS.len()];
        let (direction, stanza) = if n % 5 == 0 {
            (Direction::Out, message(&format!("{own}/balcony"), "romeo@elsewhere.example", payload))
        } else {
            (Direction::In, message("romeo@elsewhere.example/orchard", own, payload))
        };
        day = Some(archive::append(tx, Collection::Archive, user, id, &entry(direction, stanza), day)?);
        if n == 650 {
            cursor = Some(id);
        }
    }
    let cursor = cursor.unwrap();
    offline::set(tx, user, offline::Cursor::at(cursor));
    for n in 0..3 {
        let id = clock.next(START + 800 * 3_600_000_000 + n, 1);
        let stanza = message("nurse@localhost/x", own, &format!("<body>not archived {n}</body>"));
        let with = ("nurse@localhost".to_owned(), "nurse@localhost/x".to_owned());
        let entry = Entry { with: with.0, with_full: with.1, ..entry(Direction::In, stanza) };
        archive::append(tx, Collection::Queue, user, id, &entry, None)?;
    }
    Ok(())
}

async fn filled() -> Store {
    let store = empty().await;
    for user in ["juliet@localhost", "müller@localhost", "d.artagnan@localhost"] {
        let user = &Entity::new(user);
        store
            .write(store::Options::default(), |tx| Box::pin(async move { fill(&mut **tx, user).await }))
            .await
            .unwrap();
    }
    store
}

#[tokio::test]
async fn what_is_exported_and_imported_is_exported_the_same() {
    let store = filled().await;
    let first = exported(&store, "localhost").await;
    let (declaration, root) = first.split_once('\n').unwrap();
    check::declaration(declaration.as_bytes()).unwrap();
    let limits = Limits::TRUSTED.with_stanza_bytes(1 << 30);
    check::element(root.trim_end().as_bytes(), &Scope::NOTHING, &limits).unwrap();
    assert_eq!(first.matches("<result ").count(), 3 * 700);
    // Of the 49 behind the cursor nine were sent and not received.
    assert_eq!(first.matches("<delay xmlns='urn:xmpp:delay' from='localhost'").count(), 3 * (49 - 9 + 3));
    for piece in [17, 5_000, first.len()] {
        let other = empty().await;
        let (outcome, report) = import_in(&other, first.as_bytes(), piece).await;
        outcome.unwrap();
        assert_eq!((report.added, report.skipped, report.failed, remarks(&report).as_str()), (3, 0, 0, ""));
        let second = exported(&other, "localhost").await;
        let difference = first.lines().zip(second.lines()).find(|(a, b)| a != b);
        assert_eq!(difference, None);
        assert_eq!(first.len(), second.len());
        // Everything is there already: nothing changes.
        let again = imported(&other, &first).await;
        assert_eq!((again.added, again.skipped, again.failed), (0, 3, 0));
        assert_eq!(exported(&other, "localhost").await, second);
    }
    let one = exported(&store, "juliet@localhost").await;
    assert_eq!(one.matches("<user ").count(), 1);
    assert!(first.contains(&one[one.find("<user ").unwrap()..one.find("</host>").unwrap()]));
    let mut out = Vec::new();
    let nobody = export(&store, &Target::parse("nobody@localhost").unwrap(), &mut out).await;
    assert!(matches!(nobody, Err(Error::NotFound)) && out.is_empty());
    assert_eq!(exported(&store, "other.example").await.matches("<user").count(), 0);
}

#[tokio::test]
async fn under_another_key_only_the_ids_differ() {
    let first = exported(&filled().await, "localhost").await;
    let other = Store::new(Arc::new(Memory::new()), Seams::system());
    assert_eq!(imported(&other, &first).await.added, 3);
    let second = exported(&other, "localhost").await;
    let without_ids = |xml: &str| {
        let lines = xml.lines().map(|line| match line.strip_prefix("<result ") {
            Some(result) => result.split_once('>').unwrap().1.to_owned(),
            None => line.to_owned(),
        });
        lines.collect::<Vec<_>>()
    };
    assert_ne!(first, second);
    assert!(without_ids(&first) == without_ids(&second));
}

/// Without a password or a secret in what is shown.
#[tokio::test]
async fn passwords_become_keys_and_are_not_told() {
    let store = empty().await;
    let xml = "<server-data xmlns='urn:xmpp:pie:0'><host jid='LOCALHOST'><user name='Juliet' password='r0m30'/>\
               <user name='bad' password='&#7;'/><user name='long' password='' /></host></server-data>";
    // A control character is no XML: that document is refused as a whole.
    assert!(matches!(import_in(&store, xml.as_bytes(), 64).await.0, Err(Error::Document { .. })));
    let report = imported(&store, &xml.replace("&#7;", "&#xE000;")).await;
    // The account that was read before the document broke is there.
    assert_eq!((report.added, report.skipped, report.failed), (0, 1, 2));
    assert!(
        remarks(&report).contains("character that is not allowed") && remarks(&report).contains("is empty")
    );
    assert!(!remarks(&report).contains("r0m30"));
    let juliet = credentials::from_account(&account(&store, "juliet@localhost").await.unwrap()).unwrap();
    assert!(juliet.verify_password("r0m30") && !juliet.verify_password("R0m30"));
    assert_eq!(juliet.get(Hash::Sha512).map(|keys| keys.iterations), Some(4_096));
    assert_eq!(account(&store, "bad@localhost").await, None);
    assert!(!exported(&store, "localhost").await.contains("r0m30"));
}

#[tokio::test]
async fn documents_of_other_servers_are_taken_as_far_as_they_go() {
    let store = empty().await;
    let xml = r#"<?xml version="1.0" encoding="UTF-8"?>
<pie:server-data xmlns:pie="urn:xmpp:pie:0" xmlns:xi="http://www.w3.org/2001/XInclude" xmlns="jabber:client">
<xi:include href="elsewhere.xml"/>
<pie:host jid="unknown.example"><pie:user name="x"/><pie:user name="y"><message/></pie:user></pie:host>
<pie:host jid="localhost">
<pie:user name="">
</pie:user>
<pie:user name="juliet" password="pencil">
  <offline-messages xmlns="urn:xmpp:pie:0">
    <message xmlns="jabber:client" from="romeo@montague.net/orchard" to="juliet@localhost" type="chat"><body>1</body>
      <delay xmlns="urn:xmpp:delay" from="localhost" stamp="2010-07-10T23:08:25Z">Offline</delay>
      <stanza-id xmlns="urn:xmpp:sid:0" by="juliet@localhost" id="28482"/></message>
    <message xmlns="jabber:client" from="romeo@montague.net/orchard" type="chat"><body>2</body></message>
    <iq xmlns="jabber:client"/>
  </offline-messages>
  <query xmlns="jabber:iq:roster"><item jid="romeo@montague.net/orchard" name="Romeo" subscription="both"><group>F</group><group/><group>F</group></item>
    <item jid="juliet@localhost"/><item/><item jid="a@b" subscription="remove"/></query>
  <query xmlns="jabber:iq:privacy"><default name="public"/><list name="public"><item type="jid" value="tybalt@example.com"
    action="deny" order="1"/><item action="allow" order="2"/></list><list name="private"/></query>
  <presence type="subscribe" id="xk3h1v69" from="mercutio@montague.net/x"/>
  <presence from="mercutio@montague.net/x"/>
  <pubsub xmlns="http://jabber.org/protocol/pubsub"/>
  <archive xmlns="urn:xmpp:pie:0#mam"><result xmlns="urn:xmpp:mam:2" id="28482"><forwarded xmlns="urn:xmpp:forward:0">
    <delay xmlns="urn:xmpp:delay" stamp="2010-07-10T23:08:25Z"/>
    <message xmlns="jabber:client" from="romeo@montague.net/orchard" to="juliet@localhost" type="chat"><body>1</body>
      </message></forwarded></result>
    <result xmlns="urn:xmpp:mam:2" id="5d398"><forwarded xmlns="urn:xmpp:forward:0">
    <delay xmlns="urn:xmpp:delay" stamp="2010-07-10T23:09:32Z"/>
    <message xmlns="jabber:client" to="romeo@montague.net/orchard" type="chat" id="8a54s"><body>3</body></message></forwarded></result>
    <result xmlns="urn:xmpp:mam:2" id="z"><forwarded xmlns="urn:xmpp:forward:0"><message xmlns="jabber:client"/></forwarded></result></archive>
</pie:user>
<pie:user name="old"><scram-credentials xmlns="urn:xmpp:pie:0#scram" mechanism="SCRAM-SHA-1"><iter-count>4096</iter-count>
  <salt>QSXCR+Q6sek8bf92</salt><server-key>0pXWGK0GZJ6TR73AIUN3ITYtA1g=</server-key>
  <stored-key>Q6qT/SbybblGCZz8e8eSfCJOQic=</stored-key></scram-credentials></pie:user>
<pie:user name="old"/>
</pie:host></pie:server-data>"#;
    let report = imported(&store, xml).await;
    let told = remarks(&report);
    assert_eq!((report.added, report.skipped, report.failed), (2, 1, 3), "{told}");
    for part in [
        "3 : a part in another file",
        "4 unknown.example: this domain is not served",
        "6 localhost: a user whose name",
        "juliet@localhost: a contact without a JID",
        "the user's own JID",
        "is no state of one",
        "rules of privacy lists",
        "a presence that is no subscription request",
        "an archived message without a time",
        "<pubsub xmlns='http://jabber.org/protocol/pubsub'/> has no place here",
        "<iq xmlns='jabber:client'/>",
        "old@localhost: there are keys for some of the mechanisms only: clients that insist on another",
    ] {
        assert!(told.contains(part), "{part} is missing in\n{told}");
    }
    let back = exported(&store, "juliet@localhost").await;
    for part in [
        "<item jid='romeo@montague.net' name='Romeo' subscription='both'><group>F</group></item>",
        "<presence xmlns='jabber:client' from='mercutio@montague.net' to='juliet@localhost' id='xk3h1v69' type='subscribe'/>",
        "<item type='jid' value='tybalt@example.com' action='deny' order='1'/>",
        "<delay xmlns='urn:xmpp:delay' stamp='2010-07-10T23:09:32Z'/><message xmlns='jabber:client' from='juliet@localhost' \
         to='romeo@montague.net/orchard' id='8a54s' type='chat'><body>3</body>",
        "<message xmlns='jabber:client' from='romeo@montague.net/orchard' to='juliet@localhost' type='chat'><body>2</body>\
         <delay xmlns='urn:xmpp:delay' from='localhost'",
    ] {
        assert!(back.contains(part), "{part} is missing in\n{back}");
    }
    assert!(!back.contains("stanza-id") && !back.contains("pencil") && back.matches("<result").count() == 2);
    assert_eq!(account(&store, "old@localhost").await.unwrap().credentials.len(), 1);
}

#[tokio::test]
async fn messages_that_wait_come_once_and_with_their_place_in_the_archive() {
    let first = exported(&filled().await, "juliet@localhost").await;
    let world = support::World::new().await;
    let added = Arc::new(Mutex::new(Vec::new()));
    let told = added.clone();
    let mut importer = Importer::start(
        &world.store,
        Arc::new(world.options.clone()),
        Some(Arc::new(move |jid| told.lock().push(jid.as_str().to_owned()))),
    )
    .await
    .unwrap();
    importer
        .push(first.replace("'juliet'", "'rosaline'").replace("juliet@", "rosaline@").as_bytes())
        .await
        .unwrap();
    importer.finish().await.unwrap();
    assert_eq!(*added.lock(), ["rosaline@localhost"]);
    let mut rosaline = world.online("rosaline", "balcony").await;
    let (mut archived, mut queued) = (0, 0);
    rosaline.send("<iq type='get' id='end' to='localhost'><no-such-thing xmlns='urn:x'/></iq>");
    while archived + queued < 43 {
        let got = rosaline.recv().await;
        if got.starts_with("<message") {
            assert_eq!(got.contains("stanza-id"), !got.contains("not archived"), "{got}");
            *(if got.contains("stanza-id") { &mut archived } else { &mut queued }) += 1;
        }
    }
    assert_eq!((archived, queued), (40, 3));
    rosaline.nothing().await;
}

const SMALL: &str = "<?xml version='1.0'?>\n<server-data xmlns='urn:xmpp:pie:0'><host jid='localhost'><user name='a'>\
    <query xmlns='jabber:iq:private'><x xmlns='urn:x'/></query><archive xmlns='urn:xmpp:pie:0#mam'>\
    <result xmlns='urn:xmpp:mam:2' id='1'><forwarded xmlns='urn:xmpp:forward:0'><delay xmlns='urn:xmpp:delay' \
    stamp='2010-07-10T23:08:25Z'/><message xmlns='jabber:client' from='b@c'><body>x</body></message></forwarded></result>\
    </archive></user></host></server-data>";

#[tokio::test]
async fn a_document_that_breaks_off_leaves_no_half_account() {
    let store = empty().await;
    let end = SMALL.find("</user>").unwrap() + "</user>".len();
    for cut in 0..end {
        let (outcome, report) = import_in(&store, &SMALL.as_bytes()[..cut], 100).await;
        assert!(matches!(outcome, Err(Error::Document { .. })), "{cut}");
        assert_eq!((report.added, report.failed), (0, 0), "{cut}");
    }
    // Neither data nor a reserved name is left: anybody can have it.
    let user = &Entity::new("a@localhost");
    let (left, created) = store
        .write(store::Options::default(), |tx| {
            Box::pin(async move {
                let left = archive::last_id(&mut **tx, Collection::Archive, user).await?;
                Ok((left, accounts::create(&mut **tx, user, &Account::default(), 0).await?))
            })
        })
        .await
        .unwrap();
    assert_eq!((left, created), (None, Created::Yes));
    let store = empty().await;
    // Behind the account's end it stays, although the document is broken.
    let (outcome, report) = import_in(&store, &SMALL.as_bytes()[..end], 100).await;
    assert!(outcome.is_err() && report.added == 1);
}

#[tokio::test]
async fn an_import_that_died_is_begun_again() {
    let store = empty().await;
    let half = &SMALL.as_bytes()[..SMALL.find("</archive>").unwrap()];
    let mut importer = Importer::start(&store, options(), None).await.unwrap();
    importer.push(half).await.unwrap();
    drop(importer); // as a process that was killed
    let user = &Entity::new("a@localhost");
    let created = store.write(store::Options::default(), |tx| {
        Box::pin(async move { accounts::create(&mut **tx, user, &Account::default(), 0).await })
    });
    assert_eq!(created.await.unwrap(), Created::Reserved, "nobody gets what belongs to another");
    assert_eq!(imported(&store, SMALL).await.added, 1);
    assert_eq!(exported(&store, "a@localhost").await.matches("<result ").count(), 1);
}

#[tokio::test]
async fn hostile_documents_are_refused() {
    let bomb = "<!DOCTYPE x [<!ENTITY a 'aaaaaaaaaa'><!ENTITY b '&a;&a;&a;&a;&a;&a;&a;&a;'>]>";
    let inside = |part: &str| SMALL.replace("<x xmlns='urn:x'/>", part);
    for (xml, reason) in [
        (SMALL.replace("?>\n", &format!("?>\n{bomb}")), "document type"),
        (inside("<x xmlns='urn:x'>&b;</x>"), "restricted"),
        (inside(&"<x xmlns='urn:x'>".repeat(1_000)), "nested deeper"),
        (inside("<x xmlns='urn:x'></y>"), "not well-formed"),
        (inside("</user>"), "does not match"),
        (inside("text"), "text where"),
        (inside("<p:x/>"), "prefix"),
        (inside(&format!("<x xmlns='urn:x'>{}</x>", "y".repeat(10 << 20))), "larger than"),
        (inside(&format!("<x xmlns='urn:x' y='{}'/>", "y".repeat(10 << 20))), "too long"),
        (SMALL.replace("urn:xmpp:pie:0'", "urn:xmpp:pie:1'"), "no document of XEP-0227"),
        ("{\"json\": true}".into(), "text where"),
        (format!("{SMALL}{SMALL}"), "behind the end"),
    ] {
        let store = empty().await;
        let (outcome, _) = import_in(&store, xml.as_bytes(), 64 << 10).await;
        match outcome {
            Err(Error::Document { reason: found, line }) => {
                assert!(found.contains(reason) && line >= 1, "{reason}: {found}");
            }
            other => panic!("{reason}: {other:?}"),
        }
    }
}

#[tokio::test]
async fn what_is_too_much_for_an_account_is_left_out_and_told() {
    let store = empty().await;
    let contacts: String = (0..2_005).map(|n| format!("<item jid='c{n}@d'/>")).collect();
    let blocked: String = (0..1_002).map(|n| format!("<item jid='b{n}@d'/>")).collect();
    let xml = format!(
        "<server-data xmlns='urn:xmpp:pie:0'><host jid='localhost'><user name='a' password='x'>\
         <query xmlns='jabber:iq:roster'>{contacts}</query><blocklist xmlns='urn:xmpp:blocking'>{blocked}</blocklist>\
         <vCard xmlns='vcard-temp'><PHOTO>{}</PHOTO></vCard></user></host></server-data>",
        "A".repeat(1 << 20)
    );
    let report = imported(&store, &xml).await;
    let told = remarks(&report);
    assert_eq!(report.added, 1, "{told}");
    assert!(told.contains("limit roster_items was left out (5 times)"), "{told}");
    assert!(
        told.contains("limit blocked was left out (2 times)") && told.contains("a vCard that is too large"),
        "{told}"
    );
}

#[tokio::test]
async fn both_directions_run_as_tasks() {
    let store = filled().await;
    let (sender, mut pieces) = tokio::sync::mpsc::channel::<Result<Bytes, Error>>(2);
    let other = empty().await;
    let reading = tokio::spawn(async move {
        let mut sender = sender;
        export(&store, &Target::parse("localhost").unwrap(), &mut sender).await
    });
    let writing = tokio::spawn(async move {
        let mut importer = Importer::start(&other, options(), None).await?;
        while let Some(piece) = pieces.recv().await {
            let piece = piece?;
            assert!(piece.len() <= rookery_actors::export::CHUNK);
            importer.push(&piece).await?;
        }
        importer.finish().await?;
        Ok::<_, Error>(importer.report().added)
    });
    assert_eq!(reading.await.unwrap().unwrap(), 3);
    assert_eq!(writing.await.unwrap().unwrap(), 3);
}
