//! `[[component]]`: external components (XEP-0114), with what they may do (XEP-0356) and answer (XEP-0355); and what domains list.

use std::net::SocketAddr;
use std::path::Path;

use rookery_actors::options::{Access, Component, Delegation, DiscoItem, PresenceAccess, Privileges, Secret};
use rookery_proto::xmpp::jid::Jid;
use toml::de::DeTable;

use super::read::{Found, Reader, Section};
use super::{Domain, Listen};

/// The shortest secret.
const SHORTEST: usize = 8;

/// What the components must agree with.
pub(super) struct Around<'a> {
    pub(super) base: &'a Path,
    pub(super) listen: &'a Listen,
    pub(super) domains: &'a [Domain],
    /// Another node may have the listener.
    pub(super) clustered: bool,
}

pub(super) fn read(r: &mut Reader<'_>, file: &DeTable<'_>, around: &Around<'_>) -> Vec<Component> {
    let mut all: Vec<Component> = Vec::new();
    for (section, _) in r.sections(file, "component") {
        let name = name(r, &section);
        let line = if name.line > 0 { name.line } else { section.line };
        if around.domains.iter().any(|domain| domain.name == name.value) {
            let remedy = "give the component a name of its own, as in \"irc.example.org\"";
            r.problem(line, "component.name", format!("{} is a domain of users", name.value), remedy);
        } else if all.iter().any(|other| other.name == name.value) {
            let what = format!("{} is listed twice", name.value);
            r.problem(line, "component.name", what, "remove one of the two");
        }
        let privileges = privileges(r, &section);
        let delegations = delegations(r, &section);
        let domains = covered(r, &section, around.domains);
        let secret = secret(r, &section, around.base);
        let component = Component { name: name.value, secret, domains, privileges, delegations };
        for other in &all {
            twice(r, &section, &component, other, around.domains);
        }
        all.push(component);
    }
    let listens = !around.listen.component.is_empty() || !around.listen.component_tls.is_empty();
    if let Some(first) = all.first().filter(|_| !listens && !around.clustered) {
        let what = format!("{} cannot connect: no address is listened on for components", first.name);
        r.problem(0, "listen.component", what, "add component = [\"127.0.0.1:5347\"] to [listen]");
    }
    all
}

fn name(r: &mut Reader<'_>, section: &Section<'_, '_>) -> Found<String> {
    let Found { value, line } = r.text(section, "name");
    match Jid::parse(&value) {
        Ok(jid) if jid.local().is_none() && jid.resource().is_none() => {
            Found { value: jid.domain().to_owned(), line }
        }
        _ => {
            let at = if line > 0 { line } else { section.line };
            let remedy = "write the component's domain, as in \"irc.example.org\"";
            r.problem(at, "component.name", format!("is {value:?}"), remedy);
            Found { value, line }
        }
    }
}

fn secret(r: &mut Reader<'_>, section: &Section<'_, '_>, base: &Path) -> Secret {
    let (text, file) = (r.text(section, "secret"), r.text(section, "secret_file"));
    let (value, line) = match (text.value.is_empty(), file.value.is_empty()) {
        (false, true) => (text.value, text.line),
        (true, false) => {
            let path = base.join(&file.value);
            match std::fs::read_to_string(&path) {
                Ok(value) => (value.trim().to_owned(), file.line),
                Err(error) => {
                    let what = format!("{} cannot be read: {error}", path.display());
                    let remedy = "correct the path, or let the user that runs rookery read the file";
                    r.problem(file.line, "component.secret_file", what, remedy);
                    return Secret::new("");
                }
            }
        }
        (true, true) => {
            let remedy = "write the secret that the component's own configuration has, or the path of a file with the secret";
            r.problem(section.line, "component.secret", "is missing", remedy);
            return Secret::new("");
        }
        (false, false) => {
            r.problem(file.line, "component.secret_file", "stands beside secret", "remove one of the two");
            return Secret::new("");
        }
    };
    if value.chars().count() < SHORTEST {
        let remedy = "write a random secret, as from `openssl rand -hex 16`";
        r.problem(line, "component.secret", format!("is shorter than {SHORTEST} characters"), remedy);
    }
    Secret::new(value)
}

