//! Remotes for the `functions` target: folders that others have pushed to, what happens to them, and what lies there.
//!
//! No URL leads out of the target's own folder, and none to a network.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rusqlite::Connection;

use crate::calls::{OPTIONS, REFUSED};
use crate::databases::{Fixture, STATEMENTS, Start, content, lsn, open, open_at, path, put, take};
use crate::place;
use crate::value::pick;

/// The key of the encrypted one.
const KEY: &str = "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff\n";
/// Remotes that are exchanged for each other. All but `source` are changed: that is what the lazy clone is read from.
const NAMES: [&str; 7] = ["same", "ahead", "apart", "sealed", "empty", "new", "source"];
const CHANGED: &[&str] = NAMES.split_at(6).0;

/// Objects by their paths below a remote's folder.
type Objects = BTreeMap<PathBuf, Vec<u8>>;

/// Remotes by their names.
pub(crate) type Remotes = BTreeMap<&'static str, Objects>;

/// What some database had at an LSN.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Known {
    pub lineage: String,
    pub lsn: i64,
    pub content: String,
}

impl Known {
    /// What this one has now.
    pub fn of(db: &Connection) -> Known {
        let lineage = db
            .query_row("SELECT tide_status() ->> '$.lineage'", (), |row| row.get(0))
            .unwrap_or_else(|e| panic!("{e}: there is a store"));
        Known { lineage, lsn: lsn(db), content: content(db) }
    }

    /// Whether somebody had this; what nobody is known to have had at that LSN may be anything.
    pub fn fits(&self, known: &[Known]) -> bool {
        let mut same =
            known.iter().filter(|one| (&one.lineage, one.lsn) == (&self.lineage, self.lsn)).peekable();
        same.peek().is_none() || same.any(|one| one == self)
    }
}

fn above() -> PathBuf {
    path("remotes")
}

/// Where a remote is. The letter keeps `..` from meaning something.
fn folder(name: &str) -> PathBuf {
    above().join(format!("r{name}"))
}

/// The URL of what a text names.
pub(crate) fn url(name: &[u8]) -> Vec<u8> {
    [b"file://", above().as_os_str().as_encoded_bytes(), b"/r", name].concat()
}

/// Makes a URL one that leads into the folder, but for those that are refused at sight.
pub(crate) fn inside_url(text: &mut Vec<u8>) {
    if REFUSED.iter().any(|refused| refused.as_bytes() == *text) {
        return;
    }
    for at in 0..text.len() {
        // What is left out of URLs would hide the next.
        let escaped = text[at] == b'%' && text[at + 1..].to_ascii_lowercase().starts_with(b"2f");
        if matches!(text[at], b'/' | b'\\' | b'\t' | b'\n' | b'\r') || escaped {
            text[at] = b'_';
        }
    }
    // Two words go into a file, where no folder can be.
    if text.starts_with(b"file_") {
        text[4] = b'/';
    }
    *text = url(text);
}

/// True if these options begin what comes again by itself.
pub(crate) fn keeps_on(text: &[u8]) -> bool {
    text.windows(7).any(|part| part == b"\"every\"") && !text.ends_with(b"null}")
}

/// Makes options ones that lead nowhere else, and begin nothing that comes again while an input runs. Without a
/// backslash they say plainly what they say.
pub(crate) fn inside_options(text: &mut Vec<u8>) {
    if let Some(word) = OPTIONS.iter().find(|word| word.as_bytes() == *text) {
        let folder = place::folder().to_str().expect("a name of ours");
        *text = word.replace("FOLDER", folder).into_bytes();
        return;
    }
    text.iter_mut().filter(|byte| matches!(byte, b'/' | b'\\')).for_each(|byte| *byte = b'_');
    if keeps_on(text) {
        text.clear();
    }
}

/// Puts the remotes there, and keys.
pub(crate) fn put_remotes(remotes: &Remotes) {
    drop(fs::remove_dir_all(above()));
    for (name, objects) in remotes {
        put_remote(name, objects);
    }
    fs::write(folder("file"), b"no folder").expect("there is room");
    fs::write(path("key"), KEY).expect("there is room");
    fs::write(path("other"), KEY.replace('0', "1")).expect("there is room");
}

