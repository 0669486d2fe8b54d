//! A machine with two databases and up to two processes, which do at random what processes do; and the book that is
//! kept of what the databases must hold.
//!
//! Everything happens in one thread, one call after the other, so that a seed always gives the same steps of the disk.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use tideline_journal::disk::{Disk, How, SimDisk, SimProcess};
use tideline_journal::{Code, Durability, Error, Lsn, LsnRange, Options, Result, Retention, Session, Store};

use super::{Change, Model, Rng, options, plain, put_plain, read, read_at, write};

/// Where the two databases are.
pub const PATHS: [&str; 2] = ["/a.db", "/b.db"];

/// What a database must hold.
#[derive(Default)]
pub struct Book {
    /// What it holds at each LSN, from 0 on, whether or not the commit was acknowledged.
    pub models: Vec<Model>,
    /// Newest LSN that a power cut can't take.
    pub durable: usize,
    /// Newest LSN that the death of a process can't take.
    pub committed: usize,
}

impl Book {
    /// What it holds now, as far as is known.
    pub fn newest(&self) -> &Model {
        &self.models[self.models.len() - 1]
    }

    fn head(&self) -> usize {
        self.models.len() - 1
    }

    /// Somebody tries to commit this on top.
    fn try_commit(&mut self, change: &Change) {
        let mut after = self.newest().clone();
        after.apply(change);
        self.models.push(after);
    }

    /// Takes what was found for what is so. What was committed must be there; what was only tried may be.
    fn settle(&mut self, lsn: Lsn, model: &Model) {
        let found = lsn.get() as usize;
        assert!(
            found >= self.committed && found < self.models.len(),
            "LSN {found} of {} committed and {} tried",
            self.committed,
            self.head()
        );
        assert_eq!(*model, self.models[found], "LSN {found}");
        self.models.truncate(found + 1);
        self.committed = found;
    }
}

/// The books of both databases.
#[derive(Default)]
pub struct Books {
    pub books: [Book; 2],
    /// Transactions over both: the LSN that each has in either.
    pub pairs: Vec<[usize; 2]>,
    /// Steps of the disk that weren't ours, and can't be judged by what we promise.
    pub foreign: Vec<std::ops::Range<u64>>,
    /// How often each kind of work was done.
    pub done: std::collections::BTreeMap<&'static str, u64>,
}

impl Books {
    /// Whoever has one half of a transaction has the other. `lsns` are those that were found.
    pub fn pairs_are_whole(&self, lsns: [usize; 2]) {
        for pair in &self.pairs {
            assert_eq!(lsns[0] >= pair[0], lsns[1] >= pair[1], "half of {pair:?} is there: {lsns:?}");
        }
    }

    /// Takes what was found in both for what is so.
    fn settle(&mut self, found: &[(Lsn, Model); 2]) {
        for (book, (lsn, model)) in self.books.iter_mut().zip(found) {
            book.settle(*lsn, model);
        }
        self.pairs_are_whole([0, 1].map(|which| found[which].0.get() as usize));
        // The LSNs of one that isn't there will be others'.
        let head = self.books[0].head();
        self.pairs.retain(|pair| pair[0] <= head);
    }
}

/// A connection with a snapshot that it holds for long.
struct Reader {
    session: Session,
    model: Model,
}

/// A process, with a connection to each database.
struct Host {
    process: Arc<SimProcess>,
    stores: [Arc<Store>; 2],
    sessions: [Session; 2],
    readers: Vec<Reader>,
}

/// The machine.
pub struct Machine {
    disk: Arc<SimDisk>,
    rng: Rng,
    pub books: Books,
    hosts: [Option<Host>; 2],
    /// The second database is a replica of the first.
    replica: bool,
    /// There is one process only. Its folds are spread over its commits; those of two are done at once, as one would
    /// wait for the other's, which doesn't go on meanwhile.
    alone: bool,
}

impl Machine {
    /// One whose first database may be a plain one at the beginning.
    pub fn new(disk: &Arc<SimDisk>, seed: u64) -> Machine {
        let mut machine = Machine {
            disk: Arc::clone(disk),
            rng: Rng(seed),
            books: Books::default(),
            hosts: [None, None],
            replica: seed % 4 == 3,
            alone: seed % 3 == 1,
        };
        for book in &mut machine.books.books {
            book.models.push(Model::default());
        }
        if machine.rng.below(3) == 0 {
            let model = plain(3 + machine.rng.below(6) as u32);
            machine.foreign(|process| put_plain(process, PATHS[0], &model, 7));
            machine.books.books[0].models.push(model);
            machine.books.books[0].durable = 1;
            machine.books.books[0].committed = 1;
        }
        machine
    }