/// The domains that the component is for; none: all.
fn covered(r: &mut Reader<'_>, section: &Section<'_, '_>, served: &[Domain]) -> Vec<String> {
    let mut all = Vec::new();
    for Found { value, line } in r.list(section, "domains") {
        let name = Jid::parse(&value).map(|jid| jid.domain().to_owned()).unwrap_or_default();
        if served.iter().any(|domain| domain.name == name) {
            all.push(name);
        } else {
            let what = format!("{value:?} is not served");
            r.problem(line, "component.domains", what, "write the name of a [[domain]]");
        }
    }
    all
}

const PRIVILEGES: &str = "write \"roster get\", \"roster set\" or \"roster both\" (with \" no-push\" behind it if wanted), \"message outgoing\", \"presence managed_entity\" or \"presence roster\", or \"iq get\", \"iq set\" or \"iq both\" and a namespace";

fn privileges(r: &mut Reader<'_>, section: &Section<'_, '_>) -> Privileges {
    let mut all = Privileges::default();
    let mut roster_presence = None;
    for Found { value, line } in r.list(section, "privileges") {
        let words: Vec<&str> = value.split_ascii_whitespace().collect();
        match words[..] {
            ["roster", access] | ["roster", access, "no-push"] if Access::from_name(access).is_some() => {
                all.roster = Access::from_name(access).unwrap_or_default();
                all.roster_push = all.roster.get && words.len() == 2;
            }
            ["message", "outgoing"] => all.message = true,
            ["presence", "managed_entity"] => all.presence = PresenceAccess::ManagedEntity,
            ["presence", "roster"] => {
                all.presence = PresenceAccess::Roster;
                roster_presence = Some(line);
            }
            ["iq", access, ns] if Access::from_name(access).is_some() => {
                all.iq.push((ns.to_owned(), Access::from_name(access).unwrap_or_default()));
            }
            _ => r.problem(line, "component.privileges", format!("is {value:?}"), PRIVILEGES),
        }
    }
    if let Some(line) = roster_presence.filter(|_| !all.roster.get) {
        let what = "\"presence roster\" needs the right to read rosters (XEP-0356 section 7.4)";
        r.problem(line, "component.privileges", what, "add \"roster get\" or \"roster both\"");
    }
    all
}

fn delegations(r: &mut Reader<'_>, section: &Section<'_, '_>) -> Vec<Delegation> {
    let mut all: Vec<Delegation> = Vec::new();
    for Found { value, line } in r.list(section, "delegations") {
        let mut words = value.split_ascii_whitespace().map(str::to_owned);
        match words.next() {
            Some(ns) if all.iter().any(|other| other.ns == ns) => {
                let what = format!("{ns} is listed twice");
                r.problem(line, "component.delegations", what, "remove one of the two");
            }
            Some(ns) => all.push(Delegation { ns, attributes: words.collect() }),
            None => {
                let remedy = "write a namespace, and the attributes that a request must have, as in \"urn:xmpp:mam:2 node\"";
                r.problem(line, "component.delegations", "is empty", remedy);
            }
        }
    }
    all
}

/// A namespace has one component for each domain.
fn twice(
    r: &mut Reader<'_>,
    section: &Section<'_, '_>,
    component: &Component,
    other: &Component,
    served: &[Domain],
) {
    let both = |domain: &&Domain| component.covers(&domain.name) && other.covers(&domain.name);
    let Some(domain) = served.iter().find(both) else { return };
    for delegation in &component.delegations {
        if other.delegations.iter().any(|own| own.ns == delegation.ns) {
            let what = format!("{} has {} for {} already", other.name, delegation.ns, domain.name);
            let remedy = "delegate a namespace to one component";
            r.problem(section.line, "component.delegations", what, remedy);
        }
    }
}

/// What a domain lists: a JID, and the name for people behind it.
pub(super) fn disco_items(r: &mut Reader<'_>, section: &Section<'_, '_>, domain: &str) -> Vec<DiscoItem> {
    let mut all = Vec::new();
    for Found { value, line } in r.list(section, "disco_items") {
        let (jid, name) = value.split_once(char::is_whitespace).unwrap_or((&value, ""));
        match Jid::parse(jid) {
            Ok(jid) => {
                all.push(DiscoItem { domain: domain.to_owned(), jid, name: name.trim().to_owned() });
            }
            Err(_) => {
                let remedy = "write a JID and a name, as in \"conference.example.net Rooms of a friend\"";
                r.problem(line, "domain.disco_items", format!("is {value:?}"), remedy);
            }
        }
    }
    all
}

