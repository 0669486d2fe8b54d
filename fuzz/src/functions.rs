//! The `functions` target: whatever a function is called with, it answers or says what is wrong, and the database stays
//! sound.
//!
//! An input is a plan: a database, and steps on a connection to it: calls of Tideline's functions and tables with any
//! number of arguments of any type, statements of the application, transactions. The files are real ones (`place.rs`),
//! and so are the folders that are remotes (`remotes.rs`): others have pushed to some, and what lies there is exchanged
//! and harmed between the steps.
//!
//! 1. Nothing panics, no memory is used beyond a small multiple of what is there, and SQLite gets back what it gave.
//! 2. A call answers with a value of its type, or with an error that is SQLite's about the number of arguments or has
//!    the text `tideline: CODE: cause; remedy`. An argument that can't be right makes it an error; so does a command
//!    inside a transaction.
//! 3. A call changes neither head nor content unless it is `tide_receive`, and then only if it says so, or `tide_pull`
//!    or `tide_sync`, which may have come a part of the way before they failed. The head only goes up. A blob that
//!    nobody changed brings the content that its source had; so does a pull, and a clone, whatever became of the
//!    remote. A push that succeeds brings the head there, and `tide_remotes` can always be read.
//! 4. At the end SQLite's `integrity_check` and `tide_verify` find nothing, and the same is true, with the same content,
//!    when the database is opened once more. No thread that remotes need is left then.

use std::fs;

use arbitrary::{Arbitrary, Unstructured};
use rusqlite::types::{Value as Sql, ValueRef};
use rusqlite::{Connection, ffi, params_from_iter};

use crate::budget::within;
use crate::calls::{Argument, FUNCTIONS, Function, Owned, Takes};
use crate::databases::{STATEMENTS, Start, content, fixture, lsn, open, path, put};
use crate::place;
use crate::remotes::{self, Known};
use crate::value::{self, pick};

/// Steps of a plan that are done, and arguments of a call.
const STEPS: usize = 10;
const ARGUMENTS: usize = 5;
/// Most memory of ours, and what SQLite may keep behind its last connection, in bytes.
const MORE: usize = 64 << 20;
const KEPT: i64 = 64 << 10;

#[derive(Arbitrary, Debug)]
struct Plan {
    start: u8,
    attached: bool,
    /// Another connection has a snapshot, up to this step.
    reader: u8,
    steps: Vec<Step>,
}

#[derive(Arbitrary, Debug)]
enum Step {
    Call(u8, Vec<Argument>, Form),
    /// Statements of the application.
    Statement(u8),
    Begin(bool),
    End(bool),
    Reopen,
    /// One remote is as another was.
    Exchange(u8, u8),
    /// An object of a remote is changed, cut or lost.
    Harm(u8, u8, u16, u8),
}

/// How a function is called.
#[derive(Arbitrary, Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    Select,
    /// For each of some rows.
    Rows,
    /// As an argument of another, and in a condition.
    Nested,
    /// A table, by its hidden columns, backwards.
    Columns,
}

/// The plan that an input stands for, for reading.
pub fn describe(data: &[u8]) -> String {
    value::describe::<Plan>(data)
}

/// Runs one input; returns what happened, in short.
///
/// # Panics
/// Where Tideline doesn't do what it should.
pub fn run(data: &[u8]) -> String {
    let Ok(plan) = Plan::arbitrary_take_rest(Unstructured::new(data)) else { return String::new() };
    let fixture = fixture();
    let start = pick(&fixture.starts, plan.start);
    getrandom::reset(8);
    remotes::put_remotes(&fixture.remotes);
    put(&path("main.db"), &start.files);
    put(&path("b.db"), &fixture.starts[0].files);
    // SAFETY: the function only asks.
    let before = unsafe { ffi::sqlite3_memory_used() };
    let trail = within(MORE, || Run::of(&plan, start));
    remotes::wait_for_threads();
    tidy();
    // SAFETY: as above.
    let after = unsafe { ffi::sqlite3_memory_used() };
    assert!(after <= before + KEPT, "SQLite had {before} bytes in use, and has {after}");
    trail
}

/// Removes what calls have left.
fn tidy() {
    for entry in fs::read_dir(place::folder()).expect("it is there").flatten() {
        let name = entry.file_name();
        if !["main.db", "b.db", "parameters.db"].iter().any(|own| name == *own) {
            drop(fs::remove_file(entry.path()).or_else(|_| fs::remove_dir_all(entry.path())));
        }
    }
}

