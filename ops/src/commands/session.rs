//! `rookery session list | kick`.

use super::terminal::{Terminal, columns, shown};
use crate::admin::{Admin, Error, PAGE, Session};
use crate::cli::SessionCommand;

pub(super) async fn run(
    command: &SessionCommand,
    admin: &impl Admin,
    terminal: &Terminal,
) -> Result<(), Error> {
    match command {
        SessionCommand::List { filter, limit, json } => {
            list(filter.as_deref().unwrap_or_default(), *limit, *json, admin, terminal).await
        }
        SessionCommand::Kick { jid, reason } => {
            let kicked = admin.kick(jid, reason).await?;
            terminal.say(&format!("{kicked} {} ended", if kicked == 1 { "session" } else { "sessions" }))?;
            terminal.flush()
        }
    }
}

async fn list(
    filter: &str,
    limit: Option<u64>,
    json: bool,
    admin: &impl Admin,
    terminal: &Terminal,
) -> Result<(), Error> {
    let mut left = limit.unwrap_or(u64::MAX);
    let mut after = String::new();
    let mut first = true;
    while left > 0 {
        let page = admin.sessions(filter, &after, usize::try_from(left).unwrap_or(PAGE).min(PAGE)).await?;
        let Some(last) = page.last() else { break };
        after.clone_from(&last.jid);
        if json {
            for session in &page {
                terminal.say(&super::node::json(session)?)?;
            }
        } else {
            // Columns are as wide as a page needs; a list of more than one page may shift between them.
            table(&page, std::mem::take(&mut first), terminal)?;
        }
        left = left.saturating_sub(u64::try_from(page.len()).unwrap_or(u64::MAX));
    }
    terminal.flush()
}

/// The node comes only if there is more than one.
const HEAD: [&str; 8] = ["JID", "STATE", "ADDRESS", "VIA", "TLS", "AGE", "PRIO", "NODE"];

fn table(sessions: &[Session], with_head: bool, terminal: &Terminal) -> Result<(), Error> {
    let alone = sessions.iter().all(|session| matches!(session.node.as_str(), "" | "local"));
    let width = HEAD.len() - usize::from(alone);
    let mut rows = vec![HEAD.map(str::to_owned)];
    rows.extend(sessions.iter().map(|session| {
        let text = |text: &str| if text.is_empty() { "-".to_owned() } else { shown(text) };
        [
            text(&session.jid),
            text(&session.state),
            text(&session.address),
            text(&session.connection),
            text(&session.tls),
            span(session.age_seconds),
            session.priority.map_or_else(|| "-".to_owned(), |priority| priority.to_string()),
            text(&session.node),
        ]
    }));
    let rows: Vec<&[String]> = rows.iter().map(|row| row.get(..width).unwrap_or(row)).collect();
    for line in columns(&rows).into_iter().skip(usize::from(!with_head)) {
        terminal.say(&line)?;
    }
    Ok(())
}

/// A time as people say it, with its two greatest units.
pub(super) fn span(seconds: u64) -> String {
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3_600 => format!("{}m{:02}s", seconds / 60, seconds % 60),
        3_600..86_400 => format!("{}h{:02}m", seconds / 3_600, seconds % 3_600 / 60),
        _ => format!("{}d{:02}h", seconds / 86_400, seconds % 86_400 / 3_600),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::Kind;
    use crate::admin::testing::{Fake, Node};
    use crate::commands::terminal::testing::Captured;

    fn session(jid: &str, address: &str) -> Session {
        let state = if address.is_empty() { "resumable" } else { "attached" };
        Session {
            jid: jid.into(),
            address: address.into(),
            state: state.into(),
            age_seconds: 3_725,
            ..Session::default()
        }
    }

    #[tokio::test]
    async fn sessions_are_listed_and_ended_over_the_socket() {
        let fake = Fake::default();
        *fake.sessions.lock().unwrap() = vec![
            session("juliet@example.org/balcony", "[::1]:50000"),
            session("romeo@example.org/\x1b[2Jorchard", ""),
        ];
        let node = Node::start(fake).await;
        let list = |json| SessionCommand::List { filter: None, limit: None, json };
        let captured = Captured::new("");
        run(&list(false), &node.remote, &captured.terminal).await.unwrap();
        let expected = "\
JID                                 STATE      ADDRESS      VIA  TLS  AGE    PRIO
juliet@example.org/balcony          attached   [::1]:50000  -    -    1h02m  -
romeo@example.org/\\u{1b}[2Jorchard  resumable  -            -    -    1h02m  -
";
        assert_eq!(captured.out(), expected);

        let captured = Captured::new("");
        run(&list(true), &node.remote, &captured.terminal).await.unwrap();
        let first: serde_json::Value = serde_json::from_str(captured.out().lines().next().unwrap()).unwrap();
        assert_eq!((first["age_seconds"].as_u64(), first["priority"].is_null()), (Some(3_725), true));

        let kick = SessionCommand::Kick { jid: "juliet@example.org".into(), reason: String::new() };
        let captured = Captured::new("");
        run(&kick, &node.remote, &captured.terminal).await.unwrap();
        assert_eq!(captured.out(), "1 session ended\n");
        assert_eq!(run(&kick, &node.remote, &captured.terminal).await.unwrap_err().kind, Kind::NotFound);
        node.stop().await;
    }

    #[test]
    fn times_are_short() {
        let said = [0, 59, 61, 3_600, 90_061].map(span);
        assert_eq!(said, ["0s", "59s", "1m01s", "1h00m", "1d01h"]);
    }
}
