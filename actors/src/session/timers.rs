//! The timers of a session that waits for its client's confirmation. Each is on its way once at most, however much comes meanwhile.

use std::time::Duration;

use crate::runtime::wheel::Wheel;

/// What a timer is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Timer {
    /// To look whether the client has what was sent.
    Tick,
    /// The same for what is pressing ([`Receipt::is_pressing`](crate::connection::ledger::Receipt::is_pressing)).
    Hurry,
}

impl Timer {
    /// Calls `call` when it is time.
    pub(super) fn set(self, wheel: &Wheel, call: impl FnOnce() + Send + 'static) {
        match self {
            Self::Tick => wheel.after(TICK, call),
            Self::Hurry => Wheel::soon(HURRY, call),
        }
    }
}

/// How long after they were ordered they come. The first is on the wheel, which may turn sooner.
const TICK: Duration = Duration::from_secs(1);
const HURRY: Duration = Duration::from_millis(200);

/// The timers that are on their way, or are to be set.
#[derive(Default)]
pub(super) struct Timers {
    ticking: bool,
    /// The number of the newest stanza when the timer was ordered: what was sent later has not waited for it.
    hurrying: Option<u32>,
    order_tick: bool,
    order_hurry: bool,
}

impl Timers {
    pub(super) fn want_tick(&mut self) {
        self.order_tick |= !self.ticking;
        self.ticking = true;
    }

    /// For what was sent up to `newest`.
    pub(super) fn want_hurry(&mut self, newest: u32) {
        if self.hurrying.is_none() {
            (self.hurrying, self.order_hurry) = (Some(newest), true);
        }
    }

    /// One that is to be set now, if there is any.
    pub(super) fn order(&mut self) -> Option<Timer> {
        if std::mem::take(&mut self.order_hurry) {
            return Some(Timer::Hurry);
        }
        std::mem::take(&mut self.order_tick).then_some(Timer::Tick)
    }

    /// The tick has come.
    pub(super) fn ticked(&mut self) {
        self.ticking = false;
    }

    /// The other timer has come, for what was sent up to this number.
    pub(super) fn hurried(&mut self) -> Option<u32> {
        self.hurrying.take()
    }

    /// The numbers are others from now on, and `newest` is the last of them.
    pub(super) fn renumber(&mut self, newest: u32) {
        self.hurrying = self.hurrying.map(|_| newest);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::features::testing::Scene;
    use crate::host::options::Archive;

    /// There is nobody to be asked what has arrived: the session looks again when its client is back.
    #[tokio::test(start_paused = true)]
    async fn a_session_that_sleeps_over_a_message_rests() {
        let scene = Scene::with(&["romeo", "juliet"], |options| options.archive = Archive::Always).await;
        scene.session("juliet/phone").await.sleeps().await;
        let mut romeo = scene.session("romeo/orchard").await;
        romeo.send("<message to='juliet@localhost/phone' type='chat'><body>Ay me</body></message>");
        romeo.ask("<iq type='get' id='p' to='localhost'><ping xmlns='urn:xmpp:ping'/></iq>").await;
        // The clock is paused, and goes on as soon as nothing else is to be done.
        tokio::time::sleep(Duration::from_secs(20)).await;
        assert_eq!(scene.host.sessions().active(), 0);
    }
}
