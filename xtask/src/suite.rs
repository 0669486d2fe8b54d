//! `cargo xtask test`: every test that a machine can run.
//!
//! The packages are tested one at a time. The loadable library takes SQLite from its host, so a test of a crate above
//! `journal` needs a build with a SQLite of its own, and cargo unites the features of all packages that it is given:
//! `cargo test --workspace` compiles, and then finds no SQLite to call.

use std::process::Command;

use crate::optional::{self, Optional};
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
    let optional = prerequisites(workspace)?;
    let parts = if quick { dist::Parts::SharedOnly } else { dist::Parts::All };
    dist::build(workspace, &workspace.dist(), parts)?;

    let mut verdicts = Vec::new();
    for suite in CRATES {
        headline(&format!("tests of {}", suite.package));
        let mut command = test(workspace, suite.package, quick);
        verdicts.push((suite.package, run_tests(command.args(suite.arguments))?));
    }
    headline("black-box tests");
    let mut command = black_box(workspace);
    optional.iter().for_each(|optional| optional.give(&mut command));
    if quick {
        command.env("TIDELINE_QUICK", "1");
    }
    verdicts.push(("tideline-tests", run_tests(&mut command)?));
    close(&verdicts, &optional)
}

/// Runs the golden SQL scripts alone.
pub fn golden(workspace: &Workspace, update: bool) -> Result<()> {
    headline("golden SQL scripts");
    tools::shell()?;
    dist::build(workspace, &workspace.dist(), dist::Parts::SharedOnly)?;
    let mut command = black_box(workspace);
    command.args(["--test", "golden"]);
    if update {
        command.env("UPDATE_GOLDEN", "1");
    }
    close(&[("golden", run_tests(&mut command)?)], &[])
}

/// `cargo test` of the black-box tests, against what `dist` left.
pub fn black_box(workspace: &Workspace) -> Command {
    let mut command = test(workspace, "tideline-tests", false);
    command.env("TIDELINE_DIST", workspace.dist());
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

/// The tools that the tests can't do without; the answer has those that they can do without.
fn prerequisites(workspace: &Workspace) -> Result<[Optional; 2]> {
    headline("prerequisites");
    tools::shell()?;
    tools::python()?;
    tools::c_compiler()?;
    println!("the sqlite3 shell, Python and a C compiler are here");
    let optional = optional::all(workspace);
    optional.iter().for_each(|optional| println!("{}", optional.line()));
    Ok(optional)
}

/// Prints what the runners said at their ends, and fails if one of them did.
fn close(verdicts: &[(&str, Verdict)], optional: &[Optional]) -> Result<()> {
    headline("closing lines");
    for (package, verdict) in verdicts {
        println!("{package}: {}", if verdict.passed { "passed" } else { "FAILED" });
        for line in &verdict.closing {
            println!("  {line}");
        }
    }
    optional.iter().filter_map(Optional::left_out).for_each(|line| println!("{line}"));
    let failed: Vec<&str> = verdicts.iter().filter(|(_, v)| !v.passed).map(|(package, _)| *package).collect();
    if failed.is_empty() { Ok(()) } else { Err(format!("tests failed: {}", failed.join(", ")).into()) }
}
