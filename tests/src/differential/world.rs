//! What the author believes to be there: connections, their transactions, and what each database has. It is learned
//! from the answers; where it is wrong, a statement fails, on both sides.

use std::rc::Rc;

use super::answer::Answer;
use super::step::{CONNECTIONS, CURSORS, FILES, Step};
use super::table::Schema;

/// What each database has.
pub(super) type Schemas = [Rc<Schema>; FILES.len()];

/// What a step does to the world if it ends well.
#[derive(Clone, Debug)]
pub(super) enum Change {
    None,
    Schema(usize, Schema),
    Savepoint(String),
    RollbackTo(String),
    Release(String),
    Attached(String, usize),
    Detached(String),
}

/// A transaction.
pub(super) struct Transaction {
    schemas: Schemas,
    /// Those that it has changed.
    changed: [bool; FILES.len()],
    /// Savepoints, and what was there.
    pub savepoints: Vec<(String, Schemas)>,
}

/// An open connection.
#[derive(Default)]
pub(super) struct Link {
    /// Names of schemas, and their databases.
    pub schemas: Vec<(String, usize)>,
    pub transaction: Option<Transaction>,
    /// It holds a write lock.
    pub writing: bool,
    /// It was opened for reading only.
    pub reads: bool,
}

/// All of it.
#[derive(Default)]
pub(super) struct World {
    pub links: [Option<Link>; CONNECTIONS],
    committed: Schemas,
    /// The connection of each statement that is half done.
    pub statements: [Option<usize>; CURSORS],
    /// The connections of each backup that is under way, and the databases.
    pub backups: [Option<[(usize, usize); 2]>; CURSORS],
    /// Databases that were too large, for so many statements more.
    pub full: [u32; FILES.len()],
}

impl World {
    /// What a connection sees of a database.
    pub fn schema(&self, at: usize, file: usize) -> Rc<Schema> {
        let transaction = self.links[at].as_ref().and_then(|link| link.transaction.as_ref());
        Rc::clone(&transaction.map_or(&self.committed, |transaction| &transaction.schemas)[file])
    }

    /// Connections that are open.
    pub fn open(&self) -> Vec<usize> {
        (0..CONNECTIONS).filter(|&at| self.links[at].is_some()).collect()
    }

    /// Is something of this connection under way, so that it may hold a lock?
    pub fn is_busy(&self, at: usize) -> bool {
        self.links[at].as_ref().is_some_and(|link| link.transaction.is_some())
            || self.statements.contains(&Some(at))
            || self.backups.iter().flatten().any(|ends| ends.iter().any(|end| end.0 == at))
    }

    /// One that isn't.
    pub fn free(&self) -> Option<usize> {
        (0..CONNECTIONS).find(|&at| self.links[at].is_none())
    }

    /// Is something under way anywhere?
    pub fn is_any_busy(&self) -> bool {
        self.open().into_iter().any(|at| self.is_busy(at))
    }

    /// Learns from an answer.
    pub fn learn(&mut self, step: &Step, change: Change, answer: &Answer) {
        let well = answer.code == 0;
        match step {
            Step::Open { at, file, read_only } if well => {
                let schemas = vec![("main".to_owned(), *file)];
                self.links[*at] = Some(Link { schemas, reads: *read_only, ..Link::default() });
            }
            Step::Close { at } => {
                self.links[*at] = None;
                for slot in &mut self.statements {
                    slot.take_if(|of| *of == *at);
                }
                for slot in &mut self.backups {
                    slot.take_if(|ends| ends.iter().any(|end| end.0 == *at));
                }
            }
            Step::Cursor { at, slot, .. } => {
                self.statements[*slot] = well.then_some(*at);
                self.learn_state(*at, Change::None, answer);
            }
            Step::Fetch { slot, .. } => {
                if let Some(at) = self.statements[*slot] {
                    self.learn_state(at, Change::None, answer);
                }
            }
            Step::Finish { slot } => self.statements[*slot] = None,
            Step::Backup { slot, .. } if !well => self.backups[*slot] = None,
            Step::Copied { slot } => {
                if let Some([from, to]) = self.backups[*slot].take() {
                    // Maybe it was given up before it was done, or restarted: then statements fail for a while.
                    if well {
                        self.committed[to.1] = self.schema(from.0, from.1);
                    }
                }
            }
            Step::Sql { at, .. }
            | Step::Into { at, .. }
            | Step::Blob { at, .. }
            | Step::Flush { at }
            | Step::Dump { at, .. } => {
                self.learn_state(*at, change, answer);
            }
            _ => {}
        }
    }

    fn learn_state(&mut self, at: usize, change: Change, answer: &Answer) {
        const FULL: i32 = 13;
        let well = answer.code == 0;
        let Some(link) = self.links[at].as_mut() else { return };
        if answer.code == FULL {
            link.schemas.iter().for_each(|(_, file)| self.full[*file] = 8);
        }
        link.writing = answer.after.state == 2;
        if !answer.after.autocommit && link.transaction.is_none() {
            let (schemas, changed) = (self.committed.clone(), [false; FILES.len()]);
            link.transaction = Some(Transaction { schemas, changed, savepoints: Vec::new() });
        }
        if answer.after.autocommit {
            if let Some(transaction) = link.transaction.take() {
                // It was committed, or rolled back by ROLLBACK or an error.
                if well && matches!(change, Change::Release(_)) {
                    for file in (0..FILES.len()).filter(|&file| transaction.changed[file]) {
                        self.committed[file] = Rc::clone(&transaction.schemas[file]);
                    }
                }
                return;
            }
        }
        if !well {
            return;
        }
        match (change, &mut link.transaction) {
            (Change::Schema(file, schema), None) => self.committed[file] = Rc::new(schema),
            (Change::Schema(file, schema), Some(transaction)) => {
                transaction.schemas[file] = Rc::new(schema);
                transaction.changed[file] = true;
            }
            (Change::Savepoint(name), Some(transaction)) => {
                transaction.savepoints.push((name, transaction.schemas.clone()));
            }
            (Change::RollbackTo(name), Some(transaction)) => {
                if let Some(depth) = transaction.savepoints.iter().rposition(|(other, _)| *other == name) {
                    transaction.savepoints.truncate(depth + 1);
                    transaction.schemas = transaction.savepoints[depth].1.clone();
                }
            }
            (Change::Release(name), Some(transaction)) => {
                if let Some(depth) = transaction.savepoints.iter().rposition(|(other, _)| *other == name) {
                    transaction.savepoints.truncate(depth);
                }
            }
            (Change::Attached(name, file), _) => link.schemas.push((name, file)),
            (Change::Detached(name), _) => link.schemas.retain(|(other, _)| *other != name),
            _ => {}
        }
    }

    /// Everything was closed.
    pub fn rest(&mut self) {
        self.links = Default::default();
        self.statements = Default::default();
        self.backups = Default::default();
    }
}
