//! `cargo xtask ci`: what `.ci/run` does, from format to fuzz targets.

use std::time::Instant;

use crate::workspace::{self, Result, Workspace, headline};
use crate::{fuzz, sqlite_tests, suite, symbols};

/// The packages, in groups that may be built together: those that are a loadable extension, and those that bring a
/// SQLite of their own.
const GROUPS: &[&[&str]] = &[
    &["--workspace", "--exclude", "tideline-tests", "--exclude", "tideline-bench"],
    &["--package", "tideline-tests"],
    &["--package", "tideline-bench"],
];

/// Runs every step, those after a failure too, and fails if one of them did.
pub fn run(workspace: &Workspace) -> Result<()> {
    let start = Instant::now();
    let mut report = Vec::new();
    let mut failed = false;
    let mut step = |name: &str, outcome: Result<Option<String>>| {
        report.push(match outcome {
            Ok(None) => format!("ok       {name}"),
            Ok(Some(reason)) => format!("SKIPPED  {name}: {reason}"),
            Err(error) => {
                failed = true;
                format!("FAILED   {name}: {error}")
            }
        });
    };
    step("format", cargo(workspace, &["fmt", "--all", "--check"]));
    for group in GROUPS {
        let lints = ["--all-targets", "--", "--deny", "warnings"];
        step("clippy", cargo(workspace, &[&["clippy"], *group, &lints].concat()));
    }
    step("documentation", documentation(workspace));
    step("tests, the golden scripts among them", suite::run(workspace, false).map(|()| None));
    step("symbols of the shared library", symbols::check(&workspace.dist()).map(|()| None));
    step("SQLite's own tests, the quick ones", sqlite_tests::smoke(workspace));
    step("fuzz targets", fuzz::smoke(workspace));

    headline(&format!("cargo xtask ci: {} minutes", start.elapsed().as_secs().div_ceil(60)));
    for line in &report {
        println!("{line}");
    }
    if failed { Err("not all of it is well".into()) } else { Ok(()) }
}

/// One invocation of cargo, as a step.
fn cargo(workspace: &Workspace, arguments: &[&str]) -> Result<Option<String>> {
    headline(&format!("cargo {}", arguments.join(" ")));
    workspace::run(workspace.cargo().args(arguments))?;
    Ok(None)
}

fn documentation(workspace: &Workspace) -> Result<Option<String>> {
    headline("cargo doc");
    for group in GROUPS {
        let mut command = workspace.cargo();
        command.args(["doc", "--no-deps"]).args(*group).env("RUSTDOCFLAGS", "--deny warnings");
        workspace::run(&mut command)?;
    }
    Ok(None)
}
