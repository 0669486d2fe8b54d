//! Statements that change rows.

use crate::dice::Dice;
use crate::sql::numbers;

use super::table::{Schema, Shape, Table};
use super::value::{KEYS, changed, condition, literal, series};

/// A statement that changes rows of this table, `schema`-qualified.
pub(super) fn write(dice: &mut Dice, schema: &str, table: &Table, all: &Schema) -> String {
    match dice.below(20) {
        0..7 => insert(dice, schema, table),
        7..9 => many(dice, schema, table),
        9 => copied(dice, schema, table, all),
        10..15 => update(dice, schema, table),
        15..19 => delete(dice, schema, table),
        _ if table.shape == Shape::Search => {
            let what = dice.of(&["optimize", "rebuild", "integrity-check"]);
            format!("INSERT INTO {schema}.{0}({0}) VALUES ('{what}')", table.name)
        }
        _ => format!("DELETE FROM {schema}.{}", table.name),
    }
}

/// A statement that makes room.
pub(super) fn purge(dice: &mut Dice, schema: &str, table: &Table) -> String {
    let rows = match dice.below(3) {
        0 => String::new(),
        1 => format!(" WHERE {} % 3 > 0", table.key()),
        _ => format!(" WHERE {} > {}", table.key(), dice.below(KEYS / 4)),
    };
    format!("DELETE FROM {schema}.{}{rows}", table.name)
}

fn or(dice: &mut Dice) -> &'static str {
    dice.of(&["", "", " OR REPLACE", " OR REPLACE", " OR IGNORE", " OR IGNORE", " OR FAIL", " OR ROLLBACK"])
}

/// Virtual tables return nothing.
fn returning(dice: &mut Dice, table: &Table) -> String {
    if table.is_plain() && dice.chance(15) {
        format!(" RETURNING {}, {}", table.key(), table.column(dice).name)
    } else {
        String::new()
    }
}

fn insert(dice: &mut Dice, schema: &str, table: &Table) -> String {
    if table.shape == Shape::RTree {
        let (id, x, y) = (dice.below(KEYS), dice.below(90), dice.below(90));
        return format!(
            "INSERT OR REPLACE INTO {schema}.{} VALUES ({id}, {x}, {}, {y}, {})",
            table.name,
            x + 3,
            y + 5
        );
    }
    let written = table.written();
    // A table without a key of its own, or with AUTOINCREMENT, mostly draws it.
    let keyed = match table.shape {
        Shape::Rowid | Shape::AutoIncrement => dice.chance(30),
        _ => dice.chance(90) || table.shape == Shape::WithoutRowid,
    };
    let mut names: Vec<&str> = written.iter().map(|column| column.name.as_str()).collect();
    if keyed {
        names.insert(0, table.key());
    }
    let rows: Vec<String> = (0..1 + dice.below(4))
        .map(|_| {
            let mut values: Vec<String> = written.iter().map(|column| literal(dice, column.holds)).collect();
            if keyed {
                values.insert(0, dice.below(KEYS).to_string());
            }
            format!("({})", values.join(", "))
        })
        .collect();
    let (mut or, mut upsert) = (or(dice), String::new());
    if matches!(table.shape, Shape::Integer | Shape::AutoIncrement) && dice.chance(30) {
        let column = table.target(dice);
        let value = dice.of(&["excluded.", "", "1 + "]);
        upsert = match dice.below(4) {
            0 => " ON CONFLICT DO NOTHING".to_owned(),
            _ => format!(" ON CONFLICT(id) DO UPDATE SET {0} = {value}{0}", column.name),
        };
        or = "";
    }
    let returning = returning(dice, table);
    format!(
        "INSERT{or} INTO {schema}.{}({}) VALUES {}{upsert}{returning}",
        table.name,
        names.join(", "),
        rows.join(", ")
    )
}

/// Many rows at once.
pub(super) fn many(dice: &mut Dice, schema: &str, table: &Table) -> String {
    let rows = if table.shape == Shape::RTree || !table.triggers.is_empty() {
        10 + dice.below(200)
    } else {
        let most = most(dice);
        10 + dice.below(most)
    };
    let first = dice.below(KEYS);
    let (names, values): (Vec<&str>, Vec<String>) = if table.shape == Shape::RTree {
        let values = ["i % 80", "i % 80 + 4", "i * 7 % 90", "i * 7 % 90 + 9"].map(str::to_owned);
        (vec!["x0", "x1", "y0", "y1"], values.into())
    } else {
        table
            .written()
            .into_iter()
            .map(|column| (column.name.as_str(), series(dice, column.holds, rows)))
            .unzip()
    };
    format!(
        "{} INSERT OR {} INTO {schema}.{}({}, {}) SELECT i + {first}, {} FROM n",
        numbers(rows),
        dice.of(&["REPLACE", "IGNORE", "IGNORE", "ABORT"]),
        table.name,
        table.key(),
        names.join(", "),
        values.join(", ")
    )
}

/// How many rows are many.
fn most(dice: &mut Dice) -> u32 {
    match dice.below(10) {
        0..6 => 100,
        6..9 => 600,
        _ => 3000,
    }
}

/// Rows of another table, or of the same.
fn copied(dice: &mut Dice, schema: &str, table: &Table, all: &Schema) -> String {
    let from = &all.tables[dice.pick(all.tables.len())];
    if table.shape == Shape::RTree || table.shape == Shape::WithoutRowid {
        return update(dice, schema, table);
    }
    let pairs: Vec<(String, String)> = table
        .written()
        .into_iter()
        .map(|column| (column.name.clone(), from.column(dice).name.clone()))
        .collect();
    let (to, of): (Vec<String>, Vec<String>) = pairs.into_iter().unzip();
    format!(
        "INSERT OR IGNORE INTO {schema}.{}({}) SELECT {} FROM {schema}.{} WHERE {} ORDER BY {} LIMIT {}",
        table.name,
        to.join(", "),
        of.join(", "),
        from.name,
        condition(dice, from),
        from.key(),
        1 + dice.below(300)
    )
}

fn update(dice: &mut Dice, schema: &str, table: &Table) -> String {
    let column = table.target(dice);
    let mut set = format!("{} = {}", column.name, changed(dice, table, &column.name, column.holds));
    if dice.chance(4) && table.is_plain() && table.shape != Shape::Rowid {
        set = format!("id = id + {}", dice.below(9));
    }
    let rows = if dice.chance(3) { "1".to_owned() } else { condition(dice, table) };
    let returning = returning(dice, table);
    format!("UPDATE{} {schema}.{} SET {set} WHERE {rows}{returning}", or(dice), table.name)
}

fn delete(dice: &mut Dice, schema: &str, table: &Table) -> String {
    let rows = condition(dice, table);
    format!("DELETE FROM {schema}.{} WHERE {rows}{}", table.name, returning(dice, table))
}
