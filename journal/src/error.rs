//! What can go wrong, as the user is told.

use std::fmt;
use std::io;
use std::path::Path;

use crate::lsn::Lsn;

/// Kind of an error; the words that the SQL surface promises.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Code {
    /// A bad argument or parameter.
    Argument,
    /// Entries that don't continue what is here.
    Gap,
    /// Another lineage.
    Foreign,
    /// Bytes that fail their checksum or their bounds.
    Damaged,
    /// Both sides committed by themselves.
    Diverged,
    /// Below the horizon.
    Trimmed,
    /// A newer format, or none of ours.
    Format,
    /// No database at all, or of a format that SQLite doesn't know.
    NotADatabase,
    /// More than fits.
    Limit,
    /// A file that should be there.
    Missing,
    /// A remote that can't be reached.
    Offline,
    /// Not permitted.
    Denied,
    /// Somebody else holds what is needed; try again.
    Busy,
    /// The snapshot is older than the head, so it can't be written on.
    Stale,
    /// An fsync failed; reopen.
    Poisoned,
    /// The host asked for an end of it.
    Interrupted,
    /// The operating system failed.
    Io,
    /// The disk is full.
    Full,
}

impl Code {
    /// Its word in messages.
    pub const fn word(self) -> &'static str {
        match self {
            Code::Argument => "ARGUMENT",
            Code::Gap => "GAP",
            Code::Foreign => "FOREIGN",
            Code::Damaged => "DAMAGED",
            Code::Diverged => "DIVERGED",
            Code::Trimmed => "TRIMMED",
            Code::Format | Code::NotADatabase => "FORMAT",
            Code::Limit => "LIMIT",
            Code::Missing => "MISSING",
            Code::Offline => "OFFLINE",
            Code::Denied => "DENIED",
            Code::Busy | Code::Stale => "BUSY",
            Code::Poisoned => "POISONED",
            Code::Interrupted => "INTERRUPTED",
            Code::Io => "IO",
            Code::Full => "FULL",
        }
    }
}

/// An error of the store. Displays as `tideline: CODE: cause; remedy`.
#[derive(Clone, Debug)]
pub struct Error {
    code: Code,
    text: String,
}

impl Error {
    /// An error whose `text` reads `cause; remedy`.
    pub fn new(code: Code, text: impl Into<String>) -> Error {
        Error { code, text: text.into() }
    }

    /// Its kind.
    pub fn code(&self) -> Code {
        self.code
    }

    /// The cause and the remedy, without the code.
    pub fn text(&self) -> &str {
        &self.text
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "tideline: {}: {}", self.code.word(), self.text)
    }
}

impl std::error::Error for Error {}

impl From<io::Error> for Error {
    fn from(e: io::Error) -> Error {
        let code = match e.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Code::Full,
            io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => Code::Denied,
            io::ErrorKind::NotFound => Code::Missing,
            io::ErrorKind::IsADirectory => Code::Format,
            io::ErrorKind::NotADirectory | io::ErrorKind::InvalidFilename | io::ErrorKind::NotSeekable => {
                Code::Argument
            }
            _ => Code::Io,
        };
        let remedy = match code {
            Code::Full => "make room on the disk and try again",
            Code::Denied => "give this user the right to write the database, its folder and its side folder",
            Code::Format => "give the path of a file",
            Code::Argument => "give a path where a database can be",
            Code::Missing => "put the missing file back, or restore from a backup",
            _ => "look at the system's log, then reopen the database",
        };
        Error::new(code, format!("{e}; {remedy}"))
    }
}

/// What whoever asks for an LSN below the horizon is told.
pub(crate) fn trimmed(lsn: Lsn) -> Error {
    Error::new(Code::Trimmed, format!("LSN {lsn} isn't readable any more; read a newer one"))
}

/// What was found, or `None` where it was given up meanwhile, by whoever moves the horizon.
pub(crate) fn still<T>(found: Result<T>) -> Result<Option<T>> {
    match found {
        Err(e) if e.code() == Code::Trimmed => Ok(None),
        found => found.map(Some),
    }
}

/// Adds where it happened to an operating system's error.
pub(crate) trait At<T> {
    /// `what` reads like "reading app.db-tide/store".
    fn at(self, what: impl FnOnce() -> String) -> Result<T>;
}

impl<T> At<T> for io::Result<T> {
    fn at(self, what: impl FnOnce() -> String) -> Result<T> {
        self.map_err(|e| {
            let e = Error::from(e);
            Error::new(e.code, format!("{}: {}", what(), e.text))
        })
    }
}

/// The same of a file that is to be made.
pub(crate) fn making(e: io::Error, path: &Path) -> Error {
    if e.kind() == io::ErrorKind::NotFound {
        let text = format!("the folder of {} isn't there; make it, or give another path", path.display());
        return Error::new(Code::Missing, text);
    }
    let e = Error::from(e);
    Error::new(e.code, format!("creating {}: {}", path.display(), e.text))
}

/// Result of the store's operations.
pub type Result<T> = std::result::Result<T, Error>;
