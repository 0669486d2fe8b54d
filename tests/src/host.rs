//! The same on several versions and builds of SQLite.

use std::path::PathBuf;
use std::sync::OnceLock;

use crate::build::Build;
use crate::bundled::{bundled_at, bundled_stock, script};
use crate::dice::{Dice, rounds};
use crate::process::{Output, Process};
use crate::pyhost::{python_start, python_start_on};
use crate::scratch::Scratch;
use crate::shell::{Session, Shell};

/// A SQLite, and what runs SQL on it. PAGER.md's traps are not the same on all of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Host {
    /// This system's SQLite, built with `SECURE_DELETE` on Debian: the `sqlite3` shell and Python.
    System,
    /// The newer one that `rusqlite` brings, without `SECURE_DELETE`: in this process, and the same source in Python.
    Bundled,
    /// Nearly the oldest that Tideline takes, without `SECURE_DELETE`: in Python.
    Oldest,
}

impl Host {
    /// All of them that this machine can have.
    pub fn all() -> &'static [Self] {
        static OLDEST: OnceLock<bool> = OnceLock::new();
        if *OLDEST.get_or_init(|| Build::Oldest.library_or_skip().is_some()) {
            &[Self::System, Self::Bundled, Self::Oldest]
        } else {
            &[Self::System, Self::Bundled]
        }
    }

    /// Runs `test` on each of them, in a folder of its own.
    pub fn each(test: impl Fn(Self, &Scratch)) {
        for host in Self::all() {
            println!("on {host:?}");
            test(*host, &Scratch::new());
        }
    }

    /// Runs a script in Python on each of them. It may say `from tide import *`, and has two arguments: a seed, drawn for
    /// the test of this name, and how many rounds to make.
    pub fn each_python(name: &str, script: &str) {
        let seed = Dice::new(name).draw().to_string();
        let rounds = rounds(100).to_string();
        Self::each(|host, scratch| {
            host.python(scratch, script, &[&seed, &rounds]).ok();
        });
    }

    /// Runs a script on the database of this name, through Tideline; the error is the text that a user reads. The
    /// connection is closed at its end.
    pub fn sql(self, scratch: &Scratch, name: &str, sql: &str) -> Result<String, String> {
        self.sql_at(scratch, &scratch.uri(name), sql)
    }

    /// Runs a script on this URI, the library loaded.
    pub fn sql_at(self, scratch: &Scratch, uri: &str, sql: &str) -> Result<String, String> {
        if self == Self::Bundled {
            let connection = bundled_at(uri).map_err(|error| error.to_string())?;
            let printed = script(&connection, sql).map_err(|error| error.to_string())?;
            connection.close().map_err(|(_, error)| error.to_string())?;
            return Ok(printed);
        }
        let output = self.shell(Shell::at(scratch, uri)).run(sql);
        if output.status.success() && output.stderr.is_empty() {
            Ok(output.stdout)
        } else {
            Err(output.stderr)
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

    /// Runs a script that must do well on the database of this name as SQLite itself sees it.
    #[track_caller]
    pub fn stock(self, scratch: &Scratch, name: &str, sql: &str) -> String {
        if self == Self::Bundled {
            let printed = script(&bundled_stock(scratch, name), sql);
            return printed.unwrap_or_else(|error| panic!("on {self:?}: {error}"));
        }
        self.shell(Shell::stock(scratch, name)).ok(sql)
    }

    /// A shell on the database of this name, through Tideline, to talk to.
    pub fn session(self, scratch: &Scratch, name: &str) -> Session {
        self.shell(Shell::new(scratch, name)).session()
    }

    /// That shell, on this SQLite.
    pub fn shell<'a>(self, shell: Shell<'a>) -> Shell<'a> {
        match self.library() {
            None => shell,
            Some(library) => shell.on(library),
        }
    }

    /// Runs a script in Python, its module on this SQLite.
    pub fn python(self, scratch: &Scratch, script: &str, arguments: &[&str]) -> Output {
        self.python_start(scratch, script, arguments).finish()
    }

    /// Starts a script in Python, its module on this SQLite.
    pub fn python_start(self, scratch: &Scratch, script: &str, arguments: &[&str]) -> Process {
        match self.library() {
            None => python_start(scratch, script, arguments),
            Some(library) => python_start_on(&library, scratch, script, arguments),
        }
    }

    /// The folder of the library in other processes; `None` for this system's, where it is found without being told.
    fn library(self) -> Option<PathBuf> {
        match self {
            Self::System => None,
            Self::Bundled => Build::Newest.library_or_skip(),
            Self::Oldest => Build::Oldest.library_or_skip(),
        }
    }
}
