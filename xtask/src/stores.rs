//! `cargo xtask stores`: object stores that speak S3, each for as long as one command runs.
//!
//! | store | what it is | where it is from |
//! |---|---|---|
//! | `moto` | one process, in memory; the tests start it by themselves | PyPI |
//! | `ceph` | a cluster with two gateways to the same objects | Debian |
//! | `s3s` | lies: of several who create an object at once, many are told that they did | Rust's registry |
//!
//! The scripts in `tests/stores` start them, and say how the command finds them.

use std::ffi::OsString;
use std::io::{BufRead, BufReader};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::{Child, Command, ExitCode, Stdio};

use clap::{Args, ValueEnum};
use serde_json::{Map, Value};

use crate::tools;
use crate::workspace::{Result, Workspace, headline};

/// Which one, and for whom.
#[derive(Args)]
pub struct Arguments {
    /// The store
    store: Store,
    /// What to run. It finds the store's name in TIDELINE_S3_STORE, and the store in TIDELINE_S3_ENDPOINT,
    /// TIDELINE_S3_ENDPOINT_2 (ceph's other gateway), TIDELINE_S3_BUCKET, AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and AWS_REGION
    #[arg(last = true, required = true, value_name = "COMMAND")]
    command: Vec<OsString>,
}

/// Those that there are.
#[derive(Clone, Copy, ValueEnum)]
pub enum Store {
    /// In memory, one process
    Moto,
    /// A cluster with two gateways
    Ceph,
    /// s3s-fs, which lets several create the same object
    S3s,
}

/// Runs the command beside the store, and ends as the command did.
pub fn run(workspace: &Workspace, arguments: &Arguments) -> Result<ExitCode> {
    headline("cargo xtask stores");
    let running = Running::start(&mut arguments.store.script(workspace)?)?;
    for (name, value) in &running.environment {
        println!("{name}={}", value.as_str().unwrap_or_default());
    }
    let [program, words @ ..] = arguments.command.as_slice() else { return Err("no command".into()) };
    let mut command = Command::new(program);
    command.args(words);
    // A session that somebody has with the real S3 doesn't belong to these keys, nor a gateway to this store.
    for name in ["AWS_SESSION_TOKEN", "AWS_PROFILE", "TIDELINE_S3_ENDPOINT_2"] {
        command.env_remove(name);
    }
    for (name, value) in &running.environment {
        command.env(name, value.as_str().unwrap_or_default());
    }
    let status = command.status().map_err(|error| format!("{}: {error}", program.display()))?;
    drop(running);
    // A signal is told as shells tell it.
    let code = status.code().or_else(|| status.signal().map(|signal| 128 + signal));
    Ok(code.and_then(|code| u8::try_from(code).ok()).map_or(ExitCode::FAILURE, ExitCode::from))
}

impl Store {
    /// What starts it, once all that it needs is here.
    fn script(self, workspace: &Workspace) -> Result<Command> {
        let script = |python: &Path, name: &str| {
            let mut command = Command::new(python);
            command.arg("-B").arg(workspace.root().join("tests/stores").join(name));
            command
        };
        match self {
            Store::Moto => Ok(script(&tools::moto(workspace)?, "serve_moto.py")),
            Store::Ceph => {
                tools::python()?;
                tools::ceph()?;
                Ok(script(tools::PYTHON.as_ref(), "serve_ceph.py"))
            }
            Store::S3s => {
                tools::python()?;
                let program = tools::s3s(workspace)?;
                let mut command = script(tools::PYTHON.as_ref(), "serve_s3s.py");
                command.arg(program);
                Ok(command)
            }
        }
    }
}

/// A store that runs. It goes with its standard input, which the system closes if we are killed.
struct Running {
    script: Child,
    environment: Map<String, Value>,
}

impl Running {
    fn start(command: &mut Command) -> Result<Running> {
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        // Ctrl-C is for the command; the store goes after it.
        let mut script = command.process_group(0).spawn()?;
        let stdout = script.stdout.take().ok_or("no pipe from the store")?;
        let mut running = Running { script, environment: Map::new() };
        let mut line = String::new();
        BufReader::new(stdout).read_line(&mut line)?;
        if line.is_empty() {
            return Err("the store didn't start; what is above says why".into());
        }
        running.environment = serde_json::from_str(&line)?;
        Ok(running)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        drop(self.script.stdin.take());
        // One that didn't end well has said so.
        let _ = self.script.wait();
    }
}
