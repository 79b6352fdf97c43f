//! `[cluster]`: whether the node is one of several, and how it is reached by the others.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use rookery_cluster::mesh::peer::NodeId;
use rookery_cluster::mesh::peer::authority::AUTHORITY;
use rookery_cluster::mesh::peer::tls::Files;
use toml::de::DeTable;

use super::address::is_host_and_port;
use super::read::{Found, Reader, Section};
use super::values::{count, secs};
use super::{Cluster, Listen, Store, address};

/// What stands for the node's name.
pub(super) const NODE: &str = "{node}";

/// `text` with the node's name in it.
pub(super) fn expand(text: &str, node: &NodeId) -> String {
    text.replace(NODE, node.as_str())
}

/// What the section depends on.
pub(super) struct Around<'a> {
    pub(super) base: &'a Path,
    pub(super) data_dir: &'a Path,
    pub(super) store: &'a Store,
    pub(super) listen: &'a Listen,
}

pub(super) fn read(r: &mut Reader<'_>, file: &DeTable<'_>, around: &Around<'_>) -> Option<Cluster> {
    let section = r.section(file, "cluster");
    if section.line == 0 {
        return None;
    }
    if matches!(around.store.url.as_str(), "embedded:" | "memory:") {
        let what = format!("is {:?}, which no other node can use", around.store.url);
        let remedy = "write the store that all nodes share under [store], as in url = \"dev://127.0.0.1:7300\" (for \
            development; see `rookery store`) or url = \"fdb:/etc/foundationdb/fdb.cluster\"; or remove [cluster]";
        r.problem(section.line, "store.url", what, remedy);
    }
    let name = r.text(&section, "name");
    if name.value.is_empty() {
        r.problem(name.line, "cluster.name", "is empty", "write a name, the same on all nodes");
    }
    let node = node(r, &section);
    let listen = listen(r, &section, around.listen);
    let advertise = advertise(r, &section, listen, node.as_ref());
    let files = files(r, &section, around, node.as_ref());
    plain_text(r, &section, listen);
    let denied = denied(r, &section);
    let redirect = r.flag(&section, "redirect").value;
    let (lease, death) = (secs(r, &section, "lease_seconds"), secs(r, &section, "death_seconds"));
    if death <= lease {
        let remedy = "make it longer than cluster.lease_seconds: other nodes must not take the shards of a node that may still serve";
        r.problem(section.line, "cluster.death_seconds", "is not longer than cluster.lease_seconds", remedy);
    }
    Some(Cluster {
        name: name.value,
        zone: r.text(&section, "zone").value,
        weight: count(r, &section, "weight"),
        redirect,
        lease,
        death,
        handoff: secs(r, &section, "handoff_seconds"),
        drain: secs(r, &section, "drain_seconds"),
        node: node?,
        listen: listen?,
        advertise,
        files,
        denied,
    })
}

fn node(r: &mut Reader<'_>, section: &Section<'_, '_>) -> Option<NodeId> {
    let Found { value, line } = r.text(section, "node");
    let (text, ours) = if value.is_empty() { (host_name(), false) } else { (value, true) };
    // `rookery cluster drain self` means the node that is asked.
    let node = NodeId::new(&text).ok().filter(|node| node.as_str() != "self");
    if node.is_none() {
        let line = if ours { line } else { section.line };
        let from = if ours { "" } else { ", from the name of this host," };
        let remedy =
            "write a name of a-z, 0-9 and '-', as in node = \"rookery-0\"; not a number, not \"self\"";
        r.problem(line, "cluster.node", format!("is {text:?}{from} which is not a valid node name"), remedy);
    }
    node
}

/// The first label of the host's name, in lower case.
fn host_name() -> String {
    let name = rustix::system::uname().nodename().to_string_lossy().to_lowercase();
    name.split('.').next().unwrap_or_default().to_owned()
}

fn listen(r: &mut Reader<'_>, section: &Section<'_, '_>, other: &Listen) -> Option<SocketAddr> {
    let Found { value, line } = r.text(section, "listen");
    let Some(at) = address::socket(&value) else {
        let remedy = "write an IP address and a port, as in \"10.0.0.1:7100\" or \"[::]:7100\"";
        r.problem(line, "cluster.listen", format!("is {value:?}"), remedy);
        return None;
    };
    let taken = other
        .c2s
        .iter()
        .chain(&other.c2s_tls)
        .chain(&other.s2s)
        .chain(&other.s2s_tls)
        .chain(&other.http)
        .chain(&other.https)
        .any(|other| *other == at);
    if taken && at.port() != 0 {
        let what = format!("{at} is already used under [listen]");
        r.problem(line.max(section.line), "cluster.listen", what, "give it a port of its own");
    }
    Some(at)
}

