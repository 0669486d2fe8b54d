//! Checking everything that a store has.

use std::path::Path;
use std::sync::Arc;

use crate::control::{Control, Lock};
use crate::disk::How;
use crate::error::{At, Code, Error, Result};
use crate::format::{Name, SEGMENT_HEADER_LEN, SLOT_LEN, SUPERBLOCK_LEN, Superblock, Whole, tag_offset};
use crate::hash::page_hash;
use crate::hashes::Hashes;
use crate::lsn::Lsn;
use crate::mend::Mended;
use crate::present::{Present, REMEDY, lost};
use crate::segment::Segment;
use crate::session::Session;
use crate::state::lock_page;
use crate::store::Store;
use crate::whole::read_whole;

/// Something that isn't as it should be.
#[derive(Clone, Debug)]
pub struct Finding {
    /// `error`, or `warning` where nothing is lost by it.
    pub severity: &'static str,
    /// The file, relative to the base's folder where it is beside it.
    pub file: String,
    /// Byte offset in the file.
    pub offset: Option<u64>,
    /// LSN of the entry.
    pub lsn: Option<Lsn>,
    /// Number of the page.
    pub page: Option<u32>,
    /// What is wrong, and what to do.
    pub message: String,
}

impl Store {
    /// Reads and checks superblock, segments, every retained image and every page of the base. Nothing is changed but
    /// hashes of the base that weren't known yet, and pages of the base that aren't what they were and of which the
    /// journal has the image still: those are written again, and a warning says so.
    ///
    /// # Errors
    /// Of the operating system; damage is found, not reported as an error.
    pub fn verify(self: &Arc<Self>) -> Result<Vec<Finding>> {
        let mut findings = Vec::new();
        let whole = match self.whole() {
            Ok(_) => true,
            Err(e) if matches!(e.code(), Code::Damaged | Code::Missing | Code::Format) => {
                findings.push(self.lost_history(&e));
                false
            }
            Err(e) => return Err(e),
        };
        let mut session = Session::new(Arc::clone(self))?;
        // What can't be read is a finding, too.
        session.read_by_calls(true);
        session.begin_read()?;
        self.verify_superblock(&mut findings)?;
        self.verify_names(&session, &mut findings)?;
        self.verify_journal(&session, &mut findings)?;
        self.verify_kept(&mut findings)?;
        self.verify_remotes(&mut findings)?;
        self.verify_lazy(&mut findings)?;
        self.verify_base(&session, &mut findings)?;
        if whole {
            self.verify_hidden(&session, &mut findings)?;
        }
        session.end_read()?;
        Ok(findings)
    }

    /// What is kept about remotes. Nothing of the database is in it.
    fn verify_remotes(&self, findings: &mut Vec<Finding>) -> Result<()> {
        match self.remotes_kept() {
            Ok(_) => {}
            Err(e) if matches!(e.code(), Code::Damaged | Code::Format) => findings.push(Finding {
                severity: "error",
                file: self.name_of(&self.file_path(Name::Remotes)),
                offset: None,
                lsn: None,
                page: None,
                message: e.text().to_owned(),
            }),
            Err(e) => return Err(e),
        }
        Ok(())
    }

    /// What a lazy clone keeps: where its pages come from, and which are here.
    fn verify_lazy(&self, findings: &mut Vec<Finding>) -> Result<()> {
        let block = self.read_superblock()?;
        if !block.lazy {
            return Ok(());
        }
        let finding = |severity, name: Name, page: Option<u32>, message: String| Finding {
            severity,
            file: self.name_of(&self.file_path(name)),
            offset: page.map(tag_offset),
            lsn: None,
            page,
            message,
        };
        let path = self.file_path(Name::Source);
        let source = read_whole(&*self.disk, &path, Whole::SOURCE, REMEDY).and_then(|source| match source {
            Some(_) => Ok(()),
            None => Err(lost(&path)),
        });
        let present = Present::open(&*self.disk, &self.side);
        let tags = present.and_then(|present| present.damaged(block.base.size));
        for (name, found) in [(Name::Source, source.map(|()| Vec::new())), (Name::Present, tags)] {
            match found {
                Ok(pages) => {
                    for page in pages {
                        let cause = format!("it doesn't tell whether page {page} is here");
                        findings.push(match self.mend(page) {
                            Ok(Mended::Page(_) | Mended::Hash) => {
                                let text = format!("{cause}; it is, and was noted again");
                                finding("warning", name, Some(page), text)
                            }
                            _ => finding("error", name, Some(page), format!("{cause}; {REMEDY}")),
                        });
                    }
                }
                Err(e) if matches!(e.code(), Code::Damaged | Code::Format | Code::Missing) => {
                    findings.push(finding("error", name, None, e.text().to_owned()));
                }
                Err(e) => return Err(e),
            }
        }
        Ok(())
    }

