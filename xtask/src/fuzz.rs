//! The fuzz targets: built, and each run for a short while.

use std::fs;
use std::process::Command;

use crate::workspace::{Result, Workspace, headline, output, run};

/// How long each target runs.
const SECONDS: u32 = 15;

/// Builds and runs them. `Ok(Some(reason))` says why they were left out.
pub fn smoke(workspace: &Workspace) -> Result<Option<String>> {
    headline("fuzz targets");
    if !workspace.root().join("fuzz/Cargo.toml").exists() {
        return Ok(Some("there are no fuzz targets yet".into()));
    }
    if let Err(error) = nightly() {
        return Ok(Some(format!("no nightly toolchain: {error}")));
    }
    if let Err(error) = cargo_fuzz() {
        return Ok(Some(format!("no cargo-fuzz: {error}")));
    }
    run(&mut fuzz(workspace, &["build"]))?;
    let targets = output(&mut fuzz(workspace, &["list"]))?;
    let limit = format!("-max_total_time={SECONDS}");
    for target in targets.lines().filter(|line| !line.is_empty()) {
        // What is found goes into the first; the seeds are only read.
        let corpus = workspace.root().join("fuzz/corpus").join(target);
        let seeds = workspace.root().join("fuzz/seeds").join(target);
        fs::create_dir_all(&corpus)?;
        let mut command = fuzz(workspace, &["run", target]);
        command.args([&corpus, &seeds]).args(["--", &limit, "-rss_limit_mb=2048"]);
        run(&mut command)?;
    }
    Ok(None)
}

/// `cargo fuzz`, which needs a nightly compiler.
fn fuzz(workspace: &Workspace, arguments: &[&str]) -> Command {
    let mut command = Command::new("cargo");
    command.current_dir(workspace.root()).args(["+nightly", "fuzz"]).args(arguments);
    // Of the cargo that runs us: it would win over the toolchain that is asked for.
    command.env_remove("RUSTUP_TOOLCHAIN").env_remove("CARGO").env_remove("RUSTC");
    command
}

fn nightly() -> Result<()> {
    let there = output(Command::new("rustup").args(["run", "nightly", "rustc", "--version"]));
    there.map(drop).or_else(|_| {
        run(Command::new("rustup").args(["toolchain", "install", "nightly", "--profile", "minimal"]))
    })
}

fn cargo_fuzz() -> Result<()> {
    let there = output(Command::new("cargo").args(["fuzz", "--version"]));
    there.map(drop).or_else(|_| run(Command::new("cargo").args(["install", "cargo-fuzz", "--locked"])))
}
