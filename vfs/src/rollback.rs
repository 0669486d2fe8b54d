//! The virtual rollback journal of one connection.
//!
//! SQLite's pager, in rollback mode, writes the image that a page had before the transaction to the `-journal` file.
//! The store still has that image, in the snapshot that the transaction started from, so this file keeps headers, page
//! numbers and checksums, and, once it holds some images, a reference where an image is what the snapshot has:
//!
//! ```text
//! the pager's file   | header, 512 | number, image, checksum | number, image, checksum | number, image*, checksum |
//! kept               | 28 bytes    | 8 bytes                 | 8 bytes                 | 8 bytes + the image      |
//!                      Bytes         Records, one piece for both                          Bytes; *: it differs
//! ```
//!
//! Invariants:
//! 1. Pieces are in order of offset, not empty, and don't overlap. What no piece covers reads as zeros.
//! 2. Bytes become a reference only where [`Before::same`] says that the snapshot has them. Recognising records is thus
//!    an optimisation that may err either way: for any calls the content is a sparse file's, but for the end of 3.
//! 3. A reference holds while the snapshot stays pinned, so none outlives [`RollbackJournal::begin`]: **the caller
//!    calls it whenever the connection's snapshot moves, before the journal's next use, and never while SQLite may
//!    still roll back.** What stock would have behind a zeroed header (PERSIST; locking_mode=EXCLUSIVE) is then gone,
//!    and the pager takes the short file for one without records. A first header over a zeroed one empties the file
//!    too: EXCLUSIVE mode doesn't show the caller where a rolled back transaction ends, and stale records pile up.
//! 4. Only the last piece may reach beyond the length, by the four bytes of a checksum that isn't written yet: they are
//!    zero, as what is beyond the length must be if the file grows by other means.

/// The snapshot that the transaction started from.
pub trait Before {
    /// Why a page can't be read.
    type Error;
    /// True if `image` is exactly what [`read`](Before::read) gives for `page` (1-based), whole; false also where that
    /// can't be told, the page is beyond the snapshot's end, or `image` isn't as long as the snapshot's pages.
    fn same(&self, page: u32, image: &[u8]) -> bool;
    /// Copies bytes `at..at + buf.len()` of the image of `page`. Asked only for pages that were the same.
    fn read(&self, page: u32, at: usize, buf: &mut [u8]) -> Result<(), Self::Error>;
}

/// What `PRAGMA synchronous` promises for a transaction, as the pager's calls on its journal show it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// The journal was written and never synced.
    Off,
    /// It was synced, but not before a header's record count was written.
    Normal,
    /// It was synced before that too; also a transaction that wrote no journal (MEMORY and OFF show nothing).
    Full,
    /// As `Full`, and the directory was to be synced after the journal's deletion.
    Extra,
}

/// Start of a journal header, and end of a super-journal record.
const MAGIC: [u8; 8] = [0xd9, 0xd5, 0x05, 0xf9, 0x20, 0xa1, 0x63, 0xd7];
/// Bytes of a header that mean something; the pager pads it to the sector size.
const HEADER: usize = 28;
/// Sector size that the pager assumes where POWERSAFE_OVERWRITE is claimed.
const SECTOR: usize = 512;
/// Bytes of a header that `syncJournal` overwrites: magic and record count.
const COUNTED: usize = 12;
/// Bytes of a record around its image: page number and checksum, both big-endian.
const AROUND: u64 = 8;
/// Byte of the database that is never in a page; a record of its page is a super-journal's name.
const LOCK_BYTE: u64 = 0x4000_0000;
/// Bytes that are kept before it is asked whether the snapshot has them too: a copy of a short transaction's images
/// costs less than finding and comparing the snapshot's.
const EAGER: usize = 64 << 10;
/// Capacity that survives a transaction, in pieces and in bytes.
const KEPT: (usize, usize) = (1024, 128 << 10);

/// A range of the file.
#[derive(Clone, Copy)]
struct Piece {
    start: u64,
    len: u64,
    kind: Kind,
    /// Where it is in the heap, or in the image.
    at: usize,
}

