//! How often an account may do something.

use std::collections::HashMap;

use parking_lot::Mutex;
use rookery_proto::xmpp::jid::BareJid;

/// How many accounts are remembered; when all of them have done it lately, nobody else may.
const ACCOUNTS: usize = 100_000;
/// Microseconds of an hour.
const HOUR: u64 = 3_600_000_000;

/// How often each account has done something within an hour, on this node.
#[derive(Default)]
pub(crate) struct Hourly(Mutex<HashMap<BareJid, Window>>);

#[derive(Clone, Copy)]
struct Window {
    since: u64,
    count: u32,
}

impl Hourly {
    /// Counts one more time at `now` (microseconds since 1970), unless `who` has used its `per_hour`.
    pub(crate) fn admit(&self, who: &BareJid, now: u64, per_hour: u32) -> bool {
        let mut windows = self.0.lock();
        if windows.len() >= ACCOUNTS && !windows.contains_key(who) {
            windows.retain(|_, window| now.saturating_sub(window.since) < HOUR);
            if windows.len() >= ACCOUNTS {
                return false;
            }
        }
        let window = windows.entry(who.clone()).or_insert(Window { since: now, count: 0 });
        if now.saturating_sub(window.since) >= HOUR {
            *window = Window { since: now, count: 0 };
        }
        let may = window.count < per_hour;
        window.count += u32::from(may);
        may
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_account_may_do_it_so_often_an_hour() {
        let rate = Hourly::default();
        let [one, other] = ["a@b", "c@d"].map(|jid| BareJid::parse(jid).unwrap());
        assert!(rate.admit(&one, 0, 2) && rate.admit(&one, 1, 2) && !rate.admit(&one, HOUR - 1, 2));
        assert!(rate.admit(&other, 2, 2) && rate.admit(&one, HOUR, 2));
    }
}
