//! FORMAT.md against the bytes: its tables and constants are read, and a second reader, which knows
//! nothing else, finds in the files of a store what the store says of itself.

mod common;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use common::{Change, Model, PAGE, PATH, Rng, commit, open};
use tideline_journal::disk::{Disk, How, SimDisk, SimProcess};
use tideline_journal::{
    Durability, Lsn, LsnRange, Options, PageSource, Result, Session, Sources, State, Store, Unsent, page_hash,
};

const TEXT: &str = include_str!("../../FORMAT.md");
const SIDE: &str = "/app.db-tide";

/// One row of a layout's table.
struct Field {
    offset: usize,
    size: usize,
    name: String,
    meaning: String,
}

/// A table of FORMAT.md with its heading, `### Name (N bytes)`.
struct Layout {
    name: String,
    len: usize,
    fields: Vec<Field>,
}

fn cells(line: &str) -> Option<Vec<&str>> {
    let inside = line.trim().strip_prefix('|')?.strip_suffix('|')?;
    Some(inside.split('|').map(str::trim).collect())
}

/// Rows of the first table behind `heading`, without its head.
fn table(heading: &str) -> Vec<Vec<&'static str>> {
    let (_, behind) = TEXT.split_once(heading).unwrap_or_else(|| panic!("FORMAT.md has no {heading:?}"));
    let lines = behind.lines().skip_while(|line| cells(line).is_none());
    lines.map_while(cells).skip(2).collect()
}

fn layouts() -> Vec<Layout> {
    let mut found = Vec::new();
    for heading in TEXT.lines().filter(|line| line.starts_with("### ") && line.ends_with(" bytes)")) {
        let (name, len) = heading[4..].rsplit_once(" (").expect("a heading with a length");
        let fields = table(heading).into_iter().map(|row| Field {
            offset: row[0].parse().unwrap_or_else(|_| panic!("{name}: offset {:?}", row[0])),
            size: row[1].parse().unwrap_or_else(|_| panic!("{name}: size {:?}", row[1])),
            name: row[2].to_owned(),
            meaning: row[3].to_owned(),
        });
        let len = len.trim_end_matches(" bytes)").parse().expect("a length");
        found.push(Layout { name: name.to_owned(), len, fields: fields.collect() });
    }
    found
}

/// Text in the first pair of backticks.
fn quoted(text: &str) -> &str {
    text.split('`').nth(1).unwrap_or_else(|| panic!("nothing is quoted in {text:?}"))
}

fn number(text: &str) -> u64 {
    match text.strip_prefix("0x") {
        Some(digits) => u64::from_str_radix(digits, 16).expect("a hexadecimal number"),
        None => text.parse().expect("a number"),
    }
}

fn constant(name: &str) -> u64 {
    let row = table("## Constants").into_iter().find(|row| row[0] == name);
    number(quoted(row.unwrap_or_else(|| panic!("FORMAT.md has no constant {name:?}"))[1]))
}

fn kind(name: &str) -> u64 {
    let row = table("### Kinds, flags, origins").into_iter().find(|row| row[1] == name);
    number(quoted(row.unwrap_or_else(|| panic!("FORMAT.md has no kind {name:?}"))[0]))
}

/// Bytes, as a layout sees them.
struct View<'a> {
    layout: Layout,
    bytes: &'a [u8],
}

impl<'a> View<'a> {
    /// Also checks magic and version, where there are such fields, and that what is reserved is zero.
    fn new(name: &str, bytes: &'a [u8]) -> View<'a> {
        let layout = layouts().into_iter().find(|layout| layout.name == name);
        let layout = layout.unwrap_or_else(|| panic!("FORMAT.md has no layout {name:?}"));
        let view = View { bytes: &bytes[..layout.len], layout };
        for field in &view.layout.fields {
            let content = &view.bytes[field.offset..field.offset + field.size];
            match field.name.as_str() {
                "magic" => assert_eq!(content, quoted(&field.meaning).as_bytes(), "{name}"),
                "version" if field.meaning == "format version" => {
                    assert_eq!(unsigned(content), constant("format version"), "{name}");
                }
                "reserved" => assert!(content.iter().all(|&b| b == 0), "{name}: byte {}", field.offset),
                _ => {}
            }
        }
        view
    }

    fn bytes(&self, field: &str) -> &'a [u8] {
        let found = self.layout.fields.iter().find(|found| found.name == field);
        let found = found.unwrap_or_else(|| panic!("{} has no field {field:?}", self.layout.name));
        &self.bytes[found.offset..found.offset + found.size]
    }

    fn get(&self, field: &str) -> u64 {
        unsigned(self.bytes(field))
    }

    /// The CRC-32 in the last field covers what is before it.
    fn sealed(self) -> View<'a> {
        let at = self.layout.len - 4;
        assert_eq!(unsigned(&self.bytes[at..]), u64::from(crc32(&self.bytes[..at])), "{}", self.layout.name);
        self
    }
}

fn unsigned(bytes: &[u8]) -> u64 {
    bytes.iter().rev().fold(0, |n, &byte| n << 8 | u64::from(byte))
}

fn crc32(bytes: &[u8]) -> u32 {
    let step = |crc: u32| if crc & 1 == 1 { crc >> 1 ^ 0xedb8_8320 } else { crc >> 1 };
    !bytes.iter().fold(!0, |crc, &byte| (0..8).fold(crc ^ u32::from(byte), |crc, _| step(crc)))
}

