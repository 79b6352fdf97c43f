//! What is typed: single keys, without Enter, where standard input is a terminal.

use std::io::Read as _;

use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcsetattr};
use tokio::sync::mpsc;

/// Keys that wait.
const AHEAD: usize = 32;

/// What was asked for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Wish {
    /// Kill the node with this number (from 1), or start it again.
    Toggle(usize),
    /// Drain it.
    Drain(usize),
    /// The end.
    Quit,
}

/// Makes wishes out of keys: a digit, `d` and a digit, `q`.
#[derive(Default, Debug)]
pub struct Reader {
    drain: bool,
}

impl Reader {
    /// The wish that this key completes.
    pub fn key(&mut self, key: u8) -> Option<Wish> {
        let drain = std::mem::replace(&mut self.drain, false);
        match key {
            b'1'..=b'9' if drain => Some(Wish::Drain(usize::from(key - b'0'))),
            b'1'..=b'9' => Some(Wish::Toggle(usize::from(key - b'0'))),
            b'd' | b'D' => {
                self.drain = true;
                None
            }
            b'q' | b'Q' => Some(Wish::Quit),
            _ => None,
        }
    }

    /// Whether it waits for the number of a node to drain.
    pub fn waits(&self) -> bool {
        self.drain
    }
}

/// The terminal as it was: it is put back on drop, also after a panic.
pub struct Raw(Termios);

impl Raw {
    /// Keys come at once and are not shown; `None` where standard input is no terminal. Ctrl-C stays what it is.
    pub fn set() -> Option<Self> {
        let stdin = std::io::stdin();
        let before = tcgetattr(&stdin).ok()?;
        let mut raw = before.clone();
        raw.local_modes.remove(LocalModes::ICANON | LocalModes::ECHO);
        tcsetattr(&stdin, OptionalActions::Now, &raw).ok()?;
        Some(Self(before))
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        let _ = tcsetattr(std::io::stdin(), OptionalActions::Now, &self.0);
    }
}

/// The bytes of standard input. Its end is no wish: the demonstration goes on.
pub fn typed() -> mpsc::Receiver<u8> {
    let (sender, receiver) = mpsc::channel(AHEAD);
    std::thread::spawn(move || {
        for byte in std::io::stdin().lock().bytes() {
            let Ok(byte) = byte else { return };
            if sender.blocking_send(byte).is_err() {
                return;
            }
        }
    });
    receiver
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_make_wishes() {
        let mut reader = Reader::default();
        let wishes: Vec<Wish> = b"1xd2d\n3q".iter().filter_map(|key| reader.key(*key)).collect();
        assert_eq!(wishes, [Wish::Toggle(1), Wish::Drain(2), Wish::Toggle(3), Wish::Quit]);
    }
}