    /// The journal can't be read from the horizon on. What is behind the base still can.
    fn lost_history(&self, why: &Error) -> Finding {
        Finding {
            severity: "error",
            file: self.name_of(&self.side),
            offset: None,
            lsn: None,
            page: None,
            message: why.text().to_owned(),
        }
    }

    pub(crate) fn name_of(&self, path: &Path) -> String {
        let folder = self.path.parent().unwrap_or(Path::new("/"));
        path.strip_prefix(folder).unwrap_or(path).display().to_string()
    }

    /// A segment that is read still, as it is open, and that nobody will find any more.
    fn verify_names(&self, session: &Session, findings: &mut Vec<Finding>) -> Result<()> {
        if let Some((segment, e)) = self.misplaced(&session.pinned()?.index, Control::horizon)? {
            findings.push(Finding {
                severity: "error",
                file: self.name_of(&segment.path),
                offset: None,
                lsn: None,
                page: None,
                message: e.text().to_owned(),
            });
        }
        Ok(())
    }

    fn verify_superblock(&self, findings: &mut Vec<Finding>) -> Result<()> {
        self.side_in_place()?;
        let _guard = self.lock_superblock()?;
        let path = self.file_path(Name::Superblock);
        let file = self.disk.open(&path, How::Read).at(|| format!("opening {}", path.display()))?;
        let mut bytes = vec![0; SUPERBLOCK_LEN];
        file.read_at(&mut bytes, 0).at(|| format!("reading {}", path.display()))?;
        for (n, slot) in bytes.chunks(SLOT_LEN).enumerate() {
            // A store that is young has written one slot only.
            if slot.iter().any(|&b| b != 0) {
                if let Err(e) = Superblock::decode(slot) {
                    findings.push(Finding {
                        severity: "warning",
                        file: self.name_of(&path),
                        offset: Some((n * SLOT_LEN) as u64),
                        lsn: None,
                        page: None,
                        message: format!("{}; the other slot is in use", e.text()),
                    });
                }
            }
        }
        Ok(())
    }

    fn verify_journal(&self, session: &Session, findings: &mut Vec<Finding>) -> Result<()> {
        let view = session.pinned()?;
        let index = &view.index;
        // A fold that gives history up reads it still, until the base has it.
        let horizon = self.control.horizon().min(view.floor);
        let mut chain = None;
        for ordinal in index.first_above(horizon)..index.first_above(view.state.lsn) {
            let (last, (segment, offset)) = (index.last(ordinal), index.header_of(ordinal));
            let segment = index.segment(segment);
            let finding = |offset: u64, page: Option<u32>, message: String| Finding {
                severity: "error",
                file: self.name_of(&segment.path),
                offset: Some(offset),
                lsn: Some(last),
                page,
                message,
            };
            let previous = match chain.take() {
                _ if offset == SEGMENT_HEADER_LEN as u64 => segment.header.chain,
                Some(chain) => chain,
                // Behind an entry that is damaged, or in the middle of a segment: take its word.
                None => stated_chain(segment, offset)?,
            };
            let Some(checked) = segment.entry(offset, previous)? else {
                findings.push(finding(
                    offset,
                    None,
                    "the entry fails its checksum; restore from a backup".into(),
                ));
                continue;
            };
            chain = Some(checked.record.chain);
            let size = checked.header.state.page_size as usize;
            for row in checked.rows() {
                let held = if row.segment == 0 {
                    Some(segment)
                } else {
                    index.segments().find(|s| s.header.number == row.segment)
                };
                let sound = match held {
                    Some(held) => held.image_is_sound(&row, size)?,
                    None => false,
                };
                if !sound {
                    let cause = format!("the image of page {} fails its checksum", row.page);
                    let mended = match held {
                        Some(held) => self.mend_image(held, &row, last),
                        None => Ok(Mended::Not),
                    };
                    let broken = finding(row.offset, Some(row.page), cause);
                    findings.push(self.outcome(broken, mended, ""));
                }
            }
        }
        Ok(())
    }

