//! From the configuration to what users and sessions look at.

use std::time::Duration;

use rookery_actors::options::{self, Options};

use crate::config::{ArchiveDefault, Config};

/// The options of the host.
pub fn host(config: &Config) -> Options {
    let limits = &config.limits;
    let domain = |domain: &crate::config::Domain| options::Domain {
        name: domain.name.clone(),
        open_registration: domain.registration,
        contact: domain.contact.iter().map(|(kind, uri)| ((*kind).to_owned(), uri.clone())).collect(),
    };
    let outage = |domain: &crate::config::Domain| {
        let url = |url: &String| (domain.name.clone(), url.clone());
        domain.outage_status.iter().map(url).collect::<Vec<_>>()
    };
    let service = |component: &options::Component| options::Service {
        name: component.name.clone(),
        kind: rookery_actors::component::KIND,
        whole: true,
    };
    Options {
        federation: config.federation.enabled.then(|| federation(&config.federation)),
        archive: match config.archive.default {
            ArchiveDefault::Always => options::Archive::Always,
            ArchiveDefault::Roster => options::Archive::Roster,
            ArchiveDefault::Never => options::Archive::Never,
        },
        retention: config
            .archive
            .retention_days
            .map_or(Duration::ZERO, |d| Duration::from_secs(u64::from(d) * 86_400)),
        quota: config.archive.quota,
        when_full: if config.archive.oldest_go { options::Full::Oldest } else { options::Full::Refuse },
        resume: config.resume,
        iterations: config.sasl.iterations,
        location: config.listen.public.clone(),
        limits: options::Limits {
            roster_items: limits.roster_items,
            roster_groups: limits.roster_groups,
            roster_item_bytes: limits.roster_item_bytes,
            roster_bytes: limits.roster_bytes,
            requests: limits.requests,
            request_bytes: limits.request_bytes,
            sessions_per_user: limits.sessions_per_user,
            unacked_stanzas: limits.unacked_stanzas,
            unacked_bytes: limits.unacked_bytes,
            waiting_bytes_per_account: limits.waiting_bytes_per_account,
            waiting_bytes: match limits.waiting_bytes {
                0 => limits.connections.saturating_mul(options::WAITING_BYTES),
                bytes => bytes,
            },
            offline_messages: limits.offline_messages,
            directed_presences: limits.directed_presences,
            blocked: limits.blocked,
            vcard_bytes: limits.vcard_bytes,
            private_bytes: limits.private_bytes,
            private_items: limits.private_items,
            archive_page: limits.archive_page,
            component_stanzas: limits.component_queue_stanzas,
            component_bytes: limits.component_queue_bytes,
            component_wait: limits.component_wait,
            registrations_per_hour: limits.registrations_per_hour,
            password_changes_per_hour: limits.password_changes_per_hour,
        },
        services: config.components.iter().map(service).collect(),
        components: config.components.clone(),
        disco_items: config.domains.iter().flat_map(|domain| domain.disco_items.clone()).collect(),
        outage_status: config.domains.iter().flat_map(outage).collect(),
        ..Options::new(config.domains.iter().map(domain).collect())
    }
}

/// What links look at.
fn federation(federation: &crate::config::Federation) -> options::Federation {
    options::Federation {
        links: federation.links,
        queue: federation.queue,
        queue_stanzas: federation.queue_stanzas,
        queue_bytes: federation.queue_bytes,
        memory_bytes: federation.memory_bytes,
        idle: federation.limits.idle,
        refuse: federation.refuse.clone(),
        allow: federation.allow.clone(),
        ..options::Federation::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_agree_with_those_of_the_actors() {
        let ours = host(&Config::development());
        let mut theirs = Options::new(ours.domains.clone());
        // What is different where things are tried out.
        theirs.federation = Some(options::Federation::default());
        theirs.limits.registrations_per_hour = ours.limits.registrations_per_hour;
        assert_eq!(format!("{ours:?}"), format!("{theirs:?}"));
    }
}
