//! What people do with contacts on another server.

use super::{Error, wrong};
use crate::client::{Client, PING};
use crate::peers::{Host, Side, World};
use crate::xml::{CLIENT, Element, escape};

const ROSTER: &str = "jabber:iq:roster";
const BLOCKING: &str = "urn:xmpp:blocking";
const VCARD: &str = "vcard-temp";
const INFO: &str = "http://jabber.org/protocol/disco#info";
const ITEMS: &str = "http://jabber.org/protocol/disco#items";

pub(super) async fn messages(world: &mut World, near: Side, number: usize) -> Result<(), Error> {
    let (mut here, mut there) = pair(world, near, number).await?;
    talk(&mut here, &mut there, 50).await?;
    talk(&mut there, &mut here, 50).await?;
    let big = "x".repeat(100_000);
    let strange = "<&>'\" \u{e4}\u{df}\u{2603} \u{1f426}\u{200d}\u{2b1b} \u{5d0}\u{5d1}\u{10ffff}";
    for text in [big.as_str(), strange] {
        say(&mut here, &there.jid.clone(), "big", text).await?;
        let got = hear(&mut there, "big").await?;
        if body(&got) != text {
            return wrong(format!("the text was changed on its way: {:.200}", body(&got)));
        }
    }
    leave([here, there]).await
}

/// So many messages, in order, from the full JID.
pub(super) async fn talk(from: &mut Client, to: &mut Client, count: usize) -> Result<(), Error> {
    let name = to.jid.clone();
    for at in 0..count {
        say(from, &name, &format!("talk-{at}"), &format!("line {at}")).await?;
    }
    for at in 0..count {
        let got = to.wait("a message", |e| e.name == "message" && e.get("body").is_some()).await?;
        if got.attr("from") != Some(&from.jid) || body(&got) != format!("line {at}") {
            return wrong(format!("expected line {at} from {}, got {got}", from.jid));
        }
    }
    Ok(())
}

pub(super) async fn subscription(world: &mut World, near: Side, number: usize) -> Result<(), Error> {
    let (mut here, mut there) = pair(world, near, number).await?;
    let (me, you) = (bare(&here), bare(&there));
    here.iq_ok("set", "", &format!("<query xmlns='{ROSTER}'><item jid='{you}' name='You'/></query>")).await?;
    here.send(&format!("<presence to='{you}' type='subscribe'><status>please</status></presence>")).await?;
    let asked = presence(&mut there, &me, Some("subscribe")).await?;
    // ejabberd addresses the full JID, which RFC 6121 section 3.1.3 does not want.
    if asked.attr("to").and_then(|to| to.split('/').next()) != Some(&you) {
        return wrong(format!("the request is for somebody else: {asked}"));
    }
    there.send(&format!("<presence to='{me}' type='subscribed'/>")).await?;
    presence(&mut here, &you, Some("subscribed")).await?;
    presence(&mut here, &there.jid.clone(), None).await?;
    pushed(&mut here, &you, "to").await?;
    there.send(&format!("<presence to='{me}' type='subscribe'/>")).await?;
    presence(&mut here, &you, Some("subscribe")).await?;
    here.send(&format!("<presence to='{you}' type='subscribed'/>")).await?;
    presence(&mut there, &me, Some("subscribed")).await?;
    presence(&mut there, &here.jid.clone(), None).await?;
    pushed(&mut here, &you, "both").await?;
    pushed(&mut there, &me, "both").await?;
    // A change is seen, and so is the end.
    here.send("<presence><show>away</show><status>tea</status></presence>").await?;
    let jid = here.jid.clone();
    let away = there.wait("the change of presence", |e| {
        e.name == "presence" && e.attr("from") == Some(&jid) && e.get("show").is_some()
    });
    away.await?;
    here.close().await?;
    presence(&mut there, &jid, Some("unavailable")).await?;
    // A user who comes back sees at once that the other is there: a probe has asked.
    let mut here = world.person(near, Host::Main, number).await?;
    presence(&mut here, &there.jid.clone(), None).await?;
    presence(&mut there, &jid, None).await?;
    there.close().await?;
    let mut there = world.person(near.other(), Host::Main, number).await?;
    presence(&mut there, &jid, None).await?;
    // Removal ends it on both sides.
    here.iq_ok(
        "set",
        "",
        &format!("<query xmlns='{ROSTER}'><item jid='{you}' subscription='remove'/></query>"),
    )
    .await?;
    presence(&mut there, &me, Some("unsubscribe")).await?;
    presence(&mut there, &me, Some("unsubscribed")).await?;
    presence(&mut there, &jid, Some("unavailable")).await?;
    leave([here, there]).await
}

