//! PRAGMAs, and what each side is told where Tideline deliberately answers something of its own.

use crate::dice::Dice;

use super::step::{Compare, Kind, Step};

/// What a new database is.
pub(super) fn new(dice: &mut Dice) -> String {
    let size = dice.of(&[512, 1024, 1024, 4096, 4096, 4096, 4096, 8192, 32768, 65536]);
    let vacuum = dice.of(&[0, 0, 1, 2, 2]);
    let encoding = dice.of(&["UTF-8", "UTF-8", "UTF-8", "UTF-16le", "UTF-16be"]);
    // The last one writes.
    format!(
        "PRAGMA page_size = {size}; PRAGMA auto_vacuum = {vacuum}; PRAGMA encoding = '{encoding}'; \
         PRAGMA user_version = 1"
    )
}

/// What each connection gets when it is opened, and each database when it is attached. Nothing here waits for the
/// disk for long, and no database grows for ever. Stock SQLite begins no WAL anew while it is used: a writer that has
/// begun one and then rolls back makes the snapshots of others stale, though nobody committed anything. In Tideline a
/// rollback does nothing to them.
pub(super) fn opened(dice: &mut Dice, schema: &str, page_size: u32) -> String {
    let cache = dice.of(&[1, 5, 10, 20, 100, -2000]);
    format!(
        "PRAGMA {schema}.synchronous = {}; PRAGMA {schema}.cache_size = {cache}; \
         PRAGMA wal_autocheckpoint = 0; PRAGMA {schema}.max_page_count = {}",
        dice.of(&["OFF", "OFF", "OFF", "NORMAL"]),
        3_000_000 / page_size
    )
}

/// A PRAGMA of this connection.
pub(super) fn pragma(dice: &mut Dice, kind: Kind, at: usize, schema: &str, inside: bool) -> Step {
    let (mut stock, mut compare) = (None, Compare::All);
    let sql = match dice.below(26) {
        0..3 => format!("PRAGMA {schema}.cache_size = {}", dice.of(&[0, 1, 5, 10, 50, 200, -64, -2000])),
        3 => format!("PRAGMA cache_spill = {}", dice.of(&["0", "1", "5", "50"])),
        4 => format!("PRAGMA {schema}.auto_vacuum = {}", dice.below(3)),
        5 => format!("PRAGMA {schema}.secure_delete = {}", dice.of(&["ON", "OFF", "FAST"])),
        6 => {
            // Stock SQLite keeps the size while a mapped page is in use, and says so.
            compare = Compare::Code;
            format!("PRAGMA {schema}.mmap_size = {}", dice.of(&[0, 0, 65536, 1 << 20, 1 << 30]))
        }
        7 if !inside || dice.chance(10) => {
            format!("PRAGMA {schema}.synchronous = {}", dice.of(&["OFF", "OFF", "NORMAL", "FULL", "EXTRA"]))
        }
        8 => format!("PRAGMA {schema}.user_version = {}", dice.below(1000)),
        9 => format!("PRAGMA {schema}.application_id = {}", dice.below(1000)),
        10..13 => format!("PRAGMA {schema}.incremental_vacuum({})", dice.below(30)),
        13 => dice.of(&["PRAGMA shrink_memory", "PRAGMA optimize = 0x10002"]).to_owned(),
        14 => format!("PRAGMA foreign_keys = {}", dice.below(2)),
        15 => format!("PRAGMA defer_foreign_keys = {}", dice.below(2)),
        16 => format!("PRAGMA recursive_triggers = {}", dice.below(2)),
        17 => format!("PRAGMA temp_store = {}", dice.below(3)),
        18 => {
            format!("PRAGMA {schema}.{}", dice.of(&["integrity_check", "quick_check", "foreign_key_check"]))
        }
        19 => format!("PRAGMA reverse_unordered_selects = {}", dice.below(2)),
        20 => "PRAGMA query_only = 1".to_owned(),
        21 => {
            // There are no frames to count: Tideline folds, and answers 0, -1, -1. For stock SQLite see `opened`.
            compare = Compare::Code;
            stock = (kind == Kind::Wal).then(|| "SELECT 1".to_owned());
            let how = dice.of(&["PASSIVE", "FULL", "RESTART", "TRUNCATE"]);
            format!("PRAGMA {schema}.wal_checkpoint({how})")
        }
        22 => {
            // It is always wal, whatever it is set to. Stock SQLite keeps the mode of this kind of play.
            let mode = dice.of(&["delete", "truncate", "persist", "memory", "off", "wal"]);
            match kind {
                Kind::Wal => stock = Some(format!("PRAGMA {schema}.journal_mode")),
                Kind::Rollback => {
                    stock = Some(format!("PRAGMA {schema}.journal_mode"));
                    compare = Compare::Code;
                }
                // OFF can't roll back, and WAL mode is refused where stock SQLite has it.
                Kind::Guest => {
                    compare = Compare::Code;
                    let mode = dice.of(&["delete", "truncate", "persist", "memory"]);
                    return sql(at, format!("PRAGMA journal_mode = {mode}"), None, compare);
                }
            }
            format!("PRAGMA {schema}.journal_mode = {mode}")
        }
        23 => {
            // EXCLUSIVE isn't available; stock SQLite stays in NORMAL, too. Where the main database is plain, Tideline
            // isn't asked.
            let mode = dice.of(&["EXCLUSIVE", "NORMAL"]);
            if kind == Kind::Guest {
                return sql(at, format!("PRAGMA locking_mode = {mode}"), None, compare);
            }
            stock = Some(format!("PRAGMA {schema}.locking_mode"));
            format!("PRAGMA {schema}.locking_mode = {mode}")
        }
        24 if kind != Kind::Wal => {
            // In WAL mode it can't change.
            format!("PRAGMA {schema}.page_size = {}", dice.of(&[512, 1024, 2048, 4096, 8192, 65536]))
        }
        _ => format!("PRAGMA {schema}.cell_size_check = {}", dice.below(2)),
    };
    self::sql(at, sql, stock, compare)
}

fn sql(at: usize, sql: String, stock: Option<String>, compare: Compare) -> Step {
    Step::Sql { at, sql, stock, compare, most: None }
}
