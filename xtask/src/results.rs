//! Documents that long checks write: what they tried, with which commit, and what came of it.

use std::fs;
use std::process::Command;

use crate::workspace::{Result, Workspace, output};

/// Folder of the documents and of the soaks' logs, from the root.
pub const FOLDER: &str = "docs/soak";

/// Date and commit of a run.
pub struct Run {
    /// Minutes, UTC.
    pub date: String,
    /// Shortened; with `-dirty` behind it if anything but results differs from it.
    pub commit: String,
}

impl Run {
    /// One that begins now.
    pub fn begin() -> Result<Run> {
        let head = output(Command::new("git").args(["rev-parse", "--short", "HEAD"]))?;
        let results = format!(":!{FOLDER}");
        let changed = output(Command::new("git").args(["status", "--porcelain", "--", ".", &results]))?;
        let commit = format!("{}{}", head.trim(), if changed.is_empty() { "" } else { "-dirty" });
        Ok(Run { date: now()?, commit })
    }

    /// Writes the document `name`: a row for each of `keys`, which are the first cells. Those that weren't tried this time
    /// stay as they are there; to the others date and commit are added. `head` is above the cells of `tried`.
    pub fn write<const N: usize>(
        &self,
        workspace: &Workspace,
        name: &str,
        command: &str,
        head: [&str; N],
        keys: &[&str],
        tried: &[[String; N]],
    ) -> Result<()> {
        let path = workspace.root().join(FOLDER).join(format!("{name}.md"));
        let before = if path.exists() { fs::read_to_string(&path)? } else { String::new() };
        let title = name[..1].to_owned() + &name[1..].to_lowercase();
        let table = self.table(&before, head, keys, tried);
        fs::create_dir_all(workspace.root().join(FOLDER))?;
        Ok(fs::write(path, format!("# {title}\n\nWritten by `{command}`.\n\n{table}"))?)
    }

    fn table<const N: usize>(
        &self,
        before: &str,
        head: [&str; N],
        keys: &[&str],
        tried: &[[String; N]],
    ) -> String {
        let mut text = format!("| {} | with commit |\n|{}\n", head.join(" | "), "---|".repeat(N + 1));
        for key in keys {
            let begins = format!("| {} |", escaped(key));
            match tried.iter().find(|row| row[0] == *key) {
                Some(row) => {
                    let cells = row.each_ref().map(|cell| escaped(cell)).join(" | ");
                    text += &format!("| {cells} | {}, {} |\n", self.commit, self.date);
                }
                None => before.lines().filter(|line| line.starts_with(&begins)).for_each(|line| {
                    text += line;
                    text.push('\n');
                }),
            }
        }
        text
    }
}

/// Date and minute, UTC.
pub fn now() -> Result<String> {
    Ok(output(Command::new("date").args(["-u", "+%Y-%m-%d %H:%M"]))?.trim().to_owned())
}

/// As the text of a cell.
fn escaped(text: &str) -> String {
    text.replace('|', "\\|").replace('<', "&lt;").replace('\n', " ")
}

#[cfg(test)]
mod tests {
    #[test]
    fn what_was_not_tried_stays_as_it_was() {
        let run = |commit: &str| super::Run { date: "today".to_owned(), commit: commit.to_owned() };
        let tried = |key: &str, said: &str| [key.to_owned(), said.to_owned()];
        let head = ["what", "said"];
        let first = run("1").table("", head, &["a", "b"], &[tried("a", "x | y"), tried("b", "z")]);
        assert_eq!(
            first,
            "| what | said | with commit |\n|---|---|---|\n| a | x \\| y | 1, today |\n| b | z | 1, today |\n"
        );
        let second = run("2").table(&first, head, &["b", "a"], &[tried("b", "w")]);
        assert_eq!(
            second,
            "| what | said | with commit |\n|---|---|---|\n| b | w | 2, today |\n| a | x \\| y | 1, today |\n"
        );
    }

    #[test]
    fn a_cell_stays_one() {
        assert_eq!(super::escaped("Option<u8> | none\nmore"), "Option&lt;u8> \\| none more");
    }
}
