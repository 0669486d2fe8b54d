//! Processes that tests start, talk to, and kill.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// After how long a process that says nothing is taken for hung.
pub fn patience() -> Duration {
    let seconds = std::env::var("TIDELINE_TEST_SECONDS").ok().and_then(|text| text.parse().ok());
    Duration::from_secs(seconds.unwrap_or(120))
}

/// What a process left.
#[derive(Debug)]
pub struct Output {
    /// How it ended.
    pub status: ExitStatus,
    /// Its standard output.
    pub stdout: String,
    /// Its standard error.
    pub stderr: String,
}

impl Output {
    /// Standard output of a process that must have ended well and without a complaint.
    #[track_caller]
    pub fn ok(&self) -> &str {
        assert!(self.status.success() && self.stderr.is_empty(), "it should have ended well: {self:#?}");
        &self.stdout
    }

    /// Standard error of a process that must have failed.
    #[track_caller]
    pub fn error(&self) -> &str {
        let failed = self.status.code().is_some_and(|code| code != 0);
        assert!(failed, "it should have failed: {self:#?}");
        &self.stderr
    }

    /// Standard output of a process that must have been killed.
    #[track_caller]
    pub fn killed(&self) -> &str {
        assert_eq!(
            self.status.signal(),
            Some(Signal::SIGKILL as i32),
            "it should have been killed: {self:#?}"
        );
        &self.stdout
    }
}

/// A running process. It is killed when it goes out of scope.
pub struct Process {
    child: Child,
    stdin: Option<ChildStdin>,
    stdout: Arc<Stream>,
    stderr: Arc<Stream>,
    readers: Vec<JoinHandle<()>>,
    /// Lines of standard output that were waited for.
    seen: usize,
}

/// What came out of a pipe so far.
#[derive(Default)]
struct Stream {
    state: Mutex<StreamState>,
    changed: Condvar,
}

#[derive(Default)]
struct StreamState {
    lines: Vec<String>,
    closed: bool,
}

impl Stream {
    fn lock(&self) -> MutexGuard<'_, StreamState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Collects lines until the pipe closes.
    fn collect(self: &Arc<Self>, pipe: impl Read + Send + 'static) -> JoinHandle<()> {
        let stream = Arc::clone(self);
        std::thread::spawn(move || {
            for line in BufReader::new(pipe).split(b'\n').map_while(std::io::Result::ok) {
                stream.lock().lines.push(String::from_utf8_lossy(&line).into_owned());
                stream.changed.notify_all();
            }
            stream.lock().closed = true;
            stream.changed.notify_all();
        })
    }

    fn text(&self) -> String {
        self.lock().lines.iter().map(|line| format!("{line}\n")).collect()
    }
}

impl Process {
    /// Starts it, with pipes at all three ends.
    pub fn start(command: &mut Command) -> Self {
        let pipes = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = pipes.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}"));
        let (stdout, stderr) = (Arc::<Stream>::default(), Arc::<Stream>::default());
        let readers = vec![
            stdout.collect(child.stdout.take().expect("its output")),
            stderr.collect(child.stderr.take().expect("its complaints")),
        ];
        let stdin = child.stdin.take();
        Self { child, stdin, stdout, stderr, readers, seen: 0 }
    }

    /// Runs it to its end with this input.
    pub fn run(command: &mut Command, input: &str) -> Output {
        let mut process = Self::start(command);
        process.send(input);
        process.finish()
    }

    /// Writes to its standard input. A process that has gone reads nothing; how it ended is asked elsewhere.
    pub fn send(&mut self, text: &str) {
        let stdin = self.stdin.as_mut().expect("an open standard input");
        match stdin.write_all(text.as_bytes()).and_then(|()| stdin.flush()) {
            Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => panic!("standard input: {error}"),
            _ => {}
        }
    }

    /// Waits for a line on standard output that begins with `start`, behind those already waited for.
    #[track_caller]
    pub fn wait_for(&mut self, start: &str) -> String {
        let deadline = Instant::now() + patience();
        let mut state = self.stdout.lock();
        loop {
            while self.seen < state.lines.len() {
                self.seen += 1;
                if state.lines[self.seen - 1].starts_with(start) {
                    return state.lines[self.seen - 1].clone();
                }
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if state.closed || left.is_zero() {
                let (said, complained) = (state.lines.join("\n"), self.stderr.text());
                panic!("no line {start:?} came; standard output:\n{said}\nstandard error:\n{complained}");
            }
            state = self.stdout.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Lines that it wrote on standard output so far.
    pub fn lines(&self) -> Vec<String> {
        self.stdout.lock().lines.clone()
    }

    /// Is it still running?
    pub fn running(&mut self) -> bool {
        self.child.try_wait().expect("its state").is_none()
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) {
        let pid = i32::try_from(self.child.id()).expect("a process id");
        kill(Pid::from_raw(pid), signal).expect("the signal sent");
    }

    /// `kill -9`, and waits until it is gone.
    pub fn kill(mut self) -> Output {
        self.child.kill().expect("the signal sent");
        self.finish_within(patience())
    }

    /// Closes its standard input and waits for its end.
    #[track_caller]
    pub fn finish(self) -> Output {
        self.finish_within(patience())
    }

    #[track_caller]
    fn finish_within(mut self, patience: Duration) -> Output {
        drop(self.stdin.take());
        let deadline = Instant::now() + patience;
        let status = loop {
            if let Some(status) = self.child.try_wait().expect("its state") {
                break status;
            }
            if Instant::now() > deadline {
                let (said, complained) = (self.stdout.text(), self.stderr.text());
                panic!("it hangs; standard output:\n{said}\nstandard error:\n{complained}");
            }
            std::thread::sleep(Duration::from_millis(2));
        };
        for reader in self.readers.drain(..) {
            reader.join().expect("a reader of its pipes");
        }
        Output { status, stdout: self.stdout.text(), stderr: self.stderr.text() }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            self.child.kill().expect("the signal sent");
            self.child.wait().expect("its end");
        }
    }
}