struct Run {
    db: Connection,
    attached: bool,
    lsn: i64,
    content: String,
    /// The main database isn't ours any more.
    detached: bool,
    /// What was at some LSNs.
    known: Vec<Known>,
    /// An object of a remote isn't what it was.
    harmed: bool,
    trail: String,
}

impl Run {
    fn of(plan: &Plan, start: &Start) -> String {
        let db = open("main.db").unwrap_or_else(|e| panic!("{e}: it is sound"));
        let mut run = Run {
            db,
            attached: plan.attached,
            lsn: start.lsn,
            content: start.content.clone(),
            detached: false,
            known: fixture().known.clone(),
            harmed: false,
            trail: String::new(),
        };
        run.attach();
        run.check();
        let mut reader = None;
        if !plan.reader.is_multiple_of(4) {
            let other = open("main.db").unwrap_or_else(|e| panic!("{e}: it is sound"));
            other
                .execute_batch("BEGIN; SELECT * FROM sqlite_schema")
                .unwrap_or_else(|e| panic!("{e}: a snapshot"));
            reader = Some(other);
        }
        for (n, step) in plan.steps.iter().take(STEPS).enumerate() {
            if n == usize::from(plan.reader) {
                reader = None;
            }
            run.step(step);
            run.check();
        }
        drop(reader);
        run.end()
    }

    fn attach(&mut self) {
        if self.attached {
            let sql = format!("ATTACH 'file:{}?vfs=tideline' AS b", path("b.db").display());
            self.db.execute_batch(&sql).unwrap_or_else(|e| panic!("{e}: it is sound"));
        }
    }

    fn in_transaction(&self) -> bool {
        !self.db.is_autocommit()
    }

    fn step(&mut self, step: &Step) {
        match step {
            Step::Call(which, arguments, form) => {
                let function = pick(&FUNCTIONS, *which);
                let value = |(n, argument): (_, &Argument)| argument.value(function.takes.get(n).copied());
                let values: Vec<Owned> = arguments.iter().take(ARGUMENTS).enumerate().map(value).collect();
                self.call(function, values, *form);
            }
            Step::Statement(n) => {
                // A reader in the way, or a database that was detached, is an error; then nothing has changed.
                let sql: &str = pick::<&str>(&STATEMENTS, *n);
                let done = self.db.execute_batch(sql).is_ok();
                self.trail.push(if done { 's' } else { '-' });
                self.note();
            }
            Step::Begin(immediate) => {
                drop(self.db.execute_batch(if *immediate { "BEGIN IMMEDIATE" } else { "BEGIN" }));
            }
            Step::End(commit) => {
                drop(self.db.execute_batch(if *commit { "COMMIT" } else { "ROLLBACK" }));
                self.note();
            }
            Step::Reopen => {
                let before = self.content.clone();
                let rolled_back = self.in_transaction();
                let other = open("main.db").unwrap_or_else(|e| panic!("{e}: it is sound"));
                // Detached, it is adopted anew.
                self.detached = false;
                drop(std::mem::replace(&mut self.db, other));
                self.attach();
                self.note();
                assert!(rolled_back || self.content == before, "the content is as it was");
            }
            Step::Exchange(to, from) => remotes::exchange(&fixture().remotes, *to, *from),
            Step::Harm(remote, object, at, mask) => {
                remotes::harm(*remote, *object, *at, *mask);
                self.harmed = true;
            }
        }
    }

    /// Takes what is there now for what should be.
    fn note(&mut self) {
        self.content = content(&self.db);
        if !self.detached {
            self.lsn = lsn(&self.db);
            if !self.in_transaction() {
                self.known.push(Known::of(&self.db));
            }
        }
    }

    /// What should be there is.
    fn check(&self) {
        assert!(content(&self.db) == self.content, "the content is as it was");
        if !self.detached {
            assert_eq!(lsn(&self.db), self.lsn, "the head is where it was");
        }
    }

