//! Both sides together: each step is done on stock SQLite, then on Tideline, and what they say is compared.

use std::fmt;
use std::fs;
use std::path::Path;

use rusqlite::ffi;

use crate::bundled::bundled_at;
use crate::scratch::Scratch;

use super::answer::Answer;
use super::connection::{Connection, Failure};
use super::dump::dump;
use super::side::Side;
use super::step::{Compare, FILES, Kind, Rest, Setting, Step};

/// How much was compared.
#[derive(Clone, Copy, Debug, Default)]
pub struct Tally {
    statements: u64,
    connections: u64,
    reopenings: u64,
    shipped: u64,
    busy: u64,
    errors: u64,
}

impl Tally {
    /// Adds another.
    pub fn add(&mut self, other: &Tally) {
        self.statements += other.statements;
        self.connections += other.connections;
        self.reopenings += other.reopenings;
        self.shipped += other.shipped;
        self.busy += other.busy;
        self.errors += other.errors;
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { statements, connections, reopenings, shipped, busy, errors } = self;
        write!(f, "statements={statements} connections={connections} reopenings={reopenings} ")?;
        write!(f, "shipped={shipped} busy={busy} errors={errors}")
    }
}

/// Where the sides disagree.
pub(super) struct Difference {
    /// Told for a reader.
    pub text: String,
    /// The first lines that differ, without their numbers: what kind of difference it is.
    pub kind: String,
}

impl Difference {
    fn new(text: String) -> Self {
        let kind = text.chars().filter(|c| !c.is_ascii_digit()).collect();
        Self { text, kind }
    }

    fn between(text: String, stock: &str, tide: &str) -> Self {
        Self { text, ..Self::new(format!("{stock} and {tide}")) }
    }
}

impl From<Failure> for Difference {
    fn from((code, text): Failure) -> Self {
        Self::new(format!("a database can't be opened to be looked at: {code} {text}"))
    }
}

/// Two sides that are played on.
pub(super) struct Play {
    kind: Kind,
    stock: Side,
    tide: Side,
    /// Whether a file has changed hands since its replica was last written.
    moved: [bool; FILES.len()],
    tally: Tally,
    _scratch: Scratch,
}

impl Play {
    /// Makes the databases.
    pub fn new(setting: &Setting) -> Result<Self, Difference> {
        drop(bundled_at("file::memory:").expect("the library loaded"));
        let scratch = Scratch::new();
        let stock = Side::new(&scratch.path("stock"), "unix", setting);
        let tide = Side::new(&scratch.path("tide"), "tideline", setting);
        let kind = setting.kind;
        let play = Self { kind, stock, tide, moved: [true; 3], tally: Tally::default(), _scratch: scratch };
        for name in FILES {
            let sides = if setting.adopt { &[&play.stock][..] } else { &[&play.stock, &play.tide] };
            for side in sides {
                let answer = side.own(name)?.run(&setting.new, None);
                if answer.code != ffi::SQLITE_OK {
                    return Err(Difference::new(format!("{name} can't be made:\n{answer}")));
                }
            }
            if setting.adopt {
                play.hand_over(name, &play.stock, &play.tide);
            }
            play.prepare_stock(name)?;
        }
        Ok(play)
    }

    /// What was compared so far.
    pub fn tally(&self) -> Tally {
        self.tally
    }

    /// Does a step on both sides; the answer is theirs. `None` if there was nothing to do it on, on either side.
    pub fn step(&mut self, step: &Step) -> Result<Option<Answer>, Difference> {
        match step {
            Step::Ship { file } => self.ship(*file).map(|()| None),
            Step::Rest(rest) => self.rest(rest).map(|()| None),
            _ => self.compare(step),
        }
    }

