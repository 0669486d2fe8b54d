//! SQLite's C interface, as far as rusqlite doesn't serve: functions whose errors keep their code,
//! and a few questions to a connection. The `unsafe` code of this crate is here and in `table.rs`.

use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::marker::PhantomData;
use std::sync::Arc;
use std::time::Duration;

use rusqlite::types::{Value, ValueRef};
use rusqlite::{Connection, ffi};
use tideline_journal::{Error, Interrupt, Result};

use crate::argument::Arguments;
use crate::call::Call;
use crate::failure::{guard, sqlite_code};
use crate::locate::{Locate, Located};

/// A connection, during one of its callbacks.
#[derive(Clone, Copy)]
pub(crate) struct Host<'a> {
    db: *mut ffi::sqlite3,
    callback: PhantomData<&'a ()>,
}

impl Host<'_> {
    /// # Safety
    /// `db` is an open connection, used by this thread alone for as long as the value lives.
    pub unsafe fn new(db: *mut ffi::sqlite3) -> Self {
        Host { db, callback: PhantomData }
    }

    /// True between BEGIN or SAVEPOINT and its end.
    pub fn in_transaction(self) -> bool {
        // SAFETY: the connection is open.
        unsafe { ffi::sqlite3_get_autocommit(self.db) == 0 }
    }

    /// True if the connection can't write this schema, or isn't to.
    pub fn only_reads(self, schema: &str) -> bool {
        let Ok(name) = CString::new(schema) else { return false };
        // SAFETY: the connection is open, and isn't closed with the value.
        let (read_only, connection) = unsafe {
            (ffi::sqlite3_db_readonly(self.db, name.as_ptr()) == 1, Connection::from_handle(self.db))
        };
        let asked: rusqlite::Result<bool> =
            connection.and_then(|connection| connection.query_row("PRAGMA query_only", (), |row| row.get(0)));
        read_only || asked.unwrap_or(false)
    }

    /// The longest value that the connection takes, in bytes.
    pub fn length_limit(self) -> usize {
        // SAFETY: the connection is open; a negative value only asks.
        let limit = unsafe { ffi::sqlite3_limit(self.db, ffi::SQLITE_LIMIT_LENGTH, -1) };
        usize::try_from(limit).unwrap_or(0)
    }

    /// How long the connection waits for locks; 0 where it doesn't, or has a busy handler of its own.
    pub fn busy_timeout(self) -> Duration {
        // SAFETY: the connection is open, and isn't closed with the value.
        let connection = unsafe { Connection::from_handle(self.db) };
        let ms: rusqlite::Result<i64> = connection
            .and_then(|connection| connection.query_row("PRAGMA busy_timeout", (), |row| row.get(0)));
        Duration::from_millis(ms.ok().and_then(|ms| u64::try_from(ms).ok()).unwrap_or(0))
    }

    /// True once the connection was interrupted. Only asked while a statement of it runs.
    pub fn interrupted(self) -> bool {
        // SAFETY: the connection is open, and isn't closed with the value.
        let Ok(connection) = (unsafe { Connection::from_handle(self.db) }) else { return false };
        // `sqlite3_is_interrupted` came with SQLite 3.41. Any other statement ends at once, too.
        let asked: rusqlite::Result<i64> = connection.query_row("SELECT 1", (), |row| row.get(0));
        asked.is_err_and(|e| e.sqlite_error_code() == Some(rusqlite::ErrorCode::OperationInterrupted))
    }

    /// What asks [`Host::interrupted`] in the middle of work. It is only asked during the callback.
    pub fn interrupt(self) -> Interrupt {
        fn asked(db: usize) -> bool {
            // SAFETY: the callback of the connection hasn't returned yet.
            unsafe { Host::new(db as *mut ffi::sqlite3) }.interrupted()
        }
        Interrupt::new(asked, self.db as usize)
    }

    /// The first pages of a schema's tables and indexes, with their names: as far as its own table can be read.
    pub fn roots(self, schema: &str) -> Vec<(u32, String)> {
        let mut roots = vec![(1, "sqlite_schema".to_owned())];
        let sql = format!(
            "SELECT rootpage, name FROM \"{}\".sqlite_master WHERE rootpage > 0",
            schema.replace('"', "\"\"")
        );
        // SAFETY: the connection is open, and isn't closed with the value.
        let Ok(connection) = (unsafe { Connection::from_handle(self.db) }) else { return roots };
        let Ok(mut statement) = connection.prepare(&sql) else { return roots };
        let Ok(rows) = statement.query_map((), |row| Ok((row.get(0)?, row.get(1)?))) else { return roots };
        roots.extend(rows.map_while(rusqlite::Result::ok));
        roots
    }

    /// The store behind a schema.
    pub fn locate(self, locate: &dyn Locate, schema: &str) -> Result<Located> {
        // SAFETY: the connection is open, and this thread's.
        unsafe { locate.locate(self.db, schema) }
    }
}

