//! Applying entries that were shipped from another machine.

use std::path::PathBuf;
use std::sync::Arc;

use crate::disk::{File, How, Identity};
use crate::error::{At, Code, Error, Result};
use crate::format::{Kind, Name, Origin, Shipped, ShippedHeader, ShippedRow};
use crate::hash::page_hash;
use crate::lsn::{Lsn, LsnRange};
use crate::past::Past;
use crate::session::{Durability, Proto, Session};
use crate::state::{Counters, State, later, lock_page};
use crate::store::Store;
use crate::unpacked::{Source, each_batch};

/// How often a snapshot may have become stale between being taken and being written on.
const STALE_TRIES: usize = 100;

/// What a received entry means for this replica.
enum Verdict {
    /// It is here already.
    Known,
    /// It is the next.
    Apply,
}

impl Store {
    /// Applies a shipped entry, or a piece of one; returns the LSN that this replica has then.
    /// Atomic; readers go on.
    ///
    /// # Errors
    /// `Gap`, `Foreign`, `Diverged`, `Damaged`, `Format`, `Busy`: nothing is changed.
    pub fn receive(self: &Arc<Self>, blob: &[u8]) -> Result<Lsn> {
        self.receive_behind(blob, None, Durability::Disk)
    }

    /// As [`Store::receive`], from a sender who is known to have the commit `known`, by its identity: a full image goes on
    /// from there, also where that commit was made here. Without durability on the disk a power cut may take it back, until
    /// [`Store::harden`].
    ///
    /// # Errors
    /// As [`Store::receive`].
    pub fn receive_behind(
        self: &Arc<Self>,
        blob: &[u8],
        known: Option<(Lsn, u64)>,
        durability: Durability,
    ) -> Result<Lsn> {
        if blob.is_empty() {
            return Ok(self.head());
        }
        let shipped = Shipped::check(blob)?;
        let header = shipped.header;
        self.whole()?;
        let mut session = Session::new(Arc::clone(self))?;
        self.become_writer(&mut session)?;
        self.wholly_in_place()?;
        let here =
            *session.state().ok_or_else(|| Error::new(Code::Io, "no snapshot; report this as a bug"))?;
        match self.judge(&shipped, &here, known)? {
            Verdict::Known => return Ok(here.lsn),
            Verdict::Apply => {}
        }
        if header.rows_before == 0 && u64::from(header.rows_here) == header.rows {
            return self.apply(&mut session, &header, &here, durability, |each| each(&shipped));
        }
        let incoming = Incoming::open(self)?;
        if !incoming.add(&header, blob)? {
            session.end_read()?;
            return Ok(here.lsn);
        }
        let pieces = incoming.pieces()?;
        let first = pieces.load(0)?;
        let first = Shipped::check(&first)?;
        let lsn = match self.judge(&first, &here, known)? {
            Verdict::Known => here.lsn,
            Verdict::Apply => self.apply(&mut session, &first.header, &here, durability, |each| {
                (0..pieces.places.len()).try_for_each(|n| each(&Shipped::check(&pieces.load(n)?)?))
            })?,
        };
        incoming.forget()?;
        Ok(lsn)
    }

    /// Makes durable what was received or committed.
    ///
    /// # Errors
    /// `Poisoned` if that fails.
    pub fn harden(&self) -> Result<()> {
        self.make_durable(self.control.appended())
    }

