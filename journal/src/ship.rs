//! Preparing entries for another machine.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::error::{Code, Error, Result, still};
use crate::format::{Packing, ShippedHeader};
use crate::image::Image;
use crate::lsn::{Lsn, LsnRange};
use crate::past::Past;
use crate::session::Session;
use crate::snapshot::Snapshot;
use crate::source::Ahead;
use crate::state::{State, lock_page};
use crate::store::{Store, random};

/// Size of a batch when nobody says otherwise, in bytes.
const BATCH_BYTES: u64 = 16 << 20;
/// Most that SQLite passes as one BLOB, in bytes.
const BLOB_LIMIT: u64 = 1_000_000_000;

/// One entry to be shipped, of which some pages may be out already.
struct Shipment {
    header: ShippedHeader,
    identities: Vec<(Lsn, u64)>,
    view: Snapshot,
    /// The database before the range, which every receiver has.
    past: Option<Past>,
    pages: Vec<u32>,
    next: usize,
    ahead: Ahead,
}

impl Store {
    /// One merged entry for `after + 1 ..= k`, with k the largest for which it stays near `max_bytes`;
    /// `None` if `after` is the head. What it ships is durable.
    ///
    /// # Errors
    /// `Trimmed` below the horizon, `Argument` above the head, `Limit` beyond what a BLOB holds.
    pub fn prepare(self: &Arc<Self>, after: Lsn, max_bytes: Option<u64>) -> Result<Option<Vec<u8>>> {
        self.whole()?;
        let mut session = Session::new(Arc::clone(self))?;
        session.begin_read()?;
        let sums = self.sums_since(&session, after)?;
        let Some(mut shipment) = self.shipment(&session, after, max_bytes, &sums)? else { return Ok(None) };
        let bytes = shipment.pages.len() as u64 * u64::from(shipment.header.state.page_size);
        if bytes > BLOB_LIMIT {
            return Err(Error::new(
                Code::Limit,
                format!("{bytes} bytes are more than a BLOB holds; use tide_batches({after})"),
            ));
        }
        let piece = self.piece(&mut shipment, u64::MAX)?;
        session.end_read()?;
        Ok(Some(piece))
    }

    /// The same in pieces of about `max_bytes`, of any size of database.
    ///
    /// # Errors
    /// As [`Store::prepare`], but for `Limit`.
    pub fn batches(self: &Arc<Self>, after: Lsn, max_bytes: Option<u64>) -> Result<Batches> {
        self.image()?.batches(after, max_bytes.unwrap_or(BATCH_BYTES).max(1))
    }

    /// The rolling checksums that are known from `after` on; none for a full image, which has its own.
    fn sums_since(&self, session: &Session, after: Lsn) -> Result<Vec<(Lsn, u64)>> {
        if after == Lsn::ZERO { Ok(Vec::new()) } else { self.checksums_back(session.pinned()?, after) }
    }

    /// `sums` are the rolling checksums that are known, newest first.
    fn shipment(
        &self,
        session: &Session,
        after: Lsn,
        max_bytes: Option<u64>,
        sums: &[(Lsn, u64)],
    ) -> Result<Option<Shipment>> {
        let view = session.pinned()?.clone();
        let head = view.state.lsn;
        if after > head {
            return Err(Error::new(
                Code::Argument,
                format!("LSN {after} is above the head, {head}; give one at or below it"),
            ));
        }
        if after == head {
            return Ok(None);
        }
        let horizon = self.control.horizon();
        if after == Lsn::ZERO {
            return self.full(view, horizon).map(Some);
        }
        if after < horizon {
            return Err(Error::new(
                Code::Trimmed,
                format!(
                    "LSN {after} is below the horizon, {horizon}; ship the full image with tide_prepare(0)"
                ),
            ));
        }
        let index = Arc::clone(&view.index);
        let Some(before) = index.state(after)? else {
            return Err(Error::new(
                Code::Argument,
                format!(
                    "LSN {after} lies inside a merged entry; give the last LSN of one (tide_log lists them)"
                ),
            ));
        };
        let limit = max_bytes.unwrap_or(u64::MAX);
        let mut pages: Vec<u32> = Vec::new();
        let mut seen: std::collections::HashSet<u32> = std::collections::HashSet::new();
        let mut identities = Vec::new();
        let mut last = before;
        for entry in index.between(after, head) {
            let entry = entry?;
            let fresh: Vec<u32> =
                index.rows(&entry)?.map(|row| row.page).filter(|page| !seen.contains(page)).collect();
            let bytes = (pages.len() + fresh.len()) as u64 * u64::from(entry.state.page_size);
            if last.lsn > after && bytes > limit {
                break;
            }
            seen.extend(&fresh);
            pages.extend(fresh);
            last = entry.state;
            identities.push((last.lsn, last.id));
        }
        identities.pop();
        pages.retain(|&page| page <= last.size);
        pages.sort_unstable();
        // Retained versions are read from the journal, whatever the base has got to.
        let view = Snapshot { index, state: last, floor: horizon, copies: false };
        let sum_at = |lsn: Lsn| {
            let found = sums.binary_search_by(|(known, _)| lsn.cmp(known));
            found.ok().map(|at| sums[at].1)
        };
        let header = ShippedHeader {
            lineage: self.lineage(),
            range: LsnRange { first: after.next(), last: last.lsn },
            full: false,
            before: before.id,
            state: last,
            checksum_before: sum_at(after),
            checksum_after: sum_at(last.lsn),
            rows: pages.len() as u64,
            rows_before: 0,
            rows_here: 0,
            identities: 0,
            token: random()?,
            body: 0,
        };
        self.make_durable(last.lsn)?;
        // What a lazy clone lacks isn't worth asking for: the page is shipped whole.
        let past = Some(Past::new(self, Arc::clone(&view.index), before, true));
        Ok(Some(Shipment { header, identities, view, past, pages, next: 0, ahead: Ahead::default() }))
    }