#[derive(Clone, Copy, PartialEq)]
enum Kind {
    /// Bytes of the heap.
    Bytes,
    /// Records whose images, of this size, are the snapshot's. The heap has the number and checksum of each.
    Records(u32),
    /// Part of this page's image: what is left of a record that was cut by an odd write or truncation.
    Image(u32),
}

impl Piece {
    fn end(&self) -> u64 {
        self.start + self.len
    }

    fn head(self, len: u64) -> Piece {
        Piece { len, ..self }
    }

    /// The piece without its first `n` bytes, which are whole records in a piece of records.
    fn tail(self, n: u64) -> Piece {
        let skipped = match self.kind {
            Kind::Records(size) => n / record_len(size) * AROUND,
            Kind::Bytes | Kind::Image(_) => n,
        };
        Piece { start: self.start + n, len: self.len - n, at: self.at + skipped as usize, ..self }
    }
}

/// Length in the file of a record whose image has this size.
fn record_len(size: u32) -> u64 {
    u64::from(size) + AROUND
}

/// The rollback journal of one connection: a sparse file in memory that refers to the snapshot for unchanged images.
pub struct RollbackJournal {
    pieces: Vec<Piece>,
    heap: Vec<u8>,
    len: u64,
    /// The least level that the calls so far allow; none before the transaction's first header.
    seen: Option<Level>,
    /// Nothing was written since the last sync.
    just_synced: bool,
    /// A first header was written, and not yet finalised: SQLite may roll back.
    live: bool,
    /// Finalised by zeroing the header (PERSIST; locking_mode=EXCLUSIVE).
    zeroed: bool,
    /// [`EAGER`], but for tests.
    eager: usize,
}

#[allow(clippy::len_without_is_empty, reason = "SQLite asks for the size only")]
impl RollbackJournal {
    /// An empty journal, which allocates nothing before it is written.
    pub fn new() -> RollbackJournal {
        RollbackJournal::with_eager(EAGER)
    }

    fn with_eager(eager: usize) -> RollbackJournal {
        RollbackJournal {
            pieces: Vec::new(),
            heap: Vec::new(),
            len: 0,
            seen: None,
            just_synced: false,
            live: false,
            zeroed: false,
            eager,
        }
    }

    /// Starts a transaction, or ends one: empties the file, so that nothing refers to the snapshot any more, and
    /// forgets what was seen of the durability level.
    ///
    /// To be called when RESERVED is taken, and, because locking_mode=EXCLUSIVE takes that lock once only, also after
    /// each `COMMIT_PHASETWO` (when [`level`](Self::level) has been asked) and wherever else the snapshot moves.
    pub fn begin(&mut self) {
        self.empty();
        self.seen = None;
    }

    /// `xWrite`. Never fails; what isn't the snapshot's is kept in memory. Bytes skipped are zeros.
    pub fn write<B: Before>(&mut self, before: &B, buf: &[u8], offset: u64) {
        self.watch(buf, offset);
        if buf.is_empty() {
            return;
        }
        let end = offset.saturating_add(buf.len() as u64);
        let i = self.find(offset);
        if i == self.pieces.len() {
            match self.page_before(offset, buf.len()) {
                Some(page) if self.heap.len() >= self.eager && before.same(page, buf) => self.push_record(buf.len() as u32),
                _ => {
                    let piece = self.store(buf, offset);
                    self.push(piece);
                }
            }
        } else if let Some(at) = self.in_heap(i, offset, buf.len()) {
            self.heap[at..at + buf.len()].copy_from_slice(buf);
        } else {
            self.replace(buf, offset, end);
        }
        self.len = self.len.max(end);
    }

    /// `xRead`: fills `buf` from `offset` on, zeroing here what is behind the file's end, and says how many bytes the
    /// file had there. Fails only as the snapshot does.
    pub fn read<B: Before>(&self, before: &B, buf: &mut [u8], offset: u64) -> Result<usize, B::Error> {
        let there = self.len.saturating_sub(offset).min(buf.len() as u64) as usize;
        buf.fill(0);
        let (buf, end) = (&mut buf[..there], offset.saturating_add(there as u64));
        for piece in self.pieces[self.find(offset)..].iter().take_while(|piece| piece.start < end) {
            self.copy(before, piece, buf, offset)?;
        }
        Ok(there)
    }

