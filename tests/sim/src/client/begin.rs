//! How a connection begins: bound and managed, or resumed.

use super::device::{Life, What};
use super::habits::talk;
use super::{Client, End, Running};
use crate::chance::now;
use crate::reading::attribute;
use crate::world::jid;

impl Running<'_> {
    /// After the bind. Some talk at once, and manage their stream then; some do not wait for the answer to that.
    pub(super) fn begin(&mut self) {
        let begun = self.visit.with(|client| {
            client.end_life(End::Replaced);
            let short = client.traits.max.is_some();
            client.lives.push(Life { short, ..Life::default() });
            client.seen.clear();
            (client.handled, client.acked, client.greeted) = (0, 0, false);
            (client.roster, client.hides) = (None, None);
            (client.leaving, client.refused) = (false, 0);
            (client.asked, client.answered) = (false, false);
            let before = if client.chance.hits(400) { 1 + client.chance.below(4) } else { 0 };
            let before = if self.visit.world.quiet() { 0 } else { before };
            (std::mem::take(&mut client.unacked), before, client.chance.hits(500), client.traits.max)
        });
        let Some((unacked, before, at_once, max)) = begun else { return };
        // What it had sent and was not told of, nobody knows.
        for (_, what, _) in unacked {
            match what {
                What::Message(n) => self.doubt(n),
                What::Line(n) => crate::toys::doubt(&self.visit.world, n),
                What::Far(n) => crate::foreign::clients::doubt(&self.visit.world, n),
                _ => {}
            }
        }
        for _ in 0..before {
            let Some((xml, message)) = self.visit.with(|client| talk(&self.visit.world, client)) else {
                return;
            };
            self.visit.note(format_args!("says unmanaged {xml}"));
            self.doubt(message);
            self.up(&xml);
        }
        self.link.enable(true, max);
        if at_once {
            self.visit.world.log.count("sent behind an <enable/> in flight");
            self.greet();
        }
    }

    /// Whether this message comes is nobody's promise.
    fn doubt(&self, message: usize) {
        if let Some(sent) = self.visit.world.messages.lock().get_mut(message) {
            sent.doubtful = true;
        }
    }

    /// Says that it is there, asks for its roster, and for the presence of others.
    fn greet(&self) {
        let Some(((xml, what), carbons)) = self.visit.with(|client| {
            client.greeted = true;
            (client.show(true), client.traits.carbons)
        }) else {
            return;
        };
        if carbons {
            self.send(
                "<iq type='set' id='carbons'><enable xmlns='urn:xmpp:carbons:2'/></iq>".into(),
                What::Other,
            );
        }
        self.send(xml, what);
        self.send("<iq type='get' id='roster'><query xmlns='jabber:iq:roster'/></iq>".into(), What::Other);
        let contacts = self.visit.with(|client| {
            let first = client.resource == "a" && client.lives.len() == 1;
            first.then_some(client.user)
        });
        if let Some(Some(user)) = contacts {
            for step in [1, 2] {
                let to = jid((user + step) % self.visit.world.plan.users);
                self.send(format!("<presence type='subscribe' to='{to}'/>"), What::Other);
            }
        }
    }

    pub(super) fn enabled(&self, xml: &str) {
        let greeted = self.visit.with(|client| {
            (client.handled, client.live) = (0, true);
            client.refused = 0;
            client.id = attribute(xml, "id").unwrap_or_default();
            client.greeted
        });
        self.visit.note("is bound");
        if greeted == Some(false) {
            self.greet();
        }
    }

    pub(super) fn resumed(&self, xml: &str) {
        if !xml.starts_with("<resumed") {
            return;
        }
        let h: u32 = attribute(xml, "h").and_then(|h| h.parse().ok()).unwrap_or(u32::MAX);
        self.visit.note(format_args!("is resumed with {h}"));
        self.acked(h);
        let again = self.visit.with(|client| {
            self.count_resumption(client);
            client.live = true;
            client.refused = 0;
            client.unacked.iter_mut().for_each(|(_, _, since)| *since = now());
            client.unacked.iter().map(|(xml, _, _)| xml.clone()).collect::<Vec<_>>()
        });
        for xml in again.unwrap_or_default() {
            self.up(&xml);
        }
    }

    fn count_resumption(&self, client: &mut Client) {
        let log = &self.visit.world.log;
        let home = self.home(client.user);
        log.count("resumed");
        if std::mem::take(&mut client.was_drained) {
            log.count("resumed after drain");
        }
        let moved = client.home.is_some() && client.home != home;
        match (std::mem::take(&mut client.lost_node), moved) {
            (true, true) => log.count("resumed after double loss"),
            (true, false) => log.count("resumed after the loss of the node"),
            (false, true) => log.count("resumed at a new home"),
            (false, false) => {}
        }
        client.home = home;
    }
}