    fn compare(&mut self, step: &Step) -> Result<Option<Answer>, Difference> {
        let (stock, tide) = (self.stock.play(step), self.tide.play(step));
        let (Some(stock), Some(tide)) = (&stock, &tide) else {
            return if stock.is_none() && tide.is_none() {
                Ok(None)
            } else {
                Err(Difference::new("only one side had something to do it on".to_owned()))
            };
        };
        self.count(step, stock);
        let same = match step {
            Step::Sql { compare: Compare::Code, .. } => stock.code == tide.code && stock.after == tide.after,
            _ => stock == tide,
        };
        if !same {
            let text = format!("stock SQLite answers\n{stock}\n  and Tideline\n{tide}");
            let lines = stock.rows.lines().zip(tide.rows.lines()).find(|(one, other)| one != other);
            let whys = (stock.why(), tide.why());
            let (one, other) = lines.unwrap_or((&whys.0, &whys.1));
            return Err(Difference::between(text, one, other));
        }
        Ok(Some(stock.clone()))
    }

    fn count(&mut self, step: &Step, answer: &Answer) {
        match step {
            Step::Open { .. } => self.tally.connections += 1,
            Step::Close { .. } | Step::Finish { .. } | Step::Dump { .. } => {}
            _ => self.tally.statements += 1,
        }
        if answer.code & 0xff == ffi::SQLITE_BUSY {
            self.tally.busy += 1;
        } else if answer.code != ffi::SQLITE_OK {
            self.tally.errors += 1;
        }
    }

    /// A database as everybody sees it, and its replica.
    fn ship(&mut self, file: usize) -> Result<(), Difference> {
        let name = FILES[file];
        let source = self.tide.path(name);
        let replica = format!("replica-{name}");
        let mut received = self.receive(&source, &replica)?;
        // tide_retain and tide_compact give up LSNs.
        let trimmed = ["TRIMMED", "inside a merged entry"].iter().any(|why| received.message.contains(why));
        if !received.rows.ends_with("sound\n") && (self.moved[file] || trimmed) {
            // What was there has no more to do with what is there now: another lineage, or no history.
            self.tide.remove(&replica);
            received = self.receive(&source, &replica)?;
        }
        if received.code != ffi::SQLITE_OK || !received.rows.ends_with("sound\n") {
            return Err(Difference::new(format!("shipped to a replica, it answers\n{received}")));
        }
        self.moved[file] = false;
        self.tally.shipped += 1;
        let stock = dump(&self.stock.own(name)?, "main");
        sound(&stock)?;
        differ("the database", &stock, &dump(&self.tide.own(name)?, "main"))?;
        differ("the replica", &stock, &dump(&self.tide.own(&replica)?, "main"))
    }

    fn receive(&self, source: &Path, replica: &str) -> Result<Answer, Difference> {
        let sql = format!(
            "ATTACH 'file:{}?vfs=tideline' AS source;
             SELECT tide_receive(tide_prepare(tide_lsn('main'), NULL, 'source'), 'main');
             SELECT * FROM tide_verify('source'); SELECT * FROM tide_verify('main');
             SELECT tide_lsn('main') = tide_lsn('source')
                 AND json_extract(tide_status('main'), '$.lineage') = json_extract(tide_status('source'), '$.lineage')",
            source.display()
        );
        let mut answer = self.tide.own(replica)?.run(&sql, None);
        let lines: Vec<&str> = answer.rows.lines().collect();
        if lines.len() == 2 && lines[1] == "1" {
            answer.rows.push_str("sound\n");
        }
        Ok(answer)
    }

