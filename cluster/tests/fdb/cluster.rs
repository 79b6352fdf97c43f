//! A FoundationDB server of our own, on loopback, with one process.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rookery_cluster::store::Database as _;
use rookery_cluster::store::fdb::Fdb;
use tempfile::TempDir;

/// How long the server may take to come up.
const START: Duration = Duration::from_secs(60);

/// A running server; it ends and its files go with this value.
pub(crate) struct Cluster {
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

fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

impl Cluster {
    /// Starts a server and makes a database in it; `None` if the programs are not there.
    pub(crate) fn start() -> Option<Self> {
        let (server, cli) = (find("fdbserver")?, find("fdbcli")?);
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
                return Some(cluster);
            }
        }
        panic!("fdbserver does not come up");
    }

    /// The cluster file.
    pub(crate) fn file(&self) -> PathBuf {
        self.folder.path().join("fdb.cluster")
    }

    /// Ends the server as kill -9 does.
    pub(crate) fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Starts it again on its files.
    pub(crate) fn restart(&mut self) {
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
            // It says the one on standard output and the other on standard error.
            let said = [output.stdout, output.stderr].concat();
            let said = String::from_utf8_lossy(&said).into_owned();
            // The second: an answer got lost, and the first try had done it.
            if said.contains("Database created") || said.contains("Database already exists") {
                return true;
            }
            std::thread::sleep(Duration::from_millis(200));
        }
        false
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
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

/// Removes everything.
pub(crate) async fn empty(db: &Fdb) {
    let began = Instant::now();
    loop {
        let mut tx = db.begin();
        tx.clear_range(b"", &[0xff]);
        match tx.commit().await {
            Ok(_) => return,
            // A server that has just been started takes its time.
            Err(error) if began.elapsed() > START => panic!("{error} {:?}", error.detail),
            Err(_) => {}
        }
    }
}