    /// `xTruncate`: cuts the file, or extends it with zeros.
    pub fn truncate(&mut self, len: u64) {
        if len == 0 {
            self.empty();
        } else if len < self.len {
            self.cut(len);
            self.pieces.truncate(self.find(len));
        }
        self.len = len;
    }

    /// `xFileSize`, in bytes.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// `xSync` on the journal. There is nothing to sync; it tells the durability level.
    pub fn sync(&mut self) {
        self.at_least(Level::Normal);
        self.just_synced = true;
    }

    /// `xDelete` of the journal, with its `dirSync`; and `xClose`, without. Forgets the content, but not the level: in
    /// journal_mode=DELETE both come before `COMMIT_PHASETWO` asks for it.
    pub fn deleted(&mut self, dir_sync: bool) {
        self.at_least(if dir_sync { Level::Extra } else { Level::Off });
        self.empty();
    }

    /// Durability level of the transaction under way: known from `FCNTL_SYNC` on, but for [`Level::Extra`]: that is
    /// `Full` until the journal is deleted, and shows in journal_mode=DELETE with locking_mode=NORMAL only.
    pub fn level(&self) -> Level {
        self.seen.unwrap_or(Level::Full)
    }

    /// True from the first header to the journal's finalisation (deleted, truncated or its header zeroed).
    ///
    /// False at `FCNTL_SYNC` means that the transaction has no journal here (MEMORY or OFF), and that what was seen, if
    /// anything, belongs to one that was rolled back in locking_mode=EXCLUSIVE: call [`begin`](Self::begin) then.
    pub fn is_live(&self) -> bool {
        self.live
    }

    fn at_least(&mut self, level: Level) {
        self.seen = self.seen.map(|seen| seen.max(level));
    }

    /// Learns the level, and where a transaction's journal starts and ends, from a write (PAGER.md 7).
    ///
    /// `syncJournal` ends with a sync at NORMAL and above; FULL has one more just before the record count is written,
    /// where NORMAL has just written a record, a header or a super-journal's name. Syncs after the finalisation
    /// (TRUNCATE at FULL; PERSIST and EXCLUSIVE from NORMAL on) are followed by a new first header, or by nothing.
    fn watch(&mut self, buf: &[u8], offset: u64) {
        if offset == 0 && buf.len() > HEADER {
            if self.zeroed {
                self.empty();
            }
            (self.seen, self.live) = (Some(Level::Off), true);
        } else if offset == 0 && buf == [0; HEADER] {
            (self.live, self.zeroed) = (false, true);
        } else if self.just_synced && buf.len() == COUNTED && buf.starts_with(&MAGIC) {
            self.at_least(Level::Full);
        }
        self.just_synced = false;
    }

    fn empty(&mut self) {
        self.pieces.clear();
        self.heap.clear();
        // Free unless the transaction was large.
        self.pieces.shrink_to(KEPT.0);
        self.heap.shrink_to(KEPT.1);
        (self.len, self.live, self.zeroed) = (0, false, false);
    }

    /// Index of the first piece that ends behind `offset`. Constant time at the end of the file.
    fn find(&self, offset: u64) -> usize {
        let before = |piece: &Piece| piece.end() <= offset;
        let at_end = self.pieces.last().is_none_or(before);
        if at_end { self.pieces.len() } else { self.pieces.partition_point(before) }
    }

    /// The page number that the last four bytes before `offset` are, if an image of `size` bytes may follow it there.
    fn page_before(&self, offset: u64, size: usize) -> Option<u32> {
        if !size.is_power_of_two() || !(512..=65536).contains(&size) {
            return None;
        }
        let last = self.pieces.last().filter(|last| last.kind == Kind::Bytes && last.end() == offset)?;
        let at_end = last.at + last.len as usize == self.heap.len();
        let page = u32::from_be_bytes(*self.heap[last.at..].last_chunk()?);
        (at_end && page != 0 && u64::from(page) != LOCK_BYTE / size as u64 + 1).then_some(page)
    }

