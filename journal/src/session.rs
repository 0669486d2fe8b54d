//! One connection's view of a store: its snapshot and its transaction.
//!
//! ```text
//!            begin_read           begin_write            first write or truncate
//!   Idle ───────────────► Reading ───────────► Writing ───────────────────────► Writing, dirty
//!     ▲                     │  ▲                  │ rollback                        │ prepare
//!     └───── end_read ──────┘  └──────────────────┴────────── publish ──────────────┘
//! ```

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::control::{Cell, Word};
use crate::error::{At, Code, Error, Result};
use crate::format::{
    COMMIT_RECORD_LEN, CommitRecord, ENTRY_ALIGN, EntryHeader, Kind, Origin, ROW_LEN, Row, SUPER_JOURNAL,
    annotation, round_up,
};
use crate::hash::{HEADER_LEN as PAGE_HEADER_LEN, SERVED, mix, page_hash, zero_hash};
use crate::index::Index;
use crate::lsn::{Lsn, LsnRange};
use crate::overlay::Overlay;
use crate::snapshot::Snapshot;
use crate::state::{Counters, State, lock_page, page_size_of, size_of};
use crate::store::Store;

/// When a commit has returned, what can't take it back any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durability {
    /// The death of every process.
    Process,
    /// A power cut.
    Disk,
}

/// An entry that is written but for its commit record.
struct Prepared {
    header: EntryHeader,
    record: CommitRecord,
    rows: Vec<Row>,
    /// The super-journal that decides whether it counts.
    super_journal: Option<PathBuf>,
    /// The super-journal's decision is asked for after a crash from here on.
    decided_elsewhere: bool,
}

/// What an entry is to be that doesn't come from SQLite.
pub(crate) struct Proto {
    pub kind: Kind,
    pub origin: Origin,
    pub range: LsnRange,
    pub state: State,
    pub checksum: Option<u64>,
}

/// One connection's view of a store.
pub struct Session {
    store: Arc<Store>,
    cell: Cell,
    index: Arc<Index>,
    generation: u64,
    snapshot: Option<Snapshot>,
    /// The snapshot isn't known to be durable, so nothing of it may be shown yet.
    unpublished: bool,
    /// The next snapshot is taken at the appended head, because the last was refused as stale.
    want_appended: bool,
    /// The writer's place was taken for this session before it has a snapshot.
    holds_place: bool,
    writing: bool,
    overlay: Option<Overlay>,
    prepared: Option<Prepared>,
    committed: bool,
    table: Vec<u8>,
}

impl Session {
    /// A connection to `store`.
    ///
    /// # Errors
    /// `Limit` if there are too many.
    pub fn new(store: Arc<Store>) -> Result<Session> {
        store.check_process()?;
        let cell = store.control.cell()?;
        let (index, generation) = store.index();
        Ok(Session {
            store,
            cell,
            index,
            generation,
            snapshot: None,
            unpublished: false,
            want_appended: false,
            holds_place: false,
            writing: false,
            overlay: None,
            prepared: None,
            committed: false,
            table: Vec::new(),
        })
    }

    /// The store.
    pub fn store(&self) -> &Arc<Store> {
        &self.store
    }

    /// The state that this connection sees; `None` outside a transaction.
    pub fn state(&self) -> Option<&State> {
        self.snapshot.as_ref().map(|snapshot| &snapshot.state)
    }

    /// True between [`Session::begin_write`] and the end of the transaction.
    pub fn is_writing(&self) -> bool {
        self.writing
    }

    /// True if some connection holds the writer word.
    pub fn somebody_writes(&self) -> bool {
        self.store
            .control
            .holder(Word::Writer)
            .is_some_and(|holder| self.store.control.alive(holder).unwrap_or(true))
    }

    /// Pins the newest snapshot. Makes no system call unless entries of other processes are new.
    ///
    /// # Errors
    /// `Damaged`, `Io` while catching up with other processes.
    pub fn begin_read(&mut self) -> Result<()> {
        self.begin_read_as(false)
    }

