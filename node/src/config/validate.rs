//! From the tables of the file to a valid [`Config`].

use std::path::Path;

use toml::de::DeTable;

use super::listen::{listen, twice};
use super::problem::Problem;
use super::read::Reader;
use super::values::{count, secs, size, traffic};
use super::{
    Archive, ArchiveDefault, Config, Limits, Log, Sasl, acme, cluster, components, domain, federation,
    remote, store,
};

/// The defaults of the list; the domains are empty.
pub(super) fn defaults() -> Config {
    let mut reader = Reader::new("");
    read(&mut reader, &DeTable::new(), Path::new(""))
}

pub(super) fn parse(text: &str, base: &Path) -> Result<Config, Vec<Problem>> {
    let mut reader = Reader::new(text);
    let (table, errors) = DeTable::parse_recoverable(text);
    for error in &errors {
        let line = error.span().map_or(0, |span| reader.line(&span));
        reader.problem(line, "", error.message(), "see https://toml.io for the syntax");
    }
    let config = read(&mut reader, table.get_ref(), base);
    let blamed = reader.problems.iter().any(|p| p.option.starts_with("domain"));
    if config.domains.is_empty() && errors.is_empty() && !blamed {
        reader.problem(0, "domain", "no domain is served", "add [[domain]] with name = \"example.org\"");
    }
    if reader.problems.is_empty() {
        return Ok(config);
    }
    let mut problems = reader.problems;
    problems.sort_by_key(|p| p.line);
    Err(problems)
}

fn read(r: &mut Reader<'_>, file: &DeTable<'_>, base: &Path) -> Config {
    let top = r.top(file);
    let data_dir = base.join(r.text(&top, "data_dir").value);
    let store = store::read(r, file, base);
    let (mut listen, s2s, line) = listen(r, file, base, &data_dir);
    let federation = federation::read(r, file, s2s);
    if !federation.enabled {
        (listen.s2s, listen.s2s_tls) = (Vec::new(), Vec::new());
    }
    twice(r, &listen, line);
    let cluster = cluster::read(
        r,
        file,
        &cluster::Around { base, data_dir: &data_dir, store: &store, listen: &listen },
    );
    if let Some(cluster) = &cluster {
        listen.public = listen.public.map(|public| cluster::expand(&public, &cluster.node));
    }
    let acme = acme::read(r, file, base, &listen);
    let domains = domain::read(r, file, base, &domain::Sources { acme: &acme, listen: &listen });
    let around =
        components::Around { base, listen: &listen, domains: &domains, clustered: cluster.is_some() };
    Config {
        file: None,
        components: components::read(r, file, &around),
        domains,
        store,
        listen,
        cluster,
        federation,
        acme: acme.unwrap_or_default(),
        archive: archive(r, file),
        sasl: sasl(r, file),
        resume: {
            let section = r.section(file, "session");
            secs(r, &section, "resume_seconds")
        },
        limits: limits(r, file),
        dns: remote::dns(r, file, base),
        authorities: remote::authorities(r, file, base),
        log: log(r, file),
        data_dir,
    }
}

fn archive(r: &mut Reader<'_>, file: &DeTable<'_>) -> Archive {
    let section = r.section(file, "archive");
    Archive {
        default: match r.text(&section, "default").value.as_str() {
            "never" => ArchiveDefault::Never,
            "roster" => ArchiveDefault::Roster,
            _ => ArchiveDefault::Always,
        },
        retention_days: u32::try_from(r.number(&section, "retention_days").value).ok().filter(|d| *d > 0),
        quota: r.number(&section, "quota_megabytes").value.saturating_mul(1 << 20),
        oldest_go: r.text(&section, "when_full").value != "refuse",
    }
}

fn sasl(r: &mut Reader<'_>, file: &DeTable<'_>) -> Sasl {
    let section = r.section(file, "sasl");
    Sasl {
        iterations: count(r, &section, "iterations"),
        plain: r.flag(&section, "plain").value,
        downgrade_protection: r.flag(&section, "downgrade_protection").value,
    }
}

