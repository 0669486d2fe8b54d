//! Python, with the module `sqlite3` and with `apsw`.

use std::path::PathBuf;
use std::process::Command;

use crate::library::{against_stock, library, skipped};
use crate::process::{Output, Process};
use crate::scratch::Scratch;
use crate::shell::at_home;

/// Runs a script in `/usr/bin/python3`. It may say `from tide import *` (see `py/tide.py`).
pub fn python(scratch: &Scratch, script: &str, arguments: &[&str]) -> Output {
    python_start(scratch, script, arguments).finish()
}

/// Starts a script in `/usr/bin/python3`.
pub fn python_start(scratch: &Scratch, script: &str, arguments: &[&str]) -> Process {
    start("/usr/bin/python3".into(), scratch, script, arguments)
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
    Some(start(python, scratch, script, arguments).finish())
}

fn start(python: PathBuf, scratch: &Scratch, script: &str, arguments: &[&str]) -> Process {
    let mut command = Command::new(python);
    command.args(["-u", "-B", "-c", script]).args(arguments);
    command.env("PYTHONPATH", concat!(env!("CARGO_MANIFEST_DIR"), "/py"));
    if against_stock() {
        command.env("TIDELINE_AGAINST", "stock");
    } else {
        command.env("TIDELINE_LIBRARY", library());
    }
    Process::start(at_home(&mut command, scratch.folder()))
}
