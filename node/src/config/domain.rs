//! `[[domain]]`: what is served, and where its certificate comes from.

use std::path::Path;

use rookery_proto::xmpp::jid::Jid;
use toml::de::DeTable;

use super::read::{Found, Reader, Section};
use super::{Acme, CertificateFiles, Domain, Listen, acme, components};

/// Where certificates may come from beside files.
pub(super) struct Sources<'a> {
    pub(super) acme: &'a Result<Option<Acme>, ()>,
    pub(super) listen: &'a Listen,
}

impl Sources<'_> {
    /// Why a domain of that name must say where its certificate comes from.
    fn missing(&self, name: &str) -> Option<&'static str> {
        let Listen { c2s, c2s_tls, s2s, s2s_tls, https, .. } = self.listen;
        let all = [c2s, c2s_tls, s2s, s2s_tls, https];
        let public = all.into_iter().flatten().any(|at| !at.ip().is_loopback());
        match self.acme {
            Ok(Some(_)) if !acme::can_be_ordered(name) => {
                Some("is missing, and no authority certifies this name")
            }
            Ok(None) if public => Some("is missing"),
            _ => None,
        }
    }
}

/// All `[[domain]]`.
pub(super) fn read(
    r: &mut Reader<'_>,
    file: &DeTable<'_>,
    base: &Path,
    sources: &Sources<'_>,
) -> Vec<Domain> {
    let mut all: Vec<Domain> = Vec::new();
    for (section, table) in r.sections(file, "domain") {
        let name = r.text(&section, "name");
        let own = match Jid::parse(&name.value) {
            Ok(jid) if jid.local().is_none() && jid.resource().is_none() => jid.domain().to_owned(),
            _ => {
                let line = if name.line > 0 { name.line } else { section.line };
                r.problem(
                    line,
                    "domain.name",
                    format!("is {:?}", name.value),
                    "write a domain, as in \"example.org\"",
                );
                name.value
            }
        };
        let domain = Domain {
            disco_items: components::disco_items(r, &section, &own),
            name: own,
            certificate: certificate(r, &section, base),
            self_signed: r.flag(&section, "self_signed").value,
            registration: r.text(&section, "registration").value == "open",
            contact: contact(r, table),
            outage_status: outage_status(r, &section),
        };
        if all.iter().any(|d| d.name == domain.name) {
            r.problem(
                name.line,
                "domain.name",
                format!("{} is listed twice", domain.name),
                "remove one of the two",
            );
        }
        if let Some(missing) = sources.missing(&domain.name)
            && domain.certificate.is_none()
            && !domain.self_signed
            && name.line > 0
        {
            let remedy = "write certificate and key (PEM files); or order one: [acme] with directory = \"letsencrypt\"; or write \
                self_signed = true, if clients need not trust it";
            r.problem(name.line, "domain.certificate", missing, remedy);
        }
        all.push(domain);
    }
    all
}

fn certificate(r: &mut Reader<'_>, section: &Section<'_, '_>, base: &Path) -> Option<CertificateFiles> {
    let (certificate, key) = (r.text(section, "certificate"), r.text(section, "key"));
    match (certificate.value.is_empty(), key.value.is_empty()) {
        (true, true) => return None,
        (true, false) => {
            r.problem(key.line, "domain.certificate", "is missing", "a key needs its certificate")
        }
        (false, true) => {
            r.problem(certificate.line, "domain.key", "is missing", "a certificate needs its key")
        }
        (false, false) => {}
    }
    let files = CertificateFiles { certificate: base.join(&certificate.value), key: base.join(&key.value) };
    for (option, path, found) in
        [("domain.certificate", &files.certificate, &certificate), ("domain.key", &files.key, &key)]
    {
        if !found.value.is_empty()
            && let Err(error) = std::fs::File::open(path)
        {
            let what = format!("{} cannot be read: {error}", path.display());
            r.problem(
                found.line,
                option,
                what,
                "correct the path, or let the user that runs rookery read it",
            );
        }
    }
    Some(files)
}

/// XEP-0157 section 2: the kinds of addresses there are.
const CONTACTS: [&str; 7] = ["abuse", "admin", "feedback", "sales", "security", "status", "support"];

fn contact(r: &mut Reader<'_>, domain: &DeTable<'_>) -> Vec<(&'static str, String)> {
    let section = r.section(domain, "domain.contact");
    let mut all = Vec::new();
    for kind in CONTACTS {
        for Found { value, line } in r.list(&section, kind) {
            let scheme = value.split_once(':').map_or("", |(scheme, _)| scheme);
            if scheme.is_empty() || !scheme.bytes().all(|b| b.is_ascii_alphanumeric() || b"+-.".contains(&b))
            {
                let remedy = "write a URI, as in \"xmpp:help@example.org\" or \"mailto:help@example.org\"";
                r.problem(line, format!("domain.contact.{kind}"), format!("is {value:?}"), remedy);
            }
            all.push((kind, value));
        }
    }
    all
}

/// XEP-0455 section 2.1: URLs of HTTP, which clients read without a login.
fn outage_status(r: &mut Reader<'_>, section: &Section<'_, '_>) -> Vec<String> {
    let mut all = Vec::new();
    for Found { value, line } in r.list(section, "outage_status") {
        let url = value.parse::<hyper::Uri>().ok();
        let web =
            url.filter(|url| matches!(url.scheme_str(), Some("https" | "http")) && url.host().is_some());
        if web.is_none() {
            let remedy =
                "write a URL on another machine, as in \"https://status.example.net/example.org.json\"";
            r.problem(line, "domain.outage_status", format!("is {value:?}"), remedy);
        }
        all.push(value);
    }
    all
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use crate::config::parse;

    #[test]
    fn the_status_of_an_outage_is_on_the_web() {
        let read = |urls: &str| {
            let text = format!("[[domain]]\nname = 'a.example'\nself_signed = true\noutage_status = {urls}");
            parse(&text, Path::new("/"))
        };
        let config = read("['https://status.example/a.json', 'http://[::1]:80/']").unwrap();
        assert_eq!(config.domains[0].outage_status, ["https://status.example/a.json", "http://[::1]:80/"]);
        for bad in ["status.example/a.json", "ftp://status.example/", "https:///x", "", "xmpp:a@b.example"] {
            let problems = read(&format!("['{bad}']")).unwrap_err();
            assert_eq!((problems.len(), problems[0].line), (1, 4), "{bad}");
            assert_eq!(problems[0].option, "domain.outage_status");
        }
    }
}
