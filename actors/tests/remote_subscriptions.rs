//! Subscriptions between users here and people on another server: every state of RFC 6121 appendix A, by stanzas alone.
//!
//! Length: the tables of RFC 6121 appendix A are most of it.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, missing_docs)]

#[path = "support/far.rs"]
mod far;
mod support;

use far::{Far, item, put, told};
use rookery_cluster::tables::roster::{Item, Subscription};
use rookery_proto::xmpp::error::Condition;
use support::{Client, World};

const JULIET: &str = "juliet@far.example";

/// Appendix A.1, as people write it: subscription, pending out, pending in.
const STATES: [(Subscription, bool, bool); 9] = [
    (Subscription::None, false, false),
    (Subscription::None, true, false),
    (Subscription::None, false, true),
    (Subscription::None, true, true),
    (Subscription::To, false, false),
    (Subscription::To, false, true),
    (Subscription::From, false, false),
    (Subscription::From, true, false),
    (Subscription::Both, false, false),
];

fn state((subscription, out, pending): (Subscription, bool, bool)) -> Item {
    let request = format!("<presence type='subscribe' from='{JULIET}' to='romeo@localhost'/>");
    Item {
        jid: JULIET.into(),
        subscription: subscription.into(),
        ask_subscribe: out,
        pending_in: pending.then(|| request.into()),
        ..Item::default()
    }
}

fn show(item: Option<&Item>) -> String {
    let Some(item) = item else { return "-".into() };
    let mut text = format!("{:?}", item.subscription());
    if item.ask_subscribe {
        text.push_str("+Out");
    }
    if item.pending_in.is_some() {
        text.push_str("+In");
    }
    if item.approved {
        text.push_str("+Approved");
    }
    text
}

async fn scene() -> (World, Far) {
    let world = World::with(far::far).await;
    let far = Far::of(&world);
    (world, far)
}

/// Online, with the roster.
async fn romeo(world: &World) -> Client {
    let mut romeo = world.bind("romeo", "orchard").await;
    romeo.send("<iq type='get' id='r'><query xmlns='jabber:iq:roster'/></iq>");
    romeo.until("id='r'").await;
    romeo.send("<presence/>");
    romeo.until("<presence from='romeo@localhost/orchard'").await;
    romeo
}

/// What comes to the far server up to the answer of a ping.
async fn goes(far: &Far) -> Vec<String> {
    far.send("<iq type='get' id='goes' from='pinger@far.example/x' to='nobody@localhost'><ping xmlns='urn:xmpp:ping'/></iq>");
    let mut all = Vec::new();
    loop {
        let got = far.recv().await;
        if got.contains("id='goes'") {
            return all;
        }
        all.push(got);
    }
}

/// The kinds of presence among what goes.
fn kinds(all: &[String]) -> Vec<&'static str> {
    all.iter().filter(|text| text.starts_with("<presence")).map(|text| kind_of(text)).collect()
}

fn kind_of(text: &str) -> &'static str {
    if text.starts_with("<iq") {
        return "push";
    }
    ["subscribed", "subscribe", "unsubscribed", "unsubscribe", "unavailable", "probe", "error"]
        .into_iter()
        .find(|kind| text.contains(&format!("type='{kind}'")))
        .unwrap_or("available")
}

