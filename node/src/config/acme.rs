//! `[acme]`: the authority that issues certificates, and how it checks names.

use std::net::{IpAddr, SocketAddr};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use hyper::http::Uri;
use instant_acme::LetsEncrypt;
use rookery_proto::xmpp::jid::Jid;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use toml::de::DeTable;

use super::read::{Found, Reader, Section};
use super::values::secs;
use super::{Listen, address};

/// `[acme]`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Acme {
    /// The directory URL of the authority.
    pub directory: String,
    /// `mailto:` URIs.
    pub contacts: Vec<String>,
    /// How names are checked.
    pub challenge: Challenge,
    /// Names beside the domains, normalised.
    pub names: Vec<String>,
    /// PEM: the roots of the authority's own server; `None`: the operating system's.
    pub ca: Option<PathBuf>,
}

/// How an authority checks a name.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Challenge {
    /// RFC 8737.
    TlsAlpn01,
    /// RFC 8555 section 8.3.
    Http01,
    /// RFC 8555 section 8.4.
    Dns01(Hook),
}

/// What sets and removes DNS records.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Hook {
    /// The program.
    pub program: PathBuf,
    /// Its first arguments.
    pub arguments: Vec<String>,
    /// How long a call may take.
    pub limit: Duration,
}

/// Where `http-01` alone is answered.
pub(super) fn listen(r: &mut Reader<'_>, file: &DeTable<'_>) -> Vec<SocketAddr> {
    let section = r.section(file, "acme");
    let mut all = Vec::new();
    for Found { value, line } in r.list(&section, "listen") {
        match address::socket(&value) {
            Some(address) => all.push(address),
            None => {
                let remedy = "write an IP address and a port, as in \"[::]:80\"";
                r.problem(line, "acme.listen", format!("is {value:?}"), remedy);
            }
        }
    }
    all
}

/// `Err`: there is such a section, and it is no good.
pub(super) fn read(
    r: &mut Reader<'_>,
    file: &DeTable<'_>,
    base: &Path,
    listen: &Listen,
) -> Result<Option<Acme>, ()> {
    // Names that do not exist are reported where the addresses are read.
    let before = r.problems.len();
    let section = r.section(file, "acme");
    r.problems.truncate(before);
    let directory = directory(r, &section);
    let agree = r.flag(&section, "agree");
    let (contacts, names, ca) = (contacts(r, &section), names(r, &section), ca(r, &section, base));
    let mut acme = None;
    if directory.value.is_empty() {
        if agree.value {
            let remedy = "write directory = \"letsencrypt\", or the directory URL of another authority";
            r.problem(section.line, "acme.directory", "is missing", remedy);
        }
    } else {
        if !agree.value {
            let remedy =
                "read the terms of service of the authority, and write agree = true if you accept them";
            let line = if agree.line > 0 { agree.line } else { section.line };
            r.problem(line, "acme.agree", "is not true", remedy);
        }
        let challenge = challenge(r, &section, base, listen);
        let directory = directory.value;
        acme = challenge.map(|challenge| Acme { directory, contacts, challenge, names, ca });
    }
    if r.problems.len() > before { Err(()) } else { Ok(acme) }
}

fn directory(r: &mut Reader<'_>, section: &Section<'_, '_>) -> Found<String> {
    let Found { value, line } = r.text(section, "directory");
    let value = match value.as_str() {
        "" => value,
        "letsencrypt" => LetsEncrypt::Production.url().to_owned(),
        "letsencrypt-staging" => LetsEncrypt::Staging.url().to_owned(),
        url if is_https(url) => value,
        other => {
            let remedy = "write \"letsencrypt\", \"letsencrypt-staging\", or a URL that begins with https://";
            r.problem(line, "acme.directory", format!("is {other:?}"), remedy);
            value
        }
    };
    Found { value, line }
}

fn is_https(url: &str) -> bool {
    let uri = url.parse::<Uri>();
    uri.is_ok_and(|uri| uri.scheme_str() == Some("https") && uri.host().is_some_and(|host| !host.is_empty()))
}

fn contacts(r: &mut Reader<'_>, section: &Section<'_, '_>) -> Vec<String> {
    let mut all = Vec::new();
    for Found { value, line } in r.list(section, "contact") {
        let address = value.strip_prefix("mailto:").unwrap_or_default();
        if !address.contains('@') || !address.is_ascii() || address.contains([' ', ',', '?']) {
            let remedy = "write one e-mail address, as in \"mailto:admin@example.org\"";
            r.problem(line, "acme.contact", format!("is {value:?}"), remedy);
        }
        all.push(value);
    }
    all
}

fn names(r: &mut Reader<'_>, section: &Section<'_, '_>) -> Vec<String> {
    let mut all = Vec::new();
    for Found { value, line } in r.list(section, "names") {
        match Jid::parse(&value) {
            Ok(jid) if jid.local().is_none() && jid.resource().is_none() && can_be_ordered(jid.domain()) => {
                all.push(jid.domain().to_owned());
            }
            _ => {
                let remedy = "write a public name without a wildcard, as in \"xmpp.example.org\"";
                r.problem(line, "acme.names", format!("is {value:?}"), remedy);
            }
        }
    }
    all
}

