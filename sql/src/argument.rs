//! Arguments of functions and tables, and their rules.
//!
//! 1. NULL, or leaving it out, means the default, where there is one.
//! 2. Nothing is converted: an LSN is an INTEGER, not `'7'` and not `7.0`.
//! 3. The last argument names the schema.

use std::path::PathBuf;

use rusqlite::types::ValueRef;
use tideline_journal::{Code, Error, Lsn, Result};
use tideline_sync::Unread;

/// Name of an argument before the schema that came later than it: where it is the last that is given, it is options if it
/// looks like a JSON object, and else the schema.
pub(crate) const OPTIONS_OR_SCHEMA: &str = "options or schema";

/// What a function or a table was called with.
pub(crate) struct Arguments<'a> {
    function: &'a str,
    names: &'a [&'a str],
    values: Vec<ValueRef<'a>>,
}

impl<'a> Arguments<'a> {
    /// Arguments in the order of `names`; what is missing at the end was left out.
    pub fn new(function: &'a str, names: &'a [&'a str], mut values: Vec<ValueRef<'a>>) -> Arguments<'a> {
        let given = values.len();
        if given > 0 && given + 1 == names.len() && names[given - 1] == OPTIONS_OR_SCHEMA {
            let is_object = matches!(values[given - 1], ValueRef::Text(text) if text.trim_ascii_start().starts_with(b"{"));
            if !is_object {
                values.insert(given - 1, ValueRef::Null);
            }
        }
        Arguments { function, names, values }
    }

