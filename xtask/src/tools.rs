//! The tools of this machine that the chores need: found, or installed where that can be done without asking.

use std::fs;
use std::os::unix::fs::PermissionsExt;
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

/// Installs packages of this system, if it has apt and we may.
fn apt_install(packages: &[&str]) -> Result<()> {
    let names = packages.join(" ");
    if !answers("apt-get", "--version") {
        return Err(format!("please install {names}: this machine has no apt-get").into());
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
        return Err(format!("please install {names}: apt-get install {names}").into());
    }
    let install = [&["install", "--yes", "--no-install-recommends"], packages].concat();
    apt(&install).or_else(|_| apt(&["update"]).and_then(|()| apt(&install)))
}

/// Sees to it that `program` is there, from the package of that name.
fn ensure(program: &str, argument: &str, package: &str) -> Result<()> {
    if answers(program, argument) { Ok(()) } else { apt_install(&[package]) }
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
        apt_install(&["tcl-dev"])?;
    }
    find().ok_or_else(|| "no tclConfig.sh of Tcl 8.6, though tcl-dev is installed".into())
}

/// The parts of Ceph that a cluster for tests is made of.
pub fn ceph() -> Result<()> {
    let parts =
        [("ceph-mon", "ceph-mon"), ("ceph-osd", "ceph-osd"), ("radosgw", "radosgw"), ("ceph", "ceph-common")];
    let missing = parts.iter().filter(|(program, _)| !answers(program, "--version"));
    let packages: Vec<&str> = missing.map(|(_, package)| *package).collect();
    if packages.is_empty() { Ok(()) } else { apt_install(&packages) }
}

/// The program `s3s-fs`, built into a folder of ours.
pub fn s3s(workspace: &Workspace) -> Result<PathBuf> {
    let folder = workspace.root().join("target/s3s-fs");
    let program = folder.join("bin/s3s-fs");
    if !answers(&program, "--version") {
        let mut install = workspace.cargo();
        install.args(["install", "s3s-fs", "--version", "=0.14.1", "--locked", "--features", "binary"]);
        // Quickly built is all that it must be.
        run(install.args(["--debug", "--no-track", "--force", "--root"]).arg(&folder))?;
    }
    Ok(program)
}

/// A Python that has `apsw`.
pub fn apsw(workspace: &Workspace) -> Result<PathBuf> {
    python_with(&workspace.root().join("target/venv"), "apsw", "apsw>=3.46")
}

/// A Python that has moto, a stand-in for S3.
pub fn moto(workspace: &Workspace) -> Result<PathBuf> {
    python_with(&workspace.root().join("target/moto"), "moto.server", "moto[server]==5.2.5")
}

/// A Python that can import `module`, in an environment of our own.
fn python_with(folder: &Path, module: &str, requirement: &str) -> Result<PathBuf> {
    let python = folder.join("bin/python3");
    let works = || {
        let mut command = Command::new(&python);
        command.arg("-c").arg(format!("import {module}"));
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        command.status().is_ok_and(|status| status.success())
    };
    if works() {
        return Ok(python);
    }
    virtual_environment(folder, requirement).or_else(|error| {
        modules_beside(folder, requirement)
            .map_err(|later| format!("{error}; without an environment: {later}"))
    })?;
    if works() { Ok(python) } else { Err(format!("{module} was installed, but can't be imported").into()) }
}

/// What every `pip install` is told.
const PIP: &[&str] = &["-m", "pip", "install", "--quiet", "--disable-pip-version-check"];

fn virtual_environment(folder: &Path, requirement: &str) -> Result<()> {
    let create = || run(Command::new(PYTHON).args(["-m", "venv", "--clear"]).arg(folder));
    create().or_else(|_| apt_install(&["python3-venv"]).and_then(|()| create()))?;
    run(Command::new(folder.join("bin/python3")).args(PIP).arg(requirement))
}

/// Where environments can't be made: a folder of modules, and a script in the place of the Python that looks there.
fn modules_beside(folder: &Path, requirement: &str) -> Result<()> {
    let _ = fs::remove_dir_all(folder);
    let modules = folder.join("modules");
    run(Command::new(PYTHON).args(PIP).arg("--target").arg(&modules).arg(requirement))?;
    let python = folder.join("bin/python3");
    fs::create_dir(folder.join("bin"))?;
    let path = format!("{}${{PYTHONPATH:+:$PYTHONPATH}}", modules.display());
    fs::write(&python, format!("#!/bin/sh\nPYTHONPATH=\"{path}\" exec {PYTHON} \"$@\"\n"))?;
    Ok(fs::set_permissions(&python, fs::Permissions::from_mode(0o755))?)
}