    /// All pages at the snapshot.
    fn full(&self, view: Snapshot, horizon: Lsn) -> Result<Shipment> {
        let state = view.state;
        let checksum = self.checksum(&view, true)?;
        let index = &view.index;
        let begin = self.retained_state(index, horizon.max(index.origin.lsn))?;
        let begin = begin.filter(|s| s.lsn > Lsn::ZERO && s.lsn < state.lsn);
        let mut identities: Vec<(Lsn, u64)> = begin.map(|s| (s.lsn, s.id)).into_iter().collect();
        for entry in index.between(horizon, Lsn::new(state.lsn.get().saturating_sub(1))) {
            if let Some(entry) = still(entry)? {
                identities.push((entry.state.lsn, entry.state.id));
            }
        }
        let pages: Vec<u32> =
            (1..=state.size).filter(|&p| p != lock_page(state.page_size as usize)).collect();
        let header = ShippedHeader::whole(self.lineage(), state, checksum, random()?);
        self.make_durable(state.lsn)?;
        Ok(Shipment { header, identities, view, past: None, pages, next: 0, ahead: Ahead::default() })
    }

    /// The next piece of a shipment, of about `max_bytes` and at least one page.
    fn piece(&self, shipment: &mut Shipment, max_bytes: u64) -> Result<Vec<u8>> {
        let identities = if shipment.next == 0 { &shipment.identities[..] } else { &[] };
        let mut packing = Packing::new(shipment.header, identities);
        packing.place(shipment.pages.len() as u64, shipment.next as u64);
        let mut image = vec![0; shipment.header.state.page_size as usize];
        let mut before = image.clone();
        let begun = shipment.next;
        while shipment.next < shipment.pages.len() {
            let full = packing.len() as u64 + image.len() as u64 > max_bytes;
            if full && shipment.next > begun {
                break;
            }
            let page = shipment.pages[shipment.next];
            if shipment.header.full {
                shipment.ahead.reach(self, &shipment.view, page)?;
            }
            let hash = shipment.view.read_sound(self, page, &mut image)?;
            let known = match &shipment.past {
                Some(past) => past.read(self, page, &mut before)?,
                None => false,
            };
            packing.push(page, &image, hash, known.then_some(&before));
            shipment.next += 1;
        }
        Ok(packing.finish())
    }
}

/// Pieces of everything behind an LSN, made as they are asked for.
pub struct Batches {
    image: Image,
    after: Lsn,
    entry_bytes: u64,
    piece_bytes: u64,
    sums: Vec<(Lsn, u64)>,
    shipments: VecDeque<Shipment>,
    failed: bool,
}

impl Batches {
    /// Those of a snapshot: entries that stay near `entry_bytes`, in pieces of about `piece_bytes`.
    pub(crate) fn of(image: Image, after: Lsn, entry_bytes: u64, piece_bytes: u64) -> Result<Batches> {
        let sums = image.session.store().sums_since(&image.session, after)?;
        let mut batches = Batches {
            image,
            after,
            entry_bytes,
            piece_bytes,
            sums,
            shipments: VecDeque::new(),
            failed: false,
        };
        batches.refill()?;
        Ok(batches)
    }

    /// The snapshot, when all is shipped that was wanted.
    pub fn into_image(self) -> Image {
        self.image
    }

    fn refill(&mut self) -> Result<()> {
        let store = Arc::clone(self.image.session.store());
        if let Some(shipment) =
            store.shipment(&self.image.session, self.after, Some(self.entry_bytes), &self.sums)?
        {
            self.after = shipment.header.range.last;
            self.shipments.push_back(shipment);
        }
        Ok(())
    }

    fn make(&mut self) -> Result<Option<Vec<u8>>> {
        if self.shipments.is_empty() {
            self.refill()?;
        }
        let Some(shipment) = self.shipments.front_mut() else { return Ok(None) };
        let piece = self.image.session.store().piece(shipment, self.piece_bytes)?;
        if shipment.next == shipment.pages.len() {
            self.shipments.pop_front();
        }
        Ok(Some(piece))
    }
}

/// What is true behind the entry that a blob, as [`Batches`] gives it, is of.
///
/// # Errors
/// `Damaged`, `Format`.
pub fn shipped_state(blob: &[u8]) -> Result<State> {
    Ok(ShippedHeader::decode(blob)?.state)
}

impl Iterator for Batches {
    type Item = Result<Vec<u8>>;

    fn next(&mut self) -> Option<Result<Vec<u8>>> {
        if self.failed {
            return None;
        }
        let made = self.make();
        self.failed = made.is_err();
        made.transpose()
    }
}