fn put_remote(name: &str, objects: &Objects) {
    drop(fs::remove_dir_all(folder(name)));
    fs::create_dir_all(folder(name)).expect("there is room");
    for (at, bytes) in objects {
        let at = folder(name).join(at);
        fs::create_dir_all(at.parent().expect("a folder")).expect("there is room");
        fs::write(at, bytes).expect("there is room");
    }
}

/// What lies at a remote.
fn take_remote(name: &str) -> Objects {
    let mut objects = Objects::new();
    let mut folders = vec![folder(name)];
    while let Some(at) = folders.pop() {
        for entry in fs::read_dir(at).into_iter().flatten().flatten() {
            if entry.path().is_dir() {
                folders.push(entry.path());
            } else if let Ok(bytes) = fs::read(entry.path()) {
                let below = entry.path().strip_prefix(folder(name)).expect("it is below").to_owned();
                objects.insert(below, bytes);
            }
        }
    }
    objects
}

/// Lets one remote be as another was at first: an older copy, a newer one, another chain.
pub(crate) fn exchange(remotes: &Remotes, to: u8, from: u8) {
    let (to, from) = (pick::<&str>(CHANGED, to), pick::<&str>(&NAMES, from));
    put_remote(to, remotes.get(from).unwrap_or(&Objects::new()));
}

/// Changes a byte of an object, or takes it away, or cuts it.
pub(crate) fn harm(remote: u8, object: u8, at: u16, mask: u8) {
    let name = pick::<&str>(CHANGED, remote);
    let mut objects: Vec<(PathBuf, Vec<u8>)> = take_remote(name).into_iter().collect();
    if objects.is_empty() {
        return;
    }
    // Most names are hashes of what has the time in it; lengths are the same each time.
    objects.sort_by_key(|(at, bytes)| (at.parent().map(Path::to_owned), bytes.len()));
    let (name, mut bytes) = (folder(name).join(&pick(&objects, object).0), pick(&objects, object).1.clone());
    let at = usize::from(at) % bytes.len().max(1);
    match mask {
        0 => return drop(fs::remove_file(name)),
        255 => bytes.truncate(at),
        mask => bytes.iter_mut().skip(at).take(1).for_each(|byte| *byte ^= mask),
    }
    drop(fs::write(name, bytes));
}

/// Waits until what was begun to come again has come the first time: the next is far away.
pub(crate) fn wait_for_keeper(db: &Connection, name: &str, schema: &str) {
    let sql = "SELECT next_try IS NOT NULL FROM tide_remotes(?2) WHERE name = ?1";
    wait(|| db.query_row(sql, [name, schema], |row| row.get(0)).unwrap_or_else(|e| panic!("{e}: {name}")));
}

/// Waits until no thread of the library is left, of which something would look like a leak: all stores are closed.
pub(crate) fn wait_for_threads() {
    let ours = |entry: fs::DirEntry| {
        fs::read_to_string(entry.path().join("comm")).is_ok_and(|name| name.starts_with("tideline"))
    };
    wait(|| !fs::read_dir("/proc/self/task").into_iter().flatten().flatten().any(ours));
}