    fn verify_kept(&self, findings: &mut Vec<Finding>) -> Result<()> {
        for name in self.disk.list(&self.side).at(|| format!("listing {}", self.side.display()))? {
            if !matches!(Name::parse(&name), Some(Name::Kept(_))) {
                continue;
            }
            let path = self.side.join(&name);
            let finding = |offset: u64, page: Option<u32>, message: String| Finding {
                severity: "error",
                file: self.name_of(&path),
                offset: Some(offset),
                lsn: None,
                page,
                message,
            };
            let segment = match Segment::open(&*self.disk, path.clone(), How::Read) {
                Ok(segment) => segment,
                Err(e) => {
                    if self.disk.exists(&path).at(|| format!("looking for {}", path.display()))? {
                        findings.push(finding(0, None, e.text().to_owned()));
                    }
                    continue;
                }
            };
            match segment.entry(SEGMENT_HEADER_LEN as u64, 0)? {
                None => findings.push(finding(
                    SEGMENT_HEADER_LEN as u64,
                    None,
                    "kept images fail their checksum; history before this fold is lost".into(),
                )),
                Some(checked) => {
                    for row in checked.rows() {
                        if !segment.image_is_sound(&row, checked.header.state.page_size as usize)? {
                            findings.push(finding(
                                row.offset,
                                Some(row.page),
                                format!("the kept image of page {} fails its checksum; history before this fold lacks it", row.page),
                            ));
                        }
                    }
                }
            }
        }
        Ok(())
    }

    fn verify_base(&self, session: &Session, findings: &mut Vec<Finding>) -> Result<()> {
        let view = session.pinned()?;
        let state = view.state;
        if state.size == 0 {
            return Ok(());
        }
        let size = state.page_size as usize;
        let hashes = self.hashes(state.page_size)?;
        let mut image = vec![0; size];
        let mut learned = false;
        let len = self.base.len().at(|| format!("reading {}", self.path.display()))?;
        for page in (1..=state.size).filter(|&page| page != lock_page(size)) {
            if view.index.find(page, state.lsn).is_some_and(|found| found.last > view.floor) {
                continue;
            }
            let finding = |message: String| Finding {
                severity: "error",
                file: self.name_of(&self.path),
                offset: Some(u64::from(page - 1) * size as u64),
                lsn: Some(view.floor),
                page: Some(page),
                message,
            };
            // Of a tag that is damaged, verify_lazy has told.
            match self.lacks(page) {
                Ok(false) => {}
                Ok(true) if hashes.get(page)?.is_some() => {
                    self.verify_absent(page, findings)?;
                    continue;
                }
                _ => continue,
            }
            if u64::from(page) * size as u64 > len {
                // One finding stands for all pages behind the file's end.
                findings.push(finding(self.ends_before(page).text().to_owned()));
                break;
            }
            let read = view.read(self, page, 0, &mut image);
            let hash = page_hash(page, &image);
            match (read, hashes.get(page)?) {
                (Ok(()), Some(known)) if known == hash => {}
                (Ok(()), None) => {
                    hashes.set(page, hash)?;
                    learned = true;
                }
                (read, _) => {
                    let why = read.err().map(|e| e.text().to_owned());
                    let why = why.unwrap_or_else(|| format!("page {page} of the base fails its checksum"));
                    let nowhere = ", and neither the journal nor a remote has it";
                    findings.push(self.outcome(finding(why), self.mend(page), nowhere));
                }
            }
        }
        if learned { hashes.sync() } else { Ok(()) }
    }