/// Writes a line into SQLite's error log.
pub(crate) fn log(code: c_int, text: &str) {
    if let Ok(text) = CString::new(text.replace('\0', " ")) {
        // SAFETY: the text is passed as an argument of a constant format, never as the format.
        unsafe { ffi::sqlite3_log(code, c"%s".as_ptr(), text.as_ptr()) };
    }
}

/// Who may call a function from where.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Use {
    /// Anybody, also triggers and views of a schema that isn't trusted.
    Innocuous,
    /// Whoever the schema's `trusted_schema` allows.
    Reading,
    /// Statements of the application alone, not triggers and views.
    Command,
}

/// A scalar function.
pub(crate) struct Function {
    /// Its name.
    pub name: &'static CStr,
    /// Its arguments, the schema last.
    pub arguments: &'static [&'static str],
    /// How many of them can't be left out.
    pub least: usize,
    /// Who may call it.
    pub for_use: Use,
    /// What it does.
    pub body: fn(&Call<'_>) -> Result<Value>,
}

/// What SQLite keeps for a registered function.
struct Registered {
    function: &'static Function,
    locate: Arc<dyn Locate>,
}

/// Registers a function, once for each number of arguments.
pub(crate) fn create(
    connection: &Connection,
    function: &'static Function,
    locate: &Arc<dyn Locate>,
) -> rusqlite::Result<()> {
    let trust = match function.for_use {
        Use::Innocuous => ffi::SQLITE_INNOCUOUS,
        Use::Reading => 0,
        Use::Command => ffi::SQLITE_DIRECTONLY,
    };
    for count in function.least..=function.arguments.len() {
        let registered = Box::into_raw(Box::new(Registered { function, locate: Arc::clone(locate) }));
        // SAFETY: the connection is open; SQLite owns the box, and frees it also if it fails.
        let code = unsafe {
            ffi::sqlite3_create_function_v2(
                connection.handle(),
                function.name.as_ptr(),
                c_int::try_from(count).unwrap_or(-1),
                ffi::SQLITE_UTF8 | trust,
                registered.cast(),
                Some(call),
                None,
                None,
                Some(free),
            )
        };
        if code != ffi::SQLITE_OK {
            return Err(rusqlite::Error::SqliteFailure(ffi::Error::new(code), None));
        }
    }
    Ok(())
}

/// # Safety
/// SQLite's contract for a destructor of what [`create`] gave it.
unsafe extern "C" fn free(registered: *mut c_void) {
    // SAFETY: made by `Box::into_raw`, and freed once.
    drop(unsafe { Box::from_raw(registered.cast::<Registered>()) });
}