    /// As [`Session::begin_read`]; a `writer` sees the appended head, which is what it must write on.
    ///
    /// # Errors
    /// As [`Session::begin_read`].
    pub fn begin_read_as(&mut self, writer: bool) -> Result<()> {
        if self.snapshot.is_some() {
            return Ok(());
        }
        self.store.check_process()?;
        let control = &self.store.control;
        if control.pending() {
            self.store.finish_dead_writer()?;
        }
        if control.appended() > control.visible() {
            self.store.publish_orphans()?;
        }
        let appended = std::mem::take(&mut self.want_appended) || writer;
        let lsn = self.cell.pin(|control| if appended { control.appended() } else { control.visible() });
        match self.snapshot_at(lsn) {
            Ok(snapshot) => {
                self.holds_place = writer;
                self.unpublished = appended && lsn > self.store.control.visible();
                self.snapshot = Some(snapshot);
                Ok(())
            }
            Err(e) => {
                self.cell.unpin();
                Err(e)
            }
        }
    }

    /// The snapshot at an LSN that is pinned.
    fn snapshot_at(&mut self, lsn: Lsn) -> Result<Snapshot> {
        if self.generation != self.store.index_generation() {
            (self.index, self.generation) = self.store.index();
        }
        if self.index.applied() < lsn {
            self.store.catch_up(lsn)?;
            (self.index, self.generation) = self.store.index();
        }
        let floor = self.store.control.base();
        let state = self.index.state(lsn).ok_or_else(|| {
            Error::new(Code::Trimmed, format!("LSN {lsn} isn't readable any more; read a newer one"))
        })?;
        Ok(Snapshot { index: Arc::clone(&self.index), state, floor })
    }

    /// Forgets the snapshot.
    ///
    /// # Errors
    /// Those of maintenance that was due after a commit; the session is idle all the same.
    pub fn end_read(&mut self) -> Result<()> {
        self.rollback()?;
        self.snapshot = None;
        self.holds_place = false;
        self.cell.unpin();
        if std::mem::take(&mut self.committed) { self.store.maintain() } else { Ok(()) }
    }

    /// Becomes the writer, on the present snapshot.
    ///
    /// # Errors
    /// `Busy` if somebody else is, `Stale` if the snapshot isn't the newest, `Poisoned`.
    pub fn begin_write(&mut self) -> Result<()> {
        if self.writing {
            return Ok(());
        }
        if self.snapshot.is_none() {
            return Err(Error::new(Code::Stale, "a write needs a snapshot; read first"));
        }
        self.store.take_writer()?;
        self.begin_write_holding()
    }

    /// As [`Session::begin_write`], with the writer's place taken already by
    /// [`Store::wait_for_writer`].
    ///
    /// # Errors
    /// `Stale`, `Poisoned`; the place is given up then.
    pub fn begin_write_holding(&mut self) -> Result<()> {
        self.holds_place = false;
        let lsn = self.snapshot.as_ref().map_or(Lsn::ZERO, |snapshot| snapshot.state.lsn);
        let begun = (|| {
            if self.store.control.poisoned() {
                return Err(if self.store.control.detached() {
                    Error::new(
                        Code::Denied,
                        "the database was detached; close this connection and open it again",
                    )
                } else {
                    poisoned()
                });
            }
            if self.store.control.appended() != lsn {
                return Err(Error::new(
                    Code::Stale,
                    "another connection has committed meanwhile; begin again",
                ));
            }
            self.store.mark()
        })();
        if let Err(e) = begun {
            self.want_appended = e.code() == Code::Stale;
            self.store.control.release(Word::Writer);
            return Err(e);
        }
        self.writing = true;
        Ok(())
    }

    fn snapshot(&self) -> Result<&Snapshot> {
        self.snapshot
            .as_ref()
            .ok_or_else(|| Error::new(Code::Io, "no snapshot is pinned; begin a transaction"))
    }