fn crc64(bytes: &[u8]) -> u64 {
    let polynomial = constant("CRC-64 polynomial, reflected");
    let around = constant("CRC-64 initial value and final exclusive or");
    let step = |crc: u64| if crc & 1 == 1 { crc >> 1 ^ polynomial } else { crc >> 1 };
    let crc = bytes.iter().fold(around, |crc, &byte| (0..8).fold(crc ^ u64::from(byte), |crc, _| step(crc)));
    crc ^ around
}

fn mix(mut x: u64) -> u64 {
    for multiplier in [constant("first multiplier of mix"), constant("second multiplier of mix")] {
        x = (x ^ x >> 33).wrapping_mul(multiplier);
    }
    x ^ x >> 33
}

fn hash_of(page: u32, image: &[u8]) -> u64 {
    let mut image = image.to_vec();
    if page == 1 {
        [18..20, 24..28, 40..44, 92..100].into_iter().for_each(|served| image[served].fill(0));
    }
    let number = u64::from(page).wrapping_mul(constant("multiplier of the page number"));
    mix(crc64(&image) ^ number).max(1)
}

fn chain_of(prev: u64, crc: u64, last: u64) -> u64 {
    mix(mix(prev ^ constant("salt of the chain")).wrapping_add(crc) ^ last.rotate_left(32))
}

fn load(disk: &SimProcess, path: &str) -> Vec<u8> {
    let file = disk.open(Path::new(path), How::Read).unwrap_or_else(|e| panic!("{path}: {e}"));
    let mut bytes = vec![0; file.len().unwrap() as usize];
    assert_eq!(file.read_at(&mut bytes, 0).unwrap(), bytes.len());
    bytes
}

fn side(disk: &SimProcess, name: &str) -> Vec<u8> {
    load(disk, &format!("{SIDE}/{name}"))
}

/// The slot of the superblock that counts.
fn slot(store: &[u8]) -> &[u8] {
    let slots = store.chunks(4096).filter(|slot| slot.iter().any(|&b| b != 0));
    slots.max_by_key(|slot| View::new("Superblock slot", slot).sealed().get("sequence")).expect("a slot")
}

/// An entry that the second reader found.
struct Found {
    first: u64,
    last: u64,
    kind: u64,
    time: u64,
    len: u64,
    rows: u64,
    size: u64,
    counter: u64,
    page_size: u64,
    notes: Vec<u8>,
    /// Number, and hash and image where it isn't a page of zeros.
    pages: Vec<(u32, u64, Option<Vec<u8>>)>,
}

/// The entry at `at` of a segment's bytes that continues `chain`; its chain value and where it ends.
fn entry(segment: &[u8], at: usize, chain: u64, magic: &str) -> Option<(Found, u64, usize)> {
    let header_len = layouts().into_iter().find(|l| l.name == "Entry header")?.len;
    let bytes = segment.get(at..at + header_len)?;
    if &bytes[..4] != b"ENT1" {
        return None;
    }
    let header = View::new("Entry header", bytes);
    let (rows, notes) = (header.get("rows") as usize, header.get("notes") as usize);
    let table = at + header.get("table") as usize;
    let record_at = (table + 24 * rows + notes).next_multiple_of(8);
    assert_eq!(header.get("length") as usize, record_at + 32 - at, "length of the entry at {at}");
    if header.get("prev") != chain {
        return None;
    }
    let bytes = &segment[record_at..record_at + 32];
    let is = |magic: &str| &bytes[..4] == magic.as_bytes();
    if !is(magic) {
        return None;
    }
    let record = if is("COM1") {
        View::new("Commit record", bytes)
    } else {
        View { layout: layouts().into_iter().find(|l| l.name == "Commit record")?, bytes }
    };
    let mut covered = segment[at..at + header_len].to_vec();
    covered.extend_from_slice(&segment[table..table + 24 * rows + notes]);
    let crc = u64::from(crc32(&covered));
    assert_eq!(record.get("crc"), crc, "the record's CRC at {at}");
    assert_eq!((record.get("last lsn"), record.get("prev")), (header.get("last lsn"), chain));
    assert_eq!(record.get("chain"), chain_of(chain, crc, header.get("last lsn")));
    let page_size = header.get("page size") as usize;
    let mut pages = Vec::new();
    for bytes in segment[table..table + 24 * rows].chunks(24) {
        let row = View::new("Page table row", bytes);
        let (page, offset) = (row.get("page") as u32, row.get("offset") as usize);
        assert_eq!(row.get("segment"), 0, "version 1 addresses the entry's own segment");
        assert_eq!(offset as u64 % constant("alignment of images"), 0);
        let image =
            if offset == 0 { vec![0; page_size] } else { segment[offset..offset + page_size].to_vec() };
        assert_eq!(row.get("hash"), hash_of(page, &image), "hash of page {page}");
        assert_eq!(row.get("hash"), page_hash(page, &image));
        pages.push((page, row.get("hash"), (offset != 0).then_some(image)));
    }
    assert!(pages.is_sorted_by_key(|page| page.0), "rows are in order");
    assert_eq!(header.get("flags") & 1, 1, "critical");
    let found = Found {
        first: header.get("first lsn"),
        last: header.get("last lsn"),
        kind: header.get("kind"),
        time: header.get("time"),
        len: header.get("length"),
        rows: header.get("rows"),
        size: header.get("size"),
        counter: header.get("counter"),
        page_size: header.get("page size"),
        notes: segment[table + 24 * rows..table + 24 * rows + notes].to_vec(),
        pages,
    };
    let end = (record_at + 32).next_multiple_of(constant("alignment of entries") as usize);
    Some((found, record.get("chain"), end))
}

