//! Who writes the steps: at random, but so that most of them end well and the databases get somewhere.

use std::collections::VecDeque;

use crate::dice::Dice;

use super::answer::Answer;
use super::settings;
use super::step::{CURSORS, Compare, FILES, Kind, Rest, Setting, Step};
use super::table::{self, Schema, Table};
use super::world::{Change, World};
use super::{reading, writing};

/// Tables of a database.
const TABLES: usize = 6;

/// A step, and what it changes.
type Written = (Step, Change);

/// The author of one play.
pub(super) struct Author {
    dice: Dice,
    kind: Kind,
    shared: bool,
    page_size: u32,
    world: World,
    /// The connection that is used for a while.
    focus: usize,
    /// What comes before anything else.
    next: VecDeque<Written>,
    /// Makes names that weren't there before.
    named: u32,
}

/// What a connection does after an error. An R-tree has a BLOB open while its statement is rolled back, and where there is
/// no WAL, stock SQLite keeps others from writing until the connection has read something else.
const LOOK: &str = "SELECT count(*) FROM sqlite_schema";

impl Author {
    /// One with this seed, and how its play begins.
    pub fn new(seed: u64) -> (Self, Setting) {
        let mut dice = Dice::seeded(seed);
        let kind = dice.of(&[Kind::Wal, Kind::Wal, Kind::Wal, Kind::Rollback, Kind::Rollback, Kind::Guest]);
        let shared = kind == Kind::Wal && dice.chance(15);
        let setting = Setting { kind, shared, new: settings::new(&mut dice), adopt: dice.chance(40) };
        let page_size =
            setting.new.split([' ', ';']).find_map(|word| word.parse().ok()).expect("the page size first");
        let (world, next) = (World::default(), VecDeque::new());
        (Self { dice, kind, shared, page_size, world, focus: 0, next, named: 0 }, setting)
    }

    /// Learns what came of the step that was written last.
    pub fn learn(&mut self, (step, change): Written, answer: Option<&Answer>) {
        if let Some(answer) = answer {
            self.world.learn(&step, change, answer);
            match &step {
                Step::Sql { at, sql, .. } if self.kind != Kind::Wal && answer.code != 0 && sql != LOOK => {
                    self.next.push_front(plain(*at, LOOK.to_owned()));
                }
                _ => {}
            }
        }
        if matches!(step, Step::Rest(_)) {
            self.world.rest();
        }
    }

    /// The next step.
    pub fn write(&mut self) -> Written {
        if let Some(written) = self.next.pop_front() {
            return written;
        }
        // While a backup writes to a connection, nobody else may use it.
        let mut open = self.world.open();
        open.retain(|at| !self.world.backups.iter().flatten().any(|[_, to]| to.0 == *at));
        self.choose(&open);
        if self.world.links[self.focus].is_none() {
            return self.open(self.focus);
        }
        let at = self.focus;
        let (schema, file) = self.target(at);
        let inside = self.world.links[at].as_ref().is_some_and(|link| link.transaction.is_some());
        if inside && self.dice.chance(16) {
            return self.transaction(at);
        }
        match self.dice.below(1000) {
            0..80 if !inside => self.begin(at),
            80..260 => self.read(at, &schema, file),
            260..620 => self.change(at, &schema, file),
            620..700 => self.define(at, &schema, file),
            700..770 => self.pragma(at, &schema, file, inside),
            770..850 => self.walk(at, &schema, file),
            850..880 => self.blob(at, &schema, file),
            880..900 => self.attach(at),
            900..915 => self.backup(at, &schema, file),
            915..935 => self.vacuum(at, schema),
            935..950 => self.temporary(at, &schema, file),
            950..960 => self.step(Step::Dump { at, schema }),
            960..966 => self.ship(file),
            966..970 => self.rest(),
            970..985 if !self.is_barred() && self.kind != Kind::Guest => match self.world.free() {
                Some(free) => self.open(free),
                None => self.step(Step::Close { at }),
            },
            985..990 => self.step(Step::Close { at }),
            990..994 => self.step(Step::Flush { at }),
            // Some want the writer's place, and where connections share a cache, they share a transaction.
            994..998 if !self.world.is_any_busy() => self.command(at, schema),
            _ => self.read(at, &schema, file),
        }
    }

