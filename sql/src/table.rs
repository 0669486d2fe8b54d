//! Table-valued functions that can be read as plain tables: eponymous virtual tables whose hidden
//! columns are the arguments.

use std::borrow::Cow;
use std::ffi::{CStr, c_int};
use std::marker::PhantomData;
use std::sync::Arc;

use rusqlite::Connection;
use rusqlite::ffi::{sqlite3, sqlite3_vtab, sqlite3_vtab_cursor};
use rusqlite::types::{Value, ValueRef};
use rusqlite::vtab::{
    Context, Filters, IndexConstraintOp, IndexInfo, Module, VTab, VTabConfig, VTabConnection, VTabCursor,
};
use tideline_journal::Result;

use crate::argument::Arguments;
use crate::call::Call;
use crate::failure::{failure, guard};
use crate::locate::Locate;
use crate::raw::{Host, Use};

/// The rows of one scan, made as they are asked for.
pub(crate) type Rows = Box<dyn Iterator<Item = Result<Vec<Value>>>>;

/// A table-valued function.
pub(crate) struct Listing {
    /// Its name.
    pub name: &'static CStr,
    /// `CREATE TABLE x(…)`: the columns, then the arguments, hidden.
    pub declaration: &'static CStr,
    /// Number of columns before the arguments.
    pub columns: usize,
    /// Its arguments, the schema last.
    pub arguments: &'static [&'static str],
    /// Columns by each of which its rows ascend.
    pub ascending: &'static [c_int],
    /// Who may read it.
    pub for_use: Use,
    /// Begins a scan.
    pub open: fn(&Call<'_>) -> Result<Rows>,
}

impl Listing {
    /// Number of the argument that a column is.
    fn argument(&self, column: c_int) -> Option<usize> {
        let at = usize::try_from(column).ok()?.checked_sub(self.columns)?;
        (at < self.arguments.len()).then_some(at)
    }
}

/// Registers a table with a connection.
pub(crate) fn create(
    connection: &Connection,
    listing: &'static Listing,
    locate: &Arc<dyn Locate>,
) -> rusqlite::Result<()> {
    const MODULE: Module<'static, Table> = Module::eponymous_only_module();
    connection.create_module(listing.name, &MODULE, Some(Shared { listing, locate: Arc::clone(locate) }))
}

/// What the scans of a table share.
#[derive(Clone)]
pub(crate) struct Shared {
    listing: &'static Listing,
    locate: Arc<dyn Locate>,
}

/// A table of a connection.
#[repr(C)]
pub(crate) struct Table {
    base: sqlite3_vtab,
    db: *mut sqlite3,
    shared: Shared,
}

// SAFETY: the struct is `repr(C)` and begins with the base.
unsafe impl<'vtab> VTab<'vtab> for Table {
    type Aux = Shared;
    type Cursor = Scan<'vtab>;

    fn connect(
        db: &mut VTabConnection,
        aux: Option<&Shared>,
        _module: &[u8],
        _database: &[u8],
        _table: &[u8],
        _arguments: &[&[u8]],
    ) -> rusqlite::Result<(Cow<'static, CStr>, Table)> {
        let shared = aux.cloned().ok_or(rusqlite::Error::InvalidQuery)?;
        match shared.listing.for_use {
            Use::Innocuous => db.config(VTabConfig::Innocuous)?,
            Use::Reading => {}
            Use::Command => db.config(VTabConfig::DirectOnly)?,
        }
        let declaration = Cow::Borrowed(shared.listing.declaration);
        // SAFETY: the connection outlives its tables.
        let db = unsafe { db.handle() };
        Ok((declaration, Table { base: sqlite3_vtab::default(), db, shared }))
    }

    fn best_index(&self, info: &mut IndexInfo) -> rusqlite::Result<bool> {
        guard(|| Ok(plan(self.shared.listing, info))).map_err(|error| failure(&error))
    }