fn advertise(
    r: &mut Reader<'_>,
    section: &Section<'_, '_>,
    listen: Option<SocketAddr>,
    node: Option<&NodeId>,
) -> Option<String> {
    let Found { value, line } = r.text(section, "advertise");
    let remedy = "write host:port as other nodes reach it, as in \"n1.internal:7100\" or \"{node}.rookery-nodes:7100\"";
    if value.is_empty() {
        if listen.is_some_and(|at| at.ip().is_unspecified()) {
            let what = "is missing, and cluster.listen is every address of this machine";
            r.problem(section.line, "cluster.advertise", what, remedy);
        }
        return None;
    }
    let value = match node {
        Some(node) => expand(&value, node),
        None => value.replace(NODE, "n"),
    };
    let unspecified = value.parse::<SocketAddr>().is_ok_and(|at| at.ip().is_unspecified());
    if unspecified || !is_host_and_port(&value) {
        r.problem(line, "cluster.advertise", format!("is {value:?}"), remedy);
    }
    Some(value)
}

fn files(
    r: &mut Reader<'_>,
    section: &Section<'_, '_>,
    around: &Around<'_>,
    node: Option<&NodeId>,
) -> Option<Files> {
    let mut path = |name: &str, default: &str| -> PathBuf {
        let found = r.text(section, name).value;
        let text = if found.is_empty() { default } else { &found };
        let text = node.map_or_else(|| text.to_owned(), |node| expand(text, node));
        if found.is_empty() { around.data_dir.join(text) } else { around.base.join(text) }
    };
    let authority = path("authority", AUTHORITY);
    let (certificate, key) = (path("certificate", "{node}.pem"), path("key", "{node}.key"));
    let plain_text = r.flag(section, "plain_text");
    if plain_text.value {
        for name in ["authority", "certificate", "key"] {
            let found = r.text(section, name);
            if !found.value.is_empty() {
                let remedy = "remove it, or cluster.plain_text";
                r.problem(
                    found.line,
                    format!("cluster.{name}"),
                    "has no effect with cluster.plain_text",
                    remedy,
                );
            }
        }
        return None;
    }
    Some(Files { authority, certificate, key })
}

/// Refuses `plain_text` on an address that other machines reach, unless the operator has allowed that: such a node believes every caller.
fn plain_text(r: &mut Reader<'_>, section: &Section<'_, '_>, listen: Option<SocketAddr>) {
    let (on, allowed) = (r.flag(section, "plain_text"), r.flag(section, "plain_text_off_loopback"));
    if let Some(at) = listen.filter(|at| on.value && !allowed.value && !at.ip().to_canonical().is_loopback())
    {
        let what = format!("is on, and cluster.listen is {at}, which other machines can reach");
        let remedy = "create certificates with `rookery cluster cert` and remove plain_text; or listen on 127.0.0.1; or, on a private \
            network, write plain_text_off_loopback = true";
        r.problem(on.line, "cluster.plain_text", what, remedy);
    }
}

/// The longest serial number (RFC 5280 section 4.1.2.2), and a SHA-256 fingerprint, in bytes.
const SERIAL: usize = 20;
const FINGERPRINT: usize = 32;

fn denied(r: &mut Reader<'_>, section: &Section<'_, '_>) -> Vec<Vec<u8>> {
    let mut all = Vec::new();
    for Found { value, line } in r.list(section, "denied") {
        match hexadecimal(&value).filter(|bytes| bytes.len() <= SERIAL || bytes.len() == FINGERPRINT) {
            Some(bytes) if !bytes.is_empty() => all.push(bytes),
            _ => {
                let remedy = "write what `openssl x509 -noout -serial` or `-fingerprint -sha256` says, after the \"=\"";
                r.problem(line, "cluster.denied", format!("is {value:?}"), remedy);
            }
        }
    }
    all
}

