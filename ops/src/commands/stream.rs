//! `rookery stream list | close`.

use super::session::span;
use super::terminal::{Terminal, columns, shown};
use crate::admin::{Admin, Error, PAGE, S2sStream};
use crate::cli::StreamCommand;

pub(super) async fn run(
    command: &StreamCommand,
    admin: &impl Admin,
    terminal: &Terminal,
) -> Result<(), Error> {
    match command {
        StreamCommand::List { domain, json } => {
            list(domain.as_deref().unwrap_or_default(), *json, admin, terminal).await
        }
        StreamCommand::Close { target } => {
            let closed = admin.close_streams(target).await?;
            terminal.say(&format!("{closed} {} closed", if closed == 1 { "stream" } else { "streams" }))?;
            terminal.flush()
        }
    }
}

async fn list(domain: &str, json: bool, admin: &impl Admin, terminal: &Terminal) -> Result<(), Error> {
    let mut after = String::new();
    let mut first = true;
    loop {
        let page = admin.streams(domain, &after, PAGE).await?;
        let Some(last) = page.last() else { break };
        after.clone_from(&last.id);
        if json {
            for stream in &page {
                terminal.say(&super::node::json(stream)?)?;
            }
        } else {
            table(&page, std::mem::take(&mut first), terminal)?;
        }
    }
    terminal.flush()
}

const HEAD: [&str; 9] =
    ["ID", "DIRECTION", "HERE", "THERE", "PROVED BY", "ADDRESS", "TLS", "XEP-0198", "AGE"];

/// A line for each pair of domains; those of one stream stand together.
fn table(streams: &[S2sStream], with_head: bool, terminal: &Terminal) -> Result<(), Error> {
    let mut rows = vec![HEAD.map(str::to_owned)];
    let text = |text: &str| if text.is_empty() { "-".to_owned() } else { shown(text) };
    for stream in streams {
        let pairs =
            stream.pairs.iter().map(|pair| [text(&pair.local), text(&pair.remote), text(&pair.proof)]);
        let none = stream.pairs.is_empty().then(|| ["-"; 3].map(str::to_owned));
        for [local, remote, proof] in pairs.chain(none) {
            rows.push([
                text(&stream.id),
                text(&stream.direction),
                local,
                remote,
                proof,
                text(&stream.address),
                text(&stream.tls),
                text(&stream.managed),
                span(stream.age_seconds),
            ]);
        }
    }
    for line in columns(&rows).into_iter().skip(usize::from(!with_head)) {
        terminal.say(&line)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::testing::{Fake, Node};
    use crate::admin::{Kind, S2sPair};
    use crate::commands::terminal::testing::Captured;

    #[tokio::test]
    async fn streams_are_listed_and_closed_over_the_socket() {
        let fake = Fake::default();
        let pair = |remote: &str, proof: &str| S2sPair {
            local: "ours.example".into(),
            remote: remote.into(),
            proof: proof.into(),
        };
        let both = vec![pair("theirs.example", "dialback"), pair("chat.theirs.example", "dialback")];
        *fake.streams.lock().unwrap() = vec![
            S2sStream {
                id: "1".into(),
                direction: "in".into(),
                pairs: both,
                age_seconds: 61,
                ..S2sStream::default()
            },
            S2sStream {
                id: "2".into(),
                direction: "out".into(),
                address: "[::1]:5269".into(),
                ..S2sStream::default()
            },
        ];
        let node = Node::start(fake).await;
        let list = |json| StreamCommand::List { domain: None, json };
        let captured = Captured::new("");
        run(&list(false), &node.remote, &captured.terminal).await.unwrap();
        let expected = "\
ID  DIRECTION  HERE          THERE                PROVED BY  ADDRESS     TLS  XEP-0198  AGE
1   in         ours.example  theirs.example       dialback   -           -    -         1m01s
1   in         ours.example  chat.theirs.example  dialback   -           -    -         1m01s
2   out        -             -                    -          [::1]:5269  -    -         0s
";
        assert_eq!(captured.out(), expected);
        let captured = Captured::new("");
        run(&list(true), &node.remote, &captured.terminal).await.unwrap();
        assert_eq!(captured.out().lines().count(), 2);
        let close = StreamCommand::Close { target: "theirs.example".into() };
        let captured = Captured::new("");
        run(&close, &node.remote, &captured.terminal).await.unwrap();
        assert_eq!(captured.out(), "1 stream closed\n");
        assert_eq!(run(&close, &node.remote, &captured.terminal).await.unwrap_err().kind, Kind::NotFound);
        node.stop().await;
    }
}