/// The secret of a component passes over the wire as a digest that can be guessed at leisure, and so does all that it is sent.
pub(super) fn only_loopback(r: &mut Reader<'_>, line: usize, all: &[SocketAddr]) {
    for at in all.iter().filter(|at| !at.ip().is_loopback()) {
        let what = format!("{at} is not a loopback address, and components there are in the clear");
        let remedy = "write \"127.0.0.1:5347\", or use listen.component_tls for components on other machines";
        r.problem(line, "listen.component", what, remedy);
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::super::parse;
    use super::*;

    fn component(more: &str) -> Result<Component, Vec<(usize, String)>> {
        let text = format!(
            "[listen]\ncomponent = ['127.0.0.1:5347']\n[[domain]]\nname = 'a.example'\nself_signed = true\n[[component]]\n{more}"
        );
        match parse(&text, Path::new("/")) {
            Ok(mut config) => Ok(config.components.remove(0)),
            Err(problems) => Err(problems.into_iter().map(|p| (p.line, p.option)).collect()),
        }
    }

    #[test]
    fn what_a_component_may() {
        let read = component(
            "name = 'IRC.a.example'\nsecret = 'a long secret'\nprivileges = ['roster both', 'message outgoing', 'presence roster', 'iq set urn:x']\ndelegations = ['urn:y', 'urn:z node']",
        )
        .unwrap();
        assert_eq!(read.name, "irc.a.example");
        assert_eq!(read.secret, Secret::new("a long secret"));
        let privileges = read.privileges;
        assert!(privileges.roster.get && privileges.roster.set && privileges.roster_push);
        assert!(privileges.message && privileges.presence == PresenceAccess::Roster);
        assert_eq!(privileges.iq("urn:x"), Access { get: false, set: true });
        assert_eq!(privileges.iq("urn:other"), Access::default());
        assert_eq!(read.delegations[1], Delegation { ns: "urn:z".into(), attributes: vec!["node".into()] });
        let quiet = component("name='b.example'\nsecret='a long secret'\nprivileges=['roster get no-push']");
        assert!(!quiet.unwrap().privileges.roster_push);
    }

    #[test]
    fn what_is_refused() {
        let problem = |more: &str| component(more).unwrap_err().remove(0);
        let named = "name = 'b.example'\n";
        for (more, line, option) in [
            ("secret = 'a long secret'".to_owned(), 6, "component.name"),
            ("name = 'x@b.example'\nsecret = 'a long secret'".to_owned(), 7, "component.name"),
            ("name = 'a.example'\nsecret = 'a long secret'".to_owned(), 7, "component.name"),
            (named.to_owned(), 6, "component.secret"),
            (format!("{named}secret = 'short'"), 8, "component.secret"),
            (format!("{named}secret_file = '/nowhere/at/all'"), 8, "component.secret_file"),
            (format!("{named}secret = 'a long secret'\nsecret_file = 'x'"), 9, "component.secret_file"),
            (
                format!("{named}secret = 'a long secret'\nprivileges = ['roster all']"),
                9,
                "component.privileges",
            ),
            (
                format!("{named}secret = 'a long secret'\nprivileges = ['presence roster']"),
                9,
                "component.privileges",
            ),
            (format!("{named}secret = 'a long secret'\ndomains = ['c.example']"), 9, "component.domains"),
            (format!("{named}secret = 'a long secret'\ndelegations = ['']"), 9, "component.delegations"),
        ] {
            assert_eq!(problem(&more), (line, option.to_owned()), "{more}");
        }
        let two = |more: &str| {
            component(&format!(
                "name='b.example'\nsecret='a long secret'\ndelegations=['urn:x']\n[[component]]\nname='c.example'\nsecret='a long secret'\ndelegations=['urn:x']\n{more}"
            ))
        };
        assert_eq!(two("").unwrap_err(), [(10, "component.delegations".to_owned())]);
    }

    #[test]
    fn listeners() {
        let problems = |listen: &str, more: &str| -> Vec<(usize, String)> {
            let text =
                format!("[listen]\n{listen}\n[[domain]]\nname = 'a.example'\nself_signed = true\n{more}");
            let problems = parse(&text, Path::new("/")).map(drop).unwrap_err();
            problems.into_iter().map(|p| (p.line, p.option)).collect()
        };
        let one = "[[component]]\nname = 'b.example'\nsecret = 'a long secret'";
        assert_eq!(problems("", one), [(0, "listen.component".to_owned())]);
        assert_eq!(problems("component = ['[::]:5347']", one), [(1, "listen.component".to_owned())]);
        assert_eq!(problems("", "disco_items = ['@']"), [(6, "domain.disco_items".to_owned())]);
    }
}