    fn call(&mut self, function: &Function, mut values: Vec<Owned>, mut form: Form) {
        for (value, takes) in values.iter_mut().zip(function.takes) {
            match (takes, &mut *value) {
                (Takes::Path, Owned::Text(text)) => inside(text),
                (Takes::Url | Takes::OptionalUrl, Owned::Text(text)) => remotes::inside_url(text),
                (Takes::Options | Takes::OptionsOrSchema, Owned::Text(text)) => {
                    remotes::inside_options(text);
                    if remotes::keeps_on(text) {
                        // What one row has begun the next would find under way.
                        form = Form::Select;
                    }
                }
                _ => {}
            }
        }
        let places: Vec<String> = (1..=values.len()).map(|n| format!("?{n}")).collect();
        let call = format!("{}({})", function.name, places.join(", "));
        let names = ["after_lsn", "max_bytes", "schema"];
        let names = &names[names.len() - function.takes.len().min(names.len())..];
        let by_columns = form == Form::Columns && function.table && values.len() <= names.len();
        let sql = match form {
            Form::Columns if by_columns => {
                let conditions: Vec<_> =
                    names.iter().zip(&places).map(|(name, at)| format!("{name} = {at}")).collect();
                let all = if conditions.is_empty() {
                    String::new()
                } else {
                    format!("WHERE {}", conditions.join(" AND "))
                };
                format!("SELECT * FROM {} {all} ORDER BY 1 DESC", function.name)
            }
            _ if function.table => format!("SELECT * FROM {call}"),
            Form::Rows => format!("SELECT {call} FROM (SELECT 1 UNION SELECT 2)"),
            Form::Nested => format!("SELECT x FROM (SELECT {call} AS x) WHERE x IS NOT 0 OR length(x) > 0"),
            Form::Select | Form::Columns => format!("SELECT {call}"),
        };
        let in_transaction = self.in_transaction();
        let result = rows(&self.db, &sql, &values);
        // NULL equals nothing, so there a table has no rows, or isn't asked.
        let asked = !by_columns || !values.contains(&Owned::Null);
        let wrong = self.wrong(function, &values) && asked;
        let retained =
            function.name == "tide_retain" && values.first().is_none_or(|value| *value == Owned::Null);
        let denied = function.command && in_transaction && !retained;
        let pulls = ["tide_pull", "tide_sync"].contains(&function.name);
        if pulls && !in_transaction && !self.detached {
            self.pulled();
        }
        match &result {
            Ok(answers) => {
                assert!(!wrong, "{sql} of {values:?} can't be answered, and was: {answers:?}");
                assert!(!denied, "{sql} ran inside of a transaction");
                self.answered(function, &values, answers);
            }
            Err(e) => {
                assert!(function.name != "tide_remotes" || wrong, "{e}: they can be read");
                let (error, text) = match e {
                    rusqlite::Error::SqliteFailure(error, text) => {
                        (error, text.as_deref().unwrap_or_default())
                    }
                    // A statement that can't be prepared.
                    rusqlite::Error::SqlInputError { error, msg, .. } => (error, msg.as_str()),
                    e => panic!("{sql} of {values:?}: {e}"),
                };
                told(function, &values, error, text);
                self.trail += text.split(' ').nth(1).unwrap_or("?");
            }
        }
    }

    /// True if the arguments can't be right, whatever the store is like.
    fn wrong(&self, function: &Function, values: &[Owned]) -> bool {
        if values.len() < function.least || values.len() > function.takes.len() {
            return true;
        }
        let wrong = |(value, takes): (&Owned, &Takes)| match (takes, value) {
            (Takes::Path | Takes::Lsn | Takes::Name | Takes::Url, Owned::Null) => true,
            (_, Owned::Null) => false,
            (Takes::Lsn | Takes::OptionalLsn, Owned::Integer(n)) => *n < 0,
            (Takes::OptionalSize, Owned::Integer(n)) => *n <= 0,
            (Takes::Blob, Owned::Blob(_)) => false,
            (Takes::Path, Owned::Text(text)) => text.is_empty() || text.contains(&0),
            (Takes::OptionalText, Owned::Text(text)) => std::str::from_utf8(text).is_err(),
            (Takes::Name | Takes::OptionalName, Owned::Text(text)) => !is_name(text),
            (Takes::Url | Takes::OptionalUrl, Owned::Text(text)) => {
                !text.starts_with(&remotes::url(b"")) || text.iter().any(|byte| b"?#".contains(byte))
            }
            (Takes::Options, Owned::Text(text)) => !looks_like_options(text),
            (Takes::Schema, Owned::Text(text)) => {
                !text.eq_ignore_ascii_case(b"main") && !self.is_attached(text)
            }
            _ => true,
        };
        let missing = (values.len()..function.least).any(|_| true);
        missing || values.iter().zip(takes(function, values)).any(|(value, takes)| wrong((value, &takes)))
    }