    fn note(&mut self, what: &'static str) {
        *self.books.done.entry(what).or_default() += 1;
    }

    /// What somebody else does while nobody of ours has the database open.
    fn foreign(&mut self, work: impl FnOnce(&SimProcess) -> std::io::Result<()>) {
        let first = self.disk.steps();
        // The power may be off already.
        let _ = work(&self.disk.process());
        self.books.foreign.push(first..self.disk.steps());
    }

    /// Does `count` things. An error ends it, unless `settle` takes it for something that happens.
    pub fn play(
        &mut self,
        count: u64,
        mut settle: impl FnMut(&mut Machine, Error) -> Result<()>,
    ) -> Result<()> {
        for _ in 0..count {
            if let Err(e) = self.work() {
                settle(self, e)?;
            }
        }
        // Reading ends before the close.
        for number in 0..2 {
            if let Err(e) = self.close(number) {
                settle(self, e)?;
            }
        }
        Ok(())
    }

    /// Does one thing.
    fn work(&mut self) -> Result<()> {
        let number = if self.alone { 0 } else { self.rng.below(2) as usize };
        if self.hosts[number].is_none() {
            return self.start(number);
        }
        match self.rng.below(40) {
            0 | 1 => self.close(number),
            2 => self.kill(number),
            3 => self.roll_back(number),
            4 | 5 => self.fold(number),
            6 | 7 => self.compact(number),
            8 => self.retain(number),
            9 | 10 => self.hold(number),
            11 | 12 => self.let_go(number),
            13..=16 if !self.replica => self.commit_both(number),
            13..=18 if self.replica => self.receive(number),
            17 => self.change_outside(),
            18 => self.learn(number),
            _ => self.commit(number),
        }
    }

    fn host(&mut self, number: usize) -> &mut Host {
        self.hosts[number].as_mut().expect("it was started")
    }

    /// Starts a process, which opens both databases and finds what must be there.
    fn start(&mut self, number: usize) -> Result<()> {
        self.note("starts");
        let process = self.disk.process();
        let fold_step = if self.alone { options().fold_step } else { usize::MAX };
        let open = |path: &str| {
            let disk: Arc<dyn Disk> = Arc::clone(&process) as Arc<dyn Disk>;
            Store::open(disk, Path::new(path), Options { fold_step, ..options() })
        };
        let stores = [open(PATHS[0])?, open(PATHS[1])?];
        let sessions = [Session::new(Arc::clone(&stores[0]))?, Session::new(Arc::clone(&stores[1]))?];
        let host = Host { process, stores, sessions, readers: Vec::new() };
        self.hosts[number] = Some(host);
        self.look(number)
    }

    /// Compares what the process reads with the books.
    fn look(&mut self, number: usize) -> Result<()> {
        let [one, other] = self.host(number).stores.clone();
        let found = [read(&one)?, read(&other)?];
        self.books.settle(&found);
        Ok(())
    }

    /// Ends a process in good order.
    fn close(&mut self, number: usize) -> Result<()> {
        let Some(host) = self.hosts[number].take() else { return Ok(()) };
        self.note("closes");
        let Host { stores, sessions, readers, .. } = host;
        drop((sessions, readers));
        let closed = stores.iter().map(|store| store.close()).fold(Ok(()), Result::and);
        if self.hosts.iter().all(Option::is_none) && closed.is_ok() {
            // The last one has put everything on the disk.
            for book in &mut self.books.books {
                book.durable = book.head();
            }
        }
        closed
    }

    /// Kills a process, perhaps in a transaction.
    fn kill(&mut self, number: usize) -> Result<()> {
        self.note("kills");
        let change = self.books.books[0].newest().change(&mut self.rng);
        let model = self.books.books[0].newest().clone();
        let within = self.rng.below(2) == 0;
        let host = self.host(number);
        let written = if within { write(&mut host.sessions[0], &model, &change) } else { Ok(()) };
        host.process.kill();
        self.hosts[number] = None;
        written
    }

    fn durability(&mut self) -> Durability {
        if self.rng.below(3) == 0 { Durability::Disk } else { Durability::Process }
    }

    /// The next change of a database: of a few pages, of many, or of the same ones again.
    fn change(&mut self, which: usize) -> (Model, Change) {
        let model = self.books.books[which].newest().clone();
        let mut change = model.change(&mut self.rng);
        match self.rng.below(8) {
            // More than a segment holds.
            0 => {
                let size = 24 + self.rng.below(16) as u32;
                change = Change { fills: (2..=size).map(|page| (page, self.rng.next() | 1)).collect(), size };
            }
            1..=3 if model.size > 2 => {
                change = Change {
                    fills: vec![(2 + self.rng.below(2) as u32, self.rng.next() | 1)],
                    size: model.size,
                };
            }
            _ => {}
        }
        (model, change)
    }

