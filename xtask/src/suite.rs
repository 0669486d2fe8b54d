//! `cargo xtask test`: every test that a machine can run.
//!
//! The packages are tested one at a time. The loadable library takes SQLite from its host, so a test of a crate above
//! `journal` needs a build with a SQLite of its own, and cargo unites the features of all packages that it is given:
//! `cargo test --workspace` compiles, and then finds no SQLite to call.

use std::path::Path;
use std::process::Command;

use crate::workspace::{Result, Verdict, Workspace, headline, run_tests};
use crate::{dist, tools};

/// One invocation of cargo.
struct Suite {
    package: &'static str,
    /// What the package is built with, beside `--package`.
    arguments: &'static [&'static str],
}

/// The tests of the crates, from below upwards; the black-box tests follow them.
const CRATES: &[Suite] = &[
    Suite { package: "tideline-journal", arguments: &[] },
    Suite { package: "tideline-sync", arguments: &[] },
    Suite { package: "tideline-vfs", arguments: &["--features", "loadable"] },
    Suite { package: "tideline-sql", arguments: &["--features", "bundled"] },
    Suite { package: "tideline-ext", arguments: &["--no-default-features", "--features", "bundled"] },
    Suite { package: "tideline-xtask", arguments: &[] },
];

/// Runs them all, the black-box tests last, and fails if any of them did.
pub fn run(workspace: &Workspace, quick: bool) -> Result<()> {
    let apsw = prerequisites(workspace)?;
    let parts = if quick { dist::Parts::SharedOnly } else { dist::Parts::All };
    dist::build(workspace, &workspace.dist(), parts)?;

    let mut verdicts = Vec::new();
    for suite in CRATES {
        headline(&format!("tests of {}", suite.package));
        let mut command = test(workspace, suite.package, quick);
        verdicts.push((suite.package, run_tests(command.args(suite.arguments))?));
    }
    headline("black-box tests");
    let mut command = black_box(workspace, apsw.as_deref().ok());
    if quick {
        command.env("TIDELINE_QUICK", "1");
    }
    verdicts.push(("tideline-tests", run_tests(&mut command)?));
    close(&verdicts, apsw.err().map(|error| format!("SKIPPED: tests in apsw: {error}")))
}

/// Runs the golden SQL scripts alone.
pub fn golden(workspace: &Workspace, update: bool) -> Result<()> {
    headline("golden SQL scripts");
    tools::shell()?;
    dist::build(workspace, &workspace.dist(), dist::Parts::SharedOnly)?;
    let mut command = black_box(workspace, None);
    command.args(["--test", "golden"]);
    if update {
        command.env("UPDATE_GOLDEN", "1");
    }
    close(&[("golden", run_tests(&mut command)?)], None)
}

/// `cargo test` of the black-box tests, against what `dist` left.
pub fn black_box(workspace: &Workspace, apsw: Option<&Path>) -> Command {
    let mut command = test(workspace, "tideline-tests", false);
    command.env("TIDELINE_DIST", workspace.dist());
    if let Some(python) = apsw {
        command.env("TIDELINE_APSW_PYTHON", python);
    }
    command
}

/// `cargo test` of one package, going on after a failure.
fn test(workspace: &Workspace, package: &str, quick: bool) -> Command {
    let mut command = workspace.cargo();
    command.args(["test", "--no-fail-fast", "--package", package]);
    if quick {
        command.arg("--tests");
    }
    command
}

/// The tools that the tests can't do without; the answer is the Python with `apsw`, which they can do without.
fn prerequisites(workspace: &Workspace) -> Result<Result<std::path::PathBuf>> {
    headline("prerequisites");
    tools::shell()?;
    tools::python()?;
    tools::c_compiler()?;
    let apsw = tools::apsw(workspace);
    match &apsw {
        Ok(_) => println!("the sqlite3 shell, Python, a C compiler and apsw are here"),
        Err(error) => println!("the sqlite3 shell, Python and a C compiler are here; no apsw: {error}"),
    }
    Ok(apsw)
}

/// Prints what the runners said at their ends, and fails if one of them did.
fn close(verdicts: &[(&str, Verdict)], skipped: Option<String>) -> Result<()> {
    headline("closing lines");
    for (package, verdict) in verdicts {
        println!("{package}: {}", if verdict.passed { "passed" } else { "FAILED" });
        for line in &verdict.closing {
            println!("  {line}");
        }
    }
    if let Some(line) = skipped {
        println!("{line}");
    }
    let failed: Vec<&str> = verdicts.iter().filter(|(_, v)| !v.passed).map(|(package, _)| *package).collect();
    if failed.is_empty() { Ok(()) } else { Err(format!("tests failed: {}", failed.join(", ")).into()) }
}
