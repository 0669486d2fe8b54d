//! One file of tests in a process of its own.

use std::fs::{self, File};
use std::os::unix::fs::{MetadataExt, chown};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use crate::workspace::Result;

/// Whom the tests run as if we are root, because root may read what isn't readable.
const NOBODY: u32 = 65534;

/// Where files of tests are.
const FOLDERS: &[&str] =
    &["test", "ext/rtree", "ext/fts5/test", "ext/session", "ext/recover", "ext/expert", "ext/rbu"];

/// What is needed to run any of them.
pub struct Bench {
    /// `testfixture`.
    pub program: PathBuf,
    /// The folder with our Tcl scripts.
    pub scripts: PathBuf,
    /// SQLite's source.
    pub source: PathBuf,
    /// The loadable library.
    pub library: PathBuf,
    /// The folder to work in.
    pub folder: PathBuf,
    /// The folder for what the files print.
    pub output: PathBuf,
    /// How long a file may take.
    pub limit: Duration,
}

/// Whose VFS is the default.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Vfs {
    Stock,
    Tideline,
}

/// What became of a file.
#[derive(Default)]
pub struct Trial {
    /// How many tests it ran.
    pub tests: usize,
    /// Names of those that failed; in brackets, what isn't a test: see [`Trial::read`].
    pub failed: Vec<String>,
    pub seconds: f64,
}

impl Bench {
    /// Names of the files of one of SQLite's suites, as that has them; those outside `test` with their folders.
    pub fn suite(&self, name: &str) -> Result<Vec<String>> {
        let (_, output) = self.run(
            Vfs::Stock,
            "list",
            &self.scripts.join("list.tcl"),
            &[self.source.join("test").as_os_str().to_str().ok_or("the folder's name isn't UTF-8")?, name],
        )?;
        let names = output.lines().filter_map(|line| line.strip_prefix("FILE ")).map(str::to_owned);
        let mut names: Vec<String> = names.collect();
        names.sort();
        if names.is_empty() {
            Err(format!("no files in SQLite's suite {name}:\n{output}").into())
        } else {
            Ok(names)
        }
    }

    /// The version of Tideline, whose VFS must be the default.
    pub fn version(&self) -> Result<String> {
        let (_, output) = self.run(Vfs::Tideline, "default", &self.scripts.join("default.tcl"), &[])?;
        let version = output.lines().find_map(|line| line.strip_prefix("DEFAULT tideline "));
        version
            .map(str::to_owned)
            .ok_or_else(|| format!("Tideline isn't testfixture's default VFS:\n{output}").into())
    }

    /// Runs a file.
    pub fn trial(&self, vfs: Vfs, file: &str) -> Result<Trial> {
        let folders = FOLDERS.iter().map(|folder| self.source.join(folder).join(file));
        let path =
            folders.into_iter().find(|path| path.exists()).ok_or_else(|| format!("no test file {file}"))?;
        let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        let path = path.to_str().ok_or("the folder's name isn't UTF-8")?;
        let begun = Instant::now();
        let (status, output) =
            self.run(vfs, &name, &self.scripts.join("prelude.tcl"), &[path, "--testdir="])?;
        Ok(Trial { seconds: begun.elapsed().as_secs_f64(), ..Trial::read(status, &output) })
    }