    /// Commits to one of the databases.
    fn commit(&mut self, number: usize) -> Result<()> {
        let which = if self.replica { 0 } else { self.rng.below(2) as usize };
        self.note("commits");
        let (mut model, change) = self.change(which);
        let durability = self.durability();
        let book = &mut self.books.books[which];
        book.try_commit(&change);
        let head = book.head();
        let lsn = super::commit(&mut self.host(number).sessions[which], &mut model, &change, durability)?;
        assert_eq!(lsn.get() as usize, head);
        self.acknowledged(which, durability);
        Ok(())
    }

    fn acknowledged(&mut self, which: usize, durability: Durability) {
        let book = &mut self.books.books[which];
        book.committed = book.head();
        if durability == Durability::Disk {
            book.durable = book.head();
        }
    }

    /// Prepares a transaction, and rolls it back.
    fn roll_back(&mut self, number: usize) -> Result<()> {
        self.note("rollbacks");
        let (model, change) = self.change(0);
        let session = &mut self.host(number).sessions[0];
        let written = write(session, &model, &change);
        let undone = session.rollback();
        written.and(undone).and(session.end_read())
    }

    /// A transaction over both databases, as SQLite does it with a super-journal.
    fn commit_both(&mut self, number: usize) -> Result<()> {
        self.note("pairs");
        let changes = [self.change(0), self.change(1)];
        let durability = self.durability();
        for (book, (_, change)) in self.books.books.iter_mut().zip(&changes) {
            book.try_commit(change);
        }
        self.books.pairs.push([self.books.books[0].head(), self.books.books[1].head()]);
        // Its name is new each time: a transaction that couldn't be undone waits for the one that it was named.
        let super_journal = PathBuf::from(format!("{}-mj{:08X}", PATHS[0], self.books.done["pairs"]));
        let host = self.host(number);
        let done = commit_pair(&host.process, &super_journal, &mut host.sessions, &changes, durability);
        for session in &mut host.sessions {
            if done.is_err() {
                session.rollback()?;
            }
            session.end_read()?;
        }
        let published = done?;
        self.acknowledged(0, Durability::Disk);
        self.acknowledged(1, Durability::Disk);
        published
    }

    fn fold(&mut self, number: usize) -> Result<()> {
        self.note("folds");
        let which = self.rng.below(2) as usize;
        match self.host(number).stores[which].fold() {
            // The other process is in the middle of one.
            Err(e) if e.code() == Code::Busy => Ok(()),
            other => other.map(drop),
        }
    }

    fn compact(&mut self, number: usize) -> Result<()> {
        self.note("compactions");
        let which = self.rng.below(2) as usize;
        let whole = self.rng.below(2) == 0;
        let (one, other) = (self.rng.next(), self.rng.next());
        let head = self.books.books[which].head() as u64;
        let (first, last) = (1 + one % head.max(1), 1 + other % head.max(1));
        let range = LsnRange { first: Lsn::new(first.min(last)), last: Lsn::new(first.max(last)) };
        match self.host(number).stores[which].compact(if whole { None } else { Some(range) }) {
            // Not every range can be: it may be given up, or begin in the middle of an entry.
            Err(e) if matches!(e.code(), Code::Argument | Code::Trimmed | Code::Busy) => Ok(()),
            other => other.map(drop),
        }
    }

    fn retain(&mut self, number: usize) -> Result<()> {
        self.note("retentions");
        let (which, choice) = (self.rng.below(2) as usize, self.rng.below(4) as usize);
        let retention =
            [Retention::Default, Retention::None, Retention::Bytes(20_000), Retention::Lsns(4)][choice];
        self.host(number).stores[which].set_retention(retention)
    }

    fn hold(&mut self, number: usize) -> Result<()> {
        self.note("readers");
        let which = self.rng.below(2) as usize;
        let model = self.books.books[which].newest().clone();
        let host = self.host(number);
        let mut session = Session::new(Arc::clone(&host.stores[which]))?;
        session.begin_read()?;
        host.readers.push(Reader { session, model });
        Ok(())
    }

    /// What a reader sees is what it saw.
    fn let_go(&mut self, number: usize) -> Result<()> {
        let Some(mut reader) = self.host(number).readers.pop() else { return Ok(()) };
        assert_eq!(read_at(&reader.session)?, reader.model, "a snapshot changed");
        reader.session.end_read()
    }

