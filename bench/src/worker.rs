//! Work in other processes: the same executable started again with a [`Task`], answering in JSON lines.
//!
//! An arm lives as long as its process. The two sides speak in turns: the parent sends a [`Command`] line, the child
//! answers with a [`Reply`] line. When the parent dies, the child is killed (Linux), or finds its input at an end.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, Command as Process, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::config::Settings;
use crate::engine::{Cache, Engine, Site, Sync, Tuning};
use crate::workload::{self, Arm, Bed};

/// First argument of a process that serves a task; the task, as JSON, is the second.
pub const TASK_ARGUMENT: &str = "__task";

/// What a process is started for.
#[derive(Serialize, Deserialize)]
pub enum Task {
    /// Does the library work? Answers with its version.
    Probe {
        /// With the library.
        settings: Settings,
    },
    /// An arm: answers at once when it is set up, then to every [`Command`].
    Arm {
        /// Its name.
        workload: String,
        /// Whose arm.
        engine: Engine,
        /// Where, and how much.
        bed: Bed,
    },
    /// One of several that write at once: answers as an arm does.
    Writer {
        /// To which database.
        site: Site,
        /// Which one of them.
        number: u64,
        /// For how long a round lasts.
        seconds: f64,
    },
    /// What a database takes in memory: answers with [`workload::memory::Growth`].
    Memory {
        /// Which database.
        site: Site,
        /// Of what.
        of: workload::memory::Of,
    },
    /// Open a database and read one row: answers with [`workload::open::Opened`].
    Open {
        /// Which database.
        site: Site,
        /// Which row.
        id: i64,
    },
}

/// What an arm can be asked.
#[derive(Serialize, Deserialize)]
enum Command {
    Round,
    Digest,
}

/// What a child answers.
#[derive(Serialize, Deserialize)]
enum Reply<T> {
    Done(T),
    Failed(String),
}

/// An arm in a process of its own.
pub struct Worker {
    child: Child,
    input: ChildStdin,
    output: Receiver<String>,
    timeout: Duration,
}

impl Worker {
    /// Starts the process and waits until the arm is set up.
    pub fn start(task: &Task, timeout: Duration) -> Result<Self> {
        let mut worker = Self::spawn(task, timeout)?;
        worker.receive::<()>().context("set up")?;
        Ok(worker)
    }

    /// One round: a value for each of the workload's metrics.
    pub fn round(&mut self) -> Result<Vec<f64>> {
        self.begin_round()?;
        self.end_round()
    }

    /// Starts a round, and doesn't wait: several can be at work at once.
    pub fn begin_round(&mut self) -> Result<()> {
        self.send(&Command::Round).context("round")
    }

    /// Waits for the round that was started.
    pub fn end_round(&mut self) -> Result<Vec<f64>> {
        // JSON has no NaN.
        let values: Vec<Option<f64>> = self.receive().context("round")?;
        Ok(values.into_iter().map(|value| value.unwrap_or(f64::NAN)).collect())
    }

    /// What the arm's database holds at the end, where it has one.
    pub fn digest(&mut self) -> Result<Option<String>> {
        self.send(&Command::Digest).and_then(|()| self.receive()).context("check at the end")
    }

    fn spawn(task: &Task, timeout: Duration) -> Result<Self> {
        let mut child = Process::new(std::env::current_exe()?)
            .args([TASK_ARGUMENT, &serde_json::to_string(task)?])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("start a process")?;
        let input = child.stdin.take().context("no stdin")?;
        let stdout = BufReader::new(child.stdout.take().context("no stdout")?);
        let (sender, output) = mpsc::channel();
        std::thread::spawn(move || {
            for line in stdout.lines().map_while(std::result::Result::ok) {
                if sender.send(line).is_err() {
                    break;
                }
            }
        });
        Ok(Self { child, input, output, timeout })
    }

