//! `<data_dir>/ports.json`: where the node really listens, for programs that started it with port 0.

use std::io::Write as _;
use std::net::SocketAddr;
use std::path::Path;

/// The name of the file.
pub const FILE: &str = "ports.json";

/// Removes what a process before has left: the file is there only while its ports are open.
pub fn clear(data_dir: &Path) {
    let _ = std::fs::remove_file(data_dir.join(FILE));
}

/// Where a node listens.
#[derive(Clone, Default, Debug)]
pub struct Places {
    /// For clients with STARTTLS.
    pub c2s: Vec<SocketAddr>,
    /// For clients with direct TLS.
    pub c2s_tls: Vec<SocketAddr>,
    /// For other servers with STARTTLS.
    pub s2s: Vec<SocketAddr>,
    /// For other servers with direct TLS.
    pub s2s_tls: Vec<SocketAddr>,
    /// For components in the clear.
    pub component: Vec<SocketAddr>,
    /// For components with direct TLS.
    pub component_tls: Vec<SocketAddr>,
    /// For HTTP.
    pub http: Vec<SocketAddr>,
    /// For HTTP by TLS.
    pub https: Vec<SocketAddr>,
    /// For other nodes.
    pub cluster: Option<SocketAddr>,
}

/// Writes the file, whole or not at all, once all listeners are bound: `{"c2s":[5222],"c2s_tls":[5223],"http":[5280]}`, and
/// `"s2s":[5269]`, `"s2s_tls":[5270]`, `"component":[5347]`, `"https":[5281]` and `"cluster":[7100]` where there are such.
pub fn write(data_dir: &Path, places: &Places) -> std::io::Result<()> {
    let list = |all: &[SocketAddr]| all.iter().map(|a| a.port().to_string()).collect::<Vec<_>>().join(",");
    let always = [("c2s", &places.c2s), ("c2s_tls", &places.c2s_tls), ("http", &places.http)];
    let cluster = places.cluster.into_iter().collect();
    let sometimes = [
        ("s2s", &places.s2s),
        ("s2s_tls", &places.s2s_tls),
        ("component", &places.component),
        ("component_tls", &places.component_tls),
        ("https", &places.https),
        ("cluster", &cluster),
    ];
    let there = sometimes.into_iter().filter(|(_, all)| !all.is_empty());
    let entries: Vec<_> =
        always.into_iter().chain(there).map(|(name, all)| format!("\"{name}\":[{}]", list(all))).collect();
    let text = format!("{{{}}}\n", entries.join(","));
    let part = data_dir.join("ports.json.part");
    let mut file = std::fs::File::create(&part)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    std::fs::rename(part, data_dir.join(FILE))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_json_and_goes_away() {
        let folder = tempfile::tempdir().unwrap();
        let at = |port| SocketAddr::from(([127, 0, 0, 1], port));
        let mut places = Places { c2s: vec![at(1), at(2)], http: vec![at(3)], ..Places::default() };
        write(folder.path(), &places).unwrap();
        let text = || std::fs::read_to_string(folder.path().join(FILE)).unwrap();
        assert_eq!(text(), "{\"c2s\":[1,2],\"c2s_tls\":[],\"http\":[3]}\n");
        (places.s2s, places.https, places.cluster) = (vec![at(6)], vec![at(5)], Some(at(4)));
        places.component = vec![at(7)];
        write(folder.path(), &places).unwrap();
        let all = "{\"c2s\":[1,2],\"c2s_tls\":[],\"http\":[3],\"s2s\":[6],\"component\":[7],\"https\":[5],\"cluster\":[4]}\n";
        assert_eq!(text(), all);
        clear(folder.path());
        assert!(!folder.path().join(FILE).exists());
    }
}