    /// What was called.
    pub fn function(&self) -> &'a str {
        self.function
    }

    fn value(&self, at: usize) -> ValueRef<'a> {
        self.values.get(at).copied().unwrap_or(ValueRef::Null)
    }

    fn name(&self, at: usize) -> &'a str {
        self.names.get(at).copied().unwrap_or("an argument")
    }

    /// An error about one of them.
    pub fn refuse(&self, at: usize, wanted: &str) -> Error {
        let found = match self.value(at) {
            ValueRef::Null => "NULL".to_owned(),
            ValueRef::Integer(number) => number.to_string(),
            ValueRef::Real(number) => format!("{number:?}"),
            ValueRef::Text(text) => format!("'{}'", excerpt(text)),
            ValueRef::Blob(blob) => format!("a BLOB of {} bytes", blob.len()),
        };
        let text = format!("{} of {} can't be {found}; give {wanted}", self.name(at), self.function);
        Error::new(Code::Argument, text)
    }

    /// An LSN, or `None` for NULL.
    pub fn optional_lsn(&self, at: usize) -> Result<Option<Lsn>> {
        match self.value(at) {
            ValueRef::Null => Ok(None),
            ValueRef::Integer(number) => match u64::try_from(number) {
                Ok(number) => Ok(Some(Lsn::new(number))),
                Err(_) => Err(self.refuse(at, "an LSN, 0 or more")),
            },
            _ => Err(self.refuse(at, "an LSN, as an INTEGER")),
        }
    }

    /// An LSN.
    pub fn lsn(&self, at: usize) -> Result<Lsn> {
        self.optional_lsn(at)?.ok_or_else(|| self.refuse(at, "an LSN, as an INTEGER; 0 is before everything"))
    }

    /// A number of bytes above 0, or `None` for NULL.
    pub fn optional_size(&self, at: usize) -> Result<Option<u64>> {
        match self.value(at) {
            ValueRef::Null => Ok(None),
            ValueRef::Integer(number) if number > 0 => Ok(Some(number.unsigned_abs())),
            _ => Err(self.refuse(at, "a number of bytes above 0, or NULL")),
        }
    }

    /// A BLOB; NULL is an empty one.
    pub fn blob(&self, at: usize) -> Result<&'a [u8]> {
        match self.value(at) {
            ValueRef::Null => Ok(&[]),
            ValueRef::Blob(blob) => Ok(blob),
            _ => Err(self.refuse(at, "a BLOB")),
        }
    }

    /// Text, or `None` for NULL.
    pub fn optional_text(&self, at: usize, wanted: &str) -> Result<Option<&'a str>> {
        match self.value(at) {
            ValueRef::Null => Ok(None),
            ValueRef::Text(text) => match std::str::from_utf8(text) {
                Ok(text) => Ok(Some(text)),
                Err(_) => Err(self.refuse(at, wanted)),
            },
            _ => Err(self.refuse(at, wanted)),
        }
    }

    /// A JSON object, or `None` for NULL. What is in it isn't told: it may be secret.
    pub fn object(&self, at: usize) -> Result<Option<serde_json::Map<String, serde_json::Value>>> {
        const WANTED: &str = "options as a JSON object, like json_object('key', 'value')";
        let Some(text) = self.optional_text(at, WANTED)? else { return Ok(None) };
        let what = format!("{} of {}", self.name(at), self.function);
        let text = match tideline_sync::options(text) {
            Ok(options) => return Ok(Some(options)),
            Err(Unread::NoObject) => format!("{what} is no JSON object; give {WANTED}"),
            Err(Unread::Twice(name)) => {
                format!("{what} has '{}' twice; give it once", excerpt(name.as_bytes()))
            }
        };
        Err(Error::new(Code::Argument, text))
    }

    /// A JSON object with some of these keys; NULL is an empty one.
    pub fn options(&self, at: usize, known: &[&str]) -> Result<serde_json::Map<String, serde_json::Value>> {
        let Some(options) = self.object(at)? else { return Ok(serde_json::Map::new()) };
        match options.keys().find(|key| !known.contains(&key.as_str())) {
            None => Ok(options),
            Some(key) => {
                let known = if known.is_empty() {
                    "it takes none yet".to_owned()
                } else {
                    format!("it takes {}", known.join(", "))
                };
                let text = format!("{} has no option '{}'; {known}", self.function, excerpt(key.as_bytes()));
                Err(Error::new(Code::Argument, text))
            }
        }
    }

    /// The path of a file, made absolute.
    pub fn path(&self, at: usize) -> Result<PathBuf> {
        const WANTED: &str = "the path of a file, as TEXT";
        let ValueRef::Text(text) = self.value(at) else { return Err(self.refuse(at, WANTED)) };
        if text.is_empty() || text.contains(&0) {
            return Err(self.refuse(at, WANTED));
        }
        let path = tideline_journal::disk::path_from(text).ok_or_else(|| self.refuse(at, WANTED))?;
        Ok(std::path::absolute(path)?)
    }

    /// The schema, named by the last argument.
    pub fn schema(&self) -> Result<&'a str> {
        let last = self.names.len().saturating_sub(1);
        let schema = self.optional_text(last, "the name of a schema, as TEXT")?.unwrap_or("main");
        if schema.is_empty() || schema.contains('\0') {
            return Err(self.refuse(last, "the name of a schema, as TEXT"));
        }
        Ok(schema)
    }
}

/// Text for a message: short, on one line.
fn excerpt(text: &[u8]) -> String {
    const LONGEST: usize = 40;
    let text = String::from_utf8_lossy(text);
    let mut short: String =
        text.chars().take(LONGEST).map(|c| if c.is_control() { ' ' } else { c }).collect();
    if text.chars().nth(LONGEST).is_some() {
        short.push('…');
    }
    short
}

#[cfg(test)]
mod tests {
    use super::*;

    const NAMES: &[&str] = &["after_lsn", "max_bytes", "schema"];

