//! An event as a line for people: time, level, message, then the fields. Values come from clients too, so nothing in
//! them may end the line, move a terminal's cursor or turn the direction of the text around.

use std::fmt::{self, Write as _};

use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::{FormatTime as _, SystemTime};
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

/// The longest value of a field, in bytes; the rest is cut off.
const MAX_VALUE: usize = 1024;

pub(super) struct Human;

impl<S, N> FormatEvent<S, N> for Human
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        _context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let mut line = Line::default();
        event.record(&mut line);
        let level = *event.metadata().level();
        if writer.has_ansi_escapes() {
            writer.write_str("\x1b[2m")?;
            SystemTime.format_time(&mut writer)?;
            write!(writer, "\x1b[0m \x1b[{}m{level:>5}\x1b[0m {}", colour(level), line.message)?;
            writeln!(writer, "\x1b[2m{}\x1b[0m", line.fields)
        } else {
            SystemTime.format_time(&mut writer)?;
            writeln!(writer, " {level:>5} {}{}", line.message, line.fields)
        }
    }
}

fn colour(level: Level) -> u8 {
    match level {
        Level::ERROR => 31,
        Level::WARN => 33,
        Level::INFO => 32,
        Level::DEBUG => 34,
        Level::TRACE => 35,
    }
}

#[derive(Default)]
struct Line {
    message: String,
    fields: String,
}

impl Line {
    fn add(&mut self, name: &str, value: &str) {
        if name == "message" {
            escape(&mut self.message, value);
            return;
        }
        // Where a record came from in a library that uses the `log` crate.
        if name.starts_with("log.") {
            return;
        }
        self.fields.push(' ');
        self.fields.push_str(name);
        self.fields.push('=');
        if value.is_empty() || value.contains([' ', '"', '=']) {
            self.fields.push('"');
            for piece in value.split_inclusive('"') {
                escape(&mut self.fields, piece.strip_suffix('"').unwrap_or(piece));
                if piece.ends_with('"') {
                    self.fields.push_str("\\\"");
                }
            }
            self.fields.push('"');
        } else {
            escape(&mut self.fields, value);
        }
    }
}

impl Visit for Line {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.add(field.name(), value);
    }

    fn record_error(&mut self, field: &Field, value: &(dyn std::error::Error + 'static)) {
        let mut text = value.to_string();
        let mut cause = value.source();
        while let Some(error) = cause {
            let _ = write!(text, ": {error}");
            cause = error.source();
        }
        self.add(field.name(), &text);
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.add(field.name(), &format!("{value:?}"));
    }
}

/// Appends `value`, cut at [`MAX_VALUE`], with every character escaped that could disturb the line.
fn escape(out: &mut String, value: &str) {
    for (at, c) in value.char_indices() {
        if at >= MAX_VALUE {
            out.push('…');
            return;
        }
        if disturbs(c) {
            out.extend(c.escape_default());
        } else {
            out.push(c);
        }
    }
}

/// Whether a character controls a terminal or the direction of the text around it (Unicode's Bidi_Control and line
/// separators).
pub(crate) fn disturbs(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}
