//! `dns-01`: the operator's program that sets and removes DNS records.

use std::process::Stdio;

use tokio::io::AsyncReadExt as _;
use tokio::process::Command;
use tokio::time::timeout;

use crate::config::Hook;

/// How much of what the program says at its end goes into the error, bytes.
const SAID: usize = 500;

/// What the program is to do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Verb {
    Set,
    Remove,
}

/// Calls the program for the TXT record `_acme-challenge.NAME` with that value.
///
/// # Errors
/// Why it failed, with the end of what it said.
pub(super) async fn call(hook: &Hook, verb: Verb, name: &str, value: &str) -> Result<(), String> {
    let word = match verb {
        Verb::Set => "set",
        Verb::Remove => "remove",
    };
    let record = format!("_acme-challenge.{name}");
    let program = hook.program.display();
    let mut command = Command::new(&hook.program);
    command.args(&hook.arguments).args([word, record.as_str(), value]);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).kill_on_drop(true);
    let run = async {
        let mut child = command.spawn().map_err(|e| format!("{program} cannot be started: {e}"))?;
        let mut said = Vec::new();
        if let Some(mut errors) = child.stderr.take() {
            let mut buffer = [0; 1024];
            while let Ok(read @ 1..) = errors.read(&mut buffer).await {
                said.extend_from_slice(buffer.get(..read).unwrap_or_default());
                said.drain(..said.len().saturating_sub(SAID));
            }
        }
        let status = child.wait().await.map_err(|e| format!("{program}: {e}"))?;
        if status.success() {
            return Ok(());
        }
        let said = String::from_utf8_lossy(&said);
        Err(format!("{program} {word} ended with {status}: {}", said.trim()))
    };
    let late = |_| format!("{program} {word} took longer than acme.hook_seconds and was killed");
    timeout(hook.limit, run).await.unwrap_or_else(|e| Err(late(e)))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn hook(script: &str, limit: Duration) -> Hook {
        let arguments = vec!["-c".to_owned(), script.to_owned(), "hook".to_owned()];
        Hook { program: "/bin/sh".into(), arguments, limit }
    }

    #[tokio::test]
    async fn it_gets_verb_record_and_value() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("said");
        let hook = hook(&format!("echo \"$@\" >> {}", file.display()), Duration::from_secs(60));
        call(&hook, Verb::Set, "a.example", "v1").await.unwrap();
        call(&hook, Verb::Remove, "a.example", "v1").await.unwrap();
        let said = std::fs::read_to_string(file).unwrap();
        assert_eq!(said, "set _acme-challenge.a.example v1\nremove _acme-challenge.a.example v1\n");
    }

    #[tokio::test]
    async fn failures_are_told_and_long_calls_end() {
        let failing = hook("seq 20000 >&2; echo 'the zone is locked' >&2; exit 3", Duration::from_secs(60));
        let error = call(&failing, Verb::Set, "a.example", "v").await.unwrap_err();
        assert!(error.contains("the zone is locked") && error.contains('3') && error.len() < 700, "{error}");
        let slow = hook("exec sleep 600", Duration::from_millis(200));
        let error = call(&slow, Verb::Set, "a.example", "v").await.unwrap_err();
        assert!(error.contains("hook_seconds"), "{error}");
        let missing =
            Hook { program: "/nowhere/hook".into(), arguments: Vec::new(), limit: Duration::from_secs(60) };
        let error = call(&missing, Verb::Set, "a.example", "v").await.unwrap_err();
        assert!(error.contains("cannot be started"), "{error}");
    }
}
