//! Bit rot, through the built library: a byte of a store's files changes while nobody has it open. What becomes of it
//! on a simulated disk, a great many times, is in `journal/tests/rot.rs`.

use tideline_tests::{Dice, Host, Scratch, plain_store, python};

/// Changes a byte in the middle of a page of `a.db`.
fn spoil(scratch: &Scratch, page: usize) {
    let mut bytes = scratch.read("a.db");
    bytes[(page - 1) * 4096 + 2000] ^= 0x10;
    scratch.write("a.db", bytes);
}

#[test]
fn a_page_of_the_base_that_the_journal_still_has_is_written_again() {
    Host::each(|host, scratch| {
        host.ok(
            scratch,
            "a.db",
            "CREATE TABLE t(id INTEGER PRIMARY KEY, v); CREATE TABLE u(v);
             WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 300)
                INSERT INTO t SELECT i, printf('%0200d', i) FROM n;",
        );
        for page in [1, 2, 5] {
            spoil(scratch, page);
            let verify = "SELECT severity, file, page, object FROM tide_verify;";
            // Without the first page nothing could be asked, so it is written again by whoever opens the database.
            let found = if page == 1 { String::new() } else { format!("warning|a.db|{page}|t\n") };
            assert_eq!(host.ok(scratch, "a.db", verify), found, "on {host:?}");
            let sums = "SELECT count(*), sum(v) FROM t; PRAGMA integrity_check;";
            assert_eq!(host.ok(scratch, "a.db", verify), "", "on {host:?}");
            assert_eq!(host.ok(scratch, "a.db", sums), "300|45150\nok\n");
            assert_eq!(host.stock(scratch, "a.db", sums), "300|45150\nok\n");
        }
    });
}

#[test]
fn a_hash_that_changed_is_noted_again_and_no_page_is_lost() {
    Host::each(|host, scratch| {
        host.ok(scratch, "a.db", "CREATE TABLE t(v); INSERT INTO t VALUES ('one');");
        let mut hashes = scratch.read("a.db-tide/hashes");
        hashes[64 + 8] ^= 1;
        scratch.write("a.db-tide/hashes", hashes);
        assert!(host.error(scratch, "a.db", "SELECT v FROM t;").contains("disk I/O error"));
        let found = host.ok(scratch, "a.db", "SELECT severity, file, page, object FROM tide_verify;");
        assert_eq!(found, "warning|a.db-tide/hashes|2|t\n");
        assert_eq!(
            host.ok(scratch, "a.db", "SELECT v FROM t; SELECT count(*) FROM tide_verify;"),
            "one\n0\n"
        );
    });
}

/// Spoils each page of an adopted database in turn, whose first images are nowhere else. SQLite's own table of its pages
/// says what each belongs to.
const EACH_PAGE: &str = r#"
from tide import *
plain = sqlite3.connect("a.db", isolation_level=None)
plain.executescript("""
    DROP TABLE t;
    CREATE TABLE rows(id INTEGER PRIMARY KEY, v); CREATE INDEX words ON rows(v);
    CREATE TABLE keys(k PRIMARY KEY, v) WITHOUT ROWID; CREATE TABLE gone(v);
    WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 900)
        INSERT INTO rows SELECT i, printf('%040d', i) FROM n;
    INSERT INTO rows VALUES (1000, hex(randomblob(9000)));
    INSERT INTO keys SELECT hex(randomblob(40)) || id, v FROM rows;
    INSERT INTO gone SELECT zeroblob(3000) FROM rows LIMIT 9; DROP TABLE gone;
""")
owners = dict(plain.execute("SELECT pageno, name FROM dbstat"))
count = one(plain, "PRAGMA page_count")
plain.close()
db = connect("a.db")
assert db.execute("SELECT * FROM tide_verify").fetchall() == []
db.close()
base = open("a.db", "rb").read()
found = set()
for page in range(2, count + 1):
    at = (page - 1) * 4096 + 2000
    with open("a.db", "r+b") as file:
        file.seek(at)
        file.write(bytes([base[at] ^ 4]))
    db = connect("a.db")
    rows = db.execute("SELECT severity, file, offset, page, object, message FROM tide_verify").fetchall()
    wanted = owners.get(page, "(free)")
    assert [row[:5] for row in rows] == [("error", "a.db", (page - 1) * 4096, page, wanted)], (page, wanted, rows)
    assert "restore from a backup" in rows[0][5]
    found.add(wanted)
    db.close()
    with open("a.db", "r+b") as file:
        file.seek(at)
        file.write(base[at:at + 1])
