//! What connections did, saw and were told, recorded in many processes and threads, and checked afterwards against every
//! rule of `tideline_tests::history`, while processes come and go, fork, are stopped and killed, and the journal is folded,
//! compacted and trimmed beneath long readers.

use std::process::Command;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use tideline_tests::history::{Done, REGISTERS, Transaction, check, parse};
use tideline_tests::{Dice, Output, Process, Scratch, Shell, bundled_stock};

/// Numbers of writers that a process may give out.
const ROOM: u32 = 1000;

/// What a process is: a role for each of its threads.
type Roles = &'static [&'static str];

/// Those that work at the same time.
const PROCESSES: [Roles; 5] = [
    &["write", "write", "read"],
    &["write", "hold"],
    &["fork"],
    &["write", "read", "fold"],
    &["hold", "write"],
];

/// The processes that record, and what they have been through.
struct Play {
    scratch: Scratch,
    dice: Dice,
    processes: Vec<(Roles, Process)>,
    /// Number of the next writer.
    next: u32,
    /// LSN of the database as it was set up.
    first: u64,
    kills: u32,
    stops: u32,
    forks: usize,
    rests: u32,
}

impl Play {
    fn new(test: &str) -> Self {
        let scratch = Scratch::new();
        let setup = format!(
            "CREATE TABLE register(id INTEGER PRIMARY KEY, value INTEGER, writer INTEGER, seq INTEGER, pad BLOB);
             CREATE TABLE done(lsn INTEGER PRIMARY KEY, writer INTEGER, seq INTEGER);
             CREATE TABLE ballast(id INTEGER PRIMARY KEY, v BLOB);
             INSERT INTO register SELECT value, 0, 0, 0, zeroblob(600) FROM generate_series(0, {});
             INSERT INTO ballast SELECT value, randomblob(3000) FROM generate_series(1, 200);
             SELECT tide_lsn();",
            REGISTERS - 1
        );
        let first = Shell::new(&scratch, "a.db").ok(&setup).trim().parse().expect("a number");
        let dice = Dice::new(test);
        Self { scratch, dice, processes: Vec::new(), next: 1, first, kills: 0, stops: 0, forks: 0, rests: 0 }
    }

    fn add(&mut self, roles: Roles) {
        let mut command = Command::new(env!("CARGO_BIN_EXE_recorder"));
        command.args([
            &self.scratch.uri("a.db"),
            &self.next.to_string(),
            &self.dice.below(u32::MAX).to_string(),
        ]);
        command.args(roles).current_dir(self.scratch.folder());
        self.next += ROOM;
        self.processes.push((roles, Process::start(&mut command)));
    }

    /// Takes leave of a process that was killed, or has come to its end.
    #[track_caller]
    fn gone(&mut self, roles: Roles, output: &Output) {
        let code = output.status.code();
        assert!(output.stderr.is_empty() && code.is_none_or(|code| code == 0), "{roles:?}: {output:#?}");
        self.forks += output.stdout.lines().filter(|line| *line == "forked").count();
    }

    fn kill(&mut self, at: usize) {
        let (roles, process) = self.processes.swap_remove(at);
        let output = process.kill();
        self.gone(roles, &output);
        self.kills += 1;
    }

    /// Lets all come to their ends, and the database to rest.
    fn rest(&mut self) {
        self.scratch.write("stop", "");
        for (roles, process) in std::mem::take(&mut self.processes) {
            let output = process.finish();
            self.gone(roles, &output);
        }
        std::fs::remove_file(self.scratch.path("stop")).expect("the file removed");
        self.rests += 1;
    }