fn wait(done: impl Fn() -> bool) {
    let begun = Instant::now();
    while !done() {
        assert!(begun.elapsed() < Duration::from_secs(20), "it comes to an end");
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Checks a clone that was made, of a database that somebody had; or, where a remote was harmed, that it says so.
pub(crate) fn check_clone(at: &[u8], lsn: i64, known: &[Known], harmed: bool) {
    let at: String = at.iter().map(|byte| format!("%{byte:02x}")).collect();
    let db = match open_at(&at) {
        Err(_) if harmed => return,
        opened => opened.unwrap_or_else(|e| panic!("{e}: a clone opens")),
    };
    let first = |sql: &str| db.query_row(sql, (), |row| row.get::<_, String>(0));
    match first("PRAGMA integrity_check") {
        Err(_) if harmed => return,
        found => assert_eq!(found.unwrap_or_else(|e| panic!("{e}: a clone can be read")), "ok"),
    }
    let now = Known::of(&db);
    assert_eq!(now.lsn, lsn, "a clone has the LSN that was answered");
    assert!(now.fits(known), "{now:?} isn't what was there");
    let wrong = first("SELECT message FROM tide_verify");
    assert_eq!(wrong, Err(rusqlite::Error::QueryReturnedNoRows));
}

/// Lets others push: a replica that is behind, one that has commits of its own, one that was cloned, another database.
pub(crate) fn prepare(fixture: &mut Fixture) {
    fs::create_dir_all(above()).expect("there is room");
    fs::write(path("key"), KEY).expect("there is room");
    let push = |db: &Connection, name: &str, options: &str, known: &mut Vec<Known>| {
        let at = String::from_utf8(url(name.as_bytes())).expect("a name of ours");
        let sql = "SELECT tide_remote('origin', ?1, ?2)";
        db.query_row(sql, (at, options), |_| Ok(())).expect("a remote");
        db.query_row("SELECT tide_push()", (), |_| Ok(())).expect("it is pushed");
        known.push(Known::of(db));
    };
    let clone = |from: &str, to: &str| {
        let db = Connection::open_in_memory().expect("it opens");
        let at = String::from_utf8(url(from.as_bytes())).expect("a name of ours");
        let to = path(to);
        let sql = "SELECT tide_clone(?1, ?2)";
        db.query_row(sql, (at, to.to_str()), |_| Ok(())).expect("it is cloned");
    };
    let remove = |name: &str| {
        drop(fs::remove_file(path(name)));
        drop(fs::remove_dir_all(tideline_journal::side_folder(&path(name))));
    };
    let mut remotes = Remotes::new();
    let known = &mut fixture.known;
    let begin = |start: &Start| {
        put(&path("main.db"), &start.files);
        open("main.db").expect("it opens")
    };
    let end = |db: Connection| {
        let (lsn, content) = (lsn(&db), content(&db));
        db.close().expect("it closes");
        Start { files: take(&path("main.db")), lsn, content }
    };

    let db = begin(&fixture.starts[1]);
    push(&db, "same", "{}", known);
    db.execute_batch(STATEMENTS[1]).expect("a commit");
    push(&db, "same", "{}", known);
    let pushed = end(db);
    remotes.insert("same", take_remote("same"));

    let db = begin(&pushed);
    db.execute_batch(STATEMENTS[3]).expect("a commit");
    let own = end(db);

    for (name, statements) in [("ahead", [1, 3]), ("apart", [4, 2])] {
        put_remote(name, &remotes["same"]);
        clone(name, "other.db");
        let db = open("other.db").expect("it opens");
        for statement in statements {
            db.execute_batch(STATEMENTS[statement]).expect("a commit");
            push(&db, name, "{}", known);
        }
        db.close().expect("it closes");
        remotes.insert(name, take_remote(name));
        remove("other.db");
    }

    let db = begin(&fixture.starts[1]);
    let sealed = format!("{{\"key_file\":{:?}}}", path("key"));
    push(&db, "sealed", &sealed, known);
    end(db);
    remotes.insert("sealed", take_remote("sealed"));
    remotes.insert("empty", Objects::new());

    // One that lacks most pages, and what was pushed since.
    let db = begin(&fixture.starts[2]);
    push(&db, "source", "{}", known);
    let (lsn, content) = (lsn(&db), content(&db));
    clone("source", "other.db");
    let lazy = Start { files: take(&path("other.db")), lsn, content };
    db.execute_batch(STATEMENTS[2]).expect("a commit");
    push(&db, "source", "{}", known);
    db.close().expect("it closes");
    remotes.insert("source", take_remote("source"));
    remove("other.db");

    fixture.starts.extend([pushed, own, lazy]);
    fixture.remotes = remotes;
}
