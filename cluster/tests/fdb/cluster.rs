//! A FoundationDB server of our own, on loopback, with one process. The crate `rookery-tests` includes this file too.

use std::fs::File;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

/// How long the server may take to come up.
const START: Duration = Duration::from_secs(60);

/// A running server; it ends and its files go with this value.
pub struct Cluster {
    folder: TempDir,
    server: PathBuf,
    port: u16,
    child: Child,
}

/// A program of FoundationDB's.
fn find(name: &str) -> Option<PathBuf> {
    let bin = std::env::var_os("FDB_BIN_DIR").into_iter();
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = bin.map(PathBuf::from).chain(std::env::split_paths(&path).collect::<Vec<_>>());
    let usual = ["/usr/sbin", "/usr/local/sbin"].map(PathBuf::from);
    folders.chain(usual).map(|folder| folder.join(name)).find(|file| file.is_file())
}

/// A port below the range from which outgoing connections take theirs: the server must find it free when it starts again.
fn free_port() -> u16 {
    let first = 20_000 + u16::try_from(std::process::id() % 12_000).unwrap();
    let mut ports = (first..32_000).chain(20_000..first);
    ports.find(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok()).unwrap()
}

impl Cluster {
    /// Starts a server and makes a database in it; `None` if the programs are not there.
    ///
    /// # Errors
    /// What the server and fdbcli said, if it does not come up.
    pub fn start() -> Result<Option<Self>, String> {
        let (Some(server), Some(cli)) = (find("fdbserver"), find("fdbcli")) else {
            return Ok(None);
        };
        let mut said = String::new();
        // Another may take the port before the server has it: then once more.
        for _ in 0..3 {
            let folder = tempfile::tempdir().unwrap();
            let port = free_port();
            std::fs::write(folder.path().join("fdb.cluster"), format!("rookery:test@127.0.0.1:{port}\n"))
                .unwrap();
            for name in ["data", "logs"] {
                std::fs::create_dir(folder.path().join(name)).unwrap();
            }
            let child = spawn(&server, folder.path(), port);
            let mut cluster = Self { folder, server: server.clone(), port, child };
            if cluster.configure(&cli) {
                return Ok(Some(cluster));
            }
            said = cluster.said();
        }
        Err(format!("fdbserver does not come up\n{said}"))
    }

    /// The cluster file.
    pub fn file(&self) -> PathBuf {
        self.folder.path().join("fdb.cluster")
    }

    /// Ends the server as kill -9 does.
    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Starts it again on its files.
    pub fn restart(&mut self) {
        self.child = spawn(&self.server, self.folder.path(), self.port);
    }

    fn configure(&mut self, cli: &Path) -> bool {
        let began = Instant::now();
        while began.elapsed() < START {
            if self.child.try_wait().unwrap().is_some() {
                return false;
            }
            let arguments = ["--exec", "configure new single memory", "--timeout", "10", "-C"];
            let output = Command::new(cli).args(arguments).arg(self.file()).output().unwrap();
            // The program says the one on standard output and the other on standard error.
            let said = [output.stdout, output.stderr].concat();
            std::fs::write(self.folder.path().join("fdbcli"), &said).unwrap();
            let said = String::from_utf8_lossy(&said).into_owned();
            // The second: an answer got lost, and the first try had done it.
            if said.contains("Database created") || said.contains("Database already exists") {
                return true;
            }
            std::thread::sleep(Duration::from_millis(200));
        }
        false
    }

    /// What it printed, fdbcli's last words, and the errors of its log: the folder with all that goes away.
    fn said(&self) -> String {
        let read =
            |file: &Path| String::from_utf8_lossy(&std::fs::read(file).unwrap_or_default()).into_owned();
        let mut said = String::new();
        for name in ["stdout", "stderr", "fdbcli"] {
            said.push_str(&format!("--- {name} ---\n{}\n", read(&self.folder.path().join(name))));
        }
        for log in std::fs::read_dir(self.folder.path().join("logs")).into_iter().flatten().flatten() {
            for line in read(&log.path()).lines().filter(|line| line.contains("Severity=\"40\"")) {
                said.push_str(&format!("{line}\n"));
            }
        }
        said
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn spawn(server: &Path, folder: &Path, port: u16) -> Child {
    let at = |name: &str| folder.join(name);
    Command::new(server)
        .arg("--public-address")
        .arg(format!("127.0.0.1:{port}"))
        .arg("--cluster-file")
        .arg(at("fdb.cluster"))
        .arg("--datadir")
        .arg(at("data"))
        .arg("--logdir")
        .arg(at("logs"))
        // Any file system will do, and a disk that is almost full.
        .arg("--knob_disable_posix_kernel_aio=1")
        .arg("--knob_min_available_space_ratio=0.001")
        // The server ends with us, also when nobody drops anything.
        .arg("--parentpid")
        .arg(std::process::id().to_string())
        .stdin(Stdio::null())
        .stdout(File::create(at("stdout")).unwrap())
        .stderr(File::create(at("stderr")).unwrap())
        .spawn()
        .unwrap()
}
