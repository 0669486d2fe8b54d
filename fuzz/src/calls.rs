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
    /// Of a remote.
    Name,
    /// The same; NULL is the usual one.
    OptionalName,
    Url,
    /// NULL removes what it is for.
    OptionalUrl,
    Options,
    /// Where it is the last, it is the schema, unless it looks like options.
    OptionsOrSchema,
}

impl Takes {
    /// Texts that mean something there.
    fn words(self) -> &'static [&'static str] {
        match self {
            Takes::Name | Takes::OptionalName => &NAMES,
            Takes::Url | Takes::OptionalUrl => &URLS,
            Takes::Options | Takes::OptionsOrSchema => &OPTIONS,
            _ => &[],
        }
    }
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

pub(crate) const FUNCTIONS: [Function; 22] = [
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
    function("tide_remote", 2, &[Takes::Name, Takes::OptionalUrl, Takes::Options, Takes::Schema], true),
    function("tide_push", 0, &[Takes::OptionalName, Takes::Options, Takes::Schema], true),
    function("tide_pull", 0, &[Takes::OptionalName, Takes::OptionsOrSchema, Takes::Schema], true),
    function("tide_sync", 0, &[Takes::OptionalName, Takes::OptionsOrSchema, Takes::Schema], true),
    // It is about another database.
    function("tide_clone", 2, &[Takes::Url, Takes::Path, Takes::Options], false),
    function("tide_hydrate", 0, &[Takes::Schema], true),
    table("tide_remotes", &[Takes::Schema]),
];

/// Names of remotes: some that there may be, and some that can't be.
const NAMES: [&str; 6] = ["origin", "r", "R-2._", "no name", "", "origin "];

/// URLs: places that `remotes.rs` prepares, which is where all others are put as well, and `REFUSED`.
const URLS: [&str; 18] = [
    "same", "ahead", "apart", "source", "sealed", "empty", "file", "new", "file/x", "new%00", "same?x",
    REFUSED[0], REFUSED[1], REFUSED[2], REFUSED[3], REFUSED[4], REFUSED[5], REFUSED[6],
];

/// URLs that are refused before anybody is asked.
pub(crate) const REFUSED: [&str; 7] = [
    "https://example.org/x",
    "ftp://example.org/x",
    "file:///",
    "file://example.org/x",
    "s3://",
    "s3://key:secret@bucket/x",
    "gs://bucket/x#y",
];

/// Options of remotes, tasks and clones. FOLDER is the target's own.
pub(crate) const OPTIONS: [&str; 34] = [
    "{}",
    " {\"single_writer\":1}",
    "{\"single_writer\":\"yes\"}",
    "{\"retain\":\"2 lsns\"}",
    "{\"retain\":\"none\"}",
    "{\"retain\":\"1 GB\"}",
    "{\"spool_mib\":0}",
    "{\"spool_mib\":-1}",
    "{\"cache_mib\":1}",
    "{\"cache\":\"FOLDER/cache\"}",
    "{\"cache\":\"FOLDER/main.db\"}",
    "{\"cache\":\"cache\"}",
    "{\"key_file\":\"FOLDER/key\"}",
    "{\"key_file\":\"FOLDER/other\"}",
    "{\"key_file\":\"FOLDER/none\"}",
    "{\"key_file\":\"FOLDER/remotes\"}",
    "{\"key_env\":\"TIDELINE_FUZZ\"}",
    "{\"key_file\":\"FOLDER/key\",\"key_env\":\"TIDELINE_FUZZ\"}",
    "{\"region\":\"x\"}",
    "{\"every\":\"1 h\"}",
    "{\"every\":null}",
    "{\"every\":\"soon\"}",
    "{\"at\":1}",
    "{\"at\":3}",
    "{\"at\":7}",
    "{\"at\":0}",
    "{\"at\":1000}",
    "{\"as_of\":\"2001-01-01T00:00:00Z\"}",
    "{\"as_of\":\"2999-01-01 00:00:00\"}",
    "{\"at\":3,\"as_of\":7}",
    "{\"replace\":1}",
    "{\"replace\":1,\"at\":3}",
    "{\"replace\":7}",
    "{\"\":",
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
    /// What a function gets that takes this there.
    pub fn value(&self, takes: Option<Takes>) -> Owned {
        let words = takes.map_or(&[][..], Takes::words);
        match self {
            Argument::Null => Owned::Null,
            Argument::Number(n) => Owned::Integer(*pick(&NUMBERS, *n)),
            Argument::Any(n) => Owned::Integer(*n),
            Argument::Real(n) => Owned::real(*pick(&REALS, *n)),
            Argument::Bits(bits) => Owned::real(f64::from_bits(*bits)),
            Argument::Word(n) if *n < 192 && !words.is_empty() => {
                Owned::Text(pick(words, *n).as_bytes().to_vec())
            }
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