/// Whether it may be a public name: what is none, no authority certifies.
pub(crate) fn can_be_ordered(name: &str) -> bool {
    let name = name.strip_suffix('.').unwrap_or(name);
    let bare = name.strip_prefix('[').and_then(|n| n.strip_suffix(']')).unwrap_or(name);
    name.contains('.')
        && bare.parse::<IpAddr>().is_err()
        && !name.contains('*')
        && ![".localhost", ".onion"].iter().any(|end| name.ends_with(end))
}

fn challenge(
    r: &mut Reader<'_>,
    section: &Section<'_, '_>,
    base: &Path,
    listen: &Listen,
) -> Option<Challenge> {
    let wanted = r.text(section, "challenge");
    let hook = hook(r, section, base);
    let (what, remedy) = match wanted.value.as_str() {
        "dns-01" if hook.is_some() => return hook.map(Challenge::Dns01),
        "dns-01" => ("is missing", "write the full path of a program that sets DNS records"),
        _ if hook.is_some() => {
            ("is set", "it is for challenge = \"dns-01\" only: write that, or remove acme.hook")
        }
        "http-01" if listen.acme.is_empty() && listen.http.is_empty() && listen.https.is_empty() => {
            let remedy = "write listen = [\"[::]:80\"] below [acme]";
            r.problem(wanted.line, "acme.challenge", "has no listener: http-01 needs HTTP", remedy);
            return None;
        }
        "http-01" => return Some(Challenge::Http01),
        _ if [&listen.c2s_tls, &listen.s2s_tls, &listen.https].iter().all(|all| all.is_empty()) => {
            let remedy = "add listen.c2s_tls or listen.https, or choose another challenge";
            r.problem(wanted.line, "acme.challenge", "has no listener: tls-alpn-01 needs direct TLS", remedy);
            return None;
        }
        _ => return Some(Challenge::TlsAlpn01),
    };
    let line = if wanted.line > 0 { wanted.line } else { section.line };
    r.problem(line, "acme.hook", what, remedy);
    None
}

fn hook(r: &mut Reader<'_>, section: &Section<'_, '_>, base: &Path) -> Option<Hook> {
    let limit = secs(r, section, "hook_seconds");
    let mut all = r.list(section, "hook").into_iter();
    let first = all.next()?;
    let program = base.join(&first.value);
    let runs =
        std::fs::metadata(&program).map(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0);
    let wrong = match runs {
        Ok(true) => None,
        Ok(false) => Some("is not a program".to_owned()),
        Err(error) => Some(format!("cannot be read: {error}")),
    };
    if let Some(wrong) = wrong {
        let what = format!("{} {wrong}", program.display());
        r.problem(
            first.line,
            "acme.hook",
            what,
            "write the full path of an executable file, then its arguments",
        );
    }
    Some(Hook { program, arguments: all.map(|found| found.value).collect(), limit })
}

fn ca(r: &mut Reader<'_>, section: &Section<'_, '_>, base: &Path) -> Option<PathBuf> {
    let Found { value, line } = r.text(section, "ca");
    if value.is_empty() {
        return None;
    }
    let path = base.join(value);
    let all = CertificateDer::pem_file_iter(&path).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    let wrong = match all {
        Ok(all) if all.is_empty() => Some("holds no certificate".to_owned()),
        Ok(_) => None,
        Err(error) => Some(format!("cannot be read: {error}")),
    };
    if let Some(wrong) = wrong {
        let what = format!("{} {wrong}", path.display());
        r.problem(
            line,
            "acme.ca",
            what,
            "write the path of a PEM file with the authority's root certificates",
        );
    }
    Some(path)
}

#[cfg(test)]
mod tests {
    use super::super::parse;
    use super::*;

    const DOMAIN: &str = "[[domain]]\nname = 'a.example'\n";

    fn read(acme: &str) -> Result<Option<Acme>, Vec<(usize, String)>> {
        let text = format!("[acme]\n{acme}\n{DOMAIN}");
        let problems =
            |all: Vec<super::super::Problem>| all.into_iter().map(|p| (p.line, p.option)).collect();
        parse(&text, Path::new("/")).map(|config| config.acme).map_err(problems)
    }