    /// Applies an entry whose pieces `walk` goes through.
    fn apply(
        self: &Arc<Self>,
        session: &mut Session,
        header: &ShippedHeader,
        here: &State,
        durability: Durability,
        walk: impl Fn(&mut dyn FnMut(&Shipped<'_>) -> Result<()>) -> Result<()>,
    ) -> Result<Lsn> {
        // An entry that isn't right must not change the lineage: its pages wait in a segment to which nothing leads.
        let taking = match header.lineage == self.lineage() {
            true => None,
            false => Some(self.begin_take_over(header.lineage)?),
        };
        let staged = Applying::begin(self, session, header, here).and_then(|mut applying| {
            if let Some(segment) = &taking {
                session.stage_in(Arc::clone(segment))?;
            }
            walk(&mut |piece| applying.stage(session, piece))?;
            applying.complete(session)?;
            Ok(applying)
        });
        match (staged, taking) {
            (Ok(applying), taking) => {
                let durability = match taking {
                    Some(segment) => {
                        self.take_over(segment)?;
                        Durability::Disk
                    }
                    None => durability,
                };
                applying.commit(session, durability)
            }
            (Err(e), Some(segment)) => {
                // Without it nothing has changed; and if it stays, the next one to open the store removes it.
                self.give_take_over_up(&segment).unwrap_or_else(|e| crate::report(&e));
                Err(e)
            }
            (Err(e), None) => Err(e),
        }
    }

    /// A stale snapshot is taken again; who waits for another writer, and how long, is the caller's
    /// affair.
    fn become_writer(&self, session: &mut Session) -> Result<()> {
        for _ in 0..STALE_TRIES {
            session.begin_read()?;
            match session.begin_write() {
                Err(e) if e.code() == Code::Stale => session.end_read()?,
                other => return other,
            }
        }
        Err(Error::new(Code::Busy, "other connections commit all the time; try again"))
    }

    /// True if the commit `lsn` was received.
    fn came_from_elsewhere(&self, lsn: Lsn) -> bool {
        let (index, _) = self.index();
        index.origin_at(lsn) == Origin::Received
    }

    fn judge(&self, shipped: &Shipped<'_>, here: &State, known: Option<(Lsn, u64)>) -> Result<Verdict> {
        let header = &shipped.header;
        let LsnRange { first, last } = header.range;
        if header.lineage != self.lineage() {
            if here.lsn == Lsn::ZERO && header.full {
                return Ok(Verdict::Apply);
            }
            if here.lsn == Lsn::ZERO {
                return Err(Error::new(
                    Code::Gap,
                    format!(
                        "the blob begins at LSN {first}, and this database is empty; ship tide_prepare(0) first"
                    ),
                ));
            }
            return Err(Error::new(
                Code::Foreign,
                "the blob belongs to another database; receive it into an empty one, or ship from the right one",
            ));
        }
        let diverged = || {
            Error::new(
                Code::Diverged,
                format!(
                    "this replica committed by itself, up to LSN {}; keep its commits by exporting it with tide_export(path), or discard them by deleting it and receiving tide_prepare(0) anew",
                    here.lsn
                ),
            )
        };
        if last <= here.lsn {
            let index = self.index().0;
            return match self.retained_state(&index, last)? {
                Some(state) if state.id != header.state.id => Err(diverged()),
                _ => Ok(Verdict::Known),
            };
        }
        if here.lsn == Lsn::ZERO && header.full {
            return Ok(Verdict::Apply);
        }
        if first > here.lsn.next() {
            return Err(Error::new(
                Code::Gap,
                format!(
                    "the blob begins at LSN {first}, but this replica is at {}; ship what is between, with tide_prepare({})",
                    here.lsn, here.lsn
                ),
            ));
        }
        match shipped.identity(here.lsn) {
            Some(id) if id == here.id => Ok(Verdict::Apply),
            Some(_) => Err(diverged()),
            // Only the first piece lists identities, and it was judged by them.
            None if header.rows_before > 0 => Ok(Verdict::Apply),
            // The sender goes on from what is here.
            None if header.full && known == Some((here.lsn, here.id)) => Ok(Verdict::Apply),
            // All pages of a replica that has nothing of its own.
            None if header.full && self.came_from_elsewhere(here.lsn) => Ok(Verdict::Apply),
            None => Err(Error::new(
                Code::Gap,
                format!(
                    "the blob merges LSN {} into others, so it can't be told to continue it; ship tide_prepare({})",
                    here.lsn, here.lsn
                ),
            )),
        }
    }
}

/// An entry on its way into the journal.
struct Applying {
    store: Arc<Store>,
    header: ShippedHeader,
    here: State,
    /// Checksum of the database so far, if it is known.
    sum: Option<u64>,
    next_page: u32,
    missing: bool,
    /// The database before the entry's range, if it is known here.
    past: Option<Past>,
}

impl Applying {
    fn begin(
        store: &Arc<Store>,
        session: &mut Session,
        header: &ShippedHeader,
        here: &State,
    ) -> Result<Applying> {
        // What came before counts only where pages of it stay.
        let mut sum = if header.full {
            Some(0)
        } else if header.checksum_after.is_some() {
            store.checksum(session.pinned()?, !store.is_lazy()?)?
        } else {
            None
        };
        if let (Some(before), Some(own)) = (header.checksum_before, sum) {
            if header.range.first == here.lsn.next() && before != own {
                return Err(Error::new(
                    Code::Diverged,
                    format!(
                        "this replica's pages at LSN {} aren't the sender's; run tide_verify, or delete it and receive tide_prepare(0) anew",
                        here.lsn
                    ),
                ));
            }
        }
        if !header.full && store.is_lazy()? {
            // To go on with it takes the hash of each page that the entry replaces, for which the source would be asked
            // while nobody else can commit.
            sum = None;
        }
        let index = Arc::clone(&session.pinned()?.index);
        let before = Lsn::new(header.range.first.get() - 1);
        let known = if header.full { None } else { store.retained_state(&index, before)? };
        Ok(Applying {
            store: Arc::clone(store),
            header: *header,
            here: *here,
            sum,
            next_page: 1,
            missing: false,
            past: known.map(|state| Past::new(store, index, state, false)),
        })
    }

    /// True if pages that aren't here are left out between the last staged one and `end`.
    fn lacks(&self, end: u32) -> bool {
        let (here, size) = (&self.here, self.header.state.page_size);
        let others = self.header.full || here.size > 0 && here.page_size != size;
        let from = self.next_page.max(if others { 1 } else { here.size + 1 });
        let lock = lock_page(size as usize);
        from < end && !(from == lock && end == lock + 1)
    }

    /// Notes that the entry has this page, and what it adds to the checksum.
    fn count(&mut self, row: &ShippedRow<'_>) {
        // Whatever isn't here already must be in the entry: no page is ever made up.
        self.missing |= self.lacks(row.page);
        self.next_page = row.page + 1;
        self.sum = self.sum.map(|sum| sum.wrapping_add(row.hash));
    }

    fn stage(&mut self, session: &mut Session, piece: &Shipped<'_>) -> Result<()> {
        let size = self.header.state.page_size as usize;
        let resized = self.here.size > 0 && self.here.page_size as usize != size;
        let hashes = if self.sum.is_some() && !self.header.full && !resized && self.here.size > 0 {
            Some(self.store.hashes(self.here.page_size)?)
        } else {
            None
        };
        let known = Known {
            store: Arc::clone(&self.store),
            past: self.past.take(),
            range: self.header.range,
            here: self.here.lsn,
        };
        let staged = each_batch(piece, &known, &mut |rows, images| {
            for row in rows {
                self.count(row);
                if let Some(sum) = &mut self.sum {
                    if let Some(hashes) = hashes.as_ref().filter(|_| row.page <= self.here.size) {
                        *sum = sum.wrapping_sub(self.store.hash_at(session.pinned()?, hashes, row.page)?);
                    }
                }
            }
            session.stage_pages(size, rows.iter().map(|row| (row.page, row.hash)), images)
        });
        self.past = known.past;
        staged
    }

    /// Decides whether the pages that were counted make the database that the sender has.
    fn complete(&mut self, session: &Session) -> Result<()> {
        let header = self.header;
        let size = header.state.page_size as usize;
        let resized = self.here.size > 0 && self.here.page_size != header.state.page_size;
        self.missing |= self.lacks(header.state.size + 1);
        if self.missing {
            return Err(Error::new(
                Code::Damaged,
                "the blob lacks pages that this replica doesn't have; ship it again, or tide_prepare(0)",
            ));
        }
        if resized {
            self.sum = self.sum.filter(|_| header.full);
        } else if let Some(sum) =
            self.sum.as_mut().filter(|_| !header.full && self.here.size > header.state.size)
        {
            let hashes = self.store.hashes(self.here.page_size)?;
            for page in (header.state.size + 1..=self.here.size).filter(|&page| page != lock_page(size)) {
                *sum = sum.wrapping_sub(self.store.hash_at(session.pinned()?, &hashes, page)?);
            }
        }
        if let (Some(expected), Some(sum)) = (header.checksum_after, self.sum) {
            if expected != sum {
                return Err(Error::new(
                    Code::Diverged,
                    format!(
                        "with the blob's pages this replica would not be the sender's database at LSN {}; run tide_verify on both, or delete this one and receive tide_prepare(0) anew",
                        header.range.last
                    ),
                ));
            }
        }
        Ok(())
    }

    fn commit(self, session: &mut Session, durability: Durability) -> Result<Lsn> {
        let header = self.header;
        let own = self.here.counters;
        let theirs = header.state.counters;
        let counter = later(theirs.counter, own.counter.wrapping_add(1));
        let counters = Counters {
            counter,
            valid_for: if theirs.counter == theirs.valid_for { counter } else { theirs.valid_for },
            version: theirs.version,
            // Equal cookies mean equal schemas to whoever has the database open.
            cookie: if own.cookie > theirs.cookie { own.cookie.wrapping_add(1) } else { theirs.cookie },
        };
        let last = header.range.last;
        // What went while the pieces came together.
        session.store().wholly_in_place()?;
        session.prepare_as(Proto {
            kind: if header.full {
                Kind::Full
            } else if header.range.count() == 1 {
                Kind::Commit
            } else {
                Kind::Merged
            },
            origin: Origin::Received,
            range: LsnRange { first: self.here.lsn.next(), last },
            state: State { counters, ..header.state },
            checksum: self.sum,
        })?;
        let lsn = session.publish(durability, false)?;
        if let Some(sum) = self.sum {
            *self.store.known_checksum.lock() = Some((lsn, sum));
        }
        session.end_read()?;
        Ok(lsn)
    }
}

/// What rows are compared with, and what is known here of the database before them.
struct Known {
    store: Arc<Store>,
    /// The database before the entry's range, if it is known here.
    past: Option<Past>,
    range: LsnRange,
    here: Lsn,
}

impl Source for Known {
    fn before(&self, row: &ShippedRow<'_>, to: &mut [u8]) -> Result<()> {
        if let Some(past) = &self.past
            && past.read(&self.store, row.page, to)?
        {
            return Ok(());
        }
        Err(Error::new(
            Code::Gap,
            format!(
                "the blob has page {} as a difference from LSN {}, which this replica, at {}, no longer has; ship tide_prepare({})",
                row.page,
                self.range.first.get() - 1,
                self.here,
                self.here
            ),
        ))
    }

    fn check(&self, row: &ShippedRow<'_>, image: &[u8]) -> Result<()> {
        if page_hash(row.page, image) == row.hash {
            return Ok(());
        }
        Err(Error::new(
            Code::Damaged,
            format!(
                "page {} of the blob isn't what it should be, or what it is a difference from isn't; run tide_verify here and on the sender, and ship it again",
                row.page
            ),
        ))
    }
}

/// What is in the file of pieces, so that it needn't be read again for each.
#[derive(Clone, Copy)]
pub(crate) struct Collected {
    /// Which entry they are of.
    token: u64,
    /// The file, as it was then.
    file: Identity,
    end: u64,
    rows: u64,
}

/// The file that collects the pieces of an entry: each with its length before it.
struct Incoming<'a> {
    store: &'a Store,
    file: Arc<dyn File>,
    path: PathBuf,
}

/// Offset and length of each sound piece, the offset behind them, and how many rows they have.
type Walked = (Vec<(u64, u64)>, u64, u64);

/// Pieces that make up a whole entry.
struct Pieces {
    file: Arc<dyn File>,
    path: PathBuf,
    /// Offset and length of each.
    places: Vec<(u64, u64)>,
}

impl Pieces {
    fn load(&self, n: usize) -> Result<Vec<u8>> {
        let (offset, len) = self.places[n];
        let mut piece = vec![0; len as usize];
        self.file.read_at(&mut piece, offset).at(|| format!("reading {}", self.path.display()))?;
        Ok(piece)
    }
}

impl<'a> Incoming<'a> {
    fn open(store: &'a Store) -> Result<Incoming<'a>> {
        let path = store.file_path(Name::Incoming);
        let file = store.disk.open(&path, How::Create).at(|| format!("opening {}", path.display()))?;
        store
            .disk
            .copy_owner(&store.path, &path)
            .at(|| format!("setting the owner of {}", path.display()))?;
        Ok(Incoming { store, file, path })
    }

    /// The sound pieces of the entry with `token`, in order, and where the next goes. Whatever else
    /// is in the file is of no use.
    fn walk(&self, token: u64) -> Result<Walked> {
        let here = || format!("reading {}", self.path.display());
        let end = self.file.len().at(here)?;
        let (mut places, mut at, mut rows) = (Vec::new(), 0u64, 0u64);
        while at + 8 <= end {
            let mut len = [0; 8];
            self.file.read_at(&mut len, at).at(here)?;
            let len = u64::from_le_bytes(len);
            if len > end - at - 8 {
                break;
            }
            let mut piece = vec![0; len as usize];
            self.file.read_at(&mut piece, at + 8).at(here)?;
            match Shipped::check(&piece) {
                Ok(shipped) if shipped.header.token == token && shipped.header.rows_before == rows => {
                    rows += u64::from(shipped.header.rows_here);
                    places.push((at + 8, len));
                    at += 8 + len;
                }
                _ => break,
            }
        }
        Ok((places, at, rows))
    }

    /// Adds a piece, durably; true if the entry is complete.
    fn add(&self, header: &ShippedHeader, blob: &[u8]) -> Result<bool> {
        let (mut end, mut rows) = self.collected(header.token)?;
        if header.rows_before == 0 && rows > 0 && rows >= u64::from(header.rows_here) {
            // The first piece again.
            return Ok(rows == header.rows);
        }
        if header.rows_before == 0 {
            (end, rows) = (0, 0);
        }
        if header.rows_before < rows {
            return Ok(rows == header.rows);
        }
        if header.rows_before > rows {
            return Err(Error::new(
                Code::Gap,
                format!(
                    "{rows} pages of this entry are here, and the piece begins behind page {}; send the pieces in order, from the first that is missing",
                    header.rows_before
                ),
            ));
        }
        let here = || format!("writing {}", self.path.display());
        self.file.set_len(end).at(here)?;
        self.file.write_at(&(blob.len() as u64).to_le_bytes(), end).at(here)?;
        self.file.write_at(blob, end + 8).at(here)?;
        self.file.sync().at(here)?;
        self.store.disk.sync_dir(&self.store.side).at(here)?;
        let rows = rows + u64::from(header.rows_here);
        *self.store.collected.lock() = Some(Collected {
            token: header.token,
            file: self.file.identity().at(here)?,
            end: end + 8 + blob.len() as u64,
            rows,
        });
        Ok(rows == header.rows)
    }

    /// Where the next piece of the entry with `token` goes, and how many rows those before it have:
    /// as it was after the last piece, if nobody has touched the file since.
    fn collected(&self, token: u64) -> Result<(u64, u64)> {
        let known = *self.store.collected.lock();
        if let Some(known) = known.filter(|known| known.token == token) {
            let file = self.file.identity().at(|| format!("reading {}", self.path.display()))?;
            if known.file == file && known.end == file.len {
                return Ok((known.end, known.rows));
            }
        }
        let (_, end, rows) = self.walk(token)?;
        Ok((end, rows))
    }

    fn pieces(&self) -> Result<Pieces> {
        let mut start = [0; 8];
        self.file.read_at(&mut start, 0).at(|| format!("reading {}", self.path.display()))?;
        let mut piece =
            vec![0; u64::from_le_bytes(start).min(crate::format::SHIPPED_HEADER_LEN as u64) as usize];
        self.file.read_at(&mut piece, 8).at(|| format!("reading {}", self.path.display()))?;
        let header = ShippedHeader::decode(&piece)?;
        let (places, _, rows) = self.walk(header.token)?;
        if rows != header.rows {
            return Err(Error::new(
                Code::Gap,
                "another connection has received pieces of another entry; send the pieces again, from the first",
            ));
        }
        Ok(Pieces { file: Arc::clone(&self.file), path: self.path.clone(), places })
    }

    fn forget(&self) -> Result<()> {
        self.store.disk.remove(&self.path).at(|| format!("removing {}", self.path.display()))
    }
}
