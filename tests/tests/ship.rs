//! Shipping and replaying: `tide_prepare`, `tide_batches`, `tide_receive`, and what they refuse.

use tideline_tests::{Scratch, python};

/// A source at LSN 3, and helpers.
const PREPARED: &str = r#"
from tide import *

def prepare(db, after, *limit):
    marks = "".join(", ?" for _ in limit)
    return one(db, f"SELECT tide_prepare(?{marks})", after, *limit)

def receive(db, blob):
    return one(db, "SELECT tide_receive(?)", blob)

def lsn(db):
    return one(db, "SELECT tide_lsn()")

def rows(db):
    return db.execute("SELECT * FROM t ORDER BY id").fetchall()

def checksum(db):
    return one(db, "SELECT checksum FROM tide_log ORDER BY last_lsn DESC LIMIT 1")

source = connect("source.db")
source.execute("CREATE TABLE t(id INTEGER PRIMARY KEY, v)")
source.execute("INSERT INTO t VALUES (1, 'one')")
source.execute("INSERT INTO t VALUES (2, 'two')")
"#;

#[track_caller]
fn run(script: &str) {
    python(&Scratch::new(), &format!("{PREPARED}{script}"), &[]).ok();
}

#[test]
fn a_full_image_and_then_only_what_is_new() {
    run(r#"
copy = connect("copy.db")
full = prepare(source, 0)
assert receive(copy, full) == 3 == lsn(copy)
assert rows(copy) == rows(source)
source.execute("INSERT INTO t SELECT value, hex(zeroblob(300)) FROM json_each(?)", (json.dumps(list(range(10, 900))),))
source.execute("UPDATE t SET v = 'zwei' WHERE id = 2")
big = prepare(source, 3)
assert receive(copy, big) == 5
assert rows(copy) == rows(source)
source.execute("DELETE FROM t WHERE id = 1")
small = prepare(source, 5)
assert len(small) < len(big)
assert receive(copy, small) == 6
assert rows(copy) == rows(source)
assert prepare(source, 6) is None
assert one(copy, "PRAGMA integrity_check") == "ok"
"#);
}

#[test]
fn the_receiver_keeps_the_lineage_the_numbers_and_the_checksum() {
    run(r#"
copy = connect("copy.db")
receive(copy, prepare(source, 0))
lineage = "SELECT json_extract(tide_status(), '$.lineage')"
assert one(copy, lineage) == one(source, lineage)
source.execute("INSERT INTO t VALUES (3, 'three')")
receive(copy, prepare(source, 3))
source.execute("INSERT INTO t VALUES (4, 'four')")
source.execute("INSERT INTO t VALUES (5, 'five')")
receive(copy, prepare(source, 4))
log = "SELECT first_lsn, last_lsn, origin FROM tide_log WHERE first_lsn > 3"
assert copy.execute(log).fetchall() == [(4, 4, "received"), (5, 6, "received")]
assert source.execute(log).fetchall() == [(4, 4, "local"), (5, 5, "local"), (6, 6, "local")]
assert checksum(copy) == checksum(source)
copy.close()
copy = connect("copy.db")
assert lsn(copy) == 6 and rows(copy) == rows(source)
"#);
}

#[test]
fn a_copy_ships_on_to_the_next() {
    run(r#"
first, second = connect("first.db"), connect("second.db")
receive(first, prepare(source, 0))
receive(second, prepare(first, 0))
source.execute("INSERT INTO t VALUES (3, 'three')")
receive(first, prepare(source, 3))
receive(second, prepare(first, 3))
assert rows(second) == rows(source) and lsn(second) == 4
"#);
}

#[test]
fn the_same_blob_twice_an_older_one_and_nothing_are_harmless() {
    run(r#"
copy = connect("copy.db")
full = prepare(source, 0)
assert receive(copy, full) == 3
source.execute("INSERT INTO t VALUES (3, 'three')")
later = prepare(source, 3)
assert receive(copy, later) == 4
before = copy.execute("SELECT * FROM tide_log").fetchall()
for blob in (full, later, full, None, b""):
    assert receive(copy, blob) == 4
assert copy.execute("SELECT * FROM tide_log").fetchall() == before
assert rows(copy) == rows(source)
assert receive(connect("empty.db"), None) == 0
"#);
}

#[test]
fn a_blob_that_overlaps_is_applied_where_what_it_differs_from_is_there() {
    run(r#"
copy = connect("copy.db")
receive(copy, prepare(source, 0))
for n in range(3, 8):
    source.execute("INSERT INTO t VALUES (?, ?)", (n, str(n)))
receive(copy, prepare(source, 3, 1))
assert lsn(copy) == 4
# It never had LSN 2; it had 3, and still has its pages, folded or not; and all pages need nothing.
text = refused("GAP", lambda: receive(copy, prepare(source, 2)))
assert "LSN 2" in text and "tide_prepare(4)" in text, text
assert lsn(copy) == 4
assert receive(copy, prepare(source, 3)) == 8
assert rows(copy) == rows(source)
source.execute("INSERT INTO t VALUES (8, 'eight')")
source.execute("INSERT INTO t VALUES (9, 'nine')")
receive(copy, prepare(source, 8, 1))
assert lsn(copy) == 9
one(copy, "SELECT tide_fold()")
assert receive(copy, prepare(source, 8)) == 10
assert rows(copy) == rows(source)
other = connect("other.db")
receive(other, prepare(source, 0))
source.execute("INSERT INTO t VALUES (10, 'ten')")
refused("GAP", lambda: receive(other, prepare(source, 8)))
assert receive(other, prepare(source, 0)) == 11
assert rows(other) == rows(source)
"#);
}

#[test]
fn small_changes_are_shipped_in_few_bytes() {
    // Beside SQLite's session extension: 129 bytes for such an insert, 225 for such an update.
    run(r#"
import random
source.execute("CREATE TABLE big(id INTEGER PRIMARY KEY, k INTEGER, v TEXT)")
source.execute("CREATE INDEX big_k ON big(k)")
rng = random.Random(1)
source.executemany("INSERT INTO big VALUES (?, ?, ?)",
    [(n, rng.randrange(10**9), rng.randbytes(50).hex()) for n in range(20000)])
copy = connect("copy.db")
receive(copy, prepare(source, 0))
plain = one(source, "PRAGMA page_count") * one(source, "PRAGMA page_size")
assert len(prepare(source, 0)) < plain * 3 // 4

def shipped(sql, make):
    begun = lsn(source)
    for n in range(100):
        source.execute(sql, make(n))
    blob = prepare(source, begun)
    assert receive(copy, blob) == lsn(source)
    return len(blob) // 100
inserts = shipped("INSERT INTO big VALUES (?, ?, ?)", lambda n: (20000 + n, rng.randrange(10**9), rng.randbytes(50).hex()))
updates = shipped("UPDATE big SET v = ? WHERE id = ?", lambda n: (rng.randbytes(50).hex(), rng.randrange(20000)))
indexed = shipped("UPDATE big SET k = ? WHERE id = ?", lambda n: (rng.randrange(10**9), rng.randrange(20000)))
print(inserts, updates, indexed)
assert inserts < 3 * 129 and updates < 225 and indexed < 4 * 225, (inserts, updates, indexed)
assert rows(copy) == rows(source) and copy.execute("SELECT * FROM big").fetchall() == source.execute("SELECT * FROM big").fetchall()
assert one(copy, "PRAGMA integrity_check") == "ok"
"#);
}

#[test]
fn a_limit_ships_at_least_one_commit_and_then_near_its_size() {
    run(r#"
copy = connect("copy.db")
assert receive(copy, prepare(source, 0)) == 3
for n in range(3, 40):
    source.execute("INSERT INTO t VALUES (?, ?)", (n, "x" * 3000))
assert receive(copy, prepare(source, 3, 1)) == 4
steps = 0
while lsn(copy) < lsn(source):
    before = lsn(copy)
    blob = prepare(source, before, 50_000)
    assert len(blob) < 150_000, len(blob)
    assert receive(copy, blob) > before
    steps += 1
assert 1 < steps < 37, steps
assert rows(copy) == rows(source)
"#);
}

#[test]
fn batches_bring_a_database_in_pieces_across_a_restart() {
    run(r#"
source.execute("INSERT INTO t SELECT value, randomblob(800) FROM json_each(?)", (json.dumps(list(range(10, 2000))),))
pieces = source.execute("SELECT seq, blob FROM tide_batches(0, 100000)").fetchall()
assert len(pieces) > 5, len(pieces)
assert [seq for seq, _ in pieces] == list(range(pieces[0][0], pieces[0][0] + len(pieces)))
copy = connect("copy.db")
for number, (_, blob) in enumerate(pieces):
    reached = receive(copy, blob)
    if reached < 4:
        assert one(copy, "SELECT count(*) FROM sqlite_schema") == 0 or reached > 0
    if number == 2:
        copy.close()
        copy = connect("copy.db")
assert reached == 4
assert rows(copy) == rows(source)
assert one(copy, "PRAGMA integrity_check") == "ok"
"#);
}

#[test]
fn a_gap_is_refused_and_changes_nothing() {
    run(r#"
copy = connect("copy.db")
receive(copy, prepare(source, 0))
for n in range(3, 6):
    source.execute("INSERT INTO t VALUES (?, ?)", (n, str(n)))
blob = prepare(source, 5)
refused("GAP", lambda: receive(copy, blob))
refused("GAP", lambda: receive(connect("empty.db"), blob))
assert lsn(copy) == 3 and len(rows(copy)) == 2
assert receive(copy, prepare(source, 3)) == 6
assert receive(copy, blob) == 6
"#);
}

#[test]
fn another_lineage_is_refused() {
    run(r#"
other = connect("other.db")
for n in range(5):
    other.execute(f"CREATE TABLE u{n}(a)")
for blob in (prepare(other, 0), prepare(other, 3)):
    refused("FOREIGN", lambda: receive(source, blob))
refused("FOREIGN", lambda: receive(other, prepare(source, 0)))
assert lsn(source) == 3 and lsn(other) == 5
assert [row[0] for row in source.execute("SELECT name FROM sqlite_schema")] == ["t"]
"#);
}

#[test]
fn a_replica_that_wrote_for_itself_is_told_that_it_diverged() {
    run(r#"
copy = connect("copy.db")
receive(copy, prepare(source, 0))
copy.execute("INSERT INTO t VALUES (100, 'mine')")
source.execute("INSERT INTO t VALUES (3, 'theirs')")
source.execute("INSERT INTO t VALUES (4, 'theirs')")
for after in (2, 3, 4):
    refused("DIVERGED", lambda: receive(copy, prepare(source, after)))
assert lsn(copy) == 4 and rows(copy)[-1] == (100, "mine")
copy.execute("INSERT INTO t VALUES (101, 'mine')")
assert lsn(copy) == 5
"#);
}

#[test]
fn damage_is_noticed_wherever_it_is() {
    run(r#"
source.execute("INSERT INTO t SELECT value, hex(zeroblob(200)) FROM json_each(?)", (json.dumps(list(range(10, 200))),))
copy = connect("copy.db")
receive(copy, prepare(source, 0, 1))
reached, contents = lsn(copy), rows(copy)
source.execute("UPDATE t SET v = 'changed'")
blob = prepare(source, reached)
places = list(range(0, 200)) + list(range(200, len(blob), 397)) + list(range(len(blob) - 100, len(blob)))
for place in places:
    broken = bytearray(blob)
    broken[place] ^= 0x20
    try:
        receive(copy, bytes(broken))
    except sqlite3.Error as error:
        assert "tideline: " in str(error) and "; " in str(error), error
        assert any(code in str(error) for code in ("DAMAGED", "FORMAT")), (place, str(error))
    else:
        raise AssertionError(f"byte {place} of {len(blob)} was changed, and nobody noticed")
    assert lsn(copy) == reached
for length in [1, 2, 7, 8, 15, 16, 31, 63, 100] + list(range(128, len(blob), 611)) + [len(blob) - 1]:
    refused("DAMAGED", lambda: receive(copy, blob[:length]))
fails(lambda: receive(copy, blob + b"\0"), "tideline: ")
fails(lambda: receive(copy, b"this was never one of ours, whatever its length may be" * 20), "tideline: ")
assert rows(copy) == contents
assert one(copy, "PRAGMA integrity_check") == "ok"
assert receive(copy, blob) == lsn(source)
assert rows(copy) == rows(source)
"#);
}

#[test]
fn arguments_that_make_no_sense_are_refused() {
    run(r#"
for after in (4, 1000, -1, "x", None, b"x", 1.5, 2**63 - 1):
    refused("ARGUMENT", lambda: prepare(source, after))
refused("ARGUMENT", lambda: prepare(source, 0, 0))
refused("ARGUMENT", lambda: prepare(source, 0, -5))
for blob in (12, "text", 1.5):
    refused("ARGUMENT", lambda: receive(source, blob))
refused("ARGUMENT", lambda: one(source, "SELECT tide_lsn('nowhere')"))
for schema in ("main", None):
    assert receive(connect(f"{schema}.db"), prepare(source, 0, None, schema)) == 3
fails(lambda: one(source, "SELECT tide_prepare()"), "wrong number of arguments")
fails(lambda: one(source, "SELECT tide_receive()"), "wrong number of arguments")
assert lsn(source) == 3
"#);
}

#[test]
fn inside_a_transaction_nothing_is_received() {
    run(r#"
copy = connect("copy.db")
receive(copy, prepare(source, 0))
source.execute("INSERT INTO t VALUES (3, 'three')")
blob = prepare(source, 3)
copy.execute("BEGIN")
copy.execute("INSERT INTO t VALUES (50, 'mine')")
fails(lambda: receive(copy, blob), "tideline: ")
copy.execute("ROLLBACK")
copy.execute("BEGIN")
rows(copy)
fails(lambda: receive(copy, blob), "tideline: ")
copy.execute("COMMIT")
assert lsn(copy) == 3
assert receive(copy, blob) == 4
"#);
}

#[test]
fn a_connection_sees_what_it_received() {
    run(r#"
copy = connect("copy.db")
receive(copy, prepare(source, 0))
statement = "SELECT v FROM t WHERE id = 1"
assert one(copy, statement) == "one"
counter, cookie = (lambda: copy.execute("PRAGMA data_version").fetchone()[0]), one(copy, "PRAGMA schema_version")
source.execute("UPDATE t SET v = 'uno' WHERE id = 1")
receive(copy, prepare(source, 3))
assert one(copy, statement) == "uno"
source.execute("DROP TABLE t")
source.execute("CREATE TABLE t(v TEXT, id INTEGER PRIMARY KEY, w)")
source.execute("INSERT INTO t VALUES ('new', 1, 'column')")
receive(copy, prepare(source, 4))
assert one(copy, statement) == "new"
assert one(copy, "PRAGMA schema_version") > cookie
assert one(copy, "SELECT w FROM t") == "column"
"#);
}

#[test]
fn a_database_that_shrank_arrives_as_small_as_it_is() {
    run(r#"
copy = connect("copy.db")
source.execute("INSERT INTO t SELECT value, randomblob(3000) FROM json_each(?)", (json.dumps(list(range(10, 500))),))
receive(copy, prepare(source, 0))
source.execute("DELETE FROM t WHERE id > 5")
source.execute("VACUUM")
receive(copy, prepare(source, 4))
assert one(copy, "PRAGMA page_count") == one(source, "PRAGMA page_count") < 10
assert one(copy, "PRAGMA integrity_check") == "ok"
assert rows(copy) == rows(source)
source.execute("INSERT INTO t SELECT value, randomblob(3000) FROM json_each(?)", (json.dumps(list(range(10, 500))),))
receive(copy, prepare(source, 6))
assert rows(copy) == rows(source)
assert checksum(copy) == checksum(source)
"#);
}

#[test]
fn page_sizes_travel() {
    run(r#"
for size in (512, 1024, 8192, 65536):
    origin, copy = connect(f"origin{size}.db"), connect(f"copy{size}.db")
    origin.execute(f"PRAGMA page_size = {size}")
    origin.execute("CREATE TABLE t(id INTEGER PRIMARY KEY, v)")
    origin.execute("INSERT INTO t VALUES (1, hex(zeroblob(5000)))")
    assert receive(copy, prepare(origin, 0)) == 2
    assert rows(copy) == rows(origin)
    assert one(copy, "PRAGMA page_size") == size
"#);
}
