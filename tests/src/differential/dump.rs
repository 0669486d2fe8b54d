//! All that is in a database, for comparison.

use std::fmt::Write;

use super::answer::Answer;
use super::connection::{Connection, hash};

/// What is asked of a database beside its rows. `dbstat` tells how the b-trees lie in the pages: both sides allocate
/// pages in the same order.
const ASKED: [&str; 11] = [
    "PRAGMA {}.page_size",
    "PRAGMA {}.page_count",
    "PRAGMA {}.freelist_count",
    "PRAGMA {}.auto_vacuum",
    "PRAGMA {}.encoding",
    "PRAGMA {}.user_version",
    "PRAGMA {}.application_id",
    "PRAGMA {}.integrity_check(20)",
    "PRAGMA {}.foreign_key_check",
    "SELECT type, name, tbl_name, rootpage, sql FROM {}.sqlite_schema ORDER BY rowid",
    "SELECT name, path, pageno, pagetype, ncell, payload, unused, mx_payload FROM dbstat('{}')",
];

/// Longer answers are told by a hash.
const LONG: usize = 4000;

/// What a schema of this connection has. It needs no lock that another one could have.
pub(super) fn dump(connection: &Connection, schema: &str) -> String {
    let mut text = String::new();
    for asked in ASKED {
        ask(connection, &asked.replace("{}", schema), &mut text);
    }
    let tables = format!("SELECT name FROM {schema}.sqlite_schema WHERE type = 'table' AND rootpage > 0");
    let names = connection.run(&tables, None).rows;
    for name in names.lines().map(|name| name.trim_matches('"')) {
        ask(connection, &format!("SELECT * FROM {schema}.\"{name}\" NOT INDEXED"), &mut text);
    }
    text
}

fn ask(connection: &Connection, sql: &str, text: &mut String) {
    let Answer { code, message, rows, .. } = connection.run(sql, None);
    let count = rows.lines().count();
    let told = if rows.len() > LONG { format!("{:016x}\n", hash(rows.as_bytes())) } else { rows };
    write!(text, "{sql}: {count} rows, {code} {message}\n{told}").expect("a string");
}