    fn step(&self, step: Step) -> Written {
        (step, Change::None)
    }

    fn sql(&mut self, at: usize, sql: String, change: Change) -> Written {
        // Now and then it is interrupted somewhere.
        let most = self.dice.chance(2).then(|| 1 << (4 + self.dice.below(12)));
        (Step::Sql { at, sql, stock: None, compare: Compare::All, most }, change)
    }

    /// With a rollback journal, stock SQLite's readers keep others from writing, and its writer keeps all out.
    fn is_barred(&self) -> bool {
        self.kind != Kind::Wal && self.world.is_any_busy()
    }

    /// Chooses the connection that is used next.
    fn choose(&mut self, open: &[usize]) {
        if self.kind != Kind::Wal {
            // Stock SQLite's transactions exclude each other.
            if let Some(&busy) = open.iter().find(|&&at| self.world.is_busy(at)) {
                self.focus = busy;
                return;
            }
        }
        if open.is_empty() {
            self.focus = self.world.free().expect("a backup has two ends");
        } else if !open.contains(&self.focus) || self.dice.chance(20) {
            self.focus = self.dice.of(open);
            // Others would only be told that the database is locked.
            let writing = |at: &&usize| self.world.links[**at].as_ref().is_some_and(|link| link.writing);
            if let Some(&writer) = open.iter().find(writing).filter(|_| self.dice.chance(70)) {
                self.focus = writer;
            }
        }
    }

    /// A schema of a connection, and its database. A guest's main database isn't one of ours.
    fn target(&mut self, at: usize) -> (String, usize) {
        let schemas = &self.world.links[at].as_ref().expect("an open connection").schemas;
        let first = usize::from(self.kind == Kind::Guest && schemas.len() > 1);
        let main = self.dice.chance(60) || schemas.len() == first;
        schemas[if main { first } else { first + self.dice.pick(schemas.len() - first) }].clone()
    }

    fn open(&mut self, at: usize) -> Written {
        let file = if self.dice.chance(75) { 0 } else { self.dice.pick(FILES.len()) };
        let sql = settings::opened(&mut self.dice, "main", self.page_size);
        self.next.push_back(plain(at, sql));
        if self.kind == Kind::Guest {
            self.next
                .push_back(plain(at, "CREATE TABLE IF NOT EXISTS main.p(id INTEGER PRIMARY KEY, v)".into()));
            self.next.push_back(attach(at, "x0", 0));
            self.next.push_back(plain(at, settings::opened(&mut self.dice, "x0", self.page_size)));
        }
        let read_only = self.dice.chance(6);
        self.step(Step::Open { at, file, read_only })
    }

    fn pragma(&mut self, at: usize, schema: &str, file: usize, inside: bool) -> Written {
        let step = settings::pragma(&mut self.dice, self.kind, at, schema, inside);
        let is = |what: &str| matches!(&step, Step::Sql { sql, .. } if sql.contains(what));
        if is("wal_checkpoint") && self.kind == Kind::Wal && self.world.is_any_busy() {
            // In a transaction it is refused.
            return self.read(at, schema, file);
        }
        if is("query_only") {
            let refused = self.change(at, schema, file);
            self.next.push_back(refused);
            self.next.push_back(plain(at, "PRAGMA query_only = 0".into()));
        }
        (step, Change::None)
    }