pub(super) async fn offline(world: &mut World, near: Side, number: usize) -> Result<(), Error> {
    let (mut here, there) = pair(world, near, number).await?;
    let you = bare(&there);
    there.close().await?;
    for at in 0..5 {
        say(&mut here, &you, &format!("offline-{at}"), &format!("line {at}")).await?;
    }
    // An answer after them says that they have arrived.
    here.iq("get", &Host::Main.domain(near.other()), &format!("<ping xmlns='{PING}'/>")).await?;
    let mut there = world.person(near.other(), Host::Main, number).await?;
    for at in 0..5 {
        let got =
            there.wait("an offline message", |e| e.name == "message" && e.get("body").is_some()).await?;
        if body(&got) != format!("line {at}") || got.attr("from") != Some(&here.jid) {
            return wrong(format!("expected line {at}, got {got}"));
        }
        if got.child("delay", "urn:xmpp:delay").is_none() {
            return wrong(format!("an offline message without its time: {got}"));
        }
    }
    leave([here, there]).await
}

pub(super) async fn blocking(world: &mut World, near: Side, number: usize) -> Result<(), Error> {
    let (mut here, mut there) = pair(world, near, number).await?;
    // To the bare JID: Prosody does not answer for a full one, so that nobody learns by it which resources are there.
    let (me, you) = (bare(&here), bare(&there));
    there.iq_ok("set", "", &format!("<block xmlns='{BLOCKING}'><item jid='{me}'/></block>")).await?;
    say(&mut here, &you, "blocked", "do you hear me?").await?;
    let error =
        here.wait("the error", |e| e.attr("type") == Some("error") && e.attr("id") == Some("blocked"));
    let error = error.await?;
    if error.find("service-unavailable", STANZAS).is_none() {
        return wrong(format!("XEP-0191 wants <service-unavailable/>: {error}"));
    }
    there.iq_ok("set", "", &format!("<unblock xmlns='{BLOCKING}'><item jid='{me}'/></unblock>")).await?;
    say(&mut here, &you, "heard", "and now?").await?;
    let got = there.wait("a message", |e| e.name == "message" && e.get("body").is_some()).await?;
    if body(&got) != "and now?" {
        return wrong(format!("a blocked message: {got}"));
    }
    leave([here, there]).await
}

pub(super) async fn vcard(world: &mut World, near: Side, number: usize) -> Result<(), Error> {
    let (mut here, mut there) = pair(world, near, number).await?;
    there.iq_ok("set", "", &format!("<vCard xmlns='{VCARD}'><FN>Robin &amp; Wren</FN></vCard>")).await?;
    let answer = here.iq_ok("get", &bare(&there), &format!("<vCard xmlns='{VCARD}'/>")).await?;
    if answer.find("FN", VCARD).map(Element::text).as_deref() != Some("Robin & Wren") {
        return wrong(format!("not that vCard: {answer}"));
    }
    leave([here, there]).await
}

pub(super) async fn ping(world: &mut World, near: Side, number: usize) -> Result<(), Error> {
    let (mut here, mut there) = pair(world, near, number).await?;
    here.iq_ok("get", &Host::Main.domain(near.other()), &format!("<ping xmlns='{PING}'/>")).await?;
    let you = there.jid.clone();
    here.send(&format!("<iq type='get' id='to-client' to='{you}'><ping xmlns='{PING}'/></iq>")).await?;
    let asked = there.wait("the ping", |e| e.name == "iq" && e.child("ping", PING).is_some()).await?;
    let (id, from) = (asked.attr("id").unwrap_or_default(), asked.attr("from").unwrap_or_default());
    if from != here.jid {
        return wrong(format!("a ping of somebody else: {asked}"));
    }
    there.send(&format!("<iq type='result' id='{}' to='{from}'/>", escape(id))).await?;
    let answer = here.answer("to-client").await?;
    if answer.attr("type") != Some("result") || answer.attr("from") != Some(&you) {
        return wrong(format!("not the answer of that client: {answer}"));
    }
    leave([here, there]).await
}

