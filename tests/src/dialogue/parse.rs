//! The text of a script as steps.

use std::collections::BTreeSet;

use crate::client::Security;

/// One line of a script with what continues it.
#[derive(Clone, Debug)]
pub struct Step {
    /// Where it stands, from 1.
    pub line: usize,
    /// The client that does it.
    pub who: String,
    pub verb: Verb,
}

/// What is done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verb {
    Connect {
        jid: String,
        sm: bool,
        manual: bool,
        presence: bool,
        roster: bool,
        carbons: bool,
        security: Security,
    },
    Open {
        security: Security,
    },
    LogIn {
        jid: String,
    },
    FailLogIn {
        jid: String,
    },
    Bind {
        resource: String,
    },
    Send {
        xml: String,
    },
    Receive {
        pattern: String,
        any_order: bool,
    },
    Acks {
        h: u32,
    },
    Nothing,
    Ignore {
        name: String,
    },
    End,
    Lose,
    Resume,
    TryResume {
        whose: String,
    },
    Disconnect,
}

/// A script with names made its own.
#[derive(Clone, Debug)]
pub struct Script {
    /// File name without folder and ending.
    pub name: String,
    /// User names (already unique) that need an account before the script starts.
    pub accounts: BTreeSet<String>,
    pub steps: Vec<Step>,
}

/// The password of every test account.
pub fn password(user: &str) -> String {
    format!("pass of {user}")
}

impl Script {
    /// Parses a script; the error names the line.
    pub fn parse(name: &str, text: &str) -> Result<Script, String> {
        let lines = joined(text);
        let names = declared(&lines);
        let tag: String = name.chars().filter(char::is_ascii_alphanumeric).collect();
        let own = |text: &str| rename(text, &names, &tag);
        let mut script = Script { name: name.to_owned(), accounts: BTreeSet::new(), steps: Vec::new() };
        for (line, text) in &lines {
            let (who, rest) = text.split_once(' ').unwrap_or((text, ""));
            if who == "account" {
                script.accounts.extend(rest.split_whitespace().map(|n| format!("{n}-{tag}")));
                continue;
            }
            if who == "name" {
                continue;
            }
            let verb = verb(&own(rest.trim())).map_err(|e| format!("line {line}: {e}"))?;
            if let Verb::Connect { jid, .. } = &verb {
                let user = jid.split('@').next().unwrap_or_default();
                script.accounts.insert(user.to_owned());
            }
            script.steps.push(Step { line: *line, who: who.to_owned(), verb });
        }
        Ok(script)
    }
}

/// Logical lines: (number of the first, text without comments).
fn joined(text: &str) -> Vec<(usize, String)> {
    let mut lines: Vec<(usize, String)> = Vec::new();
    for (at, line) in text.lines().enumerate() {
        let line = line.trim_end();
        if line.trim_start().starts_with('#') || line.is_empty() {
            continue;
        }
        match lines.last_mut() {
            Some(last) if line.starts_with(char::is_whitespace) => {
                last.1.push('\n');
                last.1.push_str(line);
            }
            _ => lines.push((at + 1, line.to_owned())),
        }
    }
    lines
}

/// The bare names that a script declares by `account`, `name`, `connects as` and `logs in as`.
fn declared(lines: &[(usize, String)]) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for (_, line) in lines {
        if let Some(rest) = line.strip_prefix("account ").or_else(|| line.strip_prefix("name ")) {
            names.extend(rest.split_whitespace().map(str::to_owned));
        }
        for verb in [" connects as ", " logs in as ", " fails to log in as "] {
            if let Some((_, rest)) = line.split_once(verb)
                && let Some((name, _)) = rest.split_once('@')
            {
                names.insert(name.to_owned());
            }
        }
    }
    names
}

/// `romeo@` becomes `romeo-tag@`, `{romeo}` becomes `romeo-tag`, `{romeo's password}` the password.
fn rename(text: &str, names: &BTreeSet<String>, tag: &str) -> String {
    let mut out = text.to_owned();
    for name in names {
        let unique = format!("{name}-{tag}");
        out = out.replace(&format!("{{{name}'s password}}"), &password(&unique));
        out = out.replace(&format!("{{{name}}}"), &unique);
        let (mut done, mut rest) = (String::new(), out.as_str());
        while let Some((before, after)) = rest.split_once(&format!("{name}@")) {
            done.push_str(before);
            let whole = !done.ends_with(|c: char| c.is_ascii_alphanumeric() || c == '-');
            done.push_str(if whole { &unique } else { name });
            done.push('@');
            rest = after;
        }
        done.push_str(rest);
        out = done;
    }
    out
}

