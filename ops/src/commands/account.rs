//! `rookery user add | passwd | remove | list`.

use std::fs::File;

use super::terminal::{Terminal, shown};
use crate::admin::{Admin, Error, PAGE};
use crate::cli::PasswordSource;
use crate::secret::Password;

pub(super) async fn add(
    jid: &str,
    source: &PasswordSource,
    admin: &impl Admin,
    terminal: &Terminal,
) -> Result<(), Error> {
    let (password, generated) = password(source, terminal)?;
    admin.user_add(jid, &password).await?;
    done("account created", jid, &password, generated, terminal)
}

pub(super) async fn passwd(
    jid: &str,
    source: &PasswordSource,
    admin: &impl Admin,
    terminal: &Terminal,
) -> Result<(), Error> {
    let (password, generated) = password(source, terminal)?;
    admin.user_passwd(jid, &password).await?;
    done("password set", jid, &password, generated, terminal)
}

pub(super) async fn remove(jid: &str, admin: &impl Admin, terminal: &Terminal) -> Result<(), Error> {
    admin.user_remove(jid).await?;
    terminal.remark(&format!("account removed: {}", shown(jid)));
    Ok(())
}

pub(super) async fn list(
    domain: &str,
    limit: Option<u64>,
    json: bool,
    admin: &impl Admin,
    terminal: &Terminal,
) -> Result<(), Error> {
    let mut left = limit.unwrap_or(u64::MAX);
    let mut after = String::new();
    while left > 0 {
        let page = admin.user_list(domain, &after, usize::try_from(left).unwrap_or(PAGE).min(PAGE)).await?;
        let Some(last) = page.last() else { break };
        after.clone_from(&last.jid);
        for user in &page {
            let line = if json { super::node::json(user)? } else { shown(&user.jid) };
            terminal.say(&line)?;
        }
        left = left.saturating_sub(u64::try_from(page.len()).unwrap_or(u64::MAX));
    }
    terminal.flush()
}

/// The password, and whether it was generated and must be shown.
fn password(source: &PasswordSource, terminal: &Terminal) -> Result<(Password, bool), Error> {
    if let Some(file) = &source.password_file {
        let opened = File::open(file)
            .map_err(|error| Error::invalid(format!("{} cannot be read: {error}", file.display())))?;
        return Ok((Password::read(opened)?, false));
    }
    if source.password_stdin {
        return Ok((Password::read(terminal.take_input())?, false));
    }
    Ok((Password::generate(&*terminal.fill), true))
}

/// The remark goes to standard error and a generated password, alone, to standard output: a script can take it.
fn done(
    what: &str,
    jid: &str,
    password: &Password,
    generated: bool,
    terminal: &Terminal,
) -> Result<(), Error> {
    terminal.remark(&format!("{what}: {}", shown(jid)));
    if generated {
        terminal.remark("the generated password, shown only once:");
        terminal.say(password.as_str())?;
    }
    terminal.flush()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::Kind;
    use crate::admin::testing::{Fake, Node};
    use crate::commands::terminal::testing::Captured;

    const JULIET: &str = "juliet@example.org";

    #[tokio::test]
    async fn accounts_come_change_and_go_over_the_socket() {
        let node = Node::start(Fake::default()).await;
        let captured = Captured::new("from stdin\n");
        let generated = PasswordSource::default();
        add(JULIET, &generated, &node.remote, &captured.terminal).await.unwrap();
        assert_eq!(captured.out(), "hhhhh-hhhhh-hhhhh-hhhhh\n");
        assert_eq!(node.fake.password(JULIET).unwrap(), "hhhhh-hhhhh-hhhhh-hhhhh");
        let error = add(JULIET, &generated, &node.remote, &captured.terminal).await.unwrap_err();
        assert_eq!((error.kind, error.message.as_str()), (Kind::Exists, "juliet@example.org exists"));

        let stdin = PasswordSource { password_stdin: true, ..PasswordSource::default() };
        passwd(JULIET, &stdin, &node.remote, &captured.terminal).await.unwrap();
        assert_eq!(node.fake.password(JULIET).unwrap(), "from stdin");
        assert_eq!(captured.out().lines().count(), 1, "a password that was given is not shown");

        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "from file\n").unwrap();
        let from_file =
            PasswordSource { password_file: Some(file.path().into()), ..PasswordSource::default() };
        passwd(JULIET, &from_file, &node.remote, &captured.terminal).await.unwrap();
        assert_eq!(node.fake.password(JULIET).unwrap(), "from file");
        std::fs::write(file.path(), "").unwrap();
        let error = passwd(JULIET, &from_file, &node.remote, &captured.terminal).await.unwrap_err();
        assert_eq!(error.kind, Kind::Invalid);

        remove(JULIET, &node.remote, &captured.terminal).await.unwrap();
        let error = remove(JULIET, &node.remote, &captured.terminal).await.unwrap_err();
        assert_eq!(error.kind, Kind::NotFound);
        assert!(captured.err().contains("account removed: juliet@example.org"));
        node.stop().await;
    }

    #[tokio::test]
    async fn a_long_list_comes_in_pages_and_in_order() {
        let node = Node::start(Fake::with_users(1_234)).await;
        let captured = Captured::new("");
        list("example.org", None, false, &node.remote, &captured.terminal).await.unwrap();
        let out = captured.out();
        assert_eq!(out.lines().count(), 1_234);
        assert!(out.lines().is_sorted());

        let captured = Captured::new("");
        list("", Some(501), true, &node.remote, &captured.terminal).await.unwrap();
        let out = captured.out();
        assert_eq!(out.lines().count(), 501);
        assert_eq!(out.lines().next(), Some("{\"jid\":\"user00000@example.org\"}"));

        let captured = Captured::new("");
        list("example.net", None, false, &node.remote, &captured.terminal).await.unwrap();
        assert_eq!(captured.out(), "");
        node.stop().await;
    }
}
