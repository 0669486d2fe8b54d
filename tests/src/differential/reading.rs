//! Statements that read. Where rows come without ORDER BY, both sides have the same plan and the same b-trees.

use crate::dice::Dice;

use super::table::{Schema, Table};
use super::value::condition;

/// A query of this table, `schema`-qualified.
pub(super) fn read(dice: &mut Dice, schema: &str, table: &Table, all: &Schema) -> String {
    let (name, key) = (&table.name, table.key());
    let column = &table.column(dice).name;
    let rows = condition(dice, table);
    match dice.below(14) {
        0..3 => format!("SELECT * FROM {schema}.{name} WHERE {rows} LIMIT 50"),
        3 => format!("SELECT count(*), sum(length({column})), max({column}) FROM {schema}.{name}"),
        4 => format!(
            "SELECT {key}, {column} FROM {schema}.{name} ORDER BY {column}, {key} LIMIT 20 OFFSET {}",
            dice.below(50)
        ),
        5 => format!(
            "SELECT {column}, count(*) FROM {schema}.{name} GROUP BY {column} ORDER BY 2 DESC, 1 LIMIT 20"
        ),
        6 => format!("SELECT {key} FROM {schema}.{name} ORDER BY {key} DESC LIMIT 30"),
        7 => {
            let other = &all.tables[dice.pick(all.tables.len())];
            format!(
                "SELECT count(*), min(o.{0}) FROM {schema}.{name} t JOIN {schema}.{1} o ON o.{0} = t.{key} + 1 WHERE t.{key} < 900",
                other.key(),
                other.name
            )
        }
        8 => format!("SELECT DISTINCT typeof({column}) FROM {schema}.{name} ORDER BY 1"),
        9 => format!("SELECT count(*) FROM {schema}.{name} WHERE {rows}"),
        10 => format!(
            "SELECT {column} FROM {schema}.{name} INTERSECT SELECT {key} FROM {schema}.{name} ORDER BY 1 LIMIT 20"
        ),
        11 => match all.views.first() {
            Some(view) => format!("SELECT count(*), sum(k) FROM {schema}.{view}"),
            None => format!("SELECT type, name, rootpage FROM {schema}.sqlite_schema"),
        },
        12 => format!(
            "PRAGMA {schema}.{}",
            dice.of(&[
                "page_count",
                "freelist_count",
                "schema_version",
                "user_version",
                "auto_vacuum",
                "page_size"
            ])
        ),
        _ => format!(
            "SELECT {key}, {column}, row_number() OVER (ORDER BY {key}) FROM {schema}.{name} WHERE {rows} LIMIT 15"
        ),
    }
}

/// A query that goes through a whole table, to be left half done.
pub(super) fn walk(dice: &mut Dice, schema: &str, table: &Table) -> String {
    let (name, key) = (&table.name, table.key());
    let column = &table.column(dice).name;
    match dice.below(4) {
        0 => format!("SELECT {key}, {column} FROM {schema}.{name} ORDER BY {key} DESC"),
        1 => format!("SELECT {key}, {column} FROM {schema}.{name} ORDER BY {column}, {key}"),
        _ => format!("SELECT * FROM {schema}.{name}"),
    }
}
