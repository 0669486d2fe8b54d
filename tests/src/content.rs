//! What is in a database, for comparison.

use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash, Hasher};
use std::path::Path;

use rusqlite::{Connection, types::ValueRef};

/// A hash over the schema and over every row of every table, in an order that doesn't depend on where rows lie.
#[track_caller]
pub fn content(connection: &Connection) -> u64 {
    hash(connection).unwrap_or_else(|error| panic!("the content can't be read: {error}"))
}

fn hash(connection: &Connection) -> rusqlite::Result<u64> {
    let mut hasher = DefaultHasher::new();
    let schema = "SELECT type, name, tbl_name, sql FROM main.sqlite_schema ORDER BY type, name";
    hash_rows(connection, schema, &mut hasher)?;
    let tables = "SELECT name FROM main.sqlite_schema WHERE type = 'table' AND rootpage > 0 ORDER BY name";
    let names: Vec<String> =
        connection.prepare(tables)?.query_map([], |row| row.get(0))?.collect::<Result<_, _>>()?;
    for name in names {
        let table = format!("main.\"{}\"", name.replace('"', "\"\""));
        let width = connection.prepare(&format!("SELECT * FROM {table}"))?.column_count();
        let order = (1..=width).map(|at| at.to_string()).collect::<Vec<_>>().join(", ");
        name.hash(&mut hasher);
        hash_rows(connection, &format!("SELECT * FROM {table} ORDER BY {order}"), &mut hasher)?;
    }
    Ok(hasher.finish())
}

fn hash_rows(connection: &Connection, sql: &str, hasher: &mut DefaultHasher) -> rusqlite::Result<()> {
    let mut statement = connection.prepare(sql)?;
    let width = statement.column_count();
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        for at in 0..width {
            match row.get_ref(at)? {
                ValueRef::Null => 0u8.hash(hasher),
                ValueRef::Integer(number) => (1u8, number).hash(hasher),
                ValueRef::Real(number) => (2u8, number.to_bits()).hash(hasher),
                ValueRef::Text(bytes) => (3u8, bytes).hash(hasher),
                ValueRef::Blob(bytes) => (4u8, bytes).hash(hasher),
            }
        }
    }
    Ok(())
}

/// Does the file begin as that of an ordinary SQLite database does, in rollback mode?
pub fn plain_header(database: &Path) -> bool {
    let bytes = std::fs::read(database).unwrap_or_else(|error| panic!("{}: {error}", database.display()));
    bytes.is_empty() || (bytes.starts_with(b"SQLite format 3\0") && bytes.get(18..20) == Some(&[1, 1]))
}
