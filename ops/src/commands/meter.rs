//! Progress: a bar on a terminal, else a line for each tenth, so that a log or a script is not flooded.

use std::sync::Mutex;
use std::sync::PoisonError;

use indicatif::{ProgressBar, ProgressStyle};

use super::terminal::{Sink, Terminal, remark};

/// Without a known total, a line each time so much more was done.
const STEP: u64 = 16 * 1024 * 1024;

/// How far a piece of work is, in bytes of its input.
pub(super) struct Meter {
    total: Option<u64>,
    how: How,
}

enum How {
    Bar(ProgressBar),
    Lines { err: Sink, told: Mutex<u64> },
}

impl Meter {
    /// A meter for `total` bytes, if that is known.
    pub(super) fn new(terminal: &Terminal, total: Option<u64>) -> Self {
        if !terminal.bars {
            return Self { total, how: How::Lines { err: Sink::clone(&terminal.err), told: Mutex::new(0) } };
        }
        let bar = total.map_or_else(ProgressBar::new_spinner, ProgressBar::new);
        let template = if total.is_some() {
            "{bar:40} {percent:>3}%  {msg}  (ETA {eta})"
        } else {
            "{spinner} {bytes}  {msg}"
        };
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style);
        }
        Self { total, how: How::Bar(bar) }
    }

    /// `done` bytes are done; `what` says what came of them.
    pub(super) fn at(&self, done: u64, what: &str) {
        match &self.how {
            How::Bar(bar) => {
                bar.set_position(done);
                bar.set_message(what.to_owned());
            }
            How::Lines { err, told } => {
                let mut told = told.lock().unwrap_or_else(PoisonError::into_inner);
                let Some(total) = self.total else {
                    if done / STEP > *told {
                        *told = done / STEP;
                        remark(err, &format!("{} MiB: {what}", done / (1024 * 1024)));
                    }
                    return;
                };
                let tenth =
                    u64::try_from(u128::from(done) * 10 / u128::from(total.max(1))).unwrap_or(10).min(10);
                // The last tenth is the result, which the command tells itself.
                if tenth > *told && tenth < 10 {
                    remark(err, &format!("{}%: {what}", tenth * 10));
                }
                *told = tenth.max(*told);
            }
        }
    }

    /// Takes the bar away; the command tells the result.
    pub(super) fn finish(&self) {
        if let How::Bar(bar) = &self.how {
            bar.finish_and_clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::commands::terminal::testing::Captured;

    use super::*;

    #[test]
    fn without_a_terminal_a_line_for_each_tenth() {
        let captured = Captured::new("");
        let meter = Meter::new(&captured.terminal, Some(1000));
        for done in 0..=1000 {
            meter.at(done, "going on");
        }
        meter.finish();
        let err = captured.err();
        let lines: Vec<&str> = err.lines().collect();
        assert_eq!((lines.len(), lines[0], lines[8]), (9, "10%: going on", "90%: going on"));
    }
}
