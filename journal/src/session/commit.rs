//! From staged pages to a committed entry.
//!
//! ```text
//!   prepare          header, images and page table are written, the commit record isn't
//!   sync_prepared    only where a super-journal decides: all of it is durable, as prepared
//!   publish          the commit record; then the appended head, and what durability asks for
//! ```

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::error::{Code, Error, Result};
use crate::format::{
    COMMIT_RECORD_LEN, CommitRecord, ENTRY_ALIGN, EntryHeader, Kind, Origin, ROW_LEN, Row,
    SEGMENT_HEADER_LEN, SUPER_JOURNAL, annotation, round_up,
};
use crate::hash::{HEADER_LEN as PAGE_HEADER_LEN, SERVED, mix, page_hash, zero_hash};
use crate::lsn::{Lsn, LsnRange};
use crate::overlay::Overlay;
use crate::segment::Segment;
use crate::session::{Durability, Session};
use crate::snapshot::Snapshot;
use crate::state::{Counters, State, later, lock_page, page_size_of, size_of};

/// An entry that is written but for its commit record.
pub(super) struct Prepared {
    pub header: EntryHeader,
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

impl Session {
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
        let overlay = self.overlay.as_mut().expect("something was prepared");
        overlay.flush()?;
        let overlay = &*overlay;
        let store = &self.store;
        // Everything before it, so that it can be reached after a crash; the marker, so that nobody
        // takes the super-journal for done with; the body; and the record, which asks for it.
        store.make_durable_as(store.control.appended(), true)?;
        // One that failed may have lost a seal, and another proves nothing.
        let sync = |segment: &Segment| store.sync_segment(segment);
        crate::prepared::put_marker(&*store.disk, &store.path, &super_journal)?;
        if let Some(segment) = store.tail.lock().index.predecessor(&overlay.segment, overlay.start) {
            sync(segment)?;
        }
        sync(&overlay.segment)?;
        store.control.set_pending(true);
        prepared.decided_elsewhere = true;
        overlay
            .write_through(overlay.start + prepared.header.record(), &prepared.record.encode_prepared())?;
        sync(&overlay.segment)
    }

