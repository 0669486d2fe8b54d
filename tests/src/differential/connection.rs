//! A connection of either side, by SQLite's C interface: a statement can be left half done, and nothing is retried,
//! cached or translated.

use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::fmt::Write;
use std::ptr::{null, null_mut};
use std::rc::Rc;

use rusqlite::ffi;

use super::answer::{After, Answer};

/// Longer values are told by a hash.
const LONG: usize = 48;

/// An open connection. Statements, blobs and backups keep it open.
#[derive(Clone)]
pub(super) struct Connection(Rc<Handle>);

struct Handle(*mut ffi::sqlite3);

impl Drop for Handle {
    fn drop(&mut self) {
        // SAFETY: whatever needs the connection holds this handle, so it is the last use.
        let code = unsafe { ffi::sqlite3_close(self.0) };
        assert_eq!(code, ffi::SQLITE_OK, "a connection with nothing under way is closed");
    }
}

/// What a call failed with: the extended code, and SQLite's text.
pub(super) type Failure = (c_int, String);

impl Connection {
    /// Opens a URI. Nobody waits for a lock.
    pub fn open(uri: &str) -> Result<Self, Failure> {
        let name = CString::new(uri).expect("a URI without a zero byte");
        let flags = ffi::SQLITE_OPEN_READWRITE | ffi::SQLITE_OPEN_CREATE | ffi::SQLITE_OPEN_URI;
        let mut db = null_mut();
        // SAFETY: the name ends in a zero, and `db` is written.
        let code = unsafe { ffi::sqlite3_open_v2(name.as_ptr(), &raw mut db, flags, null()) };
        let connection = Self(Rc::new(Handle(db)));
        if code != ffi::SQLITE_OK {
            return Err(connection.failure(code));
        }
        // SAFETY: the connection is open.
        unsafe {
            ffi::sqlite3_extended_result_codes(db, 1);
            ffi::sqlite3_busy_timeout(db, 0);
        }
        Ok(connection)
    }

    fn raw(&self) -> *mut ffi::sqlite3 {
        self.0.0
    }

    fn failure(&self, code: c_int) -> Failure {
        // SAFETY: the connection is open, and the text is copied at once.
        let text = unsafe { CStr::from_ptr(ffi::sqlite3_errmsg(self.raw())) };
        (code, text.to_string_lossy().into_owned())
    }

    fn check(&self, code: c_int) -> Result<(), Failure> {
        if code == ffi::SQLITE_OK { Ok(()) } else { Err(self.failure(code)) }
    }

    /// What an application can ask the connection after each call.
    pub fn after(&self) -> After {
        let db = self.raw();
        // SAFETY: the connection is open; no schema's name means the most that any of them is in.
        unsafe {
            After {
                changes: ffi::sqlite3_changes64(db),
                total_changes: ffi::sqlite3_total_changes64(db),
                last_rowid: ffi::sqlite3_last_insert_rowid(db),
                autocommit: ffi::sqlite3_get_autocommit(db) != 0,
                state: ffi::sqlite3_txn_state(db, null()),
            }
        }
    }

    /// The first statement of a text; `None` if there is none.
    pub fn prepare(&self, sql: &str) -> Result<Option<Statement>, Failure> {
        Ok(self.prepare_first(sql)?.0)
    }

    /// The same, and how much of the text it is.
    fn prepare_first(&self, sql: &str) -> Result<(Option<Statement>, usize), Failure> {
        let (mut raw, mut tail) = (null_mut(), null());
        let length = c_int::try_from(sql.len()).expect("a short text");
        let start = sql.as_ptr().cast::<c_char>();
        // SAFETY: the text has this length; the tail points into it.
        let taken = unsafe {
            self.check(ffi::sqlite3_prepare_v2(self.raw(), start, length, &raw mut raw, &raw mut tail))?;
            usize::try_from(tail.offset_from(start)).expect("the tail is behind the start")
        };
        Ok(((!raw.is_null()).then(|| Statement { raw, connection: self.clone() }), taken))
    }

