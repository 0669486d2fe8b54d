//! What came of a run, counted and written down.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::fs;
use std::path::Path;

use super::exceptions::Exceptions;
use super::fixture::Variant;
use super::trial::Trial;
use crate::sqlite_source;
use crate::workspace::{Result, output};

/// Counts of a run.
#[derive(Default)]
pub struct Tally {
    pub files: usize,
    /// Files without a failure.
    clean: usize,
    /// Tests that ran under Tideline, and under SQLite's own VFS.
    tests: usize,
    stock_tests: usize,
    /// Tests that fail with SQLite's own VFS too, in this environment.
    stock_failures: usize,
    /// How many tests a reason excepts.
    excepted: BTreeMap<String, usize>,
    /// Files that ended before their end, and how many tests that left out.
    early: Vec<(String, usize)>,
    /// Failures that nothing excuses.
    pub failures: Vec<String>,
    /// Lines of the list that no test needed.
    pub stale: Vec<String>,
}

impl Tally {
    /// Counts a file; `stock` is its run under SQLite's own VFS. Answers what is unexpected.
    pub fn add(&mut self, file: &str, own: &Trial, stock: &Trial, exceptions: &Exceptions) -> Vec<String> {
        self.files += 1;
        self.tests += own.tests;
        self.stock_tests += stock.tests;
        self.clean += usize::from(own.failed.is_empty());
        let mut unexpected = Vec::new();
        for test in &own.failed {
            if let Some(reason) = exceptions.reason(file, test) {
                *self.excepted.entry(reason.to_owned()).or_default() += 1;
            } else if stock.failed.contains(test) {
                self.stock_failures += 1;
            } else {
                unexpected.push(format!("{file} {test}"));
            }
        }
        if own.ended_early() && !stock.ended_early() {
            self.early.push((file.to_owned(), stock.tests.saturating_sub(own.tests)));
        }
        self.failures.extend(unexpected.iter().cloned());
        self.stale.extend(exceptions.stale(file, own));
        unexpected
    }

    /// The section for `RESULTS.md`.
    fn section(&self, variant: Variant, command: &str, exceptions: &Exceptions) -> Result<String> {
        let date = output(std::process::Command::new("date").args(["-u", "+%Y-%m-%d"]))?;
        let excepted: usize = self.excepted.values().sum();
        let failed = excepted + self.stock_failures + self.failures.len();
        let mut text = String::new();
        writeln!(text, "## {}\n", variant.title())?;
        writeln!(text, "{}, SQLite {}, `{command}`.\n", date.trim(), sqlite_source::VERSION)?;
        writeln!(text, "| | |\n|---|---:|")?;
        writeln!(text, "| files | {} |", self.files)?;
        writeln!(text, "| files without any failure | {} |", self.clean)?;
        writeln!(text, "| tests run, SQLite's own VFS | {} |", self.stock_tests)?;
        writeln!(text, "| tests run, Tideline | {} |", self.tests)?;
        writeln!(text, "| passed | {} |", self.tests.saturating_sub(failed))?;
        writeln!(text, "| excepted | {excepted} |")?;
        writeln!(text, "| fail with SQLite's own VFS too | {} |", self.stock_failures)?;
        writeln!(text, "| **failed** | **{}** |", self.failures.len())?;
        writeln!(text, "\n| excepted because | tests |\n|---|---:|")?;
        for (reason, count) in &self.excepted {
            writeln!(text, "| {reason}: {} | {count} |", exceptions.meaning(reason))?;
        }
        if !self.early.is_empty() {
            writeln!(text, "\nFiles that end early, and how many tests that leaves out:")?;
            let early = self.early.iter().map(|(file, left)| format!("{file} {left}"));
            writeln!(text, "{}.", early.collect::<Vec<_>>().join(", "))?;
        }
        if !self.failures.is_empty() {
            writeln!(text, "\nFailed:\n")?;
        }
        for failure in &self.failures {
            writeln!(text, "- {failure}")?;
        }
        Ok(text)
    }

    /// Puts the section into the file of results, in the place of the one that was there.
    pub fn write(&self, path: &Path, variant: Variant, command: &str, exceptions: &Exceptions) -> Result<()> {
        let before = fs::read_to_string(path).unwrap_or_default();
        let other = |variant: Variant| {
            let heading = format!("## {}\n", variant.title());
            let from = before.find(&heading)?;
            let len = before[from + heading.len()..].find("\n## ").map(|at| at + heading.len() + 1);
            Some(before[from..len.map_or(before.len(), |len| from + len)].trim_end().to_owned() + "\n")
        };
        let mut text = String::from(HEAD);
        for each in [Variant::Plain, Variant::SecureDelete] {
            let section =
                if each == variant { Some(self.section(variant, command, exceptions)?) } else { other(each) };
            if let Some(section) = section {
                write!(text, "\n{section}")?;
            }
        }
        Ok(fs::write(path, text)?)
    }
}

/// What stands above the sections.
const HEAD: &str = "\
# SQLite's own tests over Tideline

Written by `cargo xtask sqlite-tests`. Each file of the suite runs in a process of its own, once with SQLite's own VFS
and once with Tideline as the default VFS. A test that fails under Tideline is excepted, with a reason, by a line of
[exceptions.txt](exceptions.txt), or fails with SQLite's own VFS too, or is a failure. A file that stops early counts
the tests that it ran; what is in brackets there, `(stops)` and the like, counts as one.
";
