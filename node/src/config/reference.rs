//! The configuration reference (`ops/deploy/CONFIGURATION.md`), generated from the list of options.

use std::fmt::Write as _;

use super::options::{Kind, OPTIONS, SECTIONS};

/// The reference in Markdown: a table for each section. Options marked with ↻ are applied by a reload.
pub fn markdown() -> String {
    let mut out = String::new();
    for (section, doc) in SECTIONS {
        let title = match *section {
            "" => "Top level".to_owned(),
            "domain" | "component" | "route" => format!("`[[{section}]]`"),
            name => format!("`[{name}]`"),
        };
        let _ = writeln!(out, "## {title}\n\n{doc}\n\n| option | default | meaning |\n| --- | --- | --- |");
        for opt in OPTIONS.iter().filter(|o| o.section == *section) {
            let choice = match opt.kind {
                Kind::Word(words) => format!(" One of {}.", words.map_code()),
                Kind::Number { min, max, .. } => format!(" {min} to {max}."),
                _ => String::new(),
            };
            let reload = if opt.reload { " ↻" } else { "" };
            let _ =
                writeln!(out, "| `{}`{reload} | `{}` | {}{choice} |", opt.name, opt.default_toml(), opt.doc);
        }
        out.push('\n');
    }
    out
}

trait MapCode {
    fn map_code(&self) -> String;
}

impl MapCode for &[&str] {
    fn map_code(&self) -> String {
        self.iter().map(|w| format!("`{w}`")).collect::<Vec<_>>().join(", ")
    }
}

/// A complete `rookery.toml` with every option at its default, commented out, for `rookery check --example` and the
/// documentation.
pub fn example() -> String {
    let mut out = String::from("# rookery.toml: every option with its default.\n");
    for (section, doc) in SECTIONS {
        let head = match *section {
            "" => String::new(),
            "domain" => "[[domain]]\n".to_owned(),
            // Their mere presence says something.
            "cluster" => "#[cluster]\n".to_owned(),
            "component" => "#[[component]]\n".to_owned(),
            "route" => "#[[route]]\n".to_owned(),
            name => format!("[{name}]\n"),
        };
        let _ = write!(out, "\n# {doc}\n{head}");
        for opt in OPTIONS.iter().filter(|o| o.section == *section) {
            let (mark, value) = match (opt.section, opt.name) {
                ("domain", "name") => ("", "\"example.org\"".to_owned()),
                ("component", "name") => ("#", "\"irc.example.org\"".to_owned()),
                ("component", "secret") => ("#", "\"a random text, as of openssl rand -hex 16\"".to_owned()),
                ("route", "domain") => ("#", "\"*.company.example\"".to_owned()),
                ("route", "via") => ("#", "\"relay.example:5269\"".to_owned()),
                // Without it a public node needs a certificate.
                ("domain", "self_signed") => ("", "true".to_owned()),
                _ => ("#", opt.default_toml()),
            };
            let _ = writeln!(out, "{mark}{} = {value}", opt.name);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_option_stands_in_a_known_section_once() {
        for (i, opt) in OPTIONS.iter().enumerate() {
            assert!(SECTIONS.iter().any(|(s, _)| *s == opt.section), "{}", opt.path());
            assert!(OPTIONS[i + 1..].iter().all(|o| o.path() != opt.path()), "{} twice", opt.path());
            assert!(opt.doc.ends_with('.') && !opt.doc.contains('|'), "{}", opt.path());
        }
    }

    #[test]
    fn the_reference_names_every_option() {
        let text = markdown();
        for opt in OPTIONS {
            assert!(text.contains(&format!("| `{}`", opt.name)), "{}", opt.path());
        }
    }

    #[test]
    fn the_example_is_valid_with_or_without_its_comment_signs() {
        let base = std::path::Path::new("/");
        super::super::parse(&example(), base).unwrap();
        let all = example().replace("\n#", "\n").replace("\nnode = \"\"", "\nnode = \"n1\"");
        let all = all.replace("embedded:", "dev://127.0.0.1:7300");
        let lines: Vec<_> = all.lines().filter(|l| l.contains(" = ") || l.starts_with('[')).collect();
        super::super::parse(&lines.join("\n"), base).unwrap();
    }
}