    /// The overlay, begun if need be.
    fn overlay(&mut self) -> Result<&mut Overlay> {
        let dirty = self.overlay.as_ref().is_some_and(|overlay| overlay.dirty);
        if !dirty {
            if !self.writing {
                // EXCLUSIVE locking mode writes again without asking for a lock.
                self.begin_write()?;
            }
            let len = self.snapshot()?.state.bytes();
            let (segment, ordinal, start) = {
                let mut tail = self.store.tail.lock();
                self.store.settle_tail(&mut tail)?;
                (Arc::clone(tail.index.segment(tail.segment)), tail.segment, tail.offset)
            };
            match &mut self.overlay {
                Some(overlay) => overlay.reset(segment, ordinal, start, len),
                None => self.overlay = Some(Overlay::new(segment, ordinal, start, len)),
            }
        }
        self.take_back()?;
        Ok(self.overlay.as_mut().expect("it was put there"))
    }

    fn dirty_overlay(&self) -> Option<&Overlay> {
        self.overlay.as_ref().filter(|overlay| overlay.dirty)
    }

    /// Length of the database in bytes, as this transaction sees it.
    #[expect(clippy::len_without_is_empty, reason = "nobody asks")]
    pub fn len(&self) -> u64 {
        match (self.dirty_overlay(), &self.snapshot) {
            (Some(overlay), _) => overlay.len,
            (None, Some(snapshot)) => snapshot.state.bytes(),
            (None, None) => 0,
        }
    }

    /// Fills `to` from byte `offset`; returns how many bytes there were, the rest is zeroed.
    ///
    /// # Errors
    /// `Damaged` where an image isn't what it was; never zeros instead of a page.
    pub fn read(&self, offset: u64, to: &mut [u8]) -> Result<usize> {
        let available = self.len().saturating_sub(offset).min(to.len() as u64) as usize;
        let (data, rest) = to.split_at_mut(available);
        rest.fill(0);
        let snapshot = self.snapshot()?;
        if self.unpublished && offset >= u64::from(snapshot.state.page_size) {
            self.store.make_durable_as(snapshot.state.lsn, self.writing || self.holds_place)?;
        }
        let Some(overlay) = self.dirty_overlay().filter(|overlay| overlay.block > 0) else {
            let limit = self.dirty_overlay().map_or(u64::MAX, |overlay| overlay.snapshot_len);
            self.read_snapshot(snapshot, limit, offset, data)?;
            return Ok(available);
        };
        let block = overlay.block as u64;
        let mut done = 0;
        while done < data.len() {
            let at = offset + done as u64;
            let within = (at % block) as usize;
            let part = (overlay.block - within).min(data.len() - done);
            let to = &mut data[done..done + part];
            let number = u32::try_from(at / block + 1).unwrap_or(u32::MAX);
            if !overlay.read(number, within, to)? {
                self.read_snapshot(snapshot, overlay.snapshot_len, at, to)?;
            }
            done += part;
        }
        Ok(available)
    }

    /// Reads through the snapshot alone; what lies beyond `limit` or its end is zeros.
    fn read_snapshot(&self, snapshot: &Snapshot, limit: u64, offset: u64, to: &mut [u8]) -> Result<()> {
        let size = u64::from(snapshot.state.page_size);
        let end = snapshot.state.bytes().min(limit);
        let mut done = 0;
        while done < to.len() {
            let at = offset + done as u64;
            if at >= end {
                to[done..].fill(0);
                break;
            }
            let within = (at % size) as usize;
            let part = ((size as usize - within).min(to.len() - done)).min((end - at) as usize);
            snapshot.read(&self.store, (at / size + 1) as u32, within, &mut to[done..done + part])?;
            done += part;
        }
        Ok(())
    }

