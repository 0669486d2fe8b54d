//! The fuzz targets: built, and each run for a short while, or for longer by `cargo xtask soak fuzz`.

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::workspace::{Result, Workspace, headline, output, run};

/// How many inputs each target gets in CI: the seeds, and what is made of them in the same way each time. Looking for
/// what nobody has seen yet is what `cargo xtask soak fuzz` is for.
const SHORT: u32 = 1000;

/// Builds and runs them. `Ok(Some(reason))` says why they were left out.
pub fn smoke(workspace: &Workspace) -> Result<Option<String>> {
    headline("fuzz targets");
    if !workspace.root().join("fuzz/Cargo.toml").exists() {
        return Ok(Some("there are no fuzz targets yet".into()));
    }
    if let Err(error) = tools() {
        return Ok(Some(error.to_string()));
    }
    for target in build(workspace)? {
        // Nothing of an earlier run, so that each is like the others.
        let corpus = workspace.root().join("target/fuzz-smoke").join(&target);
        if corpus.exists() {
            fs::remove_dir_all(&corpus)?;
        }
        let limits = [format!("-runs={SHORT}"), "-seed=1".to_owned()];
        run(&mut target_on(workspace, &target, &corpus, &limits)?)?;
    }
    Ok(None)
}

/// What building and running them takes.
pub fn tools() -> Result<()> {
    nightly().map_err(|error| format!("no nightly toolchain: {error}"))?;
    cargo_fuzz().map_err(|error| format!("no cargo-fuzz: {error}").into())
}

/// Builds them, and says which there are.
pub fn build(workspace: &Workspace) -> Result<Vec<String>> {
    run(&mut fuzz(workspace, &["build"]))?;
    let targets = output(&mut fuzz(workspace, &["list"]))?;
    Ok(targets.lines().filter(|line| !line.is_empty()).map(str::to_owned).collect())
}

/// One of them, on its corpus and its seeds, for so many seconds.
pub fn target_for(workspace: &Workspace, target: &str, seconds: u32) -> Result<Command> {
    let corpus = workspace.root().join("fuzz/corpus").join(target);
    target_on(workspace, target, &corpus, &[format!("-max_total_time={seconds}")])
}

/// One of them, within limits. What is found goes into `corpus`; the seeds are only read.
fn target_on(workspace: &Workspace, target: &str, corpus: &Path, limits: &[String]) -> Result<Command> {
    let seeds = workspace.root().join("fuzz/seeds").join(target);
    fs::create_dir_all(corpus)?;
    let mut command = fuzz(workspace, &["run", target]);
    command.args([corpus, &seeds]).arg("--").args(limits);
    command.arg("-rss_limit_mb=2048");
    Ok(command)
}

/// `cargo fuzz`, which needs a nightly compiler.
fn fuzz(workspace: &Workspace, arguments: &[&str]) -> Command {
    let mut command = Command::new("cargo");
    command.current_dir(workspace.root()).args(["+nightly", "fuzz"]).args(arguments);
    // Of the cargo that runs us: it would win over the toolchain that is asked for.
    command.env_remove("RUSTUP_TOOLCHAIN").env_remove("CARGO").env_remove("RUSTC");
    command
}

/// The nightly toolchain, installed where it isn't.
pub fn nightly() -> Result<()> {
    let there = output(Command::new("rustup").args(["run", "nightly", "rustc", "--version"]));
    there.map(drop).or_else(|_| {
        run(Command::new("rustup").args(["toolchain", "install", "nightly", "--profile", "minimal"]))
    })
}

fn cargo_fuzz() -> Result<()> {
    let there = output(Command::new("cargo").args(["fuzz", "--version"]));
    there.map(drop).or_else(|_| run(Command::new("cargo").args(["install", "cargo-fuzz", "--locked"])))
}