assert found == {"rows", "words", "keys", "(free)", *owners.values()} - {"sqlite_schema"}, found
"#;

#[test]
fn what_cannot_be_mended_is_reported_with_the_table_it_belongs_to() {
    python(&plain_store(), EACH_PAGE, &[]).ok();
}

/// Spoils each page of a database that a remote has as well, in runs and in what was pushed behind them, once the
/// journal has it no more.
const FROM_A_REMOTE: &str = r#"
from tide import *
import pathlib

URL = pathlib.Path("there").absolute().as_uri()
db = connect("a.db")
db.execute("CREATE TABLE rows(id INTEGER PRIMARY KEY, v)")
db.execute("CREATE INDEX words ON rows(v)")
db.execute("INSERT INTO rows SELECT value, hex(randomblob(100)) FROM json_each(?)", (json.dumps(list(range(400))),))
one(db, "SELECT tide_remote('origin', ?)", URL)
one(db, "SELECT tide_push()")
for n in range(6):
    db.execute("UPDATE rows SET v = hex(randomblob(100)) WHERE id % 90 = ?", (n,))
    one(db, "SELECT tide_push()")
one(db, "SELECT tide_retain('none')")
one(db, "SELECT tide_fold()")
rows, count = db.execute("SELECT * FROM rows").fetchall(), one(db, "PRAGMA page_count")
db.close()
base = open("a.db", "rb").read()
assert len(base) == count * 4096 and count > 20

def spoil(path, at):
    with open(path, "r+b") as file:
        file.seek(at)
        byte = file.read(1)[0]
        file.seek(at)
        file.write(bytes([byte ^ 4]))

def verify(db):
    return db.execute("SELECT severity, file, page, message FROM tide_verify").fetchall()

for page in range(1, count + 1):
    spoil("a.db", (page - 1) * 4096 + 2000)
    db = connect("a.db")
    found = verify(db)
    # Without the first page nothing can be asked, so whoever opens the database mends it.
    assert [row[:3] for row in found] == ([] if page == 1 else [("warning", "a.db", page)]), found
    assert page == 1 or "from the remote origin" in found[0][3], found
    assert verify(db) == []
    assert db.execute("SELECT * FROM rows").fetchall() == rows
    db.close()
    assert open("a.db", "rb").read() == base, page

# Nobody can be asked; nothing is lost by that.
os.rename("there", "away")
spoil("a.db", 7 * 4096 + 2000)
db = connect("a.db")
[(severity, _, page, message)] = verify(db)
assert (severity, page) == ("error", 8) and "OFFLINE" in message, message
os.rename("away", "there")
assert [row[0] for row in verify(db)] == ["warning"] and verify(db) == []

# An image in the journal, which is the newest there is.
db.execute("UPDATE rows SET v = hex(randomblob(100)) WHERE id = 399")
one(db, "SELECT tide_push()")
one(db, "SELECT tide_pull()")
rows = db.execute("SELECT * FROM rows").fetchall()
head = one(db, "SELECT tide_lsn()")

def image():
    """Where an image of the newest entry is: behind its header."""
    for name in os.listdir("a.db-tide"):
        data = open(os.path.join("a.db-tide", name), "rb").read() if name.endswith(".seg") else b""
        for at in range(128, len(data), 64):
            if data[at:at + 6] == b"ENT1\x01\0" and int.from_bytes(data[at + 16:at + 24], "little") == head:
                return name, at + 128

segment, at = image()
spoil(os.path.join("a.db-tide", segment), at + 1000)
found = verify(db)
assert [(row[0], row[1]) for row in found] == [("warning", f"a.db-tide/{segment}")], found
assert "from the remote origin" in found[0][3], found
assert verify(db) == [] and db.execute("SELECT * FROM rows").fetchall() == rows
db.close()
plain = sqlite3.connect("a.db")
assert plain.execute("SELECT * FROM rows").fetchall() == rows
# Nothing of it stays there.
leases = "there/lease"
assert not os.path.exists(leases) or os.listdir(leases) == []
"#;

#[test]
fn what_the_journal_has_not_got_is_written_again_from_a_remote() {
    python(&Scratch::new(), FROM_A_REMOTE, &[]).ok();
}

/// Bytes that a seed draws, in stores at rest and left behind.
const FLIPS: &str = r#"
import random
import shutil
import signal
from tide import *
seed, flips = map(int, sys.argv[1:])
dice = random.Random(seed)
load()

