//! Tables, and what belongs to them, as the author believes them to be.

use crate::dice::Dice;

/// What a column holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Holds {
    Number,
    Real,
    Text,
    Blob,
    Anything,
}

/// A column that isn't the key.
#[derive(Clone, Debug)]
pub(super) struct Column {
    pub name: String,
    pub holds: Holds,
    /// It isn't written, but computed.
    pub computed: bool,
}

/// What kind of table it is, and hence what its key is called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shape {
    /// No key of its own.
    Rowid,
    Integer,
    AutoIncrement,
    WithoutRowid,
    /// FTS5.
    Search,
    RTree,
}

/// A table.
#[derive(Clone, Debug)]
pub(super) struct Table {
    pub name: String,
    pub shape: Shape,
    pub columns: Vec<Column>,
    pub indices: Vec<String>,
    pub triggers: Vec<String>,
}

impl Table {
    /// What a row is found by.
    pub fn key(&self) -> &'static str {
        match self.shape {
            Shape::Rowid | Shape::Search => "rowid",
            _ => "id",
        }
    }

    /// Has it storage of its own, which indices, triggers and blobs need?
    pub fn is_plain(&self) -> bool {
        !matches!(self.shape, Shape::Search | Shape::RTree)
    }

    /// The columns that are written.
    pub fn written(&self) -> Vec<&Column> {
        self.columns.iter().filter(|column| !column.computed).collect()
    }

    /// One of the columns.
    pub fn column(&self, dice: &mut Dice) -> &Column {
        &self.columns[dice.pick(self.columns.len())]
    }

    /// One of those that are written.
    pub fn target(&self, dice: &mut Dice) -> &Column {
        let written = self.written();
        written[dice.pick(written.len())]
    }
}

/// What a database has.
#[derive(Clone, Debug, Default)]
pub(super) struct Schema {
    pub tables: Vec<Table>,
    pub views: Vec<String>,
}

/// A new table, and the statement that makes it; `other` is a table that it may refer to. Not a virtual one where
/// connections share a cache: SQLite itself waits for ever for a mutex that it holds when it checks such a table.
pub(super) fn create(
    dice: &mut Dice,
    schema: &str,
    name: String,
    other: Option<&Table>,
    shared: bool,
) -> (Table, String) {
    let shape = match dice.below(if shared { 17 } else { 20 }) {
        0..4 => Shape::Rowid,
        4..10 => Shape::Integer,
        10..13 => Shape::AutoIncrement,
        13..17 => Shape::WithoutRowid,
        17..19 => Shape::Search,
        _ => Shape::RTree,
    };
    let mut table = Table { name, shape, columns: Vec::new(), indices: Vec::new(), triggers: Vec::new() };
    let name = &table.name;
    let sql = match shape {
        Shape::Search => {
            table.columns = ["p", "q"].map(|name| column(name, Holds::Text)).into();
            let options =
                dice.of(&["", ", prefix='2'", ", detail=none", ", detail=column", ", columnsize=0"]);
            format!("CREATE VIRTUAL TABLE {schema}.{name} USING fts5(p, q{options})")
        }
        Shape::RTree => {
            table.columns = ["x0", "x1", "y0", "y1"].map(|name| column(name, Holds::Number)).into();
            format!("CREATE VIRTUAL TABLE {schema}.{name} USING rtree(id, x0, x1, y0, y1)")
        }
        _ => {
            let mut definitions = Vec::new();
            let mut end = "";
            match shape {
                Shape::Integer => definitions.push("id INTEGER PRIMARY KEY".to_owned()),
                Shape::AutoIncrement => definitions.push("id INTEGER PRIMARY KEY AUTOINCREMENT".to_owned()),
                Shape::WithoutRowid => {
                    definitions.push(format!("id {}", dice.of(&["INT", "", "TEXT"])));
                    end = " WITHOUT ROWID";
                }
                _ => {}
            }
            for at in 0..2 + dice.below(4) {
                let (column, definition) = define(dice, &format!("c{at}"), other);
                definitions.push(definition);
                table.columns.push(column);
            }
            match dice.below(5) {
                0 => {
                    let (shown, of) = ("length(c0)", dice.of(&["VIRTUAL", "STORED"]));
                    definitions.push(format!("g AS ({shown}) {of}"));
                    let g = Column { name: "g".into(), holds: Holds::Number, computed: true };
                    table.columns.push(g);
                }
                1 => definitions.push("CHECK (c1 IS NULL OR length(c1) <> 77)".to_owned()),
                _ => {}
            }
            if shape == Shape::WithoutRowid {
                definitions.push(dice.of(&["PRIMARY KEY (id)", "PRIMARY KEY (id DESC, c0)"]).to_owned());
            }
            format!("CREATE TABLE {schema}.{name}({}){end}", definitions.join(", "))
        }
    };
    (table, sql)
}