    /// A command of Tideline's, which changes nothing that stock SQLite could see.
    fn command(&mut self, at: usize, schema: String) -> Written {
        let reads = self.world.links[at].as_ref().is_some_and(|link| link.reads);
        let call = self.dice.of(&[
            "fold(",
            "compact(NULL, NULL, ",
            "retain('none', ",
            "retain('1 GB', ",
            "retain('20 lsns', ",
            "retain('default', ",
            "lsn(",
        ]);
        let (sql, stock) = (format!("SELECT tide_{call}'{schema}')"), Some("SELECT 1".to_owned()));
        let refused = reads && call != "lsn(" || self.kind == Kind::Guest && schema == "main";
        let sql = if refused { "SELECT 1".to_owned() } else { sql };
        let command = self.step(Step::Sql { at, sql, stock, compare: Compare::Code, most: None });
        if self.kind != Kind::Guest {
            return command;
        }
        // In EXCLUSIVE mode it keeps the writer's place until it has read in NORMAL mode.
        self.next.push_back(plain(at, format!("SELECT count(*) FROM {schema}.sqlite_schema")));
        self.next.push_back(command);
        plain(at, format!("PRAGMA {schema}.locking_mode = NORMAL"))
    }

    fn begin(&mut self, at: usize) -> Written {
        if self.dice.chance(25) {
            return self.savepoint(at);
        }
        let how = self.dice.of(&["", "", "", " DEFERRED", " IMMEDIATE", " IMMEDIATE", " EXCLUSIVE"]);
        self.sql(at, format!("BEGIN{how}"), Change::None)
    }

    fn savepoint(&mut self, at: usize) -> Written {
        let name = format!("s{}", self.dice.below(5));
        self.sql(at, format!("SAVEPOINT {name}"), Change::Savepoint(name))
    }

    /// In a transaction: its end, or a savepoint in it.
    fn transaction(&mut self, at: usize) -> Written {
        let link = self.world.links[at].as_ref().expect("an open connection");
        let savepoints = &link.transaction.as_ref().expect("a transaction").savepoints;
        let some = savepoints.is_empty().then(|| "s9".to_owned());
        let some = some.unwrap_or_else(|| savepoints[self.dice.pick(savepoints.len())].0.clone());
        let has_some = !savepoints.is_empty();
        match self.dice.below(12) {
            0..4 => self.sql(at, "COMMIT".into(), Change::Release(String::new())),
            4..7 => self.sql(at, "ROLLBACK".into(), Change::None),
            7 | 8 if has_some => self.sql(at, format!("RELEASE {some}"), Change::Release(some)),
            9 | 10 if has_some => self.sql(at, format!("ROLLBACK TO {some}"), Change::RollbackTo(some)),
            _ => self.savepoint(at),
        }
    }

    /// A table of a database; none if there is none yet.
    fn table(&mut self, at: usize, file: usize) -> Option<(std::rc::Rc<Schema>, Table)> {
        let schema = self.world.schema(at, file);
        let table = (!schema.tables.is_empty())
            .then(|| schema.tables[self.dice.pick(schema.tables.len())].clone())?;
        Some((schema, table))
    }

    fn read(&mut self, at: usize, schema: &str, file: usize) -> Written {
        match self.table(at, file) {
            Some((all, table)) => {
                let sql = reading::read(&mut self.dice, schema, &table, &all);
                self.sql(at, sql, Change::None)
            }
            None => self.define(at, schema, file),
        }
    }

    fn change(&mut self, at: usize, schema: &str, file: usize) -> Written {
        let Some((all, table)) = self.table(at, file) else { return self.define(at, schema, file) };
        if self.guest_without_store(at) {
            let sql = format!("INSERT INTO main.p(v) VALUES ({})", self.dice.below(100));
            return self.sql(at, sql, Change::None);
        }
        if self.world.full[file] > 0 {
            self.world.full[file] -= 1;
            let sql = writing::purge(&mut self.dice, schema, &table);
            return self.sql(at, sql, Change::None);
        }
        let sql = writing::write(&mut self.dice, schema, &table, &all);
        self.sql(at, sql, Change::None)
    }

    fn guest_without_store(&self, at: usize) -> bool {
        self.kind == Kind::Guest && self.world.links[at].as_ref().is_none_or(|link| link.schemas.len() < 2)
    }

    fn name(&mut self, kind: &str) -> String {
        self.named += 1;
        format!("{kind}{}", self.named)
    }

