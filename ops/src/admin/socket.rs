//! The admin socket: a Unix socket that only its owner (and root) may open. Three things see to that: its mode is 0600,
//! its folder may not be open to everyone, and the server asks the kernel for the calling user.

use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::{DirBuilderExt as _, FileTypeExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use tokio::net::{UnixListener, UnixStream};
use tokio::time::timeout;

use super::Error;

/// The longest path that fits into a `sockaddr_un`, without its closing nul: 107 bytes on Linux.
const MAX_PATH: usize = 107;

/// How long a socket that exists may take to accept. A dead one refuses at once.
const PROBE: Duration = Duration::from_secs(2);

/// Where the admin socket is, as in `unix:/run/rookery/admin.sock`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Address(String);

impl Address {
    /// The socket at `path`.
    ///
    /// # Errors
    /// [`super::Kind::Invalid`] if the path is empty, longer than 107 bytes or not UTF-8.
    pub fn new(path: &Path) -> Result<Self, Error> {
        let Some(text) = path.to_str() else {
            return Err(Error::invalid(format!(
                "the path of the admin socket is not UTF-8: {}",
                path.display()
            )));
        };
        if text.is_empty() || text.contains('\0') {
            return Err(Error::invalid("the path of the admin socket is empty or holds a nul"));
        }
        if text.len() > MAX_PATH {
            return Err(Error::invalid(format!(
                "the path of the admin socket has {} bytes and a Unix socket's may have {MAX_PATH}: choose a shorter one \
                 (listen.admin), such as unix:/run/rookery/admin.sock",
                text.len()
            )));
        }
        Ok(Self(text.to_owned()))
    }

    /// Its path.
    pub fn path(&self) -> &Path {
        Path::new(&self.0)
    }
}

impl FromStr for Address {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let Some(path) = text.strip_prefix("unix:") else {
            return Err(Error::invalid(format!(
                "{text:?} is no admin address: write unix:/path/to/admin.sock"
            )));
        };
        Self::new(Path::new(path.strip_prefix("//").unwrap_or(path)))
    }
}

impl std::fmt::Display for Address {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "unix:{}", self.0)
    }
}

/// A bound admin socket. Dropping it removes the file, if it is still this one.
#[derive(Debug)]
pub struct Socket {
    pub(super) listener: Option<UnixListener>,
    path: PathBuf,
    /// The user that this process runs as.
    pub(super) owner: u32,
    inode: u64,
}

