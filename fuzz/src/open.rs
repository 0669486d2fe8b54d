//! The `open` target: whatever happened to its files, a store opens soundly or says what is wrong.
//!
//! An input is a plan: the files of a store at some moment of its life, and what happens to them. The
//! store is opened, read, verified, shipped, written to, closed or killed, and opened again.
//!
//! 1. Nothing panics, and no more memory is used than a small multiple of the files.
//! 2. Damage to a file that nobody needs changes nothing.
//! 3. Unless somebody made checksums right again, what is read was committed, and not before what
//!    was on the disk for certain; or it is the base as somebody else changed it; or `verify`
//!    finds something. So does it where an image that is retained was lost.
//! 4. A replica that receives the full image has what was read here.
//! 5. What was found sound stays so: after a commit, a fold and another opening.

use std::collections::BTreeSet;
use std::sync::Arc;

use arbitrary::{Arbitrary, Unstructured};
use tideline_journal::disk::{SimDisk, SimProcess};
use tideline_journal::{Code, Durability, Error, Lsn, Store};

use crate::budget::within;
use crate::damage::{Damage, Damaged};
use crate::layout::{Kind, bounds, differ, hashes_count, is_hashed, lost_images, lost_kept, sequence};
use crate::pages::{BASE, Change, Content, Files, PAGE, commit, content, load, open, total};
use crate::shapes::{Life, Shape, shapes};
use crate::value::pick;

const SEED: u64 = 3;
/// Damages of a plan that are done.
const DAMAGES: usize = 6;
/// Most memory: so many times what is there, and so many bytes.
const TIMES: usize = 8;
const MORE: usize = 4 << 20;

#[derive(Arbitrary, Debug)]
struct Plan {
    shape: u8,
    killed: bool,
    damages: Vec<Damage>,
}

impl Plan {
    fn of(data: &[u8]) -> arbitrary::Result<Plan> {
        Plan::arbitrary_take_rest(Unstructured::new(data)).map(|mut plan| {
            plan.damages.truncate(DAMAGES);
            plan
        })
    }
}

/// The plan that an input stands for, for reading.
pub fn describe(data: &[u8]) -> String {
    match Plan::of(data) {
        Ok(plan) => {
            let shapes = shapes();
            let shape = pick(&shapes.shapes, plan.shape);
            let damaged = Damaged::new(shape, &shapes.shapes, &plan.damages);
            let paths: BTreeSet<_> = damaged.sound.keys().chain(damaged.files.keys()).collect();
            let list = |path: &&String| {
                let len = |bytes: Option<&Vec<u8>>| bytes.map_or("missing".into(), |b| b.len().to_string());
                let changed = damaged.sound.get(*path) != damaged.files.get(*path);
                let mark = if changed { "changed" } else { "" };
                format!(
                    "{path}: {} {} {mark}\n",
                    len(damaged.sound.get(*path)),
                    len(damaged.files.get(*path))
                )
            };
            format!("{}\n{}{plan:#?}", shape.name, paths.iter().map(list).collect::<String>())
        }
        Err(e) => format!("nothing: {e}"),
    }
}

/// Runs one input; returns what happened, in short.
///
/// # Panics
/// Where the store doesn't do what it should.
pub fn run(data: &[u8]) -> String {
    let shapes = shapes();
    getrandom::reset(SEED);
    let Ok(plan) = Plan::of(data) else { return String::new() };
    let shape = pick(&shapes.shapes, plan.shape);
    let damaged = Damaged::new(shape, &shapes.shapes, &plan.damages);
    let disk = load(&damaged.files);
    let limit = TIMES * (total(&damaged.files) + total(damaged.sound)) + MORE;
    let judge = Judge::new(shape, &shapes.lives[shape.life], &damaged);
    let outcome = within(limit, || judge.trial(&disk, plan.killed));
    format!("{}: {:?} {outcome}", shape.name, judge.changed)
}

/// Decides what may be seen of a damaged store.
struct Judge<'a> {
    shape: &'a Shape,
    life: &'a Life,
    damaged: &'a Damaged<'a>,
    changed: BTreeSet<Kind>,
    /// Damage is below a checksum, or of a kind that nothing else can hide.
    strict: bool,
    /// Something that reading needs was changed.
    needed: bool,
    /// Hashes that are noted for pages of the base may be wrong.
    misled: bool,
}

/// What was seen.
struct Seen {
    lsn: Lsn,
    content: Content,
    /// It is what was committed, and nothing is wrong with the store.
    sound: bool,
    /// The base was taken as it was found.
    adopted: bool,
}