    /// A statement that changes the schema.
    fn define(&mut self, at: usize, schema: &str, file: usize) -> Written {
        if self.guest_without_store(at) {
            return attach(at, "x0", 0);
        }
        let mut all = (*self.world.schema(at, file)).clone();
        let (count, dice) = (all.tables.len(), &mut self.dice);
        if count == 0 || count < TABLES && dice.chance(30) {
            let other = (count > 0).then(|| all.tables[dice.pick(count)].clone());
            let name = self.name("t");
            let (table, sql) = table::create(&mut self.dice, schema, name, other.as_ref(), self.shared);
            let many = writing::many(&mut self.dice, schema, &table);
            let fill = self.sql(at, many, Change::None);
            self.next.push_back(fill);
            all.tables.push(table);
            return self.sql(at, sql, Change::Schema(file, all));
        }
        let chosen = dice.pick(count);
        let what = dice.below(20);
        let sql = match what {
            0..6 if all.tables[chosen].is_plain() && all.tables[chosen].indices.len() < 3 => {
                let name = self.name("i");
                all.tables[chosen].indices.push(name.clone());
                table::index(&mut self.dice, schema, &all.tables[chosen], &name)
            }
            6 | 7 => match all.tables[chosen].indices.pop() {
                Some(name) => format!("DROP INDEX {schema}.{name}"),
                None => format!("REINDEX {schema}.{}", all.tables[chosen].name),
            },
            8 if all.tables[chosen].is_plain() && all.tables[chosen].triggers.is_empty() => {
                let (name, other) = (self.name("g"), self.dice.pick(count));
                all.tables[chosen].triggers.push(name.clone());
                table::trigger(&mut self.dice, schema, &all.tables[chosen], &all.tables[other], &name)
            }
            9 => match all.tables[chosen].triggers.pop() {
                Some(name) => format!("DROP TRIGGER {schema}.{name}"),
                None => format!("ANALYZE {schema}"),
            },
            10 => match all.views.pop() {
                Some(name) => format!("DROP VIEW {schema}.{name}"),
                None => {
                    let name = self.name("v");
                    all.views.push(name.clone());
                    let table = &all.tables[chosen];
                    let column = &table.column(&mut self.dice).name;
                    format!(
                        "CREATE VIEW {schema}.{name} AS SELECT {} AS k, {column} AS c FROM {}",
                        table.key(),
                        table.name
                    )
                }
            },
            11 | 12 if all.tables[chosen].is_plain() && all.tables[chosen].columns.len() < 12 => {
                let name = self.name("c");
                let (value, holds) = self.dice.of(&[
                    ("", table::Holds::Anything),
                    ("INTEGER DEFAULT 5", table::Holds::Number),
                    ("TEXT DEFAULT 'new'", table::Holds::Text),
                ]);
                let sql =
                    format!("ALTER TABLE {schema}.{} ADD COLUMN {name} {value}", all.tables[chosen].name);
                all.tables[chosen].columns.push(table::Column { name, holds, computed: false });
                sql
            }
            13 if all.tables[chosen].is_plain() && all.tables[chosen].columns.len() > 2 => {
                let table = &mut all.tables[chosen];
                let last = table.columns.pop().expect("a column").name;
                format!("ALTER TABLE {schema}.{} DROP COLUMN {last}", table.name)
            }
            14 => {
                let (name, table) = (self.name("t"), &mut all.tables[chosen]);
                let old = std::mem::replace(&mut table.name, name);
                format!("ALTER TABLE {schema}.{old} RENAME TO {}", table.name)
            }
            15 if all.tables[chosen].is_plain() => {
                let name = self.name("c");
                let (table, at) = (&mut all.tables[chosen], self.dice.below(2) as usize);
                let old = std::mem::replace(&mut table.columns[at].name, name);
                format!(
                    "ALTER TABLE {schema}.{} RENAME COLUMN {old} TO {}",
                    table.name, table.columns[at].name
                )
            }
            16 if all.tables[chosen].is_plain() && count < TABLES => {
                let (name, from) = (self.name("t"), &all.tables[chosen]);
                let sql = format!("CREATE TABLE {schema}.{name} AS SELECT * FROM {schema}.{}", from.name);
                let mut columns = from.columns.clone();
                columns.iter_mut().for_each(|column| column.computed = false);
                let (indices, triggers) = Default::default();
                all.tables.push(Table { name, shape: table::Shape::Rowid, columns, indices, triggers });
                sql
            }
            17 | 18 if count > 3 => {
                let table = all.tables.remove(chosen);
                format!("DROP TABLE {schema}.{}", table.name)
            }
            _ => self.dice.of(&["ANALYZE {}", "REINDEX"]).replace("{}", schema),
        };
        self.sql(at, sql, Change::Schema(file, all))
    }

