//! The list of tests that can't apply to Tideline: `tests/sqlite/exceptions.txt`, which says what its lines are.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::path::Path;

use super::trial::Trial;
use crate::workspace::Result;

/// The list.
pub struct Exceptions {
    /// Name of a reason, and what it means.
    reasons: BTreeMap<String, String>,
    lines: Vec<Line>,
}

/// One of its lines.
struct Line {
    /// For messages.
    number: usize,
    file: String,
    pattern: String,
    reason: String,
    /// Whether a failed test matched it.
    used: Cell<bool>,
}

impl Exceptions {
    /// Reads the list.
    pub fn read(path: &Path) -> Result<Exceptions> {
        let text = std::fs::read_to_string(path).map_err(|e| format!("{}: {e}", path.display()))?;
        Exceptions::parse(&text).map_err(|e| format!("{}: {e}", path.display()).into())
    }

    fn parse(text: &str) -> std::result::Result<Exceptions, String> {
        let mut list = Exceptions { reasons: BTreeMap::new(), lines: Vec::new() };
        for (number, line) in text.lines().enumerate().map(|(n, line)| (n + 1, line.trim())) {
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            if let Some((reason, meaning)) =
                line.strip_prefix("reason ").and_then(|rest| rest.split_once(':'))
            {
                list.reasons.insert(reason.trim().to_owned(), meaning.trim().to_owned());
                continue;
            }
            let words: Vec<&str> = line.split_whitespace().collect();
            let [file, patterns @ .., reason] = words.as_slice() else {
                return Err(format!("line {number} has no reason"));
            };
            if !list.reasons.contains_key(*reason) || patterns.is_empty() {
                return Err(format!(
                    "line {number} isn't `file test... reason`, with a reason that is explained above"
                ));
            }
            for pattern in patterns {
                list.lines.push(Line {
                    number,
                    file: (*file).to_owned(),
                    pattern: (*pattern).to_owned(),
                    reason: (*reason).to_owned(),
                    used: Cell::new(false),
                });
            }
        }
        Ok(list)
    }

    /// Why a test of a file may fail, if it may.
    pub fn reason(&self, file: &str, test: &str) -> Option<&str> {
        let mut found = None;
        // All that match are used: a test may have two names in the list.
        for line in self.lines.iter().filter(|line| line.file == file && matches(&line.pattern, test)) {
            line.used.set(true);
            found.get_or_insert(line.reason.as_str());
        }
        found
    }

    /// What a reason means.
    pub fn meaning(&self, reason: &str) -> &str {
        self.reasons.get(reason).map_or("", String::as_str)
    }

    /// Lines for a file that no failed test matched, though it ran to its end.
    pub fn stale(&self, file: &str, trial: &Trial) -> Vec<String> {
        if trial.ended_early() {
            return Vec::new();
        }
        let unused = self.lines.iter().filter(|line| line.file == file && !line.used.get());
        unused.map(|line| format!("line {}: {} {}", line.number, line.file, line.pattern)).collect()
    }
}

/// Does `name` match `pattern`, in which `*` stands for any text?
fn matches(pattern: &str, name: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == name,
        Some((before, after)) => name.strip_prefix(before).is_some_and(|rest| {
            (0..=rest.len()).any(|at| rest.is_char_boundary(at) && matches(after, &rest[at..]))
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::{Exceptions, Trial, matches};

    #[test]
    fn a_star_stands_for_any_text() {
        assert!(matches("a-1.*", "a-1.2.3") && matches("a-*.3", "a-1.2.3") && matches("a", "a"));
        assert!(!matches("a-1.*", "a-2.1") && !matches("a", "ab") && !matches("a-*.3", "a-1.4"));
    }

    #[test]
    fn what_no_test_needs_is_stale() {
        let text = "# why\nreason size: sizes of files\na.test a-1 a-2.* size\n";
        let list = Exceptions::parse(text).expect("a list");
        assert_eq!(list.reason("a.test", "a-2.7"), Some("size"));
        assert_eq!(list.reason("b.test", "a-2.7"), None);
        assert_eq!(list.stale("a.test", &Trial::default()), ["line 3: a.test a-1"]);
        assert!(Exceptions::parse("a.test a-1 size").is_err());
    }
}
