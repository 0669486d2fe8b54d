//! The tools of this machine that the chores need: found, or installed where that can be done without asking.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::workspace::{Result, Workspace, run};

/// The Python whose `sqlite3` module can load extensions; the first on the path often can't.
pub const PYTHON: &str = "/usr/bin/python3";

/// Does `program` answer to `argument`?
pub fn answers(program: impl AsRef<Path>, argument: &str) -> bool {
    let mut command = Command::new(program.as_ref());
    let silent = command.arg(argument).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    silent.status().is_ok_and(|status| status.success())
}

/// Installs a package of this system, if it has apt and we may.
fn apt_install(package: &str) -> Result<()> {
    if !answers("apt-get", "--version") {
        return Err(format!("please install {package}: this machine has no apt-get").into());
    }
    let root = Command::new("id").arg("-u").output().is_ok_and(|o| o.stdout.trim_ascii() == b"0");
    let apt = |arguments: &[&str]| {
        let mut command = if root { Command::new("apt-get") } else { Command::new("sudo") };
        if !root {
            command.args(["-n", "apt-get"]);
        }
        run(command.args(arguments).env("DEBIAN_FRONTEND", "noninteractive"))
    };
    if !root && !answers("sudo", "-nv") {
        return Err(format!("please install {package}: apt-get install {package}").into());
    }
    let install = ["install", "--yes", "--no-install-recommends", package];
    apt(&install).or_else(|_| apt(&["update"]).and_then(|()| apt(&install)))
}

/// Sees to it that `program` is there, from the package of that name.
fn ensure(program: &str, argument: &str, package: &str) -> Result<()> {
    if answers(program, argument) { Ok(()) } else { apt_install(package) }
}

/// The `sqlite3` shell.
pub fn shell() -> Result<()> {
    ensure("sqlite3", "-version", "sqlite3")
}

/// Python with the `sqlite3` module.
pub fn python() -> Result<()> {
    ensure(PYTHON, "--version", "python3")
}

/// A C compiler: SQLite's own source is compiled in some tests.
pub fn c_compiler() -> Result<()> {
    if answers("cc", "--version") { Ok(()) } else { ensure("gcc", "--version", "gcc") }
}

/// `make`.
pub fn make() -> Result<()> {
    ensure("make", "--version", "make")
}

/// Tcl's headers; the answer is the folder of its `tclConfig.sh`.
pub fn tcl() -> Result<PathBuf> {
    let find = || {
        let mut folders = vec![PathBuf::from("/usr/lib")];
        folders.extend(std::fs::read_dir("/usr/lib").ok()?.filter_map(|entry| Some(entry.ok()?.path())));
        let mut found = folders.into_iter().map(|folder| folder.join("tcl8.6"));
        found.find(|folder| folder.join("tclConfig.sh").exists())
    };
    // Its programs make SQLite's amalgamation.
    ensure("tclsh", "/dev/null", "tcl")?;
    if find().is_none() {
        apt_install("tcl-dev")?;
    }
    find().ok_or_else(|| "no tclConfig.sh of Tcl 8.6, though tcl-dev is installed".into())
}

/// A Python that has `apsw`, in a virtual environment of our own.
pub fn apsw(workspace: &Workspace) -> Result<PathBuf> {
    let folder = workspace.root().join("target/venv");
    let python = folder.join("bin/python3");
    let works = |python: &Path| {
        let mut command = Command::new(python);
        command.args(["-c", "import apsw"]).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        command.status().is_ok_and(|status| status.success())
    };
    if works(&python) {
        return Ok(python);
    }
    let create = || run(Command::new(PYTHON).args(["-m", "venv", "--clear"]).arg(&folder));
    create().or_else(|_| apt_install("python3-venv").and_then(|()| create()))?;
    run(Command::new(&python).args([
        "-m",
        "pip",
        "install",
        "--quiet",
        "--disable-pip-version-check",
        "apsw>=3.46",
    ]))?;
    if works(&python) { Ok(python) } else { Err("apsw was installed, but can't be imported".into()) }
}
