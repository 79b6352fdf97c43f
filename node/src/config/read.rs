//! Reads tables of TOML by the list of options and gathers every problem on the way.

use std::ops::Range;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::options::{self, Kind, OPTIONS, SECTIONS};
use super::problem::Problem;

/// Gathers problems and turns byte offsets into lines.
pub(super) struct Reader<'a> {
    text: &'a str,
    pub(super) problems: Vec<Problem>,
}

/// A value together with the line it stands on (0: it is the default).
pub(super) struct Found<T> {
    pub(super) value: T,
    pub(super) line: usize,
}

/// One table of the file, or its absence.
pub(super) struct Section<'a, 'i> {
    name: &'static str,
    table: Option<&'a DeTable<'i>>,
    /// The line of its header.
    pub(super) line: usize,
}

impl Section<'_, '_> {
    /// The name of an option in it, with the section's.
    pub(super) fn path(&self, option: &str) -> String {
        options::path(self.name, option)
    }
}

impl<'a> Reader<'a> {
    pub(super) fn new(text: &'a str) -> Self {
        Self { text, problems: Vec::new() }
    }

    pub(super) fn line(&self, span: &Range<usize>) -> usize {
        let before = self.text.as_bytes().get(..span.start).unwrap_or_default();
        1 + before.iter().filter(|b| **b == b'\n').count()
    }

    pub(super) fn problem(
        &mut self,
        line: usize,
        option: impl Into<String>,
        what: impl Into<String>,
        remedy: impl Into<String>,
    ) {
        self.problems.push(Problem { line, option: option.into(), what: what.into(), remedy: remedy.into() });
    }

    /// The table `name` within `parent`, and problems for names in it that no option has.
    pub(super) fn section<'t, 'i>(&mut self, parent: &'t DeTable<'i>, name: &'static str) -> Section<'t, 'i> {
        let key = name.rsplit('.').next().unwrap_or(name);
        let Some(value) = parent.get(key) else { return Section { name, table: None, line: 0 } };
        let line = self.line(&value.span());
        match value.get_ref() {
            DeValue::Table(table) => {
                self.unknown(table, name);
                Section { name, table: Some(table), line }
            }
            other => {
                self.problem(
                    line,
                    name,
                    format!("is {}", kind_of(other)),
                    format!("write it as a table: [{name}]"),
                );
                Section { name, table: None, line }
            }
        }
    }

    /// The tables of `[[name]]`.
    pub(super) fn sections<'t, 'i>(
        &mut self,
        parent: &'t DeTable<'i>,
        name: &'static str,
    ) -> Vec<(Section<'t, 'i>, &'t DeTable<'i>)> {
        let Some(value) = parent.get(name) else { return Vec::new() };
        let line = self.line(&value.span());
        let DeValue::Array(array) = value.get_ref() else {
            self.problem(
                line,
                name,
                format!("is {}", kind_of(value.get_ref())),
                format!("write [[{name}]] with two brackets"),
            );
            return Vec::new();
        };
        let mut all = Vec::new();
        for item in array.iter() {
            let line = self.line(&item.span());
            match item.get_ref() {
                DeValue::Table(table) => {
                    self.unknown(table, name);
                    all.push((Section { name, table: Some(table), line }, table));
                }
                other => {
                    let what = format!("holds {}", kind_of(other));
                    self.problem(line, name, what, format!("write [[{name}]] for each"));
                }
            }
        }
        all
    }

    /// The top of the file.
    pub(super) fn top<'t, 'i>(&mut self, table: &'t DeTable<'i>) -> Section<'t, 'i> {
        self.unknown(table, "");
        Section { name: "", table: Some(table), line: 1 }
    }

    fn unknown(&mut self, table: &DeTable<'_>, section: &str) {
        for key in table.keys() {
            let name: &str = key.get_ref();
            let known = options::find(section, name).is_some()
                || SECTIONS.iter().any(|(s, _)| !s.is_empty() && *s == options::path(section, name));
            if !known {
                let line = self.line(&key.span());
                let near = nearest(section, name);
                self.problem(line, options::path(section, name), "this option does not exist", near);
            }
        }
    }

    fn value<'t, 'i>(
        &self,
        section: &Section<'t, 'i>,
        name: &str,
    ) -> Option<(&'t Spanned<DeValue<'i>>, usize)> {
        let value = section.table?.get(name)?;
        Some((value, self.line(&value.span())))
    }

    /// Whether the file says anything about it.
    pub(super) fn names(&self, section: &Section<'_, '_>, name: &str) -> bool {
        self.value(section, name).is_some()
    }

    fn wrong(&mut self, section: &Section<'_, '_>, name: &str, line: usize, got: &DeValue<'_>, want: &str) {
        let path = options::path(section.name, name);
        self.problem(line, path, format!("is {}", kind_of(got)), format!("write {want}"));
    }

    pub(super) fn flag(&mut self, section: &Section<'_, '_>, name: &str) -> Found<bool> {
        let default = matches!(options::find(section.name, name).map(|o| o.kind), Some(Kind::Flag(true)));
        let Some((value, line)) = self.value(section, name) else { return Found { value: default, line: 0 } };
        match value.get_ref() {
            DeValue::Boolean(flag) => Found { value: *flag, line },
            other => {
                self.wrong(section, name, line, other, "true or false");
                Found { value: default, line }
            }
        }
    }