impl<'a> Judge<'a> {
    fn new(shape: &'a Shape, life: &'a Life, damaged: &'a Damaged<'a>) -> Judge<'a> {
        let changed = damaged.changed();
        let has = |kinds: &[Kind]| kinds.iter().any(|kind| changed.contains(kind));
        // With the other slot of the superblock the store is as it was a while ago, which is only
        // known to be right for files that are as they are now.
        let hidden = has(&[Kind::Store]) && has(&[Kind::Base, Kind::Segment]);
        let mixed = damaged.stale && damaged.changed_files() > 1;
        // A superblock of a later moment says what isn't true of the base yet.
        let ahead = sequence(&damaged.files) > sequence(damaged.sound);
        let strict = !(damaged.forged || mixed || hidden || ahead);
        let needed = has(&[Kind::Base, Kind::Store, Kind::Segment, Kind::Super]);
        let misled = has(&[Kind::Hashes]) && hashes_count(damaged.sound, &damaged.files);
        Judge { shape, life, damaged, changed, strict, needed, misled }
    }

    fn has(&self, kind: Kind) -> bool {
        self.changed.contains(&kind)
    }

    /// Opens the store, uses it, and opens it again.
    fn trial(&self, disk: &Arc<SimDisk>, killed: bool) -> String {
        let process = disk.process();
        let (store, seen) = match self.open(&process, None) {
            Ok(opened) => opened,
            Err(e) => return format!("open {}", self.word(&e)),
        };
        let mut trail = match &seen {
            Ok(seen) if seen.adopted => "adopted".to_owned(),
            Ok(seen) if seen.sound => seen.lsn.to_string(),
            Ok(_) => "found".to_owned(),
            Err(e) => format!("read {}", self.word(e)),
        };
        self.ship(&store, seen.as_ref().ok());
        let seen = seen.ok();
        let after = seen.as_ref().map(|seen| self.write(&store, seen));
        trail += if after.is_some() { " written" } else { "" };
        if killed {
            process.kill();
            drop(store);
        } else {
            let closed = store.close();
            if self.strict && seen.as_ref().is_some_and(|seen| seen.sound && !self.needed) {
                assert!(closed.is_ok(), "{closed:?}, though nothing that is needed was damaged");
            }
            trail += if closed.is_ok() { " closed" } else { " not closed" };
        }
        let again = self.open(&disk.process(), Some(after.as_ref()));
        trail += match &again {
            Ok((_, Ok(_))) => " again",
            _ => " lost",
        };
        if let (true, Some(seen), Some((lsn, content))) = (self.strict, seen, after)
            && seen.sound
        {
            let (_, found) = again.unwrap_or_else(|e| panic!("a sound store doesn't open again: {e}"));
            let found = found.unwrap_or_else(|e| panic!("a sound store can't be read again: {e}"));
            assert_eq!(found.lsn, lsn, "a commit is there after another opening");
            assert!(found.content == content, "a commit is there after another opening");
            assert!(found.sound, "a sound store stays sound");
        }
        trail
    }

    /// Opens the store, reads all of it, and judges what is seen. `after` is there the second time:
    /// what was committed meanwhile, if anything was.
    #[allow(clippy::type_complexity, reason = "two errors, of which one leaves a store")]
    fn open(
        &self,
        process: &Arc<SimProcess>,
        after: Option<Option<&(Lsn, Content)>>,
    ) -> Result<(Arc<Store>, Result<Seen, Error>), Error> {
        let opened = open(process);
        let must = self.strict && !self.needed && after.is_none();
        let store = match opened {
            Ok(store) => store,
            Err(e) if must => panic!("{e}, though nothing that is needed was damaged"),
            Err(e) => return Err(e),
        };
        let read = content(&store);
        let verified = store.verify();
        let told = !matches!(&verified, Ok(findings) if findings.is_empty());
        let (lsn, content) = match read {
            Ok(read) => read,
            // A page is refused that hasn't the hash that is noted for it, whichever of the two is wrong.
            Err(e) if must && !self.misled => {
                panic!("{e}, though nothing that is needed was damaged")
            }
            Err(e) => return Ok((store, Err(e))),
        };
        let mut seen = Seen { lsn, content, sound: !told, adopted: false };
        if self.strict {
            let expected = after.flatten().filter(|after| after.0 == lsn);
            self.judge(&store, &mut seen, told, expected.map(|after| &after.1), after.is_none());
            if !self.needed && !self.misled && !self.has(Kind::Kept) {
                assert!(!told, "{verified:?}, though nothing that counts was damaged");
            }
        }
        Ok((store, Ok(seen)))
    }

    /// Says whether what is seen may be seen.
    fn judge(&self, store: &Arc<Store>, seen: &mut Seen, told: bool, after: Option<&Content>, first: bool) {
        let lsn = seen.lsn.get();
        // A life here has what somebody else wrote as its first LSN, if at all.
        let external =
            lsn > 1 && store.log().is_ok_and(|log| log.last().is_some_and(|row| row.origin == "external"));
        seen.adopted = store.lineage() != self.life.lineage || after.is_none() && external;
        if seen.adopted {
            let known = self.life.states.values().any(|state| *state == seen.content);
            assert!(
                known || self.has(Kind::Base) || !first,
                "a base that nobody changed was taken for another"
            );
            seen.sound = false;
            return;
        }
        let expected = match after {
            Some(after) => after,
            None => self.life.states.get(&lsn).unwrap_or_else(|| panic!("nobody committed LSN {lsn}")),
        };
        let wrong = self.wrong_pages(&seen.content, expected);
        if !wrong.is_empty() && !told {
            // Nothing tells whether a page of the base is right whose hash isn't known.
            let page_size = expected.page_size;
            let unknown = |page: usize| !is_hashed(&self.damaged.files, page, page_size);
            let excused =
                self.has(Kind::Base) && (self.has(Kind::Hashes) || wrong.iter().any(|&p| unknown(p)));
            assert!(excused, "pages {wrong:?} at LSN {lsn} were never committed, and nothing says so");
        }
        seen.sound &= wrong.is_empty();
        if !first {
            return;
        }
        if !self.needed {
            assert_eq!(lsn, self.shape.head, "nothing that is needed was damaged");
        }
        if !self.has(Kind::Store) {
            let durable = bounds(self.damaged.sound).1;
            assert!(lsn >= durable, "LSN {durable} was on the disk, and the store is at {lsn}");
        }
        if !told {
            let (sound, now) = (self.damaged.sound, &self.damaged.files);
            assert!(!lost_images(sound, now, lsn), "an image is lost, and verify finds nothing");
            assert!(!lost_kept(sound, now), "a kept image is lost, and verify finds nothing");
        }
    }

    /// Numbers of the pages that aren't as they should be.
    fn wrong_pages(&self, content: &Content, expected: &Content) -> Vec<usize> {
        let longest = content.pages.len().max(expected.pages.len());
        let differs = |page: &usize| match (content.pages.get(page - 1), expected.pages.get(page - 1)) {
            (Some(one), Some(other)) => differ(*page as u32, one, other),
            _ => true,
        };
        (1..=longest).filter(differs).collect()
    }

    fn word(&self, error: &Error) -> &'static str {
        let busy = error.code() == Code::Busy;
        assert!(!busy || in_wal_mode(&self.damaged.files), "{error}: nobody has it");
        error.code().word()
    }

    /// Uses whatever only reads.
    fn ship(&self, store: &Arc<Store>, seen: Option<&Seen>) {
        let log = store.log();
        let status = store.status();
        if let (true, Some(seen)) = (self.strict, seen.filter(|seen| seen.sound)) {
            let status = status.unwrap_or_else(|e| panic!("{e}: the store is sound"));
            assert_eq!(status.head, seen.lsn);
            let log = log.unwrap_or_else(|e| panic!("{e}: the store is sound"));
            assert_eq!(log.last().map_or(Lsn::ZERO, |row| row.range.last), seen.lsn);
        }
        let middle = Lsn::new(self.shape.head.saturating_sub(2));
        // May be an error of any kind, but no more.
        drop(store.prepare(middle, Some(1000)));
        let Ok(Some(blob)) = store.prepare(Lsn::ZERO, None) else { return };
        let replica = open(&SimDisk::new().process()).expect("an empty disk is sound");
        match (replica.receive(&blob), seen) {
            (Ok(lsn), Some(seen)) => {
                let (head, content) = content(&replica).expect("the replica is sound");
                assert_eq!((lsn, head), (seen.lsn, seen.lsn), "the replica is where the store is");
                assert!(content == seen.content, "the replica has what the store has");
            }
            (Err(e), Some(seen)) if self.strict && seen.sound && !self.misled => {
                panic!("{e}: a sound store ships what nobody takes")
            }
            _ => {}
        }
    }

    /// Commits something, and folds; returns what the store should have then. Damage may keep it from
    /// that, or be met only after the commit.
    fn write(&self, store: &Arc<Store>, seen: &Seen) -> (Lsn, Content) {
        let size = (seen.content.pages.len() as u32).max(2);
        let page_size = if seen.content.page_size == 0 { PAGE } else { seen.content.page_size };
        let change = Change { page_size, size, fills: vec![(1, 0xfeed), (2, 0xbeef)] };
        let after = (seen.lsn.next(), change.applied(&seen.content));
        let written = commit(store, &change, Durability::Disk);
        let now = content(store);
        let folded = store.fold();
        if self.strict && seen.sound {
            assert_eq!(written.ok(), Some(after.0), "a sound store can be written");
            assert!(now.is_ok_and(|now| now == after), "a sound store has what was committed");
            assert_eq!(folded.ok(), Some(after.0), "a sound store can be folded");
        }
        after
    }
}

/// True if somebody who doesn't know the store seems to use the base: it says that it is in WAL mode.
fn in_wal_mode(files: &Files) -> bool {
    let header = files.get(BASE).and_then(|base| base.get(18..20));
    header.is_some_and(|versions| versions.iter().any(|&version| version > 1))
}
