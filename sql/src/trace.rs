//! `tracing` events as lines in SQLite's error log.

use std::fmt::{self, Write};
use std::str::FromStr;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU8, Ordering};

use rusqlite::ffi;
use rusqlite::types::Value;
use tideline_journal::{Code, Error, Result};
use tracing::field::{Field, Visit};
use tracing::level_filters::LevelFilter;
use tracing::span;
use tracing::{Event, Metadata, Subscriber};

/// How much is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Level(u8);

/// Their words, by number.
const LEVELS: [(&str, LevelFilter); 6] = [
    ("off", LevelFilter::OFF),
    ("error", LevelFilter::ERROR),
    ("warn", LevelFilter::WARN),
    ("info", LevelFilter::INFO),
    ("debug", LevelFilter::DEBUG),
    ("trace", LevelFilter::TRACE),
];

/// Where the events of this crate come from, for readers of the log.
const TARGET: &str = "tideline";

static IN_FORCE: AtomicU8 = AtomicU8::new(0);
static INSTALLED: OnceLock<bool> = OnceLock::new();

impl Level {
    fn entry(self) -> (&'static str, LevelFilter) {
        LEVELS.get(usize::from(self.0)).copied().unwrap_or(LEVELS[0])
    }
}

impl FromStr for Level {
    type Err = ();

    fn from_str(text: &str) -> std::result::Result<Level, ()> {
        let at = LEVELS.iter().position(|(word, _)| word.eq_ignore_ascii_case(text)).ok_or(())?;
        Ok(Level(u8::try_from(at).unwrap_or(0)))
    }
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.entry().0)
    }
}

/// The level in force in this process.
pub(crate) fn level() -> Level {
    Level(IN_FORCE.load(Ordering::Relaxed))
}

/// Sets the level for the process.
///
/// # Errors
/// `Denied` if the program that this library is linked into has a subscriber of its own.
pub(crate) fn set(level: Level) -> Result<()> {
    if !*INSTALLED.get_or_init(|| tracing::subscriber::set_global_default(ToLog).is_ok()) {
        return Err(Error::new(
            Code::Denied,
            "this program has a tracing subscriber of its own; set the level there",
        ));
    }
    IN_FORCE.store(level.0, Ordering::Relaxed);
    tracing::callsite::rebuild_interest_cache();
    Ok(())
}

/// Tells what became of a call.
pub(crate) fn called(function: &str, result: &Result<Value>) {
    match result {
        Ok(Value::Integer(number)) => tracing::debug!(target: TARGET, "{function} answered {number}"),
        Ok(Value::Blob(blob)) => tracing::debug!(target: TARGET, "{function} answered {} bytes", blob.len()),
        Ok(_) => tracing::debug!(target: TARGET, "{function} answered"),
        Err(error) => tracing::info!(target: TARGET, "{function}: {error}"),
    }
}

/// The subscriber.
struct ToLog;

impl Subscriber for ToLog {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.is_event() && *metadata.level() <= level().entry().1
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        Some(level().entry().1)
    }

    // Spans aren't told.
    fn new_span(&self, _attributes: &span::Attributes<'_>) -> span::Id {
        span::Id::from_u64(1)
    }

    fn record(&self, _span: &span::Id, _values: &span::Record<'_>) {}

    fn record_follows_from(&self, _span: &span::Id, _follows: &span::Id) {}

    fn enter(&self, _span: &span::Id) {}

    fn exit(&self, _span: &span::Id) {}

    fn event(&self, event: &Event<'_>) {
        let metadata = event.metadata();
        let mut line = Line(format!("{} {}:", metadata.level(), metadata.target()));
        event.record(&mut line);
        let code = match *metadata.level() {
            tracing::Level::ERROR => ffi::SQLITE_ERROR,
            tracing::Level::WARN => ffi::SQLITE_WARNING,
            _ => ffi::SQLITE_NOTICE,
        };
        crate::raw::log(code, &line.0);
    }
}

/// An event's fields on one line.
struct Line(String);

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        // Writing to a string doesn't fail.
        let _ = if field.name() == "message" {
            write!(self.0, " {value:?}")
        } else {
            write!(self.0, " {}={value:?}", field.name())
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_have_words() {
        for (word, _) in LEVELS {
            assert_eq!(word.parse().map(|level: Level| level.to_string()), Ok(word.to_owned()));
        }
        assert_eq!("INFO".parse(), Ok(Level(3)));
        assert!("".parse::<Level>().is_err() && "loud".parse::<Level>().is_err());
    }
}
