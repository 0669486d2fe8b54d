//! `cargo xtask soak report`: the logs of all soaks as a table.

use std::fmt::Write;
use std::fs;
use std::path::Path;

use super::record::{self, Record};
use crate::workspace::{Result, Workspace};

/// Lines of a document that the table is between.
const BEGIN: &str = "<!-- soak:table begin -->\n";
const END: &str = "<!-- soak:table end -->\n";

/// Prints the table, or puts it into `document`.
pub fn run(workspace: &Workspace, document: Option<&Path>) -> Result<()> {
    let table = table(workspace)?;
    let Some(path) = document else {
        print!("{table}");
        return Ok(());
    };
    let text = fs::read_to_string(path)?;
    let parts = text.split_once(BEGIN).and_then(|(before, rest)| Some((before, rest.split_once(END)?.1)));
    let (before, behind) = parts.ok_or_else(|| format!("{} has no table to replace", path.display()))?;
    Ok(fs::write(path, [before, BEGIN, &table, END, behind].concat())?)
}

fn table(workspace: &Workspace) -> Result<String> {
    let mut table = String::from("| `cargo xtask soak …` | seeds | tried | found |\n|---|---:|---|---|\n");
    for name in record::names(workspace)? {
        let record = Record::open(workspace, &name)?;
        let (seeds, tried, found) = record.total();
        let tried: Vec<String> = tried
            .iter()
            .map(|(what, count)| format!("{} {}", grouped(count), what.replace('_', " ")))
            .collect();
        let found = if found.is_empty() { "nothing".to_owned() } else { format!("{} times", found.len()) };
        writeln!(table, "| `{name}` | {} | {} | {found} |", grouped(seeds), tried.join(", "))?;
    }
    Ok(table)
}

/// A number, with a comma between groups of three digits.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    #[test]
    fn digits_are_in_groups() {
        assert_eq!([0, 999, 1000, 1_234_567].map(super::grouped), ["0", "999", "1,000", "1,234,567"]);
    }
}
