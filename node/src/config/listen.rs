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
}

/// Says which addresses are listed twice, and which must not be.
pub(super) fn twice(r: &mut Reader<'_>, listen: &Listen, line: usize) {
    let mut seen: Vec<SocketAddr> = Vec::new();
    components::only_loopback(r, line, &listen.component);
    for at in listen.sockets().into_iter().flatten().filter(|a| a.port() != 0) {
        if seen.contains(at) {
            let what = format!("{at} is listed twice");
            r.problem(line, "listen", what, "give every listener its own address or port");
        }
        seen.push(*at);
    }
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