    pub(super) fn number(&mut self, section: &Section<'_, '_>, name: &str) -> Found<u64> {
        let Some(Kind::Number { default, min, max }) = options::find(section.name, name).map(|o| o.kind)
        else {
            debug_assert!(false, "{name} is not a number of the list");
            return Found { value: 0, line: 0 };
        };
        let Some((value, line)) = self.value(section, name) else { return Found { value: default, line: 0 } };
        match value.get_ref() {
            DeValue::Integer(number) => match u64::from_str_radix(number.as_str(), number.radix()) {
                Ok(value) if (min..=max).contains(&value) => return Found { value, line },
                _ => {
                    let path = options::path(section.name, name);
                    self.problem(
                        line,
                        path,
                        format!("is {number}"),
                        format!("write a number from {min} to {max}"),
                    );
                }
            },
            other => self.wrong(section, name, line, other, &format!("a number from {min} to {max}")),
        }
        Found { value: default, line }
    }

    pub(super) fn text(&mut self, section: &Section<'_, '_>, name: &str) -> Found<String> {
        let (default, words): (&str, &[&str]) = match options::find(section.name, name).map(|o| o.kind) {
            Some(Kind::Text(text)) => (text, &[]),
            Some(Kind::Word(words)) => (words.first().copied().unwrap_or_default(), words),
            _ => {
                debug_assert!(false, "{name} is not a text of the list");
                ("", &[])
            }
        };
        let Some((value, line)) = self.value(section, name) else {
            return Found { value: default.to_owned(), line: 0 };
        };
        match value.get_ref() {
            DeValue::String(text) if words.is_empty() || words.contains(&text.as_ref()) => {
                return Found { value: text.clone().into_owned(), line };
            }
            DeValue::String(text) => {
                let path = options::path(section.name, name);
                self.problem(line, path, format!("is {text:?}"), format!("write one of {words:?}"));
            }
            other => self.wrong(section, name, line, other, "a text in quotes"),
        }
        Found { value: default.to_owned(), line }
    }

    /// A list of texts, each with its own line.
    pub(super) fn list(&mut self, section: &Section<'_, '_>, name: &str) -> Vec<Found<String>> {
        let default: &[&str] = match options::find(section.name, name).map(|o| o.kind) {
            Some(Kind::List(list)) => list,
            _ => &[],
        };
        let Some((value, line)) = self.value(section, name) else {
            return default.iter().map(|t| Found { value: (*t).to_owned(), line: 0 }).collect();
        };
        let DeValue::Array(array) = value.get_ref() else {
            self.wrong(section, name, line, value.get_ref(), "a list: [\"…\", \"…\"]");
            return Vec::new();
        };
        let mut all = Vec::new();
        for item in array.iter() {
            let line = self.line(&item.span());
            match item.get_ref() {
                DeValue::String(text) => all.push(Found { value: text.clone().into_owned(), line }),
                other => self.wrong(section, name, line, other, "texts in quotes"),
            }
        }
        all
    }
}

fn kind_of(value: &DeValue<'_>) -> String {
    match value {
        DeValue::String(_) => "a text".to_owned(),
        DeValue::Integer(_) => "a whole number".to_owned(),
        DeValue::Float(_) => "a number with a point".to_owned(),
        DeValue::Boolean(_) => "true or false".to_owned(),
        DeValue::Datetime(_) => "a date".to_owned(),
        DeValue::Array(_) => "a list".to_owned(),
        DeValue::Table(_) => "a table".to_owned(),
    }
}

/// A hint at what was meant: the same name elsewhere, or the nearest name here.
fn nearest(section: &str, name: &str) -> String {
    let here = OPTIONS.iter().filter(|o| o.section == section).map(|o| o.name);
    let tables = SECTIONS.iter().map(|(s, _)| *s).filter(|s| section.is_empty() && !s.contains('.'));
    let all: Vec<&str> = here.chain(tables).filter(|n| !n.is_empty()).collect();
    let near = all.iter().map(|n| (distance(n, name), n)).min();
    let elsewhere = OPTIONS.iter().find(|o| o.name == name).filter(|_| near.is_none_or(|(far, _)| far > 1));
    if let Some(opt) = elsewhere {
        return format!("did you mean {}?", opt.path());
    }
    match near {
        Some((distance, near)) if distance <= 3 => format!("did you mean {}?", options::path(section, near)),
        _ => format!("known options: {}", all.join(", ")),
    }
}

/// Levenshtein's distance.
fn distance(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.chars().count()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut before = i;
        let mut left = i + 1;
        for (cell, y) in row.iter_mut().skip(1).zip(b.chars()) {
            let best = (left + 1).min(*cell + 1).min(before + usize::from(x != y));
            before = std::mem::replace(cell, best);
            left = best;
        }
        if let Some(first) = row.first_mut() {
            *first = i + 1;
        }
    }
    row.last().copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distances() {
        assert_eq!((distance("kitten", "sitting"), distance("", "abc"), distance("abc", "abc")), (3, 3, 0));
    }

    #[test]
    fn hints() {
        assert_eq!(nearest("limits", "stanza_byte"), "did you mean limits.stanza_bytes?");
        assert_eq!(nearest("", "stanza_bytes"), "did you mean limits.stanza_bytes?");
        assert_eq!(nearest("", "domains"), "did you mean domain?");
        assert!(nearest("sasl", "completely_different").starts_with("known options"));
    }
}