    /// The bytes of the page at `offset` without a copy, with `disk::SLICE_SLACK` readable bytes
    /// behind; `None` where they must be read. Valid until the transaction changes or ends.
    ///
    /// # Errors
    /// As [`Session::read`].
    pub fn slice(&self, offset: u64, len: usize) -> Result<Option<&[u8]>> {
        let Some(snapshot) = &self.snapshot else { return Ok(None) };
        if !offset.is_multiple_of(len as u64) {
            return Ok(None);
        }
        let Ok(page) = u32::try_from(offset / len as u64 + 1) else { return Ok(None) };
        if let Some(overlay) = self.dirty_overlay() {
            if overlay.block != 0 && overlay.block != len {
                return Ok(None);
            }
            if overlay.block == len && overlay.has(page) {
                return Ok(overlay.slice(page));
            }
            if offset + len as u64 > overlay.snapshot_len {
                return Ok(None);
            }
        }
        if len != snapshot.state.page_size as usize {
            return Ok(None);
        }
        if self.unpublished {
            self.store.make_durable_as(snapshot.state.lsn, self.writing || self.holds_place)?;
        }
        snapshot.slice(&self.store, page)
    }

    /// True if `image` is what the snapshot, without this transaction's changes, has for `page`.
    pub fn is_snapshot_image(&self, page: u32, image: &[u8]) -> bool {
        let Some(snapshot) = &self.snapshot else { return false };
        if page == 0 || page > snapshot.state.size || image.len() != snapshot.state.page_size as usize {
            return false;
        }
        if let Ok(Some(slice)) = snapshot.slice(&self.store, page) {
            return slice == image;
        }
        let mut own = vec![0; image.len()];
        snapshot.read(&self.store, page, 0, &mut own).is_ok() && own == image
    }

    /// Copies bytes of the snapshot's image of `page`, without this transaction's changes.
    ///
    /// # Errors
    /// As [`Session::read`].
    pub fn read_snapshot_image(&self, page: u32, at: usize, to: &mut [u8]) -> Result<()> {
        let snapshot = self.snapshot()?;
        if page == 0 || page > snapshot.state.size || at + to.len() > snapshot.state.page_size as usize {
            return Err(Error::new(
                Code::Io,
                format!("the snapshot has no page {page}; report this as a bug"),
            ));
        }
        snapshot.read(&self.store, page, at, to)
    }

    /// Stages bytes at `offset`, of any length.
    ///
    /// # Errors
    /// `Full`, `Io`; and those of [`Session::begin_write`] where the writer's place was given up.
    pub fn write(&mut self, offset: u64, bytes: &[u8]) -> Result<()> {
        let overlay = self.overlay()?;
        if overlay.block == 0 {
            let natural =
                crate::state::is_page_size(bytes.len()) && offset.is_multiple_of(bytes.len() as u64);
            overlay.block = if natural { bytes.len() } else { 512 };
        }
        let block = overlay.block;
        if bytes.len() == block && offset.is_multiple_of(block as u64) {
            return overlay.put(block_number(offset, block)?, bytes);
        }
        let mut done = 0;
        let mut image = vec![0; block];
        while done < bytes.len() {
            let at = offset + done as u64;
            let within = (at % block as u64) as usize;
            let part = (block - within).min(bytes.len() - done);
            if part < block {
                self.read(at - within as u64, &mut image)?;
            }
            image[within..within + part].copy_from_slice(&bytes[done..done + part]);
            let end = at + part as u64;
            let overlay = self.overlay()?;
            let len = overlay.len.max(end);
            overlay.put(block_number(at, block)?, &image)?;
            overlay.len = len;
            done += part;
        }
        Ok(())
    }

    /// Sets the length of the database in bytes.
    ///
    /// # Errors
    /// As [`Session::write`].
    pub fn truncate(&mut self, len: u64) -> Result<()> {
        if self.len() == len {
            return Ok(());
        }
        if self.dirty_overlay().is_none() && self.prepared.is_none() && !self.writing {
            // Late, after the commit was published: it must agree with what was.
            return Err(Error::new(Code::Io, "a truncation outside a transaction; report this as a bug"));
        }
        // Behind FCNTL_SYNC the pager cuts the file to the size that the entry already has.
        if let Some(prepared) = &self.prepared {
            if prepared.header.state.bytes() == len {
                if let Some(overlay) = &mut self.overlay {
                    overlay.truncate(len);
                }
                return Ok(());
            }
        }
        self.overlay()?.truncate(len);
        Ok(())
    }

