//! Python, with the module `sqlite3` and with `apsw`.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::library::{against_stock, library, skipped};
use crate::process::{Output, Process};
use crate::scratch::Scratch;
use crate::shell::at_home;

/// The Python whose module can load extensions; the first on the path often can't.
pub(crate) const PYTHON: &str = "/usr/bin/python3";

/// Runs a script in `/usr/bin/python3`. It may say `from tide import *` (see `py/tide.py`).
pub fn python(scratch: &Scratch, script: &str, arguments: &[&str]) -> Output {
    python_start(scratch, script, arguments).finish()
}

/// Starts a script in `/usr/bin/python3`.
pub fn python_start(scratch: &Scratch, script: &str, arguments: &[&str]) -> Process {
    start(PYTHON.as_ref(), None, scratch, script, arguments)
}

/// The same, its module on the SQLite library in the folder `sqlite`.
pub(crate) fn python_start_on(sqlite: &Path, scratch: &Scratch, script: &str, arguments: &[&str]) -> Process {
    start(PYTHON.as_ref(), Some(sqlite), scratch, script, arguments)
}

/// Runs a script in a Python that has apsw, or says why the test is skipped.
pub fn apsw(scratch: &Scratch, script: &str, arguments: &[&str]) -> Option<Output> {
    let python = std::env::var_os("TIDELINE_APSW_PYTHON").map_or_else(
        || PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../target/venv/bin/python3"),
        PathBuf::from,
    );
    if !python.exists() {
        skipped("no apsw; `cargo xtask test` installs it where it can");
        return None;
    }
    Some(start(&python, None, scratch, script, arguments).finish())
}

fn start(
    python: &Path,
    sqlite: Option<&Path>,
    scratch: &Scratch,
    script: &str,
    arguments: &[&str],
) -> Process {
    let mut command = Command::new(python);
    command.args(["-u", "-B", "-c", script]).args(arguments);
    at_python(&mut command, sqlite);
    Process::start(at_home(&mut command, scratch.folder()))
}

/// Gives a Python our modules, and a SQLite library in place of this system's.
pub(crate) fn at_python(command: &mut Command, sqlite: Option<&Path>) {
    command.env("PYTHONPATH", concat!(env!("CARGO_MANIFEST_DIR"), "/py"));
    if let Some(folder) = sqlite {
        command.env("LD_LIBRARY_PATH", folder);
    }
    if against_stock() {
        command.env("TIDELINE_AGAINST", "stock");
    } else {
        command.env("TIDELINE_LIBRARY", library());
    }
}