/// What a user sends in each state (A.2): what goes to the contact, and the state that is left.
#[tokio::test]
async fn outbound_in_every_state() {
    let table: [(&str, [&str; 9]); 4] = [
        (
            "subscribe",
            [
                "subscribe None+Out",
                "subscribe None+Out",
                "subscribe None+Out+In",
                "subscribe None+Out+In",
                "subscribe To",
                "subscribe To+In",
                "subscribe From+Out",
                "subscribe From+Out",
                "subscribe Both",
            ],
        ),
        (
            "unsubscribe",
            [
                "unsubscribe None",
                "unsubscribe None",
                "unsubscribe None+In",
                "unsubscribe None+In",
                "unsubscribe None",
                "unsubscribe None+In",
                "unsubscribe From",
                "unsubscribe From",
                "unsubscribe From",
            ],
        ),
        (
            "subscribed",
            [
                " None+Approved",
                " None+Out+Approved",
                "subscribed,available From",
                "subscribed,available From+Out",
                " To+Approved",
                "subscribed,available Both",
                " From",
                " From+Out",
                " Both",
            ],
        ),
        (
            "unsubscribed",
            [
                " None",
                " None+Out",
                "unsubscribed None",
                "unsubscribed None+Out",
                " To",
                "unsubscribed To",
                "unavailable,unsubscribed None",
                "unavailable,unsubscribed None+Out",
                "unavailable,unsubscribed To",
            ],
        ),
    ];
    for (kind, wanted) in table {
        for (before, wanted) in STATES.into_iter().zip(wanted) {
            let (world, far) = scene().await;
            put(&world, "romeo", &state(before)).await;
            let mut romeo = romeo(&world).await;
            goes(&far).await;
            romeo.send(&format!("<presence to='{JULIET}' type='{kind}'/>"));
            romeo.settled().await;
            let sent = goes(&far).await;
            let left = told(&world, "romeo", JULIET).await;
            let got = format!("{} {}", kinds(&sent).join(","), show(left.as_ref()));
            assert_eq!(got, wanted, "{kind} in {before:?}: {sent:?}");
            for stanza in sent.iter().filter(|stanza| stanza.contains("subscribe")) {
                assert!(stanza.contains("from='romeo@localhost' to='juliet@far.example'"), "{stanza}");
            }
        }
    }
}

/// What a contact sends in each state (A.3): what its server is told, what the client is told, and the state that is left.
#[tokio::test]
async fn inbound_in_every_state() {
    let table: [(&str, [&str; 9]); 4] = [
        (
            "subscribe",
            [
                " > subscribe None+In",
                " > subscribe None+Out+In",
                " >  None+In",
                " >  None+Out+In",
                " > subscribe To+In",
                " >  To+In",
                "subscribed,available >  From",
                "subscribed,available >  From+Out",
                "subscribed,available >  Both",
            ],
        ),
        (
            "subscribed",
            [
                " >  None",
                " > subscribed,push To",
                " >  None+In",
                " > subscribed,push To+In",
                " >  To",
                " >  To+In",
                " >  From",
                " > subscribed,push Both",
                " >  Both",
            ],
        ),
        (
            "unsubscribe",
            [
                " >  None",
                " >  None+Out",
                " > unsubscribe None",
                " > unsubscribe None+Out",
                " >  To",
                " > unsubscribe To",
                "unavailable > unsubscribe,push None",
                "unavailable > unsubscribe,push None+Out",
                "unavailable > unsubscribe,push To",
            ],
        ),
        (
            "unsubscribed",
            [
                " >  None",
                " > unsubscribed,push None",
                " >  None+In",
                " > unsubscribed,push None+In",
                " > unsubscribed,push None",
                " > unsubscribed,push None+In",
                " >  From",
                " > unsubscribed,push From",
                " > unsubscribed,push From",
            ],
        ),
    ];
    for (kind, wanted) in table {
        for (before, wanted) in STATES.into_iter().zip(wanted) {
            let (world, far) = scene().await;
            put(&world, "romeo", &state(before)).await;
            let mut romeo = romeo(&world).await;
            goes(&far).await;
            romeo.comes().await;
            // From a full JID and to one: that makes no difference.
            far.send(&format!("<presence from='{JULIET}/balcony' to='romeo@localhost' type='{kind}'/>"));
            // Its presence waits for that.
            far.send(&format!("<presence from='{JULIET}/balcony' to='romeo@localhost/orchard'><status>behind</status></presence>"));
            let mut heard = Vec::new();
            loop {
                let got = romeo.recv().await;
                if got.contains("behind") {
                    break;
                }
                heard.push(got);
            }
            heard.extend(romeo.comes().await);
            let told_far = goes(&far).await;
            let heard: Vec<&str> = heard.iter().map(|text| kind_of(text)).collect();
            let left = told(&world, "romeo", JULIET).await;
            let got = format!("{} > {} {}", kinds(&told_far).join(","), heard.join(","), show(left.as_ref()));
            assert_eq!(got, wanted, "{kind} in {before:?}: {told_far:?}");
        }
    }
}

async fn rosters(world: &World, contact: &str) -> String {
    show(item(world, "romeo", contact).await.as_ref())
}