    /// Statements that are left half done.
    fn walk(&mut self, at: usize, schema: &str, file: usize) -> Written {
        let slot = self.dice.pick(CURSORS);
        match self.world.statements[slot] {
            Some(_) if self.dice.chance(35) => self.step(Step::Finish { slot }),
            Some(of) if self.kind == Kind::Wal || of == at => {
                let rows = self.dice.of(&[1, 3, 20, 5000]);
                self.step(Step::Fetch { slot, rows })
            }
            Some(_) => self.step(Step::Finish { slot }),
            None => match self.table(at, file) {
                Some((_, table)) => {
                    let sql = reading::walk(&mut self.dice, schema, &table);
                    self.step(Step::Cursor { at, slot, sql })
                }
                None => self.define(at, schema, file),
            },
        }
    }

    fn blob(&mut self, at: usize, schema: &str, file: usize) -> Written {
        let Some((_, mut table)) = self.table(at, file) else { return self.define(at, schema, file) };
        if table.shape == table::Shape::WithoutRowid || !table.is_plain() {
            // Some have no values to open.
            table = self.table(at, file).map_or(table, |(_, table)| table);
        }
        let column = table.column(&mut self.dice).name.clone();
        let row = i64::from(self.dice.below(super::value::KEYS));
        let piece = match self.dice.below(3) {
            0 => (0, 1),
            1 => (self.dice.below(20), self.dice.below(9)),
            _ => (self.dice.below(3000), self.dice.below(3000)),
        };
        let write = self.dice.chance(60).then(|| self.dice.below(256) as u8);
        self.step(Step::Blob { at, place: [schema.to_owned(), table.name, column], row, piece, write })
    }

    fn attach(&mut self, at: usize) -> Written {
        let schemas = &self.world.links[at].as_ref().expect("an open connection").schemas;
        if schemas.len() > 1 && self.dice.chance(40) {
            let (name, _) = schemas[1 + self.dice.pick(schemas.len() - 1)].clone();
            return self.sql(at, format!("DETACH {name}"), Change::Detached(name));
        }
        let guest = self.kind == Kind::Guest;
        let there = |file: &usize| schemas.iter().skip(usize::from(guest)).any(|(_, other)| other == file);
        let Some(file) = (0..FILES.len()).find(|file| !there(file)) else { return self.begin(at) };
        let name = format!("x{file}");
        let settings = settings::opened(&mut self.dice, &name, self.page_size);
        self.next.push_back(plain(at, settings));
        attach(at, &name, file)
    }

    fn backup(&mut self, at: usize, schema: &str, file: usize) -> Written {
        let slot = self.dice.pick(CURSORS);
        if self.world.backups[slot].is_some() {
            return if self.dice.chance(50) {
                let pages = self.dice.of(&[1, 5, 50, -1]);
                self.step(Step::Copy { slot, pages })
            } else {
                self.step(Step::Copied { slot })
            };
        }
        let open = self.world.open();
        let to = self.dice.of(&open);
        let (target, other) = self.target(to);
        if self.shared
            || self.is_barred()
            || self.world.is_busy(to)
            || to == at
            || file == other
            || self.guest_without_store(at)
            || self.guest_without_store(to)
        {
            return self.read(at, schema, file);
        }
        if self.kind != Kind::Wal || self.dice.chance(60) {
            self.next.push_back((Step::Copy { slot, pages: -1 }, Change::None));
            self.next.push_back((Step::Copied { slot }, Change::None));
        }
        self.world.backups[slot] = Some([(at, file), (to, other)]);
        self.step(Step::Backup { slot, from: (at, schema.to_owned()), to: (to, target) })
    }

