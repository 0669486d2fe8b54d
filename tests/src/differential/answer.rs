//! What a step answers, for comparison.

use std::fmt;

use super::connection::Failure;

/// What an application can ask a connection after each call.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct After {
    pub changes: i64,
    pub total_changes: i64,
    pub last_rowid: i64,
    pub autocommit: bool,
    /// 0 none, 1 reading, 2 writing.
    pub state: i32,
}

/// All that one side says to a step.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Answer {
    /// Extended result code.
    pub code: i32,
    /// SQLite's text, if it is an error.
    pub message: String,
    /// A line for each row, those before an error among them.
    pub rows: String,
    pub after: After,
}

impl Answer {
    /// Its code, of an error's text as much as names the kind of error, and in what state of the transaction it was.
    pub fn why(&self) -> String {
        let text: Vec<&str> = self.message.splitn(3, ": ").take(2).collect();
        format!("{} {} {}", self.code, text.join(": "), self.after.autocommit)
    }

    /// Makes it one of an error.
    pub fn fail(&mut self, (code, message): Failure) {
        (self.code, self.message) = (code, message);
    }
}

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const MOST: usize = 40;
        for line in self.rows.lines().take(MOST) {
            writeln!(f, "    {line}")?;
        }
        let more = self.rows.lines().count().saturating_sub(MOST);
        if more > 0 {
            writeln!(f, "    … and {more} more lines")?;
        }
        writeln!(f, "    code {} {:?}", self.code, self.message)?;
        write!(f, "    {:?}", self.after)
    }
}
