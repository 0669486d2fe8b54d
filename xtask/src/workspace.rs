//! Where things are, and how a command of ours is run.

use std::error::Error;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// What a chore answers: nothing, or the reason that it failed, for a person to read.
pub type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// The folders that the chores work in.
pub struct Workspace {
    root: PathBuf,
    target: PathBuf,
    dist: PathBuf,
}

impl Workspace {
    /// The workspace that this program was built in; it becomes the current folder.
    pub fn find() -> Result<Self> {
        let root =
            Path::new(env!("CARGO_MANIFEST_DIR")).parent().ok_or("no folder above xtask")?.to_path_buf();
        let absolute = |variable: &str| -> Result<Option<PathBuf>> {
            Ok(std::env::var_os(variable).map(std::path::absolute).transpose()?)
        };
        let target = absolute("CARGO_TARGET_DIR")?.unwrap_or_else(|| root.join("target"));
        let dist = absolute("TIDELINE_DIST")?.unwrap_or_else(|| root.join("target/dist"));
        std::env::set_current_dir(&root)?;
        Ok(Self { root, target, dist })
    }

    /// The folder of the root `Cargo.toml`.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Where cargo builds.
    pub fn target(&self) -> &Path {
        &self.target
    }

    /// Where `cargo xtask dist` leaves what a user takes away.
    pub fn dist(&self) -> PathBuf {
        self.dist.clone()
    }

    /// Our own cargo, in the root.
    pub fn cargo(&self) -> Command {
        let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        command.current_dir(&self.root);
        command
    }
}

/// Prints a line that stands out between the output of the tools.
pub fn headline(text: &str) {
    println!("\n== {text}");
}

/// The command as a person would type it.
fn shown(command: &Command) -> String {
    let program = Path::new(command.get_program()).file_name().unwrap_or(command.get_program());
    let words = std::iter::once(program).chain(command.get_args());
    words.map(|word| word.to_string_lossy().into_owned()).collect::<Vec<_>>().join(" ")
}

/// Runs a command, its output going where ours goes.
pub fn run(command: &mut Command) -> Result<()> {
    println!("$ {}", shown(command));
    let status = command.stdin(Stdio::null()).status().map_err(|e| format!("{}: {e}", shown(command)))?;
    if status.success() { Ok(()) } else { Err(format!("{}: {status}", shown(command)).into()) }
}

/// Runs a command that should succeed, and gives what it printed.
pub fn output(command: &mut Command) -> Result<String> {
    let output = command.stdin(Stdio::null()).output().map_err(|e| format!("{}: {e}", shown(command)))?;
    if output.status.success() {
        Ok(String::from_utf8(output.stdout)?)
    } else {
        let error = String::from_utf8_lossy(&output.stderr);
        Err(format!("{}: {}\n{}", shown(command), output.status, error.trim_end()).into())
    }
}

/// What each panic in the output of a program says, which is in the line behind its place.
pub fn panics(text: &str) -> impl Iterator<Item = &str> {
    let behind = text.lines().zip(text.lines().skip(1));
    behind.filter(|(place, _)| place.contains("panicked at")).map(|(_, told)| told)
}

/// What a test runner said.
pub struct Verdict {
    /// Did it end well?
    pub passed: bool,
    /// Its closing lines (`test result: …`), and those of tests that were skipped for want of a tool.
    pub closing: Vec<String>,
}

/// Runs a test runner, showing its output as it comes and keeping what closes it.
pub fn run_tests(command: &mut Command) -> Result<Verdict> {
    println!("$ {}", shown(command));
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn()?;
    let stdout = child.stdout.take().ok_or("no pipe from the test runner")?;
    let mut closing = Vec::new();
    for line in BufReader::new(stdout).split(b'\n') {
        let line = String::from_utf8_lossy(&line?).into_owned();
        writeln!(std::io::stdout(), "{line}")?;
        let telling = line.starts_with("test result: ") && !line.contains(" 0 passed; 0 failed; 0 ignored");
        if telling || line.starts_with("SKIPPED") {
            closing.push(line);
        }
    }
    Ok(Verdict { passed: child.wait()?.success(), closing })
}
