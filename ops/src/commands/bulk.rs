//! `rookery user import`: accounts in bulk, from lines of `jid<TAB>password`.

use std::io::{BufRead, Read as _};
use std::path::Path;

use super::meter::Meter;
use super::terminal::{Terminal, shown};
use crate::admin::{Admin, Error, ImportReport, UserImportLine, add_failure, add_report};
use crate::secret::Password;

/// Lines sent at a time: enough that all cores make keys, few enough that progress is seen.
const BATCH: usize = 500;

/// The most bytes of a batch, so that it fits into one message.
const BATCH_BYTES: usize = 1024 * 1024;

/// The longest line: a JID of 3,071 bytes, a tab, a password and a line break.
const MAX_LINE: u64 = 8 * 1024;

/// How many errors are printed; the rest are counted.
const SHOWN: usize = 20;

pub(super) async fn import(file: &Path, admin: &impl Admin, terminal: &Terminal) -> Result<(), Error> {
    let (input, total) = terminal.open(file)?;
    let mut lines = Lines { input, number: 0, bytes: 0 };
    let meter = Meter::new(terminal, total);
    let mut report = ImportReport::default();
    loop {
        let (batch, over) = lines.batch(&mut report)?;
        if !batch.is_empty() {
            add_report(&mut report, admin.user_import(batch).await?);
        }
        meter.at(lines.bytes, &format!("{} added, {} skipped", report.added, report.skipped));
        if over {
            break;
        }
    }
    meter.finish();
    tell(&mut report, terminal)
}

/// Tells what became of an import; an error if anything failed.
pub(super) fn tell(report: &mut ImportReport, terminal: &Terminal) -> Result<(), Error> {
    report.errors.sort_by_key(|error| error.line);
    for error in report.errors.iter().take(SHOWN) {
        let place = if error.line > 0 { format!("line {}: ", error.line) } else { String::new() };
        terminal.remark(&format!("{place}{}", shown(&error.reason)));
    }
    let told = u64::try_from(report.errors.len().min(SHOWN)).unwrap_or(0);
    if report.failed > told {
        terminal.remark(&format!("… and {} more", report.failed - told));
    }
    terminal.say(&format!(
        "{} accounts added, {} skipped because they exist, {} failed",
        report.added, report.skipped, report.failed
    ))?;
    terminal.flush()?;
    if report.failed > 0 {
        return Err(Error::invalid(format!("{} accounts were not imported", report.failed)));
    }
    Ok(())
}

struct Lines {
    input: Box<dyn BufRead + Send>,
    number: u64,
    bytes: u64,
}

impl Lines {
    /// The next batch, and whether it was the last. Lines that cannot be understood go to `report`.
    fn batch(&mut self, report: &mut ImportReport) -> Result<(Vec<UserImportLine>, bool), Error> {
        let (mut batch, mut size) = (Vec::new(), 0);
        while batch.len() < BATCH && size < BATCH_BYTES {
            let mut line = Vec::new();
            let failed = |error| Error::invalid(format!("the input cannot be read: {error}"));
            self.input.by_ref().take(MAX_LINE + 1).read_until(b'\n', &mut line).map_err(failed)?;
            if line.is_empty() {
                return Ok((batch, true));
            }
            self.number += 1;
            let read = u64::try_from(line.len()).unwrap_or(u64::MAX);
            self.bytes = self.bytes.saturating_add(read);
            if read > MAX_LINE && !line.ends_with(b"\n") {
                self.bytes = self.bytes.saturating_add(self.input.skip_until(b'\n').map_err(failed)? as u64);
                add_failure(report, self.number, format!("the line is longer than {MAX_LINE} bytes"));
                continue;
            }
            size += line.len();
            // A file of another system may begin with a byte order mark.
            let mark: &[u8] = if self.number == 1 { "\u{feff}".as_bytes() } else { b"" };
            match parse(line.strip_prefix(mark).unwrap_or(&line)) {
                Ok(Some((jid, password))) => {
                    let password = password.into_string();
                    batch.push(UserImportLine { line: self.number, jid, password });
                }
                Ok(None) => {}
                Err(reason) => add_failure(report, self.number, reason),
            }
        }
        Ok((batch, false))
    }
}

