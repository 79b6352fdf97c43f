//! `rookery export | import`: documents of XEP-0227 as streams of bytes. What is in them is the node's affair.

use std::fs::{self, OpenOptions};
use std::io::{self, BufRead, Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use tokio_stream::StreamExt as _;

use super::meter::Meter;
use super::terminal::Terminal;
use crate::admin::{Admin, Chunks, Error, ImportReport};

/// Bytes of a document read at a time.
const CHUNK: u64 = 64 * 1024;

pub(super) async fn export(
    target: &str,
    output: Option<&Path>,
    admin: &impl Admin,
    terminal: &Terminal,
) -> Result<(), Error> {
    let mut chunks = admin.export(target).await?;
    let Some(path) = output else {
        while let Some(chunk) = chunks.next().await {
            terminal.write(&chunk?)?;
        }
        return terminal.flush();
    };
    let failed = |error| Error::invalid(format!("{} cannot be written: {error}", path.display()));
    // Written beside its place and moved there when it is whole: half an export must not look like one.
    let part = Part::create(path).map_err(failed)?;
    let (mut file, mut size) = (&part.file, 0_usize);
    while let Some(chunk) = chunks.next().await {
        let chunk = chunk?;
        file.write_all(&chunk).map_err(failed)?;
        size = size.saturating_add(chunk.len());
    }
    part.finish(path).map_err(failed)?;
    terminal.remark(&format!("{size} bytes written to {}", path.display()));
    Ok(())
}

/// A file that is not whole yet; dropping it removes it. Only its owner may read it: it holds keys of accounts.
struct Part {
    file: fs::File,
    path: PathBuf,
}

impl Part {
    fn create(place: &Path) -> io::Result<Self> {
        let mut name = place.file_name().unwrap_or_default().to_owned();
        name.push(".part");
        let path = place.with_file_name(name);
        // A part of an export that was killed may be there.
        let _ = fs::remove_file(&path);
        let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path)?;
        Ok(Self { file, path })
    }

    fn finish(self, place: &Path) -> io::Result<()> {
        self.file.sync_all()?;
        fs::rename(&self.path, place)
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
    }
}

pub(super) async fn import(file: &Path, admin: &impl Admin, terminal: &Terminal) -> Result<(), Error> {
    let (input, total) = terminal.open(file)?;
    let read = Arc::new(AtomicU64::new(0));
    let meter = Meter::new(terminal, total);
    let progress = |report: &ImportReport| {
        let what = format!("{} added, {} skipped", report.added, report.skipped);
        meter.at(read.load(Ordering::Relaxed), &what);
    };
    let mut report = admin.import(pieces(input, Arc::clone(&read)), &progress).await?;
    meter.finish();
    super::bulk::tell(&mut report, terminal)
}

/// The input in pieces; an error of reading ends them.
fn pieces(mut input: Box<dyn BufRead + Send>, read: Arc<AtomicU64>) -> Chunks {
    let mut over = false;
    Box::pin(tokio_stream::iter(std::iter::from_fn(move || {
        if over {
            return None;
        }
        let mut piece = Vec::new();
        match input.by_ref().take(CHUNK).read_to_end(&mut piece) {
            Ok(0) => None,
            Ok(size) => {
                read.fetch_add(u64::try_from(size).unwrap_or(0), Ordering::Relaxed);
                Some(Ok(Bytes::from(piece)))
            }
            Err(error) => {
                over = true;
                Some(Err(Error::invalid(format!("the input cannot be read: {error}"))))
            }
        }
    })))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;
    use crate::admin::Kind;
    use crate::admin::testing::{Fake, Node};
    use crate::commands::terminal::testing::Captured;

    #[tokio::test]
    async fn an_export_is_whole_and_private_or_not_there() {
        let node = Node::start(Fake::with_users(1)).await;
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("user.xml");
        let captured = Captured::new("");
        export("user00000@example.org", Some(&path), &node.remote, &captured.terminal).await.unwrap();
        let expected = "<server-data>user00000@example.org</server-data>";
        assert_eq!(fs::read_to_string(&path).unwrap(), expected);
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        export("user00000@example.org", None, &node.remote, &captured.terminal).await.unwrap();
        assert_eq!(captured.out(), expected);

        let error =
            export("nobody@example.org", Some(&path), &node.remote, &captured.terminal).await.unwrap_err();
        assert_eq!(error.kind, Kind::NotFound);
        let error =
            export("broken.example", Some(&path), &node.remote, &captured.terminal).await.unwrap_err();
        assert_eq!((error.kind, error.message.as_str()), (Kind::Internal, "the store broke"));
        assert_eq!(fs::read_to_string(&path).unwrap(), expected, "what was there before stays");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "and no part of the other");
        node.stop().await;
    }

    #[tokio::test]
    async fn a_document_arrives_as_it_is() {
        let node = Node::start(Fake::default()).await;
        let document = "<server-data>ä</server-data>".repeat(20_000);
        let captured = Captured::new(&document);
        import(Path::new("-"), &node.remote, &captured.terminal).await.unwrap();
        assert_eq!(node.fake.documents.lock().unwrap().pop().unwrap().unwrap(), document.as_bytes());
        assert!(captured.out().ends_with("0 failed\n"), "{}", captured.out());
        node.stop().await;
    }

    /// Reads a little, then breaks.
    struct Broken(bool);

    impl io::Read for Broken {
        fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
            if std::mem::replace(&mut self.0, true) {
                return Err(io::Error::other("the disk broke"));
            }
            buf[..13].copy_from_slice(b"<server-data>");
            Ok(13)
        }
    }

    #[tokio::test]
    async fn a_document_that_breaks_off_is_not_taken_for_a_whole_one() {
        let node = Node::start(Fake::default()).await;
        let captured = Captured::new("");
        *captured.terminal.input.lock().unwrap() = Box::new(io::BufReader::new(Broken(false)));
        let error = import(Path::new("-"), &node.remote, &captured.terminal).await.unwrap_err();
        assert!(error.message.contains("the disk broke"), "{error}");
        assert!(!node.fake.documents.lock().unwrap().iter().any(Result::is_ok));
        node.stop().await;
    }
}
