//! The network thread.

use std::sync::{Mutex, PoisonError};

use foundationdb::FdbError;
use foundationdb::api::{FdbApiBuilder, NetworkAutoStop};
use foundationdb::options::NetworkOption;

/// Where the one thread of this process is in its life.
enum State {
    Fresh,
    Running { thread: NetworkAutoStop, users: usize },
    Over,
}

static STATE: Mutex<State> = Mutex::new(State::Fresh);

/// Keeps the network thread running. When the last of them is dropped it ends, for this process for ever; that waits for the
/// thread, a moment.
pub struct Network(());

/// Why the thread does not run.
#[derive(Debug)]
pub enum Refused {
    /// The thread has been stopped, and cannot start twice in a process.
    Over,
    /// The library said no.
    Library(FdbError),
}

impl Network {
    /// Starts the thread with these options. If it runs already they are ignored.
    ///
    /// # Errors
    /// See [`Refused`].
    pub fn join(options: impl IntoIterator<Item = NetworkOption>) -> Result<Self, Refused> {
        let mut state = STATE.lock().unwrap_or_else(PoisonError::into_inner);
        match &mut *state {
            State::Running { users, .. } => {
                *users += 1;
                return Ok(Self(()));
            }
            State::Over => return Err(Refused::Over),
            State::Fresh => {}
        }
        // Whatever fails from here on cannot be tried again.
        *state = State::Over;
        let mut builder = FdbApiBuilder::default().build().map_err(Refused::Library)?;
        for option in options {
            builder = builder.set_option(option).map_err(Refused::Library)?;
        }
        // SAFETY: what is returned must be dropped before the process exits. It is, with the last `Network`, which the store
        // holds until it is closed or dropped. A process that leaves by `process::exit` closes the store before, or is killed: nothing
        // then runs the library's destructors under this thread.
        #[allow(unsafe_code)]
        let thread = unsafe { builder.boot() }.map_err(Refused::Library)?;
        *state = State::Running { thread, users: 1 };
        Ok(Self(()))
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        let mut state = STATE.lock().unwrap_or_else(PoisonError::into_inner);
        if let State::Running { users, .. } = &mut *state {
            *users -= 1;
            if *users == 0
                && let State::Running { thread, .. } = std::mem::replace(&mut *state, State::Over)
            {
                drop(thread);
            }
        }
    }
}