    /// Appends a record. Its number, which ends the last piece and the heap, becomes part of it.
    fn push_record(&mut self, size: u32) {
        let Some(bytes) = self.pieces.pop() else { return };
        let number = bytes.tail(bytes.len - 4);
        if bytes.len > 4 {
            self.pieces.push(bytes.head(bytes.len - 4));
        }
        self.heap.extend_from_slice(&[0; 4]);
        self.push(Piece { len: record_len(size), kind: Kind::Records(size), ..number });
    }

    /// Appends a piece, or adds it to the last one.
    fn push(&mut self, piece: Piece) {
        let next = (piece.kind, piece.start, piece.at);
        match self.pieces.last_mut() {
            Some(last) if (last.kind, last.end(), last.tail(last.len).at) == next => last.len += piece.len,
            _ => self.pieces.push(piece),
        }
    }

    /// A piece for a range that has none. A header's padding is left to be a hole: a transaction that spills has many.
    fn store(&mut self, buf: &[u8], offset: u64) -> Piece {
        let padded = buf.len() == SECTOR && buf[HEADER..] == [0; SECTOR - HEADER];
        let buf = if padded { &buf[..HEADER] } else { buf };
        self.heap.extend_from_slice(buf);
        Piece { start: offset, len: buf.len() as u64, kind: Kind::Bytes, at: self.heap.len() - buf.len() }
    }

    /// Where the heap has a range that starts in piece `i`: within bytes (a record count, a header to be zeroed), or a
    /// record's checksum. A record's number can't be changed alone: its image would be another one.
    fn in_heap(&self, i: usize, offset: u64, len: usize) -> Option<usize> {
        let piece = self.pieces[i];
        let from = offset.checked_sub(piece.start)?;
        match piece.kind {
            Kind::Bytes if from + len as u64 <= piece.len => Some(piece.tail(from).at),
            Kind::Records(size) if len == 4 && from % record_len(size) == record_len(size) - 4 => {
                Some(piece.tail(from).at + 4)
            }
            _ => None,
        }
    }

    /// Writes over anything, in time proportional to the pieces behind. The pager hardly ever does.
    fn replace(&mut self, buf: &[u8], offset: u64, end: u64) {
        self.cut(offset);
        self.cut(end);
        let behind = self.pieces.partition_point(|piece| piece.start < end);
        let piece = self.store(buf, offset);
        self.pieces.splice(self.find(offset)..behind, [piece]);
    }

    /// Sees to it that no piece spans `cut`.
    fn cut(&mut self, cut: u64) {
        let i = self.find(cut);
        let Some(&piece) = self.pieces.get(i).filter(|piece| piece.start < cut) else { return };
        let n = cut - piece.start;
        match piece.kind {
            Kind::Records(size) if !n.is_multiple_of(record_len(size)) => {
                // A record falls apart; then one of its parts may have to be cut.
                let (whole, step) = (n - n % record_len(size), record_len(size));
                let [number, image, checksum] = self.parts(piece.tail(whole), size);
                let parts = [piece.head(whole), number, image, checksum, piece.tail(whole + step)];
                self.pieces.splice(i..=i, parts.into_iter().filter(|part| part.len > 0));
                self.cut(cut);
            }
            _ => drop(self.pieces.splice(i..=i, [piece.head(n), piece.tail(n)])),
        }
    }

    /// Number, image and checksum of the first of some records.
    fn parts(&self, Piece { start, at, .. }: Piece, size: u32) -> [Piece; 3] {
        let page = self.heap[at..].first_chunk().map_or(0, |number| u32::from_be_bytes(*number));
        let checksum = start + record_len(size) - 4;
        [
            Piece { start, len: 4, kind: Kind::Bytes, at },
            Piece { start: start + 4, len: u64::from(size), kind: Kind::Image(page), at: 0 },
            Piece { start: checksum, len: 4, kind: Kind::Bytes, at: at + 4 },
        ]
    }