    /// Undoes what [`Session::sync_prepared`] did, so that the entry never counts.
    pub(super) fn take_back(&mut self) -> Result<()> {
        let Some(prepared) = self.prepared.take().filter(|prepared| prepared.decided_elsewhere) else {
            return Ok(());
        };
        let overlay = self.overlay.as_ref().expect("something was prepared");
        let undone = overlay
            .write_through(overlay.start + prepared.header.record(), &[0; COMMIT_RECORD_LEN])
            .and_then(|()| overlay.segment.sync())
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
        // The pager has made the file as long as the database before; one that doesn't hold the lock page counts it.
        let longest = if of_file.wrapping_add(1) == lock_page(page_size) { of_file + 1 } else { of_file };
        let size =
            size_of(&header).filter(|&size| got == PAGE_HEADER_LEN && size <= longest).unwrap_or(of_file);
        let mut counters = Counters::of(&header);
        let after = before.counters.counter.wrapping_add(1);
        if !overlay.has(1) {
            counters = before.counters;
        }
        // Never a value that was served before, whatever the pager counted to.
        let agreed = counters.counter == counters.valid_for;
        counters.counter = later(counters.counter, after);
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
                mix(mix(before ^ epoch) ^ (u64::from(content) << 32) ^ header.state.time ^ prev).max(1);
        }
        let encoded = header.encode();
        let record = CommitRecord::of(&header, &encoded, &self.table);
        overlay.write(overlay.start, &encoded)?;
        overlay.write(overlay.start + table, &self.table)?;
        // Whatever can fail for want of space does so while SQLite can still roll back.
        overlay.room(overlay.start, header.len + crate::disk::SLICE_SLACK as u64)?;
        let super_journal = super_journal.map(Path::to_owned);
        Ok(Prepared { header, record, rows, super_journal, decided_elsewhere: false })
    }

    /// Has an entry that doesn't come from SQLite staged in a segment to which nothing leads yet; before it is prepared,
    /// the journal must go on there.
    pub(crate) fn stage_in(&mut self, segment: Arc<Segment>) -> Result<()> {
        let len = self.snapshot()?.state.bytes();
        let mut overlay = Overlay::new(segment, SEGMENT_HEADER_LEN as u64, len);
        // Or it would be begun anew, at the tail.
        overlay.dirty = true;
        self.overlay = Some(overlay);
        Ok(())
    }

    /// Stages pages of an entry that doesn't come from SQLite: numbers and hashes, in order, and their images.
    pub(crate) fn stage_pages(
        &mut self,
        page_size: usize,
        pages: impl Iterator<Item = (u32, u64)> + Clone,
        images: &[u8],
    ) -> Result<()> {
        let overlay = self.overlay()?;
        overlay.block = page_size;
        overlay.put_all(pages, images)
    }

    /// As [`Session::prepare`], for an entry that doesn't come from SQLite.
    pub(crate) fn prepare_as(&mut self, proto: Proto) -> Result<()> {
        let overlay = self.overlay()?;
        overlay.dirty = true;
        let mut rows = overlay.rows()?.to_vec();
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
        let staged = overlay.rows()?;
        let mut rows: Vec<Row> = Vec::with_capacity(staged.len() + 1);
        rows.extend(staged.iter().filter(|row| row.page <= size));
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
                kept = own == new && snapshot.has(&store, 1, PAGE_HEADER_LEN, &first[PAGE_HEADER_LEN..])?;
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
    /// `Io`, `Full`, `Poisoned`. The transaction is over all the same; one that a super-journal decided about is
    /// committed.
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
        let state = prepared.header.state;
        let lsn = state.lsn;
        let written = self.append(&prepared);
        self.forget()?;
        if let Err(e) = written {
            // Where a super-journal has decided, the entry is pending still, and counts: whoever comes next writes it down.
            self.stop_writing();
            return Err(e);
        }
        if prepared.decided_elsewhere {
            // The super-journal is gone, so it counts, whatever fails from here on.
            self.store.control.publish(lsn);
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
        // The pin stays where it is until SQLite lets go of what it has read. Nothing is read for it: where a sync has
        // failed, the disk may have forgotten what was written, and the caller is told of the sync.
        let seen = self.snapshot_at(lsn, Some(state)).map(|snapshot| self.snapshot = Some(snapshot));
        finished.and(seen).map(|()| lsn)
    }

    /// Writes the commit record and moves the appended head.
    fn append(&mut self, prepared: &Prepared) -> Result<()> {
        let overlay = self.overlay.as_mut().expect("something was prepared");
        let at = overlay.start + prepared.header.record();
        let record = prepared.record.encode();
        // Behind everything else, and for a short transaction in the same write.
        if let Err(e) = overlay.write(at, &record).and_then(|()| overlay.flush()) {
            // What landed counts, whatever the error says.
            let mut landed = [0; COMMIT_RECORD_LEN];
            if overlay.segment.read(at, &mut landed).is_err() || landed != record {
                return Err(e);
            }
        }
        let mut tail = self.store.tail.lock();
        // The index may be another one by now, but the tail is where it was.
        let ordinal = tail.segment;
        let rows = prepared.rows.iter().copied();
        tail.index.push(&prepared.header, ordinal, overlay.start, rows, |_| ordinal, true);
        let half = self.store.options.segment_bytes / 2;
        let before =
            std::mem::replace(&mut tail.offset, round_up(overlay.start + prepared.header.len, ENTRY_ALIGN));
        if before < half && tail.offset >= half {
            // In time for the next segment to be ready.
            self.store.rolled.store(true, Ordering::Relaxed);
        }
        tail.chain = prepared.record.chain;
        self.store.control.set_appended(prepared.header.range.last);
        Ok(())
    }
}