    /// Writes the entry but for its commit record: SQLite may still roll back. With the path of a
    /// `super_journal`, the transaction is part of one over several databases, which counts once
    /// that file is gone.
    ///
    /// # Errors
    /// `Full`, `Io`. The transaction can only be rolled back then.
    pub fn prepare(&mut self, super_journal: Option<&Path>) -> Result<()> {
        self.take_back()?;
        if self.dirty_overlay().is_none() {
            return Ok(());
        }
        let prepared = self.build(super_journal)?;
        self.prepared = Some(prepared);
        Ok(())
    }

    /// Makes a prepared entry durable where a super-journal decides about it; for others the commit
    /// does it.
    ///
    /// # Errors
    /// `Io`, `Poisoned`. The transaction can only be rolled back then.
    pub fn sync_prepared(&mut self) -> Result<()> {
        let Some(prepared) = &mut self.prepared else { return Ok(()) };
        let Some(super_journal) = prepared.super_journal.clone() else { return Ok(()) };
        let overlay = self.overlay.as_ref().expect("something was prepared");
        let store = &self.store;
        // Everything before it, so that it can be reached after a crash; the marker, so that nobody
        // takes the super-journal for done with; the body; and the record, which asks for it.
        store.make_durable_as(store.control.appended(), true)?;
        crate::prepared::put_marker(&*store.disk, &store.path, &super_journal)?;
        let here = || format!("syncing {}", overlay.segment.path.display());
        if let Some(segment) = store.tail.lock().index.predecessor(&overlay.segment, overlay.start) {
            segment.file.sync().at(here)?;
        }
        overlay.segment.file.sync().at(here)?;
        store.control.set_pending(true);
        prepared.decided_elsewhere = true;
        overlay
            .write_through(overlay.start + prepared.header.record(), &prepared.record.encode_prepared())?;
        overlay.segment.file.sync().at(here)
    }

    /// Undoes what [`Session::sync_prepared`] did, so that the entry never counts.
    fn take_back(&mut self) -> Result<()> {
        let Some(prepared) = self.prepared.take().filter(|prepared| prepared.decided_elsewhere) else {
            return Ok(());
        };
        let overlay = self.overlay.as_ref().expect("something was prepared");
        let undone = overlay
            .write_through(overlay.start + prepared.header.record(), &[0; COMMIT_RECORD_LEN])
            .and_then(|()| {
                overlay.segment.file.sync().at(|| format!("syncing {}", overlay.segment.path.display()))
            })
            .and_then(|()| crate::prepared::remove_marker(&*self.store.disk, &self.store.path));
        if undone.is_err() {
            // It might count after a crash, though its transaction was rolled back.
            self.store.control.poison();
        }
        self.store.control.set_pending(false);
        undone
    }

    /// What page 1 says after this transaction: (page size, size in pages, counters).
    fn described(&self, before: &State) -> Result<(usize, u32, Counters)> {
        let mut header = [0; PAGE_HEADER_LEN];
        let got = self.read(0, &mut header)?;
        let overlay = self.dirty_overlay().expect("the transaction wrote");
        let page_size = if got == PAGE_HEADER_LEN { page_size_of(&header) } else { None };
        let page_size = page_size.unwrap_or(if before.page_size > 0 {
            before.page_size as usize
        } else {
            overlay.block.max(512)
        });
        let of_file = overlay.len.div_ceil(page_size as u64).min(u64::from(u32::MAX)) as u32;
        let size = size_of(&header).filter(|_| got == PAGE_HEADER_LEN).unwrap_or(of_file);
        let mut counters = Counters::of(&header);
        let after = before.counters.counter.wrapping_add(1);
        if !overlay.has(1) {
            counters = before.counters;
        }
        // Never a value that was served before, whatever the pager counted to.
        let agreed = counters.counter == counters.valid_for;
        counters.counter = counters.counter.max(after);
        if overlay.has(1) && header[18..20] != [1, 1] {
            // The pager must drop the page 1 that it wrote, as others are served, or it would look
            // for a WAL.
            counters.counter = counters.counter.wrapping_add(1);
        }
        if agreed {
            counters.valid_for = counters.counter;
        }
        Ok((page_size, size, counters))
    }

