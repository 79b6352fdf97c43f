//! What is said at the start: where everything is, and what to paste.

use std::path::Path;

use super::place::Plan;
use super::{ACCOUNTS, PASSWORD, connect_line};

/// Where to connect, and how; `authority` is the certificate that clients have to trust.
pub fn text(plan: &Plan, authority: &Path) -> String {
    let mut text = format!(
        "Rookery {}: {} nodes that are one server for localhost, on this machine only, until you press q.\n\
         \x20 any node   {} (STARTTLS), {} (direct TLS): leads to a node that is ready\n",
        rookery_ops::VERSION,
        plan.seats.len(),
        plan.door,
        plan.door_tls,
    );
    for seat in &plan.seats {
        text.push_str(&format!(
            "  {:<9}  {}, {}; http://{}/; its log is {}\n",
            seat.name,
            seat.c2s,
            seat.c2s_tls,
            seat.http,
            seat.log().display()
        ));
    }
    let [romeo, juliet] = ACCOUNTS;
    let (one, other) = (plan.door.port(), plan.seats.last().map_or(0, |seat| seat.c2s.port()));
    text.push_str(&format!(
        "  authority  {}\n\
         \x20 store      dev://{}, in memory\n\
         \x20 accounts   {romeo} and {juliet}, password {PASSWORD}; registration is open\n\
         Start profanity in two other terminals, and paste in one and in the other (any node, and the last one):\n\
         \x20 {}\n\
         \x20 {}\n\
         A client at the common address comes back by itself when its node is killed (in profanity: /reconnect 1).\n",
        authority.display(),
        plan.store,
        connect_line(romeo, one),
        connect_line(juliet, other),
    ));
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn says_how_to_get_to_each_node() {
        let folder = tempfile::tempdir().unwrap();
        let plan = Plan::new(folder.path(), 3).unwrap();
        let text = text(&plan, &folder.path().join("tls/ca.pem"));
        for seat in &plan.seats {
            assert!(text.contains(&seat.c2s.to_string()), "{text}");
            assert!(text.contains(&seat.log().display().to_string()), "{text}");
        }
        for part in ["/connect romeo@localhost server 127.0.0.1 port", "ca.pem", PASSWORD] {
            assert!(text.contains(part), "{part} in {text}");
        }
        assert!(text.lines().count() < 20, "{text}");
    }
}
