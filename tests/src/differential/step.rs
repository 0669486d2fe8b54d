//! What is done on both sides, one thing at a time, in a form that can be played again and printed.

use std::fmt;

/// Databases of a play: `a`, `b` and `c`.
pub(super) const FILES: [&str; 3] = ["a", "b", "c"];

/// Connections that there may be at once.
pub(super) const CONNECTIONS: usize = 4;

/// Statements that may be half done at once, and backups that may be under way at once.
pub(super) const CURSORS: usize = 3;

/// What stock SQLite is like on its side, and hence what can be compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// In WAL mode, with several connections at once: what is locked, and what a snapshot has, is the same.
    Wal,
    /// With a rollback journal: page sizes can change. Stock's readers block its writer, so there is one transaction
    /// at a time.
    Rollback,
    /// As above, and the main database of every connection is a plain one of SQLite's own VFS: what a PRAGMA does to
    /// attached databases doesn't pass through their VFS (PAGER.md 6).
    Guest,
}

/// How a play begins.
#[derive(Clone, Debug)]
pub(super) struct Setting {
    pub kind: Kind,
    /// Run on each database when it is new.
    pub new: String,
    /// Whether the connections to one database share a cache.
    pub shared: bool,
    /// Whether Tideline adopts databases that stock SQLite made, or makes them itself.
    pub adopt: bool,
}

impl fmt::Display for Setting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { kind, shared, adopt, new } = self;
        write!(f, "{kind:?}, shared cache: {shared}, adopt: {adopt}, new: {new}")
    }
}

/// What is compared of a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Compare {
    /// Everything.
    All,
    /// Everything but the rows.
    Code,
}

/// One thing that is done. In SQL, `<a>` is the URI of a database, and `<out>` that of a file that isn't there yet.
#[derive(Clone, Debug)]
pub(super) enum Step {
    /// Opens a connection to a database, or for a [`Kind::Guest`] to a plain one of its own.
    Open { at: usize, file: usize, read_only: bool },
    /// Closes it, and what it has under way.
    Close { at: usize },
    /// Runs a statement; `stock` is what the other side runs where Tideline deliberately differs.
    Sql { at: usize, sql: String, stock: Option<String>, compare: Compare, most: Option<u32> },
    /// `VACUUM INTO`, and a look into what it wrote.
    Into { at: usize, schema: String },
    /// Prepares a statement and gets its first rows.
    Cursor { at: usize, slot: usize, sql: String },
    /// Gets more rows.
    Fetch { slot: usize, rows: u32 },
    /// Finalizes it.
    Finish { slot: usize },
    /// Reads or overwrites a piece of a value.
    Blob { at: usize, place: [String; 3], row: i64, piece: (u32, u32), write: Option<u8> },
    /// Begins a backup.
    Backup { slot: usize, from: (usize, String), to: (usize, String) },
    /// Goes on with it.
    Copy { slot: usize, pages: i32 },
    /// Ends it.
    Copied { slot: usize },
    /// Writes dirty pages out of the cache, in the middle of a transaction, and frees what it can.
    Flush { at: usize },
    /// Looks at all that is in a database.
    Dump { at: usize, schema: String },
    /// Sends what is new of a database to a replica, which then has what stock SQLite has.
    Ship { file: usize },
    /// Closes all, looks at what lies there with stock SQLite, and goes on as it says.
    Rest(Rest),
}

/// What is done with databases at rest.
#[derive(Clone, Debug)]
pub(super) enum Rest {
    /// Nothing.
    Leave,
    /// Tideline gets stock SQLite's files; its folders go, or stay and are told of a change from outside.
    Adopt { folders: bool },
    /// Stock SQLite gets Tideline's files.
    GiveBack,
    /// Both.
    Exchange { folders: bool },
    /// Stock SQLite changes the files of both sides.
    Outside { file: usize, sql: String },
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Open { at, file, read_only } => {
                write!(f, "{at}: open {}{}", FILES[*file], if *read_only { ", mode=ro" } else { "" })
            }
            Self::Close { at } => write!(f, "{at}: close"),
            Self::Sql { at, sql, stock, compare, most } => {
                write!(f, "{at}: {sql};")?;
                if let Some(stock) = stock {
                    write!(f, " -- stock: {stock}")?;
                }
                if *compare == Compare::Code {
                    write!(f, " -- rows may differ")?;
                }
                most.map_or(Ok(()), |most| write!(f, " -- interrupted after {most}"))
            }
            Self::Into { at, schema } => write!(f, "{at}: VACUUM {schema} INTO a new file"),
            Self::Cursor { at, slot, sql } => write!(f, "{at}: statement {slot}, first row of {sql};"),
            Self::Fetch { slot, rows } => write!(f, "statement {slot}, {rows} rows"),
            Self::Finish { slot } => write!(f, "statement {slot}, finalized"),
            Self::Blob { at, place, row, piece: (offset, length), write } => {
                let place = place.join(".");
                write!(f, "{at}: {} {place} in row {row}", if write.is_some() { "write" } else { "read" })?;
                write!(f, ", {length} bytes from {offset} on")
            }
            Self::Backup { slot, from, to } => {
                write!(f, "backup {slot}: from {}: {} to {}: {}", from.0, from.1, to.0, to.1)
            }
            Self::Copy { slot, pages } => write!(f, "backup {slot}: {pages} pages"),
            Self::Copied { slot } => write!(f, "backup {slot}: finished"),
            Self::Flush { at } => write!(f, "{at}: cache flushed"),
            Self::Dump { at, schema } => write!(f, "{at}: dump of {schema}"),
            Self::Ship { file } => write!(f, "{} shipped to its replica", FILES[*file]),
            Self::Rest(rest) => match rest {
                Rest::Outside { file, sql } => {
                    write!(f, "rest; stock SQLite runs in {}: {sql};", FILES[*file])
                }
                rest => write!(f, "rest; {rest:?}"),
            },
        }
    }
}