    /// Runs every statement of a text. With `most`, each is interrupted after about so many operations of SQLite's
    /// virtual machine, which doesn't depend on what is below it.
    pub fn run(&self, sql: &str, most: Option<u32>) -> Answer {
        unsafe extern "C" fn stop(_: *mut c_void) -> c_int {
            1
        }
        if most.is_some() {
            // Reading the schema takes operations, too, and a PRAGMA that a VFS answers by itself has not read it. If it
            // can't be read, the statement will tell.
            drop(self.prepare("SELECT 1 FROM sqlite_schema"));
        }
        let most = most.map_or(0, |most| c_int::try_from(most).expect("a small number"));
        // SAFETY: the function stays; it is taken away again below, with no operations.
        unsafe { ffi::sqlite3_progress_handler(self.raw(), most, Some(stop), null_mut()) };
        let mut answer = Answer::default();
        if let Err(failure) = self.run_all(sql, &mut answer) {
            answer.fail(failure);
        }
        // SAFETY: as above.
        unsafe { ffi::sqlite3_progress_handler(self.raw(), 0, None, null_mut()) };
        answer.after = self.after();
        answer
    }

    fn run_all(&self, sql: &str, answer: &mut Answer) -> Result<(), Failure> {
        let mut rest = sql;
        while !rest.is_empty() {
            let (statement, taken) = self.prepare_first(rest)?;
            rest = &rest[taken..];
            if let Some(mut statement) = statement {
                while statement.step(&mut answer.rows)? {}
            }
        }
        Ok(())
    }

    /// Writes dirty pages out of the cache, and frees what it can.
    pub fn flush(&self) -> Result<(), Failure> {
        // SAFETY: the connection is open.
        unsafe {
            self.check(ffi::sqlite3_db_cacheflush(self.raw()))?;
            self.check(ffi::sqlite3_db_release_memory(self.raw()))
        }
    }

    /// Reads or overwrites a piece of a value in place.
    pub fn blob(
        &self,
        (schema, table, column): (&str, &str, &str),
        row: i64,
        (offset, length): (u32, u32),
        write: Option<u8>,
    ) -> Result<String, Failure> {
        let text = |text: &str| CString::new(text).expect("a name without a zero byte");
        let (schema, table, column) = (text(schema), text(table), text(column));
        let mut blob = null_mut();
        let number = |number: u32| c_int::try_from(number).expect("a small number");
        let mut bytes = vec![write.unwrap_or(0); length as usize];
        // SAFETY: names end in a zero; the blob is closed here; the bytes are as many as is said.
        unsafe {
            let opened = ffi::sqlite3_blob_open(
                self.raw(),
                schema.as_ptr(),
                table.as_ptr(),
                column.as_ptr(),
                row,
                c_int::from(write.is_some()),
                &raw mut blob,
            );
            self.check(opened)?;
            let whole = ffi::sqlite3_blob_bytes(blob);
            let done = if write.is_some() {
                ffi::sqlite3_blob_write(blob, bytes.as_ptr().cast(), number(length), number(offset))
            } else {
                ffi::sqlite3_blob_read(blob, bytes.as_mut_ptr().cast(), number(length), number(offset))
            };
            let done = self.check(done);
            let closed = self.check(ffi::sqlite3_blob_close(blob));
            done.and(closed)?;
            let mut told = format!("{whole} ");
            tell(&mut told, 'x', &bytes);
            Ok(told)
        }
    }

    /// Begins a copy of `from` (a connection and a schema of it) to `schema` of this one.
    pub fn backup(&self, schema: &str, from: (&Connection, &str)) -> Result<Backup, Failure> {
        let text = |text: &str| CString::new(text).expect("a name without a zero byte");
        let (to_schema, from_schema) = (text(schema), text(from.1));
        // SAFETY: both connections are open, and the copy holds them.
        let raw = unsafe {
            ffi::sqlite3_backup_init(self.raw(), to_schema.as_ptr(), from.0.raw(), from_schema.as_ptr())
        };
        if raw.is_null() {
            // SAFETY: the connection is open.
            return Err(self.failure(unsafe { ffi::sqlite3_extended_errcode(self.raw()) }));
        }
        Ok(Backup { raw, to: self.clone(), _from: from.0.clone() })
    }
}

/// A statement, maybe half done.
pub(super) struct Statement {
    raw: *mut ffi::sqlite3_stmt,
    connection: Connection,
}

impl Statement {
    /// One step: true if there was a row, which is told at the end of `rows`. After an error or the last row it is
    /// reset.
    pub fn step(&mut self, rows: &mut String) -> Result<bool, Failure> {
        // SAFETY: the statement is ours until it is dropped.
        let code = unsafe { ffi::sqlite3_step(self.raw) };
        if code == ffi::SQLITE_ROW {
            self.tell_row(rows);
            return Ok(true);
        }
        let failure = (code != ffi::SQLITE_DONE).then(|| self.connection.failure(code));
        // SAFETY: as above. It answers with the code of the step.
        unsafe { ffi::sqlite3_reset(self.raw) };
        failure.map_or(Ok(false), Err)
    }