fn limits(r: &mut Reader<'_>, file: &DeTable<'_>) -> Limits {
    let s = r.section(file, "limits");
    let limits = Limits {
        connections: size(r, &s, "connections"),
        connections_per_address: size(r, &s, "connections_per_address"),
        connections_before_login: size(r, &s, "connections_before_login"),
        connections_before_login_per_address: size(r, &s, "connections_before_login_per_address"),
        login: secs(r, &s, "login_seconds"),
        login_attempts: count(r, &s, "login_attempts"),
        login_failures_per_account: count(r, &s, "login_failures_per_account"),
        login_failures_per_address: count(r, &s, "login_failures_per_address"),
        login_delay: secs(r, &s, "login_delay_seconds"),
        registrations_per_hour: count(r, &s, "registrations_per_hour"),
        password_changes_per_hour: count(r, &s, "password_changes_per_hour"),
        stanza_bytes_before_login: size(r, &s, "stanza_bytes_before_login"),
        stanza_bytes: size(r, &s, "stanza_bytes"),
        stanza_depth: size(r, &s, "stanza_depth"),
        traffic: traffic(r, &s),
        idle: secs(r, &s, "idle_seconds"),
        answer: secs(r, &s, "answer_seconds"),
        close: secs(r, &s, "close_seconds"),
        sessions_per_user: size(r, &s, "sessions_per_user"),
        roster_items: size(r, &s, "roster_items"),
        roster_groups: size(r, &s, "roster_groups"),
        roster_item_bytes: size(r, &s, "roster_item_bytes"),
        roster_bytes: size(r, &s, "roster_bytes"),
        requests: size(r, &s, "requests"),
        request_bytes: size(r, &s, "request_bytes"),
        blocked: size(r, &s, "blocked"),
        private_bytes: size(r, &s, "private_bytes"),
        vcard_bytes: size(r, &s, "vcard_bytes"),
        private_items: size(r, &s, "private_items"),
        directed_presences: size(r, &s, "directed_presences"),
        unacked_stanzas: size(r, &s, "unacked_stanzas"),
        unacked_bytes: size(r, &s, "unacked_bytes"),
        waiting_bytes_per_account: size(r, &s, "waiting_bytes_per_account"),
        waiting_bytes: size(r, &s, "waiting_bytes"),
        offline_messages: size(r, &s, "offline_messages"),
        component_bytes_per_second: r.number(&s, "component_bytes_per_second").value,
        component_stanzas_per_second: r.number(&s, "component_stanzas_per_second").value,
        component_queue_stanzas: size(r, &s, "component_queue_stanzas"),
        component_queue_bytes: size(r, &s, "component_queue_bytes"),
        component_wait: secs(r, &s, "component_wait_seconds"),
        archive_page: size(r, &s, "archive_page"),
    };
    if limits.stanza_bytes_before_login > limits.stanza_bytes {
        let remedy = "before login a client gets no more than after it";
        r.problem(s.line, "limits.stanza_bytes_before_login", "is larger than limits.stanza_bytes", remedy);
    }
    limits
}

