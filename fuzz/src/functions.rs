//! The `functions` target: whatever a function is called with, it answers or says what is wrong, and the database stays
//! sound.
//!
//! An input is a plan: a database, and steps on a connection to it: calls of Tideline's functions and tables with any
//! number of arguments of any type, statements of the application, transactions. The files are real ones (`place.rs`).
//!
//! 1. Nothing panics, no memory is used beyond a small multiple of what is there, and SQLite gets back what it gave.
//! 2. A call answers with a value of its type, or with an error that is SQLite's about the number of arguments or has
//!    the text `tideline: CODE: cause; remedy`. An argument that can't be right makes it an error; so does a command
//!    inside a transaction.
//! 3. A call changes neither head nor content unless it is `tide_receive`, and then only if it says so. A blob that
//!    nobody changed brings the content that its source had.
//! 4. At the end SQLite's `integrity_check` and `tide_verify` find nothing, and the same is true, with the same content,
//!    when the database is opened once more.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use arbitrary::{Arbitrary, Unstructured};
use rusqlite::types::{ToSqlOutput, Value as Sql, ValueRef};
use rusqlite::{Connection, OpenFlags, ToSql, ffi, params_from_iter};

use crate::budget::within;
use crate::pages::Files;
use crate::place;
use crate::value::{self, pick};

/// Steps of a plan that are done, and arguments of a call.
const STEPS: usize = 10;
const ARGUMENTS: usize = 5;
/// Most memory of ours, and what SQLite may keep behind its last connection, in bytes.
const MORE: usize = 64 << 20;
const KEPT: i64 = 64 << 10;

/// What a function takes in one place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Takes {
    Schema,
    Lsn,
    OptionalLsn,
    OptionalSize,
    Blob,
    Path,
    OptionalText,
}

/// A function, or a table with arguments.
struct Function {
    name: &'static str,
    least: usize,
    takes: &'static [Takes],
    table: bool,
    /// It can't run inside of a transaction.
    command: bool,
}

const fn function(name: &'static str, least: usize, takes: &'static [Takes], command: bool) -> Function {
    Function { name, least, takes, table: false, command }
}

const fn table(name: &'static str, takes: &'static [Takes]) -> Function {
    Function { name, least: 0, takes, table: true, command: false }
}