/// What the second reader makes of a journal.
struct Journal {
    entries: Vec<Found>,
    seals: usize,
    /// Where the next entry goes: name of the segment, offset, chain value.
    tail: (String, usize, u64),
}

fn walk(disk: &SimProcess) -> Journal {
    let store = side(disk, "store");
    let block = View::new("Superblock slot", slot(&store));
    let state = View::new("State", block.bytes("horizon"));
    let mut number = block.get("first segment");
    let mut newest = state.get("lsn");
    let mut journal = Journal { entries: Vec::new(), seals: 0, tail: (String::new(), 0, 0) };
    let mut chain = None;
    'segments: loop {
        let name = format!("{number:08x}.seg");
        let bytes = side(disk, &name);
        let header = View::new("Segment header", &bytes).sealed();
        assert_eq!((header.get("kind"), header.get("number")), (0, number));
        assert_eq!(header.bytes("lineage"), block.bytes("lineage"));
        assert_eq!(header.get("first"), newest + 1);
        let mut at_chain = *chain.get_or_insert(header.get("chain"));
        assert_eq!(header.get("chain"), at_chain, "{name} continues the one before");
        let mut at = header.layout.len;
        while let Some((found, after, end)) = entry(&bytes, at, at_chain, "COM1") {
            if found.kind == kind("seal") {
                assert_eq!((found.first, found.last, found.rows), (newest, newest, 0), "a seal");
                let note = View::new("Annotation", &found.notes);
                let place = &found.notes[note.layout.len..];
                assert_eq!((note.get("kind"), note.get("flags"), note.get("length")), (2, 1, 12));
                journal.seals += 1;
                number = unsigned(&place[..4]);
                chain = Some(unsigned(&place[4..12]));
                continue 'segments;
            }
            assert_eq!(found.first, newest + 1);
            (newest, at_chain, at) = (found.last, after, end);
            journal.entries.push(found);
        }
        journal.tail = (name, at, at_chain);
        return journal;
    }
}

/// Commits that show what an entry can be: growth by pages that nobody wrote, counters alone, a
/// shorter database, and enough to fill a few segments.
fn script(session: &mut Session, model: &mut Model) {
    let mut rng = Rng(3);
    for (fills, size) in [(vec![(1, 9), (2, 5)], 3), (vec![], 3), (vec![(7, 1)], 8), (vec![(2, 6)], 5)] {
        let change = Change { fills, size };
        commit(session, model, &change, Durability::Process).unwrap();
    }
    for _ in 0..20 {
        let change = model.change(&mut rng);
        commit(session, model, &change, Durability::Disk).unwrap();
    }
}

fn scripted(disk: &Arc<SimDisk>) -> (Arc<SimProcess>, Arc<Store>, Session, Model) {
    let process = disk.process();
    let store = open(&process).unwrap();
    let mut session = Session::new(Arc::clone(&store)).unwrap();
    let mut model = Model::default();
    script(&mut session, &mut model);
    (process, store, session, model)
}

/// A plain database where the store's base belongs, made without Tideline.
fn plain(process: &SimProcess, size: u32) {
    let file = process.open(Path::new(PATH), How::Create).unwrap();
    for page in 1..=size {
        let image = common::image(page, u64::from(page) * 11, size, 7);
        file.write_at(&image, u64::from(page - 1) * PAGE as u64).unwrap();
    }
    file.sync().unwrap();
    process.sync_dir(Path::new("/")).unwrap();
}

#[test]
fn layouts_have_neither_gaps_nor_overlaps() {
    let layouts = layouts();
    assert!(layouts.len() > 9, "the tables are found");
    for layout in layouts {
        let mut at = 0;
        for field in &layout.fields {
            assert_eq!(field.offset, at, "{}: {}", layout.name, field.name);
            at += field.size;
        }
        assert_eq!(at, layout.len, "length of {}", layout.name);
    }
}

#[test]
fn check_value_of_the_crc() {
    assert_eq!(crc32(b"123456789"), 0xcbf4_3926);
    assert_eq!(crc64(b"123456789"), constant("CRC-64 of the ASCII digits 1 to 9"));
}

#[test]
fn segments_and_entries_are_as_specified() {
    let disk = SimDisk::new();
    let (process, store, session, model) = scripted(&disk);
    let log = store.log().unwrap();
    let checksum = store.learn_checksum().unwrap();
    let state = {
        let mut reader = Session::new(Arc::clone(&store)).unwrap();
        reader.begin_read().unwrap();
        *reader.state().unwrap()
    };
    process.kill();
    drop((session, store));

    let journal = walk(&disk.process());
    assert!(journal.seals > 1 && journal.entries.len() == log.len());
    let mut pages: BTreeMap<u32, Vec<u8>> = BTreeMap::new();
    for (found, row) in journal.entries.iter().zip(&log) {
        assert_eq!((found.first, found.last), (row.range.first.get(), row.range.last.get()));
        assert_eq!((found.kind, row.kind), (kind("commit"), "commit"));
        assert_eq!((found.time, found.rows), (row.time, row.pages));
        assert_eq!((found.len, found.size), (row.bytes, u64::from(row.size)));
        assert_eq!(found.page_size, PAGE as u64);
        assert!(found.notes.is_empty());
        for (page, _, image) in &found.pages {
            pages.insert(*page, image.clone().unwrap_or_else(|| vec![0; PAGE]));
        }
        pages.retain(|&page, _| u64::from(page) <= found.size);
    }
    assert_eq!(journal.entries[1].rows, 0, "counters alone have no row");
    let zeros = &journal.entries[2].pages;
    assert!(zeros.iter().any(|(page, _, image)| *page == 4 && image.is_none()), "a page of zeros");
    assert_eq!(journal.entries.last().unwrap().counter, u64::from(state.counters.counter));
    assert_eq!(pages.len() as u32, model.size);
    let mut sum = 0u64;
    for (&page, bytes) in &pages {
        sum = sum.wrapping_add(hash_of(page, bytes));
        let from = if page == 1 { 100 } else { 0 };
        assert_eq!(bytes[from..], common::image(page, model.fills[&page], model.size, 0)[from..]);
    }
    assert_eq!(sum, checksum, "the rolling checksum is the sum of the pages' hashes");
}

