//! Recorded histories: what connections did, saw and were told, and whether an order of whole commits explains it.
//!
//! The database has a table of [`REGISTERS`] registers, each with a value and who wrote it, and a table `done` with a row
//! for every commit: its LSN and who made it. A transaction reads all registers, and a commit gives some of them values
//! that follow from what it read. Register 0 is in every commit.
//!
//! ```text
//!   program `recorder` ──► history-WRITER     what one connection did, line by line   [`Recorder`]
//!                                 └─ parse ─► [`Transaction`]s ─┐
//!   at the end: SELECT lsn, writer, seq FROM done ──────────────┴─► [`check`]
//! ```
//!
//! Stamps are nanoseconds of `CLOCK_MONOTONIC`, which is the same for all processes. A line is written before what it
//! announces is done, and after what it reports was: a process that is killed leaves a history that is true as far as it
//! goes.

mod check;
mod record;
mod rules;
#[cfg(test)]
mod tests;

pub use check::{Tally, check};
pub use record::{Recorder, now, parse};
pub use rules::{Rule, Violation};

use std::collections::BTreeMap;

/// Number of registers.
pub const REGISTERS: usize = 24;

/// One register.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Register {
    /// What it holds.
    pub value: i64,
    /// Who wrote it last; 0 at the beginning.
    pub writer: u32,
    /// In which of the writer's transactions.
    pub seq: u32,
}

/// All registers.
pub type Registers = Vec<Register>;

/// What a commit writes instead of the values that it read. What it finds decides, so that a lost update shows in the
/// values, too.
pub fn next_value(before: &Registers, id: usize, writer: u32, seq: u32) -> i64 {
    let mixed = before[id].value.wrapping_mul(31).wrapping_add(before[0].value);
    mixed
        .wrapping_mul(1_000_003)
        .wrapping_add(i64::from(writer))
        .wrapping_mul(8191)
        .wrapping_add(i64::from(seq))
}

/// How a transaction was begun.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// With a read.
    Deferred,
    /// With a write, or as `IMMEDIATE`: what it reads may not be on the disk yet, and counts for others only once the
    /// transaction has ended.
    Writing,
}

/// All registers, as a transaction saw them at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// When they had been read.
    pub at: u64,
    /// What `tide_lsn()` said.
    pub lsn: u64,
    /// Behind the transaction's own writes.
    pub own: bool,
    /// The registers.
    pub registers: Registers,
}

/// How a transaction ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// `COMMIT` returned well at this moment, and it had written.
    Committed(u64),
    /// It ended at this moment without having changed anything: it only read, was rolled back, or was refused.
    Without(u64),
    /// Nobody knows: the process was killed.
    Unknown,
}

/// What is known of a transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transaction {
    /// Whose it is: one connection at a time, of one incarnation of a process.
    pub writer: u32,
    /// Its number among the writer's.
    pub seq: u32,
    /// How it was begun.
    pub mode: Mode,
    /// When it was, before anything was asked of the database.
    pub begun: u64,
    /// What it saw, in order.
    pub seen: Vec<Seen>,
    /// What it wrote, by register.
    pub writes: BTreeMap<usize, i64>,
    /// When `COMMIT` was asked for, if it had written.
    pub asked: Option<u64>,
    /// Its end.
    pub end: End,
}

/// A row of `done`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Done {
    /// The LSN that its writer expected.
    pub lsn: u64,
    /// The writer.
    pub writer: u32,
    /// Which of its transactions.
    pub seq: u32,
}