#[tokio::test]
async fn two_people_see_each_other_and_part() {
    let (world, far) = scene().await;
    let mut romeo = romeo(&world).await;
    romeo.send(&format!(
        "<presence to='{JULIET}/balcony' type='subscribe' id='s1'><status>please</status></presence>"
    ));
    let asked = far.expect("type='subscribe'").await;
    assert!(
        asked.contains("to='juliet@far.example'") && asked.contains("<status>please</status>"),
        "{asked}"
    );
    assert!(asked.contains("id='s1'"), "{asked}");
    assert!(romeo.expect("jabber:iq:roster").await.contains("ask='subscribe'"));
    far.send(&format!("<presence from='{JULIET}' to='romeo@localhost' type='subscribed'/>"));
    far.send(&format!("<presence from='{JULIET}/balcony' to='romeo@localhost'><show>away</show></presence>"));
    romeo.expect("type='subscribed'").await;
    let mut rest = romeo.comes().await;
    rest.sort(); // the push is read from the store, and the presence is not
    assert!(rest.len() == 2 && rest[0].contains("subscription='to'") && rest[1].contains("away"), "{rest:?}");
    far.send(&format!("<presence from='{JULIET}' to='romeo@localhost' type='subscribe'/>"));
    romeo.expect("type='subscribe'").await;
    romeo.send(&format!("<presence to='{JULIET}' type='subscribed'/>"));
    far.expect("type='subscribed'").await;
    far.expect("<presence from='romeo@localhost/orchard' to='juliet@far.example'/>").await;
    assert!(romeo.expect("jabber:iq:roster").await.contains("subscription='both'"));
    told(&world, "romeo", JULIET).await;
    // What he does she sees, once.
    romeo.send("<presence><show>dnd</show></presence>");
    far.expect("<show>dnd</show>").await;
    far.nothing().await;
    romeo.until("dnd").await;
    romeo.send(&format!("<iq type='set' id='rm'><query xmlns='jabber:iq:roster'><item jid='{JULIET}' subscription='remove'/></query></iq>"));
    let all = goes_until(&far, "type='unsubscribed'").await;
    assert_eq!(kinds(&all), ["unsubscribe", "unavailable", "unsubscribed"]);
    romeo.until("subscription='remove'").await;
    assert_eq!(show(told(&world, "romeo", JULIET).await.as_ref()), "-");
    romeo.send("<presence/>");
    romeo.until("<presence from='romeo@localhost/orchard'").await;
    far.nothing().await;
}

async fn goes_until(far: &Far, part: &str) -> Vec<String> {
    let mut all = Vec::new();
    loop {
        let got = far.recv().await;
        all.push(got);
        if all.last().unwrap().contains(part) {
            return all;
        }
    }
}

#[tokio::test]
async fn a_request_waits_for_its_user_short_and_bounded() {
    let world = World::with(|options| {
        far::far(options);
        options.limits.requests = 3;
    })
    .await;
    let far = Far::of(&world);
    let long = "x".repeat(100_000);
    for n in 0..5 {
        far.send(&format!("<presence from='s{n}@far.example/x' to='romeo@localhost' type='subscribe'><status>{n} {long}</status></presence>"));
        far.send(&format!("<iq from='s{n}@far.example/x' to='romeo@localhost' type='get' id='{n}'><vCard xmlns='vcard-temp'/></iq>"));
        far.expect(&format!("id='{n}'")).await;
        while item(&world, "romeo", &format!("s{n}@far.example")).await.is_none() {
            tokio::time::sleep(std::time::Duration::from_millis(5)).await; // the store gives no event
        }
    }
    for _ in 0..2 {
        let mut romeo = romeo(&world).await;
        for n in 2..5 {
            let asked = romeo.expect(&format!("from='s{n}@far.example'")).await;
            assert!(asked.len() < 1_300 && asked.contains(&format!("<status>{n} x")), "{}", asked.len());
        }
        romeo.nothing().await;
        romeo.quit();
    }
    far.nothing().await;
}

#[tokio::test]
async fn an_approval_before_the_request_answers_it() {
    let (world, far) = scene().await;
    let mut romeo = romeo(&world).await;
    romeo.send(&format!("<presence to='{JULIET}' type='subscribed'/>"));
    romeo.settled().await;
    far.nothing().await;
    assert_eq!(rosters(&world, JULIET).await, "None+Approved");
    romeo.quit();
    // Nobody is there, and it is answered all the same.
    far.send(&format!("<presence from='{JULIET}' to='romeo@localhost' type='subscribe'/>"));
    let granted = far.until("type='subscribed'").await;
    assert!(granted.contains("from='romeo@localhost' to='juliet@far.example'"), "{granted}");
    assert_eq!(show(told(&world, "romeo", JULIET).await.as_ref()), "From");
}

