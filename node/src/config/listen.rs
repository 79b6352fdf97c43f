//! `[listen]`: the addresses of a node.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use toml::de::DeTable;

use super::read::{Found, Reader, Section};
use super::values::networks;
use super::{Listen, Network, acme, address, cluster, components};

/// Also whether the file names an address for other servers, and the line of the section.
pub(super) fn listen(
    r: &mut Reader<'_>,
    file: &DeTable<'_>,
    base: &Path,
    data_dir: &Path,
) -> (Listen, bool, usize) {
    let section = r.section(file, "listen");
    let admin = r.text(&section, "admin");
    let path = match (admin.value.as_str(), admin.value.strip_prefix("unix:")) {
        ("", _) => data_dir.join("admin.sock"),
        (_, Some(path)) if !path.is_empty() => base.join(path),
        _ => {
            let what = format!("is {:?}", admin.value);
            r.problem(admin.line, "listen.admin", what, "write \"unix:\" and the path of the socket");
            PathBuf::new()
        }
    };
    if let Err(error) = rookery_ops::admin::Address::new(&path)
        && !path.as_os_str().is_empty()
    {
        let remedy = "write a short path, as in \"unix:/run/rookery/admin.sock\"";
        r.problem(admin.line, "listen.admin", error.to_string(), remedy);
    }
    let named = [r.names(&section, "s2s"), r.names(&section, "s2s_tls")];
    let mut listen = Listen {
        c2s: sockets(r, &section, "c2s"),
        c2s_tls: sockets(r, &section, "c2s_tls"),
        component: sockets(r, &section, "component"),
        component_tls: sockets(r, &section, "component_tls"),
        s2s: sockets(r, &section, "s2s"),
        s2s_tls: sockets(r, &section, "s2s_tls"),
        http: sockets(r, &section, "http"),
        https: sockets(r, &section, "https"),
        acme: acme::listen(r, file),
        http_proxies: networks(r, &section, "http_proxy_trusted"),
        admin: path,
        proxy: proxy(r, &section),
        public: public(r, &section),
    };
    match named {
        // What the file does not name beside what it does name is not wanted.
        [true, false] => listen.s2s_tls.clear(),
        [false, true] => listen.s2s.clear(),
        _ => {}
    }
    let listening = named.contains(&true) && !(listen.s2s.is_empty() && listen.s2s_tls.is_empty());
    (listen, listening, section.line)
}

impl Listen {
    /// The addresses of every kind of listener, in an order that never changes.
    pub(crate) fn sockets(&self) -> [&Vec<SocketAddr>; 9] {
        [
            &self.c2s,
            &self.c2s_tls,
            &self.s2s,
            &self.s2s_tls,
            &self.component,
            &self.component_tls,
            &self.http,
            &self.https,
            &self.acme,
        ]
    }

    /// Whether `at`, an address of clients, is one of other servers, too: one port for both. `direct`: with direct TLS. Port 0, which is
    /// another port each time, never is.
    pub(crate) fn shares(&self, at: SocketAddr, direct: bool) -> bool {
        let servers = if direct { &self.s2s_tls } else { &self.s2s };
        at.port() != 0 && servers.contains(&at)
    }
}

/// Says which addresses are listed twice, and which must not be.
pub(super) fn twice(r: &mut Reader<'_>, listen: &Listen, line: usize) {
    let mut seen: Vec<(usize, SocketAddr)> = Vec::new();
    components::only_loopback(r, line, &listen.component);
    for (kind, list) in listen.sockets().into_iter().enumerate() {
        for at in list.iter().filter(|at| at.port() != 0) {
            if seen.iter().any(|(other, place)| place == at && !share(*other, kind)) {
                let what = format!("{at} is listed twice");
                r.problem(line, "listen", what, "give every listener its own address or port");
            }
            seen.push((kind, *at));
        }
    }
}

/// Whether two kinds of listeners, by their place in [`Listen::sockets`], can be one port: `c2s` and `s2s`, `c2s_tls` and `s2s_tls`.
fn share(one: usize, other: usize) -> bool {
    matches!((one, other), (0, 2) | (1, 3))
}

fn sockets(r: &mut Reader<'_>, section: &Section<'_, '_>, name: &str) -> Vec<SocketAddr> {
    let mut all = Vec::new();
    for Found { value, line } in r.list(section, name) {
        match address::socket(&value) {
            Some(address) => all.push(address),
            None => {
                let remedy = "write an IP address and a port, as in \"[::]:5222\" or \"127.0.0.1:5222\"";
                r.problem(line, format!("listen.{name}"), format!("is {value:?}"), remedy);
            }
        }
    }
    all
}

fn proxy(r: &mut Reader<'_>, section: &Section<'_, '_>) -> Option<Vec<Network>> {
    let on = r.flag(section, "proxy_protocol").value;
    let networks = networks(r, section, "proxy_trusted");
    on.then_some(networks)
}

/// XEP-0198 section 5: a hostname or an address, then a colon and a port.
fn public(r: &mut Reader<'_>, section: &Section<'_, '_>) -> Option<String> {
    let found = r.text(section, "public");
    if found.value.is_empty() {
        return None;
    }
    if !address::is_host_and_port(&found.value.replace(cluster::NODE, "n")) {
        let what = format!("is {:?}", found.value);
        r.problem(found.line, "listen.public", what, "write host:port, as in \"node1.example.org:5222\"");
    }
    Some(found.value)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use crate::config::parse;

    const DOMAIN: &str = "[[domain]]\nname = 'a.example'\nself_signed = true\n";

    fn complaints(listen: &str) -> Vec<String> {
        match parse(&format!("[listen]\n{listen}\n{DOMAIN}"), Path::new("/")) {
            Ok(_) => Vec::new(),
            Err(problems) => problems.into_iter().map(|p| format!("{}: {}", p.option, p.what)).collect(),
        }
    }

    #[test]
    fn clients_and_servers_may_share_a_port_and_nobody_else() {
        let (one, two) = ("'127.0.0.1:5222'", "'127.0.0.1:5223'");
        let config = parse(
            &format!(
                "[listen]\nc2s = [{one}]\nc2s_tls = [{two}]\ns2s = [{one}]\ns2s_tls = [{two}]\n{DOMAIN}"
            ),
            Path::new("/"),
        );
        let listen = config.unwrap().listen;
        assert!(listen.shares(listen.c2s[0], false) && listen.shares(listen.c2s_tls[0], true));
        assert!(!listen.shares(listen.c2s[0], true));
        let any = parse(
            &format!("[listen]\nc2s = ['127.0.0.1:0']\ns2s = ['127.0.0.1:0']\n{DOMAIN}"),
            Path::new("/"),
        );
        let any = any.unwrap().listen;
        assert!(!any.shares(any.c2s[0], false));
        for wrong in [
            format!("c2s = [{one}, {one}]"),
            format!("c2s = [{one}]\ns2s = [{one}, {one}]"),
            format!("c2s = [{one}]\ns2s_tls = [{one}]"),
            format!("c2s_tls = [{one}]\ns2s = [{one}]"),
            format!("c2s = [{one}]\nc2s_tls = [{one}]"),
            format!("s2s = [{one}]\nhttps = [{one}]"),
            format!("c2s = [{one}]\ns2s = [{one}]\ncomponent = [{one}]"),
        ] {
            let found = complaints(&wrong);
            assert!(found.iter().any(|what| what.contains("is listed twice")), "{wrong}: {found:?}");
        }
    }
}
