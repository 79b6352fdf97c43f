//! Where a command's words go, and where its input comes from; passed in, so that tests see what an operator sees.

use std::fs::File;
use std::io::{self, BufRead, BufReader, IsTerminal as _, Write};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use crate::admin::Error;
use crate::logging::disturbs;

/// A place to write to. Shared, because progress is told from inside a request.
pub type Sink = Arc<Mutex<dyn Write + Send>>;

/// A source of random bytes.
pub type Fill = Box<dyn Fn(&mut [u8]) + Send + Sync>;

/// The operator's side of a command.
pub struct Terminal {
    /// Results.
    pub out: Sink,
    /// Progress and remarks.
    pub err: Sink,
    /// Standard input.
    pub input: Mutex<Box<dyn BufRead + Send>>,
    /// Whether progress may be drawn as a bar: standard error is a terminal.
    pub bars: bool,
    /// A cryptographically secure source of random bytes, for generated passwords.
    pub fill: Fill,
}

impl Terminal {
    /// The process's own standard streams.
    pub fn system(fill: impl Fn(&mut [u8]) + Send + Sync + 'static) -> Self {
        Self {
            out: Arc::new(Mutex::new(io::BufWriter::new(io::stdout()))),
            err: Arc::new(Mutex::new(io::stderr())),
            input: Mutex::new(Box::new(BufReader::new(io::stdin()))),
            bars: io::stderr().is_terminal(),
            fill: Box::new(fill),
        }
    }

    /// Writes a line of results.
    pub(super) fn say(&self, line: &str) -> Result<(), Error> {
        self.write(format!("{line}\n").as_bytes())
    }

    /// Writes results as they are.
    pub(super) fn write(&self, bytes: &[u8]) -> Result<(), Error> {
        self.out.lock().unwrap_or_else(PoisonError::into_inner).write_all(bytes).map_err(closed)
    }

    /// Makes sure that results are out.
    pub(super) fn flush(&self) -> Result<(), Error> {
        self.out.lock().unwrap_or_else(PoisonError::into_inner).flush().map_err(closed)
    }

    /// Writes a remark.
    pub fn remark(&self, line: &str) {
        remark(&self.err, line);
    }

    /// Takes standard input; a second time it is empty.
    pub(super) fn take_input(&self) -> Box<dyn BufRead + Send> {
        let mut input = self.input.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::replace(&mut *input, Box::new(io::empty()))
    }

    /// Opens `file`, or standard input for `-`. Also tells its size, if it is known.
    pub(super) fn open(&self, file: &Path) -> Result<(Box<dyn BufRead + Send>, Option<u64>), Error> {
        if file == Path::new("-") {
            return Ok((self.take_input(), None));
        }
        let failed = |error| Error::invalid(format!("{} cannot be read: {error}", file.display()));
        let opened = File::open(file).map_err(failed)?;
        let about = opened.metadata().map_err(failed)?;
        if about.is_dir() {
            return Err(Error::invalid(format!("{} is a folder", file.display())));
        }
        Ok((Box::new(BufReader::new(opened)), about.is_file().then_some(about.len())))
    }
}

/// Writes a remark to `sink`. An error is ignored: nobody need read remarks.
pub(super) fn remark(sink: &Sink, line: &str) {
    let _ = writeln!(sink.lock().unwrap_or_else(PoisonError::into_inner), "{line}");
}

fn closed(error: io::Error) -> Error {
    Error::internal(format!("the output cannot be written: {error}"))
}

/// A text from the node, safe to show on a terminal: JIDs and addresses are chosen by clients.
pub(super) fn shown(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for c in text.chars() {
        if disturbs(c) { shown.extend(c.escape_default()) } else { shown.push(c) }
    }
    shown
}

/// The lines of a table, its cells padded to the width of the widest in their column.
pub(super) fn columns<R: AsRef<[String]>>(rows: &[R]) -> Vec<String> {
    let mut widths: Vec<usize> = Vec::new();
    for row in rows {
        let row = row.as_ref();
        widths.resize(widths.len().max(row.len()), 0);
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = cell.chars().count().max(*width);
        }
    }
    let line = |row: &R| {
        let cells = row.as_ref().iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}"));
        cells.collect::<Vec<_>>().join("  ").trim_end().to_owned()
    };
    rows.iter().map(line).collect()
}

#[cfg(test)]
pub(super) mod testing {
    use super::*;

    /// A terminal whose words can be read back.
    pub(in crate::commands) struct Captured {
        pub(in crate::commands) terminal: Terminal,
        out: Arc<Mutex<Vec<u8>>>,
        err: Arc<Mutex<Vec<u8>>>,
    }

    impl Captured {
        pub(in crate::commands) fn new(input: &str) -> Self {
            let (out, err) = (Arc::new(Mutex::new(Vec::new())), Arc::new(Mutex::new(Vec::new())));
            let terminal = Terminal {
                out: out.clone(),
                err: err.clone(),
                input: Mutex::new(Box::new(io::Cursor::new(input.to_owned()))),
                bars: false,
                fill: Box::new(|buf| buf.fill(7)),
            };
            Self { terminal, out, err }
        }

        pub(in crate::commands) fn out(&self) -> String {
            String::from_utf8(self.out.lock().unwrap().clone()).unwrap()
        }

        pub(in crate::commands) fn err(&self) -> String {
            String::from_utf8(self.err.lock().unwrap().clone()).unwrap()
        }
    }

    #[test]
    fn a_hostile_name_cannot_move_the_cursor() {
        assert_eq!(shown("a@b/x\x1b[2J\r\u{202e}ü"), "a@b/x\\u{1b}[2J\\r\\u{202e}ü");
    }
}