    fn arguments<'a>(values: &[ValueRef<'a>]) -> Arguments<'a> {
        Arguments::new("tide_prepare", NAMES, values.to_vec())
    }

    fn refused<T>(result: Result<T>) -> String {
        let error = result.err().expect("a refusal");
        assert_eq!(error.code(), Code::Argument);
        assert!(error.text().contains("; "), "{error}");
        error.to_string()
    }

    /// One value of each type that isn't an INTEGER.
    const OTHERS: [ValueRef<'static>; 3] = [ValueRef::Real(1.0), ValueRef::Text(b"1"), ValueRef::Blob(b"1")];

    #[test]
    fn an_lsn_is_an_integer_from_0_on() {
        assert_eq!(arguments(&[ValueRef::Integer(0)]).lsn(0).ok(), Some(Lsn::ZERO));
        assert_eq!(arguments(&[ValueRef::Integer(i64::MAX)]).lsn(0).ok(), Some(Lsn::new(i64::MAX as u64)));
        assert_eq!(arguments(&[]).optional_lsn(0).ok(), Some(None));
        assert!(
            refused(arguments(&[ValueRef::Integer(-1)]).lsn(0))
                .contains("after_lsn of tide_prepare can't be -1")
        );
        assert!(refused(arguments(&[ValueRef::Null]).lsn(0)).contains("NULL"));
        for value in OTHERS {
            refused(arguments(&[value]).optional_lsn(0));
        }
    }

    #[test]
    fn a_size_is_an_integer_above_0() {
        let size = |value| arguments(&[ValueRef::Null, value]).optional_size(1);
        assert_eq!(size(ValueRef::Null).ok(), Some(None));
        assert_eq!(size(ValueRef::Integer(1)).ok(), Some(Some(1)));
        for value in [ValueRef::Integer(0), ValueRef::Integer(i64::MIN)].into_iter().chain(OTHERS) {
            assert!(refused(size(value)).contains("max_bytes"));
        }
    }

    #[test]
    fn the_last_argument_is_the_schema() {
        let schema = |value| arguments(&[ValueRef::Null, ValueRef::Null, value]).schema().map(str::to_owned);
        assert_eq!(arguments(&[]).schema().ok(), Some("main"));
        assert_eq!(schema(ValueRef::Null).ok().as_deref(), Some("main"));
        assert_eq!(schema(ValueRef::Text(b"b")).ok().as_deref(), Some("b"));
        for value in
            [&b""[..], b"a\0b", b"\xff"].map(ValueRef::Text).into_iter().chain([ValueRef::Integer(1)])
        {
            assert!(refused(schema(value)).contains("schema"));
        }
    }

    #[test]
    fn options_that_came_later_than_the_schema_are_told_from_it() {
        const NAMES: &[&str] = &["name", OPTIONS_OR_SCHEMA, "schema"];
        let given = |values: &[ValueRef<'static>]| {
            let arguments = Arguments::new("tide_pull", NAMES, values.to_vec());
            let schema = arguments.schema().map(str::to_owned).unwrap();
            (arguments.object(1).unwrap().map(|options| options.len()), schema)
        };
        let text = |text: &'static str| ValueRef::Text(text.as_bytes());
        let origin = text("origin");
        assert_eq!(given(&[origin]), (None, "main".to_owned()));
        assert_eq!(given(&[origin, text("aux")]), (None, "aux".to_owned()));
        assert_eq!(given(&[origin, text(" {\"every\":\"1s\"}")]), (Some(1), "main".to_owned()));
        assert_eq!(given(&[origin, text("{}"), text("aux")]), (Some(0), "aux".to_owned()));
        assert_eq!(given(&[origin, ValueRef::Null, text("aux")]), (None, "aux".to_owned()));
    }

    #[test]
    fn blobs_and_paths_are_of_their_type() {
        assert_eq!(arguments(&[]).blob(0).ok(), Some(&[][..]));
        assert_eq!(arguments(&[ValueRef::Blob(b"x")]).blob(0).ok(), Some(&b"x"[..]));
        refused(arguments(&[ValueRef::Text(b"x")]).blob(0));
        assert!(
            arguments(&[ValueRef::Text(b"x")])
                .path(0)
                .is_ok_and(|path| path.is_absolute() && path.ends_with("x"))
        );
        for value in [ValueRef::Text(b""), ValueRef::Text(b"a\0"), ValueRef::Null, ValueRef::Blob(b"x")] {
            refused(arguments(&[value]).path(0));
        }
    }

    #[test]
    fn a_long_argument_is_shortened_in_messages() {
        let long = "ä\n".repeat(100);
        let error = refused(arguments(&[ValueRef::Text(long.as_bytes())]).lsn(0));
        assert!(error.len() < 200 && error.contains('…') && !error.contains('\n'), "{error}");
    }
}
