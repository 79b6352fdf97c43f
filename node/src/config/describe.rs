//! What `rookery check` prints: what the node would do with this configuration.

use std::fmt::Write as _;

use super::{ArchiveDefault, Config};

/// A few lines for people, and warnings about what is allowed but unwise.
pub fn describe(config: &Config) -> String {
    let mut out = String::new();
    let list = |all: &[std::net::SocketAddr]| match all {
        [] => "nowhere".to_owned(),
        all => all.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "),
    };
    let from =
        config.file.as_ref().map_or("no file: development defaults".to_owned(), |f| f.display().to_string());
    let _ = writeln!(out, "configuration  {from}");
    let durability = if config.store.sync { "on disk before anything is acknowledged" } else { "buffered" };
    let _ = match config.store.url.as_str() {
        "embedded:" => {
            writeln!(out, "store          embedded: in {}, {durability}", config.data_dir.display())
        }
        url => writeln!(out, "store          {url}"),
    };
    let _ = writeln!(out, "STARTTLS       {}", list(&config.listen.c2s));
    let _ = writeln!(out, "direct TLS     {}", list(&config.listen.c2s_tls));
    let _ = writeln!(out, "HTTP           {}", list(&config.listen.http));
    if !config.listen.https.is_empty() {
        let _ = writeln!(out, "HTTPS          {}", list(&config.listen.https));
    }
    let _ = writeln!(out, "admin socket   {}", config.listen.admin.display());
    if let Some(cluster) = &config.cluster {
        let reached = cluster.advertise.clone().unwrap_or_else(|| cluster.listen.to_string());
        let _ = writeln!(
            out,
            "cluster        node {} of {}, for other nodes at {}, reached as {reached}",
            cluster.node, cluster.name, cluster.listen
        );
    }
    for domain in &config.domains {
        let registration = if domain.registration { "open" } else { "closed" };
        let certificate = match &domain.certificate {
            Some(files) => files.certificate.display().to_string(),
            None => "made by the node itself".to_owned(),
        };
        let _ = writeln!(
            out,
            "domain         {}, registration {registration}, certificate {certificate}",
            domain.name
        );
    }
    let archive = match config.archive.default {
        ArchiveDefault::Always => "everything",
        ArchiveDefault::Roster => "messages of contacts",
        ArchiveDefault::Never => "nothing",
    };
    let kept = config.archive.retention_days.map_or("for ever".to_owned(), |days| format!("for {days} days"));
    let _ = writeln!(out, "archive        {archive}, {kept}");
    for warning in warnings(config) {
        let _ = writeln!(out, "warning        {warning}");
    }
    out
}

fn warnings(config: &Config) -> Vec<String> {
    let mut all = Vec::new();
    let public = config.listen.c2s.iter().chain(&config.listen.c2s_tls).any(|a| !a.ip().is_loopback());
    for domain in &config.domains {
        if public && domain.certificate.is_none() {
            all.push(format!(
                "{}: no client outside trusts a certificate of the node's own making",
                domain.name
            ));
        }
        if public && domain.registration {
            all.push(format!("{}: registration is open to everybody; think of spam", domain.name));
        }
        if public && domain.contact.is_empty() {
            all.push(format!("{}: nobody can be reached about abuse; see [domain.contact]", domain.name));
        }
    }
    if config.listen.http.iter().any(|a| !a.ip().is_loopback()) {
        all.push("metrics can be read from outside this machine".to_owned());
    }
    if config.store.url == "memory:" {
        all.push("the memory store forgets everything when the node ends".to_owned());
    }
    if config.store.url.starts_with("dev:") {
        all.push(
            "the development store is for trying and testing: one process, no copies, no login".to_owned(),
        );
    }
    if let Some(cluster) = &config.cluster {
        if cluster.files.is_none() {
            let what = "cluster.plain_text: whoever reaches cluster.listen reads and writes everything; for development only";
            all.push(what.to_owned());
        }
        if cluster.redirect && config.listen.public.is_none() {
            all.push(
                "cluster.redirect: this node has no listen.public, so no client is sent to it".to_owned(),
            );
        }
        if cluster.advertise.is_none() && cluster.listen.ip().is_loopback() {
            all.push("cluster.listen is on loopback: only nodes on this machine reach it".to_owned());
        }
    }
    if config.listen.c2s.is_empty() && config.listen.c2s_tls.is_empty() {
        all.push("no client can connect".to_owned());
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn warns_of_what_is_open_to_the_world() {
        assert!(warnings(&Config::development()).is_empty());
        let text = "[[domain]]\nname='a.example'\nregistration='open'";
        let config = super::super::parse(text, std::path::Path::new("/")).unwrap();
        assert_eq!(warnings(&config).len(), 3);
        assert!(describe(&config).contains("registration open"));
    }
}