fn security(text: &str) -> Security {
    match text {
        t if t.contains("over starttls") => Security::StartTls,
        t if t.contains("in the clear") => Security::None,
        _ => Security::Direct,
    }
}

fn verb(text: &str) -> Result<Verb, String> {
    let after = |prefix: &str| text.strip_prefix(prefix).map(str::trim);
    if let Some(rest) = after("connects as ") {
        let (jid, options) = rest.split_once(' ').unwrap_or((rest, ""));
        return Ok(Verb::Connect {
            jid: jid.to_owned(),
            sm: options.contains("with sm") || options.contains("with manual sm"),
            manual: options.contains("with manual sm"),
            presence: !options.contains("without presence"),
            roster: options.contains("with roster"),
            carbons: options.contains("with carbons"),
            security: security(options),
        });
    }
    if let Some(xml) = after("sends:") {
        return Ok(Verb::Send { xml: xml.to_owned() });
    }
    if let Some(pattern) = after("receives:") {
        return Ok(Verb::Receive { pattern: pattern.to_owned(), any_order: false });
    }
    if let Some(pattern) = after("receives in any order:") {
        return Ok(Verb::Receive { pattern: pattern.to_owned(), any_order: true });
    }
    if let Some(h) = after("receives acks up to ") {
        let h = h.parse::<u32>().map_err(|_| format!("not a number: {h}"))?;
        return Ok(Verb::Acks { h });
    }
    if let Some(name) = after("ignores ") {
        return Ok(Verb::Ignore { name: name.to_owned() });
    }
    if let Some(jid) = after("logs in as ") {
        return Ok(Verb::LogIn { jid: jid.to_owned() });
    }
    if let Some(jid) = after("fails to log in as ") {
        return Ok(Verb::FailLogIn { jid: jid.to_owned() });
    }
    if let Some(resource) = after("binds ") {
        return Ok(Verb::Bind { resource: resource.to_owned() });
    }
    if let Some(how) = after("opens a stream") {
        return Ok(Verb::Open { security: security(how) });
    }
    if let Some(rest) = after("tries to resume what ") {
        let whose = rest.strip_suffix(" lost").ok_or("… tries to resume what … lost")?;
        return Ok(Verb::TryResume { whose: whose.to_owned() });
    }
    match text {
        "receives nothing" => Ok(Verb::Nothing),
        "receives the end of the stream" => Ok(Verb::End),
        "loses the connection" => Ok(Verb::Lose),
        "resumes" => Ok(Verb::Resume),
        "disconnects" => Ok(Verb::Disconnect),
        other => Err(format!("no such verb: {other}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_become_the_scripts_own() {
        let text = "account nurse\nromeo connects as romeo@localhost/orchard with sm\n\
                    romeo sends: <message to='nurse@localhost'>\n  <x u='{romeo}' y='aromeo@localhost'/></message>";
        let script = Script::parse("xep_0199", text).unwrap();
        assert_eq!(script.accounts.iter().collect::<Vec<_>>(), ["nurse-xep0199", "romeo-xep0199"]);
        let Verb::Send { xml } = &script.steps[1].verb else { panic!("{:?}", script.steps) };
        assert!(xml.contains("to='nurse-xep0199@localhost'"), "{xml}");
        assert!(xml.contains("u='romeo-xep0199' y='aromeo@localhost'"), "{xml}");
        let Verb::Connect { jid, sm, manual, presence, .. } = &script.steps[0].verb else { panic!() };
        assert_eq!(
            (jid.as_str(), *sm, *manual, *presence),
            ("romeo-xep0199@localhost/orchard", true, false, true)
        );
    }

    #[test]
    fn acks_need_a_number() {
        assert_eq!(verb("receives acks up to 2"), Ok(Verb::Acks { h: 2 }));
        assert_eq!(verb("receives acks up to two"), Err("not a number: two".to_owned()));
    }

    #[test]
    fn a_wrong_verb_names_its_line() {
        let error = Script::parse("x", "\n# no\nromeo dances").unwrap_err();
        assert_eq!(error, "line 3: no such verb: dances");
    }
}
