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

/// Writes the file, whole or not at all, once all listeners are bound: `{"c2s":[5222],"c2s_tls":[5223],"http":[5280]}`, and
/// `"https":[5281]`, `"component":[5347]` and `"cluster":[7100]` where there are such.
pub fn write(
    data_dir: &Path,
    c2s: &[SocketAddr],
    c2s_tls: &[SocketAddr],
    http: &[SocketAddr],
    https: &[SocketAddr],
    component: &[SocketAddr],
    cluster: Option<SocketAddr>,
) -> std::io::Result<()> {
    let list = |all: &[SocketAddr]| all.iter().map(|a| a.port().to_string()).collect::<Vec<_>>().join(",");
    let cluster = cluster.map(|at| format!(",\"cluster\":[{}]", at.port())).unwrap_or_default();
    let (c2s, c2s_tls, http) = (list(c2s), list(c2s_tls), list(http));
    let https = if https.is_empty() { String::new() } else { format!(",\"https\":[{}]", list(https)) };
    let component =
        if component.is_empty() { String::new() } else { format!(",\"component\":[{}]", list(component)) };
    let text = format!(
        "{{\"c2s\":[{c2s}],\"c2s_tls\":[{c2s_tls}],\"http\":[{http}]{https}{component}{cluster}}}\n"
    );
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
        write(folder.path(), &[at(1), at(2)], &[], &[at(3)], &[], &[], None).unwrap();
        let text = || std::fs::read_to_string(folder.path().join(FILE)).unwrap();
        assert_eq!(text(), "{\"c2s\":[1,2],\"c2s_tls\":[],\"http\":[3]}\n");
        write(folder.path(), &[at(1)], &[], &[at(3)], &[at(5)], &[at(6)], Some(at(4))).unwrap();
        assert_eq!(text(), "{\"c2s\":[1],\"c2s_tls\":[],\"http\":[3],\"https\":[5],\"component\":[6],\"cluster\":[4]}\n");
        clear(folder.path());
        assert!(!folder.path().join(FILE).exists());
    }
}
