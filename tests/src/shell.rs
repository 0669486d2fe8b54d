//! The `sqlite3` shell of this system, and a stand-in for it on a SQLite that was compiled for the tests.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::bucket::Bucket;
use crate::library::against_stock;
use crate::process::{Output, Process};
use crate::pyhost::{PYTHON, at_python};
use crate::scratch::Scratch;

/// How the shell is started: in the test's folder, with the library loaded or without.
pub struct Shell<'a> {
    scratch: &'a Scratch,
    opens: Option<String>,
    loads: bool,
    bail: bool,
    /// Folder of the SQLite library that the stand-in runs on; `None` for the shell of this system.
    runs_on: Option<PathBuf>,
}

impl<'a> Shell<'a> {
    /// On the database of this name, through Tideline.
    pub fn new(scratch: &'a Scratch, name: &str) -> Self {
        Self { scratch, opens: Some(scratch.uri(name)), loads: true, bail: true, runs_on: None }
    }

    /// On this URI, the library loaded.
    pub fn at(scratch: &'a Scratch, uri: &str) -> Self {
        Self { scratch, opens: Some(uri.into()), loads: true, bail: true, runs_on: None }
    }

    /// On the database of this name as SQLite sees it, nothing loaded.
    pub fn stock(scratch: &'a Scratch, name: &str) -> Self {
        let path = scratch.path(name).display().to_string();
        Self { scratch, opens: Some(path), loads: false, bail: true, runs_on: None }
    }

    /// On nothing: the script loads and opens.
    pub fn bare(scratch: &'a Scratch) -> Self {
        Self { scratch, opens: None, loads: false, bail: true, runs_on: None }
    }

    /// Not the shell of this system, but the stand-in on the SQLite library in this folder.
    pub fn on(mut self, library: PathBuf) -> Self {
        self.runs_on = Some(library);
        self
    }

    /// Goes on after an error.
    pub fn going_on(mut self) -> Self {
        self.bail = false;
        self
    }

    /// Runs a script to its end, or to its first error.
    pub fn run(&self, script: &str) -> Output {
        let bail = if self.bail { " -bail" } else { "" };
        let mut command = self.command(&format!("-batch{bail}"));
        Process::run(&mut command, &(self.prelude() + script + "\n"))
    }

    /// Runs a script that must do well, and gives what it printed.
    #[track_caller]
    pub fn ok(&self, script: &str) -> String {
        self.run(script).ok().to_string()
    }

    /// Runs a script that must fail, and gives the complaint.
    #[track_caller]
    pub fn error(&self, script: &str) -> String {
        self.run(script).error().to_string()
    }

    /// Starts one to talk to.
    pub fn session(&self) -> Session {
        // What it prints and what it complains of come in order, line by line.
        let mut command = self.command("-batch 2>&1");
        let mut session = Session { process: Process::start(&mut command), asked: 0 };
        let greeting = session.sql(&self.prelude());
        assert_eq!(greeting, "", "it should have opened the database");
        session
    }

    /// The shell with these arguments.
    fn command(&self, arguments: &str) -> Command {
        let mut command = Command::new("sh");
        let shell = match &self.runs_on {
            None => "stdbuf -oL sqlite3".to_string(),
            Some(library) => {
                at_python(&mut command, Some(library));
                format!("{PYTHON} -u -B -m tide_shell")
            }
        };
        command.args(["-c", &format!("exec {shell} {arguments}")]);
        at_home(&mut command, self.scratch.folder());
        command
    }

    fn prelude(&self) -> String {
        let load = if self.loads && !against_stock() { ".load ./libtideline\n" } else { "" };
        let open = self.opens.as_ref().map_or(String::new(), |uri| format!(".open '{uri}'\n"));
        format!("{load}{open}")
    }
}

/// A shell that is talked to. Errors come with what it prints, and don't end it.
pub struct Session {
    process: Process,
    asked: u32,
}

impl Session {
    /// Has it run SQL or dot commands, and gives what it said.
    #[track_caller]
    pub fn sql(&mut self, sql: &str) -> String {
        self.start(sql);
        self.answer()
    }

    /// Has it begin with something, and doesn't wait.
    pub fn start(&mut self, sql: &str) {
        self.asked += 1;
        self.process.send(&format!("{sql}\n.print end-of-answer-{}\n", self.asked));
    }

    /// What it said to what was started last.
    #[track_caller]
    pub fn answer(&mut self) -> String {
        let end = format!("end-of-answer-{}", self.asked);
        let before = format!("end-of-answer-{}", self.asked - 1);
        self.process.wait_for(&end);
        let lines = self.process.lines();
        let from = lines.iter().position(|line| *line == before).map_or(0, |at| at + 1);
        let until = lines.iter().position(|line| *line == end).expect("the end of the answer");
        lines[from..until].iter().map(|line| format!("{line}\n")).collect()
    }

    /// The process, for signals.
    pub fn process(&self) -> &Process {
        &self.process
    }

    /// `kill -9`.
    pub fn kill(self) {
        self.process.kill().killed();
    }

    /// Lets it end by itself. Its exit status tells only whether any SQL failed, and the answers told that.
    #[track_caller]
    pub fn end(self) {
        let status = self.process.finish().status;
        assert!(status.code().is_some(), "it should have ended by itself: {status}");
    }
}

/// A host in the test's folder, which it takes for its user's home, so that nobody's settings count. What
/// `TIDELINE_HOST_PRELOAD` names is loaded into it before all else. If this process has a [`Bucket`], so has the host.
pub fn at_home<'c>(command: &'c mut Command, folder: &Path) -> &'c mut Command {
    if let Some(library) = std::env::var_os("TIDELINE_HOST_PRELOAD") {
        command.env("LD_PRELOAD", library);
    }
    if let Some(bucket) = Bucket::found() {
        command.envs(bucket.environment().iter().map(|(name, value)| (name, value)));
    }
    command.current_dir(folder).env("HOME", folder)
}