    fn build(&mut self, super_journal: Option<&Path>) -> Result<Prepared> {
        let snapshot = self.snapshot()?.clone();
        let before = snapshot.state;
        let (page_size, size, counters) = self.described(&before)?;
        let resized = before.size > 0 && before.page_size as usize != page_size;
        let recut =
            self.dirty_overlay().is_some_and(|overlay| overlay.block != page_size && overlay.block != 0);
        let mut rows = if recut || resized {
            self.recut(page_size, size)?
        } else {
            self.collect(&snapshot, page_size, size)?
        };
        rows.sort_unstable_by_key(|row| row.page);
        let lsn = before.lsn.next();
        let time = self.store.options.clock.now_ms().max(before.time);
        let proto = Proto {
            kind: Kind::Commit,
            origin: Origin::Local,
            range: LsnRange::one(lsn),
            state: State { lsn, id: 0, page_size: page_size as u32, size, counters, time },
            checksum: None,
        };
        self.write_entry(proto, rows, before.id, super_journal)
    }

    /// Writes header and page table of an entry whose images are staged. A state without an
    /// identity gets one that no other replica comes to by itself.
    fn write_entry(
        &mut self,
        proto: Proto,
        rows: Vec<Row>,
        before: u64,
        super_journal: Option<&Path>,
    ) -> Result<Prepared> {
        let notes = super_journal.map_or_else(Vec::new, |path| {
            annotation(SUPER_JOURNAL, true, path.as_os_str().as_encoded_bytes())
        });
        let store = Arc::clone(&self.store);
        let prev = store.tail.lock().chain;
        let overlay = self.overlay.as_mut().expect("the transaction wrote");
        let table = overlay.next - overlay.start;
        self.table.clear();
        self.table.resize(rows.len() * ROW_LEN, 0);
        for (row, out) in rows.iter().zip(self.table.chunks_exact_mut(ROW_LEN)) {
            row.encode(out);
        }
        self.table.extend_from_slice(&notes);
        let epoch = store.control.epoch();
        let mut header = EntryHeader {
            kind: proto.kind,
            origin: proto.origin,
            range: proto.range,
            epoch,
            prev,
            len: round_up(table + self.table.len() as u64, 8) + COMMIT_RECORD_LEN as u64,
            table,
            rows: rows.len() as u32,
            state: proto.state,
            checksum: proto.checksum,
            notes: notes.len() as u32,
            durable: store.control.durable(),
        };
        if header.state.id == 0 {
            let content = crc32fast::hash(&self.table);
            header.state.id =
                mix(mix(before ^ epoch) ^ (u64::from(content) << 32) ^ header.state.time ^ prev);
        }
        let encoded = header.encode();
        let record = CommitRecord::of(&header, &encoded, &self.table);
        overlay.write(overlay.start, &encoded)?;
        overlay.write(overlay.start + table, &self.table)?;
        overlay.flush()?;
        overlay.room(overlay.start, header.len + crate::disk::SLICE_SLACK as u64)?;
        let super_journal = super_journal.map(Path::to_owned);
        Ok(Prepared { header, record, rows, super_journal, decided_elsewhere: false })
    }

    /// Stages a page of an entry that doesn't come from SQLite.
    pub(crate) fn stage_page(&mut self, page: u32, page_size: usize, image: &[u8]) -> Result<()> {
        let overlay = self.overlay()?;
        overlay.block = page_size;
        overlay.put(page, image)
    }

    /// As [`Session::prepare`], for an entry that doesn't come from SQLite.
    pub(crate) fn prepare_as(&mut self, proto: Proto) -> Result<()> {
        let overlay = self.overlay()?;
        overlay.dirty = true;
        let mut rows = overlay.rows().to_vec();
        if let Some(image) = overlay.first().map(<[u8]>::to_vec) {
            let offset = overlay.stage(image.len())?;
            overlay.write(offset, &image)?;
            rows.push(Row { page: 1, segment: 0, offset, hash: page_hash(1, &image) });
        }
        rows.sort_unstable_by_key(|row| row.page);
        let before = self.snapshot()?.state.id;
        let prepared = self.write_entry(proto, rows, before, None)?;
        self.prepared = Some(prepared);
        Ok(())
    }