def work(state):
    db = connect("a.db")
    if state == "compacted":
        db.execute("PRAGMA page_size = 1024")
    db.execute("CREATE TABLE t(id INTEGER PRIMARY KEY, v)")
    db.execute("CREATE INDEX u ON t(v)")
    for n in range(40):
        rows = [(dice.randrange(300), random.Random(n).randbytes(dice.randrange(900))) for _ in range(5)]
        db.execute("BEGIN")
        db.executemany("REPLACE INTO t VALUES (?, ?)", rows)
        db.execute("COMMIT")
        if n == 20:
            db.execute("SELECT tide_fold()").fetchall()
        if n == 25 and state == "compacted":
            db.execute("SELECT tide_compact()").fetchall()
    content = db.execute("SELECT * FROM t ORDER BY id").fetchall(), one(db, "SELECT tide_lsn()")
    if state != "left":
        db.close()
    return content

def begin(state):
    """A store in that state, in the folder of that name; gives the pages that commits left."""
    os.mkdir(state)
    told, tell = os.pipe()
    child = os.fork()
    if child == 0:
        os.chdir(state)
        rows, lsn = work(state)
        os.write(tell, json.dumps([[[row, value.hex()] for row, value in rows], lsn]).encode())
        os.close(tell)
        os.kill(os.getpid(), signal.SIGKILL)
    os.close(tell)
    with open(told) as pipe:
        content = json.load(pipe)
    os.waitpid(child, 0)
    return content

def look(content):
    """What a child sees."""
    try:
        db = connect("a.db", timeout=1.0)
    except sqlite3.Error as error:
        assert "tideline: " in str(error) or error.sqlite_errorname == "SQLITE_BUSY", repr(error)
        return "refused"
    try:
        rows = [[row, value.hex()] for row, value in db.execute("SELECT * FROM t ORDER BY id")]
        ordered = db.execute("SELECT id FROM t INDEXED BY u WHERE v > x'' ORDER BY v").fetchall()
    except sqlite3.Error as error:
        code = error.sqlite_errorname
        assert code.startswith("SQLITE_IOERR"), f"{code}: {error}"
        findings = db.execute("SELECT * FROM tide_verify").fetchall()
        assert findings, error
        return "mended" if all(row[0] == "warning" for row in findings) else "touched"
    findings = db.execute("SELECT * FROM tide_verify").fetchall()
    lsn = one(db, "SELECT tide_lsn()")
    if lsn != content[1]:
        external = db.execute("SELECT origin FROM tide_log WHERE last_lsn = ?", (lsn,)).fetchone() == ("external",)
        assert external or lsn < content[1], (lsn, content[1])
        if not external:
            return "shortened"
    assert rows == content[0] and len(ordered) == len([1 for _, value in rows if value]), "a wrong page was served"
    if lsn != content[1]:
        return "external"
    return "verified" if findings else "harmless"

contents = {state: begin(state) for state in ["left", "rest", "compacted"]}
tried = {"flips": 0}
for _ in range(flips):
    state = dice.choice(list(contents))
    shutil.copytree(state, "run")
    os.chdir("run")
    paths = ["a.db", *sorted(f"a.db-tide/{name}" for name in os.listdir("a.db-tide"))]
    path = dice.choice([path for path in paths if os.path.getsize(path)])
    # Segments are reserved far beyond what is written.
    at, mask = dice.randrange(min(os.path.getsize(path), 300_000)), dice.randrange(1, 256)
    with open(path, "r+b") as file:
        file.seek(at)
        byte = file.read(1)[0]
        file.seek(at)
        file.write(bytes([byte ^ mask]))
    told, tell = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            signal.alarm(60)
            os.write(tell, look(contents[state]).encode())
            os._exit(0)
        except BaseException as fault:
            os.write(tell, repr(fault).encode())
        os._exit(1)
    os.close(tell)
    with open(told) as pipe:
        became = pipe.read()
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert status == 0, f"seed {seed}, {state}, byte {at} of {path} ^ {mask}: {status}: {became}"
    tried["flips"] += 1
    tried[became] = tried.get(became, 0) + 1
    os.chdir("..")
    shutil.rmtree("run")
print("tried:", *(f"{what}={count}" for what, count in sorted(tried.items())))
"#;

fn flips(host: Host, seed: u64, count: u32) {
    let answer = host.python(&Scratch::new(), FLIPS, &[&seed.to_string(), &count.to_string()]);
    println!("{}", answer.ok());
}

#[test]
fn a_byte_that_changes_is_found_or_means_nothing() {
    flips(Host::System, 0, 60);
}

#[test]
#[ignore = "takes minutes; `cargo xtask soak rot`"]
fn soak() {
    let mut dice = Dice::new("rot");
    for host in [Host::System, Host::Bundled] {
        flips(host, dice.draw() >> 1, 400);
    }
}
