//! Processes in three hosts on one database, killed and stopped at random.
//!
//! They work on a bank: accounts whose balances always sum up to the same, a row in `done` for every committed transfer,
//! numbered by its writer without holes, and a file `acks-WRITER` that gets each number once `COMMIT` has returned. Each
//! incarnation of a writer has a name of its own.

use std::collections::BTreeMap;
use std::process::Command;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use tideline_tests::{Dice, Output, Process, Scratch, Shell, at_home, python_start, rounds};

/// What a worker of the bank is.
#[derive(Clone, Copy, Debug)]
enum Role {
    PythonWriter,
    PythonReader,
    BundledWriter,
    BundledReader,
    ShellWriter,
    ShellReader,
}

/// The bank, and those who work on it.
struct Bank {
    scratch: Scratch,
    dice: Dice,
    workers: Vec<(Role, Process)>,
    born: u32,
}

/// The commits that set the bank up.
const SETUP: &str = "
    CREATE TABLE account(id INTEGER PRIMARY KEY, balance INTEGER);
    CREATE TABLE done(writer TEXT, seq INTEGER, PRIMARY KEY (writer, seq)) WITHOUT ROWID;
    CREATE TABLE ballast(id INTEGER PRIMARY KEY, v BLOB);
    INSERT INTO account SELECT value, 1000 FROM generate_series(1, 20);
    INSERT INTO ballast SELECT value, randomblob(3000) FROM generate_series(1, 100);
    SELECT tide_lsn();";

impl Bank {
    fn new(roles: &[Role]) -> Self {
        let scratch = Scratch::new();
        assert_eq!(Shell::new(&scratch, "bank.db").ok(SETUP), "5\n");
        let mut bank = Self { scratch, dice: Dice::new("bank"), workers: Vec::new(), born: 0 };
        for &role in roles {
            bank.add(role);
        }
        bank
    }

    fn add(&mut self, role: Role) {
        self.born += 1;
        let name = format!("{role:?}{}", self.born);
        let seed = self.dice.below(u32::MAX).to_string();
        let bank = concat!(env!("CARGO_MANIFEST_DIR"), "/py/bank.py");
        let py = format!("import runpy; runpy.run_path({bank:?})");
        let process = match role {
            Role::PythonWriter => python_start(&self.scratch, &py, &["write", "bank.db", &name, &seed]),
            Role::PythonReader => python_start(&self.scratch, &py, &["read", "bank.db", &name, &seed]),
            Role::BundledWriter => self.worker("write", &name, &seed),
            Role::BundledReader => self.worker("read", &name, &seed),
            Role::ShellWriter => {
                let sql = writing(&name, &mut self.dice);
                self.shell(&name, &sql)
            }
            Role::ShellReader => self.shell("", &LOOKING.repeat(3000)),
        };
        self.workers.push((role, process));
    }

    fn worker(&self, role: &str, name: &str, seed: &str) -> Process {
        let mut command = Command::new(env!("CARGO_BIN_EXE_worker"));
        command.args([role, &self.scratch.uri("bank.db"), name, seed]).current_dir(self.scratch.folder());
        Process::start(&mut command)
    }

    /// A shell that reads its script from a file. A writer's acknowledgements go to a file, line by line.
    fn shell(&self, writer: &str, sql: &str) -> Process {
        let file = format!("script-{}.sql", self.born);
        let prelude = ".load ./libtideline\n.open 'file:bank.db?vfs=tideline'\n.timeout 60000\n";
        self.scratch.write(&file, format!("{prelude}{sql}"));
        let output = if writer.is_empty() { String::new() } else { format!(">acks-{writer}") };
        let mut command = Command::new("sh");
        command.args(["-c", &format!("exec stdbuf -oL sqlite3 -batch -bail <{file} {output}")]);
        Process::start(at_home(&mut command, self.scratch.folder()))
    }

    /// Kills, stops and replaces workers at random for this long.
    fn disturb(&mut self, duration: Duration) {
        let end = Instant::now() + duration;
        let mut kills = 0;
        while Instant::now() < end {
            std::thread::sleep(Duration::from_millis((20 + self.dice.below(200)).into()));
            let at = self.dice.pick(self.workers.len());
            if self.dice.below(4) == 0 {
                let process = &self.workers[at].1;
                process.signal(Signal::SIGSTOP);
                std::thread::sleep(Duration::from_millis(self.dice.below(150).into()));
                process.signal(Signal::SIGCONT);
            } else {
                let (role, process) = self.workers.swap_remove(at);
                let output = process.kill();
                no_complaint(role, &output);
                kills += 1;
                self.add(role);
            }
        }
        println!("tried: kills={kills}");
    }

    /// Lets all come to their ends.
    fn stop(&mut self) {
        self.scratch.write("stop", "");
        for (role, process) in self.workers.drain(..) {
            let output = match role {
                Role::ShellWriter | Role::ShellReader => process.kill(),
                _ => process.finish(),
            };
            no_complaint(role, &output);
        }
    }

