//! Which domains are found and trusted, and what happens to messages for those that are not.

use super::everyday::{STANZAS, hear, leave, say, talk};
use super::{Error, wrong};
use crate::peers::{Host, Side, World};

/// Messages from the near main domain to that domain of the far server, and back.
pub(super) async fn good(world: &mut World, near: Side, number: usize, host: Host) -> Result<(), Error> {
    let mut here = world.person(near, Host::Main, number).await?;
    let mut there = world.person(near.other(), host, number).await?;
    talk(&mut here, &mut there, 5).await?;
    talk(&mut there, &mut here, 5).await?;
    leave([here, there]).await
}

/// Neither is the domain of the far server sent anything, nor is anything taken from it. Both senders are told.
pub(super) async fn bad(world: &mut World, near: Side, number: usize, host: Host) -> Result<(), Error> {
    let mut here = world.person(near, Host::Main, number).await?;
    let mut there = world.person(near.other(), host, number).await?;
    let (me, you) = (here.jid.clone(), there.jid.clone());
    say(&mut here, &you, "to-the-bad", "secret").await?;
    say(&mut there, &me, "from-the-bad", "forged").await?;
    for (client, id) in [(&mut here, "to-the-bad"), (&mut there, "from-the-bad")] {
        let error = hear(client, id).await?;
        if error.attr("type") != Some("error") {
            return wrong(format!("not an error: {error}"));
        }
    }
    // The errors are there: what was let through by mistake would have come before.
    for client in [&here, &there] {
        let through = |e: &&crate::xml::Element| e.name == "message" && e.attr("type") != Some("error");
        if let Some(message) = client.kept.iter().find(through) {
            return wrong(format!("came through: {message}"));
        }
    }
    leave([here, there]).await
}

/// A message to a domain that has no server comes back at once.
pub(super) async fn nowhere(world: &mut World, near: Side, number: usize, domain: &str) -> Result<(), Error> {
    let mut here = world.person(near, Host::Main, number).await?;
    say(&mut here, &format!("somebody@{domain}"), "lost", "hello?").await?;
    let error = hear(&mut here, "lost").await?;
    if error.find("remote-server-not-found", STANZAS).is_none() {
        return wrong(format!("RFC 6120 wants <remote-server-not-found/>: {error}"));
    }
    leave([here]).await
}