    /// Rows of a transaction whose blocks are pages.
    fn collect(&mut self, snapshot: &Snapshot, page_size: usize, size: u32) -> Result<Vec<Row>> {
        let before = snapshot.state;
        let store = Arc::clone(&self.store);
        let overlay = self.overlay.as_mut().expect("the transaction wrote");
        let mut rows: Vec<Row> = Vec::with_capacity(overlay.rows().len() + 1);
        rows.extend(overlay.rows().iter().filter(|row| row.page <= size));
        if let Some(first) = overlay.first().filter(|_| size > 0) {
            let mut kept = false;
            if before.size > 0 && overlay.snapshot_len > 0 {
                let mut own = [0; PAGE_HEADER_LEN];
                snapshot.read(&store, 1, 0, &mut own)?;
                let mut new = [0; PAGE_HEADER_LEN];
                new.copy_from_slice(&first[..PAGE_HEADER_LEN]);
                for (from, to) in SERVED {
                    own[from..to].fill(0);
                    new[from..to].fill(0);
                }
                if own == new {
                    let mut rest = vec![0; page_size - PAGE_HEADER_LEN];
                    snapshot.read(&store, 1, PAGE_HEADER_LEN, &mut rest)?;
                    kept = rest == first[PAGE_HEADER_LEN..];
                }
            }
            if kept && rows.is_empty() && first[18] == 2 {
                // In locking_mode=EXCLUSIVE the pager would go on to open a WAL.
                return Err(Error::new(
                    Code::Argument,
                    "this database has no WAL to switch to; leave its journal_mode as it is",
                ));
            }
            if !kept {
                // Only counters that changed travel in the entry's header; this is more.
                let image = first.to_vec();
                let offset = overlay.stage(image.len())?;
                overlay.write(offset, &image)?;
                rows.push(Row { page: 1, segment: 0, offset, hash: page_hash(1, &image) });
            }
        }
        // Pages that came into being without being written, and those cut off and there again.
        let visible = (overlay.snapshot_len / page_size as u64).min(u64::from(before.size)) as u32;
        for page in visible + 1..=size {
            if !overlay.has(page) && page != lock_page(page_size) {
                rows.push(Row { page, segment: 0, offset: 0, hash: zero_hash(page, page_size) });
            }
        }
        Ok(rows)
    }

    /// Rows of all pages, where the blocks that were written aren't pages of the new size.
    fn recut(&mut self, page_size: usize, size: u32) -> Result<Vec<Row>> {
        let mut rows = Vec::with_capacity(size as usize);
        let mut image = vec![0; page_size];
        for page in (1..=size).filter(|&page| page != lock_page(page_size)) {
            self.read(u64::from(page - 1) * page_size as u64, &mut image)?;
            let overlay = self.overlay.as_mut().expect("the transaction wrote");
            let offset = overlay.stage(page_size)?;
            overlay.write(offset, &image)?;
            rows.push(Row { page, segment: 0, offset, hash: page_hash(page, &image) });
        }
        Ok(rows)
    }

