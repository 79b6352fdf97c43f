//! `rookery status | reload | log-level`.

use super::session::span;
use super::terminal::{Terminal, shown};
use crate::admin::{Admin, Error};

pub(super) async fn status(json_wanted: bool, admin: &impl Admin, terminal: &Terminal) -> Result<(), Error> {
    let status = admin.status().await?;
    if json_wanted {
        terminal.say(&json(&status)?)?;
        return terminal.flush();
    }
    let state = if status.not_ready.is_empty() { "ready".to_owned() } else { status.not_ready.join(", ") };
    for (name, value) in [
        ("node", format!("{} (Rookery {}, api {})", status.node, status.version, status.api_version)),
        ("state", state),
        ("up for", span(status.uptime_seconds)),
        ("domains", status.domains.join(", ")),
        ("listens", status.listeners.join(", ")),
        (
            "components",
            if status.components.is_empty() { "none".to_owned() } else { status.components.join(", ") },
        ),
        ("store", status.store),
        ("connections", status.connections.to_string()),
        ("sessions", status.sessions.to_string()),
    ] {
        terminal.say(format!("{name:<12} {}", shown(&value)).trim_end())?;
    }
    terminal.flush()
}

pub(super) async fn reload(admin: &impl Admin, terminal: &Terminal) -> Result<(), Error> {
    let notes = admin.reload().await?;
    if notes.is_empty() {
        terminal.say("the configuration was read again; nothing changed")?;
    }
    for note in notes {
        terminal.say(&shown(&note))?;
    }
    terminal.flush()
}

pub(super) async fn log_level(level: &str, admin: &impl Admin, terminal: &Terminal) -> Result<(), Error> {
    let previous = admin.log_level(level).await?;
    terminal.say(&format!("log level: {} (it was {})", shown(level), shown(&previous)))?;
    terminal.flush()
}

/// One line of JSON, with the field names of the `.proto` file. JSON escapes what could disturb a terminal, but for
/// the direction of text.
pub(super) fn json(value: &impl serde::Serialize) -> Result<String, Error> {
    serde_json::to_string(value).map_err(|error| Error::internal(format!("cannot be shown as JSON: {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::testing::{Fake, Node};
    use crate::admin::{Kind, connect, not_running};
    use crate::commands::terminal::testing::Captured;

    #[tokio::test]
    async fn a_node_tells_how_it_is() {
        let node = Node::start(Fake::default()).await;
        let captured = Captured::new("");
        status(false, &node.remote, &captured.terminal).await.unwrap();
        let out = captured.out();
        assert!(out.contains(&format!("n1 (Rookery {}, api 4)", crate::VERSION)), "{out}");
        assert!(out.contains("state        ready\nup for       1d02h\ndomains      example.org\n"), "{out}");
        let captured = Captured::new("");
        status(true, &node.remote, &captured.terminal).await.unwrap();
        let value: serde_json::Value = serde_json::from_str(&captured.out()).unwrap();
        assert_eq!(
            (value["api_version"].as_u64(), value["version"].as_str()),
            (Some(4), Some(crate::VERSION))
        );

        let captured = Captured::new("");
        reload(&node.remote, &captured.terminal).await.unwrap();
        log_level("debug", &node.remote, &captured.terminal).await.unwrap();
        assert_eq!(captured.out(), "limits: changed\nlog level: debug (it was info)\n");
        let error = log_level("loud", &node.remote, &captured.terminal).await.unwrap_err();
        assert_eq!(error.kind, Kind::Invalid);
        assert!(error.message.contains("\"loud\" is no level"), "{error}");
        node.stop().await;
    }

    #[tokio::test]
    async fn no_node_is_said_with_a_remedy() {
        let folder = tempfile::tempdir().unwrap();
        let address = crate::admin::Address::new(&folder.path().join("none.sock")).unwrap();
        assert!(connect(&address).await.unwrap().is_none());
        let error = not_running(&address);
        assert_eq!(error.kind.exit_code(), 6);
        assert!(
            error.message.contains("no node answers at unix:") && error.message.contains("is it running?")
        );
    }
}