    /// The replica gets what the other database has.
    fn receive(&mut self, number: usize) -> Result<()> {
        self.note("receives");
        let piece = 600 + self.rng.below(4000);
        let [source, replica] = self.host(number).stores.clone();
        let ship = |after: Lsn| source.batches(after, Some(piece));
        let batches = match ship(replica.head()) {
            // It was given up, or merged with what is behind it.
            Err(e) if matches!(e.code(), Code::Trimmed | Code::Argument) => ship(Lsn::ZERO),
            other => other,
        };
        let [own, copy] = &mut self.books.books;
        copy.models.extend_from_slice(&own.models[copy.models.len()..]);
        for blob in batches? {
            copy.committed = replica.receive(&blob?)?.get() as usize;
        }
        assert_eq!(copy.committed, copy.head(), "all of it was shipped");
        Ok(())
    }

    fn learn(&mut self, number: usize) -> Result<()> {
        self.note("checksums");
        let which = self.rng.below(2) as usize;
        self.host(number).stores[which].learn_checksum().map(drop)
    }

    /// Stock SQLite writes to the first database while nobody of ours has it open.
    fn change_outside(&mut self) -> Result<()> {
        if self.replica || self.books.books[0].newest().size == 0 {
            return Ok(());
        }
        self.close(0)?;
        self.close(1)?;
        self.note("adoptions");
        let (mut model, change) = self.change(0);
        model.apply(&change);
        // Without a difference it would be the same database.
        model.fills.insert(2, self.rng.next() | 1);
        // Each commit of ours has counted one.
        let counter = 1000 * (1 + self.books.done["adoptions"] as u32);
        self.foreign(|process| put_plain(process, PATHS[0], &model, counter));
        let book = &mut self.books.books[0];
        book.models.push(model);
        (book.durable, book.committed) = (book.head(), book.head());
        Ok(())
    }

    /// A disk that forgets what it couldn't write takes what wasn't durable, as a power cut does.
    pub fn forgets(&mut self) {
        for book in &mut self.books.books {
            book.committed = book.durable;
        }
    }

    /// After an error: what was tried is there as a whole or isn't, and work goes on, at once or after reopening.
    pub fn recover(&mut self) -> Result<()> {
        for host in &mut self.hosts {
            // What a process that was killed reads from memory still means nothing.
            if host.as_ref().is_some_and(|host| host.process.exists(Path::new("/")).is_err()) {
                *host = None;
            }
        }
        if self.hosts.iter_mut().flatten().any(Host::is_told_to_reopen) {
            // What became of a commit that couldn't be put on the disk is known afterwards.
            self.hosts = [None, None];
        }
        for number in 0..2 {
            if self.hosts[number].is_some() && self.look(number).is_err() {
                self.hosts[number] = None;
            }
        }
        Ok(())
    }
}

impl Host {
    /// Leaves what transactions it is in; true if one of its databases can't be written any more.
    fn is_told_to_reopen(&mut self) -> bool {
        self.sessions.iter_mut().any(|session| {
            let left = session.rollback().and(session.end_read());
            let begun = left.and_then(|()| session.begin_read()).and_then(|()| session.begin_write());
            let ended = session.rollback().and(session.end_read());
            begun.and(ended).is_err()
        })
    }
}

/// SQLite's order: the super-journal, both prepared, the super-journal gone, both published. An error of the last step
/// comes by itself: SQLite doesn't tell it, as the transaction is committed then.
fn commit_pair(
    process: &Arc<SimProcess>,
    super_journal: &Path,
    sessions: &mut [Session; 2],
    changes: &[(Model, Change); 2],
    durability: Durability,
) -> Result<Result<()>> {
    let io = |e: std::io::Error| Error::new(Code::Io, e.to_string());
    for (session, (model, change)) in sessions.iter_mut().zip(changes) {
        super::stage(session, model, change)?;
    }
    let file = process.open(super_journal, How::Create).map_err(io)?;
    let names = PATHS.map(|name| format!("{name}-journal\0")).concat();
    file.write_at(names.as_bytes(), 0).and_then(|()| file.sync()).map_err(io)?;
    process.sync_dir(Path::new("/")).map_err(io)?;
    let prepared = sessions.iter_mut().try_for_each(|session| {
        session.prepare(Some(super_journal))?;
        session.sync_prepared()
    });
    if let Err(e) = prepared {
        for session in sessions.iter_mut() {
            session.rollback()?;
        }
        process.remove(super_journal).map_err(io)?;
        return Err(e);
    }
    process.remove(super_journal).and_then(|()| process.sync_dir(Path::new("/"))).map_err(io)?;
    let published = sessions.iter_mut().map(|session| session.publish(durability, false).map(drop));
    Ok(published.fold(Ok(()), Result::and))
}
