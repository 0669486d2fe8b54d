//! The tables.

use std::sync::Arc;

use rusqlite::Connection;
use rusqlite::types::Value;
use tideline_journal::{Finding, LogRow, Lsn, Result};

use crate::call::{Call, fitting};
use crate::functions::integer;
use crate::locate::Locate;
use crate::raw::Use;
use crate::table::{self, Listing, Rows};
use crate::time::iso8601;

/// About the size of a piece of `tide_batches` when nobody says otherwise, in bytes.
const USUAL_BATCH: u64 = 16 << 20;

/// All of them.
static LISTINGS: [Listing; 3] = [
    Listing {
        name: c"tide_log",
        declaration:
            c"CREATE TABLE x(first_lsn INTEGER, last_lsn INTEGER, time TEXT, pages INTEGER, bytes INTEGER,
            size_pages INTEGER, checksum TEXT, kind TEXT, origin TEXT, schema TEXT HIDDEN)",
        columns: 9,
        arguments: &["schema"],
        ascending: &[0, 1],
        for_use: Use::Innocuous,
        open: log,
    },
    Listing {
        name: c"tide_batches",
        declaration:
            c"CREATE TABLE x(seq INTEGER, blob BLOB, after_lsn INTEGER HIDDEN, max_bytes INTEGER HIDDEN,
            schema TEXT HIDDEN)",
        columns: 2,
        arguments: &["after_lsn", "max_bytes", "schema"],
        ascending: &[0],
        for_use: Use::Reading,
        open: batches,
    },
    Listing {
        name: c"tide_verify",
        declaration: c"CREATE TABLE x(severity TEXT, file TEXT, offset INTEGER, lsn INTEGER, page INTEGER,
            object TEXT, message TEXT, schema TEXT HIDDEN)",
        columns: 7,
        arguments: &["schema"],
        ascending: &[],
        for_use: Use::Reading,
        open: verify,
    },
];

/// Registers them with a connection.
pub(crate) fn register(connection: &Connection, locate: &Arc<dyn Locate>) -> rusqlite::Result<()> {
    LISTINGS.iter().try_for_each(|listing| table::create(connection, listing, locate))
}

fn text(text: impl Into<String>) -> Value {
    Value::Text(text.into())
}

fn or_null<T>(value: Option<T>, to_value: impl FnOnce(T) -> Value) -> Value {
    value.map_or(Value::Null, to_value)
}

fn log(call: &Call<'_>) -> Result<Rows> {
    let rows = call.located()?.store.log()?;
    Ok(Box::new(rows.into_iter().map(|row| Ok(log_row(&row)))))
}

fn log_row(row: &LogRow) -> Vec<Value> {
    vec![
        integer(row.range.first.get()),
        integer(row.range.last.get()),
        text(iso8601(row.time)),
        integer(row.pages),
        integer(row.bytes),
        integer(row.size.into()),
        or_null(row.checksum, |checksum| text(format!("{checksum:016x}"))),
        text(row.kind),
        text(row.origin),
    ]
}

fn batches(call: &Call<'_>) -> Result<Rows> {
    let (after, asked) = (call.arguments.lsn(0)?, call.arguments.optional_size(1)?);
    let limit = call.host.length_limit();
    // A piece may get somewhat longer than it is asked to be.
    let most = limit as u64 / 2;
    let max_bytes = asked.map_or_else(|| (most < USUAL_BATCH).then_some(most), |bytes| Some(bytes.min(most)));
    let batches = call.located()?.store.batches(after, max_bytes)?;
    Ok(Box::new(batches.zip(1..).map(move |(blob, seq)| {
        let blob = fitting(blob?, limit)?;
        Ok(vec![integer(seq), Value::Blob(blob)])
    })))
}

fn verify(call: &Call<'_>) -> Result<Rows> {
    let findings = call.located()?.store.verify()?;
    Ok(Box::new(findings.into_iter().map(|finding| Ok(finding_row(finding)))))
}

fn finding_row(finding: Finding) -> Vec<Value> {
    vec![
        text(finding.severity),
        text(finding.file),
        or_null(finding.offset, integer),
        or_null(finding.lsn.map(Lsn::get), integer),
        or_null(finding.page, |page| integer(page.into())),
        Value::Null,
        text(finding.message),
    ]
}
