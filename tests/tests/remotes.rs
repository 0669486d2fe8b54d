//! Remotes through SQL: pushing to a folder or a bucket, cloning from it, following, and what is refused.

use tideline_tests::{Bucket, Host, Scratch, crash_library, python};

/// A source with a remote of the kind that is asked for, and helpers.
const PREPARED: &str = r#"
from tide import *
import pathlib

KIND = sys.argv[1]
if KIND == "s3":
    os.environ["AWS_ENDPOINT_URL"] = os.environ["TIDELINE_S3_ENDPOINT"]

def place(name):
    """URL of a place that this test alone has."""
    return pathlib.Path(name).absolute().as_uri() if KIND == "file" else bucket()[0]

URL = place("there")

def lsn(db):
    return one(db, "SELECT tide_lsn()")

def rows(db):
    return db.execute("SELECT * FROM t ORDER BY id").fetchall()

def push(db):
    return one(db, "SELECT tide_push()")

def pull(db):
    return one(db, "SELECT tide_pull()")

def listed(db, columns, name="origin"):
    return db.execute(f"SELECT {columns} FROM tide_remotes WHERE name = ?", (name,)).fetchone()

def denies(db, code, statement, *values):
    return refused(code, lambda: db.execute(statement, values).fetchall())

source = connect("source.db")
source.execute("CREATE TABLE t(id INTEGER PRIMARY KEY, v)")
source.execute("INSERT INTO t VALUES (1, 'one')")
assert one(source, "SELECT tide_remote('origin', ?)", URL) == "origin"
"#;

/// The kinds of remotes that this machine can have.
fn kinds() -> &'static [&'static str] {
    if Bucket::get().is_some() { &["file", "s3"] } else { &["file"] }
}

/// Runs a script with a folder as its remote.
#[track_caller]
fn run(script: &str) {
    python(&Scratch::new(), &format!("{PREPARED}{script}"), &["file"]).ok();
}

/// Runs a script with a remote of each kind.
#[track_caller]
fn run_everywhere(script: &str) {
    for kind in kinds() {
        println!("on {kind}");
        python(&Scratch::new(), &format!("{PREPARED}{script}"), &[kind]).ok();
    }
}

#[test]
fn what_is_pushed_is_cloned_and_followed_in_every_host() {
    let script = r#"
assert listed(source, "url, kind, head, behind, ahead, last_success, next_try") == (URL, KIND, None, 0, 2, None, None)
assert push(source) == 2
before = listed(source, "requests")[0]
source.execute("INSERT INTO t SELECT value, hex(zeroblob(100)) FROM json_each(?)", (json.dumps(list(range(2, 900))),))
assert listed(source, "head, behind, ahead") == (2, 0, 1)
assert push(source) == 3
# A folder may be another one by now; a bucket isn't looked at again so soon.
assert listed(source, "requests")[0] - before == (4 if URL.startswith("file:") else 2)
assert push(source) == 3

anywhere = sqlite3.connect(":memory:", isolation_level=None)
path = os.path.abspath("copy.db")
assert anywhere.execute("SELECT tide_clone(?, ?)", (URL, path)).fetchone() == (3,)
copy = connect("copy.db")
assert rows(copy) == rows(source) and lsn(copy) == 3
assert listed(copy, "url, head, behind, ahead") == (URL, 3, 0, 0)
lineage = "SELECT json_extract(tide_status(), '$.lineage')"
assert one(copy, lineage) == one(source, lineage)

source.execute("DELETE FROM t WHERE id > 500")
push(source)
assert pull(copy) == 4 and rows(copy) == rows(source)
copy.execute("INSERT INTO t VALUES (1000, 'from the copy')")
assert one(copy, "SELECT tide_sync()") == 5
assert one(source, "SELECT tide_sync('origin')") == 5
assert rows(copy) == rows(source)
assert one(source, "SELECT json_extract(tide_status(), '$.remotes')") == '[{"behind":0,"lsn":5,"name":"origin","needs_full":false}]'
checksum = "SELECT checksum FROM tide_log ORDER BY last_lsn DESC LIMIT 1"
assert one(source, checksum) == one(copy, checksum) is not None
one(copy, "SELECT tide_hydrate()")
for db in source, copy:
    assert one(db, "PRAGMA integrity_check") == "ok"
    assert db.execute("SELECT * FROM tide_verify").fetchall() == []
    db.close()
# At rest it is a plain file, and the remote is known still.
assert len(sqlite3.connect("copy.db").execute("SELECT * FROM t").fetchall()) == 501
copy = connect("copy.db")
assert listed(copy, "head, behind, ahead, requests") == (5, 0, 0, 0)
"#;
    for kind in kinds() {
        println!("on {kind}");
        Host::each(|host, scratch| {
            host.python(scratch, &format!("{PREPARED}{script}"), &[kind]).ok();
        });
    }
}