#[test]
fn a_compacted_journal_is_one_too() {
    let disk = SimDisk::new();
    let (process, store, session, _) = scripted(&disk);
    let before = walk(&process);
    store.compact(Some(LsnRange { first: Lsn::new(3), last: Lsn::new(20) })).unwrap();
    let after = walk(&process);
    let ranges: Vec<_> = after.entries.iter().map(|entry| (entry.first, entry.last)).collect();
    assert_eq!(ranges, [(1, 1), (2, 2), (3, 20), (21, 21), (22, 22), (23, 23), (24, 24)]);
    let mut newest = BTreeMap::new();
    for entry in &before.entries[2..20] {
        newest.extend(entry.pages.iter().map(|(page, hash, _)| (*page, *hash)));
    }
    let merged = &after.entries[2];
    newest.retain(|&page, _| u64::from(page) <= merged.size);
    assert_eq!(merged.kind, kind("merged"));
    assert_eq!(merged.pages.iter().map(|(page, hash, _)| (*page, *hash)).collect::<BTreeMap<_, _>>(), newest);
    assert_eq!((merged.time, merged.size), (before.entries[19].time, before.entries[19].size));
    process.kill();
    drop((session, store));
    assert_eq!(open(&disk.process()).unwrap().head(), Lsn::new(24));
}

#[test]
fn what_follows_the_last_entry_is_none() {
    let disk = SimDisk::new();
    let (process, store, mut session, model) = scripted(&disk);
    // So many pages that most of them are written before the commit.
    let change = Change { fills: (2..=700).map(|page| (page, 77)).collect(), size: 700 };
    common::write(&mut session, &model, &change).unwrap();
    let before = walk(&process);
    let bytes = side(&process, &before.tail.0);
    assert_eq!(&bytes[before.tail.1..before.tail.1 + 4], b"ENT1", "the body is there");
    assert_eq!(before.entries.len() as u64, store.head().get(), "and doesn't count");
    session.publish(Durability::Process, false).unwrap();
    assert_eq!(walk(&process).entries.len(), before.entries.len() + 1);
}

#[test]
fn a_prepared_entry_differs_in_its_magic_and_has_an_annotation() {
    let disk = SimDisk::new();
    let (process, _store, mut session, model) = scripted(&disk);
    let name = "/other.db-mj01234567";
    process.open(Path::new(name), How::Create).unwrap();
    let change = Change { fills: vec![(2, 77)], size: model.size };
    common::write(&mut session, &model, &change).unwrap();
    session.prepare(Some(Path::new(name))).unwrap();
    session.sync_prepared().unwrap();

    let Journal { tail: (segment, at, chain), .. } = walk(&process);
    let bytes = side(&process, &segment);
    let (found, ..) = entry(&bytes, at, chain, "PRE1").expect("a prepared entry");
    let note = View::new("Annotation", &found.notes);
    let len = note.get("length") as usize;
    assert_eq!((note.get("kind"), note.get("flags"), len), (1, 1, name.len()));
    assert_eq!(&found.notes[note.layout.len..][..len], name.as_bytes());
    assert_eq!(found.notes.len(), (note.layout.len + len).next_multiple_of(8));
    let marker = load(&process, "/app.db-journal");
    let (sum, count) = (name.bytes().map(u32::from).sum::<u32>(), name.len() as u32);
    let mut expected = vec![0; 512];
    expected.extend_from_slice(name.as_bytes());
    expected.extend_from_slice(&count.to_be_bytes());
    expected.extend_from_slice(&sum.to_be_bytes());
    expected.extend_from_slice(&[0xd9, 0xd5, 0x05, 0xf9, 0x20, 0xa1, 0x63, 0xd7]);
    assert_eq!(marker, expected);

    process.remove(Path::new(name)).unwrap();
    session.publish(Durability::Disk, false).unwrap();
    let bytes = side(&process, &segment);
    assert!(entry(&bytes, at, chain, "COM1").is_some());
    assert!(!process.exists(Path::new("/app.db-journal")).unwrap());
}

