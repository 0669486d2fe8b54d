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

    /// Writes the document `name`: what wrote it, when, and a table with `head` above its rows.
    pub fn write<const N: usize>(
        &self,
        workspace: &Workspace,
        name: &str,
        command: &str,
        head: [&str; N],
        rows: &[[String; N]],
    ) -> Result<()> {
        let Run { date, commit } = self;
        let title = name[..1].to_owned() + &name[1..].to_lowercase();
        let mut text =
            format!("# {title}\n\nWritten by `{command}`, begun {date} (UTC) with commit {commit}.\n\n");
        let line =
            |cells: &[String; N]| format!("| {} |\n", cells.each_ref().map(|cell| escaped(cell)).join(" | "));
        text += &line(&head.map(str::to_owned));
        text += &format!("|{}\n", "---|".repeat(N));
        rows.iter().for_each(|row| text += &line(row));
        let folder = workspace.root().join(FOLDER);
        fs::create_dir_all(&folder)?;
        Ok(fs::write(folder.join(format!("{name}.md")), text)?)
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
    fn a_cell_stays_one() {
        assert_eq!(super::escaped("Option<u8> | none\nmore"), "Option&lt;u8> \\| none more");
    }
}