    fn rest(&mut self, rest: &Rest) -> Result<(), Difference> {
        self.tally.reopenings += 1;
        self.stock.close_all();
        self.tide.close_all();
        for name in FILES {
            let mode = || fs::read(self.tide.path(name)).map(|bytes| bytes.get(18..20).map(<[u8]>::to_vec));
            if mode().ok().flatten().is_some_and(|mode| mode == [2, 2]) {
                // It was stock SQLite's, and nobody has opened it since.
                self.tide.own(name)?.run("PRAGMA schema_version", None);
            }
            match mode() {
                Ok(Some(mode)) if mode == [1, 1] => {}
                other => return Err(Difference::new(format!("{name} isn't plain at rest: {other:?}"))),
            }
            let stock = dump(&self.stock.stock(name)?, "main");
            differ(&format!("{name} at rest"), &stock, &dump(&self.tide.stock(name)?, "main"))?;
            sound(&stock)?;
        }
        match rest {
            Rest::Leave => return Ok(()),
            Rest::Adopt { folders } => {
                for name in FILES {
                    self.give_to_tide(name, &self.stock.path(name), *folders);
                }
            }
            Rest::GiveBack => FILES.iter().for_each(|name| self.hand_over(name, &self.tide, &self.stock)),
            Rest::Exchange { folders } => {
                for name in FILES {
                    let between = self.stock.path("between");
                    fs::rename(self.stock.path(name), &between).expect("a file renamed");
                    self.hand_over(name, &self.tide, &self.stock);
                    self.give_to_tide(name, &between, *folders);
                }
            }
            Rest::Outside { file, sql } => {
                for side in [&self.stock, &self.tide] {
                    side.stock(FILES[*file])?.run(sql, None);
                }
            }
        }
        self.moved = [true; FILES.len()];
        FILES.iter().try_for_each(|name| self.prepare_stock(name))
    }

    /// Tideline gets another file. Where the folder stays, it knows a change from outside by the change counter, which
    /// all that changes a file moves; but what changed another file may have moved that one's to the same number.
    fn give_to_tide(&self, name: &str, file: &Path, folder: bool) {
        let mut bytes = fs::read(file).expect("a database");
        let before = fs::read(self.tide.path(name)).expect("a database");
        let counter = |bytes: &[u8], at| u32::from_be_bytes(*bytes[at..].first_chunk().expect("a header"));
        let counts = counter(&bytes, 24) == counter(&bytes, 92);
        if folder && counts {
            let moved = 1000 + counter(&bytes, 24).max(counter(&before, 24));
            for at in [24, 92] {
                bytes[at..at + 4].copy_from_slice(&moved.to_be_bytes());
            }
        } else {
            self.tide.remove_folder(name);
        }
        fs::write(self.tide.path(name), bytes).expect("a file written");
    }

    /// One side's file takes the place of the other's.
    fn hand_over(&self, name: &str, from: &Side, to: &Side) {
        fs::copy(from.path(name), to.path(name)).expect("a file copied");
    }

    /// Makes stock SQLite's database what it is in this kind of play.
    fn prepare_stock(&self, name: &str) -> Result<(), Difference> {
        let mode = if self.kind == Kind::Wal { "wal" } else { "delete" };
        let connection: Connection = self.stock.stock(name)?;
        let answer = connection.run(&format!("PRAGMA journal_mode = {mode}"), None);
        if answer.rows == format!("{mode:?}\n") {
            Ok(())
        } else {
            Err(Difference::new(format!("{mode}:\n{answer}")))
        }
    }
}

fn differ(what: &str, stock: &str, tide: &str) -> Result<(), Difference> {
    let mut asked = "";
    for (one, other) in stock.lines().zip(tide.lines()) {
        if one != other {
            let text = format!(
                "{what} differs, {asked}\n  stock SQLite has\n    {one}\n  and Tideline\n    {other}"
            );
            return Err(Difference::between(text, one, other));
        }
        if ["PRAGMA", "SELECT"].iter().any(|start| one.starts_with(start)) {
            asked = one;
        }
    }
    if stock == tide { Ok(()) } else { Err(Difference::new(format!("{what} has more on one side"))) }
}

/// Both sides agree, but do they agree on something that is sound? Only of a new connection: FTS5 takes what one has
/// cached for what others have written since, and then says that its checksum is wrong.
fn sound(dump: &str) -> Result<(), Difference> {
    let rest = dump.split_once("integrity_check").map_or("nothing", |(_, rest)| rest);
    let answer: Vec<&str> = rest.lines().skip(1).take_while(|line| !line.starts_with("PRAGMA")).collect();
    match answer[..] {
        ["\"ok\""] => Ok(()),
        _ => Err(Difference::new(format!("both are damaged: {}", answer.join("\n")))),
    }
}