/// A line's JID and password; nothing for an empty line. Reasons never repeat what the line says: it may hold a
/// password.
fn parse(line: &[u8]) -> Result<Option<(String, Password)>, String> {
    let line = line.strip_suffix(b"\n").unwrap_or(line);
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    if line.is_empty() {
        return Ok(None);
    }
    let Ok(line) = std::str::from_utf8(line) else { return Err("not valid UTF-8".to_owned()) };
    let Some((jid, password)) = line.split_once('\t') else {
        return Err("no tab between JID and password".to_owned());
    };
    if jid.is_empty() {
        return Err("no JID before the tab".to_owned());
    }
    let password = Password::new(password).map_err(|error| error.to_string())?;
    Ok(Some((jid.to_owned(), password)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::Kind;
    use crate::admin::testing::{Fake, Node};
    use crate::commands::terminal::testing::Captured;

    #[tokio::test]
    async fn many_lines_go_in_batches() {
        let node = Node::start(Fake::with_users(3)).await;
        let text: String = (0..1_700).map(|n| format!("user{n:05}@example.org\tsecret {n}\r\n")).collect();
        let captured = Captured::new(&text);
        import(Path::new("-"), &node.remote, &captured.terminal).await.unwrap();
        assert_eq!(captured.out(), "1697 accounts added, 3 skipped because they exist, 0 failed\n");
        assert_eq!(*node.fake.batches.lock().unwrap(), [500, 500, 500, 200]);
        assert_eq!(node.fake.password("user01699@example.org").unwrap(), "secret 1699");
        assert_eq!(
            node.fake.password("user00001@example.org").unwrap(),
            "x",
            "an account that exists is left alone"
        );
        node.stop().await;
    }

    #[tokio::test]
    async fn bad_lines_are_named_and_the_others_taken() {
        let node = Node::start(Fake::default()).await;
        let file = tempfile::NamedTempFile::new().unwrap();
        let long = "x".repeat(20_000);
        let text = format!(
            "\u{feff}a@b\tone\n\nsecret without tab\nnojid\ttwo\n\tthree\nc@d\t\n{long}\ne@f\t fünf\nlast@g\tno line break"
        );
        std::fs::write(file.path(), [text.as_bytes(), b"\n\xff\tx\n"].concat()).unwrap();
        let captured = Captured::new("");
        let error = import(file.path(), &node.remote, &captured.terminal).await.unwrap_err();
        assert_eq!(error.kind, Kind::Invalid);
        assert_eq!(captured.out(), "3 accounts added, 0 skipped because they exist, 6 failed\n");
        let err = captured.err();
        for said in [
            "line 3: no tab",
            "line 4: \"nojid\" is no bare JID",
            "line 5: no JID",
            "line 6: the password is empty",
            "line 7: the line is longer than 8192 bytes",
            "line 10: not valid UTF-8",
        ] {
            assert!(err.contains(said), "{said} is not in:\n{err}");
        }
        assert!(!err.contains("secret"), "{err}");
        assert_eq!(node.fake.password("a@b").unwrap(), "one", "behind a byte order mark");
        assert_eq!(node.fake.password("e@f").unwrap(), " fünf");
        assert_eq!(node.fake.password("last@g").unwrap(), "no line break");
        node.stop().await;
    }

    #[tokio::test]
    async fn a_thousand_errors_are_not_a_thousand_lines() {
        let fake = Fake::default();
        let captured = Captured::new(&"no tab here\n".repeat(3_000));
        import(Path::new("-"), &fake, &captured.terminal).await.unwrap_err();
        assert!(captured.err().contains("… and 2980 more"), "{}", captured.err());
        assert!(captured.err().lines().count() < 30);
    }
}