const FUNCTIONS: [Function; 15] = [
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

#[derive(Arbitrary, Debug)]
enum Argument {
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
    fn value(&self) -> Owned {
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
enum Owned {
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
    put(&path("main.db"), &start.files);
    put(&path("b.db"), &fixture.starts[0].files);
    // SAFETY: the function only asks.
    let before = unsafe { ffi::sqlite3_memory_used() };
    let trail = within(MORE, || Run::of(&plan, start));
    tidy();
    // SAFETY: as above.
    let after = unsafe { ffi::sqlite3_memory_used() };
    assert!(after <= before + KEPT, "SQLite had {before} bytes in use, and has {after}");
    trail
}

fn path(name: &str) -> PathBuf {
    place::folder().join(name)
}

fn open(name: &str) -> rusqlite::Result<Connection> {
    let flags =
        OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE | OpenFlags::SQLITE_OPEN_URI;
    let db = Connection::open_with_flags(format!("file:{}?vfs=tideline", path(name).display()), flags)?;
    db.busy_timeout(std::time::Duration::ZERO)?;
    Ok(db)
}

/// Puts the files of a database where it is opened. The database file itself stays the same one: the process keeps it
/// open.
fn put(database: &Path, files: &Files) {
    let side = tideline_journal::side_folder(database);
    drop(fs::remove_dir_all(&side));
    for (name, bytes) in files {
        if name.is_empty() {
            fs::write(database, bytes).expect("there is room");
        } else {
            fs::create_dir_all(&side).expect("there is room");
            fs::write(side.join(name), bytes).expect("there is room");
        }
    }
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

/// What a database holds, in words.
fn content(db: &Connection) -> String {
    let tables: i64 = db
        .query_row("SELECT count(*) FROM sqlite_schema WHERE name = 't'", (), |row| row.get(0))
        .unwrap_or_else(|e| panic!("{e}: the schema can be read"));
    if tables == 0 {
        return String::new();
    }
    let sql = "SELECT count(*) || ' ' || total(a) || ' ' || coalesce(group_concat(hex(b)), '') FROM t";
    db.query_row(sql, (), |row| row.get(0)).unwrap_or_else(|e| panic!("{e}: the table can be read"))
}

fn lsn(db: &Connection) -> i64 {
    db.query_row("SELECT tide_lsn()", (), |row| row.get(0))
        .unwrap_or_else(|e| panic!("{e}: there is a store"))
}

/// A database that plans begin with.
struct Start {
    /// By their names in the side folder; the database file has none.
    files: Files,
    lsn: i64,
    content: String,
}

/// A blob, and what its source had then.
struct Shipped {
    blob: Vec<u8>,
    lsn: i64,
    content: String,
    lineage: String,
}

struct Fixture {
    starts: Vec<Start>,
    shipped: Vec<Shipped>,
}

fn fixture() -> &'static Fixture {
    static FIXTURE: LazyLock<Fixture> = LazyLock::new(build);
    &FIXTURE
}

/// Statements of the application: what some fail with depends on what there is.
const STATEMENTS: [&str; 8] = [
    "CREATE TABLE IF NOT EXISTS t(a INTEGER PRIMARY KEY, b)",
    "INSERT INTO t(b) VALUES (zeroblob(40)), ('x')",
    "INSERT INTO t(b) SELECT zeroblob(900) FROM (SELECT 1 UNION SELECT 2 UNION SELECT 3)",
    "UPDATE t SET b = 'y' WHERE a % 2",
    "DELETE FROM t WHERE a > 4",
    "CREATE INDEX IF NOT EXISTS i ON t(b)",
    "VACUUM",
    "PRAGMA wal_checkpoint",
];

fn build() -> Fixture {
    getrandom::reset(7);
    // SAFETY: in the static library the connection may be null.
    let code = unsafe {
        tideline::sqlite3_tideline_init(std::ptr::null_mut(), std::ptr::null_mut(), std::ptr::null())
    };
    assert_eq!(code, ffi::SQLITE_OK);
    let mut fixture = Fixture { starts: Vec::new(), shipped: Vec::new() };
    // The base of an empty one has no bytes.
    fixture.starts.push(Start {
        files: Files::from([(String::new(), Vec::new())]),
        lsn: 0,
        content: String::new(),
    });
    for seed in 0..2 {
        put(&path("main.db"), &fixture.starts[0].files);
        let db = open("main.db").expect("it opens");
        for round in 0..3 {
            for statement in &STATEMENTS[..4 + seed] {
                db.execute_batch(statement).expect(statement);
            }
            ship(&db, &mut fixture.shipped);
            if round == 1 {
                db.query_row("SELECT tide_fold()", (), |_| Ok(())).expect("it folds");
            }
        }
        let (lsn, content) = (lsn(&db), content(&db));
        db.close().expect("it closes");
        fixture.starts.push(Start { files: take(&path("main.db")), lsn, content });
    }
    // One that stock SQLite made.
    put(&path("main.db"), &fixture.starts[0].files);
    let plain = Connection::open(path("main.db")).expect("it opens");
    plain.execute_batch(&STATEMENTS[..3].join(";")).expect("a table");
    let content = content(&plain);
    plain.close().expect("it closes");
    fixture.starts.push(Start { files: take(&path("main.db")), lsn: 1, content });
    fixture
}

/// Ships everything, and what is new since a few LSNs, whole and in pieces.
fn ship(db: &Connection, shipped: &mut Vec<Shipped>) {
    let (lsn, content) = (lsn(db), content(db));
    let lineage: String =
        db.query_row("SELECT tide_status() ->> '$.lineage'", (), |row| row.get(0)).expect("a lineage");
    let mut add = |sql: &str, after: i64| {
        let mut statement = db.prepare(sql).expect(sql);
        let mut rows = statement.query([after]).expect(sql);
        while let Some(row) = rows.next().expect(sql) {
            let blob = row.get(0).expect(sql);
            shipped.push(Shipped { blob, lsn, content: content.clone(), lineage: lineage.clone() });
        }
    };
    add("SELECT tide_prepare(?1)", 0);
    add("SELECT tide_prepare(?1)", lsn - 2);
    add("SELECT blob FROM tide_batches(?1, 2000)", lsn - 1);
}

/// The files of a database that nobody has open.
fn take(database: &Path) -> Files {
    let mut files = Files::from([(String::new(), fs::read(database).expect("it is there"))]);
    for entry in fs::read_dir(tideline_journal::side_folder(database)).into_iter().flatten().flatten() {
        let name = entry.file_name().into_string().expect("names are ours");
        files.insert(name, fs::read(entry.path()).expect("it is there"));
    }
    files.remove("control");
    files
}

struct Run {
    db: Connection,
    attached: bool,
    lsn: i64,
    content: String,
    /// The main database isn't ours any more.
    detached: bool,
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
                let values: Vec<Owned> = arguments.iter().take(ARGUMENTS).map(Argument::value).collect();
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
        }
    }

    /// Takes what is there now for what should be.
    fn note(&mut self) {
        self.content = content(&self.db);
        if !self.detached {
            self.lsn = lsn(&self.db);
        }
    }

    /// What should be there is.
    fn check(&self) {
        assert!(content(&self.db) == self.content, "the content is as it was");
        if !self.detached {
            assert_eq!(lsn(&self.db), self.lsn, "the head is where it was");
        }
    }

    fn call(&mut self, function: &Function, mut values: Vec<Owned>, form: Form) {
        for (value, takes) in values.iter_mut().zip(function.takes) {
            if let (Takes::Path, Owned::Text(text)) = (takes, &mut *value) {
                inside(text);
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
        match &result {
            Ok(answers) => {
                assert!(!wrong, "{sql} of {values:?} can't be answered, and was: {answers:?}");
                assert!(!denied, "{sql} ran inside of a transaction");
                self.answered(function, &values, answers);
            }
            Err(e) => {
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
            (Takes::Path | Takes::Lsn, Owned::Null) => true,
            (_, Owned::Null) => false,
            (Takes::Lsn | Takes::OptionalLsn, Owned::Integer(n)) => *n < 0,
            (Takes::OptionalSize, Owned::Integer(n)) => *n <= 0,
            (Takes::Blob, Owned::Blob(_)) => false,
            (Takes::Path, Owned::Text(text)) => text.is_empty() || text.contains(&0),
            (Takes::OptionalText, Owned::Text(text)) => std::str::from_utf8(text).is_err(),
            (Takes::Schema, Owned::Text(text)) => {
                !text.eq_ignore_ascii_case(b"main") && !self.is_attached(text)
            }
            _ => true,
        };
        let missing = (values.len()..function.least).any(|_| true);
        missing || values.iter().zip(function.takes).any(wrong)
    }

    fn is_attached(&self, schema: &[u8]) -> bool {
        self.attached && schema.eq_ignore_ascii_case(b"b")
    }

    /// Checks what a call answered.
    fn answered(&mut self, function: &Function, values: &[Owned], answers: &[Vec<Sql>]) {
        let schema = function.takes.iter().position(|takes| *takes == Takes::Schema);
        let schema = schema.and_then(|at| values.get(at)).cloned().unwrap_or(Owned::Null);
        let other = matches!(&schema, Owned::Text(text) if text.eq_ignore_ascii_case(b"b"));
        let first = answers.first().and_then(|row| row.first());
        if !function.table {
            let right = match function.name {
                "tide_version" | "tide_status" | "tide_retain" | "tide_trace" => {
                    matches!(first, Some(Sql::Text(_)))
                }
                "tide_prepare" => matches!(first, Some(Sql::Blob(_) | Sql::Null)),
                "tide_last_error" => matches!(first, Some(Sql::Text(_) | Sql::Null)),
                _ => matches!(first, Some(Sql::Integer(_))),
            };
            assert!(right || first.is_none(), "{} answered {first:?}", function.name);
        }
        self.trail.push('.');
        match function.name {
            "tide_lsn" if !other => assert!(first.is_none_or(|lsn| *lsn == Sql::Integer(self.lsn))),
            "tide_receive" if !other => self.received(values, first),
            "tide_detach" if !other => self.detached = true,
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