    /// Kills, stops and replaces processes at random for this long.
    fn disturb(&mut self, duration: Duration) {
        let end = Instant::now() + duration;
        while Instant::now() < end {
            for roles in PROCESSES {
                if !self.processes.iter().any(|(there, _)| *there == roles) {
                    self.add(roles);
                }
            }
            std::thread::sleep(Duration::from_millis((10 + self.dice.below(250)).into()));
            match self.dice.below(16) {
                0 => self.rest(),
                1 => {
                    for (_, process) in &self.processes {
                        process.signal(Signal::SIGKILL);
                    }
                    while !self.processes.is_empty() {
                        self.kill(0);
                    }
                }
                2..7 => {
                    let at = self.dice.pick(self.processes.len());
                    self.kill(at);
                }
                7..11 => {
                    let at = self.dice.pick(self.processes.len());
                    let process = &self.processes[at].1;
                    process.signal(Signal::SIGSTOP);
                    std::thread::sleep(Duration::from_millis(self.dice.below(150).into()));
                    process.signal(Signal::SIGCONT);
                    self.stops += 1;
                }
                _ => {}
            }
            // Those that have had enough.
            for at in (0..self.processes.len()).rev() {
                if !self.processes[at].1.running() {
                    let (roles, process) = self.processes.swap_remove(at);
                    let output = process.finish();
                    self.gone(roles, &output);
                }
            }
        }
        self.rest();
    }

    /// Checks what was recorded against what is there.
    fn audit(&self) {
        let db = Shell::new(&self.scratch, "a.db");
        let head: u64 = db.ok("SELECT tide_lsn();").trim().parse().expect("a number");
        assert_eq!(db.ok("SELECT * FROM tide_verify;"), "");
        let stock = bundled_stock(&self.scratch, "a.db");
        let sound: String =
            stock.query_row("PRAGMA integrity_check", [], |row| row.get(0)).expect("a plain database");
        assert_eq!(sound, "ok");
        let mut statement = stock.prepare("SELECT lsn, writer, seq FROM done").expect("the table");
        let done: Vec<Done> = statement
            .query_map([], |row| {
                Ok(Done { lsn: row.get::<_, i64>(0)?.cast_unsigned(), writer: row.get(1)?, seq: row.get(2)? })
            })
            .and_then(Iterator::collect)
            .expect("its rows");
        assert_eq!(head, self.first + done.len() as u64, "an LSN for each commit, and no other");
        let tally = check(&self.transactions(), &done, self.first).unwrap_or_else(|violations| {
            let lines: Vec<String> = violations.iter().take(10).map(ToString::to_string).collect();
            panic!("{} violations: {}", violations.len(), lines.join("\n"));
        });
        assert!(tally.commits > 0 && tally.reads > 0, "nobody did anything: {tally:?}");
        println!(
            "tried: transactions={} reads={} commits={} unacknowledged={} kills={} stops={} forks={} rests={}",
            tally.transactions,
            tally.reads,
            tally.commits,
            tally.unacknowledged,
            self.kills,
            self.stops,
            self.forks,
            self.rests
        );
    }

    fn transactions(&self) -> Vec<Transaction> {
        let mut all = Vec::new();
        for entry in std::fs::read_dir(self.scratch.folder()).expect("the folder") {
            let name = entry.expect("an entry").file_name().to_string_lossy().into_owned();
            if let Some(writer) = name.strip_prefix("history-") {
                let text = String::from_utf8(self.scratch.read(&name)).expect("text");
                all.extend(parse(writer.parse().expect("a number"), &text));
            }
        }
        all
    }
}

#[test]
fn what_many_did_is_explained_by_an_order_of_whole_commits() {
    let mut play = Play::new("histories");
    let seconds = if std::env::var_os("TIDELINE_QUICK").is_some() { 4 } else { 12 };
    play.disturb(Duration::from_secs(seconds));
    play.audit();
}

/// `cargo xtask soak histories`.
#[test]
#[ignore = "it takes as long as it is told to"]
fn soak() {
    let seconds =
        std::env::var("TIDELINE_SOAK_SECONDS").ok().and_then(|text| text.parse().ok()).unwrap_or(60);
    let mut play = Play::new("histories");
    play.disturb(Duration::from_secs(seconds));
    play.audit();
}