    /// A page that a lazy clone lacks, and that has a hash all the same.
    fn verify_absent(&self, page: u32, findings: &mut Vec<Finding>) -> Result<()> {
        if matches!(self.mend_absent(page)?, Mended::Hash) {
            findings.push(Finding {
                severity: "warning",
                file: self.name_of_hashes(),
                offset: None,
                lsn: None,
                page: Some(page),
                message: format!("a hash was noted for page {page}, which isn't here; it was forgotten"),
            });
        }
        Ok(())
    }

    /// What is said of something `broken` that was to be mended; `nowhere` is who else was looked at, where nobody has it.
    fn outcome(&self, broken: Finding, mended: Result<Mended>, nowhere: &str) -> Finding {
        let cause = broken.message.split("; ").next().unwrap_or_default();
        let (severity, file, message) = match mended {
            Ok(Mended::Page(from)) => {
                ("warning", broken.file, format!("{cause}; it was written again from {from}"))
            }
            Ok(Mended::Hash) => {
                let page = broken.page.unwrap_or_default();
                let message = format!("the hash of page {page} of the base was another; it was noted again");
                ("warning", self.name_of_hashes(), message)
            }
            Ok(Mended::Not) => ("error", broken.file, format!("{cause}{nowhere}; restore from a backup")),
            Ok(Mended::Unasked(e)) => {
                let (code, text) = (e.code().word(), e.text());
                let message = format!("{cause}, and who may have it couldn't be asked ({code}: {text})");
                ("error", broken.file, message)
            }
            Ok(Mended::Later) => (
                "error",
                broken.file,
                format!("{cause}; a fold is under way: run tide_verify again behind it"),
            ),
            Err(e) => ("error", broken.file, format!("{cause}, and writing it again failed: {}", e.text())),
        };
        Finding { severity, file, message, ..broken }
    }

    /// Checks images of the base that only history shows: those that the next fold keeps.
    fn verify_hidden(&self, session: &Session, findings: &mut Vec<Finding>) -> Result<()> {
        let running = self.fold.lock();
        // Whoever folds a step at a time has given the history up that these images are for.
        if running.is_some() || !self.control.file().try_lock(Lock::Fold)? {
            return Ok(());
        }
        let checked = self.verify_replaced(session, findings);
        self.control.file().unlock(Lock::Fold);
        checked
    }

    /// The same, under the fold lock.
    fn verify_replaced(&self, session: &Session, findings: &mut Vec<Finding>) -> Result<()> {
        let view = session.pinned()?;
        let block = self.read_superblock()?;
        if block.lazy || block.history > block.base.lsn {
            // A lazy clone keeps none. A fold that gives up what the base has didn't get to its end.
            return Ok(());
        }
        let folded = self.folded_pages(&block, &view.index, &view.state)?;
        let size = block.base.page_size as usize;
        let finding = |page: Option<u32>, message: String| Finding {
            severity: "error",
            file: self.name_of(&self.path),
            offset: page.map(|page| u64::from(page - 1) * size as u64),
            lsn: Some(block.base.lsn),
            page,
            message,
        };
        let pages = match self.replaced(&block, &view.state, &folded, &view.index) {
            Ok(pages) => pages,
            Err(e) if e.code() == Code::Damaged => {
                findings.push(finding(None, e.text().to_owned()));
                return Ok(());
            }
            Err(e) => return Err(e),
        };
        let Some(hashes) = Hashes::existing(&*self.disk, &self.side, block.base.page_size)? else {
            return Ok(());
        };
        let mut image = vec![0; size];
        for page in pages {
            let offset = u64::from(page - 1) * size as u64;
            self.base.read_at(&mut image, offset).at(|| format!("reading {}", self.path.display()))?;
            if hashes.get(page)?.is_some_and(|known| known != page_hash(page, &image)) {
                findings.push(finding(
                    Some(page),
                    format!("page {page} of the base fails its checksum; history lacks it, and nothing else"),
                ));
            }
        }
        Ok(())
    }
}

/// Chain value that an entry itself says it continues.
fn stated_chain(segment: &Segment, offset: u64) -> Result<u64> {
    let mut bytes = [0; 8];
    segment.read(offset + 32, &mut bytes)?;
    Ok(u64::from_le_bytes(bytes))
}
