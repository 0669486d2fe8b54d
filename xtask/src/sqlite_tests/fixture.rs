//! SQLite's `testfixture`: a Tcl interpreter with SQLite and its test commands in it, and a hook of ours.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::tools;
use crate::workspace::{Result, Workspace, run};

/// The two ways in which it is built.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Variant {
    /// As SQLite's own makefile has it.
    Plain,
    /// With SQLITE_SECURE_DELETE, as Debian's library has it: the pager then writes pages that it otherwise leaves out.
    SecureDelete,
}

impl Variant {
    /// Name of its folder.
    pub fn name(self) -> &'static str {
        match self {
            Variant::Plain => "plain",
            Variant::SecureDelete => "secure",
        }
    }

    /// How it is called in a text.
    pub fn title(self) -> &'static str {
        match self {
            Variant::Plain => "Without SECURE_DELETE",
            Variant::SecureDelete => "With SECURE_DELETE",
        }
    }
}

/// Builds it in `target/sqlite-tests`, unless it is there.
pub fn build(workspace: &Workspace, source: &Path, variant: Variant) -> Result<PathBuf> {
    tools::c_compiler()?;
    tools::make()?;
    let tcl = tools::tcl()?;
    let folder = workspace.root().join("target/sqlite-tests").join(variant.name());
    let program = folder.join("testfixture");
    let hook = workspace.root().join("tests/sqlite/init.c");
    // make doesn't know of the hook.
    let built = |file: &Path| fs::metadata(file).and_then(|found| found.modified());
    if built(&program).is_ok_and(|program| built(&hook).is_ok_and(|hook| hook < program)) {
        return Ok(program);
    }
    let _ = fs::remove_file(&program);
    fs::create_dir_all(&folder)?;
    if !folder.join("Makefile").exists() {
        let mut configure = Command::new(source.join("configure"));
        configure.current_dir(&folder).args(["--quiet", "--disable-static", "--enable-all"]);
        run(configure.arg(format!("--with-tcl={}", tcl.display())))?;
    }
    let mut options = "-DSQLITE_EXTRA_INIT=tideline_init -DSQLITE_ENABLE_UNLOCK_NOTIFY=1".to_owned();
    if variant == Variant::SecureDelete {
        options += " -DSQLITE_SECURE_DELETE=1";
    }
    // Its makefile has no other place for a source of ours than the libraries.
    let makefile = fs::read_to_string(folder.join("Makefile"))?;
    let libraries = makefile.lines().find_map(|line| line.strip_prefix("TLIBS ="));
    let libraries = libraries.ok_or("SQLite's makefile has no TLIBS")?;
    let log = folder.join("make.log");
    println!(
        "building testfixture, {}; what make says is in {}",
        variant.title().to_lowercase(),
        log.display()
    );
    let mut make = Command::new("make");
    make.current_dir(&folder).args(["--silent", "testfixture"]).stdout(fs::File::create(&log)?);
    run(make.arg(format!("OPTS={options}")).arg(format!("TLIBS={} {libraries}", hook.display())))?;
    Ok(program)
}