impl Socket {
    /// Binds the socket: makes its folder (0700) if there is none, removes a socket that nobody listens on any more, and
    /// lets nobody else in. Must be called within tokio's runtime.
    ///
    /// # Errors
    /// [`super::Kind::Unavailable`] if another node listens there; [`super::Kind::Invalid`] if something else is at the
    /// path, the folder is open to everyone, or it cannot be made or bound.
    pub async fn bind(address: &Address) -> Result<Self, Error> {
        let path = address.path();
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        fs::DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(|error| {
            Error::invalid(format!(
                "the folder of the admin socket, {}, cannot be created: {error}",
                folder.display()
            ))
        })?;
        clear_stale(address).await?;
        let refused =
            |error| Error::invalid(format!("the admin socket cannot be bound at {address}: {error}"));
        let listener = UnixListener::bind(path).map_err(refused)?;
        let made = fs::symlink_metadata(path).map_err(refused)?;
        let socket =
            Self { listener: Some(listener), path: path.to_owned(), owner: made.uid(), inode: made.ino() };
        // From here on, `socket` removes the file again when something is wrong.
        fs::set_permissions(path, fs::Permissions::from_mode(0o600)).map_err(refused)?;
        check_folder(folder, socket.owner)?;
        Ok(socket)
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        if fs::symlink_metadata(&self.path).is_ok_and(|now| now.ino() == self.inode) {
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// Removes what a node that was killed left behind. The data folder's lock already keeps two nodes apart.
async fn clear_stale(address: &Address) -> Result<(), Error> {
    let path = address.path();
    match fs::symlink_metadata(path) {
        Err(_) => return Ok(()),
        Ok(there) if !there.file_type().is_socket() => {
            return Err(Error::invalid(format!(
                "{} exists and is no socket: remove it, or choose another path (listen.admin)",
                path.display()
            )));
        }
        Ok(_) => {}
    }
    match timeout(PROBE, UnixStream::connect(path)).await {
        Ok(Err(error)) if error.kind() == ErrorKind::ConnectionRefused => {
            fs::remove_file(path).map_err(|error| {
                Error::invalid(format!(
                    "the admin socket of an ended node, {}, cannot be removed: {error}",
                    path.display()
                ))
            })
        }
        Ok(Err(error)) if error.kind() == ErrorKind::NotFound => Ok(()),
        Ok(Err(error)) => Err(Error::invalid(format!("{} cannot be connected to: {error}", path.display()))),
        Ok(Ok(_)) | Err(_) => Err(Error::unavailable(format!(
            "another node already listens on {address}: stop that node, or choose another path (listen.admin)"
        ))),
    }
}

/// A user that may write in the folder can put another socket in this one's place, and be told passwords.
fn check_folder(folder: &Path, owner: u32) -> Result<(), Error> {
    let there = fs::metadata(folder)
        .map_err(|error| Error::invalid(format!("{} cannot be inspected: {error}", folder.display())))?;
    if there.uid() != owner && there.uid() != 0 {
        return Err(Error::invalid(format!(
            "the folder of the admin socket, {}, belongs to user {}: give it to the node's own user, {owner}",
            folder.display(),
            there.uid()
        )));
    }
    if there.mode() & 0o002 != 0 {
        return Err(Error::invalid(format!(
            "the folder of the admin socket, {}, can be written by everyone: run chmod 0700 on it, or choose another path \
             (listen.admin)",
            folder.display()
        )));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::Kind;

    fn folder() -> (tempfile::TempDir, Address) {
        let folder = tempfile::tempdir().unwrap();
        let address = Address::new(&folder.path().join("run/admin.sock")).unwrap();
        (folder, address)
    }

    #[test]
    fn addresses_are_unix_paths() {
        for (text, path) in
            [("unix:/run/a", "/run/a"), ("unix:///run/a", "/run/a"), ("unix:data/a", "data/a")]
        {
            assert_eq!(text.parse::<Address>().unwrap().path(), Path::new(path));
        }
        for wrong in ["/run/a", "tcp:1", "unix:", "", "unix:a\0b"] {
            assert_eq!(wrong.parse::<Address>().unwrap_err().kind, Kind::Invalid, "{wrong}");
        }
        let long = format!("unix:/{}", "x".repeat(107));
        let error = long.parse::<Address>().unwrap_err();
        assert!(error.message.contains("108 bytes") && error.message.contains("107"), "{error}");
    }

    #[tokio::test]
    async fn only_the_owner_may_open_it_and_it_goes_with_its_node() {
        let (_folder, address) = folder();
        let socket = Socket::bind(&address).await.unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().mode() & 0o777;
        assert_eq!((mode(address.path()), mode(address.path().parent().unwrap())), (0o600, 0o700));
        drop(socket);
        assert!(!address.path().exists());
    }

    #[tokio::test]
    async fn a_dead_socket_is_replaced_and_a_live_one_is_not() {
        let (_folder, address) = folder();
        fs::create_dir(address.path().parent().unwrap()).unwrap();
        drop(std::os::unix::net::UnixListener::bind(address.path()).unwrap());
        assert!(address.path().exists(), "std leaves the file behind, as a killed node does");
        let _socket = Socket::bind(&address).await.unwrap();
        let error = Socket::bind(&address).await.unwrap_err();
        assert_eq!(error.kind, Kind::Unavailable, "{error}");
        assert!(address.path().exists(), "the live one stays");
    }

    #[tokio::test]
    async fn what_is_not_ours_is_left_alone() {
        let (_folder, address) = folder();
        let folder = address.path().parent().unwrap();
        fs::create_dir(folder).unwrap();
        fs::write(address.path(), "precious").unwrap();
        assert!(Socket::bind(&address).await.unwrap_err().message.contains("is no socket"));
        assert_eq!(fs::read(address.path()).unwrap(), b"precious");
        fs::remove_file(address.path()).unwrap();

        fs::set_permissions(folder, fs::Permissions::from_mode(0o777)).unwrap();
        assert!(Socket::bind(&address).await.unwrap_err().message.contains("written by everyone"));
        assert!(!address.path().exists(), "nothing stays behind");
    }
}
