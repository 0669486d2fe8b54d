//! The tables.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use rusqlite::Connection;
use rusqlite::types::Value;
use tideline_journal::{Finding, LogRow, Lsn, Result, Session, State, Store};

use crate::call::{Call, fitting};
use crate::functions::integer;
use crate::locate::Locate;
use crate::owner::{Pages, owners};
use crate::raw::Use;
use crate::remotes;
use crate::table::{self, Listing, Rows};
use crate::time::iso8601;

/// About the size of a piece of `tide_batches` when nobody says otherwise, in bytes.
const USUAL_BATCH: u64 = 16 << 20;

/// All of them.
static LISTINGS: [Listing; 4] = [
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
    Listing {
        name: c"tide_remotes",
        declaration: c"CREATE TABLE x(name TEXT, url TEXT, kind TEXT, head INTEGER, behind INTEGER, ahead INTEGER,
            last_success TEXT, last_error TEXT, next_try TEXT, requests INTEGER, bytes INTEGER, schema TEXT HIDDEN)",
        columns: 11,
        arguments: &["schema"],
        ascending: &[],
        for_use: Use::Innocuous,
        open: remotes::listing,
    },
];

/// Registers them with a connection.
pub(crate) fn register(connection: &Connection, locate: &Arc<dyn Locate>) -> rusqlite::Result<()> {
    LISTINGS.iter().try_for_each(|listing| table::create(connection, listing, locate))
}

pub(crate) fn text(text: impl Into<String>) -> Value {
    Value::Text(text.into())
}

pub(crate) fn or_null<T>(value: Option<T>, to_value: impl FnOnce(T) -> Value) -> Value {
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
    let store = call.located()?.store;
    let findings = store.verify()?;
    let pages: BTreeSet<u32> = findings.iter().filter_map(|finding| finding.page).collect();
    let owners = if pages.is_empty() {
        BTreeMap::new()
    } else {
        owners(&Head::new(&store)?, &call.host.roots(call.arguments.schema()?), pages)
    };
    let rows = findings.into_iter().map(move |finding| {
        let owner = finding.page.and_then(|page| owners.get(&page).cloned());
        Ok(finding_row(finding, owner))
    });
    Ok(Box::new(rows))
}

fn finding_row(finding: Finding, owner: Option<String>) -> Vec<Value> {
    vec![
        text(finding.severity),
        text(finding.file),
        or_null(finding.offset, integer),
        or_null(finding.lsn.map(Lsn::get), integer),
        or_null(finding.page, |page| integer(page.into())),
        or_null(owner, text),
        text(finding.message),
    ]
}

/// The pages of a store at its head.
struct Head {
    session: Session,
    state: State,
}

impl Head {
    fn new(store: &Arc<Store>) -> Result<Head> {
        let mut session = Session::new(Arc::clone(store))?;
        session.begin_read()?;
        let state = session.state().copied().unwrap_or_default();
        Ok(Head { session, state })
    }
}

impl Pages for Head {
    fn count(&self) -> u32 {
        self.state.size
    }

    fn page(&self, number: u32) -> Option<Vec<u8>> {
        let size = self.state.page_size;
        let mut page = vec![0; size as usize];
        let offset = u64::from(number.checked_sub(1)?) * u64::from(size);
        self.session.read(offset, &mut page).ok().filter(|&got| got == page.len()).map(|_| page)
    }
}