pub(super) async fn disco(world: &mut World, near: Side, number: usize) -> Result<(), Error> {
    let (mut here, there) = pair(world, near, number).await?;
    let domain = Host::Main.domain(near.other());
    let info = here.iq_ok("get", &domain, &format!("<query xmlns='{INFO}'/>")).await?;
    let query = info.child("query", INFO);
    let server = query.is_some_and(|q| q.children().any(|c| c.attr("category") == Some("server")));
    if !server || info.attr("from") != Some(&domain) {
        return wrong(format!("not what a server says: {info}"));
    }
    here.iq_ok("get", &domain, &format!("<query xmlns='{ITEMS}'/>")).await?;
    here.iq_ok("get", &domain, "<query xmlns='jabber:iq:version'/>").await?;
    leave([here, there]).await
}

pub(super) async fn no_such_user(world: &mut World, near: Side, number: usize) -> Result<(), Error> {
    let mut here = world.person(near, Host::Main, number).await?;
    let nobody = format!("nobody@{}", Host::Main.domain(near.other()));
    say(&mut here, &nobody, "to-nobody", "hello?").await?;
    let error = here.wait("the error", |e| e.name == "message" && e.attr("id") == Some("to-nobody")).await?;
    if error.attr("type") != Some("error") || error.attr("from") != Some(&nobody) {
        return wrong(format!("not an error of nobody: {error}"));
    }
    let answer = here.iq("get", &nobody, &format!("<vCard xmlns='{VCARD}'/>")).await?;
    let empty = answer.child("vCard", VCARD).is_some_and(|card| card.children().next().is_none());
    if answer.attr("type") != Some("error") && !empty {
        return wrong(format!("nobody has a vCard: {answer}"));
    }
    here.close().await?;
    Ok(())
}

/// The namespace of stanza errors' conditions.
pub(super) const STANZAS: &str = "urn:ietf:params:xml:ns:xmpp-stanzas";

/// The same user on both servers.
async fn pair(world: &World, near: Side, number: usize) -> Result<(Client, Client), Error> {
    let here = world.person(near, Host::Main, number).await?;
    Ok((here, world.person(near.other(), Host::Main, number).await?))
}

pub(super) async fn say(client: &mut Client, to: &str, id: &str, text: &str) -> Result<(), Error> {
    let text = escape(text);
    Ok(client
        .send(&format!("<message to='{to}' type='chat' id='{id}'><body>{text}</body></message>"))
        .await?)
}

/// The message with that id, error or not.
pub(super) async fn hear(client: &mut Client, id: &str) -> Result<Element, Error> {
    let wanted = |e: &Element| e.is("message", CLIENT) && e.attr("id") == Some(id);
    Ok(client.wait(&format!("message {id}"), wanted).await?)
}

pub(super) fn body(message: &Element) -> String {
    message.get("body").map(Element::text).unwrap_or_default()
}

async fn presence(client: &mut Client, from: &str, kind: Option<&str>) -> Result<Element, Error> {
    let wanted = |e: &Element| e.name == "presence" && e.attr("from") == Some(from) && e.attr("type") == kind;
    Ok(client.wait(&format!("presence {} from {from}", kind.unwrap_or("available")), wanted).await?)
}

async fn pushed(client: &mut Client, contact: &str, subscription: &str) -> Result<(), Error> {
    let wanted = |e: &Element| {
        e.name == "iq"
            && e.child("query", ROSTER).is_some_and(|query| {
                query.children().any(|item| {
                    item.attr("jid") == Some(contact) && item.attr("subscription") == Some(subscription)
                })
            })
    };
    client.wait(&format!("{contact} as {subscription} in the roster"), wanted).await?;
    Ok(())
}

pub(super) fn bare(client: &Client) -> String {
    client.jid.split('/').next().unwrap_or_default().to_owned()
}

pub(super) async fn leave<const N: usize>(clients: [Client; N]) -> Result<(), Error> {
    for client in clients {
        client.close().await?;
    }
    Ok(())
}
