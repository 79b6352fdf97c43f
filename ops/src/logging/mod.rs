//! Logs: `tracing` events with fields, as lines for people or as JSON, on standard error.
//!
//! What may be logged: names (JIDs, addresses, mechanisms), counts, reasons and errors. **Never** the text of a message,
//! a password, a key, a token or a whole stanza, at any level. Libraries that could print what goes over a wire at their
//! finer levels are held at `warn` or above, whatever the operator asks for. No spans per session: an event names its JID.
//!
//! A reader that does not read (a full pipe) must not hold up the node: lines wait in a bounded queue, and beyond it
//! they are dropped and counted (`rookery_log_lines_lost_total`).

mod human;
pub(crate) use self::human::disturbs;
mod writer;

use std::io::Write;
use std::sync::Arc;

use tracing::Subscriber;
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::layer::{Layer as _, SubscriberExt as _};
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, Registry, fmt, reload};

use self::writer::Queue;

/// Libraries that are held: they see bytes of connections, or say more than an operator can use. rustls warns of whatever a
/// client does, as of the `user_canceled` alert that Java sends whenever it closes a connection; hickory of whatever a domain has in
/// DNS.
const HELD: [&str; 12] = [
    "axum=warn",
    "fjall=warn",
    "h2=warn",
    "hickory=off",
    "hyper=warn",
    "hyper_util=warn",
    "lsm_tree=warn",
    "ractor=warn",
    "rustls=error",
    "tokio_rustls=warn",
    "tonic=warn",
    "tower=warn",
];

/// The longest text of directives, in bytes.
const MAX_DIRECTIVES: usize = 1024;

/// How an event is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// A line: time, level, message, fields. In colour on a terminal.
    #[default]
    Text,
    /// A JSON object on a line.
    Json,
}

/// Why logging could not be set up or changed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The directives are not understood.
    #[error("log level {directives:?} is invalid: {reason} (try \"info\" or \"info,rookery_actors=debug\")")]
    Directives {
        /// What was given.
        directives: String,
        /// What is wrong with it.
        reason: String,
    },
    /// Another subscriber is installed already.
    #[error("logging is set up already")]
    Installed,
    /// The thread that writes lines could not be started.
    #[error("the log's thread could not be started: {0}")]
    Thread(#[from] std::io::Error),
}

/// Changes the level and writes out what waits. Clones share one log.
#[derive(Clone)]
pub struct Handle {
    filter: reload::Handle<EnvFilter, Registry>,
    directives: Arc<std::sync::Mutex<String>>,
    queue: Queue,
}

/// Starts logging for the whole process: `directives` such as `info` or `info,rookery_actors=debug`, on standard error.
///
/// # Errors
/// [`Error::Directives`], [`Error::Installed`] or [`Error::Thread`].
pub fn init(directives: &str, format: Format) -> Result<Handle, Error> {
    use std::io::IsTerminal as _;
    let stderr = std::io::stderr();
    let colour = stderr.is_terminal() && std::env::var_os("NO_COLOR").is_none();
    let (subscriber, handle) = build(directives, format, colour, stderr)?;
    subscriber.try_init().map_err(|_| Error::Installed)?;
    Ok(handle)
}

/// What [`init`] installs, writing to `out`.
fn build(
    directives: &str,
    format: Format,
    colour: bool,
    out: impl Write + Send + 'static,
) -> Result<(impl Subscriber + Send + Sync, Handle), Error> {
    let (filter, reload) = reload::Layer::new(parse(directives)?);
    let queue = Queue::start(out)?;
    let layer = fmt::layer().with_writer(queue.clone()).with_ansi(colour);
    let layer = match format {
        Format::Text => layer.event_format(human::Human).boxed(),
        Format::Json => {
            layer.json().flatten_event(true).with_current_span(false).with_span_list(false).boxed()
        }
    };
    let directives = Arc::new(std::sync::Mutex::new(directives.to_owned()));
    Ok((
        tracing_subscriber::registry().with(filter).with(layer),
        Handle { filter: reload, directives, queue },
    ))
}

/// Checks directives without using them, for `rookery check`.
///
/// # Errors
/// [`Error::Directives`].
pub fn check(directives: &str) -> Result<(), Error> {
    parse(directives).map(drop)
}