    #[test]
    fn the_usual_section() {
        let acme = read("directory = 'letsencrypt'\nagree = true\ncontact = ['mailto:a@a.example']").unwrap();
        let acme = acme.unwrap();
        assert_eq!(acme.directory, "https://acme-v02.api.letsencrypt.org/directory");
        assert_eq!((acme.challenge, acme.contacts.len(), acme.ca), (Challenge::TlsAlpn01, 1, None));
        let staging = read("directory = 'letsencrypt-staging'\nagree = true\nchallenge = 'http-01'").unwrap();
        assert!(staging.unwrap().directory.contains("staging"));
        let other =
            read("directory = 'https://ca.example/dir'\nagree = true\nnames = ['X.a.example']").unwrap();
        assert_eq!(other.unwrap().names, ["x.a.example"]);
        let hook =
            "directory = 'letsencrypt'\nagree = true\nchallenge = 'dns-01'\nhook = ['/bin/true', '-x']";
        let Some(Acme { challenge: Challenge::Dns01(hook), .. }) = read(hook).unwrap() else { panic!() };
        assert_eq!((hook.program, hook.arguments), ("/bin/true".into(), vec!["-x".to_owned()]));
    }

    #[test]
    fn what_is_wrong_is_said_with_its_line() {
        let one = |acme: &str| {
            let mut all = read(acme).unwrap_err();
            all.retain(|(_, option)| option.starts_with("acme"));
            assert_eq!(all.len(), 1, "{acme}: {all:?}");
            all.remove(0)
        };
        let acme = |line: usize, option: &str| (line, format!("acme.{option}"));
        assert_eq!(one("agree = true"), acme(1, "directory"));
        assert_eq!(one("directory = 'letsencrypt'"), acme(1, "agree"));
        assert_eq!(one("directory = 'letsencrypt'\nagree = false"), acme(3, "agree"));
        for directory in ["lets-encrypt", "http://ca.example/dir", "https://"] {
            assert_eq!(one(&format!("agree = true\ndirectory = '{directory}'")), acme(3, "directory"));
        }
        let on = "directory = 'letsencrypt'\nagree = true\n";
        for contact in ["a@a.example", "mailto:", "mailto:a@a, b@b"] {
            assert_eq!(one(&format!("{on}contact = ['{contact}']")), acme(4, "contact"));
        }
        for name in ["*.a.example", "localhost", "192.0.2.1", "a@b.example", "x.onion"] {
            assert_eq!(one(&format!("{on}names = ['{name}']")), acme(4, "names"));
        }
        assert_eq!(one(&format!("{on}challenge = 'dns-01'")), acme(4, "hook"));
        assert_eq!(one(&format!("{on}hook = ['/bin/true']")), acme(1, "hook"));
        assert_eq!(one(&format!("{on}challenge = 'dns-01'\nhook = ['/nowhere']")), acme(5, "hook"));
        assert_eq!(one(&format!("{on}challenge = 'dns-01'\nhook = ['/etc/passwd']")), acme(5, "hook"));
        assert_eq!(one(&format!("{on}ca = '/etc/passwd'")), acme(4, "ca"));
        assert_eq!(one(&format!("{on}challenge = 'tls'")), acme(4, "challenge"));
        assert_eq!(one(&format!("{on}chalenge = 'tls'")), acme(4, "chalenge"));
        assert_eq!(one(&format!("{on}listen = ['80']")), acme(4, "listen"));
    }

    #[test]
    fn a_challenge_needs_its_listener() {
        let problems = |challenge: &str, listen: &str| {
            let acme = format!("[acme]\ndirectory = 'letsencrypt'\nagree = true\nchallenge = '{challenge}'");
            let all = parse(&format!("{acme}\n[listen]\n{listen}\n{DOMAIN}"), Path::new("/"));
            all.err().unwrap_or_default().into_iter().map(|p| p.option).collect::<Vec<_>>()
        };
        assert_eq!(problems("tls-alpn-01", "c2s_tls = []"), ["acme.challenge"]);
        assert_eq!(problems("tls-alpn-01", "c2s_tls = []\nhttps = ['[::]:443']"), [""; 0]);
        assert_eq!(problems("http-01", "http = []"), ["acme.challenge"]);
        assert_eq!(problems("http-01", ""), [""; 0]);
    }

    #[test]
    fn a_domain_needs_a_certificate_from_somewhere() {
        let problems = |text: &str| {
            let all = parse(text, Path::new("/")).err().unwrap_or_default();
            all.into_iter().map(|p| (p.line, p.option)).collect::<Vec<_>>()
        };
        let missing = [(2, "domain.certificate".to_owned())];
        assert_eq!(problems("[[domain]]\nname = 'a.example'"), missing);
        assert_eq!(problems("[[domain]]\nname = 'a.example'\nself_signed = true"), []);
        let loopback = "[listen]\nc2s = ['127.0.0.1:1']\nc2s_tls = ['[::1]:2']\n";
        assert_eq!(problems(&format!("{loopback}{DOMAIN}")), []);
        let acme = "[acme]\ndirectory = 'letsencrypt'\nagree = true\n";
        assert_eq!(problems(&format!("{acme}{DOMAIN}")), []);
        let local = format!("{acme}[[domain]]\nname = 'localhost'");
        assert_eq!(problems(&local), [(5, "domain.certificate".to_owned())]);
        assert_eq!(problems(&format!("{local}\nself_signed = true")), []);
    }
}