    /// Copies what `piece` has of the range that starts at `at` and `buf` is for.
    fn copy<B: Before>(&self, before: &B, piece: &Piece, buf: &mut [u8], at: u64) -> Result<(), B::Error> {
        let (from, to) = (piece.start.max(at), piece.end().min(at + buf.len() as u64));
        if from >= to {
            return Ok(());
        }
        let out = (from - at) as usize..(to - at) as usize;
        let (from, to) = (from - piece.start, to - piece.start);
        match piece.kind {
            Kind::Bytes => buf[out].copy_from_slice(&self.heap[piece.at..][from as usize..to as usize]),
            Kind::Image(page) => before.read(page, piece.at + from as usize, &mut buf[out])?,
            Kind::Records(size) => {
                for n in from / record_len(size)..to.div_ceil(record_len(size)) {
                    for part in self.parts(piece.tail(n * record_len(size)), size) {
                        self.copy(before, &part, buf, at)?;
                    }
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A snapshot's bytes, in which page n starts at 512 (n - 1), however long it is. `true`: it vouches for any image.
    struct Pages(Vec<u8>, bool);

    impl Before for Pages {
        type Error = u32;
        fn same(&self, page: u32, image: &[u8]) -> bool {
            let start = (page as usize - 1) * 512;
            self.1 || self.0.get(start..).is_some_and(|bytes| bytes.starts_with(image))
        }
        fn read(&self, page: u32, at: usize, buf: &mut [u8]) -> Result<(), u32> {
            let start = (page as usize - 1) * 512 + at;
            buf.copy_from_slice(self.0.get(start..start + buf.len()).ok_or(page)?);
            Ok(())
        }
    }

    /// splitmix64
    struct Random(u64);

    impl Random {
        fn below(&mut self, n: usize) -> usize {
            self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            ((z ^ (z >> 31)) % n as u64) as usize
        }
        fn bytes(&mut self, n: usize) -> Vec<u8> {
            (0..n).map(|_| self.below(256) as u8).collect()
        }
    }

    impl Pages {
        fn new(lies: bool) -> Pages {
            Pages(Random(1).bytes(512 * 9), lies)
        }
        fn image(&self, page: u32) -> &[u8] {
            &self.0[page as usize * 512 - 512..][..512]
        }
    }

    fn content(journal: &RollbackJournal, pages: &Pages, at: usize, len: usize) -> Vec<u8> {
        let mut buf = vec![0xaa; len];
        let there = journal.read(pages, &mut buf, at as u64).expect("a page of the snapshot");
        assert!(buf[there..].iter().all(|byte| *byte == 0), "the rest is zeroed");
        buf.truncate(there);
        buf
    }

    fn record(journal: &mut RollbackJournal, pages: &Pages, page: u32, image: &[u8]) {
        [&page.to_be_bytes(), image, &[1; 4]]
            .iter()
            .for_each(|part| journal.write(pages, part, journal.len()));
    }

    fn header(journal: &mut RollbackJournal, pages: &Pages) -> u64 {
        let start = if journal.is_live() { journal.len().next_multiple_of(512) } else { 0 };
        journal.write(pages, &[&[0; COUNTED][..], &[1; 16], &[0; 484]].concat(), start);
        start
    }

    /// True if the journal and a vector had the same bytes throughout a random sequence; counts pieces of the snapshot.
    fn agrees(seed: u64, lies: bool, references: &mut usize) -> bool {
        let (pages, mut random) = (Pages::new(lies), Random(seed));
        let (mut journal, mut file, mut zeroed, mut agree) = (RollbackJournal::with_eager(0), vec![], false, true);
        for _ in 0..400 {
            let (len, mut writes) = (file.len(), Vec::new());
            match random.below(23) {
                0..14 => {
                    let at = [len, len, len, len.saturating_sub(4), random.below(len + 64)][random.below(5)];
                    let (image_at, page) = (at + 4 + random.below(9) / 8, random.below(11));
                    let mut image = pages.0[(page.clamp(1, 9) - 1) * 512..].to_vec();
                    image.resize([512, 512, 512, 1024, 300][random.below(5)], 7);
                    image[random.below(300)] ^= u8::from(random.below(6) == 0);
                    let (checksum_at, number) =
                        (image_at + image.len(), (page as u32).to_be_bytes().to_vec());
                    writes = vec![(at, number.clone()), (image_at, image), (checksum_at, random.bytes(4))];
                    writes.splice(1..1, vec![(random.below(len + 1), number); random.below(9) / 8]);
                    writes.truncate(1 + random.below(16));
                }
                14..18 => {
                    let sector = random.below(len / 512 + 1) * 512;
                    let at = [0, len, len.next_multiple_of(512), sector, random.below(len + 600)];
                    let n = [1, 4, COUNTED, HEADER, SECTOR, 700, 1500][random.below(7)];
                    let mut bytes = random.bytes(n);
                    bytes.iter_mut().skip([0, HEADER, 9999][random.below(3)]).for_each(|byte| *byte = 0);
                    writes.push((at[random.below(5)], bytes));
                }
                18 => {
                    file.resize(random.below(len + 100) * random.below(8).min(1), 0);
                    journal.truncate(file.len() as u64);
                    journal.write(&pages, &[], random.below(len + 9) as u64);
                    zeroed &= !file.is_empty();
                }
                _ => {
                    let (at, n) = (random.below(len + 10), random.below(1200));
                    agree &= content(&journal, &pages, at, n) == file[at.min(len)..(at + n).min(len)];
                }
            }
            for (at, bytes) in writes.into_iter().filter(|(_, bytes)| !bytes.is_empty()) {
                journal.write(&pages, &bytes, at as u64);
                let first = at == 0 && bytes.len() > HEADER;
                file.truncate(if first && zeroed { 0 } else { file.len() });
                zeroed = !first && (zeroed || at == 0 && bytes == [0; HEADER]);
                file.resize(file.len().max(at + bytes.len()), 0);
                file[at..at + bytes.len()].copy_from_slice(&bytes);
            }
            let pieces = &journal.pieces;
            assert!(pieces.is_sorted_by(|a, b| a.end() <= b.start) && pieces.iter().all(|p| p.len > 0));
            assert!(pieces.last().is_none_or(|last| last.end() <= journal.len() + 4), "invariant 4");
            *references += pieces.iter().filter(|p| p.kind != Kind::Bytes).count();
        }
        agree && content(&journal, &pages, 0, file.len() + 9) == file
    }

    #[test]
    fn is_a_file_for_any_sequence() {
        let mut references = 0;
        assert!((0..300).all(|seed| agrees(seed, false, &mut references)));
        assert!(references > 300_000, "the sequences hardly use what they are to test: {references}");
        let liar = |seed| std::panic::catch_unwind(|| agrees(seed, true, &mut 0)).unwrap_or(false);
        assert!(!(0..9).any(liar), "a planted fault isn't found");
    }

    /// Trap 1: an image that isn't the snapshot's comes back as journaled. Trap 5: a super-journal's name is bytes,
    /// even if it is as long as an image and a snapshot vouches for it. A page that can't be read any more is an error.
    #[test]
    fn keeps_what_is_not_the_snapshots() {
        let (honest, lying, mut journal) = (Pages::new(false), Pages::new(true), RollbackJournal::with_eager(0));
        header(&mut journal, &honest);
        record(&mut journal, &honest, 3, &[5; 512]);
        record(&mut journal, &honest, 99, &[6; 512]);
        record(&mut journal, &lying, (LOCK_BYTE / 512 + 1) as u32, &[7; 512]);
        record(&mut journal, &lying, 77, &[8; 512]);
        for n in 0..3 {
            assert_eq!(content(&journal, &honest, 516 + n * 520, 512), [5 + n as u8; 512]);
        }
        assert_eq!(journal.read(&honest, &mut [0; 4], 512 + 3 * 520), Ok(4));
        assert_eq!(journal.read(&honest, &mut [0; 4], 516 + 3 * 520), Err(77));
    }

    /// Invariant 3, with a journal that is finalised by zeroing its header, and stays open while the snapshot moves.
    #[test]
    fn nothing_is_read_through_a_newer_snapshot() {
        let (old, new, mut journal) =
            (Pages::new(false), Pages(vec![9; 512 * 9], false), RollbackJournal::with_eager(0));
        for begin in [true, false] {
            header(&mut journal, &old);
            (1..4).for_each(|page| record(&mut journal, &old, page, old.image(page)));
            assert_eq!(journal.heap.len(), HEADER + 3 * AROUND as usize);
            journal.write(&old, &[0; HEADER], 0);
            assert_eq!(content(&journal, &old, 516, 512), old.0[..512], "no reason yet to forget");
            (0..usize::from(begin)).for_each(|_| journal.begin());
            journal.write(&new, &[1; SECTOR], 0);
            assert_eq!(journal.read(&new, &mut [0; 8], 1024), Ok(0), "where a stale header may be");
            journal.write(&new, &[7; 4], 3000);
            assert_eq!(content(&journal, &new, 512, 2488), [0; 2488]);
            journal.deleted(false);
        }
    }

    /// Calls as `pager_open_journal`, `syncJournal`, `writeSuperJournal` and `pager_end_transaction` make them. Ends:
    /// DELETE, TRUNCATE, PERSIST with journal_size_limit=0 or a super-journal, and PERSIST or EXCLUSIVE.
    fn transaction(journal: &mut RollbackJournal, level: Level, case: (usize, usize, bool)) -> Level {
        let (end, spills, name) = case;
        let (pages, syncs, full) = (Pages::new(false), level > Level::Off, level >= Level::Full);
        let mut start = header(journal, &pages);
        for left in (0..=spills).rev() {
            (1..4).for_each(|page| record(journal, &pages, page, pages.image(page)));
            for n in [4, 30, 4, 4, 8].iter().filter(|_| name && left == 0) {
                journal.write(&pages, &MAGIC.repeat(4)[..*n], journal.len());
            }
            if syncs {
                (0..usize::from(full)).for_each(|_| journal.sync());
                journal.write(&pages, &[&MAGIC[..], &[0, 0, 0, 3]].concat(), start);
                journal.sync();
            }
            if syncs && left > 0 {
                start = header(journal, &pages);
            }
        }
        assert!(journal.is_live() && journal.level() == level.min(Level::Full), "at FCNTL_SYNC");
        match end {
            0 => [false, level == Level::Extra].iter().for_each(|dir_sync| journal.deleted(*dir_sync)),
            1 | 2 => journal.truncate(0),
            _ => journal.write(&pages, &[0; HEADER], 0),
        }
        (0..usize::from([false, full, syncs, syncs][end])).for_each(|_| journal.sync());
        assert!(!journal.is_live());
        journal.level()
    }

    /// Trap 7, also without `begin`, as after a rollback in locking_mode=EXCLUSIVE.
    #[test]
    fn tells_the_level() {
        let mut journal = RollbackJournal::with_eager(0);
        for case in 0..4 * 4 * 3 * 2 * 2 {
            let level = [Level::Off, Level::Extra, Level::Normal, Level::Full][case % 4];
            let seen = transaction(&mut journal, level, (case / 4 % 4, case / 16 % 3, case / 48 % 2 == 1));
            assert_eq!(seen, if case / 4 % 4 == 0 { level } else { level.min(Level::Full) }, "case {case}");
            (0..case / 96).for_each(|_| journal.begin());
        }
        journal.deleted(true);
        assert_eq!(journal.level(), Level::Full, "no journal, but one of an older mode is removed");
    }

    #[test]
    fn memory_is_bounded() {
        let (pages, mut journal) = (Pages::new(false), RollbackJournal::with_eager(0));
        let memory = |j: &RollbackJournal| j.pieces.capacity() * size_of::<Piece>() + j.heap.capacity();
        let mut steady = 0;
        for turn in 0..1000 {
            transaction(&mut journal, Level::Full, (turn % 4, 2, true));
            steady = if turn < 4 { memory(&journal) } else { steady };
        }
        assert_eq!(memory(&journal), steady, "a small transaction allocates nothing, even if none is begun");
        journal.begin();
        (0..99_999).for_each(|n| record(&mut journal, &pages, n % 8 + 1, pages.image(n % 8 + 1)));
        assert!(memory(&journal) < 24 * 99_999 && journal.heap.len() == 8 * 99_999);
        journal.begin();
        assert!(memory(&journal) <= KEPT.0 * size_of::<Piece>() + KEPT.1);
    }
}
