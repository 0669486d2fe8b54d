//! The same SQL on an old SQLite and on a new one.

use crate::bundled::{bundled_at, script};
use crate::scratch::Scratch;
use crate::shell::Shell;

/// What runs the SQL. Each script has a connection of its own, closed at its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Host {
    /// The `sqlite3` shell, in a process of its own: this system's SQLite, built with `SECURE_DELETE` on Debian.
    Shell,
    /// `rusqlite` in this process: a newer SQLite, without `SECURE_DELETE`.
    Bundled,
}

impl Host {
    /// Runs `test` on each of them, in a folder of its own.
    pub fn each(test: impl Fn(Self, &Scratch)) {
        for host in [Self::Shell, Self::Bundled] {
            println!("on {host:?}");
            test(host, &Scratch::new());
        }
    }

    /// Runs a script on the database of this name, through Tideline; the error is the text that a user reads.
    pub fn sql(self, scratch: &Scratch, name: &str, sql: &str) -> Result<String, String> {
        self.sql_at(scratch, &scratch.uri(name), sql)
    }

    /// Runs a script on this URI, the library loaded.
    pub fn sql_at(self, scratch: &Scratch, uri: &str, sql: &str) -> Result<String, String> {
        match self {
            Self::Shell => {
                let output = Shell::at(scratch, uri).run(sql);
                if output.status.success() && output.stderr.is_empty() {
                    Ok(output.stdout)
                } else {
                    Err(output.stderr)
                }
            }
            Self::Bundled => {
                let connection = bundled_at(uri).map_err(|error| error.to_string())?;
                let printed = script(&connection, sql).map_err(|error| error.to_string())?;
                connection.close().map_err(|(_, error)| error.to_string())?;
                Ok(printed)
            }
        }
    }

    /// Runs a script that must do well, and gives what it printed.
    #[track_caller]
    pub fn ok(self, scratch: &Scratch, name: &str, sql: &str) -> String {
        self.sql(scratch, name, sql).unwrap_or_else(|error| panic!("on {self:?}: {error}"))
    }

    /// Runs a script that must fail, and gives the complaint.
    #[track_caller]
    pub fn error(self, scratch: &Scratch, name: &str, sql: &str) -> String {
        match self.sql(scratch, name, sql) {
            Ok(printed) => panic!("on {self:?} it should have failed, but printed {printed:?}"),
            Err(error) => error,
        }
    }
}