fn log(r: &mut Reader<'_>, file: &DeTable<'_>) -> Log {
    let section = r.section(file, "log");
    let level = r.text(&section, "level");
    if let Err(error) = rookery_ops::logging::check(&level.value) {
        r.problem(
            level.line,
            "log.level",
            error.to_string(),
            "write \"info\", or directives as in \"info,rookery_actors=debug\"",
        );
    }
    Log { level: level.value, json: r.text(&section, "format").value == "json" }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(text: &str) -> Vec<(usize, String)> {
        let problems = parse(text, Path::new("/")).unwrap_err();
        problems.into_iter().map(|p| (p.line, p.option)).collect()
    }

    #[test]
    fn the_file_of_the_documentation() {
        let text = r#"
data_dir = "/var/lib/rookery"
[store]
url = "embedded:"
durability = "buffered"
[listen]
c2s = ["[::]:5222"]
c2s_tls = ["[::]:5223"]
http = ["127.0.0.1:5280"]
admin = "unix:/run/rookery/admin.sock"
proxy_protocol = true
proxy_trusted = ["10.0.0.0/8"]
public = "node1.example.org:5222"
[[domain]]
name = "Example.ORG"
self_signed = true
registration = "open"
[domain.contact]
abuse = ["mailto:abuse@example.org"]
[[domain]]
name = "example.net"
self_signed = true
[archive]
default = "roster"
retention_days = 30
quota_megabytes = 2
when_full = "refuse"
[limits]
stanza_bytes = 100_000
"#;
        let config = parse(text, Path::new("/etc/rookery")).unwrap();
        assert_eq!(config.domains[0].name, "example.org");
        assert!(config.domains[0].registration && !config.domains[1].registration);
        assert_eq!(config.domains[0].contact, [("abuse", "mailto:abuse@example.org".to_owned())]);
        let (default, retention_days) = (ArchiveDefault::Roster, Some(30));
        assert_eq!(config.archive, Archive { default, retention_days, quota: 2 << 20, oldest_go: false });
        assert_eq!((config.limits.stanza_bytes, config.limits.stanza_depth), (100_000, 64));
        assert!(!config.store.sync);
        assert_eq!(config.listen.proxy.as_ref().map(Vec::len), Some(1));
    }

    #[test]
    fn all_problems_at_once_with_their_lines() {
        let text = r#"data_dir = 7
colour = "red"
[listen]
c2s = ["localhost:5222", "[::]:0"]
admin = "/run/x"
proxy_trusted = ["10.0.0.1/8"]
[[domain]]
registration = "maybe"
certificate = "/nowhere/at/all.pem"
[limits]
stanza_bytes = 1
stanzas = 5
[domain.contact]
abuse = ["call me"]
"#;
        let found = lines(text);
        let want: Vec<(usize, &str)> = vec![
            (1, "data_dir"),
            (2, "colour"),
            (4, "listen.c2s"),
            (5, "listen.admin"),
            (6, "listen.proxy_trusted"),
            (7, "domain.name"),
            (8, "domain.registration"),
            (9, "domain.key"),
            (9, "domain.certificate"),
            (11, "limits.stanza_bytes"),
            (12, "limits.stanzas"),
            (14, "domain.contact.abuse"),
        ];
        let found: Vec<(usize, &str)> = found.iter().map(|(l, o)| (*l, o.as_str())).collect();
        for item in &want {
            assert!(found.contains(item), "{item:?} is not in {found:#?}");
        }
        assert_eq!(found.len(), want.len(), "{found:#?}");
    }

    #[test]
    fn syntax_domains_and_relations() {
        assert_eq!(lines("data_dir = \n[[domain]]\nname='a.example'\n")[0].0, 1);
        assert_eq!(lines(""), [(0, "domain".to_owned())]);
        assert_eq!(
            lines(
                "[[domain]]\nname='a.example'\nself_signed=true\n[[domain]]\nname='A.example'\nself_signed=true"
            )[0],
            (5, "domain.name".to_owned())
        );
        assert_eq!(lines("[[domain]]\nname='a@b/c'\nself_signed=true")[0], (2, "domain.name".to_owned()));
        assert_eq!(lines("domain = 'x'")[0], (1, "domain".to_owned()));
        let same = "[listen]\nc2s=['127.0.0.1:1']\nhttp=['127.0.0.1:1']\n[[domain]]\nname='a.example'\nself_signed=true";
        assert_eq!(lines(same), [(1, "listen".to_owned())]);
    }

    #[test]
    fn development_defaults() {
        let config = Config::development();
        assert!(
            config
                .listen
                .c2s
                .iter()
                .chain(&config.listen.c2s_tls)
                .chain(&config.listen.http)
                .all(|a| a.ip().is_loopback())
        );
        assert!(config.domains[0].registration && config.store.sync);
        assert_eq!(config.listen.admin, Path::new("rookery-data/admin.sock"));
        assert_eq!(config.limits.stanza_bytes, 262_144);
    }
}
