//! Drawing over what was drawn before, where there is a terminal; lines about what changed, where there is none.

use std::io::{self, Write as _};
use std::time::Duration;

use rustix::termios::tcgetwinsize;
use tokio::time::Instant;

use super::story::Story;

/// While shards move, lines about them come no more often than this.
const PAUSE: Duration = Duration::from_secs(1);
/// Where nobody says how wide the terminal is.
const WIDTH: usize = 100;

/// Standard output.
pub struct Screen {
    draws: bool,
    /// Lines of the last picture.
    lines: usize,
    told: u64,
    summary: String,
    /// When it was told.
    at: Option<Instant>,
}

impl Screen {
    /// With a picture that is drawn again and again, or with lines.
    pub fn new(draws: bool) -> Self {
        if draws {
            print!("\x1b[?25l");
        }
        Self { draws, lines: 0, told: 0, summary: String::new(), at: None }
    }

    /// Shows how things are now.
    pub fn draw(&mut self, story: &Story, drain: bool) {
        if !self.draws {
            return self.tell(story);
        }
        let width = tcgetwinsize(io::stdout()).map_or(WIDTH, |size| usize::from(size.ws_col)).max(20);
        let lines = story.screen(Instant::now(), width, drain);
        let mut text = String::new();
        if self.lines > 0 {
            text.push_str(&format!("\x1b[{}A", self.lines));
        }
        for line in &lines {
            text.push_str(line);
            // What is left of the line before.
            text.push_str("\x1b[K\n");
        }
        text.push_str("\x1b[J");
        self.lines = lines.len();
        show(&text);
    }

    fn tell(&mut self, story: &Story) {
        let (events, told) = story.events(self.told);
        let mut text = String::new();
        for event in events {
            text.push_str(event);
            text.push('\n');
        }
        self.told = told;
        let summary = story.summary();
        let soon = self.at.is_some_and(|at| at.elapsed() < PAUSE);
        if summary != self.summary && !(soon && story.moves()) {
            text.push_str(&format!("         {summary}\n"));
            (self.summary, self.at) = (summary, Some(Instant::now()));
        }
        if !text.is_empty() {
            show(&text);
        }
    }

    /// Leaves the terminal as it was.
    pub fn end(&mut self) {
        if std::mem::replace(&mut self.draws, false) {
            show("\x1b[?25h");
        }
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        self.end();
    }
}

/// A reader that has gone away must not end the demo.
fn show(text: &str) {
    let mut out = io::stdout().lock();
    let _ = out.write_all(text.as_bytes());
    let _ = out.flush();
}