fn column(name: &str, holds: Holds) -> Column {
    Column { name: name.to_owned(), holds, computed: false }
}

fn define(dice: &mut Dice, name: &str, other: Option<&Table>) -> (Column, String) {
    let (holds, kind) = match dice.below(10) {
        0..3 => (Holds::Number, "INTEGER"),
        3 => (Holds::Real, "REAL"),
        4..7 => (Holds::Text, dice.of(&["TEXT", "TEXT COLLATE NOCASE", "VARCHAR(9)"])),
        7..9 => (Holds::Blob, "BLOB"),
        _ => (Holds::Anything, ""),
    };
    let limit = match dice.below(24) {
        0 => " UNIQUE".to_owned(),
        1 => " NOT NULL".to_owned(),
        2 => " NOT NULL DEFAULT 7".to_owned(),
        3 => " UNIQUE ON CONFLICT REPLACE".to_owned(),
        4 => format!(" DEFAULT {}", dice.of(&["'none'", "(1 + 2)", "x'00ff'", "NULL"])),
        5 | 6 if holds == Holds::Number => match other {
            Some(other) if matches!(other.shape, Shape::Integer | Shape::AutoIncrement) => format!(
                " REFERENCES {}(id) {}",
                other.name,
                dice.of(&[
                    "",
                    "ON DELETE CASCADE",
                    "ON DELETE SET NULL ON UPDATE CASCADE",
                    "DEFERRABLE INITIALLY DEFERRED"
                ])
            ),
            _ => String::new(),
        },
        _ => String::new(),
    };
    (column(name, holds), format!("{name} {kind}{limit}"))
}

/// A new index, and the statement that makes it.
pub(super) fn index(dice: &mut Dice, schema: &str, table: &Table, name: &str) -> String {
    let unique = if dice.chance(6) { "UNIQUE " } else { "" };
    let column = table.column(dice).name.clone();
    let keys = match dice.below(8) {
        0 => format!("{column}, {} DESC", table.column(dice).name),
        1 => format!("length({column})"),
        2 => format!("substr({column}, 1, 5), {column}"),
        3 => format!("{column} COLLATE NOCASE"),
        _ => column.clone(),
    };
    let part = match dice.below(6) {
        0 => format!(" WHERE {column} IS NOT NULL"),
        1 => format!(" WHERE length({column}) % 3 = {}", dice.below(3)),
        _ => String::new(),
    };
    format!("CREATE {unique}INDEX {schema}.{name} ON {}({keys}){part}", table.name)
}

/// The statement that makes a trigger on a table; `other` is one that it writes to.
pub(super) fn trigger(dice: &mut Dice, schema: &str, table: &Table, other: &Table, name: &str) -> String {
    let event = dice.of(&["INSERT", "UPDATE", "DELETE"]);
    let row = if event == "DELETE" { "OLD" } else { "NEW" };
    let key = if table.shape == Shape::Rowid { "rowid" } else { "id" };
    let when = dice.of(&["AFTER", "AFTER", "BEFORE"]);
    let (target, column) = (&other.name, &other.target(dice).name);
    let action = match dice.below(6) {
        0 => {
            let how = dice.of(&["ABORT", "FAIL", "IGNORE", "ROLLBACK"]);
            let what = if how == "IGNORE" { "IGNORE".to_owned() } else { format!("{how}, 'no'") };
            format!("SELECT RAISE({what}) WHERE {row}.{key} % 53 = 7")
        }
        1 => format!("DELETE FROM {target} WHERE {} = {row}.{key} + 1", other.key()),
        2 | 3 if other.shape != Shape::RTree => {
            format!(
                "UPDATE {target} SET {column} = {row}.{} WHERE {} = {row}.{key}",
                table.column(dice).name,
                other.key()
            )
        }
        _ if other.shape == Shape::WithoutRowid => {
            format!("INSERT OR IGNORE INTO {target}(id, c0, c1) VALUES ({row}.{key} + 5000, {row}.{key}, 1)")
        }
        _ if other.shape == Shape::RTree => {
            format!("INSERT OR REPLACE INTO {target} VALUES ({row}.{key}, 1, 2, 3, 4)")
        }
        _ => format!("INSERT OR IGNORE INTO {target}({column}) VALUES ({row}.{key})"),
    };
    format!("CREATE TRIGGER {schema}.{name} {when} {event} ON {} BEGIN {action}; END", table.name)
}