#[test]
fn the_superblock_is_as_specified() {
    let disk = SimDisk::new();
    let (process, store, session, _) = scripted(&disk);
    let status = store.status().unwrap();
    drop(session);
    store.close().unwrap();

    let bytes = side(&process, "store");
    assert_eq!(bytes.len(), 2 * 4096);
    let mut sequences = Vec::new();
    for (n, slot) in bytes.chunks(4096).enumerate() {
        let view = View::new("Superblock slot", slot).sealed();
        assert!(slot[view.layout.len..].iter().all(|&b| b == 0));
        assert_eq!(view.get("sequence") % 2, n as u64, "a sequence number has its slot");
        sequences.push(view.get("sequence"));
    }
    assert_eq!(sequences[0].abs_diff(sequences[1]), 1);

    let block = View::new("Superblock slot", slot(&bytes));
    assert_eq!(block.bytes("lineage"), status.lineage);
    assert_eq!(block.get("durable"), status.head.get());
    assert_eq!(View::new("State", block.bytes("horizon")).get("lsn"), 0);
    let base = View::new("State", block.bytes("base"));
    assert_eq!((base.get("lsn"), base.get("page size")), (status.head.get(), PAGE as u64));
    let plain = load(&process, PATH);
    assert_eq!(base.get("size") as usize * PAGE, plain.len());
    assert_eq!(block.get("rest length") as usize, plain.len());
    assert_eq!(block.bytes("rest")[..8], plain[24..32]);
    assert_eq!(block.bytes("rest")[8..], plain[92..100]);
    assert_eq!(base.get("counter") as u32, u32::from_be_bytes(plain[24..28].try_into().unwrap()));
    assert_eq!(block.get("retention kind"), 0);
    assert_eq!(plain[18..20], [1, 1]);

    let store = open(&process).unwrap();
    for (retention, kind, amount) in [
        (tideline_journal::Retention::Bytes(5), 2, 5),
        (tideline_journal::Retention::Lsns(6), 3, 6),
        (tideline_journal::Retention::Seconds(7), 4, 7),
        (tideline_journal::Retention::None, 1, 0),
    ] {
        store.set_retention(retention).unwrap();
        let bytes = side(&process, "store");
        let block = View::new("Superblock slot", slot(&bytes));
        assert_eq!((block.get("retention kind"), block.get("retention amount")), (kind, amount));
    }
}

/// LESSONS 22: the new file, then its name, then the folder.
#[test]
fn the_superblock_gets_its_name_when_it_is_whole() {
    let disk = SimDisk::new();
    open(&disk.process()).unwrap();
    let steps: Vec<String> = (0..disk.steps()).map(|step| disk.describe(step).unwrap()).collect();
    let at =
        |wanted: &str| steps.iter().position(|step| step == wanted).unwrap_or_else(|| panic!("{wanted}"));
    let renamed = at("rename /app.db-tide/store");
    assert_eq!(steps[renamed - 1], "sync /app.db-tide/store.new");
    assert_eq!(steps[renamed + 1], "sync_dir /app.db-tide");
    assert!(at("sync /app.db-tide/00000001.seg") < renamed, "what it names is there before it");
}

#[test]
fn the_mark_is_as_specified() {
    let disk = SimDisk::new();
    let process = disk.process();
    plain(&process, 4);
    let before = load(&process, PATH);
    let store = open(&process).unwrap();
    assert_eq!(load(&process, PATH), before, "reading marks nothing");
    let mut session = Session::new(Arc::clone(&store)).unwrap();
    let mut model = common::read(&store).unwrap().1;
    let change = Change { fills: vec![(2, 99)], size: 4 };
    commit(&mut session, &mut model, &change, Durability::Process).unwrap();

    let marked = load(&process, PATH);
    let mut expected = before.clone();
    let at = constant("offset of the mark in the base") as usize;
    expected[at] = constant("mark of the base") as u8;
    expected[24..28].copy_from_slice(&8u32.to_be_bytes());
    expected[92..96].copy_from_slice(&marked[92..96]);
    assert!(marked == expected, "the mark, and nothing else");
    assert_ne!(marked[92..96], before[92..96], "a random number");
    let bytes = side(&process, "store");
    let block = View::new("Superblock slot", slot(&bytes));
    assert_eq!(block.bytes("marked")[..8], marked[24..32]);
    assert_eq!(block.bytes("marked")[8..], marked[92..100]);
    drop(session);
    store.close().unwrap();
    let rest = load(&process, PATH);
    assert_eq!(rest[18..20], [1, 1]);
    assert!(u32::from_be_bytes(rest[24..28].try_into().unwrap()) > 8, "above all that were served");
}

#[test]
fn an_empty_base_gets_a_header_with_the_mark() {
    let disk = SimDisk::new();
    let process = disk.process();
    let store = open(&process).unwrap();
    let mut session = Session::new(Arc::clone(&store)).unwrap();
    let change = Change { fills: vec![(1, 3)], size: 2 };
    commit(&mut session, &mut Model::default(), &change, Durability::Process).unwrap();
    let mut expected = vec![0; 512];
    expected[..16].copy_from_slice(b"SQLite format 3\0");
    expected[16..24].copy_from_slice(&[16, 0, 1, 0x54, 0, 64, 32, 32]);
    expected[24..28].copy_from_slice(&1u32.to_be_bytes());
    let marked = load(&process, PATH);
    expected[92..96].copy_from_slice(&marked[92..96]);
    assert!(marked == expected, "the header, and nothing else");
}

#[test]
fn hashes_and_kept_images_are_as_specified() {
    let disk = SimDisk::new();
    let process = disk.process();
    plain(&process, 6);
    let before = load(&process, PATH);
    let store = open(&process).unwrap();
    let mut session = Session::new(Arc::clone(&store)).unwrap();
    let mut model = common::read(&store).unwrap().1;
    for (fills, size) in [(vec![(2, 99), (3, 98)], 6), (vec![(2, 97)], 5)] {
        commit(&mut session, &mut model, &Change { fills, size }, Durability::Process).unwrap();
    }
    store.learn_checksum().unwrap();
    drop(session);
    store.close().unwrap();

    let base = load(&process, PATH);
    let hashes = side(&process, "hashes");
    let header = View::new("Hashes header", &hashes).sealed();
    assert_eq!(header.get("page size"), PAGE as u64);
    let known = hashes[header.layout.len..].chunks(8).map(unsigned);
    for ((page, image), hash) in (1..).zip(base.chunks(PAGE)).zip(known) {
        assert_eq!(hash, hash_of(page, image), "page {page}");
    }

    let kept = side(&process, "00000001.kept");
    let header = View::new("Segment header", &kept).sealed();
    assert_eq!((header.get("kind"), header.get("number")), (2, 1));
    assert_eq!((header.get("first"), header.get("chain")), (3, 0));
    let (found, ..) = entry(&kept, header.layout.len, 0, "COM1").expect("its entry");
    assert_eq!((found.kind, found.first, found.last), (kind("kept"), 1, 3));
    assert_eq!(found.size, 6, "the base as it was");
    let pages: Vec<u32> = found.pages.iter().map(|page| page.0).collect();
    assert_eq!(pages, [1, 2, 3, 6], "what was replaced or cut off");
    for (page, _, image) in &found.pages {
        let from = if *page == 1 { 100 } else { 0 };
        let at = (*page as usize - 1) * PAGE;
        assert_eq!(image.as_ref().unwrap()[from..], before[at + from..at + PAGE], "page {page}");
    }
}