/// # Safety
/// SQLite's contract for `xFunc`, for a function that [`create`] registered.
unsafe extern "C" fn call(
    context: *mut ffi::sqlite3_context,
    count: c_int,
    values: *mut *mut ffi::sqlite3_value,
) {
    // SAFETY: the arguments are SQLite's; the values stay until the function returns, and so does
    // what the function was registered with.
    let (registered, host, values) = unsafe {
        let registered = &*ffi::sqlite3_user_data(context).cast::<Registered>();
        let values = match usize::try_from(count) {
            Ok(count) if count > 0 => std::slice::from_raw_parts(values, count),
            _ => &[],
        };
        (registered, Host::new(ffi::sqlite3_context_db_handle(context)), values)
    };
    let result = guard(|| {
        // SAFETY: as above.
        let values = values.iter().map(|&value| unsafe { value_ref(value) }).collect();
        let name = registered.function.name.to_str().unwrap_or_default();
        let call = Call {
            arguments: Arguments::new(name, registered.function.arguments, values),
            host,
            locate: &*registered.locate,
        };
        let result = host.interrupt().over(|| (registered.function.body)(&call));
        crate::trace::called(name, &result);
        if let Err(error) = &result {
            registered.locate.note(error);
        }
        result
    });
    // SAFETY: the context is that of the call.
    unsafe {
        match result {
            Ok(value) => answer(context, &value),
            Err(error) => fail(context, &error),
        }
    }
}

/// # Safety
/// `value` is an argument of the running function; the result lives no longer than it.
unsafe fn value_ref<'a>(value: *mut ffi::sqlite3_value) -> ValueRef<'a> {
    // SAFETY: the length is asked for after the bytes, as SQLite wants it, and is theirs.
    unsafe {
        let bytes = |start: *const u8| match usize::try_from(ffi::sqlite3_value_bytes(value)) {
            Ok(len) if len > 0 && !start.is_null() => std::slice::from_raw_parts(start, len),
            _ => &[],
        };
        match ffi::sqlite3_value_type(value) {
            ffi::SQLITE_INTEGER => ValueRef::Integer(ffi::sqlite3_value_int64(value)),
            ffi::SQLITE_FLOAT => ValueRef::Real(ffi::sqlite3_value_double(value)),
            ffi::SQLITE_TEXT => ValueRef::Text(bytes(ffi::sqlite3_value_text(value))),
            ffi::SQLITE_BLOB => ValueRef::Blob(bytes(ffi::sqlite3_value_blob(value).cast())),
            _ => ValueRef::Null,
        }
    }
}

/// # Safety
/// `context` is that of the running function.
unsafe fn answer(context: *mut ffi::sqlite3_context, value: &Value) {
    // SAFETY: SQLite copies what it is given; an empty Rust slice isn't null, so it stays a value.
    unsafe {
        match value {
            Value::Null => ffi::sqlite3_result_null(context),
            Value::Integer(number) => ffi::sqlite3_result_int64(context, *number),
            Value::Real(number) => ffi::sqlite3_result_double(context, *number),
            Value::Text(text) => ffi::sqlite3_result_text64(
                context,
                text.as_ptr().cast::<c_char>(),
                text.len() as u64,
                ffi::SQLITE_TRANSIENT(),
                ffi::SQLITE_UTF8 as u8,
            ),
            Value::Blob(blob) => ffi::sqlite3_result_blob64(
                context,
                blob.as_ptr().cast::<c_void>(),
                blob.len() as u64,
                ffi::SQLITE_TRANSIENT(),
            ),
        }
    }
}

/// # Safety
/// As [`answer`].
unsafe fn fail(context: *mut ffi::sqlite3_context, error: &Error) {
    let text = error.to_string();
    // SAFETY: SQLite copies the text. The code comes after it, because the text sets one too.
    unsafe {
        ffi::sqlite3_result_error(
            context,
            text.as_ptr().cast::<c_char>(),
            c_int::try_from(text.len()).unwrap_or(-1),
        );
        ffi::sqlite3_result_error_code(context, sqlite_code(error.code()));
    }
}
