//! Histories as files: one line for each thing that a connection did.
//!
//! ```text
//! begin STAMP SEQ deferred|writing
//! seen STAMP LSN snapshot|own VALUE,WRITER,SEQ ...     one for each register
//! write ID VALUE
//! commit STAMP
//! committed STAMP
//! ended STAMP
//! ```

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{Result, Write};
use std::path::Path;

use nix::time::{ClockId, clock_gettime};

use super::{End, Mode, REGISTERS, Register, Registers, Seen, Transaction};

/// Nanoseconds since a moment that is the same for all processes.
pub fn now() -> u64 {
    let now = clock_gettime(ClockId::CLOCK_MONOTONIC).expect("a monotonic clock");
    u64::try_from(std::time::Duration::from(now).as_nanos()).expect("an uptime below 500 years")
}

/// Writes the history of one connection, each line at once.
pub struct Recorder(File);

impl Recorder {
    /// Begins one in a folder.
    pub fn new(folder: &Path, writer: u32) -> Result<Self> {
        let path = folder.join(format!("history-{writer}"));
        Ok(Self(OpenOptions::new().create_new(true).append(true).open(path)?))
    }

    fn line(&mut self, text: &str) -> Result<()> {
        self.0.write_all(format!("{text}\n").as_bytes())
    }

    /// A transaction is about to begin.
    pub fn begin(&mut self, seq: u32, mode: Mode) -> Result<()> {
        let mode = if mode == Mode::Writing { "writing" } else { "deferred" };
        self.line(&format!("begin {} {seq} {mode}", now()))
    }

    /// It has read all registers.
    pub fn seen(&mut self, lsn: u64, own: bool, registers: &Registers) -> Result<()> {
        let fields: Vec<String> =
            registers.iter().map(|r| format!("{},{},{}", r.value, r.writer, r.seq)).collect();
        let own = if own { "own" } else { "snapshot" };
        self.line(&format!("seen {} {lsn} {own} {}", now(), fields.join(" ")))
    }

    /// It gives a register a value.
    pub fn write(&mut self, id: usize, value: i64) -> Result<()> {
        self.line(&format!("write {id} {value}"))
    }

    /// It has written, and is about to be committed.
    pub fn commit(&mut self) -> Result<()> {
        self.line(&format!("commit {}", now()))
    }

    /// It had written, and is committed.
    pub fn committed(&mut self) -> Result<()> {
        self.line(&format!("committed {}", now()))
    }

    /// It is over, and has changed nothing.
    pub fn ended(&mut self) -> Result<()> {
        self.line(&format!("ended {}", now()))
    }
}

/// Reads what a [`Recorder`] wrote. The last line of one that was killed may be torn.
pub fn parse(writer: u32, text: &str) -> Vec<Transaction> {
    let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
    let mut history: Vec<Transaction> = Vec::new();
    for line in whole.lines() {
        let fields: Vec<&str> = line.split(' ').collect();
        let number = |at: usize| -> u64 { fields[at].parse().unwrap_or_else(|e| panic!("{line:?}: {e}")) };
        if fields[0] == "begin" {
            history.push(Transaction {
                writer,
                seq: u32::try_from(number(2)).expect("a small number"),
                mode: if fields[3] == "writing" { Mode::Writing } else { Mode::Deferred },
                begun: number(1),
                seen: Vec::new(),
                writes: BTreeMap::new(),
                asked: None,
                end: End::Unknown,
            });
            continue;
        }
        let last = history.last_mut().expect("a transaction that was begun");
        match fields[0] {
            "seen" => {
                let registers: Registers = fields[4..].iter().map(|field| register(field)).collect();
                assert_eq!(registers.len(), REGISTERS, "{line:?}");
                last.seen.push(Seen { at: number(1), lsn: number(2), own: fields[3] == "own", registers });
            }
            "write" => {
                let value = fields[2].parse().expect("a number");
                last.writes.insert(usize::try_from(number(1)).expect("a small number"), value);
            }
            "commit" => last.asked = Some(number(1)),
            "committed" => last.end = End::Committed(number(1)),
            "ended" => last.end = End::Without(number(1)),
            _ => panic!("what is {line:?}?"),
        }
    }
    history
}

fn register(field: &str) -> Register {
    let mut parts = field.split(',');
    let mut part = || parts.next().expect("three numbers");
    let small = |text: &str| text.parse::<u32>().expect("a small number");
    let value = part().parse().expect("a number");
    Register { value, writer: small(part()), seq: small(part()) }
}