/// Bytes as OpenSSL writes them: `0A1B` or `0a:1b`. A serial number has no zeros in front.
fn hexadecimal(text: &str) -> Option<Vec<u8>> {
    let digits: Option<Vec<u8>> = text
        .chars()
        .filter(|c| *c != ':')
        .map(|c| c.to_digit(16).and_then(|digit| u8::try_from(digit).ok()))
        .collect();
    let mut digits = digits?;
    if digits.len() % 2 == 1 {
        digits.insert(0, 0);
    }
    let bytes = digits.chunks_exact(2).map(|pair| pair.iter().fold(0, |byte, digit| byte << 4 | digit));
    let bytes: Vec<u8> = bytes.collect();
    let zeros = if bytes.len() == FINGERPRINT { 0 } else { bytes.iter().take_while(|b| **b == 0).count() };
    Some(bytes.into_iter().skip(zeros).collect())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::parse;
    use super::*;

    fn with(cluster: &str) -> String {
        format!(
            "data_dir = '/d'\n[store]\nurl = 'dev://127.0.0.1:7300'\n[[domain]]\nname = 'a.example'\nself_signed = true\n[cluster]\n{cluster}"
        )
    }

    fn problems(cluster: &str) -> Vec<String> {
        match parse(&with(cluster), Path::new("/etc")) {
            Ok(_) => Vec::new(),
            Err(problems) => problems.into_iter().map(|p| p.option).collect(),
        }
    }

    #[test]
    fn without_the_section_a_node_is_alone() {
        assert_eq!(
            parse("[[domain]]\nname='a.example'\nself_signed=true", Path::new("/")).unwrap().cluster,
            None
        );
    }

    #[test]
    fn one_file_serves_all_nodes() {
        let text = with(
            "node = 'n1'\nlisten = '[::]:7100'\nadvertise = '{node}.nodes:7100'\nkey = 'keys/{node}.key'\nlease_seconds = 2",
        ) + "\n[listen]\npublic = '{node}.a.example:5222'";
        let config = parse(&text, Path::new("/etc")).unwrap();
        let cluster = config.cluster.unwrap();
        assert_eq!((cluster.node.as_str(), cluster.name.as_str(), cluster.weight), ("n1", "rookery", 100));
        assert_eq!(cluster.advertise.as_deref(), Some("n1.nodes:7100"));
        assert_eq!(config.listen.public.as_deref(), Some("n1.a.example:5222"));
        let files = cluster.files.unwrap();
        assert_eq!(files.authority, Path::new("/d/cluster_ca.pem"));
        assert_eq!(files.certificate, Path::new("/d/n1.pem"));
        assert_eq!(files.key, Path::new("/etc/keys/n1.key"));
        assert_eq!((cluster.lease, cluster.death), (Duration::from_secs(2), Duration::from_secs(5)));
    }

    #[test]
    fn every_mistake_is_named() {
        let all =
            "name = ''\nnode = 'N_1'\nlisten = '[::]:7100'\nweight = 0\ndeath_seconds = 4\nlesae_seconds = 3";
        let mut found = problems(all);
        found.sort();
        let wanted = [
            "cluster.advertise",
            "cluster.death_seconds",
            "cluster.lesae_seconds",
            "cluster.name",
            "cluster.node",
            "cluster.weight",
        ];
        assert_eq!(found, wanted);
        for (text, option) in [
            ("node = 'self'", "cluster.node"),
            ("node = '17'", "cluster.node"),
            ("node = 'n'\nlisten = 'here:1'", "cluster.listen"),
            ("node = 'n'\nlisten = '127.0.0.1:5280'", "cluster.listen"),
            ("node = 'n'\nadvertise = '0.0.0.0:7100'", "cluster.advertise"),
            ("node = 'n'\nadvertise = 'n1'", "cluster.advertise"),
            ("node = 'n'\nplain_text = true\nkey = 'k'", "cluster.key"),
            ("node = 'n'\nplain_text = true\nlisten = '192.0.2.1:7100'", "cluster.plain_text"),
            (
                "node = 'n'\nplain_text = true\nlisten = '[::]:7100'\nadvertise = 'n1:7100'",
                "cluster.plain_text",
            ),
            ("node = 'n'\ndenied = ['4c:xy']", "cluster.denied"),
            ("node = 'n'\ndenied = ['']", "cluster.denied"),
            ("node = 'n'\ndenied = ['112233445566778899aabbccddeeff001122334455']", "cluster.denied"),
            ("node = 'n'\npublic = 'n1:5222'", "cluster.public"),
        ] {
            assert_eq!(problems(text), [option], "{text}");
        }
    }

    #[test]
    fn plain_text_beyond_loopback_needs_a_word_more() {
        for listen in ["127.0.0.1:7100", "[::1]:7100", "[::ffff:127.0.0.1]:7100"] {
            assert!(problems(&format!("node = 'n'\nplain_text = true\nlisten = '{listen}'")).is_empty());
        }
        let all = "node = 'n'\nplain_text = true\nplain_text_off_loopback = true\nlisten = '192.0.2.1:7100'";
        assert!(problems(all).is_empty());
    }

    #[test]
    fn certificates_are_denied_by_what_openssl_says() {
        let print = "ab:".repeat(31) + "CD";
        let text = with(&format!("node = 'n'\ndenied = ['0012A', '{print}']"));
        let denied = parse(&text, Path::new("/")).unwrap().cluster.unwrap().denied;
        assert_eq!(denied, [vec![0x01, 0x2a], [vec![0xab; 31], vec![0xcd]].concat()]);
    }

    #[test]
    fn the_store_must_be_shared() {
        for url in ["embedded:", "memory:"] {
            let text = with("node = 'n'").replace("dev://127.0.0.1:7300", url);
            let problems = parse(&text, Path::new("/")).unwrap_err();
            assert_eq!((problems.len(), problems[0].line, problems[0].option.as_str()), (1, 7, "store.url"));
            assert!(problems[0].remedy.contains("dev://127.0.0.1:7300"), "{}", problems[0].remedy);
        }
    }
}