    /// Commits what was prepared; returns its LSN, or that of the snapshot if nothing was. With
    /// `keep_writing` the writer's place isn't given up.
    ///
    /// # Errors
    /// `Io`, `Full`, `Poisoned`. The transaction is over all the same.
    pub fn publish(&mut self, durability: Durability, keep_writing: bool) -> Result<Lsn> {
        let Some(prepared) = self.prepared.take() else {
            let lsn = self.snapshot()?.state.lsn;
            let dirty = self.dirty_overlay().is_some();
            self.forget()?;
            if dirty {
                return Err(Error::new(Code::Io, "the transaction was not prepared; it is rolled back"));
            }
            return Ok(lsn);
        };
        let header = &prepared.header;
        let lsn = header.range.last;
        let written = self.append(&prepared);
        self.forget()?;
        if let Err(e) = written {
            self.stop_writing();
            return Err(e);
        }
        if prepared.decided_elsewhere {
            // The decision is on the disk before anything that leads to it goes.
            let decided = self
                .store
                .make_durable(lsn)
                .and_then(|()| crate::prepared::remove_marker(&*self.store.disk, &self.store.path));
            self.store.control.set_pending(false);
            if let Err(e) = decided {
                self.stop_writing();
                return Err(e);
            }
        }
        if !keep_writing {
            self.stop_writing();
        }
        self.committed = true;
        // From here on the transaction is committed; what fails below may still take it back from
        // nobody but a power cut, and the caller is told.
        let finished = match durability {
            Durability::Disk => self.store.make_durable(lsn),
            Durability::Process => {
                self.store.control.publish(lsn);
                Ok(())
            }
        };
        self.unpublished = finished.is_err();
        self.cell.advance(lsn);
        self.snapshot = Some(self.snapshot_at(lsn)?);
        finished.map(|()| lsn)
    }

    /// Writes the commit record and moves the appended head.
    fn append(&mut self, prepared: &Prepared) -> Result<()> {
        let overlay = self.overlay.as_ref().expect("something was prepared");
        let at = overlay.start + prepared.header.record();
        let record = prepared.record.encode();
        if let Err(e) = overlay.write_through(at, &record) {
            // What landed counts, whatever the error says.
            let mut landed = [0; COMMIT_RECORD_LEN];
            if overlay.segment.read(at, &mut landed).is_err() || landed != record {
                return Err(e);
            }
        }
        let mut tail = self.store.tail.lock();
        tail.index.push(
            &prepared.header,
            overlay.ordinal,
            overlay.start,
            prepared.rows.iter().map(|row| Row {
                // An image's place in the index is the same whoever wrote it.
                ..*row
            }),
            |_| overlay.ordinal,
            true,
        );
        tail.offset = round_up(overlay.start + prepared.header.len, ENTRY_ALIGN);
        tail.chain = prepared.record.chain;
        self.store.control.set_appended(prepared.header.range.last);
        Ok(())
    }

    /// Forgets the overlay's content.
    fn forget(&mut self) -> Result<()> {
        let undone = self.take_back();
        if let Some(overlay) = &mut self.overlay {
            overlay.dirty = false;
        }
        undone
    }

    fn stop_writing(&mut self) {
        if std::mem::take(&mut self.writing) {
            self.store.control.release(Word::Writer);
        }
    }

    /// Discards the transaction's changes and gives the writer's place up; the snapshot stays.
    ///
    /// # Errors
    /// `Poisoned` if the snapshot turns out never to have been committed durably.
    pub fn rollback(&mut self) -> Result<()> {
        let undone = self.forget();
        let wrote = self.writing;
        self.stop_writing();
        // What was read as the writer must not be taken back by a power cut once it is told.
        if wrote && self.unpublished {
            let lsn = self.snapshot()?.state.lsn;
            self.store.make_durable(lsn)?;
            self.unpublished = false;
        }
        undone
    }

    /// Makes everything committed so far durable.
    ///
    /// # Errors
    /// `Poisoned` if the fsync fails.
    pub fn sync(&self) -> Result<()> {
        self.store.make_durable(self.store.control.visible())
    }

    /// The snapshot, for those that read whole pages.
    pub(crate) fn pinned(&self) -> Result<&Snapshot> {
        self.snapshot()
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        // Rolls back; there is nobody left to be told of an error.
        drop(self.rollback());
    }
}

pub(crate) fn poisoned() -> Error {
    Error::new(
        Code::Poisoned,
        "an fsync failed, so nothing more is written; close the database everywhere and open it again",
    )
}

fn block_number(offset: u64, block: usize) -> Result<u32> {
    u32::try_from(offset / block as u64 + 1).map_err(|_| {
        Error::new(Code::Limit, "the database would have more than 2^32 pages; use larger pages")
    })
}