#[test]
fn both_sides_committed_and_nothing_is_lost() {
    run_everywhere(
        r#"
push(source)
one(source, "SELECT tide_clone(?, ?)", URL, os.path.abspath("copy.db"))
copy = connect("copy.db")
source.execute("INSERT INTO t VALUES (2, 'here')")
copy.execute("INSERT INTO t VALUES (2, 'there')")
push(source)
here, there = rows(source), rows(copy)
for call in "tide_push", "tide_pull", "tide_sync":
    text = denies(copy, "DIVERGED", f"SELECT {call}()")
    assert "tide_export" in text
assert "DIVERGED" in listed(copy, "last_error")[0]
assert (rows(source), rows(copy)) == (here, there)
# What it says helps.
one(copy, "SELECT tide_export(?)", os.path.abspath("kept.db"))
assert sqlite3.connect("kept.db").execute("SELECT * FROM t ORDER BY id").fetchall() == there
one(copy, "SELECT tide_clone(?, ?)", URL, os.path.abspath("again.db"))
again = connect("again.db")
assert rows(again) == here
again.close()
# Or it is given up, once nobody has it open.
replace = ("SELECT tide_clone(?, ?, json_object('replace', ?))", URL, os.path.abspath("copy.db"))
assert "copy.db" in denies(source, "BUSY", *replace, 1)
denies(source, "ARGUMENT", *replace, 0)
assert "'replace'" in denies(source, "ARGUMENT", *replace, "yes")
assert rows(copy) == there
copy.close()
os.symlink("copy.db", "link.db")
assert one(source, replace[0], URL, os.path.abspath("link.db"), 1) == one(source, "SELECT tide_push()")
assert os.path.islink("link.db") and not [name for name in os.listdir(".") if "incoming" in name]
copy = connect("copy.db")
assert rows(copy) == here
copy.execute("INSERT INTO t VALUES (3, 'there')")
assert push(copy) == one(source, "SELECT tide_pull()")
assert rows(source) == rows(copy)
# What isn't a database of the same lineage is left as it was, and nothing is left beside it.
plain = sqlite3.connect("plain.db")
plain.execute("CREATE TABLE u(x)")
plain.close()
pathlib.Path("text.db").write_text("no database" * 99)
pathlib.Path("empty.db").touch()
os.mkdir("folder.db")
was = sorted(os.listdir("."))
for name in "plain.db", "text.db", "empty.db", "folder.db":
    denies(source, "FOREIGN", replace[0], URL, os.path.abspath(name), 1)
    assert sorted(os.listdir(".")) == was, name
# Another database's place isn't taken.
other = connect("other.db")
other.execute("CREATE TABLE u(x)")
one(other, "SELECT tide_remote('origin', ?)", URL)
denies(other, "FOREIGN", "SELECT tide_push()")
denies(other, "FOREIGN", "SELECT tide_pull()")
"#,
    );
}