    /// The connection's answers.
    pub fn after(&self) -> After {
        self.connection.after()
    }

    fn tell_row(&self, rows: &mut String) {
        // SAFETY: the statement is on a row; each value is read in its own type, and copied at once.
        unsafe {
            for at in 0..ffi::sqlite3_column_count(self.raw) {
                if at > 0 {
                    rows.push('|');
                }
                let bytes = |start: *const u8| {
                    let length = usize::try_from(ffi::sqlite3_column_bytes(self.raw, at)).unwrap_or(0);
                    if start.is_null() { &[] } else { std::slice::from_raw_parts(start, length) }
                };
                match ffi::sqlite3_column_type(self.raw, at) {
                    ffi::SQLITE_INTEGER => {
                        write!(rows, "{}", ffi::sqlite3_column_int64(self.raw, at)).expect("a string");
                    }
                    ffi::SQLITE_FLOAT => {
                        let number = ffi::sqlite3_column_double(self.raw, at);
                        write!(rows, "r{number:?}").expect("a string");
                    }
                    ffi::SQLITE_TEXT => {
                        tell(rows, 't', bytes(ffi::sqlite3_column_text(self.raw, at)));
                    }
                    ffi::SQLITE_BLOB => {
                        tell(rows, 'x', bytes(ffi::sqlite3_column_blob(self.raw, at).cast()));
                    }
                    _ => rows.push_str("NULL"),
                }
            }
        }
        rows.push('\n');
    }
}

impl Drop for Statement {
    fn drop(&mut self) {
        // SAFETY: the last use.
        unsafe { ffi::sqlite3_finalize(self.raw) };
    }
}

/// A copy that is under way.
pub(super) struct Backup {
    raw: *mut ffi::sqlite3_backup,
    to: Connection,
    _from: Connection,
}

impl Backup {
    /// Copies so many pages more, or all that is left if negative: true if that was all.
    pub fn step(&mut self, pages: i32) -> Result<bool, Failure> {
        // SAFETY: the copy is ours until it is dropped.
        match unsafe { ffi::sqlite3_backup_step(self.raw, pages) } {
            ffi::SQLITE_DONE => Ok(true),
            ffi::SQLITE_OK => Ok(false),
            code => Err((code, String::new())),
        }
    }

    /// Pages left, and pages in all.
    pub fn progress(&self) -> (c_int, c_int) {
        // SAFETY: as above.
        unsafe { (ffi::sqlite3_backup_remaining(self.raw), ffi::sqlite3_backup_pagecount(self.raw)) }
    }

    /// Ends it, done or not.
    pub fn finish(mut self) -> Result<(), Failure> {
        let raw = std::mem::replace(&mut self.raw, null_mut());
        // SAFETY: the last use.
        let code = unsafe { ffi::sqlite3_backup_finish(raw) };
        if code == ffi::SQLITE_OK { Ok(()) } else { Err((code, self.to.failure(code).1)) }
    }
}

impl Drop for Backup {
    fn drop(&mut self) {
        if !self.raw.is_null() {
            // SAFETY: the last use.
            unsafe { ffi::sqlite3_backup_finish(self.raw) };
        }
    }
}

/// A text or a blob; a long one by its length and a hash.
fn tell(rows: &mut String, kind: char, bytes: &[u8]) {
    let told = if bytes.len() > LONG {
        write!(rows, "{kind}[{}]#{:016x}", bytes.len(), hash(bytes))
    } else if kind == 't' {
        write!(rows, "{:?}", String::from_utf8_lossy(bytes))
    } else {
        rows.push('x');
        bytes.iter().try_for_each(|byte| write!(rows, "{byte:02x}"))
    };
    told.expect("a string");
}

/// FNV-1a, in words of eight bytes.
pub(super) fn hash(bytes: &[u8]) -> u64 {
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    let mut add = |word: u64| hash = (hash ^ word).wrapping_mul(0x0000_0100_0000_01b3).rotate_left(23);
    let (words, rest) = bytes.as_chunks::<8>();
    words.iter().for_each(|word| add(u64::from_le_bytes(*word)));
    rest.iter().for_each(|byte| add(u64::from(*byte)));
    hash
}
