//! The home of a component moves: in order, or because another node has taken it.

use std::time::Duration;

use super::Component;
use crate::runtime::shares::Shares;

/// How long a component has to take what it was handed when its home moves.
const LEAVE: Duration = Duration::from_secs(2);

impl Component {
    /// The home moves: once what was handed out is settled, the rest goes to the next home.
    pub(super) fn leave_now(&mut self) {
        let busy = self.conns.iter().any(|conn| !conn.flying.is_empty());
        let Some((left, since)) = self.leaving.take() else { return };
        if busy && since.elapsed() < LEAVE {
            self.leaving = Some((left, since));
            return;
        }
        self.give_up();
        let _ = left.send(());
    }

    /// All that waits, or that no connection has confirmed, goes to where the component lives now: a connection that has had it knows it by its
    /// origin.
    pub(super) fn give_up(&mut self) {
        self.moved = true;
        let mut rest = Vec::new();
        for conn in std::mem::take(&mut self.conns) {
            rest.extend(conn.flying.into_iter().map(|(_, waiting)| waiting));
            rest.extend(conn.queue);
        }
        rest.extend(std::mem::take(&mut self.homeless));
        self.shares = Shares::default();
        for waiting in rest {
            self.host.forward::<Self>(&self.name, *waiting.inbound);
        }
        self.untold.tell_all(&self.host);
    }
}