fn parse(directives: &str) -> Result<EnvFilter, Error> {
    let fail =
        |reason: String| Error::Directives { directives: directives.chars().take(80).collect(), reason };
    if directives.trim().is_empty() || directives.len() > MAX_DIRECTIVES {
        return Err(fail(format!("it is empty or longer than {MAX_DIRECTIVES} bytes")));
    }
    // tracing's own parser takes a word that is no level for a module's name, so that "inof" would turn off everything
    // else; and "module=" for everything of it.
    let mut all = String::new();
    for word in directives.split(',').map(str::trim) {
        let (module, level) = word.split_once('=').unwrap_or(("rookery", word));
        let named = module.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b':'));
        if level.is_empty() || level.parse::<LevelFilter>().is_err() {
            return Err(fail(format!(
                "{level:?} is no level; levels are off, error, warn, info, debug and trace"
            )));
        }
        if module.is_empty() || !named {
            return Err(fail(format!("{module:?} is no module")));
        }
        all.push_str(word);
        all.push(',');
    }
    // A later directive for the same target wins, so these hold.
    EnvFilter::builder()
        .with_regex(false)
        .parse(all + &HELD.join(","))
        .map_err(|error| fail(error.to_string()))
}

impl Handle {
    /// Puts other directives in force and returns those that were.
    ///
    /// # Errors
    /// [`Error::Directives`]; the old ones stay in force.
    pub fn set(&self, directives: &str) -> Result<String, Error> {
        let filter = parse(directives)?;
        self.filter.reload(filter).map_err(|error| Error::Directives {
            directives: directives.to_owned(),
            reason: error.to_string(),
        })?;
        let mut current = self.directives.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        Ok(std::mem::replace(&mut *current, directives.to_owned()))
    }

    /// Waits, two seconds at most, until what was logged so far is written. Call it last before the process ends; it
    /// blocks the thread.
    pub fn flush(&self) {
        self.queue.flush();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    #[derive(Clone, Default)]
    struct Captured(Arc<Mutex<Vec<u8>>>);

    impl Write for Captured {
        fn write(&mut self, buf: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().write(buf)
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    fn capture(format: Format, colour: bool, log: impl FnOnce(&Handle)) -> String {
        let out = Captured::default();
        let (subscriber, handle) = build("info", format, colour, out.clone()).unwrap();
        tracing::subscriber::with_default(subscriber, || log(&handle));
        handle.flush();
        let bytes = out.0.lock().unwrap().clone();
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn a_line_for_people() {
        let text = capture(Format::Text, false, |_| {
            tracing::info!(jid = %"romeo@example.org", count = 2, why = "two words", "session opened");
            tracing::debug!("not shown");
        });
        let (time, rest) = text.split_once(' ').unwrap();
        assert!(time.ends_with('Z') && time.contains('T'), "{text}");
        assert_eq!(rest, " INFO session opened jid=romeo@example.org count=2 why=\"two words\"\n");
        let text = capture(Format::Text, true, |_| tracing::warn!("limit hit"));
        assert!(text.contains("\x1b["), "{text:?}");
    }

    #[test]
    fn a_hostile_field_stays_on_its_line() {
        let text = capture(Format::Text, false, |_| {
            tracing::info!(jid = %"a@b/\n2026 INFO forged\x1b[2J\u{202e}x", "session opened");
        });
        assert_eq!(text.lines().count(), 1, "{text:?}");
        assert!(text.contains("\\n2026") && !text.contains('\x1b') && !text.contains('\u{202e}'), "{text:?}");
    }

    #[test]
    fn json_lines_are_json() {
        let text = capture(Format::Json, false, |_| tracing::info!(jid = "a@b\n", "session opened"));
        let value: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(value["message"], "session opened");
        assert_eq!((value["jid"].as_str(), value["level"].as_str()), (Some("a@b\n"), Some("INFO")));
    }

    #[test]
    fn the_level_changes_while_running() {
        let text = capture(Format::Text, false, |handle| {
            tracing::debug!("one");
            assert_eq!(handle.set("debug").unwrap(), "info");
            tracing::debug!("two");
            tracing::debug!(target: "h2::codec", "three");
            tracing::warn!(target: "rustls::common_state", "three");
            assert!(handle.set("inof").is_err());
            assert_eq!(handle.set("warn").unwrap(), "debug");
            tracing::info!("four");
        });
        assert!(text.contains("two"), "{text}");
        assert!(!text.contains("one") && !text.contains("three") && !text.contains("four"), "{text}");
    }

    #[test]
    fn wrong_directives_are_refused() {
        for wrong in [
            "",
            "inof",
            "rookery_actors",
            "info,loud",
            "a=loud",
            "a=",
            "=info",
            "info,",
            "a[b]=info",
            &"x".repeat(2000),
        ] {
            assert!(check(wrong).is_err(), "{wrong}");
        }
        for right in ["info", "off", "warn,rookery_actors=debug", "info, rookery::net=trace"] {
            check(right).unwrap();
        }
        let trace = "trace,h2=trace";
        assert!(parse(trace).unwrap().to_string().contains("h2=warn"));
        assert!(!parse(trace).unwrap().to_string().contains("h2=trace"));
    }
}