/// Pieces as the second reader sees them: header, identities, rows.
type Piece<'a> = (View<'a>, Vec<(u64, u64)>, Vec<(u32, u64)>);

/// The images that pages had at `lsn`, as the journal has them.
fn past(journal: &Journal, lsn: u64) -> BTreeMap<u32, Vec<u8>> {
    let entries = journal.entries.iter().filter(|entry| entry.last <= lsn);
    let versions = entries.flat_map(|entry| entry.pages.iter().map(|page| (page, entry.page_size)));
    versions
        .map(|((page, _, image), size)| (*page, image.clone().unwrap_or(vec![0; size as usize])))
        .collect()
}

/// Pages and encodings of a piece.
fn piece<'a>(bytes: &'a [u8], past: &BTreeMap<u32, Vec<u8>>) -> Piece<'a> {
    let header = View::new("Shipped header", bytes).sealed();
    let body = &bytes[header.layout.len..];
    assert_eq!(header.get("body") as usize, body.len());
    let (mut rest, crc) = body.split_at(body.len() - 4);
    assert_eq!(unsigned(crc), u64::from(crc32(rest)));
    let mut identities = Vec::new();
    for _ in 0..header.get("identities") {
        let identity = View::new("Shipped identity", rest);
        identities.push((identity.get("lsn"), identity.get("id")));
        rest = &rest[identity.layout.len..];
    }
    let (mut rows, mut previous) = (Vec::new(), Vec::new());
    let page_size = View::new("State", header.bytes("state")).get("page size");
    while !rest.is_empty() {
        let row = View::new("Shipped row", rest);
        let (page, len) = (row.get("page") as u32, row.get("length") as usize);
        rest = &rest[row.layout.len..];
        let mut image = vec![0; page_size as usize];
        let mut unpack = |other: &[u8]| {
            let unpacked =
                zstd_safe::DCtx::create().decompress_using_dict(&mut image[..], &rest[..len], other);
            assert_eq!(unpacked, Ok(page_size as usize));
            assert!((len as u64) < page_size);
        };
        match row.get("encoding") {
            0 => image.copy_from_slice(&rest[..len]),
            1 => assert_eq!(len, 0),
            2 => unpack(&past[&page]),
            3 => unpack(&previous),
            other => panic!("encoding {other}"),
        }
        assert_eq!(row.get("hash"), hash_of(page, &image));
        previous = image;
        rest = &rest[len..];
        rows.push((page, row.get("encoding")));
    }
    assert_eq!(header.get("rows here") as usize, rows.len());
    (header, identities, rows)
}

#[test]
fn a_shipped_entry_is_as_specified() {
    let disk = SimDisk::new();
    let (process, store, _session, model) = scripted(&disk);
    let log = store.log().unwrap();
    let head = store.head().get();

    let blob = store.prepare(Lsn::ZERO, None).unwrap().unwrap();
    let (header, identities, rows) = piece(&blob, &BTreeMap::new());
    assert_eq!(header.bytes("lineage"), store.lineage());
    assert_eq!((header.get("first lsn"), header.get("last lsn")), (1, head));
    assert_eq!((header.get("flags") & 1, header.get("before")), (1, 0), "all pages");
    assert_eq!(identities.iter().map(|id| id.0).collect::<Vec<_>>(), (1..head).collect::<Vec<_>>());
    assert_eq!(rows.iter().map(|row| row.0).collect::<Vec<_>>(), (1..=model.size).collect::<Vec<_>>());
    assert_eq!(header.get("flags") & 4, 4);
    assert_eq!(header.get("checksum after"), store.learn_checksum().unwrap());
    let state = View::new("State", header.bytes("state"));
    assert_eq!((state.get("lsn"), state.get("size")), (head, u64::from(model.size)));

    let after = head - 3;
    let blob = store.prepare(Lsn::new(after), None).unwrap().unwrap();
    let (header, between, rows) = piece(&blob, &past(&walk(&process), after));
    assert!(rows.iter().all(|row| row.0 > 1 || row.1 != 2) && rows.iter().any(|row| row.1 == 2), "{rows:?}");
    assert_eq!((header.get("first lsn"), header.get("last lsn")), (after + 1, head));
    assert_eq!(header.get("flags"), 2 | 4);
    let identity = |lsn: u64| identities.iter().find(|id| id.0 == lsn).unwrap().1;
    assert_eq!(header.get("before"), identity(after));
    assert_eq!(between, [after + 1, after + 2].map(|lsn| (lsn, identity(lsn))));
    assert_eq!(header.get("checksum before"), log[after as usize - 1].checksum.unwrap());
    assert_eq!(header.get("rows") as usize, rows.len());
}

