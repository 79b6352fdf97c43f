//! What an import says about itself.

use std::collections::BTreeMap;

/// Remarks that are kept; those behind are counted.
const REMARKS: usize = 1_000;

/// Names of elements that were left out, to tell apart.
const NAMES: usize = 100;

/// Something that the operator should know.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Remark {
    /// Where in the document, counted from 1; 0 for the document as a whole.
    pub line: u64,
    /// What a line concerns: a bare JID, a domain, or the whole document.
    pub subject: String,
    /// What it is. Repeats no message and no secret.
    pub reason: String,
}

/// What an import has done so far.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Report {
    /// Accounts made.
    pub added: u64,
    /// Accounts that were there and were left as they are.
    pub skipped: u64,
    /// Accounts that could not be made. Each has a remark, or its host has.
    pub failed: u64,
    /// What the operator should know of accounts that failed or of what was left out, at most 1,000.
    pub remarks: Vec<Remark>,
    /// Remarks that were not kept.
    pub more: u64,
}

impl Report {
    pub(super) fn remark(&mut self, line: u64, subject: &str, reason: impl Into<String>) {
        if self.remarks.len() >= REMARKS {
            self.more = self.more.saturating_add(1);
            return;
        }
        self.remarks.push(Remark { line, subject: subject.to_owned(), reason: reason.into() });
    }
}

/// How often each thing happened to one account, so that ten thousand of a kind make one remark.
pub(super) type Notes = BTreeMap<&'static str, u64>;

pub(super) fn note(notes: &mut Notes, what: &'static str) {
    *notes.entry(what).or_default() += 1;
}

pub(super) fn told(what: &str, times: u64) -> String {
    if times == 1 { what.to_owned() } else { format!("{what} ({times} times)") }
}

/// The elements that nobody here knows, by namespace and name.
#[derive(Default)]
pub(super) struct Ignored(BTreeMap<String, u64>);

impl Ignored {
    pub(super) fn count(&mut self, name: &str, ns: &str) {
        let short = |text: &str| text.chars().take(80).collect::<String>();
        let key = format!("<{} xmlns='{}'/>", short(name), short(ns));
        if self.0.len() < NAMES || self.0.contains_key(&key) {
            *self.0.entry(key).or_default() += 1;
        }
    }

    pub(super) fn tell(self, report: &mut Report) {
        for (element, times) in self.0 {
            report.remark(0, "", told(&format!("{element} has no place here and was left out"), times));
        }
    }
}
