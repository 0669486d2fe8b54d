//! Values and conditions, as SQL.

use crate::dice::Dice;

use super::table::{Holds, Shape, Table};

/// Keys are drawn up to here.
pub(super) const KEYS: u32 = 3000;

/// How long a text or a blob is: mostly short, sometimes over many pages.
fn length(dice: &mut Dice) -> u32 {
    match dice.below(20) {
        0..10 => dice.below(30),
        10..16 => dice.below(400),
        16..19 => dice.below(6000),
        _ => dice.below(70_000),
    }
}

/// One value.
pub(super) fn literal(dice: &mut Dice, holds: Holds) -> String {
    if dice.chance(6) {
        return "NULL".to_owned();
    }
    let holds = match (holds, dice.below(20)) {
        (Holds::Anything, n) => [Holds::Number, Holds::Real, Holds::Text, Holds::Blob][n as usize % 4],
        (_, 0) => Holds::Text,
        (holds, _) => holds,
    };
    match holds {
        Holds::Number => match dice.below(8) {
            0 => (i64::from(dice.below(u32::MAX)) << dice.below(31)).to_string(),
            1 => format!("-{}", dice.below(100_000)),
            _ => dice.below(KEYS).to_string(),
        },
        Holds::Real => format!("{}.{}", dice.below(1000), dice.of(&["5", "25", "125"])),
        Holds::Text => match dice.below(3) {
            0 => format!("'{} w{}'", dice.of(&["one", "Two", "drei", "čtyři"]), dice.below(100)),
            _ => format!("printf('%0*d', {}, {})", length(dice), dice.below(10_000)),
        },
        _ => match dice.below(3) {
            0 => format!("x'{:08x}'", dice.below(u32::MAX)),
            1 => format!("zeroblob({})", length(dice)),
            _ => format!("CAST(printf('%.*c', {}, 'b') AS BLOB)", length(dice)),
        },
    }
}

/// A value for each row `i` of many.
pub(super) fn series(dice: &mut Dice, holds: Holds, rows: u32) -> String {
    // All rows together are of a size that takes a moment.
    let length = match dice.below(6) {
        0..3 => dice.below(20),
        3 | 4 => dice.below(300),
        _ => dice.below(5000),
    };
    let length = 1 + length.min(400_000 / rows);
    let step = [1, 3, 7919, 104_729][dice.pick(4)];
    match holds {
        _ if dice.chance(4) => "NULL".to_owned(),
        Holds::Number => match dice.below(4) {
            0 => format!("i % {}", 1 + dice.below(50)),
            _ => format!("i * {step} % 100003"),
        },
        Holds::Real => format!("i / {}.0", 1 << dice.below(8)),
        Holds::Text => match dice.below(3) {
            0 => format!("printf('w%d w%d', i % 17, i * {step} % 101)"),
            _ => format!("printf('%0*d', 1 + i * {step} % {length}, i * 7919 % 10007)"),
        },
        _ => format!("CAST(printf('%.*c', i * {step} % {length}, char(97 + i % 26)) AS BLOB)"),
    }
}

/// Some of a table's rows: one, a range, or those that a column chooses.
pub(super) fn condition(dice: &mut Dice, table: &Table) -> String {
    let key = table.key();
    let at = dice.below(KEYS);
    if table.shape == Shape::Search && dice.chance(40) {
        return format!("{} MATCH 'w{}'", table.name, dice.below(17));
    }
    if table.shape == Shape::RTree && dice.chance(40) {
        return format!("x0 > {} AND x1 < {} AND y0 < 50", at % 80, at % 80 + 20);
    }
    let column = &table.column(dice).name;
    match dice.below(12) {
        0..5 => format!("{key} = {at}"),
        5..8 => format!("{key} BETWEEN {at} AND {}", at + dice.below(150)),
        8 => format!("{key} % {} = 1", 2 + dice.below(90)),
        9 => format!("{column} IS NULL"),
        10 => format!("length({column}) > {}", dice.below(3000)),
        _ => format!("{column} > {}", literal(dice, Holds::Number)),
    }
}

/// A new value for a column, from the row that is there.
pub(super) fn changed(dice: &mut Dice, table: &Table, column: &str, holds: Holds) -> String {
    if !table.is_plain() && table.shape == Shape::RTree {
        // The boxes must stay boxes.
        return format!("{column} {} 1", if column.ends_with('1') { "+" } else { "-" });
    }
    match (holds, dice.below(4)) {
        (Holds::Number, 0..2) => format!("{column} + {}", 1 + dice.below(5)),
        (Holds::Text, 0) => format!("{column} || 'tail'"),
        (Holds::Text, 1) => format!("substr({column}, 2)"),
        (Holds::Blob, 0) => format!("substr({column}, 3)"),
        (_, 2) => format!("coalesce({column}, {})", literal(dice, holds)),
        _ => literal(dice, holds),
    }
}