#[test]
fn pieces_and_incoming_are_as_specified() {
    let (disk, elsewhere) = (SimDisk::new(), SimDisk::new());
    let (_process, store, _session, model) = scripted(&disk);
    let pieces: Vec<Vec<u8>> = store.batches(Lsn::ZERO, Some(600)).unwrap().map(Result::unwrap).collect();
    assert!(pieces.len() > 2);
    let (mut before, mut pages) = (0, Vec::new());
    for (n, bytes) in pieces.iter().enumerate() {
        let (header, identities, rows) = piece(bytes, &BTreeMap::new());
        assert_eq!(header.get("rows before"), before);
        assert_eq!(header.get("rows"), u64::from(model.size));
        assert_eq!(header.get("token"), piece(&pieces[0], &BTreeMap::new()).0.get("token"));
        assert_eq!(identities.is_empty(), n > 0, "identities are in the first piece");
        before += rows.len() as u64;
        pages.extend(rows.into_iter().map(|row| row.0));
    }
    assert_eq!(pages, (1..=model.size).collect::<Vec<_>>());

    let process = elsewhere.process();
    let replica = open(&process).unwrap();
    for bytes in &pieces[..2] {
        assert_eq!(replica.receive(bytes).unwrap(), Lsn::ZERO);
    }
    let mut expected = Vec::new();
    for bytes in &pieces[..2] {
        expected.extend_from_slice(&(bytes.len() as u64).to_le_bytes());
        expected.extend_from_slice(bytes);
    }
    assert_eq!(side(&process, "incoming"), expected);
    for bytes in &pieces[2..] {
        replica.receive(bytes).unwrap();
    }
    assert_eq!(replica.head(), store.head());
    assert!(!process.exists(Path::new("/app.db-tide/incoming")).unwrap());
    let received = walk(&process);
    assert_eq!(received.entries.len(), 1);
    assert_eq!(received.entries[0].kind, kind("full"));
}

#[test]
fn what_is_kept_about_remotes_is_as_specified() {
    let disk = SimDisk::new();
    let (process, store, _session, _) = scripted(&disk);
    assert_eq!(store.remotes_kept().unwrap(), None);
    let unsent = [3, 5].map(|lsn| Unsent { behind: Lsn::new(lsn), most: lsn << 20 });
    for (body, count) in [(&b""[..], 0), (b"{}", 1), (&[7; 5000], 2)] {
        store.change_remotes(|_| Ok((body.to_vec(), unsent[..count].to_vec(), ()))).unwrap();
        assert_eq!(store.remotes_kept().unwrap().as_deref(), Some(body));
        let bytes = side(&process, "remotes");
        let header = View::new("Remotes header", &bytes).sealed();
        let behind = &bytes[header.layout.len..];
        assert_eq!(header.get("length"), behind.len() as u64);
        assert_eq!(header.get("body"), u64::from(crc32(behind)));
        assert_eq!(unsigned(&behind[..8]), count as u64);
        let mut rest = &behind[8..];
        for one in &unsent[..count] {
            let view = View::new("Unsent history", rest);
            assert_eq!((view.get("behind"), view.get("most")), (one.behind.get(), one.most));
            rest = &rest[view.layout.len..];
        }
        assert_eq!(rest, body);
    }
}

#[test]
fn files_of_a_lazy_clone_are_as_specified() {
    let process = SimDisk::new().process();
    let state = State { lsn: Lsn::new(5), id: 6, page_size: PAGE as u32, size: 9, ..State::default() };
    let on: Arc<dyn Disk> = Arc::clone(&process) as Arc<dyn Disk>;
    let path = Path::new(PATH);
    drop(Store::begin_lazy(on, path, common::options(), [7; 16], state, Some(8), b"there").unwrap());
    let bytes = side(&process, "source");
    let header = View::new("Source header", &bytes).sealed();
    assert_eq!(header.get("length"), 5);
    assert_eq!(header.get("body"), u64::from(crc32(b"there")));
    assert_eq!(&bytes[header.layout.len..], b"there");

    let bytes = side(&process, "present");
    let header = View::new("Present header", &bytes).sealed();
    let fields = ["lsn", "page size", "size", "flags", "checksum"].map(|name| header.get(name));
    assert_eq!(fields, [5, PAGE as u64, 9, 1, 8]);
    assert_eq!(bytes[header.layout.len..], [0; 2 * 9]);
    let superblock = side(&process, "store");
    let block = View::new("Superblock slot", slot(&superblock));
    assert_eq!((block.get("lazy"), block.get("durable"), block.get("history")), (1, 5, 5));
    assert_eq!(load(&process, PATH)[16..24], [16, 0, 1, 0x54, 0, 64, 32, 32]);
}

