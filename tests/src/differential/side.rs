//! One of the two sides: its files, its connections, and what they have under way.

use std::fs;
use std::path::{Path, PathBuf};

use super::answer::Answer;
use super::connection::{Backup, Connection, Failure, Statement};
use super::dump::dump;
use super::step::{CONNECTIONS, CURSORS, FILES, Kind, Setting, Step};

/// The file that `VACUUM INTO` and the like write.
const OUT: &str = "out";

/// One side.
pub(super) struct Side {
    folder: PathBuf,
    vfs: &'static str,
    kind: Kind,
    /// Parameters of each URI that an application opens.
    parameters: &'static str,
    connections: [Option<Connection>; CONNECTIONS],
    statements: [Option<(usize, Statement)>; CURSORS],
    backups: [Option<([usize; 2], Backup)>; CURSORS],
}

impl Side {
    /// One with its files in this folder, opened through this VFS.
    pub fn new(folder: &Path, vfs: &'static str, setting: &Setting) -> Self {
        fs::create_dir(folder).expect("a folder for a side");
        Self {
            folder: folder.to_owned(),
            vfs,
            kind: setting.kind,
            parameters: if setting.shared { "&cache=shared" } else { "" },
            connections: Default::default(),
            statements: Default::default(),
            backups: Default::default(),
        }
    }