    fn open(&'vtab mut self) -> rusqlite::Result<Scan<'vtab>> {
        Ok(Scan {
            base: sqlite3_vtab_cursor::default(),
            db: self.db,
            shared: self.shared.clone(),
            rows: None,
            row: None,
            number: 0,
            given: Vec::new(),
            table: PhantomData,
        })
    }
}

/// Has SQLite pass the arguments in their order; bit n of the plan's number says that argument n is
/// passed. False if it can't.
fn plan(listing: &Listing, info: &mut IndexInfo) -> bool {
    let mut given: Vec<Option<usize>> = vec![None; listing.arguments.len()];
    let mut unusable = vec![false; listing.arguments.len()];
    for (number, constraint) in info.constraints().enumerate() {
        let Some(at) = listing.argument(constraint.column()) else { continue };
        let equal = matches!(
            constraint.operator(),
            IndexConstraintOp::SQLITE_INDEX_CONSTRAINT_EQ | IndexConstraintOp::SQLITE_INDEX_CONSTRAINT_IS
        );
        if equal && !constraint.is_usable() {
            unusable[at] = true;
        } else if equal && given[at].is_none() {
            given[at] = Some(number);
        }
    }
    if given.iter().zip(&unusable).any(|(given, unusable)| *unusable && given.is_none()) {
        return false;
    }
    let (mut bits, mut passed) = (0, 0);
    for (at, number) in given.iter().enumerate() {
        if let Some(number) = number {
            passed += 1;
            bits |= 1 << at;
            let mut usage = info.constraint_usage(*number);
            usage.set_argv_index(passed);
            usage.set_omit(true);
        }
    }
    info.set_idx_num(bits);
    info.set_estimated_cost(1000.0);
    info.set_estimated_rows(1000);
    let mut order = info.order_bys();
    let ordered = match (order.next(), order.next()) {
        (Some(by), None) => {
            !by.is_order_by_desc() && (by.column() == -1 || listing.ascending.contains(&by.column()))
        }
        _ => false,
    };
    if ordered {
        info.set_order_by_consumed(true);
    }
    true
}

/// A scan of a table.
#[repr(C)]
pub(crate) struct Scan<'vtab> {
    base: sqlite3_vtab_cursor,
    db: *mut sqlite3,
    shared: Shared,
    rows: Option<Rows>,
    /// The current row; `None` at the end.
    row: Option<Vec<Value>>,
    /// Its rowid.
    number: i64,
    /// The arguments.
    given: Vec<Value>,
    table: PhantomData<&'vtab Table>,
}

impl Scan<'_> {
    fn begin(&mut self, bits: c_int, passed: &Filters<'_>) -> Result<()> {
        (self.rows, self.row, self.number) = (None, None, 0);
        let listing = self.shared.listing;
        let mut passed = passed.iter();
        let take = |at: usize| if bits & (1 << at) != 0 { passed.next() } else { None };
        let values: Vec<ValueRef<'_>> =
            (0..listing.arguments.len()).map(take).map(|value| value.unwrap_or(ValueRef::Null)).collect();
        // Not valid text is refused below.
        self.given = values.iter().map(|&value| Value::try_from(value).unwrap_or(Value::Null)).collect();
        let call = Call {
            arguments: Arguments::new(listing.name.to_str().unwrap_or_default(), listing.arguments, values),
            // SAFETY: SQLite scans a table of a connection in the thread that uses the connection.
            host: unsafe { Host::new(self.db) },
            locate: &*self.shared.locate,
        };
        self.rows = Some(call.host.interrupt().over(|| (listing.open)(&call))?);
        self.step()
    }

    fn step(&mut self) -> Result<()> {
        // The row before is freed before the next is made: it may be large.
        self.row = None;
        // SAFETY: as in `begin`.
        let host = unsafe { Host::new(self.db) };
        let next = host.interrupt().over(|| self.rows.as_mut().and_then(Iterator::next));
        self.row = next.transpose()?;
        self.number += 1;
        Ok(())
    }

    fn told(&self, result: Result<()>) -> rusqlite::Result<()> {
        result.map_err(|error| {
            self.shared.locate.note(&error);
            failure(&error)
        })
    }
}

// SAFETY: the struct is `repr(C)` and begins with the base.
unsafe impl VTabCursor for Scan<'_> {
    fn filter(&mut self, bits: c_int, _plan: Option<&str>, passed: &Filters<'_>) -> rusqlite::Result<()> {
        let begun = guard(|| self.begin(bits, passed));
        self.told(begun)
    }

    fn next(&mut self) -> rusqlite::Result<()> {
        let stepped = guard(|| self.step());
        self.told(stepped)
    }

    fn eof(&self) -> bool {
        self.row.is_none()
    }

    fn column(&self, context: &mut Context, column: c_int) -> rusqlite::Result<()> {
        let value = match self.shared.listing.argument(column) {
            Some(at) => self.given.get(at),
            None => self.row.as_ref().zip(usize::try_from(column).ok()).and_then(|(row, at)| row.get(at)),
        };
        context.set_result(value.unwrap_or(&Value::Null))
    }

    fn rowid(&self) -> rusqlite::Result<i64> {
        Ok(self.number)
    }
}

impl Drop for Scan<'_> {
    fn drop(&mut self) {
        let rows = self.rows.take();
        // Nobody is left to tell.
        let _ = guard(|| {
            drop(rows);
            Ok(())
        });
    }
}