    fn is_attached(&self, schema: &[u8]) -> bool {
        self.attached && schema.eq_ignore_ascii_case(b"b")
    }

    /// Checks what a call answered.
    fn answered(&mut self, function: &Function, values: &[Owned], answers: &[Vec<Sql>]) {
        let schema = takes(function, values).position(|takes| takes == Takes::Schema);
        let schema = schema.and_then(|at| values.get(at)).cloned().unwrap_or(Owned::Null);
        let other = matches!(&schema, Owned::Text(text) if text.eq_ignore_ascii_case(b"b"));
        let name = match values.first() {
            Some(Owned::Text(name)) => String::from_utf8_lossy(name).into_owned(),
            _ => "origin".to_owned(),
        };
        let first = answers.first().and_then(|row| row.first());
        if !function.table {
            let right = match function.name {
                "tide_version" | "tide_status" | "tide_retain" | "tide_trace" | "tide_remote" => {
                    matches!(first, Some(Sql::Text(_)))
                }
                "tide_prepare" => matches!(first, Some(Sql::Blob(_) | Sql::Null)),
                "tide_last_error" => matches!(first, Some(Sql::Text(_) | Sql::Null)),
                _ => matches!(first, Some(Sql::Integer(_))),
            };
            assert!(right || first.is_none(), "{} answered {first:?}", function.name);
        }
        self.trail.push('.');
        let options = values.get(1).filter(|_| takes(function, values).nth(1) == Some(Takes::Options));
        if let (Some(Owned::Text(text)), Some(_)) = (options, first)
            && remotes::keeps_on(text)
        {
            remotes::wait_for_keeper(&self.db, &name, if other { "b" } else { "main" });
        }
        match function.name {
            "tide_lsn" if !other => assert!(first.is_none_or(|lsn| *lsn == Sql::Integer(self.lsn))),
            "tide_receive" if !other => self.received(values, first),
            "tide_detach" if !other => self.detached = true,
            "tide_remote" => assert!(answers.iter().all(|row| row[0] == Sql::Text(name.clone()))),
            "tide_push" | "tide_pull" | "tide_sync" if !other && !self.detached => {
                // For each row it did it again.
                let last = answers.last().and_then(|row| row.first());
                assert!(last.is_none_or(|lsn| *lsn == Sql::Integer(self.lsn)), "{last:?}, not {}", self.lsn);
            }
            "tide_clone" => {
                if let (Some(Owned::Text(path)), Some(Sql::Integer(lsn))) = (values.get(1), first) {
                    remotes::check_clone(path, *lsn, &self.known, self.harmed);
                }
            }
            "tide_verify" => assert!(answers.is_empty(), "{answers:?}"),
            _ => {}
        }
    }

    /// Checks what was received, if anything was.
    fn received(&mut self, values: &[Owned], first: Option<&Sql>) {
        let reached = match first {
            Some(Sql::Integer(lsn)) => *lsn,
            _ => return,
        };
        assert!(reached >= self.lsn, "it went from LSN {} back to {reached}", self.lsn);
        if reached == self.lsn {
            return;
        }
        let Some(Owned::Blob(blob)) = values.first() else {
            panic!("nothing was given, and something received")
        };
        let given = fixture().shipped.iter().find(|shipped| shipped.blob == *blob);
        let lineage: String = self
            .db
            .query_row("SELECT tide_status() ->> '$.lineage'", (), |row| row.get(0))
            .unwrap_or_else(|e| panic!("{e}: there is a store"));
        let now = content(&self.db);
        if let Some(given) = given {
            assert_eq!(given.lineage, lineage, "the lineage is the sender's");
            if given.lsn == reached {
                assert!(given.content == now, "the content is the sender's");
            }
        }
        (self.lsn, self.content) = (reached, now);
        self.trail += "received";
    }

    /// Checks what was pulled, if anything was.
    fn pulled(&mut self) {
        let now = Known::of(&self.db);
        assert!(now.lsn >= self.lsn, "it went from LSN {} back to {}", self.lsn, now.lsn);
        if now.lsn > self.lsn {
            assert!(now.fits(&self.known), "{now:?} isn't what was there");
            (self.lsn, self.content) = (now.lsn, now.content);
            self.trail += "pulled";
        }
    }