    /// A file in its folder.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    fn uri(&self, name: &str, vfs: &str) -> String {
        format!("file:{}?vfs={vfs}", self.path(name).display())
    }

    /// A database of this side, open through SQLite's own VFS.
    pub fn stock(&self, name: &str) -> Result<Connection, Failure> {
        Connection::open(&self.uri(name, "unix"))
    }

    /// A database of this side, open through the side's own.
    pub fn own(&self, name: &str) -> Result<Connection, Failure> {
        Connection::open(&self.uri(name, self.vfs))
    }

    /// The connection with this number, if it is open.
    pub fn connection(&self, at: usize) -> Option<&Connection> {
        self.connections[at].as_ref()
    }

    /// Does a step; `None` if there is nothing to do it on.
    pub fn play(&mut self, step: &Step) -> Option<Answer> {
        if self.is_barred(step) {
            return None;
        }
        let mut answer = match step {
            Step::Open { at, file, read_only } => return self.open(*at, *file, *read_only),
            Step::Close { at } => return self.close(*at),
            Step::Sql { at, sql, stock, most, .. } => {
                let sql = stock.as_ref().filter(|_| self.vfs == "unix").unwrap_or(sql);
                self.connection(*at)?.run(&self.fill_in(sql), *most)
            }
            Step::Into { at, schema } => self.vacuum_into(*at, schema)?,
            Step::Cursor { at, slot, sql } => {
                let connection = self.connections[*at].as_ref()?;
                let mut answer = Answer::default();
                match connection.prepare(sql) {
                    Ok(statement) => self.statements[*slot] = statement.map(|made| (*at, made)),
                    Err(failure) => answer.fail(failure),
                }
                answer.after = connection.after();
                if self.statements[*slot].is_some() && answer.code == 0 {
                    self.fetch(*slot, 1)?
                } else {
                    answer
                }
            }
            Step::Fetch { slot, rows } => self.fetch(*slot, *rows)?,
            Step::Finish { slot } => {
                let (at, _) = self.statements[*slot].take()?;
                self.ended(at)
            }
            Step::Blob { at, place: [schema, table, column], row, piece, write } => {
                let connection = self.connection(*at)?;
                let mut answer = Answer::default();
                match connection.blob((schema, table, column), *row, *piece, *write) {
                    Ok(told) => answer.rows = told,
                    Err(failure) => answer.fail(failure),
                }
                answer.after = connection.after();
                answer
            }
            Step::Backup { slot, from, to } => {
                let (source, target) = (self.connections[from.0].as_ref()?, self.connections[to.0].as_ref()?);
                let mut answer = Answer::default();
                match target.backup(&to.1, (source, &from.1)) {
                    Ok(backup) => self.backups[*slot] = Some(([from.0, to.0], backup)),
                    Err(failure) => answer.fail(failure),
                }
                answer
            }
            Step::Copy { slot, pages } => {
                let (_, backup) = self.backups[*slot].as_mut()?;
                let mut answer = Answer::default();
                match backup.step(*pages) {
                    Ok(done) => answer.rows = format!("{done} {:?}", backup.progress()),
                    Err(failure) => answer.fail(failure),
                }
                answer
            }
            Step::Copied { slot } => {
                let ([_, to], backup) = self.backups[*slot].take()?;
                let mut answer = Answer::default();
                if let Err(failure) = backup.finish() {
                    answer.fail(failure);
                }
                answer.after = self.ended(to).after;
                answer
            }
            Step::Flush { at } => {
                let connection = self.connection(*at)?;
                let mut answer = Answer::default();
                if let Err(failure) = connection.flush() {
                    answer.fail(failure);
                }
                answer.after = connection.after();
                answer
            }
            Step::Dump { at, schema } => {
                let connection = self.connection(*at)?;
                Answer { rows: dump(connection, schema), after: connection.after(), ..Answer::default() }
            }
            Step::Ship { .. } | Step::Rest(_) => unreachable!("steps of both sides together"),
        };
        // Some messages have a path, which differs.
        let folder = format!("{}", self.folder.display());
        if answer.message.contains(&folder) {
            let vfs = format!("vfs={}", self.vfs);
            answer.message = answer.message.replace(&folder, "<folder>").replace(&vfs, "vfs=…");
        }
        Some(answer)
    }

    /// While a backup writes to a connection, nothing else may use that: SQLite doesn't check.
    fn is_barred(&self, step: &Step) -> bool {
        let written = |at: usize| self.backups.iter().flatten().any(|([_, to], _)| *to == at);
        let half_done = |at: usize| self.statements.iter().flatten().any(|(of, _)| *of == at);
        match step {
            Step::Sql { at, .. }
            | Step::Into { at, .. }
            | Step::Cursor { at, .. }
            | Step::Blob { at, .. }
            | Step::Flush { at }
            | Step::Dump { at, .. } => written(*at),
            Step::Fetch { slot, .. } => self.statements[*slot].as_ref().is_some_and(|(at, _)| written(*at)),
            Step::Backup { slot, from, to } => {
                self.backups[*slot].is_some() || written(from.0) || written(to.0) || half_done(to.0)
            }
            _ => false,
        }
    }

    fn open(&mut self, at: usize, file: usize, read_only: bool) -> Option<Answer> {
        if self.connections[at].is_some() {
            return None;
        }
        let opened = match self.kind {
            Kind::Guest => self.stock(&format!("plain{at}")),
            Kind::Wal | Kind::Rollback => {
                let mode = if read_only { "&mode=ro" } else { "" };
                Connection::open(&format!("{}{}{mode}", self.uri(FILES[file], self.vfs), self.parameters))
            }
        };
        let mut answer = Answer::default();
        match opened {
            Ok(connection) => self.connections[at] = Some(connection),
            Err(failure) => answer.fail(failure),
        }
        Some(answer)
    }

    fn close(&mut self, at: usize) -> Option<Answer> {
        self.statements.iter_mut().for_each(|slot| drop(slot.take_if(|(of, _)| *of == at)));
        self.backups.iter_mut().for_each(|slot| drop(slot.take_if(|(of, _)| of.contains(&at))));
        self.connections[at].take().map(|_| Answer::default())
    }

    /// Closes all.
    pub fn close_all(&mut self) {
        for at in 0..CONNECTIONS {
            self.close(at);
        }
    }

    fn ended(&self, at: usize) -> Answer {
        let after = self.connections[at].as_ref().map(Connection::after).unwrap_or_default();
        Answer { after, ..Answer::default() }
    }

    fn fetch(&mut self, slot: usize, rows: u32) -> Option<Answer> {
        let (_, statement) = self.statements[slot].as_mut()?;
        let mut answer = Answer::default();
        for _ in 0..rows {
            match statement.step(&mut answer.rows) {
                Ok(true) => {}
                Ok(false) => {
                    answer.rows.push_str("done\n");
                    break;
                }
                Err(failure) => {
                    answer.fail(failure);
                    break;
                }
            }
        }
        answer.after = statement.after();
        Some(answer)
    }

    /// The file that it writes is looked at, and goes.
    fn vacuum_into(&self, at: usize, schema: &str) -> Option<Answer> {
        let sql = format!("VACUUM {schema} INTO '{}'", self.uri(OUT, self.vfs));
        let mut answer = self.connection(at)?.run(&sql, None);
        if answer.code == 0 {
            answer.rows = match self.stock(OUT) {
                Ok(connection) => dump(&connection, "main"),
                Err((code, text)) => format!("{code} {text}"),
            };
        }
        self.remove(OUT);
        Some(answer)
    }

    /// Puts URIs in their places.
    fn fill_in(&self, sql: &str) -> String {
        if !sql.contains('<') {
            return sql.to_owned();
        }
        FILES.iter().fold(sql.to_owned(), |sql, name| {
            let place = format!("<{name}>");
            if sql.contains(&place) {
                {
                    let uri = format!("{}{}", self.uri(name, self.vfs), self.parameters);
                    sql.replace(&place, &uri)
                }
            } else {
                sql
            }
        })
    }

    /// Removes a database, with whatever is beside it.
    pub fn remove(&self, name: &str) {
        for end in ["", "-wal", "-shm", "-journal"] {
            let path = self.path(&format!("{name}{end}"));
            if path.exists() {
                fs::remove_file(path).expect("a file that can be removed");
            }
        }
        self.remove_folder(name);
    }

    /// Removes the folder that Tideline keeps beside a database.
    pub fn remove_folder(&self, name: &str) {
        let folder = self.path(&format!("{name}-tide"));
        if folder.exists() {
            fs::remove_dir_all(folder).expect("a folder that can be removed");
        }
    }
}