#[test]
fn tags_of_a_lazy_clone_are_as_specified() {
    struct Sevens;
    impl PageSource for Sevens {
        fn read(&self, page: u32, to: &mut [u8]) -> Result<()> {
            to.copy_from_slice(&common::image(page, 7, 9, 3));
            Ok(())
        }
        fn prefetch(&self, _pages: &[u32]) -> Result<()> {
            Ok(())
        }
    }
    impl Sources for Sevens {
        fn open(&self, _store: &Store, _description: &[u8]) -> Result<Arc<dyn PageSource>> {
            Ok(Arc::new(Sevens))
        }
    }
    let process = SimDisk::new().process();
    let state = State { lsn: Lsn::new(5), id: 6, page_size: PAGE as u32, size: 9, ..State::default() };
    let on: Arc<dyn Disk> = Arc::clone(&process) as Arc<dyn Disk>;
    let source: Option<Arc<dyn Sources>> = Some(Arc::new(Sevens));
    let options = Options { source, fetch_bytes: 2 * PAGE, ..common::options() };
    let store = Store::begin_lazy(on, Path::new(PATH), options, [7; 16], state, None, b"").unwrap();
    let mut session = Session::new(Arc::clone(&store)).unwrap();
    let mut model = common::read(&store).unwrap().1;
    commit(&mut session, &mut model, &Change { fills: vec![(6, 5)], size: 12 }, Durability::Process).unwrap();
    store.fold().unwrap();
    store.hydrate(|_, _| false).unwrap();
    let bytes = side(&process, "present");
    let header = View::new("Present header", &bytes).sealed();
    assert_eq!((header.get("flags"), bytes.len()), (0, header.layout.len + 2 * 12));
    let set = constant("bits that are set in each tag of a page that is present");
    let hashes = side(&process, "hashes");
    let base = load(&process, PATH);
    for (page, tag) in (1u64..).zip(bytes[header.layout.len..].chunks(2)) {
        // The commit wrote page 1, 6 and the new ones; then twice two were fetched.
        let here = [1, 2, 3, 4, 5, 6, 10, 11, 12].contains(&page);
        let expected = if here { (mix(page) & 0xffff) | set } else { 0 };
        assert_eq!(unsigned(tag), expected, "page {page}");
        let image = &base[(page as usize - 1) * PAGE..][..PAGE];
        let known = unsigned(&hashes[64 + 8 * (page as usize - 1)..][..8]);
        assert_eq!(known, if here { hash_of(page as u32, image) } else { 0 }, "page {page}");
    }
    let block = side(&process, "store");
    let block = View::new("Superblock slot", slot(&block));
    let base = View::new("State", block.bytes("base"));
    assert_eq!((base.get("lsn"), block.get("history")), (6, 6));
    store.hydrate(|_, _| true).unwrap();
    for slot in side(&process, "store").chunks(4096) {
        assert_eq!(View::new("Superblock slot", slot).sealed().get("lazy"), 0);
    }
}

#[test]
fn files_have_the_names_that_are_listed() {
    let disk = SimDisk::new();
    let process = disk.process();
    plain(&process, 6);
    let store = open(&process).unwrap();
    let mut session = Session::new(Arc::clone(&store)).unwrap();
    let mut model = common::read(&store).unwrap().1;
    script(&mut session, &mut model);
    store.learn_checksum().unwrap();
    store.fold().unwrap();
    store.change_remotes(|_| Ok((b"{}".to_vec(), Vec::new(), ()))).unwrap();
    let kept = process.list(Path::new(SIDE)).unwrap();
    store.set_retention(tideline_journal::Retention::None).unwrap();
    let mut rng = Rng(5);
    for _ in 0..60 {
        let change = model.change(&mut rng);
        common::commit(&mut session, &mut model, &change, Durability::Process).unwrap();
    }
    let listed: Vec<&str> = table("## Files").iter().map(|row| quoted(row[0])).collect();
    let mut seen = std::collections::BTreeSet::new();
    for name in kept.into_iter().chain(process.list(Path::new(SIDE)).unwrap()) {
        let pattern = match name.split_once('.') {
            Some((digits, spare)) if spare.ends_with(".spare") => {
                assert!((digits.len(), spare.len()) == (8, 22), "{name}");
                "XXXXXXXX.LLLLLLLLLLLLLLLL.spare".to_owned()
            }
            Some((digits, kind @ ("seg" | "kept"))) => {
                assert!(digits.len() == 8 && digits.bytes().all(|b| b.is_ascii_hexdigit()), "{name}");
                format!("XXXXXXXX.{kind}")
            }
            _ => name.clone(),
        };
        assert!(listed.contains(&pattern.as_str()), "{name} isn't in FORMAT.md");
        seen.insert(pattern);
    }
    for pattern in listed {
        // Those of a lazy clone have a test of their own.
        let lazy = ["source", "source.new", "present"].contains(&pattern);
        let passing =
            lazy || ["store.new", "XXXXXXXX.kept.new", "incoming", "remotes.new"].contains(&pattern);
        assert!(passing || seen.contains(pattern), "nothing is named {pattern}");
    }
}

/// It is no format, but what is said of it should be true.
#[test]
fn words_of_the_control_file_are_where_the_table_says() {
    let disk = SimDisk::new();
    let (process, store, _session, _) = scripted(&disk);
    store.fold().unwrap();
    let bytes = side(&process, "control");
    let word = |name: &str| {
        let row = table("## Control file").into_iter().find(|row| row[1] == name).expect("a word");
        unsigned(&bytes[8 * number(row[0]) as usize..][..8])
    };
    assert_eq!(word("magic").to_le_bytes(), *b"TIDECTL1");
    let head = store.head().get();
    assert_eq!(
        [word("A"), word("D"), word("BASE"), word("TARGET"), word("HORIZON")],
        [head, head, head, head, 0]
    );
    assert_eq!([word("W"), word("F"), word("poison"), word("PENDING")], [0; 4]);
    assert_eq!((word("MARKED"), word("CELLS")), (1, 1));
    assert_eq!(word("WRITER_LAST") & 0xffff, 1, "the first slot");
    assert_eq!((word("WRITER_LAST") >> 16, word("slots")), (1, 1), "its generation");
    assert_ne!(word("epoch"), 0);
    let (published, journal) = (word("P"), walk(&process));
    assert!(published <= head);
    assert_eq!(journal.entries.len() as u64, head);
}
