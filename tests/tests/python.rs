//! The same in Python's module `sqlite3`, on this system's SQLite.

use tideline_tests::{Scratch, python};

#[track_caller]
fn run(scratch: &Scratch, script: &str) {
    python(scratch, &format!("from tide import *\n{script}"), &[]).ok();
}

#[test]
fn the_main_job() {
    run(
        &Scratch::new(),
        r#"
notes = connect("notes.db")
notes.execute("CREATE TABLE note(id INTEGER PRIMARY KEY, body TEXT, picture BLOB)")
notes.execute("INSERT INTO note(body, picture) VALUES (?, ?)", ("bread", b"\x00\xff" * 5000))
with notes:
    notes.execute("BEGIN")
    notes.executemany("INSERT INTO note(body) VALUES (?)", [(f"note {n}",) for n in range(100)])
assert one(notes, "SELECT tide_lsn()") == 3
assert [row[0] for row in notes.execute("SELECT last_lsn FROM tide_log")] == [1, 2, 3]
blob = one(notes, "SELECT tide_prepare(0)")
assert isinstance(blob, bytes)

copy = connect("copy.db")
assert one(copy, "SELECT tide_receive(?)", blob) == 3
assert one(copy, "SELECT tide_receive(?)", blob) == 3
rows = "SELECT * FROM note ORDER BY id"
assert copy.execute(rows).fetchall() == notes.execute(rows).fetchall()
assert one(copy, "PRAGMA integrity_check") == "ok"

notes.execute("DELETE FROM note WHERE id > 50")
assert one(copy, "SELECT tide_receive(?)", one(notes, "SELECT tide_prepare(3)")) == 4
assert copy.execute(rows).fetchall() == notes.execute(rows).fetchall()
"#,
    );
}

#[test]
fn transactions_of_the_module_itself() {
    run(
        &Scratch::new(),
        r#"
load()
connection = sqlite3.connect(uri("a.db"), uri=True)
connection.execute("CREATE TABLE t(a INTEGER)")
connection.executemany("INSERT INTO t VALUES (?)", [(n,) for n in range(10)])
connection.commit()
connection.execute("DELETE FROM t")
assert one(connection, "SELECT count(*) FROM t") == 0
connection.rollback()
assert one(connection, "SELECT sum(a) FROM t") == 45
try:
    with connection:
        connection.execute("UPDATE t SET a = a + 1")
        raise KeyError("on purpose")
except KeyError:
    pass
assert one(connection, "SELECT sum(a) FROM t") == 45
with connection:
    connection.execute("UPDATE t SET a = a + 1")
connection.close()
again = sqlite3.connect(uri("a.db"), uri=True)
assert one(again, "SELECT sum(a) FROM t") == 55
"#,
    );
}

#[test]
fn many_databases_in_one_process_know_nothing_of_each_other() {
    run(
        &Scratch::new(),
        r#"
import threading
faults = []

def work(number):
    try:
        connection = connect(f"{number}.db")
        connection.execute("CREATE TABLE t(a)")
        for n in range(50):
            connection.execute("INSERT INTO t VALUES (?)", (number * 1000 + n,))
        assert one(connection, "SELECT tide_lsn()") == 51
        connection.close()
    except Exception as fault:
        faults.append(fault)

threads = [threading.Thread(target=work, args=(number,)) for number in range(6)]
load()
[thread.start() for thread in threads]
[thread.join() for thread in threads]
assert not faults, faults
for number in range(6):
    connection = connect(f"{number}.db")
    assert one(connection, "SELECT sum(a) FROM t") == 50 * number * 1000 + 1225
"#,
    );
}

#[test]
fn a_connection_moves_between_threads() {
    run(
        &Scratch::new(),
        r#"
import threading
connection = connect("a.db")
connection.execute("CREATE TABLE t(a)")

def work(number):
    connection.execute("BEGIN")
    connection.execute("INSERT INTO t VALUES (?)", (number,))

def finish():
    connection.execute("COMMIT")

for number in range(5):
    for step in (lambda: work(number), finish):
        thread = threading.Thread(target=step)
        thread.start()
        thread.join()
assert connection.execute("SELECT count(*), tide_lsn() FROM t").fetchone() == (5, 6)
"#,
    );
}

#[test]
fn values_of_every_kind_and_size_come_back() {
    run(
        &Scratch::new(),
        r#"
values = [None, 0, -1, 2**63 - 1, -(2**63), 1.5, "", "text", "\u00e4\u65e5\U0001f30a", b"", b"\x00" * 3,
          "x" * 1_000_000, bytes(range(256)) * 4000]
connection = connect("a.db")
connection.execute("CREATE TABLE t(id INTEGER PRIMARY KEY, v)")
for value in values:
    connection.execute("INSERT INTO t(v) VALUES (?)", (value,))
connection.close()
connection = connect("a.db")
assert [row[0] for row in connection.execute("SELECT v FROM t ORDER BY id")] == values
"#,
    );
}

#[test]
fn incremental_blobs_write_through_the_journal() {
    run(
        &Scratch::new(),
        r#"
connection = connect("a.db")
connection.execute("CREATE TABLE t(id INTEGER PRIMARY KEY, v BLOB)")
connection.execute("INSERT INTO t VALUES (1, zeroblob(100000))")
if hasattr(connection, "blobopen"):
    with connection.blobopen("t", "v", 1) as blob:
        blob.seek(50000)
        blob.write(b"tide")
    assert one(connection, "SELECT substr(v, 50001, 4) FROM t") == b"tide"
    assert one(connection, "SELECT tide_lsn()") == 3
    connection.close()
    assert one(connect("a.db"), "SELECT instr(v, x'74696465') FROM t") == 50001
"#,
    );
}

#[test]
fn without_the_library_loaded_the_vfs_is_not_there() {
    run(
        &Scratch::new(),
        r#"
fails(lambda: sqlite3.connect("file:a.db?vfs=tideline", uri=True), "no such vfs")
"#,
    );
}

#[test]
fn an_unknown_parameter_is_refused_with_its_name() {
    run(
        &Scratch::new(),
        r#"
load()
text = refused("ARGUMENT", lambda: sqlite3.connect(uri("a.db", wings=2), uri=True).execute("SELECT 1"))
assert "wings" in text, text
connect("a.db").execute("CREATE TABLE t(a)")
"#,
    );
}

#[test]
fn a_database_may_have_any_name_and_lie_anywhere() {
    run(
        &Scratch::new(),
        r#"
from urllib.parse import quote
load()
for name in ("with space.db", "per%cent.db", "hash#mark.db", "question?mark.db", "am&persand=.db", "\u00e4\u65e5.db",
             "no-extension", "sub/folder/x.db", "quote'd.db"):
    folder = os.path.dirname(name)
    if folder:
        os.makedirs(folder)
    connection = connect(quote(name))
    connection.execute("CREATE TABLE t(a)")
    connection.execute("INSERT INTO t VALUES (?)", (name,))
    connection.close()
    assert os.path.exists(name), name
    assert one(connect(quote(name)), "SELECT a FROM t") == name
"#,
    );
}