    fn vacuum(&mut self, at: usize, schema: String) -> Written {
        if self.world.is_busy(at) && self.dice.chance(80) {
            let sql = format!("PRAGMA {schema}.incremental_vacuum({})", self.dice.below(60));
            return self.sql(at, sql, Change::None);
        }
        if self.dice.chance(35) {
            return self.step(Step::Into { at, schema });
        }
        // Given up halfway, it has written pages whose images nobody had (PAGER.md 1).
        let most = self.dice.chance(30).then(|| 1 << (8 + self.dice.below(10)));
        let sql = match self.dice.below(3) {
            0 => format!("PRAGMA {schema}.incremental_vacuum({})", self.dice.below(60)),
            _ => format!("VACUUM {schema}"),
        };
        (Step::Sql { at, sql, stock: None, compare: Compare::All, most }, Change::None)
    }

    /// Temporary tables and sorts go through Tideline's VFS, too.
    fn temporary(&mut self, at: usize, schema: &str, file: usize) -> Written {
        let Some((_, table)) = self.table(at, file) else { return self.define(at, schema, file) };
        let key = table.key();
        let sql = match self.dice.below(5) {
            0 => "CREATE TEMP TABLE IF NOT EXISTS w(id INTEGER PRIMARY KEY, v)".to_owned(),
            1 => format!("CREATE TEMP TABLE IF NOT EXISTS w AS SELECT * FROM {schema}.{}", table.name),
            2 => format!(
                "INSERT INTO temp.w SELECT {key} + {}, printf('%0200d', {key}) FROM {schema}.{} WHERE typeof({key}) = 'integer'",
                self.named, table.name
            ),
            3 => "SELECT count(*), sum(length(v)) FROM (SELECT * FROM temp.w ORDER BY v DESC, id LIMIT 1000)"
                .to_owned(),
            _ => "DROP TABLE IF EXISTS temp.w".to_owned(),
        };
        self.sql(at, sql, Change::None)
    }

    fn ship(&mut self, file: usize) -> Written {
        // Others can't look while a guest has it exclusively, or stock SQLite's writer has.
        if self.kind == Kind::Guest || self.is_barred() {
            return self.step(Step::Dump { at: self.focus, schema: "main".to_owned() });
        }
        self.step(Step::Ship { file })
    }

    fn rest(&mut self) -> Written {
        let folders = self.dice.chance(50);
        let rest = match self.dice.below(9) {
            0 | 1 => Rest::Adopt { folders },
            2 => Rest::GiveBack,
            3 => Rest::Exchange { folders },
            4..7 => Rest::Leave,
            _ => {
                let file = self.dice.pick(FILES.len());
                self.world.rest();
                let schema = self.world.schema(0, file);
                if schema.tables.is_empty() {
                    Rest::Leave
                } else {
                    let table = schema.tables[self.dice.pick(schema.tables.len())].clone();
                    let sql = writing::write(&mut self.dice, "main", &table, &schema);
                    Rest::Outside { file, sql }
                }
            }
        };
        self.step(Step::Rest(rest))
    }
}

fn plain(at: usize, sql: String) -> Written {
    (Step::Sql { at, sql, stock: None, compare: Compare::All, most: None }, Change::None)
}

fn attach(at: usize, name: &str, file: usize) -> Written {
    let sql = format!("ATTACH '<{}>' AS {name}", FILES[file]);
    let step = Step::Sql { at, sql, stock: None, compare: Compare::All, most: None };
    (step, Change::Attached(name.to_owned(), file))
}