    /// Closes everything, and looks once more.
    fn end(mut self) -> String {
        if self.in_transaction() {
            drop(self.db.execute_batch("ROLLBACK"));
            self.note();
        }
        drop(self.db.query_row("SELECT tide_trace('off')", (), |_| Ok(())));
        for again in [false, true] {
            if again {
                let db = open("main.db").unwrap_or_else(|e| panic!("{e}: it is sound"));
                drop(std::mem::replace(&mut self.db, db));
            }
            let ours = again || !self.detached;
            let found: String = self
                .db
                .query_row("PRAGMA main.integrity_check", (), |row| row.get(0))
                .unwrap_or_else(|e| panic!("{e}: it is sound"));
            assert_eq!(found, "ok");
            assert!(content(&self.db) == self.content, "the content is as it was");
            if ours {
                let found = rows(&self.db, "SELECT * FROM tide_verify", &[]);
                assert!(matches!(&found, Ok(rows) if rows.is_empty()), "{found:?}");
            }
        }
        self.trail
    }
}

/// What a function takes for these arguments.
fn takes(function: &Function, values: &[Owned]) -> impl Iterator<Item = Takes> {
    let count = values.len();
    let options = matches!(values.last(), Some(Owned::Text(text)) if begins_object(text));
    function.takes.iter().enumerate().map(move |(n, takes)| match takes {
        Takes::OptionsOrSchema if n + 1 < count || options => Takes::Options,
        Takes::OptionsOrSchema => Takes::Schema,
        _ => *takes,
    })
}

fn begins_object(text: &[u8]) -> bool {
    text.trim_ascii_start().starts_with(b"{")
}

fn looks_like_options(text: &[u8]) -> bool {
    std::str::from_utf8(text).is_ok() && begins_object(text)
}

fn is_name(text: &[u8]) -> bool {
    (1..=64).contains(&text.len())
        && text.iter().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(byte))
}

/// Makes a path one that is in the folder.
fn inside(text: &mut Vec<u8>) {
    if text.is_empty() {
        return;
    }
    text.iter_mut().filter(|byte| **byte == b'/').for_each(|byte| *byte = b'_');
    // Nobody else's place but that of the database's own folder, which is there, or not.
    *text = [place::folder().as_os_str().as_encoded_bytes(), b"/", text].concat();
}

/// All rows that a statement gives.
fn rows(db: &Connection, sql: &str, values: &[Owned]) -> rusqlite::Result<Vec<Vec<Sql>>> {
    let mut statement = db.prepare(sql)?;
    let columns = statement.column_count();
    let mut rows = statement.query(params_from_iter(values))?;
    let mut all = Vec::new();
    while let Some(row) = rows.next()? {
        // Texts are UTF-8, which this checks; but for arguments that come back.
        let value = |n| match row.get_ref(n)? {
            ValueRef::Text(text) => Ok(Sql::Text(String::from_utf8_lossy(text).into_owned())),
            other => Sql::try_from(other).map_err(|_| rusqlite::Error::InvalidQuery),
        };
        all.push((0..columns).map(value).collect::<rusqlite::Result<Vec<_>>>()?);
    }
    Ok(all)
}

/// Checks that an error says what it should.
fn told(function: &Function, values: &[Owned], error: &ffi::Error, text: &str) {
    const CODES: [&str; 15] = [
        "ARGUMENT", "GAP", "FOREIGN", "DAMAGED", "DIVERGED", "TRIMMED", "FORMAT", "LIMIT", "MISSING",
        "OFFLINE", "DENIED", "BUSY", "POISONED", "IO", "FULL",
    ];
    assert!(!text.contains("internal error"), "{text}");
    assert_ne!(error.extended_code, ffi::SQLITE_OK, "{text}");
    let count = values.len() < function.least || values.len() > function.takes.len();
    if count && !text.starts_with("tideline: ") {
        assert!(text.contains("wrong number of arguments") || text.contains("too many arguments"), "{text}");
        return;
    }
    let rest =
        text.strip_prefix("tideline: ").unwrap_or_else(|| panic!("{} of {values:?}: {text}", function.name));
    let (code, cause) = rest.split_once(": ").unwrap_or_else(|| panic!("{text}"));
    assert!(CODES.contains(&code), "{text}");
    assert!(cause.contains("; "), "{text} says no remedy");
    assert!(!matches!(code, "IO" | "POISONED" | "FULL"), "{text}: the disk is sound");
}