#[tokio::test]
async fn the_error_of_a_link_comes_to_the_sessions_and_the_request_is_made_again_later() {
    let world = World::with(far::near).await;
    let far = Far::of(&world);
    let mut phone = romeo(&world).await;
    far.refuses(Some(Condition::RemoteServerTimeout));
    phone.send(&format!("<presence to='{JULIET}' type='subscribe' id='s1'/>"));
    let error = phone.until("type='error'").await;
    assert!(
        error.contains("remote-server-timeout") && error.contains("id='s1'") && error.contains(JULIET),
        "{error}"
    );
    phone.settled().await;
    assert_eq!(rosters(&world, JULIET).await, "None+Out");
    phone.quit();
    far.refuses(None);
    let _phone = romeo(&world).await;
    far.expect("type='subscribe'").await;
    told(&world, "romeo", JULIET).await;
}

/// The other server itself answers with an error.
#[tokio::test]
async fn the_error_of_another_server_comes_to_the_sessions() {
    let (world, far) = scene().await;
    let mut phone = romeo(&world).await;
    phone.send(&format!("<presence to='{JULIET}' type='subscribe' id='s1'/>"));
    far.expect("type='subscribe'").await;
    phone.until("ask='subscribe'").await;
    let error = "<error type='cancel'><item-not-found xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></error>";
    for from in [JULIET, "stranger@far.example"] {
        far.send(&format!(
            "<presence from='{from}' to='romeo@localhost' type='error' id='s1'>{error}</presence>"
        ));
    }
    let got = phone.expect("item-not-found").await;
    assert!(got.contains(JULIET), "{got}");
    phone.nothing().await;
}

/// As by a crash between the commit and the link: what holds is told when the user is read.
#[tokio::test]
async fn what_a_contact_was_not_told_is_told_after_a_restart() {
    let listed = |item: Item| Item { untold: 0x100 | 3, ..item };
    for (before, wanted) in [
        ((Subscription::None, true, false), vec!["subscribe", "unsubscribed"]),
        ((Subscription::None, false, false), vec!["unsubscribe", "unsubscribed"]),
        ((Subscription::None, false, true), vec!["unsubscribe"]),
        ((Subscription::To, false, false), vec!["unsubscribed"]),
        ((Subscription::From, true, false), vec!["subscribe", "subscribed"]),
        ((Subscription::Both, false, false), vec!["subscribed"]),
    ] {
        let (world, far) = scene().await;
        put(&world, "romeo", &listed(state(before))).await;
        // A stranger's request has the user read.
        far.send("<iq from='s@far.example/x' to='romeo@localhost' type='get' id='v'><vCard xmlns='vcard-temp'/></iq>");
        let all = goes_until(&far, "id='v'").await;
        assert_eq!(kinds(&all), wanted, "{before:?}");
        told(&world, "romeo", JULIET).await;
    }
}

#[tokio::test]
async fn an_account_that_is_removed_says_goodbye() {
    let (world, far) = scene().await;
    put(&world, "romeo", &state((Subscription::Both, false, false))).await;
    let mut romeo = romeo(&world).await;
    far.until("type='probe'").await;
    romeo.send("<iq type='set' id='gone'><query xmlns='jabber:iq:register'><remove/></query></iq>");
    let all = goes_until(&far, "type='unsubscribed'").await;
    assert_eq!(kinds(&all), ["unsubscribe", "unavailable", "unsubscribed"]);
}

/// A domain that asks again and again takes no room from others.
#[tokio::test]
async fn a_flood_of_requests_of_one_domain_displaces_its_own() {
    let world = World::with(|options| {
        far::far(options);
        options.limits.requests = 4;
    })
    .await;
    let far = Far::of(&world);
    far.send("<presence from='nurse@near.example' to='romeo@localhost' type='subscribe'/>");
    let mut romeo = romeo(&world).await;
    romeo.until("nurse@near.example").await;
    for n in 0..20 {
        let ask = format!("<presence from='s{n}@far.example' to='romeo@localhost' type='subscribe'/>");
        far.send(&ask);
        romeo.expect(&format!("s{n}@far.example")).await;
    }
    romeo.quit();
    let mut romeo = self::romeo(&world).await;
    for jid in ["nurse@near", "s17@far", "s18@far", "s19@far"] {
        romeo.expect(jid).await;
    }
    romeo.nothing().await;
}
