//! What the `functions` target calls, and with what.

use arbitrary::Arbitrary;
use rusqlite::ToSql;
use rusqlite::types::{ToSqlOutput, ValueRef};

use crate::databases::fixture;
use crate::value::pick;

/// What a function takes in one place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Takes {
    Schema,
    Lsn,
    OptionalLsn,
    OptionalSize,
    Blob,
    Path,
    OptionalText,
}

/// A function, or a table with arguments.
pub(crate) struct Function {
    pub name: &'static str,
    pub least: usize,
    pub takes: &'static [Takes],
    pub table: bool,
    /// It can't run inside of a transaction.
    pub command: bool,
}

const fn function(name: &'static str, least: usize, takes: &'static [Takes], command: bool) -> Function {
    Function { name, least, takes, table: false, command }
}

const fn table(name: &'static str, takes: &'static [Takes]) -> Function {
    Function { name, least: 0, takes, table: true, command: false }
}

pub(crate) const FUNCTIONS: [Function; 15] = [
    function("tide_version", 0, &[], false),
    function("tide_lsn", 0, &[Takes::Schema], false),
    function("tide_status", 0, &[Takes::Schema], false),
    function("tide_prepare", 1, &[Takes::Lsn, Takes::OptionalSize, Takes::Schema], false),
    function("tide_receive", 1, &[Takes::Blob, Takes::Schema], true),
    function("tide_compact", 0, &[Takes::OptionalLsn, Takes::OptionalLsn, Takes::Schema], true),
    function("tide_fold", 0, &[Takes::Schema], true),
    function("tide_export", 1, &[Takes::Path, Takes::Schema], true),
    function("tide_retain", 0, &[Takes::OptionalText, Takes::Schema], true),
    function("tide_detach", 0, &[Takes::Schema], true),
    function("tide_last_error", 0, &[], false),
    function("tide_trace", 1, &[Takes::OptionalText], false),
    table("tide_log", &[Takes::Schema]),
    table("tide_batches", &[Takes::Lsn, Takes::OptionalSize, Takes::Schema]),
    table("tide_verify", &[Takes::Schema]),
];

/// Texts that mean something somewhere.
const WORDS: [&str; 30] = [
    "main",
    "b",
    "MAIN",
    "temp",
    "c",
    "",
    "7 days",
    "1 GB",
    "10000 lsns",
    "none",
    "default",
    "0 lsns",
    "1 lsn",
    "99999999999999999999 TiB",
    "off",
    "error",
    "trace",
    "info",
    "new.db",
    "main.db",
    "main.db-tide",
    "nowhere/x",
    "..",
    "{}",
    "{\"level\":1}",
    "[1,2]",
    "null",
    "7",
    "7.0",
    "%s%n",
];

const NUMBERS: [i64; 14] =
    [0, 1, 2, 3, 4, 5, 100, -1, 1 << 16, i64::MAX, i64::MIN, i64::MAX - 1, 1 << 40, 1 << 62];

const REALS: [f64; 7] = [0.0, -0.0, 1.0, 1.5, f64::NAN, f64::INFINITY, f64::MIN_POSITIVE];

#[derive(Arbitrary, Debug)]
pub(crate) enum Argument {
    Null,
    Number(u8),
    Any(i64),
    Real(u8),
    Bits(u64),
    Word(u8),
    Text(Vec<u8>),
    Blob(Vec<u8>),
    Zeros(u16),
    /// What somebody shipped, with a byte changed where the mask isn't 0.
    Shipped(u8, u16, u8),
}

impl Argument {
    pub fn value(&self) -> Owned {
        match self {
            Argument::Null => Owned::Null,
            Argument::Number(n) => Owned::Integer(*pick(&NUMBERS, *n)),
            Argument::Any(n) => Owned::Integer(*n),
            Argument::Real(n) => Owned::real(*pick(&REALS, *n)),
            Argument::Bits(bits) => Owned::real(f64::from_bits(*bits)),
            Argument::Word(n) => Owned::Text(pick(&WORDS, *n).as_bytes().to_vec()),
            Argument::Text(text) => Owned::Text(text.clone()),
            Argument::Blob(blob) => Owned::Blob(blob.clone()),
            Argument::Zeros(len) => Owned::Blob(vec![0; usize::from(*len)]),
            Argument::Shipped(n, at, mask) => {
                let mut blob = pick(&fixture().shipped, *n).blob.clone();
                let at = usize::from(*at) % blob.len();
                blob[at] ^= mask;
                Owned::Blob(blob)
            }
        }
    }
}

/// An argument as SQLite gets it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Owned {
    Null,
    Integer(i64),
    Real(f64),
    /// Any bytes.
    Text(Vec<u8>),
    Blob(Vec<u8>),
}

impl Owned {
    /// SQLite has no NaN.
    fn real(number: f64) -> Owned {
        if number.is_nan() { Owned::Null } else { Owned::Real(number) }
    }
}

impl ToSql for Owned {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(ToSqlOutput::Borrowed(match self {
            Owned::Null => ValueRef::Null,
            Owned::Integer(n) => ValueRef::Integer(*n),
            Owned::Real(n) => ValueRef::Real(*n),
            Owned::Text(text) => ValueRef::Text(text),
            Owned::Blob(blob) => ValueRef::Blob(blob),
        }))
    }
}