    fn send(&mut self, command: &Command) -> Result<()> {
        let line = serde_json::to_string(command)? + "\n";
        self.input.write_all(line.as_bytes()).context("the process is gone")
    }

    fn receive<T: DeserializeOwned>(&mut self) -> Result<T> {
        match self.output.recv_timeout(self.timeout) {
            Ok(line) => {
                match serde_json::from_str(&line).with_context(|| format!("unexpected output: {line}"))? {
                    Reply::Done(value) => Ok(value),
                    Reply::Failed(text) => Err(anyhow!(text)),
                }
            }
            Err(RecvTimeoutError::Timeout) => bail!("no answer within {} seconds", self.timeout.as_secs()),
            Err(RecvTimeoutError::Disconnected) => bail!("the process ended: {}", self.child.wait()?),
        }
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        // Nothing is left to lose: the folder goes too.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A task with one answer.
pub fn ask<T: DeserializeOwned>(task: &Task, timeout: Duration) -> Result<T> {
    let mut worker = Worker::spawn(task, timeout)?;
    let answer = worker.receive()?;
    let status = worker.child.wait()?;
    if !status.success() {
        bail!("the process answered, and then ended: {status}");
    }
    Ok(answer)
}

/// The child's side: does the task that its arguments name.
pub fn serve() -> Result<()> {
    #[cfg(target_os = "linux")]
    nix::sys::prctl::set_pdeathsig(nix::sys::signal::Signal::SIGKILL)?;
    let task = std::env::args().nth(2).context("no task")?;
    match serde_json::from_str(&task)? {
        Task::Probe { settings } => answer(probe(settings)),
        Task::Open { site, id } => answer(workload::open::open_once(&site, id)),
        Task::Memory { site, of } => answer(workload::memory::grow(&site, of)),
        Task::Writer { site, number, seconds } => {
            serve_arm(workload::writers::Writer::arm(&site, number, seconds))
        }
        Task::Arm { workload, engine, bed } => serve_arm(make_arm(&workload, engine, &bed)),
    }
}

fn make_arm(name: &str, engine: Engine, bed: &Bed) -> Result<Box<dyn Arm>> {
    workload::all()
        .into_iter()
        .find(|workload| workload.name() == name)
        .ok_or_else(|| anyhow!("no workload {name}"))
        .and_then(|workload| workload.arm(bed, engine))
}

fn serve_arm(made: Result<Box<dyn Arm>>) -> Result<()> {
    let mut arm = match made {
        Ok(arm) => {
            answer(Ok(()))?;
            arm
        }
        Err(error) => return answer::<()>(Err(error)),
    };
    for line in std::io::stdin().lines() {
        match serde_json::from_str(&line?)? {
            Command::Round => answer(arm.round())?,
            Command::Digest => answer(arm.digest())?,
        }
    }
    Ok(())
}

fn answer<T: Serialize>(outcome: Result<T>) -> Result<()> {
    let reply = match outcome {
        Ok(value) => Reply::Done(value),
        Err(error) => Reply::Failed(format!("{error:#}")),
    };
    let mut stdout = std::io::stdout().lock();
    writeln!(stdout, "{}", serde_json::to_string(&reply)?)?;
    Ok(stdout.flush()?)
}

/// Writes and reads one row through Tideline.
fn probe(settings: Settings) -> Result<String> {
    let folder = tempfile::tempdir()?;
    let site = Site::new(Engine::Tideline, &folder.path().join("probe"), &settings)?;
    let connection = site.create(Tuning { sync: Sync::Normal, cache: Cache::Default })?;
    connection.execute_batch("CREATE TABLE t(x); INSERT INTO t VALUES(7)")?;
    let lsn: i64 = connection.query_row("SELECT tide_lsn() FROM t WHERE x = 7", [], |row| row.get(0))?;
    anyhow::ensure!(lsn > 0, "tide_lsn() is {lsn} after a commit: the database isn't Tideline's");
    Ok(connection.query_row("SELECT tide_version()", [], |row| row.get(0))?)
}