    /// Is every acknowledged commit there, and nothing that nobody committed?
    fn audit(&self) {
        let db = Shell::new(&self.scratch, "bank.db");
        assert_eq!(db.ok("SELECT sum(balance) FROM account; PRAGMA integrity_check;"), "20000\nok\n");
        let counts = db.ok("SELECT writer, count(*), max(seq) FROM done GROUP BY writer;");
        let mut there: BTreeMap<String, u64> = BTreeMap::new();
        for line in counts.lines() {
            let fields: Vec<&str> = line.split('|').collect();
            assert_eq!(fields[1], fields[2], "{line} has holes");
            there.insert(fields[0].into(), fields[1].parse().expect("a number"));
        }
        let mut acknowledged = 0;
        for entry in std::fs::read_dir(self.scratch.folder()).expect("the folder") {
            let name = entry.expect("an entry").file_name().to_string_lossy().into_owned();
            let Some(writer) = name.strip_prefix("acks-") else { continue };
            let text = String::from_utf8(self.scratch.read(&name)).expect("text");
            let last = text.lines().last().map_or(0, |line| line.parse::<u64>().expect("a number"));
            let committed = there.get(writer).copied().unwrap_or(0);
            assert!(
                committed == last || committed == last + 1,
                "{writer}: {last} acknowledged, {committed} there"
            );
            acknowledged += last;
        }
        let total: u64 = there.values().sum();
        assert!(total > 0, "nobody committed anything");
        assert_eq!(
            db.ok("SELECT tide_lsn();"),
            format!("{}\n", total + 5),
            "an LSN for each commit, and no other"
        );
        println!("tried: commits={total} acknowledged={acknowledged} writers={}", there.len());
    }
}

/// A worker may have been killed, but nothing that it saw was wrong.
#[track_caller]
fn no_complaint(role: Role, output: &Output) {
    assert!(output.stderr.is_empty(), "{role:?}: {output:#?}");
    let fault = output.stdout.lines().find(|line| line.starts_with("fault"));
    assert!(fault.is_none(), "{role:?}: {output:#?}");
    let code = output.status.code();
    assert!(code.is_none_or(|code| code == 0), "{role:?}: {output:#?}");
}

/// What a shell that reads runs again and again: it prints only what is wrong.
const LOOKING: &str = "BEGIN;
SELECT 'fault: sum ' || sum(balance) FROM account HAVING sum(balance) <> 20000;
SELECT 'fault: hole ' || writer FROM done GROUP BY writer HAVING count(*) <> max(seq);
SELECT 'fault: ' || integrity_check FROM pragma_integrity_check WHERE integrity_check <> 'ok';
COMMIT;
";

/// What a shell that writes runs: transfers, each acknowledged by its number.
fn writing(name: &str, dice: &mut Dice) -> String {
    (1..4000)
        .map(|seq| {
            let (giver, step, amount) = (dice.below(20), 1 + dice.below(19), 1 + dice.below(50));
            let taker = (giver + step) % 20;
            format!(
                "BEGIN IMMEDIATE;\n\
                 UPDATE account SET balance = balance - {amount} WHERE id = {};\n\
                 UPDATE account SET balance = balance + {amount} WHERE id = {};\n\
                 INSERT INTO done VALUES ('{name}', {seq});\nCOMMIT;\n.print {seq}\n",
                giver + 1,
                taker + 1
            )
        })
        .collect()
}

#[test]
fn writers_in_three_hosts_lose_nothing_when_nobody_is_killed() {
    let mut bank =
        Bank::new(&[Role::PythonWriter, Role::BundledWriter, Role::ShellWriter, Role::PythonReader]);
    std::thread::sleep(Duration::from_secs(3));
    bank.stop();
    bank.audit();
}

#[test]
fn killed_and_stopped_at_random_they_lose_nothing_that_was_acknowledged() {
    use Role::{BundledReader, BundledWriter, PythonReader, PythonWriter, ShellWriter};
    let mut bank = Bank::new(&[PythonWriter, BundledWriter, ShellWriter, PythonReader, BundledReader]);
    let seconds = if std::env::var_os("TIDELINE_QUICK").is_some() { 4 } else { 12 };
    bank.disturb(Duration::from_secs(seconds));
    bank.stop();
    bank.audit();
}

#[test]
fn when_all_are_killed_at_once_the_next_one_finds_all_that_was_acknowledged() {
    use Role::{BundledWriter, PythonWriter, ShellWriter};
    let mut bank = Bank::new(&[]);
    for _ in 0..rounds(6) {
        for role in [PythonWriter, PythonWriter, BundledWriter, ShellWriter] {
            bank.add(role);
        }
        std::thread::sleep(Duration::from_millis((200 + bank.dice.below(600)).into()));
        for (_, process) in &bank.workers {
            process.signal(Signal::SIGKILL);
        }
        for (role, process) in bank.workers.drain(..) {
            no_complaint(role, &process.finish());
        }
        bank.audit();
    }
}

/// `cargo xtask soak processes`.
#[test]
#[ignore = "it takes as long as it is told to"]
fn soak() {
    use Role::{BundledReader, BundledWriter, PythonReader, PythonWriter, ShellReader, ShellWriter};
    let seconds =
        std::env::var("TIDELINE_SOAK_SECONDS").ok().and_then(|text| text.parse().ok()).unwrap_or(60);
    let roles = [
        PythonWriter,
        PythonWriter,
        BundledWriter,
        ShellWriter,
        ShellWriter,
        PythonReader,
        BundledReader,
        ShellReader,
    ];
    let mut bank = Bank::new(&roles);
    bank.disturb(Duration::from_secs(seconds));
    bank.stop();
    bank.audit();
}
