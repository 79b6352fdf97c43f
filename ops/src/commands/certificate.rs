//! `rookery certificate list | order`.

use super::session::span;
use super::terminal::{Terminal, shown};
use crate::admin::{Admin, Certificate, Certificates, Error};
use crate::cli::CertificateCommand;

pub(super) async fn run(
    command: &CertificateCommand,
    admin: &impl Admin,
    terminal: &Terminal,
) -> Result<(), Error> {
    match command {
        CertificateCommand::List { json } => {
            let all = admin.certificates().await?;
            if *json {
                for certificate in &all.certificates {
                    terminal.say(&super::node::json(certificate)?)?;
                }
            } else {
                table(&all, terminal)?;
            }
        }
        CertificateCommand::Order { name, revoke } => {
            let name = shown(&admin.certificate_order(name, *revoke).await?);
            let then = if *revoke { " The present one is revoked then." } else { "" };
            terminal.say(&format!(
                "a certificate for {name} is being ordered; `rookery certificate list` shows the outcome.{then}"
            ))?;
        }
    }
    terminal.flush()
}

const HEAD: [&str; 5] = ["NAME", "EXPIRES", "NEXT ORDER", "SOURCE", "ISSUER"];

/// A line for each certificate, and one more for what went wrong with it.
fn table(all: &Certificates, terminal: &Terminal) -> Result<(), Error> {
    let mut rows = vec![HEAD.map(str::to_owned)];
    rows.extend(all.certificates.iter().map(|certificate| row(certificate, all.now)));
    let mut widths = [0; HEAD.len()];
    for row in &rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = cell.chars().count().max(*width);
        }
    }
    let mut errors = std::iter::once("").chain(all.certificates.iter().map(|c| c.error.as_str()));
    for row in &rows {
        let cells = row.iter().zip(widths).map(|(cell, width)| format!("{cell:<width$}"));
        terminal.say(cells.collect::<Vec<_>>().join("  ").trim_end())?;
        match errors.next() {
            None | Some("") => {}
            Some(error) => terminal.say(&format!("  the last order failed: {}", shown(error)))?,
        }
    }
    Ok(())
}

fn row(certificate: &Certificate, now: i64) -> [String; HEAD.len()] {
    let text = |text: &str| if text.is_empty() { "-".to_owned() } else { shown(text) };
    let until = |at: i64, over: &str| match u64::try_from(at - now) {
        _ if at == 0 => "-".to_owned(),
        Ok(left @ 1..) => format!("in {}", span(left)),
        _ => over.to_owned(),
    };
    [
        text(&certificate.name),
        until(certificate.expires, "expired"),
        until(certificate.next_order, "now"),
        text(&certificate.source),
        text(&certificate.issuer),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::Kind;
    use crate::admin::testing::{Fake, Node};
    use crate::commands::terminal::testing::Captured;

    fn fake() -> Fake {
        let fake = Fake::default();
        let certificate = |name: &str, expires, next_order, error: &str| Certificate {
            name: name.into(),
            source: "https://ca.example/dir".into(),
            issuer: if expires > 0 { "CN=CA" } else { "" }.into(),
            expires,
            next_order,
            error: error.into(),
        };
        let all = vec![
            certificate("a.example", 1_000_000 + 90_000, 1_000_000 + 3_700, ""),
            certificate("b.example", 0, 1_000_000, "no such\u{1b}[2J name"),
            certificate("c.example", 999_999, 0, ""),
        ];
        *fake.certificates.lock().unwrap() = all;
        fake
    }

    #[tokio::test]
    async fn certificates_are_listed_with_what_is_to_come() {
        let node = Node::start(fake()).await;
        let captured = Captured::new("");
        run(&CertificateCommand::List { json: false }, &node.remote, &captured.terminal).await.unwrap();
        let out = captured.out();
        let lines: Vec<&str> = out.lines().collect();
        assert!(lines[0].starts_with("NAME       EXPIRES   NEXT ORDER  SOURCE"), "{out}");
        assert!(
            lines[1].starts_with("a.example  in 1d01h  in 1h01m    https://ca.example/dir  CN=CA"),
            "{out}"
        );
        assert!(lines[2].starts_with("b.example  -         now "), "{out}");
        assert!(lines[3].starts_with("  the last order failed: no such"), "{out}");
        assert!(!out.contains('\u{1b}') && lines[4].starts_with("c.example  expired   -"), "{out}");
        let captured = Captured::new("");
        run(&CertificateCommand::List { json: true }, &node.remote, &captured.terminal).await.unwrap();
        let out = captured.out();
        let first: serde_json::Value = serde_json::from_str(out.lines().next().unwrap()).unwrap();
        assert_eq!((first["name"].as_str(), first["expires"].as_i64()), (Some("a.example"), Some(1_090_000)));
        node.stop().await;
    }

    #[tokio::test]
    async fn an_order_is_for_a_name_that_is_ordered() {
        let node = Node::start(fake()).await;
        let order = |name: &str, revoke| CertificateCommand::Order { name: name.into(), revoke };
        let captured = Captured::new("");
        run(&order("a.example", true), &node.remote, &captured.terminal).await.unwrap();
        assert!(captured.out().contains("a.example (revoked) is being ordered"), "{}", captured.out());
        let error = run(&order("x.example", false), &node.remote, &captured.terminal).await.unwrap_err();
        assert_eq!(error.kind, Kind::NotFound);
        node.stop().await;
    }
}