    /// Runs a script of ours in an empty folder: how it ended (`None`: it took too long), and what it printed.
    fn run(
        &self,
        vfs: Vfs,
        name: &str,
        script: &Path,
        arguments: &[&str],
    ) -> Result<(Option<ExitStatus>, String)> {
        let root = fs::metadata("/proc/self").is_ok_and(|own| own.uid() == 0);
        let folder = self.folder.join("work");
        let _ = fs::remove_dir_all(&folder);
        fs::create_dir_all(&folder)?;
        let kind = if vfs == Vfs::Stock { "stock" } else { "tideline" };
        let log = self.output.join(format!("{name}.{kind}.txt"));
        let output = File::create(&log)?;
        let mut command = Command::new(&self.program);
        command.arg(script).args(arguments).current_dir(&folder);
        command.env_clear().env("PATH", "/usr/bin:/bin").env("LANG", "C.UTF-8").env("HOME", &folder);
        if vfs == Vfs::Tideline {
            command.env("TIDELINE_LIBRARY", &self.library);
        }
        command.stdin(Stdio::null()).stdout(output.try_clone()?).stderr(output).process_group(0);
        if root {
            chown(&folder, Some(NOBODY), Some(NOBODY))?;
            command.uid(NOBODY).gid(NOBODY);
        }
        let mut child = command.spawn().map_err(|e| format!("{}: {e}", self.program.display()))?;
        let end = Instant::now() + self.limit;
        let status = loop {
            match child.try_wait()? {
                Some(status) => break Some(status),
                None if Instant::now() > end => break None,
                None => std::thread::sleep(Duration::from_millis(5)),
            }
        };
        // Also what it left running, which is in its group.
        let _ = Command::new("kill")
            .args(["-KILL", "--", &format!("-{}", child.id())])
            .stderr(Stdio::null())
            .status();
        child.wait()?;
        Ok((status, String::from_utf8_lossy(&fs::read(&log)?).into_owned()))
    }
}

impl Trial {
    /// Did it end before its last test?
    pub fn ended_early(&self) -> bool {
        self.failed.iter().any(|name| matches!(name.as_str(), "(timeout)" | "(crash)" | "(stops)"))
    }

    /// Reads what `testfixture` printed. Beside names of tests there may be `(timeout)`, `(crash)` and `(stops)`, upon
    /// which the file's later tests didn't run; `(line:N)`: the command in that line ended in an error; `(leak)`:
    /// memory of SQLite's, or a file, stayed.
    fn read(status: Option<ExitStatus>, output: &str) -> Trial {
        let mut trial = Trial::default();
        let mut finished = false;
        for line in output.lines() {
            if let Some((_, rest)) = line.split_once(" errors out of ") {
                finished = true;
                trial.tests = rest.split(' ').next().and_then(|n| n.parse().ok()).unwrap_or(0);
            } else if let Some(names) = line.strip_prefix("!Failures on these tests:") {
                trial.failed = names.split_whitespace().map(str::to_owned).collect();
            } else if line.starts_with("Unfreed memory:") || line.ends_with(" files were left open") {
                trial.failed.push("(leak)".into());
            }
        }
        if !finished {
            // The names are only told at the end.
            trial.failed = failures(output);
            trial.tests = output.matches("... Ok").count() + trial.failed.len();
            trial.failed.push(
                match status {
                    None => "(timeout)",
                    Some(status) if status.signal().is_some() => "(crash)",
                    Some(_) => "(stops)",
                }
                .into(),
            );
        }
        trial.failed.dedup();
        trial
    }
}

/// Names of the tests that failed, from what was printed at each: `! NAME got: …`, or `Error: …` behind `NAME...`.
fn failures(output: &str) -> Vec<String> {
    let mut failed = Vec::new();
    let mut running = "";
    for line in output.lines() {
        if line.starts_with("Error: ") {
            failed.push(running.to_owned());
        } else if let Some((name, got)) = line.strip_prefix("! ").and_then(|line| line.split_once(' ')) {
            if got.trim_start().starts_with("got:") {
                failed.push(name.to_owned());
            }
        } else if let Some(name) = line.strip_suffix("...") {
            running = name;
        }
    }
    failed
}

#[cfg(test)]
mod tests {
    use super::Trial;

    #[test]
    fn reads_what_testfixture_prints() {
        let output = "a-1... Ok\na-2...\n! a-2 expected: [1]\n! a-2 got:      [2]\na-3...\nError: no\n";
        let stopped = Trial::read(Some(std::process::ExitStatus::default()), output);
        assert_eq!(
            (stopped.tests, stopped.failed),
            (3, vec!["a-2".into(), "a-3".into(), "(stops)".to_owned()])
        );
        assert_eq!(Trial::read(None, "").failed, ["(timeout)"]);
        let end =
            "2 errors out of 9 tests on x\n!Failures on these tests: a-1.2 a-3\nUnfreed memory: 9 bytes\n";
        let ended = Trial::read(Some(std::process::ExitStatus::default()), end);
        assert_eq!((ended.tests, ended.failed), (9, vec!["a-1.2".into(), "a-3".into(), "(leak)".to_owned()]));
    }
}
