//! An authoritative DNS server of the test's own on loopback: a root zone and what is below it, signed and unsigned.

use std::fmt::Write as _;
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// How a zone is signed.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Signed {
    No,
    /// With NSEC, from the root on.
    Yes,
    /// With NSEC3.
    Hashed,
    /// As `Yes`; then every `127.0.0.66` becomes `127.0.0.99` behind the signature's back, as an attacker would do.
    Broken,
}

/// A running server, which ends with this value.
pub struct Nsd {
    child: Child,
    /// Where it answers.
    pub address: SocketAddr,
    /// The root zone's key, as a file of trust anchors has it.
    pub anchor: String,
    folder: tempfile::TempDir,
}

impl Nsd {
    /// Serves zones right below the root, each with its records in zone-file form (relative to the zone).
    pub fn start(zones: &[(&str, Signed, &str)]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path();
        let root_key = keygen(path, ".");
        let mut root = head(".");
        let mut settings = String::new();
        for (zone, signed, records) in zones {
            let key = (*signed != Signed::No).then(|| keygen(path, zone));
            std::fs::write(
                path.join(zone),
                format!("$ORIGIN {zone}.\n{}{records}\n", head(&format!("{zone}."))),
            )
            .unwrap();
            let _ = writeln!(root, "{zone}. 300 IN NS ns.{zone}.\nns.{zone}. 300 IN A 127.0.0.1");
            if let Some(key) = key {
                root += &run(path, "ldns-key2ds", &["-n", "-2", &format!("{key}.key")]);
                sign(path, zone, &key, *signed == Signed::Hashed);
                if *signed == Signed::Broken {
                    let text = std::fs::read_to_string(path.join(zone)).unwrap();
                    std::fs::write(path.join(zone), text.replace("127.0.0.66", "127.0.0.99")).unwrap();
                }
            }
            let _ = writeln!(settings, "zone:\n  name: \"{zone}.\"\n  zonefile: \"{zone}\"");
        }
        std::fs::write(path.join("root"), root).unwrap();
        sign(path, "root", &root_key, false);
        let anchor = std::fs::read_to_string(path.join(format!("{root_key}.key"))).unwrap();
        // An address of its own: no other test has this port there.
        let seed = std::process::id();
        let nonce = NEXT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let part = |n: u32| u8::try_from(n % 250 + 1).unwrap();
        let ip = Ipv4Addr::new(127, part(seed), part(seed / 250), part(nonce));
        let address = SocketAddr::from((ip, 5300));
        let here = path.display();
        let config = format!(
            "server:\n  ip-address: {ip}@5300\n  username: \"\"\n  database: \"\"\n  server-count: 1\n  do-ip6: no\n  \
             zonesdir: \"{here}\"\n  logfile: \"{here}/log\"\n  pidfile: \"{here}/pid\"\n  xfrdfile: \"{here}/xfrd\"\n  \
             xfrdir: \"{here}\"\n  zonelistfile: \"{here}/zones\"\nremote-control:\n  control-enable: no\n\
             zone:\n  name: \".\"\n  zonefile: \"root\"\n{settings}"
        );
        std::fs::write(path.join("conf"), config).unwrap();
        let child = Command::new(program("nsd"))
            .args(["-d", "-c", "conf"])
            .current_dir(path)
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut server = Self { child, address, anchor, folder };
        server.wait();
        server
    }

    fn wait(&mut self) {
        let begun = Instant::now();
        while TcpStream::connect_timeout(&self.address, Duration::from_secs(1)).is_err() {
            let log = || std::fs::read_to_string(self.folder.path().join("log")).unwrap_or_default();
            assert!(self.child.try_wait().unwrap().is_none(), "nsd has ended: {}", log());
            assert!(begun.elapsed() < Duration::from_secs(20), "nsd does not answer: {}", log());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Ends it, so that nothing is answered any more.
    pub fn stop(&mut self) {
        // By the program: std can only kill, which leaves nsd's children.
        let _ = Command::new("kill").arg(self.child.id().to_string()).status();
        let _ = self.child.wait();
    }
}

static NEXT: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);

impl Drop for Nsd {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            self.stop();
        }
    }
}

fn head(zone: &str) -> String {
    let ns = if zone == "." { "ns.".to_owned() } else { format!("ns.{zone}") };
    format!(
        "{zone} 300 IN SOA {ns} admin.{ns} 1 3600 600 86400 60\n{zone} 300 IN NS {ns}\n{ns} 300 IN A 127.0.0.1\n"
    )
}

/// The base name of a new key.
fn keygen(folder: &Path, zone: &str) -> String {
    run(folder, "ldns-keygen", &["-a", "ECDSAP256SHA256", "-k", zone]).trim().to_owned()
}

fn sign(folder: &Path, file: &str, key: &str, hashed: bool) {
    let options: &[&str] = if hashed { &["-n", "-t", "0"] } else { &[] };
    run(folder, "ldns-signzone", &[options, &["-f", file, file, key]].concat());
}

fn run(folder: &Path, name: &str, arguments: &[&str]) -> String {
    let output = Command::new(program(name)).args(arguments).current_dir(folder).output().unwrap();
    assert!(output.status.success(), "{name} {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// Where Debian has it, which need not be in an ordinary user's path.
fn program(name: &str) -> String {
    let places = ["/usr/sbin", "/usr/bin", "/usr/local/sbin", "/usr/local/bin"];
    let found = places.iter().map(|place| format!("{place}/{name}")).find(|path| Path::new(path).is_file());
    found.unwrap_or_else(|| panic!("{name} is missing; install it with: apt-get install nsd ldnsutils"))
}