#[test]
fn a_remote_that_is_away_blocks_nobody() {
    run(r#"
push(source)
os.rename("there", "away")
source.execute("INSERT INTO t VALUES (2, 'two')")
denies(source, "OFFLINE", "SELECT tide_push()")
denies(source, "OFFLINE", "SELECT tide_pull()")
denies(source, "OFFLINE", "SELECT tide_clone(?, ?)", URL, os.path.abspath("copy.db"))
assert not os.path.exists("copy.db") and not os.path.exists("copy.db-tide") and not os.path.exists("there")
error, success = listed(source, "last_error, last_success")
assert "OFFLINE" in error and success.endswith("Z")
source.execute("INSERT INTO t VALUES (3, 'three')")
os.rename("away", "there")
assert push(source) == 4
assert listed(source, "last_error, ahead") == (None, 0)
# Its last manifest and a segment go: what is there is told, and nothing is made up.
for segment in pathlib.Path("there/segment").glob("*/*"):
    segment.unlink()
text = denies(source, "MISSING", "SELECT tide_clone(?, ?)", URL, os.path.abspath("copy.db"))
assert "segment/" in text and not os.path.exists("copy.db")
"#);
}

#[test]
fn what_a_remote_that_is_away_has_not_got_stays_up_to_a_bound() {
    run(r#"
def part():
    """Whether the newest push is a full one, and the bytes of its part."""
    newest = max(pathlib.Path("there/manifest").iterdir())
    part = json.loads(newest.read_bytes().splitlines()[0])["part"]
    return part["full"], sum(segment["bytes"] for segment in part["segments"])

def needs_full(db):
    return one(db, "SELECT json_extract(tide_status(), '$.remotes[0].needs_full')")

def journal(db):
    return one(db, "SELECT json_extract(tide_status(), '$.journal_bytes')")

def write(db, mib):
    # The same pages again and again, and each time other ones.
    for _ in range(2 * mib):
        db.execute("INSERT OR REPLACE INTO t SELECT value, hex(randomblob(2000)) FROM json_each(?)", (json.dumps(list(range(100))),))

source.execute("PRAGMA synchronous = NORMAL")
one(source, "SELECT tide_retain('none')")
# The remote needn't tell commits apart.
one(source, "SELECT tide_remote('origin', ?, json_object('retain', 'none'))", URL)
push(source)
os.rename("there", "away")
head = lsn(source)
for closed in False, True, False:
    write(source, 20)
    one(source, "SELECT tide_fold()")
    denies(source, "OFFLINE", "SELECT tide_push()")
    if closed:
        source.close()
        # At rest it is plain, whatever is still to be sent.
        assert len(rows(sqlite3.connect("source.db"))) == 100
        source = connect("source.db")
        source.execute("PRAGMA synchronous = NORMAL")
assert journal(source) > 30 << 20 and not needs_full(source)
assert one(source, "SELECT json_extract(tide_status(), '$.horizon')") <= head
os.rename("away", "there")
push(source)
full, sent = part()
assert not full and sent < 1 << 20, (full, sent)
source.close()
source = connect("source.db")
assert journal(source) < 16 << 20, "nobody needs it any more"

# Beyond its bound it isn't waited for.
one(source, "SELECT tide_remote('origin', ?, json_object('spool_mib', 10))", URL)
os.rename("there", "away")
write(source, 40)
source.close()
source = connect("source.db")
assert needs_full(source) and journal(source) < 16 << 20
os.rename("away", "there")
push(source)
assert part()[0] and not needs_full(source)
one(source, "SELECT tide_clone(?, ?)", URL, os.path.abspath("copy.db"))
copy = connect("copy.db")
assert rows(copy) == rows(source)

# A clone that folds pushes what it has committed, and not all of it.
copy.execute("UPDATE t SET v = 'there' WHERE id = 7")
before = one(copy, "SELECT tide_lsn()") - 1
assert one(copy, "SELECT tide_fold()") == before
assert copy.execute("PRAGMA wal_checkpoint").fetchone()[0] == 0
push(copy)
full, sent = part()
assert not full and sent < 4096, (full, sent)
assert one(copy, "SELECT tide_fold()") == before + 1
assert pull(source) == before + 1 and rows(source) == rows(copy)
"#);
}

#[test]
fn several_remotes_each_have_a_position_and_are_forgotten_when_told() {
    run_everywhere(
        r#"
second = place("second")
assert push(source) == 2
source.execute("INSERT INTO t VALUES (2, 'two')")
one(source, "SELECT tide_remote('second', ?)", second)
assert one(source, "SELECT tide_push('second')") == 3
assert source.execute("SELECT name, head, ahead FROM tide_remotes").fetchall() == [("origin", 2, 1), ("second", 3, 0)]
text = denies(source, "BUSY", "SELECT tide_detach()")
assert "'origin'" in text or '"origin"' in text
one(source, "SELECT tide_remote('origin', NULL)")
assert [name for (name,) in source.execute("SELECT name FROM tide_remotes")] == ["second"]
text = denies(source, "ARGUMENT", "SELECT tide_push()")
assert "second" in text
# A second adding of the same changes nothing; another URL begins anew.
one(source, "SELECT tide_remote('second', ?)", second)
assert listed(source, "head", "second") == (3,)
one(source, "SELECT tide_remote('second', ?, json_object('spool_mib', 7))", second + "/")
assert listed(source, "url, head", "second") == (second + "/", 3)
assert one(source, "SELECT tide_push('second', json_object('every', NULL))") == 3
one(source, "SELECT tide_remote('second', ?)", place("third"))
assert listed(source, "head", "second") == (None,)
one(source, "SELECT tide_push('second')")
assert one(source, "SELECT tide_detach()") == 3
assert not os.path.exists("source.db-tide")
"#,
    );
}

#[test]
fn bad_input_is_refused_with_a_reason() {
    run(r#"
path = os.path.abspath("copy.db")
denies(source, "MISSING", "SELECT tide_clone(?, ?)", URL, path)
assert not os.path.exists(path) and not os.path.exists(path + "-tide")
push(source)
for statement, *values in [
    ("SELECT tide_remote(NULL, ?)", URL),
    ("SELECT tide_remote('', ?)", URL),
    ("SELECT tide_remote('a b', ?)", URL),
    ("SELECT tide_remote('x', 'backups')",),
    ("SELECT tide_remote('x', 's3://key:word@bucket/app')",),
    ("SELECT tide_remote('x', 'https://bucket.example/app')",),
    ("SELECT tide_remote('x', 's3://bucket/app', '{\"regoin\": \"x\"}')",),
    ("SELECT tide_remote('x', 'file:///')",),
    ("SELECT tide_remote('x', ?)", URL.replace("there", "source.db-tide")),
    ("SELECT tide_remote('x', ?)", URL.replace("there", "source.db-tide/in/it")),
    ("SELECT tide_remote('x', ?, '{\"cache_mib\": 1, \"cache_mib\": 2}')", URL),
    ("SELECT tide_push('origin', '{\"every\": \"1s\", \"every\": null}')",),
    ("SELECT tide_remote('x', 17)",),
    ("SELECT tide_remote('x', ?, '{\"pace\": 1}')", URL),
    ("SELECT tide_remote('x', ?, '[]')", URL),
    ("SELECT tide_remote('x', ?, '{\"single_writer\": \"yes\"}')", URL),
    ("SELECT tide_remote('x', ?, '{\"spool_mib\": -1}')", URL),
    ("SELECT tide_remote('x', NULL)",),
    ("SELECT tide_push('nobody')",),
    ("SELECT tide_push('origin', '{\"every\": \"soon\"}')",),
    ("SELECT tide_push('origin', '{\"often\": \"1s\"}')",),
    ("SELECT tide_pull('origin', '{\"every\": 1}')",),
    ("SELECT tide_pull('origin', 'nowhere')",),
    ("SELECT tide_push('nobody', '{\"every\": null}')",),
    ("SELECT tide_push(7)",),
    ("SELECT tide_clone(?, ?)", URL, os.path.abspath("source.db")),
    ("SELECT tide_clone(?, NULL)", URL),
    ("SELECT tide_clone(NULL, 'x.db')",),
    ("SELECT tide_clone(?, 'x.db', '{\"eager\": 1}')", URL),
]:
    denies(source, "ARGUMENT", statement, *values)
source.execute("BEGIN")
for call in "tide_push()", "tide_pull()", "tide_sync()", f"tide_remote('x', '{URL}')":
    denies(source, "DENIED", f"SELECT {call}")
source.execute("COMMIT")
assert [name for (name,) in source.execute("SELECT name FROM tide_remotes")] == ["origin"]
assert listed(source, "last_error") == (None,)
pathlib.Path("file").write_text("no folder")
text = denies(source, "ARGUMENT", "SELECT tide_remote('x', ?)", (pathlib.Path("file").absolute() / "in").as_uri())
"#);
}

#[test]
fn pushing_and_following_go_on_by_themselves_for_as_long_as_a_connection_is_open() {
    let follows = r#"
import time
def wait_for(what, holds):
    for _ in range(6000):
        if holds():
            return
        time.sleep(0.01)
    raise AssertionError(what)

assert one(source, "SELECT tide_push('origin', json_object('every', '20ms'))") == 2
path = os.path.abspath("copy.db")
one(source, "SELECT tide_clone(?, ?)", URL, path)
copy = connect("copy.db")
one(copy, "SELECT tide_pull('origin', json_object('every', '20ms'))")
wait_for("the first tries", lambda: all(listed(db, "next_try")[0] for db in (source, copy)))
for n in range(5):
    lsn = one(source, "SELECT tide_lsn()") + 1
    source.execute("INSERT INTO t VALUES (?, 0)", (n + 10,))
    wait_for(f"LSN {lsn}", lambda: one(copy, "SELECT tide_lsn()") == lsn)
assert rows(copy) == rows(source)
# Not any more.
one(source, "SELECT tide_push('origin', json_object('every', NULL))")
assert listed(source, "next_try") == (None,)
# Closed, it is at rest, whatever the thread was about.
one(source, "SELECT tide_push('origin', json_object('every', '1ms'))")
one(copy, "SELECT tide_hydrate()")
before = rows(source)
source.close()
copy.close()
for name in "source.db", "copy.db":
    assert rows(sqlite3.connect(name)) == before, name
if KIND != "file":
    sys.exit()
# A remote that is away is tried again later, and later.
source = connect("source.db")
there = one(source, "SELECT tide_lsn()")
source.execute("INSERT INTO t VALUES (98, 0)")
os.rename("there", "elsewhere")
assert one(source, "SELECT tide_push('origin', json_object('every', '10ms'))") == there
# A folder that isn't mounted is no new one.
denies(source, "OFFLINE", "SELECT tide_remote('origin', ?)", URL)
os.mkdir("there")
one(source, "SELECT tide_push('origin', json_object('every', NULL))")
text = denies(source, "MISSING", "SELECT tide_push()")
assert "tide_remote" in text and os.listdir("there") == []
os.rmdir("there")
one(source, "SELECT tide_push('origin', json_object('every', '10ms'))")
wait_for("a failure", lambda: listed(source, "last_error")[0] and listed(source, "next_try")[0])
source.execute("INSERT INTO t VALUES (99, 0)")
os.rename("elsewhere", "there")
wait_for("success", lambda: listed(source, "ahead, last_error") == (0, None))
"#;
    run_everywhere(follows);
}

#[test]
fn a_push_is_interrupted_by_the_host_and_secrets_are_not_kept() {
    let interrupts = r#"
import glob, socket, threading, time
# It listens, and never answers.
deaf = socket.socket()
deaf.bind(("127.0.0.1", 0))
deaf.listen(64)
where = f"http://127.0.0.1:{deaf.getsockname()[1]}"
options = json.dumps({"endpoint": where, "single_writer": True, "access_key_id": "AKEY", "secret_access_key": "HIDDEN", "timeout": "1h"})
one(source, "SELECT tide_remote('far', 's3://bucket/app', ?)", options)
timer = threading.Timer(0.3, source.interrupt)
timer.start()
begun = time.monotonic()
try:
    one(source, "SELECT tide_push('far')")
    raise AssertionError("it was answered")
except sqlite3.OperationalError as e:
    assert "INTERRUPTED" in str(e) or "interrupted" in str(e), e
assert one(source, "SELECT count(*) FROM t") == 1
# A commit and another remote have nothing to do with it.
push(source)
assert source.execute("SELECT kind, ahead FROM tide_remotes WHERE name = 'far'").fetchone() == ("s3", 2)
kept = b"".join(open(name, "rb").read() for name in glob.glob("source.db*/*") + ["source.db"])
assert b"HIDDEN" not in kept and b"AKEY" not in kept
assert where.encode() in kept
shown = str(source.execute("SELECT * FROM tide_remotes").fetchall()) + one(source, "SELECT tide_status()")
assert "HIDDEN" not in shown and "AKEY" not in shown
"#;
    run(interrupts);
}

#[test]
fn a_remote_is_encrypted_with_a_key_that_is_never_kept_or_told() {
    run_everywhere(
        r#"
import glob
KEY, OTHER = "5ea5" * 16, "0dd0" * 16
TEXT = "the fern by the window wants water"
path = os.path.abspath("app.key")
pathlib.Path(path).write_text(KEY + "\n")
pathlib.Path("other.key").write_text(OTHER)
os.environ["APP_KEY"] = KEY
os.environ["OTHER_KEY"] = f" {OTHER.upper()} "
place_of = place("sealed")
by_file, by_env = json.dumps({"key_file": path}), json.dumps({"key_env": "APP_KEY"})
wrong = [json.dumps({"key_file": os.path.abspath("other.key")}), json.dumps({"key_env": "OTHER_KEY"})]
anywhere = sqlite3.connect(":memory:", isolation_level=None)
def clone(path, *options):
    return one(anywhere, f"SELECT tide_clone(?, ?{', ?' * len(options)})", place_of, os.path.abspath(path), *options)

source.execute("INSERT INTO t SELECT value, ? || hex(randomblob(300)) FROM json_each(?)", (TEXT, json.dumps(list(range(2, 400)))))
one(source, "SELECT tide_remote('origin', ?, ?)", place_of, by_file)
assert push(source) == 3
assert clone("copy.db", by_env) == 3
copy = connect("copy.db")
assert rows(copy) == rows(source)
copy.execute("INSERT INTO t VALUES (1000, 'from the copy')")
assert one(copy, "SELECT tide_push()") == 4
assert pull(source) == 4 and rows(copy) == rows(source)
one(copy, "SELECT tide_hydrate()")
assert one(copy, "PRAGMA integrity_check") == "ok" and copy.execute("SELECT * FROM tide_verify").fetchall() == []

# Another key, none, and one that can't be had.
said = [denies(anywhere, "DENIED", "SELECT tide_clone(?, ?, ?)", place_of, os.path.abspath("no.db"), options) for options in wrong]
said.append(denies(anywhere, "DENIED", "SELECT tide_clone(?, ?)", place_of, os.path.abspath("no.db")))
assert "key_file" in said[-1] and "encrypted" in said[-1], said[-1]
said += [denies(source, "DENIED", "SELECT tide_remote('x', ?, ?)", place_of, options) for options in wrong + ["{}"]]
for code, options in [
    ("ARGUMENT", {"key_file": path, "key_env": "APP_KEY"}),
    ("ARGUMENT", {"key_file": "app.key"}),
    ("ARGUMENT", {"key_env": 7}),
    ("ARGUMENT", {"key": KEY}),
    ("ARGUMENT", {"key_env": "PATH"}),
    ("MISSING", {"key_file": path + "-none"}),
    ("MISSING", {"key_env": "NO_SUCH_KEY"}),
]:
    said.append(denies(source, code, "SELECT tide_remote('x', ?, ?)", place_of, json.dumps(options)))
plain = place("plain")
one(source, "SELECT tide_remote('plain', ?)", plain)
one(source, "SELECT tide_push('plain')")
said.append(denies(source, "ARGUMENT", "SELECT tide_remote('x', ?, ?)", plain, by_file))
assert "isn't encrypted" in said[-1], said[-1]
assert not os.path.exists("no.db") and not os.path.exists("no.db-tide")
assert [name for (name,) in source.execute("SELECT name FROM tide_remotes")] == ["origin", "plain"]

# The file is another by now: told, and right again when it is put back.
source.execute("INSERT INTO t VALUES (1001, 'later')")
if KIND == "file":
    pathlib.Path(path).write_text(OTHER)
    said.append(denies(source, "DENIED", "SELECT tide_push()"))
    said.append(listed(source, "last_error")[0])
    pathlib.Path(path).write_text(KEY)
assert push(source) == 5 and pull(copy) == 5

# Who says a moment later that there is no key puts nothing there in the clear.
one(source, "SELECT tide_remote('origin', ?, json_object('single_writer', 1, 'key_file', NULL))", place_of)
source.execute("INSERT INTO t VALUES (1003, 'in the clear')")
said += [denies(source, "DENIED", f"SELECT {call}()") for call in ["tide_push", "tide_pull", "tide_sync"]]
one(source, "SELECT tide_remote('origin', ?, ?)", place_of, by_env)
assert push(source) == 6 and pull(copy) == 6
one(source, "SELECT tide_remote('origin', ?, ?)", place_of, by_file)

# Opened anew, it is found where it was.
source.close()
copy.close()
source, copy = connect("source.db"), connect("copy.db")
source.execute("INSERT INTO t VALUES (1002, 'later still')")
assert push(source) == 7 and pull(copy) == 7 and rows(copy) == rows(source)

kept = b"".join(open(name, "rb").read() for name in glob.glob("*.db*/*") if os.path.isfile(name))
assert path.encode() in kept and b"APP_KEY" in kept
shown = "".join(said) + str(source.execute("SELECT * FROM tide_remotes").fetchall()) + one(source, "SELECT tide_status()")
for key in KEY, OTHER:
    assert key.encode() not in kept and bytes.fromhex(key) not in kept
    assert key[:8] not in shown.lower()
if KIND == "file":
    stored = [file for file in pathlib.Path("sealed").rglob("*") if file.is_file()]
    names = " ".join(str(file.relative_to("sealed")) for file in stored)
    content = b"".join(file.read_bytes() for file in stored)
    assert len(stored) > 6 and not any(word in names for word in ["manifest", "segment", "hint"]), names
    lineage = one(source, "SELECT json_extract(tide_status(), '$.lineage')")
    for word in TEXT[:16], "manifest", "segment", "TIDE" + "PACK", "TIDE" + "IMGS", lineage, KEY:
        assert word.encode() not in content, word
    assert bytes.fromhex(KEY) not in content
    # Each byte of what is there counts: a clone is right, or isn't made.
    expected = rows(source)
    for n, file in enumerate(sorted(stored)):
        sound = file.read_bytes()
        damaged = bytearray(sound)
        damaged[len(sound) * n // len(stored)] ^= 0x40
        file.write_bytes(damaged)
        name = f"clone-{n}.db"
        try:
            clone(name, by_file)
        except sqlite3.Error as e:
            assert any(code in str(e) for code in ["DAMAGED", "FORMAT", "DENIED"]), e
            assert not os.path.exists(name)
        else:
            db = connect(name)
            try:
                assert rows(db) == expected
            except sqlite3.Error:
                assert "DAMAGED" in one(anywhere, "SELECT tide_last_error()"), one(anywhere, "SELECT tide_last_error()")
            db.close()
        file.write_bytes(sound)
"#,
    );
}

/// Dies at each call that changes files, in turn, while it pushes, pulls or clones; see `py/crash.py`.
const KILLED: &str = r#"
from tide import *
from crash import *
import pathlib
calls = preloaded(sys.argv[1])
what = sys.argv[2]

def url():
    return pathlib.Path("there").absolute().as_uri()

def rows(db):
    return db.execute("SELECT * FROM t ORDER BY id").fetchall()

def fill(db, first, last):
    db.execute("INSERT INTO t SELECT value, hex(randomblob(200)) FROM json_each(?)", (json.dumps(list(range(first, last))),))

def begin():
    db = connect("a.db")
    db.execute("CREATE TABLE t(id INTEGER PRIMARY KEY, v)")
    fill(db, 0, 50)
    one(db, "SELECT tide_remote('origin', ?)", url())
    one(db, "SELECT tide_push()")
    one(db, "SELECT tide_clone(?, ?)", url(), os.path.abspath("b.db"))
    fill(db, 50, 90)
    if what != "push":
        one(db, "SELECT tide_push()")
    db.close()

def attempt(n):
    load()
    calls.crash_at(n)
    if what == "clone":
        db = sqlite3.connect(":memory:")
        one(db, "SELECT tide_clone(?, ?)", url(), os.path.abspath("c.db"))
        return
    db = connect("a.db" if what == "push" else "b.db")
    # The folder is another one each time; nothing else about the remote is.
    one(db, "SELECT tide_remote('origin', ?)", url())
    if what == "push":
        open("acks", "a").write(f"{one(db, 'SELECT tide_push()')}\n")
        fill(db, 90, 95)
        open("acks", "a").write(f"{one(db, 'SELECT tide_push()')}\n")
    else:
        one(db, "SELECT tide_pull()")
    db.close()

os.mkdir("new")
os.chdir("new")
begin()
os.chdir("..")
for n in at_every_call(calls, attempt):
    source = connect("a.db")
    one(source, "SELECT tide_remote('origin', ?)", url())
    acknowledged = [int(line) for line in open("acks")] if os.path.exists("acks") else []
    there = one(source, "SELECT tide_clone(?, ?)", url(), os.path.abspath("first.db"))
    assert there >= max(acknowledged, default=0), (n, there, acknowledged)
    fill(source, 100, 105)
    head = one(source, "SELECT tide_lsn()")
    assert one(source, "SELECT tide_push()") == head, n
    for name in ["b.db", "c.db"]:
        if os.path.exists(name):
            copy = connect(name)
            one(copy, "SELECT tide_remote('origin', ?)", url())
            assert one(copy, "SELECT tide_pull()") == head, (n, name)
            assert rows(copy) == rows(source), (n, name)
            assert copy.execute("SELECT * FROM tide_verify").fetchall() == [], (n, name)
            copy.close()
    assert one(source, "SELECT tide_clone(?, ?)", url(), os.path.abspath("last.db")) == head, n
    assert rows(connect("last.db")) == rows(source), n
    source.close()
assert n > 10, n
print(what, n, "calls")
"#;

#[test]
fn killed_at_any_call_a_push_a_pull_and_a_clone_lose_nothing() {
    let Some(crash) = crash_library() else { return };
    let crash = crash.to_str().expect("a path in text");
    for what in ["push", "pull", "clone"] {
        println!("{}", python(&Scratch::new(), KILLED, &[crash, what]).ok());
    }
}

#[test]
fn any_commit_that_was_pushed_is_restored_by_lsn_or_time() {
    run_everywhere(
        r#"
push(source)
for n in range(2, 40):
    source.execute("INSERT INTO t VALUES (?, ?)", (n, n))
    if n % 7 == 0:
        push(source)
push(source)
times = dict(source.execute("SELECT last_lsn, time FROM tide_log").fetchall())
for n in 2, 3, 17, 40:
    at = os.path.abspath(f"at-{n}.db")
    assert one(source, "SELECT tide_clone(?, ?, json_object('at', ?))", URL, at, n) == n
    db = connect(at)
    assert rows(db) == [row for row in rows(source) if row[0] < n]
    # It follows from there.
    assert pull(db) == lsn(source) and rows(db) == rows(source)
    db.close()
late = os.path.abspath("late.db")
assert one(source, "SELECT tide_clone(?, ?, json_object('as_of', ?))", URL, late, times[40]) == 40
for options, code in [
    ('{"at": 41}', "ARGUMENT"),
    ('{"at": 0}', "ARGUMENT"),
    ('{"at": "3"}', "ARGUMENT"),
    ('{"at": 3, "as_of": "2026-01-01"}', "ARGUMENT"),
    ('{"as_of": "yesterday"}', "ARGUMENT"),
    ('{"as_of": "2001-01-01"}', "TRIMMED"),
    ('{"at": 1}', "TRIMMED"),
]:
    path = os.path.abspath("never.db")
    denies(source, code, "SELECT tide_clone(?, ?, ?)", URL, path, options)
    assert not os.path.exists(path) and not os.path.exists(path + "-tide"), options
for retain in '"1 GB"', '"default"', '7', '"soon"':
    denies(source, "ARGUMENT", "SELECT tide_remote('origin', ?, ?)", URL, '{"retain": %s}' % retain)
one(source, "SELECT tide_remote('origin', ?, json_object('retain', 'none'))", URL)
source.execute("DELETE FROM t")
assert push(source) == 41
"#,
    );
}
